"""Profile Loading Reports: what became of every package an SM-DPf delivered and the line took in hand (SGP.41, Esbpp).

One file for each SM-DPf. A package is reported with the result the chip signed, byte for byte as received; where there
is none, or it was not accepted, with the factory's own error, which nobody but the factory signs. Rows go from the
database to the file one by one: a report may be larger than memory.

The factory signs `statement(REPORT, id, SHA-256 of the file)`: ECDSA on P-256, 64 bytes r||s. The signature stands
beside the report in `NAME.sig`, one JSON object, and goes along over HTTPS in headers.
"""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import IO

from ifpp.errors import FAULTS, CustodyError
from ifpp.log import get_logger
from ifpp.model.clock import utc_ms_text, uuid7
from ifpp.model.ids import Eid, Iccid
from ifpp.model.mes import PlrReady
from ifpp.store.factory import Factory
from ifpp.store.line_log import LINE_NODE
from ifpp.store.records import ResultRow
from ifpp.store.reports import WrittenReport
from ifpp.trust.signer import Signer
from ifpp.wire.documents import Deletion, FpaError, ReportHeader, ReportItem, write_report
from ifpp.wire.jsonlines import Hex, Stamp

REPORT = "ifpp.plr"
ACKNOWLEDGEMENT = "ifpp.plr-ack"
_NO_RESULT = FpaError(code="PIR.MISSING", text="the chip gave no result")

log = get_logger("line.report")


@dataclass(frozen=True, slots=True)
class Report:
    """A written report; `outstanding` packages of the SM-DPf were sent to a chip and have no result yet."""

    path: Path
    smdp_oid: str
    items: int
    outstanding: int
    signed: bool


def statement(what: str, report_id: str, sha256: str) -> bytes:
    """Return what is signed: of which kind a file is (REPORT, ACKNOWLEDGEMENT), of which report, and its digest."""
    return f"{what}\n{report_id}\n{sha256}\n".encode()


def write_reports(
    factory: Factory,
    folder: Path,
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    signer: Signer | None = None,
    line: str = "",
    unsaid: bool = False,
) -> list[Report]:
    """Write a report into `folder` for each SM-DPf of which results were taken in [start, end).

    `unsaid`: only what no report has said yet, as it stands now; without such there is no report.

    Each is in the books with its digest, its signature and its packages. `line`: whose log says so to the MES, "" =
    none. Raises ServiceError DATABASE.UNREACHABLE,
    SIGNER.FAILED, CustodyError FILE.WRITE; reports already written stay.
    """
    outstanding: dict[str, int] = {}
    for row in factory.balance():
        outstanding[row.smdp_oid] = outstanding.get(row.smdp_oid, 0) + row.sent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"the folder cannot be made ({error.strerror})", where=str(folder)) from error
    reports = []
    for smdp_oid, still_open in sorted(outstanding.items()):
        header = ReportHeader(
            report_id=uuid7(now),
            smdp_oid=smdp_oid,
            from_=Stamp(utc_ms_text(start)),
            to=Stamp(utc_ms_text(end)),
            created_at=Stamp(utc_ms_text(now)),
        )
        path = folder / f"{smdp_oid}-{header.report_id}.plr.jsonl"
        with tempfile.TemporaryFile("w+") as states:
            with factory.results(smdp_oid, start, end, unsaid=unsaid) as rows:
                items = _write(path, header, rows, states)
            if not items:
                continue
            written = _book(factory, path, header, items, states, now, signer)
            if line:
                factory.append_line_log(line, "plr_ready", _ready(header, written, now), now)
        log.info("report.written", file=path.name, smdp=smdp_oid, items=items, outstanding=still_open)
        reports.append(Report(path, smdp_oid, items, still_open, signed=signer is not None))
    return reports


def _write(path: Path, header: ReportHeader, rows: Iterator[ResultRow], states: IO[str]) -> int:
    """Write the file, none where there are no rows; what the books will say of its items goes to `states`."""
    first = next(rows, None)
    if first is None:
        return 0
    with write_report(path, header) as report:
        for row in chain([first], rows):
            report.add(_item(row))
            states.write(f"{row.package_id} {row.state}\n")
        return report.items


def _book(
    factory: Factory,
    path: Path,
    header: ReportHeader,
    items: int,
    states: IO[str],
    now: datetime,
    signer: Signer | None,
) -> WrittenReport:
    """Sign a report and write into the books what it says; one that cannot be booked does not stay."""
    beside = signature_file(path)
    try:
        digest = digest_of(path)
        key_id, signature = "", b""
        if signer is not None:
            key_id, signature = signer.key_id, signer.sign(statement(REPORT, header.report_id, digest))
            _write_signature(beside, header.report_id, digest, key_id, signature)
        written = WrittenReport(header.report_id, header.smdp_oid, path.name, digest, items, key_id, signature)
        states.seek(0)
        factory.add_report(written, (_split(line) for line in states), now)
    except BaseException:
        path.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise
    return written


def _ready(header: ReportHeader, written: WrittenReport, now: datetime) -> PlrReady:
    return PlrReady(
        schema="plr_ready/1.0",
        id=uuid7(now),
        ts=utc_ms_text(now),
        node_id=LINE_NODE,
        boot_id="",
        plr_id=header.report_id,
        smdp_f=header.smdp_oid,
        from_=str(header.from_),
        to=str(header.to),
        records=written.items,
        sha256=written.sha256,
        url=written.file,
        signed_by=written.key_id,
    )


def signature_file(path: Path) -> Path:
    """Where the signature of a report lies."""
    return path.with_name(path.name + ".sig")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises CustodyError REPORT.CHANGED when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CustodyError("REPORT.CHANGED", f"cannot be read ({error.strerror})", where=str(path)) from error


def _write_signature(path: Path, report_id: str, digest: str, key_id: str, signature: bytes) -> None:
    document = {
        "format": "ifpp.signature",
        "version": "1.0",
        "of": REPORT,
        "report_id": report_id,
        "sha256": digest,
        "key_id": key_id,
        "signature": b64encode(signature).decode(),
    }
    try:
        with path.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(document) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(path)) from error


def _split(line: str) -> tuple[str, str]:
    package_id, state = line.split()
    return package_id, state


def _item(row: ResultRow) -> ReportItem:
    return ReportItem(
        eid=Eid(row.eid),
        iccid=Iccid(row.iccid),
        transaction_id=Hex.fromhex(row.transaction_id),
        outcome=row.state,
        station=row.node_id,
        head=row.head_id,
        started_at=Stamp(row.started_at),
        ended_at=Stamp(row.ended_at),
        pir=row.pir,
        fpa_error=_fpa_error(row),
        deleted=Deletion(at=Stamp(row.deleted_at), notification=row.notification) if row.deleted_at else None,
    )


def _fpa_error(row: ResultRow) -> FpaError | None:
    """Read `CODE: detail` as stations write it."""
    code, _, text = row.reason.partition(": ")
    if code in FAULTS:
        return FpaError(code=code, text=text or FAULTS[code].advice)
    if row.reason:
        return FpaError(code="INTERNAL", text=row.reason)
    return _NO_RESULT if row.pir is None else None
