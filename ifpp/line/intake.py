"""Files that come to the factory: verified first, then taken in one transaction, or refused as a whole.

Plan for a file (numbers reappear in the code):
  1. A file that is byte for byte one imported before is done: nothing happens.
  2. The header says what the file is; its certificates hold.
  3. Every item holds by itself; every bad one is noted, also one that cannot be read.
  4. The file is complete: trailer, count and digest hold. Any fault so far refuses the file.
  5. The same bytes are read a second time and go into the store in one transaction; the store refuses what it has
     already: EIDs, one-time keys, ICCIDs, transactions.

One item is in memory at a time. The long part, 3, holds no lock: stations claim packages meanwhile.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

import msgspec

from ifpp.errors import IfppError, IntakeError, SettingsError, VerificationError, WireError
from ifpp.model.clock import parse_utc
from ifpp.model.messages import Job
from ifpp.store.factory import Factory
from ifpp.store.intake import Intake
from ifpp.store.records import BatchRow, ChipItem, ChipRow, PackageItem
from ifpp.trust.chain import TrustStore
from ifpp.trust.verify import ExpectedPackage, check_otk_list, check_package
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.documents import (
    DeliveryItem,
    EsedItem,
    read_delivery,
    read_esed,
    read_job_order,
)
from ifpp.wire.es10 import parse_info2
from ifpp.wire.fpx import parse_otk_list, parse_prepare_download
from ifpp.wire.jsonlines import MAX_LINE_BYTES

MAX_LISTED = 100
_PROGRESS_ITEMS = 100
_READ_BYTES = 1 << 20
_ITEM_FAULTS = frozenset({"INTAKE.FORMAT", "INTAKE.BAD_ID"})  # after these the next line can still be read

Progress = Callable[[str, int], None]
"""Called with the phase ("verify", "import") and the number of items done, every hundred items and at the end."""


class IntakeOutcome(StrEnum):
    """What became of a file that was not refused."""

    IMPORTED = "IMPORTED"
    ALREADY_IMPORTED = "ALREADY_IMPORTED"
    WOULD_IMPORT = "WOULD_IMPORT"  # a dry run: everything holds, nothing was kept


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What became of one file; `kind` is "esed", "esbpp" or "job", `sha256` that of the whole file in hex."""

    name: str
    kind: str
    sha256: str
    items: int
    outcome: IntakeOutcome


def import_file(
    path: Path,
    factory: Factory,
    trust_store: TrustStore,
    *,
    now: datetime,
    line: str,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> IntakeReport:
    """Import eUICC data, a delivery or a job order (for `line`), recognised by its header; see the plan above.

    A dry run does everything, the transaction included, and then rolls it back. Raises IntakeError for a refused file:
    with the code of the fault when it is the whole file's, else INTAKE.REJECTED; `items` lists the first hundred bad
    items, each with its code, line and ids. Nothing of a refused file is in the store. Raises SettingsError when the
    file cannot be opened and ServiceError when the database does not answer.
    """
    # way of a unit, step 1
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be opened ({error.strerror})", where=str(path)) from error
    with file:
        task = _Import(file, path.name, factory, trust_store, now, line, progress or _silent)
        return task.run(dry_run=dry_run)


def _silent(_phase: str, _items: int) -> None:
    """Nobody watches."""


class _DryRunEndsError(Exception):
    """Rolls back the transaction of a dry run."""


ItemT = TypeVar("ItemT")


class _Document(ABC, Generic[ItemT]):
    """One kind of file: how its items are read, checked and taken. Made once for each reading."""

    kind: ClassVar[str]
    items: Iterator[ItemT]

    @property
    @abstractmethod
    def where(self) -> str:
        """File and line of the item read last."""

    @abstractmethod
    def check_header(self, trust_store: TrustStore, now: datetime) -> None:
        """Step 2; raises IfppError."""

    @abstractmethod
    def check(self, item: ItemT, trust_store: TrustStore, now: datetime) -> None:
        """Step 3 of one item; raises IntakeError, VerificationError or WireError."""

    @abstractmethod
    def add(self, intake: Intake, item: ItemT) -> None:
        """Step 5 of one item."""

    @abstractmethod
    def ids(self, item: ItemT) -> str:
        """Name an item in errors."""


class _Esed(_Document[EsedItem]):
    """eUICC data of an EUM."""

    kind = "esed"

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._header, self.items = self._lines = read_esed(stream, name)

    @property
    def where(self) -> str:
        return self._lines[1].where

    def check_header(self, trust_store: TrustStore, now: datetime) -> None:
        trust_store.check_eum(self._header.eum_chain, now)
        for info2 in self._header.euicc_info2.values():
            parse_info2(info2)

    def check(self, item: EsedItem, trust_store: TrustStore, now: datetime) -> None:
        if item.info2 not in self._header.euicc_info2:
            raise IntakeError("INTAKE.BINDING", f"the header has no EUICCInfo2 {item.info2!r}", where="info2")
        euicc = trust_store.euicc(item.euicc_certificate, self._header.eum_chain, item.eid, now)
        check_otk_list(parse_otk_list(item.otk_list), euicc)

    def add(self, intake: Intake, item: EsedItem) -> None:
        intake.add_chip(
            ChipItem(
                eid=item.eid,
                certificate=item.euicc_certificate,
                eum_chain=tuple(self._header.eum_chain),
                info2=self._header.euicc_info2[item.info2],
                otk_list=item.otk_list,
                keys=parse_otk_list(item.otk_list).keys,
            )
        )

    def ids(self, item: EsedItem) -> str:
        return f"EID {item.eid}"


class _Delivery(_Document[DeliveryItem]):
    """Bound packages of an SM-DPf."""

    kind = "esbpp"

    def __init__(self, stream: BinaryIO, name: str, factory: Factory) -> None:
        self._header, self.items = self._lines = read_delivery(stream, name)
        self._factory = factory
        self._chip: ChipRow | None = None

    @property
    def where(self) -> str:
        return self._lines[1].where

    def check_header(self, trust_store: TrustStore, now: datetime) -> None:
        oid = trust_store.smdp(self._header.smdp_chain, now).oid
        if oid != self._header.smdp_oid:
            detail = f"the header names SM-DPf {self._header.smdp_oid}, its certificate {oid}"
            raise IntakeError("INTAKE.BINDING", detail, where="smdp_oid")

    def check(self, item: DeliveryItem, trust_store: TrustStore, now: datetime) -> None:
        expected = ExpectedPackage(
            eid=item.eid,
            iccid=item.iccid,
            transaction_id=item.transaction_id,
            otk_public=self._one_time_key(item),
            bpp_sha256=item.bpp_sha256,
            expires_at=None if item.expires_at is None else parse_utc(item.expires_at),
        )
        smdp = trust_store.smdp(self._header.smdp_chain, now)
        check_package(parse_bpp(item.bpp), parse_prepare_download(item.prepare_download), expected, smdp, now)

    def add(self, intake: Intake, item: DeliveryItem) -> None:
        intake.add_package(
            PackageItem(
                eid=item.eid,
                otk_id=item.otk_id,
                transaction_id=item.transaction_id,
                iccid=item.iccid,
                profile_type=item.profile_type,
                sku=item.sku,
                region=item.region,
                smdp_oid=self._header.smdp_oid,
                smdp_chain=tuple(self._header.smdp_chain),
                order_ref=self._header.order_ref,
                prepare_download=item.prepare_download,
                bpp=item.bpp,
                bpp_sha256=item.bpp_sha256.hex(),
                expires_at=None if item.expires_at is None else parse_utc(item.expires_at),
            )
        )

    def ids(self, item: DeliveryItem) -> str:
        return f"EID {item.eid}, ICCID {item.iccid}"

    def _one_time_key(self, item: DeliveryItem) -> bytes:
        """Return the public point that the chip's eUICC data hold under the item's otkId."""
        if self._chip is None or self._chip.eid != item.eid:
            self._chip = self._factory.chip(item.eid)
        if self._chip is None:
            raise IntakeError("INTAKE.UNKNOWN_EID", "the store has no eUICC data of this chip", where="eid")
        public = self._chip.keys.get(item.otk_id.hex())
        if public is None:
            detail = f"one-time key {item.otk_id.hex()} is not in the chip's eUICC data"
            raise IntakeError("INTAKE.UNKNOWN_KEY", detail, where="otk_id")
        return public


class _JobOrder(_Document[Job]):
    """One job order of the planner."""

    kind = "job"

    def __init__(self, stream: BinaryIO, name: str, line: str) -> None:
        self.items = iter((read_job_order(stream, name),))
        self._name = name
        self._line = line

    @property
    def where(self) -> str:
        return self._name

    def check_header(self, trust_store: TrustStore, now: datetime) -> None:
        """A job order is not signed: it comes from inside the factory."""

    def check(self, item: Job, trust_store: TrustStore, now: datetime) -> None:
        del trust_store, now
        if not (item.job_order_id and item.product.part_number and item.region):
            raise IntakeError("INTAKE.FORMAT", "it needs an id, a part number and a region", where="job")
        if item.version < 1 or item.quantity < 1:
            raise IntakeError("INTAKE.FORMAT", "version and quantity start at 1", where="job")

    def add(self, intake: Intake, item: Job) -> None:
        intake.add_job(self._line, item)

    def ids(self, item: Job) -> str:
        return f"job order {item.job_order_id}"


class _BadItems:
    """The first bad items of a file, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[IfppError] = []

    @property
    def first(self) -> tuple[IfppError, ...]:
        return tuple(self._first)

    def note(self, error: IfppError, where: str) -> None:
        self.count += 1
        if len(self._first) < MAX_LISTED:
            detail = f"{error.where}: {error.detail}" if error.where not in ("", where) else error.detail
            code = "INTAKE.FORMAT" if isinstance(error, WireError) else error.code
            self._first.append(IntakeError(code, detail, where=where))


class _DigestingReader(io.BufferedReader):
    """Reads a file from its start and digests what was taken."""

    def __init__(self, file: io.FileIO) -> None:
        file.seek(0)
        super().__init__(file, _READ_BYTES)
        self._digest = hashlib.sha256()

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._taken(super().readline(size))

    def read(self, size: int | None = -1, /) -> bytes:
        return self._taken(super().read(size))

    def check_digest(self, expected: str, name: str) -> None:
        """Raise IntakeError unless the bytes taken are those with this digest (hex)."""
        if self._digest.hexdigest() != expected:
            raise IntakeError("INTAKE.DIGEST", "the file changed while it was read", where=name)

    def _taken(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data
