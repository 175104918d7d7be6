"""The station as an LPA in factory mode: what its heads share on the way to SM-DP+ (SGP.22 v2)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from ifpp.errors import SupplyError
from ifpp.fpa.chip import Chip
from ifpp.fpa.es9 import Es9Client, HeadEs9
from ifpp.fpa.load import Progress
from ifpp.fpa.rsp import Download, Lpa, close_left_open, download, notify, require_accounted
from ifpp.model.clock import Clock
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Claim, ClaimedPackage
from ifpp.model.rsp import ActivationCode, DownloadOrder
from ifpp.model.states import PackageState
from ifpp.station.rsp_book import RspBook
from ifpp.station.rsp_outbox import RspOutbox
from ifpp.trust.chain import TrustStore


@dataclass(frozen=True, slots=True)
class Downloads:
    """One client of ES9+ and one book for all heads. `attempts`: sessions of one download, while the network fails."""

    client: Es9Client
    book: RspBook
    trust: TrustStore
    clock: Clock
    attempts: int = 3

    async def run(self) -> None:
        """Deliver what heads could not, until cancelled."""
        try:
            await RspOutbox(self.book, self.client).run()
        finally:
            await self.client.close()

    def of(self, chip: Chip, progress: Progress) -> HeadDownloads:
        """Return one head's way to SM-DP+; to be called on the loop."""
        es9 = HeadEs9(self.client, asyncio.get_running_loop())
        return HeadDownloads(
            chip, self.book, es9, Lpa(es9, self.book, self.trust, self.clock.now, self.attempts, progress)
        )


@dataclass(frozen=True, slots=True)
class HeadDownloads:
    """One head's way to SM-DP+. Blocking: for the thread that owns the chip."""

    chip: Chip
    book: RspBook
    es9: HeadEs9
    lpa: Lpa

    def take_over(self, eid: Eid, claim: Claim) -> None:
        """End a session of this chip that nobody will ask for any more: the books have the outcome of its code.

        Raises ServiceError when its SM-DP+ has to be told and cannot be, and what reading the chip raises.
        """
        session = self.book.left_open(eid)
        if session is None or session.package_id in {one.package_id for one in (*claim.unresolved, *claim.packages)}:
            return
        if any(session.package_id == done.package_id for done in claim.installed):
            self.book.end(session)  # settled here, or read from the chip by another station
        elif close_left_open(self.chip, eid, self.lpa) is not None:
            self.book.taken(eid, session.package_id)

    def require_accounted(self, known: Collection[Iccid]) -> None:
        """See `ifpp.fpa.rsp.require_accounted`."""
        require_accounted(self.chip, known)

    def fetch(self, order: DownloadOrder) -> Download:
        """Download one profile (`ifpp.fpa.rsp.download`)."""
        return download(self.chip, order, self.lpa)

    def notify(self, eid: Eid) -> tuple[int, int]:
        """Deliver what the chip keeps for its SM-DP+ (`ifpp.fpa.rsp.notify`)."""
        return notify(self.chip, eid, self.es9, self.book)

    def taken(self, eid: Eid, package_id: str) -> None:
        """The outcome is in the books."""
        self.book.taken(eid, package_id)


def code_order(eid: Eid, package: ClaimedPackage) -> DownloadOrder:
    """Return what a claimed activation code asks for; raises SupplyError RSP.CODE_REFUSED when it is none."""
    try:
        code = ActivationCode.parse(package.activation_code)
    except ValueError as error:
        raise SupplyError("RSP.CODE_REFUSED", str(error), where=package.package_id) from error
    return DownloadOrder(package_id=package.package_id, eid=eid, code=code, confirmation_code=package.confirmation_code)


def is_code(package: ClaimedPackage) -> bool:
    """Whether this is an activation code and not a package."""
    return package.kind == "code"


def was_sent(package: ClaimedPackage) -> bool:
    """Whether an earlier attempt began with it and nobody knows its end."""
    return package.state in (PackageState.SENT, PackageState.UNKNOWN)
