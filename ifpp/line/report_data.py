"""What the report of a shift or a job order says: figures of `ifpp kpi`, and how they came about.

Yield over time has the limits of a p-chart about the window's own yield: a point outside says that something was
different then, by more than chance (ISO 7870-2). Load times are those of the line in the window, of every job order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from ifpp.line.coverage import Coverage, cover
from ifpp.line.kpi import percentile, ratio
from ifpp.line.kpi_book import KpiBook, Written
from ifpp.line.quality import compare, strata
from ifpp.line.shifts import Window
from ifpp.model.clock import utc_ms_text
from ifpp.model.kpi import Figures
from ifpp.settings import Site
from ifpp.store.factory import Factory
from ifpp.store.figures import Asked
from ifpp.store.loads import Load

_SLICES = 24
_STEPS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 604_800)
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Slice:
    """Yield of first attempts in a stretch of the window; `low`, `high`: limits; None where no unit came."""

    start: str
    end: str
    units_in: int
    first_pass: int
    fpy: float | None
    low: float | None
    high: float | None

    @property
    def outside(self) -> bool:
        """Whether the yield is worse or better than chance allows."""
        if self.fpy is None or self.low is None or self.high is None:
            return False
        return not self.low <= self.fpy <= self.high


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Loads of one head into chips of one firmware; `ms`: percentiles 5, 25, 50, 75, 95."""

    head: str
    firmware: str
    loads: int
    ms: tuple[int, ...]
    seconds_per_kb: float


@dataclass(frozen=True, slots=True)
class LineReport:
    """One report. `open_packages`: sent to a chip, and not known what became of them; of the whole factory, as is
    `coverage`, at `made_at`. `slow_heads`: head -> how many times as long as the others it takes.
    """

    line: str
    zone: str
    made_at: str
    written: Written
    time: list[Slice]
    loads: list[LoadTimes]
    coverage: list[Coverage]
    slow_heads: dict[str, float]
    open_packages: int

    @property
    def window(self) -> Window:
        return self.written.window

    @property
    def total(self) -> Figures:
        """The figures of the whole window."""
        found: Figures = self.written.content["total"]
        return found

    @property
    def name(self) -> str:
        """What the report is about: a shift by date and name, or a job order."""
        return self.window.name

    def local(self, utc: str) -> datetime:
        """Return a time as the clock on the wall has it."""
        return datetime.fromisoformat(utc).astimezone(ZoneInfo(self.zone))

    def as_json(self) -> str:
        """Return the keys of `ifpp kpi --json`, and `time`, `loads`, `coverage`, `slow_heads`, `open_packages`."""
        more = {
            "line": self.line,
            "made_at": self.made_at,
            "time": self.time,
            "loads": self.loads,
            "coverage": self.coverage,
            "slow_heads": self.slow_heads,
            "open_packages": self.open_packages,
        }
        return msgspec.json.format(msgspec.json.encode(self.written.content | more), indent=2).decode()


def make_report(site: Site, factory: Factory, window: Window, now: datetime, *, job: str = "") -> LineReport:
    """Count a window. Raises SettingsError for a calendar that cannot be, ServiceError."""
    written = KpiBook(site, factory).write(window, now, job=job)
    total: Figures = written.content["total"]
    loads = factory.figures.load_times(site.line, window.start, window.end)
    stock = cover(factory, site.line, now=now, job=job, low_stock_hours=site.store.low_stock_hours)
    return LineReport(
        line=site.line,
        zone=site.calendar.zone,
        made_at=utc_ms_text(now),
        written=written,
        time=list(_over_time(factory, site.line, window, now, job, total.fpy)),
        loads=_load_times(loads),
        coverage=stock.products,
        slow_heads=_slow(loads),
        open_packages=sum(row.sent + row.unknown for row in factory.balance()),
    )


def _over_time(
    factory: Factory, line: str, window: Window, now: datetime, job: str, centre: float | None
) -> Iterator[Slice]:
    """Cut the window into at most 24 slices of a round length, as far as it has gone."""
    until = min(now, window.end)
    length_s = (until - window.start).total_seconds()
    step = timedelta(seconds=next((one for one in _STEPS_S if length_s <= _SLICES * one), length_s / _SLICES))
    at = window.start
    while at < until:
        end = min(at + step, until)
        counted = factory.figures.count(Asked(line, at, end, end, (), job))
        units, good = (sum(row.counts.get(name, 0) for row in counted.attempts) for name in ("units_in", "first_pass"))
        low, high = p_limits(centre, units)
        yield Slice(utc_ms_text(at), utc_ms_text(end), units, good, ratio(good, units), low, high)
        at = end


def p_limits(centre: float | None, n: int) -> tuple[float | None, float | None]:
    """Return the limits of a ratio of n about a centre: three standard deviations of chance."""
    if centre is None or n == 0:
        return None, None
    reach = 3 * math.sqrt(centre * (1 - centre) / n)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _load_times(loads: list[Load]) -> list[LoadTimes]:
    sorted_loads: dict[tuple[str, str], list[Load]] = defaultdict(list)
    for load in loads:
        sorted_loads[load.head, load.firmware].append(load)
    found = []
    for (head, firmware), own in sorted(sorted_loads.items()):
        times = Counter(load.ms for load in own)
        shares = tuple(percentile(times, share) or 0 for share in _SHARES)
        per_kb = sum(load.ms for load in own) / sum(load.size for load in own)
        found.append(LoadTimes(head, firmware, len(own), shares, per_kb))
    return found


def _slow(loads: list[Load]) -> dict[str, float]:
    """Heads that take longer than the others, by more than chance, of their worst stratum."""
    found: dict[str, float] = {}
    for heads in strata(loads).values():
        for one in compare(heads):
            if one.differs and one.ratio > 1:
                found[one.head] = max(one.ratio, found.get(one.head, 0.0))
    return found
