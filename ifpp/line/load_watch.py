"""Heads whose load times left their chart (line contract 5.4): what new loads bring, and for which heads that calls.

Every load is read once, in the order of its station's events, from a cursor on the index; of each head within a stratum
the sum of the subgroup under way and the newest subgroup means are kept, nothing else. Subgroups are cut from where the
reading began: a successor, which begins with the newest loads, may cut them elsewhere.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import timedelta

from ifpp.line import spc
from ifpp.line.quality import log_seconds_per_kb, stratum_of
from ifpp.model.clock import Clock, utc_ms_text
from ifpp.store.factory import Factory
from ifpp.store.loads import Frozen

_EVERY_S = 5.0
_POINTS = 10  # the longest rule an operator is called for, twice in a row
_FORGOTTEN = timedelta(hours=24)  # a head that loaded nothing of a stratum for so long is not called for


@dataclass(slots=True)
class _Series:
    """One head within one stratum: the subgroup under way as a sum, means of those before it, the newest load."""

    count: int = 0
    total: float = 0.0
    means: deque[float] = field(default_factory=lambda: deque(maxlen=_POINTS))
    newest: str = ""

    def add(self, value: float, ended_at: str) -> None:
        self.count, self.total, self.newest = self.count + 1, self.total + value, ended_at
        if self.count == spc.SUBGROUP:
            self.means.append(self.total / self.count)
            self.count, self.total = 0, 0.0


class LoadWatch:
    """Belongs to the event loop of one supervisor. Without frozen limits nothing is read.

    `calls`: the heads an operator is called to now, and why: station/head -> words.
    """

    def __init__(self, factory: Factory, line: str, clock: Clock) -> None:
        self._factory = factory
        self._line = line
        self._clock = clock
        self._cursors: dict[str, int] = {}
        self._series: dict[tuple[str, str], _Series] = defaultdict(_Series)
        self._limits: dict[str, Frozen] = {}
        self._next_s = -math.inf
        self.calls: dict[str, str] = {}

    async def look(self) -> None:
        """Take in what was loaded since the last time, where it is time; raises ServiceError."""
        if self._clock.monotonic() < self._next_s:
            return
        self._limits = await asyncio.to_thread(self._factory.figures.chart_limits, self._line)
        if self._limits:
            found = await asyncio.to_thread(self._factory.figures.new_loads, self._line, self._cursors)
            for one in found.loads:
                if (stratum := stratum_of(one.load)) in self._limits:
                    self._series[stratum, one.load.head].add(log_seconds_per_kb(one.load), one.ended_at)
            self._cursors = found.cursors
        self.calls = self._judge()
        self._next_s = self._clock.monotonic() + _EVERY_S

    def _judge(self) -> dict[str, str]:
        since = utc_ms_text(self._clock.now() - _FORGOTTEN)
        for key in [key for key, own in self._series.items() if own.newest < since or key[0] not in self._limits]:
            del self._series[key]
        found: dict[str, list[str]] = defaultdict(list)
        for (stratum, head), own in sorted(self._series.items()):
            limits = spc.Limits(self._limits[stratum].mean, self._limits[stratum].s_mean)
            z = [(mean - limits.mean) / limits.sigma for mean in own.means] if limits.sigma else []
            if rules := spc.standing_calls(z):
                found[head].append(f"load time of {stratum}: {', '.join(rules)}")
        return {head: "; ".join(words) for head, words in found.items()}
