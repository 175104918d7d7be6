"""Requests for bound packages: what is still missing for a job order or a lot of chips (SGP.41, Esbpp).

Of a chip that lacks a profile the first one-time key without a package is asked for. A request that is written
again before its delivery has come asks for the same keys: one key is bound once, so nothing can come twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ifpp.errors import CustodyError, SupplyError
from ifpp.model.clock import utc_ms_text, uuid7
from ifpp.model.ids import Eid
from ifpp.model.messages import Job
from ifpp.model.orders import ENDED
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from ifpp.store.supply import HeldPackage, LotChip
from ifpp.wire.documents import RequestHeader, RequestItem, write_esbpp_request
from ifpp.wire.jsonlines import Hex, Stamp, Writer

_INFO2_NAME = 16  # hex digits of its digest


@dataclass(frozen=True, slots=True)
class Wish:
    """What each chip shall carry: the profiles of one SKU and region, each from any SM-DPf or a named one.

    `job`: the job order it is for, "" = no certain one; chips kept for another one are for something else.
    """

    sku: str
    region: str
    profiles: tuple[Planned, ...]
    job: str = ""

    def lacking(self, chip: LotChip) -> list[Planned]:
        """Return the profiles a chip has no package for."""
        return [wanted for wanted in self.profiles if not any(self._is(wanted, held) for held in chip.held)]

    def _is(self, wanted: Planned, held: HeldPackage) -> bool:
        same = (held.sku, held.region, held.profile_type) == (self.sku, self.region, wanted.profile_type)
        return same and wanted.smdp_oid in ("", held.smdp_oid)

    def elsewhere(self, chip: LotChip) -> bool:
        """Whether a chip is meant, or being reworked, for another SKU or region, or kept for another job order."""
        if self.job and chip.kept_for not in ("", self.job):
            return True
        if chip.target not in (None, (self.sku, self.region)):
            return True
        return any((held.sku, held.region) != (self.sku, self.region) for held in chip.held)


@dataclass(slots=True)
class RequestReport:
    """What was asked for, in `files`; `short` chips have too few one-time keys, `missing` units no chip."""

    files: list[Path] = field(default_factory=list)
    packages: int = 0
    chips: int = 0
    covered: int = 0
    elsewhere: int = 0
    short: int = 0
    missing: int = 0


def job_named(factory: Factory, line: str, job_order_id: str) -> Job:
    """Return the newest version of a job order of the line; raises SupplyError JOB.UNKNOWN."""
    found = next((job for job in factory.jobs(line) if job.job_order_id == job_order_id), None)
    if found is None:
        raise SupplyError("JOB.UNKNOWN", f"line {line} has no such job order", where=job_order_id)
    return found


def still_needed(factory: Factory, job: Job) -> int:
    """Return how many units of a job order are still to be made: those that passed need no package any more.

    None of an order that has ended, however many it made.
    """
    if job.dispatch_status in ENDED:
        return 0
    done = sum(
        row.final_pass
        for row in factory.unit_counts()
        if (row.job_order_id, row.operation) == (job.job_order_id, job.operation)
    )
    return max(0, job.quantity - done)


def write_requests(
    factory: Factory,
    folder: Path,
    wish: Wish,
    *,
    now: datetime,
    lot: str = "",
    quantity: int | None = None,
    order_ref: str,
) -> RequestReport:
    """Write a request into `folder` for each EUM of chips that lack a package, and each SM-DPf a wish names.

    Nothing is written when nothing is missing. `lot` names eUICC data, without it every chip counts that has not left;
    `quantity` is how many chips are wanted that have not left, those that are covered included. Raises SupplyError
    LOT.UNKNOWN, CustodyError FILE.WRITE, ServiceError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"the folder cannot be made ({error.strerror})", where=str(folder)) from error
    report = RequestReport()
    number = factory.lot_number(lot) if lot else None
    for chip in factory.lot_chips(number, now):
        report.elsewhere += wish.elsewhere(chip)
        report.covered += not wish.elsewhere(chip) and not wish.lacking(chip)
    left = None if quantity is None else max(0, quantity - report.covered)
    with ExitStack() as files:
        desk = _Desk(factory, number, folder, files, order_ref, now)
        for chip in _uncovered(factory.lot_chips(number, now), wish):
            lacking = wish.lacking(chip)
            if report.chips == left:
                break
            if len(chip.free_keys) < len(lacking):
                report.short += 1
                continue
            desk.ask(chip, wish, lacking)
            report.chips += 1
            report.packages += len(lacking)
        report.files = desk.paths
    report.missing = 0 if left is None else left - report.chips
    return report


def _uncovered(chips: Iterable[LotChip], wish: Wish) -> Iterable[LotChip]:
    return (chip for chip in chips if not wish.elsewhere(chip) and wish.lacking(chip))


class _Desk:
    """The files of one request, one for each EUM and SM-DPf; each is begun with its first item."""

    def __init__(
        self, factory: Factory, number: int | None, folder: Path, files: ExitStack, order_ref: str, now: datetime
    ) -> None:
        self._shared = factory.lot_shared(number)
        self._folder = folder
        self._files = files
        self._order_ref = order_ref
        self._now = now
        self._open: dict[tuple[str, str], Writer[RequestItem]] = {}
        self.paths: list[Path] = []

    def ask(self, chip: LotChip, wish: Wish, lacking: Sequence[Planned]) -> None:
        """Ask for packages of one chip, a free key for each."""
        for wanted, (otk_id, public) in zip(lacking, chip.free_keys, strict=False):
            request = self._open.get((chip.chain_id, wanted.smdp_oid)) or self._begin(chip.chain_id, wanted.smdp_oid)
            request.add(
                RequestItem(
                    eid=Eid(chip.eid),
                    otk_id=Hex.fromhex(otk_id),
                    otk_public=public,
                    euicc_certificate=chip.certificate,
                    otk_list=chip.otk_list,
                    info2=chip.info2_id[:_INFO2_NAME],
                    profile_type=wanted.profile_type,
                    sku=wish.sku,
                    region=wish.region,
                )
            )

    def _begin(self, chain_id: str, smdp_oid: str) -> Writer[RequestItem]:
        certificates, info2 = self._shared[chain_id]
        header = RequestHeader(
            request_id=uuid7(self._now),
            order_ref=self._order_ref,
            created_at=Stamp(utc_ms_text(self._now)),
            eum_chain=certificates,
            euicc_info2={info2_id[:_INFO2_NAME]: raw for info2_id, raw in info2.items()},
        )
        whom = f"{smdp_oid}-" if smdp_oid else ""
        path = self._folder / f"{whom}{header.request_id}.esbpp-request.jsonl"
        request = self._files.enter_context(write_esbpp_request(path, header))
        self._open[chain_id, smdp_oid] = request
        self.paths.append(path)
        return request
