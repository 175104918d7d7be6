"""The files that come to the factory, one class for each: how items are read, checked and put into the store.

Imports nothing by itself; `ifpp.line.intake` says in which order these steps happen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

import msgspec

from ifpp.errors import IntakeError
from ifpp.model.clock import parse_utc
from ifpp.model.messages import Job
from ifpp.store.factory import Factory
from ifpp.store.intake import Intake
from ifpp.store.records import ChipItem, CodeItem, PackageItem, TravellerItem
from ifpp.trust.chain import TrustStore
from ifpp.trust.verify import ExpectedPackage, check_otk_list, check_package
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.documents import (
    CodeLine,
    DeliveryItem,
    EsedItem,
    TravellerLine,
    read_codes,
    read_delivery,
    read_esed,
    read_job_order,
    read_travellers,
)
from ifpp.wire.es10 import parse_info2
from ifpp.wire.fpx import parse_otk_list, parse_prepare_download
from ifpp.wire.jsonlines import MAX_LINE_BYTES

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Context:
    """What checks look at besides the file; `line` is the one job orders are for."""

    factory: Factory
    trust_store: TrustStore
    now: datetime
    line: str


class Incoming(ABC, Generic[ItemT]):
    """One file, read once from start to end. `items` raises IntakeError for a line or an end that does not hold."""

    kind: ClassVar[str]
    items: Iterator[ItemT]

    @abstractmethod
    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        """Read the header; raises IntakeError."""

    @property
    @abstractmethod
    def where(self) -> str:
        """File and line of what was read last."""

    @property
    @abstractmethod
    def digest(self) -> bytes:
        """SHA-256 of the file, once `items` has ended."""

    @abstractmethod
    def check_header(self) -> None:
        """Check what all items share; raises IntakeError, VerificationError or WireError."""

    @abstractmethod
    def check(self, item: ItemT) -> None:
        """Check one item; raises IntakeError, VerificationError or WireError."""

    @abstractmethod
    def add(self, intake: Intake, item: ItemT) -> None:
        """Hand one checked item to the store's transaction."""

    @abstractmethod
    def ids(self, item: ItemT) -> str:
        """Say which item it is."""

    def named(self, item: ItemT) -> str:
        """Name the item that was read last: file, line and ids."""
        return f"{self.where}, {self.ids(item)}"


class EsedFile(Incoming[EsedItem]):
    """eUICC data of an EUM: certificates and one-time keys (SGP.41, Esed2)."""

    kind = "esed"

    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        self._header, self._lines = read_esed(stream, name)
        self.items = self._lines
        self._context = context

    @property
    def where(self) -> str:
        return self._lines.where

    @property
    def digest(self) -> bytes:
        return self._lines.digest

    def check_header(self) -> None:
        self._context.trust_store.check_eum(self._header.eum_chain, self._context.now)
        for info2 in self._header.euicc_info2.values():
            parse_info2(info2)

    def check(self, item: EsedItem) -> None:
        if item.info2 not in self._header.euicc_info2:
            raise IntakeError("INTAKE.BINDING", f"the header has no EUICCInfo2 {item.info2!r}", where="info2")
        trust_store, now = self._context.trust_store, self._context.now
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
            ),
            self.named(item),
        )

    def ids(self, item: EsedItem) -> str:
        return f"EID {item.eid}"


class DeliveryFile(Incoming[DeliveryItem]):
    """Bound packages of one SM-DPf (SGP.41, Esbpp)."""

    kind = "esbpp"

    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        self._header, self._lines = read_delivery(stream, name)
        self.items = self._lines
        self._context = context
        self._keys_of = ""
        self._keys: dict[str, bytes] | None = None

    @property
    def where(self) -> str:
        return self._lines.where

    @property
    def digest(self) -> bytes:
        return self._lines.digest

    def check_header(self) -> None:
        oid = self._context.trust_store.smdp(self._header.smdp_chain, self._context.now).oid
        if oid != self._header.smdp_oid:
            detail = f"the header names SM-DPf {self._header.smdp_oid}, its certificate {oid}"
            raise IntakeError("INTAKE.BINDING", detail, where="smdp_oid")

    def check(self, item: DeliveryItem) -> None:
        expected = ExpectedPackage(
            eid=item.eid,
            iccid=item.iccid,
            transaction_id=item.transaction_id,
            otk_public=self._one_time_key(item),
            bpp_sha256=item.bpp_sha256,
            expires_at=_expiry(item),
        )
        package, prepare = parse_bpp(item.bpp), parse_prepare_download(item.prepare_download)
        smdp = self._context.trust_store.smdp(self._header.smdp_chain, self._context.now)
        check_package(package, prepare, expected, smdp, self._context.now)

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
                expires_at=_expiry(item),
            ),
            self.named(item),
        )

    def ids(self, item: DeliveryItem) -> str:
        return f"EID {item.eid}, ICCID {item.iccid}"

    def _one_time_key(self, item: DeliveryItem) -> bytes:
        """Return the public point that the chip's eUICC data hold under the item's otkId."""
        if self._keys_of != item.eid:
            self._keys_of, self._keys = item.eid, self._context.factory.keys_of(item.eid)
        if self._keys is None:
            raise IntakeError("INTAKE.UNKNOWN_EID", "the store has no eUICC data of this chip", where="eid")
        public = self._keys.get(item.otk_id.hex())
        if public is None:
            detail = f"one-time key {item.otk_id.hex()} is not in the chip's eUICC data"
            raise IntakeError("INTAKE.UNKNOWN_KEY", detail, where="otk_id")
        return public


class TravellerFile(Incoming[TravellerLine]):
    """Travellers of the MES. They are not signed: they come from inside the factory."""

    kind = "traveller"

    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        self._header, self._lines = read_travellers(stream, name)
        self.items = self._lines
        self._context = context

    @property
    def where(self) -> str:
        return self._lines.where

    @property
    def digest(self) -> bytes:
        return self._lines.digest

    def check_header(self) -> None:
        """There is nothing that all share."""

    def check(self, item: TravellerLine) -> None:
        if item.eid is not None and self._context.factory.keys_of(item.eid) is None:
            raise IntakeError("INTAKE.UNKNOWN_EID", "the store has no eUICC data of this chip", where="eid")

    def add(self, intake: Intake, item: TravellerLine) -> None:
        eid = "" if item.eid is None else str(item.eid)
        intake.add_traveller(TravellerItem(item.sn, item.sku, eid, item.job_order_id), self.named(item))

    def ids(self, item: TravellerLine) -> str:
        return f"serial number {item.sn}"


class CodesFile(Incoming[CodeLine]):
    """Activation codes of an operator. They are not signed: nothing in them could prove what the SM-DP+ will say."""

    kind = "codes"

    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        self._header, self._lines = read_codes(stream, name)
        self.items = self._lines
        self._context = context

    @property
    def where(self) -> str:
        return self._lines.where

    @property
    def digest(self) -> bytes:
        return self._lines.digest

    def check_header(self) -> None:
        """There is nothing that all share."""

    def check(self, item: CodeLine) -> None:
        if item.expires_at is not None and parse_utc(item.expires_at) <= self._context.now:
            raise IntakeError("BPP.EXPIRED", f"expired at {item.expires_at}", where="expires_at")

    def add(self, intake: Intake, item: CodeLine) -> None:
        code = item.parsed
        code_item = CodeItem(
            address=code.address.lower(),
            oid=code.oid,
            matching_id=code.matching_id,
            confirmation_code=item.confirmation_code,
            profile_type=item.profile_type,
            sku=item.sku,
            region=item.region,
            expires_at=None if item.expires_at is None else parse_utc(item.expires_at),
        )
        intake.add_code(code_item, self.named(item))

    def ids(self, item: CodeLine) -> str:
        """Whoever knows a matching id can spend it: only its end is said."""
        code = item.parsed
        return f"code at {code.address}, matching id ...{code.matching_id[-4:]}"


class JobOrderFile(Incoming[Job]):
    """One job order of the planner. It is not signed: it comes from inside the factory."""

    kind = "job"

    def __init__(self, stream: BinaryIO, name: str, context: Context) -> None:
        content = stream.read(MAX_LINE_BYTES + 1)
        self._digest = sha256(content).digest()
        self._job = read_job_order(BytesIO(content), name)
        self.items = iter((self._job,))
        self._name = name
        self._context = context

    @property
    def where(self) -> str:
        return self._name

    @property
    def digest(self) -> bytes:
        return self._digest

    def check_header(self) -> None:
        job = self._job
        if not (job.job_order_id and job.product.part_number and job.region):
            raise IntakeError("INTAKE.FORMAT", "a job order needs an id, a part number and a region")
        if job.version < 1 or job.quantity < 1:
            raise IntakeError("INTAKE.FORMAT", "version and quantity start at 1", where=self.ids(job))

    def check(self, item: Job) -> None:
        """There is nothing besides the header."""

    def add(self, intake: Intake, item: Job) -> None:
        intake.add_job(self._context.line, item)

    def ids(self, item: Job) -> str:
        return f"job order {item.job_order_id}"


class _Format(msgspec.Struct):
    format: str = ""


_KINDS: dict[str, type[Incoming[Any]]] = {
    "ifpp.esed": EsedFile,
    "ifpp.esbpp-delivery": DeliveryFile,
    "ifpp.traveller": TravellerFile,
    "ifpp.activation-codes": CodesFile,
    "ifpp.job-order": JobOrderFile,
}


def kind_of(first_line: bytes, name: str) -> type[Incoming[Any]]:
    """Tell by its first line what a file is; raises IntakeError INTAKE.FORMAT, INTAKE.TRUNCATED."""
    if not first_line:
        raise IntakeError("INTAKE.TRUNCATED", "the file is empty", where=name)
    try:
        found = msgspec.json.decode(first_line, type=_Format).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return JobOrderFile  # the one document that may be spread over several lines
    if found not in _KINDS:
        detail = f"the format is {found[:40]!r}; imported are {', '.join(_KINDS)}"
        raise IntakeError("INTAKE.FORMAT", detail, where=name)
    return _KINDS[found]


def _expiry(item: DeliveryItem) -> datetime | None:
    return None if item.expires_at is None else parse_utc(item.expires_at)
