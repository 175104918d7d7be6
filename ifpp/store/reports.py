"""Which Profile Loading Report named which package, and whether its SM-DPf has taken the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select

from ifpp.errors import CustodyError
from ifpp.store.records import ReportedRow
from ifpp.store.schema import package, report, report_ack, report_item
from ifpp.store.trail import Trail

_ack = select(report_ack.c.at, report_ack.c.told_by).where(report_ack.c.report_id == bindparam("report_id"))
_of_chip = (
    select(
        report_item.c.package_id,
        report.c.report_id,
        report.c.smdp_oid,
        report.c.file,
        report.c.created_at,
        report_item.c.state,
        func.coalesce(report_ack.c.at, "").label("acknowledged_at"),
        func.coalesce(report_ack.c.told_by, "").label("told_by"),
    )
    .join(report, report.c.report_id == report_item.c.report_id)
    .join(report_ack, report_ack.c.report_id == report.c.report_id, isouter=True)
    .join(package, package.c.package_id == report_item.c.package_id)
    .where(package.c.eid == bindparam("eid"))
    .order_by(report.c.created_at, report.c.report_id)
)


def add(
    connection: Connection,
    trail: Trail,
    report_id: str,
    smdp_oid: str,
    file: str,
    sha256: str,
    states: Sequence[tuple[str, str]],
) -> None:
    """Keep a written report: its file name and digest, and the packages it names with the state it gives them."""
    row = {"report_id": report_id, "smdp_oid": smdp_oid, "file": file, "sha256": sha256, "items": len(states)}
    connection.execute(report.insert(), [row | {"created_at": trail.at}])
    items = [{"report_id": report_id, "package_id": package_id, "state": state} for package_id, state in states]
    connection.execute(report_item.insert(), items)
    trail.note("report", report=report_id, smdp=smdp_oid, file=file, sha256=sha256, items=len(states))


def acknowledge(connection: Connection, trail: Trail, report_id: str, told_by: str) -> tuple[str, str]:
    """Keep that the SM-DPf has taken a report; return when and who said so first. Raises REPORT.UNKNOWN."""
    known = select(report.c.report_id).where(report.c.report_id == report_id).with_for_update(key_share=True)
    if connection.execute(known).one_or_none() is None:
        raise CustodyError("REPORT.UNKNOWN", "no such report was written here", where=report_id[:64])
    before = connection.execute(_ack, {"report_id": report_id}).one_or_none()
    if before is not None:
        return before.at, before.told_by
    connection.execute(report_ack.insert(), [{"report_id": report_id, "at": trail.at, "told_by": told_by}])
    trail.note("acknowledged", report=report_id, by=told_by)
    return trail.at, told_by


def of_chip(connection: Connection, eid: str) -> dict[str, list[ReportedRow]]:
    """Return the reports that name the packages of a chip, by package, oldest first."""
    found: dict[str, list[ReportedRow]] = defaultdict(list)
    for package_id, *row in connection.execute(_of_chip, {"eid": eid}):
        found[package_id].append(ReportedRow(*row))
    return found
