"""How good the alarms themselves are: the performance figures of ISA-18.2, from what stations and line told.

An alarm rings when it goes to UNACK_ALARM from NORMAL or RTN_UNACK; everything is counted in [start, end).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from ifpp.model.alarm_desk import NORMAL, RTN_UNACK, UNACK
from ifpp.model.clock import parse_utc
from ifpp.model.messages import Alarm

_PERIOD = timedelta(minutes=10)
_FLOOD = 10  # more than so many in a period
_STALE = timedelta(hours=24)
_CHATTER = 3  # rings, or returns of its cause, of one alarm in a period
_TOP = 10


@dataclass(frozen=True, slots=True)
class AlarmFigures:
    """What a person had to take in. `top`: (code, source) -> rings; `stale` and `chattering`: (code, source)."""

    rings: int
    per_day: float
    per_hour: float
    periods: int
    flood_periods: int
    by_priority: dict[int, int]
    top: list[tuple[tuple[str, str], int]]
    stale: list[tuple[str, str]]
    chattering: list[tuple[str, str]]

    @property
    def flood_share(self) -> float:
        """Share of ten-minute periods with more than ten alarms; 1 % is tolerated."""
        return self.flood_periods / self.periods if self.periods else 0.0

    @property
    def top_share(self) -> float:
        """Share of all rings that the ten most frequent make."""
        return sum(count for _, count in self.top) / self.rings if self.rings else 0.0


def read(bodies: Iterable[bytes]) -> list[Alarm]:
    """Return the changes of alarms in stored events."""
    return [msgspec.json.decode(body, type=Alarm) for body in bodies]


def figures(changes: Iterable[Alarm], start: datetime, end: datetime) -> AlarmFigures:
    """Count; changes may come in any order and more than once."""
    told = sorted({one.id: one for one in changes}.values(), key=lambda one: (one.ts, one.id))
    told = [one for one in told if start <= parse_utc(one.ts) < end]
    rings = [one for one in told if one.state == UNACK and one.old_state in (NORMAL, RTN_UNACK)]
    hours = (end - start).total_seconds() / 3600
    in_period = Counter((parse_utc(one.ts) - start) // _PERIOD for one in rings)
    of_one = Counter((one.code, one.source) for one in rings)
    rapid = Counter(((one.code, one.source), (parse_utc(one.ts) - start) // _PERIOD) for one in rings)
    chattering = {key for (key, _), count in rapid.items() if count >= _CHATTER}
    chattering |= {(one.code, one.source) for one in told if one.count >= _CHATTER}
    return AlarmFigures(
        rings=len(rings),
        per_day=len(rings) / hours * 24,
        per_hour=len(rings) / hours,
        periods=-((start - end) // _PERIOD),
        flood_periods=sum(count > _FLOOD for count in in_period.values()),
        by_priority=dict(sorted(Counter(one.priority for one in rings).items())),
        top=sorted(of_one.items(), key=lambda one: (-one[1], one[0]))[:_TOP],
        stale=_stale(told, end),
        chattering=sorted(chattering),
    )


def _stale(told: list[Alarm], end: datetime) -> list[tuple[str, str]]:
    """Return what has stood for more than 24 hours at the end."""
    last = {one.alarm_id: one for one in told}
    return sorted(
        (one.code, one.source)
        for one in last.values()
        if one.state != NORMAL and end - parse_utc(one.first_at) > _STALE
    )
