"""The files between EUM, SM-DPf and factory, as the simulated parties write and read them (format version 1.0).

JSON Lines, UTF-8: header, one item a line, trailer ``{"end": true, "items": N, "sha256": hex of all before}``.
Binary identifiers are lower-case hex, other binary data base64 (standard alphabet).

    *.esed.jsonl           EUM -> factory      header: format, version, batch_id, created_at, eum_chain, euicc_info2
                                               item: eid, euicc_certificate, otk_list, info2
    *.esbpp-request.jsonl  factory -> SM-DPf   header: request_id, order_ref, created_at, eum_chain, euicc_info2
                                               item: eid, otk_id, otk_public, euicc_certificate, otk_list, info2,
                                               profile_type, sku, region
    *.esbpp.jsonl          SM-DPf -> factory   header: delivery_id, request_id, order_ref, smdp_oid, smdp_chain,
                                               created_at
                                               item: eid, otk_id, transaction_id, iccid, profile_type, sku, region,
                                               prepare_download, bpp, bpp_sha256, expires_at (may be absent)
    *.plr.jsonl            factory -> SM-DPf   header: report_id, smdp_oid, from, to, created_at
                                               item: eid, iccid, transaction_id, outcome, pir or fpa_error, station,
                                               head, started_at, ended_at
    *.traveller.jsonl      MES -> factory      header: created_at
                                               item: sn, sku, eid, job_order_id
    *.job.json             planner -> factory  one object: format, version, job
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ifpp.sim.eum import EuiccRecord

VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class RequestItem:
    """One wished profile: the chip, which of its one-time keys, and what for."""

    eid: str
    otk_id: bytes
    otk_public: bytes
    euicc_certificate: bytes
    otk_list: bytes
    info2_type: str
    profile_type: str
    sku: str
    region: str


@dataclass(frozen=True, slots=True)
class Request:
    """An EsbppRequest; `eum_chain` is CERT.EUM first, `info2` maps a type to its EUICCInfo2 TLV."""

    request_id: str
    order_ref: str
    eum_chain: tuple[bytes, ...]
    info2: Mapping[str, bytes]
    items: tuple[RequestItem, ...]


@dataclass(frozen=True, slots=True)
class BoundPackage:
    """One item of a delivery: PrepareDownload (BF21) and Bound Profile Package (BF36) for one chip and key."""

    eid: str
    otk_id: bytes
    transaction_id: bytes
    iccid: str
    profile_type: str
    sku: str
    region: str
    prepare_download: bytes = field(repr=False)
    bpp: bytes = field(repr=False)
    expires_at: str = ""


@dataclass(frozen=True, slots=True)
class ReportItem:
    """One line of a Profile Loading Report; either `pir` or `fpa_error` is there.

    `deleted_at`: when the profile left its chip again, "" = it did not; `deletion`: the chip's signed word of that.
    """

    eid: str
    iccid: str
    transaction_id: bytes
    outcome: str
    pir: bytes | None
    fpa_error: Mapping[str, str]
    station: str
    head: str
    started_at: str
    ended_at: str
    deleted_at: str = ""
    deletion: bytes | None = None


class JsonLinesWriter:
    """Writes one file: header at once, `add` for each item, trailer at the end of the with block.

    The file appears under its name only when it is complete; after an exception nothing stays.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._header = header
        self._digest = hashlib.sha256()
        self._items = 0

    def __enter__(self) -> JsonLinesWriter:
        self._stream = self._part.open("wb")
        self._write(self._header)
        return self

    def add(self, item: Mapping[str, Any]) -> None:
        """Append one item."""
        self._write(item)
        self._items += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._write({"end": True, "items": self._items, "sha256": self._digest.hexdigest()})
        self._stream.close()
        if error is None:
            self._part.replace(self._path)
        else:
            self._part.unlink()

    def _write(self, document: Mapping[str, Any]) -> None:
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        self._digest.update(line)
        self._stream.write(line)


def utc_now() -> str:
    """Return the present time, RFC 3339 UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_esed(
    path: Path, records: Iterable[EuiccRecord], *, batch_id: str, eum_chain: Sequence[bytes], info2: Mapping[str, bytes]
) -> None:
    """Write an eUICC data file."""
    header = {
        "format": "ifpp.esed",
        "version": VERSION,
        "batch_id": batch_id,
        "created_at": utc_now(),
        "eum_chain": [_b64(certificate) for certificate in eum_chain],
        "euicc_info2": {kind: _b64(value) for kind, value in info2.items()},
    }
    with JsonLinesWriter(path, header) as out:
        for record in records:
            out.add(
                {
                    "eid": record.eid,
                    "euicc_certificate": _b64(record.certificate),
                    "otk_list": _b64(record.otk_list),
                    "info2": record.info2_type,
                }
            )


def write_delivery(
    path: Path,
    packages: Iterable[BoundPackage],
    *,
    delivery_id: str,
    request_id: str,
    order_ref: str,
    smdp_oid: str,
    smdp_chain: Sequence[bytes],
) -> None:
    """Write an EsbppDelivery; `smdp_chain` is CERT.DPpb first, without the root."""
    header = {
        "format": "ifpp.esbpp-delivery",
        "version": VERSION,
        "delivery_id": delivery_id,
        "request_id": request_id,
        "order_ref": order_ref,
        "smdp_oid": smdp_oid,
        "smdp_chain": [_b64(certificate) for certificate in smdp_chain],
        "created_at": utc_now(),
    }
    with JsonLinesWriter(path, header) as out:
        for package in packages:
            out.add(_package_document(package))


def write_job_order(path: Path, job: Mapping[str, Any]) -> None:
    """Write a job order file."""
    document = {"format": "ifpp.job-order", "version": VERSION, "job": job}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_travellers(path: Path, units: Iterable[Mapping[str, Any]]) -> None:
    """Write travellers: units as JSON values with sn, sku, eid and job_order_id."""
    header = {"format": "ifpp.traveller", "version": VERSION, "created_at": utc_now()}
    with JsonLinesWriter(path, header) as out:
        for unit in units:
            out.add(unit)


def write_codes(path: Path, codes: Iterable[Mapping[str, Any]], *, delivery_id: str = "codes") -> None:
    """Write activation codes as an operator does: activation_code, profile_type, sku, region and confirmation_code."""
    about = {"delivery_id": delivery_id, "created_at": utc_now()}
    with JsonLinesWriter(path, {"format": "ifpp.activation-codes", "version": VERSION} | about) as out:
        for one in codes:
            out.add(one)


def read_request(path: Path) -> Request:
    """Read an EsbppRequest; raises ValueError when it is not whole, KeyError when a field lacks."""
    header, items = read_lines(path, "ifpp.esbpp-request")
    return Request(
        request_id=header["request_id"],
        order_ref=header["order_ref"],
        eum_chain=tuple(_raw(text) for text in header["eum_chain"]),
        info2={kind: _raw(text) for kind, text in header["euicc_info2"].items()},
        items=tuple(
            RequestItem(
                eid=item["eid"],
                otk_id=bytes.fromhex(item["otk_id"]),
                otk_public=_raw(item["otk_public"]),
                euicc_certificate=_raw(item["euicc_certificate"]),
                otk_list=_raw(item["otk_list"]),
                info2_type=item["info2"],
                profile_type=item["profile_type"],
                sku=item["sku"],
                region=item["region"],
            )
            for item in items
        ),
    )


def read_report(path: Path) -> tuple[str, tuple[ReportItem, ...]]:
    """Read a Profile Loading Report: (smdp_oid, items); raises ValueError, KeyError as read_request."""
    header, items = read_lines(path, "ifpp.plr")
    return header["smdp_oid"], tuple(
        ReportItem(
            eid=item["eid"],
            iccid=item["iccid"],
            transaction_id=bytes.fromhex(item["transaction_id"]),
            outcome=item["outcome"],
            pir=_raw(item["pir"]) if item.get("pir") else None,
            fpa_error=item.get("fpa_error") or {},
            station=item["station"],
            head=item["head"],
            started_at=item["started_at"],
            ended_at=item["ended_at"],
            deleted_at=item.get("deleted", {}).get("at", ""),
            deletion=_raw(item["deleted"]["notification"]) if item.get("deleted", {}).get("notification") else None,
        )
        for item in items
    )


def read_lines(path: Path, expected: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read header and items of one file; raises ValueError for another format, a bad count or digest."""
    lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) < 2:
        raise ValueError(f"{path.name} has no header or no trailer")
    header, *items, trailer = (json.loads(line) for line in lines)
    if header.get("format") != expected or header.get("version") != VERSION:
        raise ValueError(f"{path.name} is not an {expected} file of version {VERSION}")
    if trailer.get("end") is not True or trailer.get("items") != len(items):
        raise ValueError(f"{path.name} is not complete")
    if trailer.get("sha256") != hashlib.sha256(b"".join(lines[:-1])).hexdigest():
        raise ValueError(f"{path.name} does not match its digest")
    return header, items


def _package_document(package: BoundPackage) -> dict[str, Any]:
    document = {
        "eid": package.eid,
        "otk_id": package.otk_id.hex(),
        "transaction_id": package.transaction_id.hex(),
        "iccid": package.iccid,
        "profile_type": package.profile_type,
        "sku": package.sku,
        "region": package.region,
        "prepare_download": _b64(package.prepare_download),
        "bpp": _b64(package.bpp),
        "bpp_sha256": hashlib.sha256(package.bpp).hexdigest(),
    }
    return document | ({"expires_at": package.expires_at} if package.expires_at else {})


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
