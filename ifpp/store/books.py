"""Reading the books: mass balance, audit, units, jobs, results for reports. Nothing here writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, case, exists, func, literal, or_, select, true

from ifpp.errors import SupplyError
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Job
from ifpp.model.states import PackageState
from ifpp.store import codes, quota, reports, rework, unasked
from ifpp.store.audit import prove
from ifpp.store.code_tables import OF_CHIP
from ifpp.store.records import (
    AttemptRow,
    BalanceRow,
    BatchRow,
    ChipRow,
    LedgerRow,
    OpenRow,
    PackageRow,
    ParkedRow,
    ResultRow,
    UnitCounts,
    UnitRecord,
    WordRow,
)
from ifpp.store.rework_tables import removal, rework_order
from ifpp.store.schema import (
    IS_OPEN,
    batch,
    batch_count,
    batch_total,
    chain,
    chip,
    event_log,
    info2,
    job_order,
    ledger,
    otk,
    package,
    package_bytes,
    package_result,
    parked,
    report,
    report_item,
    unit_attempt,
)

_job = msgspec.json.Decoder(Job)
_RESULTS_PAGE = 500
_bytes = select(package_bytes.c.bpp).where(package_bytes.c.sha256 == bindparam("sha256"))
_chip = (
    select(chip.c.eid, chip.c.certificate, chip.c.chain_id, chip.c.otk_list, chip.c.clean_to_ship_at, info2.c.raw)
    .join(info2, info2.c.info2_id == chip.c.info2_id)
    .where(chip.c.eid == bindparam("eid"))
)
_keys = select(otk.c.otk_id, otk.c.public).where(otk.c.eid == bindparam("eid"), OF_CHIP).order_by(otk.c.slot)
_keys_of = (
    select(otk.c.otk_id, otk.c.public)
    .select_from(chip)
    .join(otk, (otk.c.eid == chip.c.eid) & OF_CHIP, isouter=True)
    .where(chip.c.eid == bindparam("eid"))
)
_chain = select(chain.c.certificate).where(chain.c.chain_id == bindparam("chain_id")).order_by(chain.c.position)


def package_content(connection: Connection, sha256: str) -> bytes:
    """Return a package byte for byte; raises SupplyError BPP.NOT_FOUND."""
    content = connection.execute(_bytes, {"sha256": sha256}).scalar()
    if content is None:
        raise SupplyError("BPP.NOT_FOUND", "no package has this digest", where=sha256[:64])
    if not content:
        raise SupplyError("BPP.NOT_FOUND", "its bytes were let go after it was loaded", where=sha256[:64])
    return bytes(content)


def chip_row(connection: Connection, eid: str) -> ChipRow | None:
    """Return what is known of one eUICC, or None."""
    row = connection.execute(_chip, {"eid": eid}).one_or_none()
    if row is None:
        return None
    certificates = connection.execute(_chain, {"chain_id": row.chain_id}).scalars()
    keys = {key.otk_id: bytes(key.public) for key in connection.execute(_keys, {"eid": eid})}
    return ChipRow(row.eid, row.certificate, tuple(certificates), row.raw, row.otk_list, keys, row.clean_to_ship_at)


def keys_of(connection: Connection, eid: str) -> dict[str, bytes] | None:
    """Return the one-time keys of one eUICC: id (hex) and public point; None when it is not known."""
    rows = connection.execute(_keys_of, {"eid": eid}).all()
    return {row.otk_id: bytes(row.public) for row in rows if row.otk_id is not None} if rows else None


def batches(connection: Connection) -> list[BatchRow]:
    """Return every imported file, oldest first."""
    total = batch_total.c
    rows = connection.execute(
        select(batch, total.chips, total.packages, total.jobs, total.travellers)
        .join(batch_total, batch_total.c.batch == batch.c.number)
        .order_by(batch.c.number)
    )
    return [BatchRow(*row) for row in rows]


def balance(connection: Connection) -> list[BalanceRow]:
    """Return the mass balance per SKU, region and SM-DPf: what the files brought against where the packages are."""
    imported: Counter[tuple[str, str, str]] = Counter()
    brought = select(batch_count.c.sku, batch_count.c.region, batch_count.c.smdp_oid, func.sum(batch_count.c.packages))
    for sku, region, smdp_oid, number in connection.execute(brought.group_by(*brought.selected_columns[:3])):
        imported[sku, region, smdp_oid] = int(number)
    states: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    book = (package.c.sku, package.c.region, package.c.smdp_oid, package.c.state)
    for sku, region, smdp_oid, state, number in connection.execute(select(*book, func.count()).group_by(*book)):
        states[sku, region, smdp_oid][state] = number
    for sku, region, smdp_oid, number in _not_shelved(connection):
        states[sku, region, smdp_oid][PackageState.AVAILABLE] -= number
    for sku, region, address, number in codes.retired(connection):  # each is counted as what its code is now
        states[sku, region, address][PackageState.DESTROYED] -= number
    for (sku, region, address), number in codes.untied(connection).items():
        states[sku, region, address][PackageState.AVAILABLE] += number
    return [
        BalanceRow(*key, imported[key], *(states[key][state] for state in PackageState))
        for key in sorted(imported.keys() | {key for key, counts in states.items() if any(counts.values())})
    ]


def _not_shelved(connection: Connection) -> Iterator[tuple[str, str, str, int]]:
    """Count the packages of files that are just being taken in, by SKU, region and SM-DPf: each is AVAILABLE."""
    p = package.c
    opened = exists().where(batch_total.c.batch == batch.c.number)
    for number in connection.execute(select(batch.c.number).where(~opened)).scalars():
        book = (p.sku, p.region, p.smdp_oid)
        rows = select(*book, func.count()).where(p.batch == number).group_by(*book)
        yield from (tuple(row) for row in connection.execute(rows))


def audit(connection: Connection) -> list[str]:
    """Prove the books; return every discrepancy in words, empty when all holds.

    1. mass balance: what the files brought equals the sum of the states, per SKU, region and SM-DPf
    2. every package has one ledger row for each of its revisions
    3. every ledger row starts where the one before it ended, and the last ends in the package's state
    4. the numbers given under each production order have no gap
    5. the audit log is whole, and tells the same steps as the ledger (`ifpp.store.audit.prove`)
    """
    found = [
        f"{row.sku} {row.region} {row.smdp_oid}: {row.imported} imported, but the states add up to something else"
        for row in balance(connection)
        if not row.holds
    ]
    entries = func.count(ledger.c.entry)
    counted = (
        select(package.c.package_id, package.c.revision, entries)
        .join(ledger, ledger.c.package_id == package.c.package_id, isouter=True)
        .group_by(package.c.package_id, package.c.revision)
        .having(entries != package.c.revision + 1)
    )
    for package_id, revision, number in connection.execute(counted):
        found.append(f"package {package_id}: revision {revision}, but {number} ledger rows")
    before = func.lag(ledger.c.to_state).over(partition_by=ledger.c.package_id, order_by=ledger.c.revision)
    after = func.lead(ledger.c.from_state).over(partition_by=ledger.c.package_id, order_by=ledger.c.revision)
    chain_of = select(ledger, before.label("before"), after.label("after")).subquery()
    broken = (
        select(chain_of.c.entry, chain_of.c.package_id)
        .join(package, package.c.package_id == chain_of.c.package_id)
        .where(
            or_(
                func.coalesce(chain_of.c.before, "") != chain_of.c.from_state,
                chain_of.c.after.is_(None) & (chain_of.c.to_state != package.c.state),
            )
        )
    )
    for entry, package_id in connection.execute(broken):
        found.append(f"package {package_id}: ledger row {entry} does not join its neighbours")
    return found + quota.check(connection) + rework.misplaced(connection) + prove(connection)


def unit_counts(connection: Connection) -> list[UnitCounts]:
    """Return exact unit figures per job order and operation (line contract 5.2), from every event taken.

    A skipped cycle is no attempt: it says that there was nothing to do.
    """
    a = unit_attempt.c
    order = (a.attempt, a.started_at, a.node_id, a.seq)
    group = (a.job_order_id, a.operation, a.unit)
    ranked = (
        select(
            a.job_order_id,
            a.operation,
            a.result,
            func.row_number().over(partition_by=group, order_by=order).label("first"),
            func.row_number().over(partition_by=group, order_by=[column.desc() for column in order]).label("last"),
        )
        .where(a.unit != "", a.result != "SKIPPED")
        .subquery()
    )
    r = ranked.c

    def number(condition: Any) -> Any:
        return func.sum(case((condition, 1), else_=0))

    rows = connection.execute(
        select(
            r.job_order_id,
            r.operation,
            number(r.first == 1),
            func.count(),
            number((r.first == 1) & (r.result == "PASS")),
            number((r.first == 1) & (r.result == "ERROR")),
            number((r.last == 1) & (r.result == "PASS")),
            number((r.last == 1) & (r.result == "FAIL")),
            number(r.first == 2),
            number((r.last == 1) & (r.result == "PASS") & (r.first > 1)),
        )
        .group_by(r.job_order_id, r.operation)
        .order_by(r.job_order_id, r.operation)
    )
    return [UnitCounts(row[0], row[1], *(int(value) for value in row[2:])) for row in rows]


_taken = (event_log.c.node_id == unit_attempt.c.node_id) & (event_log.c.seq == unit_attempt.c.seq)
_ATTEMPT = select(
    *(unit_attempt.c[name] for name in AttemptRow.__slots__ if name != "taken_at"), event_log.c.taken_at
).join(event_log, _taken)
_BESIDE = ("history", "words", "reports", "removed")
_PACKAGE = tuple(package.c[name] for name in PackageRow.__slots__ if name not in _BESIDE)
_LEDGER = tuple(ledger.c[name] for name in LedgerRow.__slots__)


def units(connection: Connection, limit: int) -> list[AttemptRow]:
    """Return the latest attempts at any unit, newest first."""
    a = unit_attempt.c
    rows = connection.execute(_ATTEMPT.order_by(a.ended_at.desc(), a.node_id, a.seq.desc()).limit(limit))
    return [AttemptRow(*row) for row in rows]


def attempts_without_eid(connection: Connection) -> int:
    """See `Factory.attempts_without_eid`."""
    return connection.execute(select(func.count()).where(unit_attempt.c.eid == "")).scalar_one()


_words = (
    select(
        package_result.c.package_id,
        package_result.c.node_id,
        package_result.c.seq,
        package_result.c.head_id,
        package_result.c.state,
        package_result.c.spent,
        package_result.c.reason,
        func.coalesce(func.length(package_result.c.pir), 0),
        package_result.c.revision.is_not(None),
        package_result.c.ended_at,
        package_result.c.taken_at,
    )
    .join(package, package.c.package_id == package_result.c.package_id)
    .where(package.c.eid == bindparam("eid"))
    .order_by(package_result.c.taken_at, package_result.c.node_id, package_result.c.seq)
)


def unit(connection: Connection, name: str) -> UnitRecord | None:
    """Return everything about the unit with this EID, ICCID or serial number, or None."""
    eid = eid_of(connection, name)
    by_unit = unit_attempt.c.eid == eid if eid else unit_attempt.c.sn == name
    order = (unit_attempt.c.started_at, unit_attempt.c.node_id, unit_attempt.c.seq)
    attempts = tuple(AttemptRow(*row) for row in connection.execute(_ATTEMPT.where(by_unit).order_by(*order)))
    known = connection.execute(_chip, {"eid": eid}).one_or_none()
    if known is None and not attempts:
        return None
    return UnitRecord(
        eid=eid,
        sns=tuple(dict.fromkeys(attempt.sn for attempt in attempts if attempt.sn)),
        clean_to_ship_at=None if known is None else known.clean_to_ship_at,
        packages=tuple(_packages(connection, eid)),
        attempts=attempts,
        reworks=tuple(rework.rows(connection, rework_order.c.eid == eid)) if eid else (),
        asked_later=tuple(unasked.of_unit(connection, eid)),
    )


def eid_of(connection: Connection, name: str) -> str:
    """Return the EID behind a name, "" when no eUICC is known by it."""
    if connection.execute(_chip, {"eid": name}).one_or_none() is not None:
        return name
    by_iccid = connection.execute(select(package.c.eid).where(package.c.iccid == name)).scalar()
    if by_iccid is not None:
        return str(by_iccid)
    a = unit_attempt.c
    seen = select(a.eid).where(or_(a.sn == name, a.eid == name), a.eid != "").order_by(a.ended_at.desc()).limit(1)
    return str(connection.execute(seen).scalar() or "")


def _packages(connection: Connection, eid: str) -> Iterator[PackageRow]:
    of_chip = package.c.eid == eid
    history: dict[str, list[LedgerRow]] = defaultdict(list)
    steps = select(ledger.c.package_id, *_LEDGER).join(package).where(of_chip).order_by(ledger.c.entry)
    for package_id, *step in connection.execute(steps):
        history[package_id].append(LedgerRow(*step))
    words: dict[str, list[WordRow]] = defaultdict(list)
    for package_id, *word in connection.execute(_words, {"eid": eid}):
        words[package_id].append(WordRow(*word))
    reported, removed = reports.of_chip(connection, eid), rework.removals(connection, eid)
    for row in connection.execute(select(*_PACKAGE).where(of_chip).order_by(package.c.package_id)):
        yield PackageRow(
            **dict(row._mapping),
            history=tuple(history[row.package_id]),
            words=tuple(words[row.package_id]),
            reports=tuple(reported[row.package_id]),
            removed=removed.get(row.package_id),
        )


def open_packages(connection: Connection) -> list[OpenRow]:
    """Return every package in the hands of a head or with an unknown fate, then the stranded ones, each oldest first.

    Stranded: still loadable by its state, but its chip is sealed and has no one-time key any more.
    """
    p = package.c
    columns = (p.package_id, p.eid, p.iccid, p.sku, p.region, p.smdp_oid, p.state, p.changed_at)
    holder = (p.node_id, p.head_id, p.attempt_id, p.lease_until, p.detail)
    is_open = select(*columns, *holder, literal(False)).where(IS_OPEN)
    loadable = or_(p.state == PackageState.AVAILABLE, (p.state == PackageState.FAILED) & ~p.spent)
    stranded = select(*columns, *holder, literal(True)).join(chip, chip.c.eid == p.eid)
    nobody_elses = or_(p.bpp_bytes > 0, p.state == PackageState.FAILED)  # an unsent activation code is anybody's
    stranded = stranded.where(chip.c.clean_to_ship_at.is_not(None), loadable, nobody_elses)
    order = (p.changed_at, p.package_id)
    return [OpenRow(*row) for rows in (is_open, stranded) for row in connection.execute(rows.order_by(*order))]


def oldest_open(connection: Connection) -> dict[PackageState, str]:
    """Return since when the oldest package of each open state is in it; a state nobody is in is missing."""
    since = select(package.c.state, func.min(package.c.changed_at)).where(IS_OPEN).group_by(package.c.state)
    return {PackageState(state): at for state, at in connection.execute(since)}


def jobs(connection: Connection, line: str) -> list[Job]:
    """Return the newest version of every job order of a line, by id."""
    newest = (
        select(job_order.c.job_order_id, func.max(job_order.c.version).label("version"))
        .group_by(job_order.c.job_order_id)
        .subquery()
    )
    same = (job_order.c.job_order_id == newest.c.job_order_id) & (job_order.c.version == newest.c.version)
    rows = select(job_order.c.body).join(newest, same).where(job_order.c.line == line)
    return [_job.decode(body) for body in connection.execute(rows.order_by(job_order.c.job_order_id)).scalars()]


def parked_rows(connection: Connection, limit: int) -> list[ParkedRow]:
    """Return the latest refused events, newest first."""
    columns = [parked.c[name] for name in ParkedRow.__slots__]
    return [
        ParkedRow(*row) for row in connection.execute(select(*columns).order_by(parked.c.number.desc()).limit(limit))
    ]


def _within(at: Any, start: datetime, end: datetime) -> Any:
    return (at >= utc_ms_text(start)) & (at < utc_ms_text(end))


def results(
    connection: Connection, smdp_oid: str, start: datetime, end: datetime, *, unsaid: bool
) -> Iterator[ResultRow]:
    """Give the packages of one SM-DPf whose latest result, or removal, was taken in [start, end), with that result.

    `unsaid`: only those that no report has said as they stand now. An SM-DP+ hears of
    its activation codes from the chips themselves.
    """
    r, d = package_result.c, removal.c
    rank = func.row_number().over(partition_by=r.package_id, order_by=r.revision.desc()).label("rank")
    m = select(package_result, rank).where(r.revision.is_not(None)).subquery().c
    p = package.c
    rows = connection.execution_options(yield_per=_RESULTS_PAGE).execute(
        select(p.package_id, p.eid, p.iccid, p.transaction_id, p.state, p.spent)
        .add_columns(m.reason, m.pir, m.node_id, m.head_id, m.started_at, m.ended_at, m.taken_at)
        .add_columns(func.coalesce(d.at, ""), d.notification)
        .join_from(package, m.rank.table, (m.package_id == p.package_id) & (m.rank == 1))
        .join(removal, (d.package_id == p.package_id) & d.gone, isouter=True)
        .where(p.smdp_oid == smdp_oid, p.bpp_bytes > 0, or_(_within(m.taken_at, start, end), _within(d.at, start, end)))
        .where(~_said(m.taken_at, d.at) if unsaid else true())
        .order_by(m.taken_at, p.package_id)
    )
    return (ResultRow(*row) for row in rows)


def _said(taken_at: Any, removed_at: Any) -> Any:
    """Whether a report written since then gives the package the state it has."""
    after = (report.c.created_at > taken_at) & (report.c.created_at > func.coalesce(removed_at, ""))
    named = (report_item.c.package_id == package.c.package_id) & (report_item.c.state == package.c.state)
    return (
        exists()
        .where(named, report.c.report_id == report_item.c.report_id, after)
        .correlate_except(report, report_item)
    )
