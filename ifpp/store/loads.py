"""Measured loads, and the frozen limits of their charts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from ifpp.store.figure_tables import chart_limits
from ifpp.store.trail import Trail

_BETWEEN = text("""
SELECT node_id, head_id, profile_type, firmware, link, bytes, load_ms FROM load_time
WHERE ended_at >= :start AND ended_at < :end AND node_id IN (SELECT node_id FROM station_line WHERE line = :line)
ORDER BY ended_at, node_id, seq, place
""")


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
