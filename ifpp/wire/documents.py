"""Files between EUM, SM-DPf and factory (SGP.41: Esed2, Esbpp) and from the planner.

All but the job order are JSON Lines with a sealed end (ifpp.wire.jsonlines): readers keep one line in memory, ignore
keys they do not know, accept version 1.x and raise IntakeError only, naming file and line: INTAKE.FORMAT,
INTAKE.OVERSIZE, INTAKE.BAD_ID, INTAKE.TRUNCATED, INTAKE.DIGEST. **Nothing an iterator gave counts before it has ended
without error**, for the digest stands at the end.

In files: base64 of the standard alphabet for DER and TLV, lower-case hex for short binary ids, decimal digits for EID
and ICCID, RFC 3339 for times. In memory: bytes, Hex, Eid, Iccid, Stamp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec

from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Job
from ifpp.model.rsp import ActivationCode
from ifpp.wire import jsonlines
from ifpp.wire.jsonlines import Header, Hex, Items, Stamp, Writer

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
MaybeName = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
DottedOid = Annotated[str, msgspec.Meta(pattern=r"^[0-2](\.(0|[1-9][0-9]{0,9})){1,16}\Z", max_length=128)]
Chain = Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=8)]
"""DER certificates, leaf first, up to but excluding the root."""


# ---- the documents -----------------------------------------------------------------------------------


class EsedHeader(Header, kw_only=True, tag="ifpp.esed"):
    """eUICC data of one batch, EUM to factory (Esed2); `euicc_info2` holds one BF22 TLV for each chip type."""

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


class RequestHeader(Header, kw_only=True, tag="ifpp.esbpp-request"):
    """Request for bound packages, factory to SM-DPf (Esbpp)."""

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
        _sized("otk_id", self.otk_id, 20)


class DeliveryHeader(Header, kw_only=True, tag="ifpp.esbpp-delivery"):
    """Bound packages, SM-DPf to factory (Esbpp); `smdp_chain` starts with CERT.DPpb."""

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
        _sized("otk_id", self.otk_id, 20)
        _sized("transaction_id", self.transaction_id, 1, 16)
        _sized("bpp_sha256", self.bpp_sha256, 32)


class ReportHeader(Header, kw_only=True, tag="ifpp.plr"):
    """Profile Loading Report, factory to one SM-DPf (Esbpp), about the time `from_` to `to`."""

    report_id: Text
    smdp_oid: DottedOid
    from_: Stamp = msgspec.field(name="from")
    to: Stamp
    created_at: Stamp


class FpaError(msgspec.Struct, kw_only=True):
    """What the factory saw where the chip gave no result: a fault code and its text; not signed by the chip."""

    code: Text
    text: str


class Deletion(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A profile left its chip again in rework: when the factory took that, and the chip's delete notification."""

    at: Stamp
    notification: bytes | None = None


class ReportItem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What became of one package: the chip's signed result as received (`pir`), or the factory's own error.

    `deleted`: that its profile is not on the chip any more.
    """

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
    deleted: Deletion | None = None

    def __post_init__(self) -> None:
        _sized("transaction_id", self.transaction_id, 1, 16)
        if self.pir is None and self.fpa_error is None:
            raise ValueError("a report item has a pir or an fpa_error")


class AcknowledgementHeader(Header, kw_only=True, tag="ifpp.plr-ack"):
    """What an SM-DPf says of a Profile Loading Report: `report_sha256` is the digest of the whole file it judged."""

    report_id: Text
    smdp_oid: DottedOid
    report_sha256: Hex
    created_at: Stamp

    def __post_init__(self) -> None:
        _sized("report_sha256", self.report_sha256, 32)


class AcknowledgementItem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The word on one item: its result proves it, it has no result to prove it (noted), or it is refused and why."""

    transaction_id: Hex
    verdict: Literal["verified", "noted", "refused"]
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""

    def __post_init__(self) -> None:
        _sized("transaction_id", self.transaction_id, 1, 16)
        if (self.verdict == "refused") != bool(self.reason):
            raise ValueError("a refused item has a reason, no other has one")


class TravellerHeader(Header, kw_only=True, tag="ifpp.traveller"):
    """Travellers, MES to store: which unit, by its serial number, is to become what."""

    created_at: Stamp


class TravellerLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One unit; `eid` where the MES knows which chip is in it, `job_order_id` where it is made for one."""

    sn: Name
    sku: Name
    eid: Eid | None = None
    job_order_id: MaybeName = ""


class CodesHeader(Header, kw_only=True, tag="ifpp.activation-codes"):
    """Activation codes of one operator, for any chip."""

    delivery_id: Text
    created_at: Stamp


class CodeLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One activation code as SGP.22 4.1 writes it, with or without "LPA:", and what its profile is for.

    `confirmation_code` is there when, and only when, the activation code says that one is asked for.
    """

    activation_code: Annotated[str, msgspec.Meta(max_length=600)]
    profile_type: Name
    sku: Name
    region: Name
    confirmation_code: MaybeName = ""
    expires_at: Stamp | None = None

    def __post_init__(self) -> None:
        code = self.parsed
        if not code.matching_id:
            raise ValueError("an activation code of the stock needs a matching id")
        if code.confirmation != bool(self.confirmation_code):
            raise ValueError("the activation code and the confirmation code do not agree on whether one is asked for")

    @property
    def parsed(self) -> ActivationCode:
        """The parts of the activation code; raises ValueError, which the line is refused with."""
        return ActivationCode.parse(self.activation_code)


class _JobOrder(Header, kw_only=True, tag="ifpp.job-order"):
    job: Job


def _sized(field: str, content: bytes, least: int, most: int | None = None) -> None:
    if not least <= len(content) <= (most or least):
        raise ValueError(f"{field} has {len(content)} bytes")


# ---- reading -----------------------------------------------------------------------------------------


def read_esed(stream: BinaryIO, name: str | None = None) -> tuple[EsedHeader, Items[EsedItem]]:
    """Read eUICC data; `name` names the file in errors, without it the stream's own name is taken."""
    return jsonlines.read(stream, name, EsedHeader, EsedItem)


def read_delivery(stream: BinaryIO, name: str | None = None) -> tuple[DeliveryHeader, Items[DeliveryItem]]:
    """Read a delivery of bound packages."""
    return jsonlines.read(stream, name, DeliveryHeader, DeliveryItem)


def read_travellers(stream: BinaryIO, name: str | None = None) -> tuple[TravellerHeader, Items[TravellerLine]]:
    """Read travellers."""
    return jsonlines.read(stream, name, TravellerHeader, TravellerLine)


def read_codes(stream: BinaryIO, name: str | None = None) -> tuple[CodesHeader, Items[CodeLine]]:
    """Read activation codes."""
    return jsonlines.read(stream, name, CodesHeader, CodeLine)


def read_report(stream: BinaryIO, name: str | None = None) -> tuple[ReportHeader, Items[ReportItem]]:
    """Read a Profile Loading Report."""
    return jsonlines.read(stream, name, ReportHeader, ReportItem)


def read_acknowledgement(
    stream: BinaryIO, name: str | None = None
) -> tuple[AcknowledgementHeader, Items[AcknowledgementItem]]:
    """Read what an SM-DPf says of a Profile Loading Report."""
    return jsonlines.read(stream, name, AcknowledgementHeader, AcknowledgementItem)


def read_job_order(stream: BinaryIO, name: str | None = None) -> Job:
    """Read a job order: one JSON object, not lines."""
    return jsonlines.read_object(stream, name, _JobOrder).job


# ---- writing -----------------------------------------------------------------------------------------


def write_esbpp_request(path: Path, header: RequestHeader) -> Writer[RequestItem]:
    """Write a request for bound packages: `with write_esbpp_request(path, header) as request: request.add(item)`."""
    return Writer(path, header)


def write_report(path: Path, header: ReportHeader) -> Writer[ReportItem]:
    """Write a Profile Loading Report; a `with` block like that of `write_esbpp_request`."""
    return Writer(path, header)
