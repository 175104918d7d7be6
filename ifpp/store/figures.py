"""What the line's figures are made of, counted by the database: attempts, stays in states, and what is still missing.

Everything comes from taken events, keyed (node, seq): duplicates are not there, order of arrival does not matter. Which
attempt of a unit was its first and its last is derived, not trusted (line contract 5.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, TextClause, text

from ifpp.model.clock import utc_ms_text
from ifpp.store import slices
from ifpp.store.facts import unix_ms
from ifpp.store.slices import LINE, Group, Kept, Place, Tail

_FORGOTTEN = timedelta(days=7)  # a station that said nothing for so long before a window holds nothing of it back

_HERE = "ended_at >= :start AND ended_at < :end"
_AGAIN = """
WITH seen AS (SELECT DISTINCT operation, unit FROM unit_again WHERE {here}),
ranked AS (
  SELECT a.node_id, a.head_id, a.job_order_id, a.operation, a.result, a.ended_at,
    row_number() OVER rank AS n, lead(a.seq) OVER rank IS NULL AS last, lag(a.outcome_class) OVER rank AS before
  FROM seen CROSS JOIN unit_attempt a WHERE a.operation = seen.operation AND a.unit = seen.unit AND a.{mine}
  WINDOW rank AS (PARTITION BY a.operation, a.unit ORDER BY a.attempt, a.started_at, a.node_id, a.seq)
)
SELECT node_id, head_id, job_order_id, operation,
  -sum(CASE WHEN n > 1 THEN 1 ELSE 0 END) units_in,
  -sum(CASE WHEN n > 1 AND result = 'PASS' THEN 1 ELSE 0 END) first_pass,
  -sum(CASE WHEN n > 1 AND result NOT IN ('PASS', 'FAIL', 'ABORTED', 'SKIPPED') THEN 1 ELSE 0 END) first_error,
  -sum(CASE WHEN last THEN 0 ELSE 1 END) units_out,
  -sum(CASE WHEN NOT last AND result = 'PASS' THEN 1 ELSE 0 END) final_pass,
  sum(CASE WHEN n = 2 THEN 1 ELSE 0 END) units_retested,
  sum(CASE WHEN last AND n > 1 AND result = 'PASS' THEN 1 ELSE 0 END) recovered,
  sum(CASE WHEN before = 'CONTACT' THEN 1 ELSE 0 END) reseats
FROM ranked WHERE {here} GROUP BY node_id, head_id, job_order_id, operation
"""
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
_LAST_JOB = text(f"SELECT job_order_id FROM unit_attempt WHERE {LINE} ORDER BY ended_at DESC LIMIT 1")  # noqa: S608
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
    """What the figures of one window are made of. `failures`: by (station, head); `defects`: code -> (number, ms);
    `cycles_ms`, `loads_ms`: how many took so long.
    """

    attempts: list[AttemptGroup]
    states: list[StateTime]
    failures: dict[tuple[str, str], int]
    defects: dict[str, tuple[int, int]]
    cycles_ms: dict[int, int]
    loads_ms: dict[int, int]
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


def count(connection: Connection, asked: Asked, kept: Kept) -> Counted:
    """Count one window, from slices of an hour that are `kept`."""
    groups, defects, cycles, loads = _attempts(connection, asked, kept)
    for row in connection.execute(*_again(asked)):
        into = groups.setdefault((row.node_id, row.head_id, row.job_order_id, row.operation), Counter())
        into.update({name: int(value) for name, value in row._mapping.items() if name not in _GROUPED})
    attempts = [AttemptGroup(*key, counts=dict(counts)) for key, counts in groups.items()]
    worked = {(group.station, group.head) for group in attempts} if asked.job else None
    tails, complete = _tails(connection, asked, {group.station for group in attempts})
    states, failures = _stays(connection, asked, kept, tails)
    if worked is not None:
        states = [row for row in states if (row.station, row.head) in worked]
        failures = {key: number for key, number in failures.items() if key in worked}
    return Counted(attempts, states, failures, defects, cycles, loads, complete)


_GROUPED = {"node_id", "head_id", "job_order_id", "operation"}


def _again(asked: Asked) -> tuple[TextClause, dict[str, str]]:
    """What counts differ by from one attempt a unit: of units with more, each attempt in the window."""
    values = {"line": asked.line, "job": asked.job, "start": utc_ms_text(asked.start), "end": utc_ms_text(asked.end)}
    return text(_AGAIN.format(here=_HERE, mine=slices.JOB if asked.job else LINE)), values


def _attempts(
    connection: Connection, asked: Asked, kept: Kept
) -> tuple[dict[Group, Counter[str]], dict[str, tuple[int, int]], Counter[int], Counter[int]]:
    """Return every attempt of the window, counted as if each unit had but one."""
    groups: dict[Group, Counter[str]] = {}
    number, lost, cycles, loads = Counter[str](), Counter[str](), Counter[int](), Counter[int]()
    for start, end in slices.cuts(asked.start, asked.end):
        where = asked.line, asked.job, utc_ms_text(start), utc_ms_text(end)
        make = partial(slices.attempts, connection, *where)
        if end > asked.until or (asked.job and end == asked.end):  # it grows: a job order ends with its last unit
            found = make()
        else:
            found = kept.get(where, slices.attempts_stamp(connection, asked.line, *where[2:]), make)
        for key, counts in found.groups.items():
            groups.setdefault(key, Counter()).update(counts)
        number.update({code: n for code, (n, _) in found.defects.items()})
        lost.update({code: ms for code, (_, ms) in found.defects.items()})
        cycles.update(found.cycles_ms)
        loads.update(found.loads_ms)
    return groups, {code: (n, lost[code]) for code, n in number.items()}, cycles, loads


def _stays(
    connection: Connection, asked: Asked, kept: Kept, tails: list[Tail]
) -> tuple[list[StateTime], dict[tuple[str, str], int]]:
    """Return the time in each state, planned and not, and the failures."""
    upto, end = unix_ms(asked.until), unix_ms(asked.end)
    spans: Counter[tuple[Place, bool]] = Counter()
    number: Counter[tuple[Place, bool]] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    cut = [
        (unix_ms(one), unix_ms(other), planned)
        for start, stop, planned in asked.pieces
        for one, other in slices.cuts(start, stop)
    ]
    for start_ms, end_ms, planned in cut:
        make = partial(slices.stays, connection, asked.line, start_ms, end_ms)
        if end_ms < upto or (upto == end and not asked.job):  # over
            stamp = slices.stays_stamp(connection, asked.line, start_ms, end_ms)
            found = kept.get((asked.line, start_ms, end_ms), stamp, make)
        else:
            found = make()
        for place, (ms, n) in found.inside.items():
            spans[place, planned] += ms
            number[place, planned] += n
        tails = [*tails, *found.across]
        failures.update(found.failures)
    tails = [*tails, *slices.stays(connection, asked.line, upto, upto + 1).across]  # what ended with the window
    if upto < end:
        failures.update(slices.stays(connection, asked.line, upto, end).failures)
    for tail in tails:
        for start, stop, planned in asked.pieces:
            ms = min(tail.ended_ms, unix_ms(stop)) - max(tail.began_ms, unix_ms(start))
            if ms > 0:
                place = tail.station, tail.head, tail.e10, tail.code
                spans[place, planned] += ms
                number[place, planned] += 1
    return [StateTime(*place, ms, number[place, planned], planned) for (place, planned), ms in spans.items()], failures


def _tails(connection: Connection, asked: Asked, worked: set[str]) -> tuple[list[Tail], bool]:
    """Return the stay each head is in at the end of the window, and whether no station's event is missing."""
    tails: list[Tail] = []
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


def _tail(node: str, head: str, before: Any, after: Any, upto: int) -> Iterator[Tail]:
    if after is not None:
        yield Tail(node, head, after.e10, after.code, after.began_ms, upto)
    elif before is not None:
        yield Tail(node, head, before.next_e10, before.next_code, before.ended_ms, upto)


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
