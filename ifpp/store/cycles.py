"""Every work cycle of a stretch of time, one by one, with what its head did between them: what capacity is made of."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.store.facts import unix_ms
from ifpp.store.slices import LINE

_CYCLES = text(f"""
SELECT node_id, seq, head_id, job_order_id, result, outcome_class, defect, started_at, ended_at, cycle_ms, load_ms
FROM unit_attempt WHERE ended_at >= :start AND ended_at < :end AND {LINE} ORDER BY ended_at, node_id, seq
""")  # noqa: S608 - no value
_TYPES = text(
    "SELECT node_id, seq, profile_type, bytes, load_ms FROM load_time WHERE ended_at >= :start AND ended_at < :end "
    "ORDER BY node_id, seq, place"
)
_STAYS = text("""
SELECT node_id, resource, code, next_e10, began_ms, ended_ms FROM state_span
WHERE ended_ms >= :start AND ended_ms < :end AND resource <> 'station' AND e10 = 'SBY' AND next_e10 = 'PRD'
  AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)
""")
_BUSIEST = text("""
SELECT max(n) FROM (SELECT count(*) n FROM claim WHERE at >= :start AND at < :end GROUP BY substr(at, 1, 19)) seconds
""")
_LAST = text(f"SELECT ended_at FROM unit_attempt WHERE {LINE} ORDER BY ended_at DESC LIMIT 1")  # noqa: S608 - no value
_NO_HOST = 2500  # line contract 4.3: SBY because the store, or whoever takes events, does not answer


@dataclass(slots=True)
class Cycle:
    """One attempt at one unit. `cycle_ms` runs from the seating to the verdict; `store_ms` of it the head waited for
    the store. `profile_types`: what was installed, with its sizes in bytes.
    """

    station: str
    head: str
    job: str
    result: str
    outcome: str
    defect: str
    began_ms: int
    ended_ms: int
    cycle_ms: int
    load_ms: int
    store_ms: int = 0
    profile_types: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Worked:
    """The cycles of a stretch of time in order, and each head's changes of units: from a verdict to the next seating.

    `changes_ms`: by (station, head). `claims_per_s`: the most claims the store answered within one second.
    """

    cycles: list[Cycle]
    changes_ms: dict[tuple[str, str], list[int]]
    claims_per_s: int


def between(connection: Connection, line: str, start: datetime, end: datetime) -> Worked:
    """See `FigureStore.worked`."""
    where = {"line": line, "start": utc_ms_text(start), "end": utc_ms_text(end)}
    cycles = {(row.node_id, row.seq): _cycle(row) for row in connection.execute(_CYCLES, where)}
    for row in connection.execute(_TYPES, where):
        if (cycle := cycles.get((row.node_id, row.seq))) is not None:
            cycle.profile_types.append(row.profile_type)
            cycle.sizes.append(row.bytes)
    stays = connection.execute(_STAYS, {"line": line, "start": unix_ms(start), "end": unix_ms(end)}).all()
    changes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in stays:
        if row.code != _NO_HOST:
            changes[row.node_id, row.resource].append(row.ended_ms - row.began_ms)
    _note_waits(cycles.values(), (row for row in stays if row.code == _NO_HOST))
    busiest = connection.execute(_BUSIEST, where).scalar()
    return Worked(list(cycles.values()), dict(changes), int(busiest or 0))


def last_end(connection: Connection, line: str) -> datetime | None:
    """Return when the last attempt of a line ended; None when there is none."""
    found = connection.execute(_LAST, {"line": line}).scalar()
    return None if found is None else parse_utc(found)


def _cycle(row: Any) -> Cycle:
    began_ms, ended_ms = (unix_ms(parse_utc(at)) for at in (row.started_at, row.ended_at))
    return Cycle(
        row.node_id,
        row.head_id,
        row.job_order_id,
        row.result,
        row.outcome_class,
        row.defect,
        began_ms,
        ended_ms,
        row.cycle_ms,
        row.load_ms,
    )


def _note_waits(cycles: Iterable[Cycle], waits: Iterable[Any]) -> None:
    """Add each wait for the store to the cycle it interrupted: the one of its head that began last before it ended."""
    of_head: dict[tuple[str, str], list[Cycle]] = defaultdict(list)
    for cycle in sorted(cycles, key=lambda one: one.began_ms):
        of_head[cycle.station, cycle.head].append(cycle)
    for wait in waits:
        own = of_head[wait.node_id, wait.resource]
        place = bisect_right(own, wait.began_ms, key=lambda one: one.began_ms) - 1
        if place >= 0 and wait.ended_ms <= own[place].ended_ms:
            own[place].store_ms += wait.ended_ms - wait.began_ms
