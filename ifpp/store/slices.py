"""What one slice of time holds, counted by the database: attempts as if each unit had but one, stays in states.

Rows are only ever added. So a slice that is over is counted once and kept; it is counted again when it holds more rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, text

_HOUR = timedelta(hours=1)
_MAX_KEPT = 400
T = TypeVar("T")

LINE = "job_order_id IN (SELECT job_order_id FROM job_order WHERE line = :line)"
JOB = "job_order_id = :job"
_HERE = "FROM unit_attempt WHERE ended_at >= :start AND ended_at < :end"
_GROUPED = "node_id, head_id, job_order_id, operation"
_ATTEMPTS = f"""
SELECT {_GROUPED},
  sum(CASE WHEN unit <> '' THEN 1 ELSE 0 END) attempts,
  sum(CASE WHEN unit <> '' AND result = 'PASS' THEN 1 ELSE 0 END) passes,
  sum(CASE WHEN unit <> '' AND result NOT IN ('PASS', 'FAIL', 'ABORTED', 'SKIPPED') THEN 1 ELSE 0 END) errors,
  sum(CASE WHEN unit = '' THEN 1 ELSE 0 END) unidentified
{_HERE} AND {{mine}} GROUP BY {_GROUPED}
"""
_DEFECTS = f"SELECT defect, count(*) n, sum(cycle_ms) ms {_HERE} AND {{mine}} AND result <> 'PASS' GROUP BY defect"
_CYCLES = f"SELECT cycle_ms ms, count(*) n {_HERE} AND {{mine}} GROUP BY cycle_ms"
_LOADS = f"SELECT load_ms ms, count(*) n {_HERE} AND {{mine}} AND result = 'PASS' GROUP BY load_ms"
_ROWS = text(f"SELECT count(*) {_HERE}")
_JOBS = text("SELECT count(*) FROM job_order WHERE line = :line")

_ENDED = "FROM state_span WHERE ended_ms >= :start AND ended_ms < :end"
_OURS = f"{_ENDED} AND resource <> 'station' AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)"  # noqa: S608 - no value
_INSIDE = text(
    f"SELECT node_id, resource, e10, code, sum(ended_ms - began_ms) ms, count(*) n {_OURS} AND began_ms >= :start "
    "GROUP BY node_id, resource, e10, code"
)
_ACROSS = text(f"SELECT node_id, resource, e10, code, began_ms, ended_ms {_OURS} AND began_ms < :start")
_FAILURES = text(
    f"SELECT node_id, resource, count(*) n {_OURS} AND next_e10 = 'UDT' AND e10 <> 'UDT' GROUP BY node_id, resource"
)
_SPANS = text(f"SELECT count(*) {_ENDED}")
_STATIONS = text("SELECT node_id FROM station_line WHERE line = :line ORDER BY node_id")

Group = tuple[str, str, str, str]
"""(station, head, job order, operation)."""
Place = tuple[str, str, str, int]
"""(station, head, E10 state, code)."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts that ended in a slice. `groups`: counts by the names of `ifpp.model.kpi.Figures`, right for units with
    one attempt; `defects`: code -> (number, ms); `cycles_ms` and `loads_ms`: how many took so long.
    """

    groups: dict[Group, dict[str, int]]
    defects: dict[str, tuple[int, int]]
    cycles_ms: dict[int, int]
    loads_ms: dict[int, int]


@dataclass(frozen=True, slots=True)
class Tail:
    """A stay that begins before, or goes beyond, what is counted as a whole."""

    station: str
    head: str
    e10: str
    code: int
    began_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class Stays:
    """Stays that ended in a slice: (ms, number) of those wholly `inside`, each that began before it, failures."""

    inside: dict[Place, tuple[int, int]]
    across: tuple[Tail, ...]
    failures: dict[tuple[str, str], int]


class Kept:
    """Slices that are over, by what they are about; may be used from any thread."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, Any]] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """Return what was made under the same stamp, or make it. The stamp was read before."""
        with self._guard:
            found = self._kept.get(key)
        if found is None or found[0] != stamp:
            found = stamp, make()
        with self._guard:
            self._kept.pop(key, None)
            self._kept[key] = found
            while len(self._kept) > _MAX_KEPT:
                del self._kept[next(iter(self._kept))]  # the one that was not asked for longest
        value: T = found[1]
        return value


def cuts(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Give [start, end) in slices that end with an hour of UTC."""
    at = start.astimezone(UTC)
    while at < end:
        upto = min(at.replace(minute=0, second=0, microsecond=0) + _HOUR, end)
        yield at, upto
        at = upto


def attempts_stamp(connection: Connection, line: str, start: str, end: str) -> Hashable:
    """Return what changes when the attempts of a slice do."""
    rows = connection.execute(_ROWS, {"start": start, "end": end}).scalar_one()
    return rows, connection.execute(_JOBS, {"line": line}).scalar_one()


def attempts(connection: Connection, line: str, job: str, start: str, end: str) -> Attempts:
    """Count the attempts that ended in [start, end), of a line or of one job order."""
    values = {"line": line, "job": job, "start": start, "end": end}

    def rows(statement: str) -> Any:
        return connection.execute(text(statement.format(mine=JOB if job else LINE)), values)

    return Attempts(
        {(r.node_id, r.head_id, r.job_order_id, r.operation): _counts(r) for r in rows(_ATTEMPTS)},
        {r.defect or "?": (r.n, int(r.ms)) for r in rows(_DEFECTS)},
        {r.ms: r.n for r in rows(_CYCLES)},
        {r.ms: r.n for r in rows(_LOADS)},
    )


def _counts(row: Any) -> dict[str, int]:
    tried, passed, errors = int(row.attempts), int(row.passes), int(row.errors)
    return {
        "attempts": tried,
        "units_in": tried,
        "units_out": tried,
        "first_pass": passed,
        "final_pass": passed,
        "first_error": errors,
        "unidentified": int(row.unidentified),
    }


def stays_stamp(connection: Connection, line: str, start_ms: int, end_ms: int) -> Hashable:
    """Return what changes when the stays of a slice do."""
    rows = connection.execute(_SPANS, {"start": start_ms, "end": end_ms}).scalar_one()
    return rows, tuple(connection.execute(_STATIONS, {"line": line}).scalars())


def stays(connection: Connection, line: str, start_ms: int, end_ms: int) -> Stays:
    """Count the stays of heads that ended in [start_ms, end_ms)."""
    values = {"line": line, "start": start_ms, "end": end_ms}
    return Stays(
        {(r.node_id, r.resource, r.e10, r.code): (int(r.ms), r.n) for r in connection.execute(_INSIDE, values)},
        tuple(Tail(*row) for row in connection.execute(_ACROSS, values)),
        {(r.node_id, r.resource): r.n for r in connection.execute(_FAILURES, values)},
    )
