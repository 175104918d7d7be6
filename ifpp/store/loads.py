"""Measured loads, and the frozen limits of their charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from ifpp.store.figure_tables import chart_limits
from ifpp.store.trail import Trail

_BETWEEN = text("""
SELECT node_id, head_id, profile_type, firmware, link, bytes, load_ms FROM load_time
WHERE ended_at >= :start AND ended_at < :end AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)
ORDER BY ended_at, node_id, seq, place
""")

_NODES = text(
    "SELECT s.node_id, c.through FROM station_line s JOIN node_cursor c ON c.node_id = s.node_id WHERE s.line = :line"
)
_ONE = (
    "SELECT node_id, seq, head_id, profile_type, firmware, link, bytes, load_ms, ended_at FROM load_time "
    "WHERE node_id = :node AND seq > :after AND seq <= :through ORDER BY seq {way}, place {way} LIMIT :most"
)
_NEXT, _NEWEST = text(_ONE.format(way="")), text(_ONE.format(way="DESC"))
_MOST = 5000  # loads of one station read at once: more than its profiles of one unit


@dataclass(frozen=True, slots=True)
class Load:
    """One package installed: `size` bytes in `ms`. `head` is station/head."""

    head: str
    profile_type: str
    firmware: str
    link: str
    size: int
    ms: int


@dataclass(frozen=True, slots=True)
class Frozen:
    """Limits of one stratum: mean and mean standard deviation of the subgroups they were made from."""

    stratum: str
    mean: float
    s_mean: float
    subgroups: int
    start: str
    end: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A load, and when its unit was done."""

    load: Load
    ended_at: str


@dataclass(frozen=True, slots=True)
class NewLoads:
    """Loads of each station in the order of its events, and how far each one was read."""

    loads: list[Ended]
    cursors: dict[str, int]


def newer(connection: Connection, line: str, after: Mapping[str, int]) -> NewLoads:
    """See `FigureStore.new_loads`: by the primary key, so that what was read costs nothing."""
    found: list[Ended] = []
    cursors: dict[str, int] = {}
    for node, through in connection.execute(_NODES, {"line": line}).all():
        span = {"node": node, "after": after.get(node, 0), "through": through, "most": _MOST}
        rows = connection.execute(_NEXT if node in after else _NEWEST, span).all()
        cursors[node] = through
        if node not in after:
            rows = rows[::-1]
        elif len(rows) == _MOST:  # the last unit may not be whole: it is read next time
            cursors[node] = rows[-1].seq - 1
            rows = [row for row in rows if row.seq < rows[-1].seq]
        for r in rows:
            load = Load(f"{r.node_id}/{r.head_id}", r.profile_type, r.firmware, r.link, r.bytes, r.load_ms)
            found.append(Ended(load, r.ended_at))
    return NewLoads(found, cursors)


def between(connection: Connection, line: str, start: str, end: str) -> list[Load]:
    """See `Factory.loads`."""
    rows = connection.execute(_BETWEEN, {"line": line, "start": start, "end": end})
    return [Load(f"{r.node_id}/{r.head_id}", r.profile_type, r.firmware, r.link, r.bytes, r.load_ms) for r in rows]


def newest_limits(connection: Connection, line: str) -> dict[str, Frozen]:
    """See `Factory.chart_limits`."""
    rows = connection.execute(select(chart_limits).where(chart_limits.c.line == line).order_by(chart_limits.c.version))
    return {r.stratum: Frozen(r.stratum, r.mean, r.s_mean, r.subgroups, r.from_at, r.to_at, r.version) for r in rows}


def freeze(connection: Connection, trail: Trail, line: str, limits: Frozen, by: str, reason: str) -> int:
    """See `Factory.freeze_limits`."""
    before = newest_limits(connection, line).get(limits.stratum)
    version = 1 if before is None else before.version + 1
    row = {
        "line": line,
        "stratum": limits.stratum,
        "version": version,
        "mean": limits.mean,
        "s_mean": limits.s_mean,
        "subgroups": limits.subgroups,
        "from_at": limits.start,
        "to_at": limits.end,
        "told_by": by,
        "reason": reason,
        "at": trail.at,
    }
    connection.execute(chart_limits.insert(), [row])
    trail.note("chart_limits", line=line, stratum=limits.stratum, version=version, by=by, reason=reason)
    return version
