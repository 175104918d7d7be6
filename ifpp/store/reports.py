"""Which Profile Loading Report named which package, and whether its SM-DPf has taken the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, literal, select

from ifpp.errors import CustodyError
from ifpp.store.records import RefusedItemRow, ReportedRow, ReportRow
from ifpp.store.schema import (
    package,
    report,
    report_ack,
    report_answer,
    report_delivery,
    report_item,
    report_signature,
    report_verdict,
)
from ifpp.store.trail import Trail

T = TypeVar("T")
_PAGE = 500


class Verdict(StrEnum):
    """What an SM-DPf says of an item: the chip's result proves it, there is no result to prove, or it is refused."""

    VERIFIED = "verified"
    NOTED = "noted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ItemVerdict:
    """The word of the SM-DPf on one item, named by its transaction (hex)."""

    transaction_id: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report as it lies in `file`; `signature` (r||s) by `key_id` over its statement, "" and b"" when not signed."""

    report_id: str
    smdp_oid: str
    file: str
    sha256: str
    items: int
    key_id: str = ""
    signature: bytes = b""


def _answered_with(word: Verdict) -> ColumnElement[int | None]:
    v = report_verdict.c
    number = select(func.count()).where(v.report_id == report.c.report_id, v.verdict == word.value).scalar_subquery()
    return case((report_answer.c.at.is_not(None), number))


_all = (
    select(*(report.c[name] for name in ("report_id", "smdp_oid", "file", "sha256", "items", "created_at")))
    .add_columns(
        func.coalesce(report_signature.c.key_id, ""), func.coalesce(report_signature.c.signature, literal(b""))
    )
    .add_columns(func.coalesce(report_delivery.c.at, ""), func.coalesce(report_delivery.c.place, ""))
    .add_columns(func.coalesce(report_ack.c.at, ""), func.coalesce(report_ack.c.told_by, ""))
    .add_columns(func.coalesce(report_answer.c.at, ""), *map(_answered_with, Verdict))
    .select_from(report)
    .join(report_signature, report_signature.c.report_id == report.c.report_id, isouter=True)
    .join(report_delivery, report_delivery.c.report_id == report.c.report_id, isouter=True)
    .join(report_ack, report_ack.c.report_id == report.c.report_id, isouter=True)
    .join(report_answer, report_answer.c.report_id == report.c.report_id, isouter=True)
)
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
        func.coalesce(report_verdict.c.verdict, "").label("verdict"),
        func.coalesce(report_verdict.c.reason, "").label("reason"),
    )
    .join(report, report.c.report_id == report_item.c.report_id)
    .join(report_ack, report_ack.c.report_id == report.c.report_id, isouter=True)
    .join(
        report_verdict,
        (report_verdict.c.report_id == report_item.c.report_id)
        & (report_verdict.c.package_id == report_item.c.package_id),
        isouter=True,
    )
    .join(package, package.c.package_id == report_item.c.package_id)
    .where(package.c.eid == bindparam("eid"))
    .order_by(report.c.created_at, report.c.report_id)
)


def add(
    connection: Connection,
    trail: Trail,
    written: WrittenReport,
    states: Iterable[tuple[str, str]],
) -> None:
    """Keep a written report: its file name and digest, its signature, and what it names with the state it gives it."""
    row = {name: getattr(written, name) for name in ("report_id", "smdp_oid", "file", "sha256", "items")}
    connection.execute(report.insert(), [row | {"created_at": trail.at}])
    if written.key_id:
        signed = {"report_id": written.report_id, "key_id": written.key_id, "signature": written.signature}
        connection.execute(report_signature.insert(), [signed])
    for page in _pages(states):
        items = [{"report_id": written.report_id, "package_id": name, "state": state} for name, state in page]
        connection.execute(report_item.insert(), items)
    where = {"file": written.file, "sha256": written.sha256, "key_id": written.key_id}
    trail.note("report", report=written.report_id, smdp=written.smdp_oid, items=written.items, **where)


def all_of(connection: Connection) -> list[ReportRow]:
    """Return every report and how far it has come, oldest first."""
    return [ReportRow(*row) for row in connection.execute(_all.order_by(report.c.created_at, report.c.report_id))]


def overdue(connection: Connection, before: str) -> list[str]:
    """Return the ids of reports written before a time that nobody has acknowledged, oldest first."""
    rows = (
        select(report.c.report_id)
        .join(report_ack, report_ack.c.report_id == report.c.report_id, isouter=True)
        .where(report.c.created_at < before, report_ack.c.report_id.is_(None))
        .order_by(report.c.created_at, report.c.report_id)
    )
    return list(connection.execute(rows).scalars())


def one(connection: Connection, report_id: str) -> ReportRow:
    """Return one report; raises CustodyError REPORT.UNKNOWN."""
    row = connection.execute(_all.where(report.c.report_id == report_id)).one_or_none()
    if row is None:
        raise CustodyError("REPORT.UNKNOWN", "no such report was written here", where=report_id[:64])
    return ReportRow(*row)


def refused_items(connection: Connection, report_id: str) -> list[RefusedItemRow]:
    """Return what the SM-DPf refused of a report."""
    v, p = report_verdict.c, package.c
    rows = (
        select(v.package_id, p.eid, p.iccid, report_item.c.state, v.reason)
        .join_from(report_verdict, package, p.package_id == v.package_id)
        .join(report_item, (report_item.c.report_id == v.report_id) & (report_item.c.package_id == v.package_id))
        .where(v.report_id == report_id, v.verdict == Verdict.REFUSED)
        .order_by(v.package_id)
    )
    return [RefusedItemRow(*row) for row in connection.execute(rows)]


def deliver(connection: Connection, trail: Trail, report_id: str, place: str) -> None:
    """Keep that a report is in the hands of its SM-DPf; the first time counts. Raises REPORT.UNKNOWN."""
    _lock(connection, report_id)
    if one(connection, report_id).delivered_at:
        return
    connection.execute(report_delivery.insert(), [{"report_id": report_id, "at": trail.at, "place": place}])
    trail.note("delivered", report=report_id, place=place)


def answer(
    connection: Connection,
    trail: Trail,
    report_id: str,
    digest: Callable[[], str],
    key_id: str,
    verdicts: Iterable[ItemVerdict],
) -> None:
    """Keep what the SM-DPf says of a report, item by item; the same document again changes nothing.

    `digest` tells that of the document once `verdicts` has ended. Every item is answered once, none more. Raises
    REPORT.UNKNOWN, REPORT.FOREIGN, and REPORT.ANSWERED for another document than the first: then nothing is kept.
    """
    _lock(connection, report_id)
    known = one(connection, report_id)
    before = connection.execute(select(report_answer.c.sha256).where(report_answer.c.report_id == report_id)).scalar()
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for page in _pages(verdicts):
        rows = [] if before else _answered(connection, report_id, page, seen)
        counts.update(row["verdict"] for row in rows)
        if rows:
            connection.execute(report_verdict.insert(), rows)
    sha256 = digest()
    if before:
        if before != sha256:
            raise CustodyError("REPORT.ANSWERED", "the SM-DPf has said something else before", where=report_id)
        return
    if len(seen) != known.items:
        raise CustodyError("REPORT.FOREIGN", f"it answers {len(seen)} of {known.items} items", where=report_id)
    said = {"report_id": report_id, "at": trail.at, "sha256": sha256, "key_id": key_id}
    connection.execute(report_answer.insert(), [said])
    verified, noted, refused = (counts[verdict] for verdict in Verdict)
    about = {"report": report_id, "sha256": sha256, "key_id": key_id}
    trail.note("answered", **about, verified=verified, noted=noted, refused=refused)
    if not known.acknowledged_at:
        acknowledge(connection, trail, report_id, f"SM-DPf {known.smdp_oid}")


def _answered(
    connection: Connection, report_id: str, page: Sequence[ItemVerdict], seen: set[str]
) -> list[dict[str, str]]:
    """Find the items a page speaks of; raises REPORT.FOREIGN for one that is not in the report, or is there twice."""
    wanted = [item.transaction_id for item in page]
    known = (
        select(package.c.transaction_id, package.c.package_id)
        .join(report_item, report_item.c.package_id == package.c.package_id)
        .where(report_item.c.report_id == report_id, package.c.transaction_id.in_(wanted))
    )
    packages = {row.transaction_id: row.package_id for row in connection.execute(known)}
    rows = []
    for item in page:
        package_id = packages.get(item.transaction_id, "")
        if not package_id or package_id in seen:
            what = "an item twice" if package_id else "an item that is not in the report"
            raise CustodyError("REPORT.FOREIGN", f"it answers {what}: {item.transaction_id}", where=report_id)
        seen.add(package_id)
        verdict = {"verdict": item.verdict.value, "reason": item.reason}
        rows.append({"report_id": report_id, "package_id": package_id, **verdict})
    return rows


def _lock(connection: Connection, report_id: str) -> None:
    """Let one transaction at a time change what is known of a report."""
    known = select(report.c.report_id).where(report.c.report_id == report_id).with_for_update(key_share=True)
    connection.execute(known).one_or_none()


def _pages(rows: Iterable[T]) -> Iterator[list[T]]:
    rows = iter(rows)
    while page := list(islice(rows, _PAGE)):
        yield page


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
