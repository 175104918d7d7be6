"""Profile Loading Reports: what became of every package an SM-DPf delivered and the line took in hand (SGP.41, Esbpp).

One file for each SM-DPf. A package is reported with the result the chip signed, byte for byte as received; where there
is none, or it was not accepted, with the factory's own error, which nobody signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path

from ifpp.errors import FAULTS, CustodyError
from ifpp.log import get_logger
from ifpp.model.clock import utc_ms_text, uuid7
from ifpp.model.ids import Eid, Iccid
from ifpp.store.factory import Factory
from ifpp.store.records import ResultRow
from ifpp.wire.documents import FpaError, ReportHeader, ReportItem, write_report
from ifpp.wire.jsonlines import Hex, Stamp

_NO_RESULT = FpaError(code="PIR.MISSING", text="the chip gave no result")

log = get_logger("line.report")


@dataclass(frozen=True, slots=True)
class Report:
    """A written report; `outstanding` packages of the SM-DPf were sent to a chip and have no result yet."""

    path: Path
    smdp_oid: str
    items: int
    outstanding: int


def write_reports(factory: Factory, folder: Path, *, start: datetime, end: datetime, now: datetime) -> list[Report]:
    """Write a report into `folder` for each SM-DPf of which results were taken in [start, end).

    Each is in the books with its digest and its packages. Raises ServiceError DATABASE.UNREACHABLE, CustodyError
    FILE.WRITE; reports already written stay.
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
        rows = factory.results(smdp_oid, start, end)
        if rows:
            report_id = uuid7(now)
            header = ReportHeader(
                report_id=report_id,
                smdp_oid=smdp_oid,
                from_=Stamp(utc_ms_text(start)),
                to=Stamp(utc_ms_text(end)),
                created_at=Stamp(utc_ms_text(now)),
            )
            path = folder / f"{smdp_oid}-{report_id}.plr.jsonl"
            with write_report(path, header) as report:
                for result in rows:
                    report.add(_item(result))
            _book(factory, path, header, rows, now)
            log.info("report.written", file=path.name, smdp=smdp_oid, items=len(rows), outstanding=still_open)
            reports.append(Report(path, smdp_oid, len(rows), still_open))
    return reports


def _book(factory: Factory, path: Path, header: ReportHeader, rows: list[ResultRow], now: datetime) -> None:
    """Write into the books what the report says; a report that cannot be booked does not stay."""
    try:
        with path.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        states = [(row.package_id, row.state) for row in rows]
        factory.add_report(header.report_id, header.smdp_oid, path.name, digest, states, now)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


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
    )


def _fpa_error(row: ResultRow) -> FpaError | None:
    """Read `CODE: detail` as stations write it."""
    code, _, text = row.reason.partition(": ")
    if code in FAULTS:
        return FpaError(code=code, text=text or FAULTS[code].advice)
    if row.reason:
        return FpaError(code="INTERNAL", text=row.reason)
    return _NO_RESULT if row.pir is None else None
