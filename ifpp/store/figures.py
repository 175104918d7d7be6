"""What the line's figures are made of, counted by the database: attempts, stays in states, and what is still missing.

Everything comes from taken events, keyed (node, seq): duplicates are not there, order of arrival does not matter. Which
attempt of a unit was its first and its last is derived, not trusted (line contract 5.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ifpp.model.clock import utc_ms_text
from ifpp.store.facts import unix_ms

_FORGOTTEN = timedelta(days=7)  # a station that said nothing for so long before a window holds nothing of it back

_LINE = "job_order_id IN (SELECT job_order_id FROM job_order WHERE line = :line)"
_HERE = "ended_at >= :start AND ended_at < :end"
_RANKED = """
WITH seen AS (SELECT DISTINCT operation, unit FROM unit_attempt WHERE {here} AND {mine} AND unit <> ''),
ranked AS (
  SELECT a.node_id, a.head_id, a.job_order_id, a.operation, a.result, a.cycle_ms, a.ended_at,
    row_number() OVER rank AS n, lead(a.seq) OVER rank IS NULL AS last, lag(a.outcome_class) OVER rank AS before
  FROM unit_attempt a JOIN seen ON seen.operation = a.operation AND seen.unit = a.unit WHERE a.{mine}
  WINDOW rank AS (PARTITION BY a.operation, a.unit ORDER BY a.attempt, a.started_at, a.node_id, a.seq)
)
SELECT node_id, head_id, job_order_id, operation, count(*) attempts,
  sum(CASE WHEN n = 1 THEN 1 ELSE 0 END) units_in,
  sum(CASE WHEN n = 1 AND result = 'PASS' THEN 1 ELSE 0 END) first_pass,
  sum(CASE WHEN n = 1 AND result NOT IN ('PASS', 'FAIL', 'ABORTED', 'SKIPPED') THEN 1 ELSE 0 END) first_error,
  sum(CASE WHEN last THEN 1 ELSE 0 END) units_out,
  sum(CASE WHEN last AND result = 'PASS' THEN 1 ELSE 0 END) final_pass,
  sum(CASE WHEN n = 2 THEN 1 ELSE 0 END) units_retested,
  sum(CASE WHEN last AND n > 1 AND result = 'PASS' THEN 1 ELSE 0 END) recovered,
  sum(CASE WHEN before = 'CONTACT' THEN 1 ELSE 0 END) reseats
FROM ranked WHERE {here} GROUP BY node_id, head_id, job_order_id, operation
"""
_UNNAMED = """
SELECT node_id, head_id, job_order_id, operation, count(*) unidentified
FROM unit_attempt WHERE {here} AND {mine} AND unit = '' GROUP BY node_id, head_id, job_order_id, operation
"""
_TIMES = "SELECT cycle_ms, load_ms, result FROM unit_attempt WHERE {here} AND {mine}"
_DEFECTS = """
SELECT defect, count(*) n, sum(cycle_ms) ms FROM unit_attempt
WHERE {here} AND {mine} AND result <> 'PASS' GROUP BY defect
"""
_TO, _FROM = (
    "CASE WHEN ended_ms < :end THEN ended_ms ELSE :end END",
    "CASE WHEN began_ms > :start THEN began_ms ELSE :start END",
)
_SPANS = text(f"""
SELECT node_id, resource, e10, code, sum(({_TO}) - ({_FROM})) ms, count(*) n FROM state_span
WHERE ended_ms > :start AND ended_ms <= :upto AND began_ms < :end
  AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)
GROUP BY node_id, resource, e10, code
""")  # noqa: S608 - no value in it
_FAILURES = text("""
SELECT node_id, resource, count(*) n FROM state_span
WHERE ended_ms >= :start AND ended_ms < :end AND next_e10 = 'UDT' AND e10 <> 'UDT'
  AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)
GROUP BY node_id, resource
""")
_NODES = text(
    "SELECT s.node_id, coalesce(c.through, 0) through FROM station_line s "
    "LEFT JOIN node_cursor c ON c.node_id = s.node_id WHERE s.line = :line ORDER BY s.node_id"
)
_NEXT_HEAD = text(
    "SELECT resource FROM state_span WHERE node_id = :node AND resource > :after ORDER BY resource LIMIT 1"
)
_ONE_SPAN = "SELECT seq, e10, code, next_e10, next_code, began_ms, ended_ms FROM state_span WHERE {where} LIMIT 1"
_OF_HEAD = "node_id = :node AND resource = :resource AND ended_ms"
_AFTER = text(_ONE_SPAN.format(where=f"{_OF_HEAD} > :at ORDER BY ended_ms, seq"))
_BEFORE = text(_ONE_SPAN.format(where=f"{_OF_HEAD} <= :at ORDER BY ended_ms DESC, seq DESC"))
_LATER_ATTEMPT = text(
    "SELECT 1 FROM unit_attempt WHERE ended_at >= :at AND node_id = :node AND seq <= :through LIMIT 1"
)
_LAST_JOB = text(f"SELECT job_order_id FROM unit_attempt WHERE {_LINE} ORDER BY ended_at DESC LIMIT 1")  # noqa: S608
_JOB_TIMES = text("SELECT min(started_at) a, max(ended_at) b FROM unit_attempt WHERE job_order_id = :job")
_MARK = text("SELECT coalesce(sum(through), 0) FROM node_cursor")


@dataclass(frozen=True, slots=True)
class AttemptGroup:
    """Attempts of one head at one operation of one job order; `counts` by the names of `ifpp.model.kpi.Figures`."""

    station: str
    head: str
    job: str
    operation: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class StateTime:
    """Time of one head in one E10 code; `planned`: work was planned then."""

    station: str
    head: str
    e10: str
    code: int
    ms: int
    count: int
    planned: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """What the figures of one window are made of. `failures`: by (station, head); `defects`: code -> (number, ms)."""

    attempts: list[AttemptGroup]
    states: list[StateTime]
    failures: dict[tuple[str, str], int]
    defects: dict[str, tuple[int, int]]
    cycles_ms: list[int]
    loads_ms: list[int]
    complete: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Which figures: of a line, in [start, end), as known at `until`; of one job order alone where `job` is not "".

    `pieces`: the window up to `until` in parts, with whether work was planned.
    """

    line: str
    start: datetime
    end: datetime
    until: datetime
    pieces: tuple[tuple[datetime, datetime, bool], ...]
    job: str = ""


@dataclass(frozen=True, slots=True)
class _Tail:
    """A stay that goes beyond the window, or has not ended."""

    station: str
    head: str
    e10: str
    code: int
    began_ms: int
    ended_ms: int


def count(connection: Connection, asked: Asked) -> Counted:
    """Count one window."""
    values = {"line": asked.line, "job": asked.job, "start": utc_ms_text(asked.start), "end": utc_ms_text(asked.end)}
    attempts = [
        AttemptGroup(
            row.node_id,
            row.head_id,
            row.job_order_id,
            row.operation,
            {name: int(value) for name, value in row._mapping.items() if name not in _GROUPED},
        )
        for statement in (_RANKED, _UNNAMED)
        for row in connection.execute(_for(statement, asked), values)
    ]
    times = connection.execute(_for(_TIMES, asked), values).all()
    defects = {row.defect or "?": (row.n, int(row.ms)) for row in connection.execute(_for(_DEFECTS, asked), values)}
    worked = {(group.station, group.head) for group in attempts} if asked.job else None
    tails, complete = _tails(connection, asked, {group.station for group in attempts})
    states = [row for row in _states(connection, asked, tails) if worked is None or (row.station, row.head) in worked]
    failures = {key: number for key, number in _failures(connection, asked).items() if worked is None or key in worked}
    cycles = sorted(row.cycle_ms for row in times)
    loads = sorted(row.load_ms for row in times if row.result == "PASS")
    return Counted(attempts, states, failures, defects, cycles, loads, complete)


_GROUPED = {"node_id", "head_id", "job_order_id", "operation"}


def _for(statement: str, asked: Asked) -> TextClause:
    return text(statement.format(here=_HERE, mine="job_order_id = :job" if asked.job else _LINE))


def _states(connection: Connection, asked: Asked, tails: list[_Tail]) -> Iterator[StateTime]:
    """Give the time in each state, piece by piece of the window."""
    upto = unix_ms(asked.until)
    for start, end, planned in asked.pieces:
        bounds = {"line": asked.line, "start": unix_ms(start), "end": unix_ms(end), "upto": upto}
        for row in connection.execute(_SPANS, bounds):
            if row.resource != "station":
                yield StateTime(row.node_id, row.resource, row.e10, row.code, int(row.ms), row.n, planned)
        for tail in tails:
            ms = min(tail.ended_ms, unix_ms(end)) - max(tail.began_ms, unix_ms(start))
            if ms > 0:
                yield StateTime(tail.station, tail.head, tail.e10, tail.code, ms, 1, planned)


def _failures(connection: Connection, asked: Asked) -> dict[tuple[str, str], int]:
    bounds = {"line": asked.line, "start": unix_ms(asked.start), "end": unix_ms(asked.end)}
    return {
        (row.node_id, row.resource): row.n for row in connection.execute(_FAILURES, bounds) if row.resource != "station"
    }


def _tails(connection: Connection, asked: Asked, worked: set[str]) -> tuple[list[_Tail], bool]:
    """Return the stay each head is in at the end of the window, and whether no station's event is missing."""
    tails: list[_Tail] = []
    upto, complete = unix_ms(asked.until), asked.until >= asked.end
    horizon = unix_ms(asked.start - _FORGOTTEN)
    for node, through in connection.execute(_NODES, {"line": asked.line}).all():
        heard_ms, beyond = 0, False
        for head in _heads(connection, node):
            values = {"node": node, "resource": head, "at": upto}
            after = connection.execute(_AFTER, values).one_or_none()
            before = connection.execute(_BEFORE, values).one_or_none()
            heard_ms = max([heard_ms, *(row.ended_ms for row in (after, before) if row is not None)])
            beyond = beyond or any(
                row is not None and row.ended_ms >= upto and row.seq <= through for row in (after, before)
            )
            if head != "station" and heard_ms >= horizon:
                tails += _tail(node, head, before, after, upto)
        if heard_ms >= horizon or node in worked:
            complete = complete and (beyond or _attempt_after(connection, asked, node, through))
    return tails, complete


def _tail(node: str, head: str, before: Any, after: Any, upto: int) -> Iterator[_Tail]:
    if after is not None:
        yield _Tail(node, head, after.e10, after.code, after.began_ms, upto)
    elif before is not None:
        yield _Tail(node, head, before.next_e10, before.next_code, before.ended_ms, upto)


def _attempt_after(connection: Connection, asked: Asked, node: str, through: int) -> bool:
    values = {"at": utc_ms_text(asked.end), "node": node, "through": through}
    return connection.execute(_LATER_ATTEMPT, values).first() is not None


def _heads(connection: Connection, node: str) -> Iterator[str]:
    """Give what a station told states of, by leaps through the index."""
    after: str | None = ""
    while (after := connection.execute(_NEXT_HEAD, {"node": node, "after": after}).scalar()) is not None:
        yield after


def last_job(connection: Connection, line: str) -> str:
    """Return the job order a line worked on last; "" when it has not worked."""
    return str(connection.execute(_LAST_JOB, {"line": line}).scalar() or "")


def job_times(connection: Connection, job: str) -> tuple[str, str] | None:
    """Return when the first attempt of a job order began and the last ended; None when there is none."""
    row = connection.execute(_JOB_TIMES, {"job": job}).one()
    return None if row.a is None else (row.a, row.b)


def mark(connection: Connection) -> int:
    """Return a number that grows with every event taken."""
    return int(connection.execute(_MARK).scalar_one())
