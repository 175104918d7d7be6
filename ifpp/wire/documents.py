"""Files between EUM, SM-DPf and factory (SGP.41: Esed2, Esbpp) and from the planner: JSON Lines with a sealed end.

First line a header, then one item a line, last a trailer {"end":true,"items":N,"sha256":"..."} whose digest covers
every byte before that line. Readers keep one line in memory, ignore keys they do not know and raise IntakeError only,
naming file and line: INTAKE.FORMAT, INTAKE.TRUNCATED, INTAKE.DIGEST. **Nothing an iterator gave counts before it has
ended without error**, for the digest stands at the end. Writers write beside the final name and rename after fsync.

In files: base64 of the standard alphabet for DER and TLV, lower-case hex for short binary ids, decimal digits for EID
and ICCID, RFC 3339 for times. In memory: bytes, Eid, Iccid, Stamp.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Generic, TypeVar

import msgspec

from ifpp.errors import CustodyError, IntakeError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Job

MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_TRAILER_BYTES = 512
_VERSION = "1.0"
_READ_VERSIONS = re.compile(r"1\.[0-9]{1,4}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")
_TRANSACTION_ID_BYTES, _OTK_ID_BYTES, _SHA256_BYTES = range(1, 17), range(20, 21), range(32, 33)

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
DottedOid = Annotated[str, msgspec.Meta(pattern=r"^[0-2](\.(0|[1-9][0-9]{0,9})){1,16}\Z", max_length=128)]
Chain = Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=8)]
"""DER certificates, leaf first, up to but excluding the root."""


class Hex(bytes):
    """A short binary id: lower-case hex in a file, bytes in memory."""

    __slots__ = ()


class Stamp(str):
    """A time in UTC as RFC 3339 of fixed width (2026-03-01T08:15:30.123Z), so that stamps sort like times."""

    __slots__ = ()

    def __new__(cls, text: str) -> Stamp:
        return super().__new__(cls, utc_ms_text(parse_utc(text)))


# ---- the documents -----------------------------------------------------------------------------------


class Header(msgspec.Struct, kw_only=True):
    """First line of every file."""

    format: str
    version: str = _VERSION


class EsedHeader(Header, kw_only=True):
    """eUICC data of one batch, EUM to factory (Esed2): what is common to its chips."""

    format: str = "ifpp.esed"
    batch_id: Text
    created_at: Stamp
    eum_chain: Chain
    euicc_info2: dict[str, bytes]


class EsedItem(msgspec.Struct, kw_only=True):
    """One chip: certificate, signed one-time-key list (30 and 5F37 in a row), key of `euicc_info2` for its type."""

    eid: Eid
    euicc_certificate: bytes
    otk_list: bytes
    info2: Text


class RequestHeader(Header, kw_only=True):
    """Request for bound packages, factory to SM-DPf (Esbpp)."""

    format: str = "ifpp.esbpp-request"
    request_id: Text
    order_ref: Text
    created_at: Stamp
    eum_chain: Chain
    euicc_info2: dict[str, bytes]


class RequestItem(msgspec.Struct, kw_only=True):
    """One package wanted: the chip, and the one-time key it shall be bound to."""

    eid: Eid
    otk_id: Hex
    otk_public: bytes
    euicc_certificate: bytes
    otk_list: bytes
    info2: Text
    profile_type: Text
    sku: Text
    region: Text

    def __post_init__(self) -> None:
        _sized("otk_id", self.otk_id, _OTK_ID_BYTES)


class DeliveryHeader(Header, kw_only=True):
    """Bound packages, SM-DPf to factory (Esbpp); `smdp_chain` starts with CERT.DPpb."""

    format: str = "ifpp.esbpp-delivery"
    delivery_id: Text
    request_id: Text
    order_ref: Text
    smdp_oid: DottedOid
    smdp_chain: Chain
    created_at: Stamp


class DeliveryItem(msgspec.Struct, kw_only=True):
    """One bound package: PrepareDownload (BF21) and BPP (BF36) as TLVs, bound to one key of one chip."""

    eid: Eid
    otk_id: Hex
    transaction_id: Hex
    iccid: Iccid
    profile_type: Text
    sku: Text
    region: Text
    prepare_download: bytes
    bpp: bytes
    bpp_sha256: Hex
    expires_at: Stamp | None = None

    def __post_init__(self) -> None:
        _sized("otk_id", self.otk_id, _OTK_ID_BYTES)
        _sized("transaction_id", self.transaction_id, _TRANSACTION_ID_BYTES)
        _sized("bpp_sha256", self.bpp_sha256, _SHA256_BYTES)


class ReportHeader(Header, kw_only=True):
    """Profile Loading Report, factory to one SM-DPf (Esbpp), over the time `from_` to `to`."""

    format: str = "ifpp.plr"
    report_id: Text
    smdp_oid: DottedOid
    from_: Stamp = msgspec.field(name="from")
    to: Stamp
    created_at: Stamp


class FpaError(msgspec.Struct, kw_only=True):
    """What the factory saw where the chip gave no result: a fault code and its text; not signed by the chip."""

    code: Text
    text: str


class ReportItem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What became of one package: the chip's signed result as received (`pir`), or the factory's error."""

    eid: Eid
    iccid: Iccid
    transaction_id: Hex
    outcome: Text
    station: str
    head: str
    started_at: Stamp
    ended_at: Stamp
    pir: bytes | None = None
    fpa_error: FpaError | None = None

    def __post_init__(self) -> None:
        _sized("transaction_id", self.transaction_id, _TRANSACTION_ID_BYTES)
        if self.pir is None and self.fpa_error is None:
            raise ValueError("a report item has a pir or an fpa_error")


class _JobOrder(Header, kw_only=True):
    format: str = "ifpp.job-order"
    job: Job


class _Probe(msgspec.Struct):
    end: bool = False


class _Trailer(msgspec.Struct, kw_only=True):
    end: bool
    items: int
    sha256: Hex

    def __post_init__(self) -> None:
        _sized("sha256", self.sha256, _SHA256_BYTES)


H = TypeVar("H", bound=Header)
I = TypeVar("I", bound=msgspec.Struct)  # noqa: E741 - header and item


# ---- reading -----------------------------------------------------------------------------------------


def read_esed(stream: BinaryIO, name: str | None = None) -> tuple[EsedHeader, Items[EsedItem]]:
    """Read eUICC data; `name` names the file in errors."""
    return _read(stream, name, EsedHeader(**_ANY, eum_chain=[], euicc_info2={}), EsedItem)


