"""What a line can make, from what it was seen to make: time of a head for one good unit, and what that time goes to.

Heads work side by side and wait for no other head, so k of them make k x uptime / T good units, where T is the time a
head spends for each good one: its load, the rest of the cycle (identify, verify, seal), the change of units, and the
cycles and changes of attempts that did not pass. Only means count: how much single loads differ makes no head slower.
Nothing else is assumed: what the store, the supervisor or a person can take at most is no part of it unless measured.

T is a ratio of sums, its margin that of a ratio estimator (Cochran, Sampling Techniques, 6.4), normal, 95 %.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ifpp.errors import SettingsError
from ifpp.line.kpi import percentile
from ifpp.model.messages import Job
from ifpp.store.cycles import Cycle, Worked
from ifpp.store.figures import StateTime

MIN_UNITS = 30  # good units; with fewer, a margin from the normal distribution means nothing
LONG = 5  # a change that takes so many medians is a wait for a unit, not handling
_CLOSE = 0.05  # margin of T that is told to be reached with more units
_Z = 1.96
_HOUR_S = 3600.0
_PASS = "PASS"  # noqa: S105 - a verdict
_DOWN, _COUNTED = frozenset({"UDT", "SDT"}), frozenset({"PRD", "SBY", "UDT", "SDT"})
_HeadName = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Spread:
    """Measured times in seconds: of how many, their mean, median and 95th percentile (nearest rank)."""

    n: int
    mean: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds of a head for one good unit. `rest`: identify, claim, verify, seal; `store`: waits for the store;
    `handling`: its one change of units; `retries`: cycles and changes of attempts that did not pass, by their class.
    """

    load: float
    rest: float
    store: float
    handling: float
    retries: Mapping[str, float]

    @property
    def total(self) -> float:
        return self.load + self.rest + self.store + self.handling + sum(self.retries.values())


@dataclass(frozen=True, slots=True)
class Product:
    """What units of one job recipe and set of profiles take. `parts` None: no good unit among them."""

    name: str
    attempts: int
    good: int
    load: Spread | None
    kilobytes: float
    parts: Parts | None


@dataclass(frozen=True, slots=True)
class Head:
    """One head: attempts and good units, seconds of T lost to attempts that did not pass, its changes, its uptime."""

    name: str
    attempts: int
    good: int
    retries_s: float
    change: Spread | None
    ms_per_byte: float | None
    uptime: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a line was seen to do. Times in seconds, rates in good units an hour.

    `margin_s`: of T, 95 %. `not_passed`: attempts by outcome class. `long_changes`: how many, and their sum.
    `waited_units`, `waited_store`: shares of the time in which the heads were planned to work; None = not measured.
    """

    span_s: float
    good: int
    attempts: int
    not_passed: Mapping[str, int]
    parts: Parts
    margin_s: float
    load: Spread
    change: Spread
    long_changes: tuple[int, float]
    uptime: float | None
    waited_units: float | None
    waited_store: float | None
    claims_per_s: int
    products: Sequence[Product]
    heads: Sequence[Head]

    @property
    def delivered(self) -> float:
        return self.good * _HOUR_S / self.span_s

    @property
    def stations(self) -> int:
        """Of how many stations the heads are."""
        return len({head.name.partition("/")[0] for head in self.heads})

    @property
    def more_units(self) -> int:
        """How many more good units it takes until T is known within 5 %; 0 when it is."""
        wanted = self.good * (self.margin_s / (_CLOSE * self.parts.total)) ** 2
        return max(0, math.ceil(wanted) - self.good)


@dataclass(frozen=True, slots=True)
class Option:
    """Something to buy or to mend, and what the same model makes of it: good units an hour more with today's heads (for
    what is bought: with these), heads that the target then takes. `assumed`: what was not measured, "" = nothing.
    """

    what: str
    buys: bool
    gain: float
    heads_needed: int | None
    assumed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target takes. `exact`: heads before rounding up, `exact_high`: at the upper end of the margin."""

    uptime: float
    rate_now: float
    bottleneck: str
    shares: Mapping[str, float]
    options: Sequence[Option]
    heads_per_station: int
    target: float | None = None
    exact: float | None = None
    exact_high: float | None = None
    heads: int | None = None
    stations: int | None = None
    rate_one_down: float | None = None


# ---- what was measured ------------------------------------------------------------------------------------


def measure(worked: Worked, jobs: Mapping[str, Job], states: Iterable[StateTime]) -> Measured:
    """Return what the cycles say; raises SettingsError COMMAND.INVALID when they are too few to say anything."""
    cycles = worked.cycles
    good = sum(one.result == _PASS for one in cycles)
    every = [ms for one in worked.changes_ms.values() for ms in one]
    if good < MIN_UNITS or not every:
        detail = f"{good} good units in that time: {max(1, MIN_UNITS - good)} more are needed to say anything"
        raise SettingsError("COMMAND.INVALID", detail, where="--since, --shift, --job")
    short, long_ones = _changes(every)
    handling_s = fmean(short) / 1000
    states = list(states)
    parts = _parts(cycles, handling_s)
    began, ended = min(one.began_ms for one in cycles), max(one.ended_ms for one in cycles)
    return Measured(
        span_s=(ended - began) / 1000,
        good=good,
        attempts=len(cycles),
        not_passed=dict(Counter(one.outcome for one in cycles if one.result != _PASS).most_common()),
        parts=parts,
        margin_s=_margin_s(cycles, handling_s, parts.total),
        load=spread([one.load_ms for one in cycles if one.result == _PASS]),
        change=spread(short),
        long_changes=(len(long_ones), sum(long_ones) / 1000),
        uptime=_uptime(states),
        waited_units=_share(max(0, sum(every) - len(every) * _median(every)), states),
        waited_store=_share(sum(one.store_ms for one in cycles), states),
        claims_per_s=worked.claims_per_s,
        products=_products(cycles, jobs, handling_s),
        heads=_heads(worked, handling_s, states),
    )


def spread(times_ms: Sequence[int]) -> Spread:
    """Return what times in milliseconds come to; there is at least one."""
    counted = Counter(times_ms)
    p50, p95 = percentile(counted, 0.5) or 0, percentile(counted, 0.95) or 0
    return Spread(len(times_ms), fmean(times_ms) / 1000, p50 / 1000, p95 / 1000)


def _median(times_ms: Sequence[int]) -> int:
    return percentile(Counter(times_ms), 0.5) or 0


def _changes(every: Sequence[int]) -> tuple[list[int], list[int]]:
    """Tell changes of units from waits for one."""
    most = LONG * _median(every)
    return [ms for ms in every if ms <= most], [ms for ms in every if ms > most]


def _parts(cycles: Sequence[Cycle], handling_s: float) -> Parts:
    passed = [one for one in cycles if one.result == _PASS]
    good = len(passed)
    retries: dict[str, float] = defaultdict(float)
    for one in cycles:
        if one.result != _PASS:
            retries[one.outcome] += ((one.cycle_ms - one.store_ms) / 1000 + handling_s) / good
    return Parts(
        load=sum(one.load_ms for one in passed) / 1000 / good,
        rest=sum(one.cycle_ms - one.load_ms - one.store_ms for one in passed) / 1000 / good,
        store=sum(one.store_ms for one in cycles) / 1000 / good,
        handling=handling_s,
        retries=dict(sorted(retries.items(), key=lambda item: -item[1])),
    )


def _margin_s(cycles: Sequence[Cycle], handling_s: float, total_s: float) -> float:
    n = len(cycles)
    residuals = (one.cycle_ms / 1000 + handling_s - total_s * (one.result == _PASS) for one in cycles)
    variance = sum(one * one for one in residuals) / (n - 1)
    return _Z * math.sqrt(variance / n) * n / sum(one.result == _PASS for one in cycles)


def _uptime(states: Iterable[StateTime]) -> float | None:
    """Share of planned time in which heads were not down. OEE's availability would count waiting and handling again."""
    counted, down = 0, 0
    for row in states:
        if row.planned and row.e10 in _COUNTED:
            counted += row.ms
            down += row.ms * (row.e10 in _DOWN)
    return 1 - down / counted if counted else None


def _share(ms: float, states: Iterable[StateTime]) -> float | None:
    counted = sum(row.ms for row in states if row.planned and row.e10 in _COUNTED)
    return ms / counted if counted else None


def _products(cycles: Sequence[Cycle], jobs: Mapping[str, Job], handling_s: float) -> list[Product]:
    """Sort by recipe and profiles; an attempt that installed nothing counts where its job order's others do."""
    usual: dict[str, Counter[str]] = defaultdict(Counter)
    for one in cycles:
        if one.profile_types:
            usual[one.job]["+".join(one.profile_types)] += 1
    sorted_cycles: dict[str, list[Cycle]] = defaultdict(list)
    for one in cycles:
        types = "+".join(one.profile_types) or next((name for name, _ in usual[one.job].most_common(1)), "no profile")
        sorted_cycles[f"{_recipe(jobs.get(one.job))}, {types}"].append(one)
    return [_product(name, own, handling_s) for name, own in sorted(sorted_cycles.items())]


def _recipe(job: Job | None) -> str:
    return "no job order" if job is None else f"recipe {job.recipe.name} {job.recipe.revision}"


def _product(name: str, cycles: Sequence[Cycle], handling_s: float) -> Product:
    passed = [one for one in cycles if one.result == _PASS]
    if not passed:
        return Product(name, len(cycles), 0, None, 0.0, None)
    size = sum(sum(one.sizes) for one in passed) / 1000 / len(passed)
    load = spread([one.load_ms for one in passed])
    return Product(name, len(cycles), len(passed), load, size, _parts(cycles, handling_s))


def _heads(worked: Worked, handling_s: float, states: Sequence[StateTime]) -> list[Head]:
    own: dict[_HeadName, list[Cycle]] = defaultdict(list)
    for one in worked.cycles:
        own[one.station, one.head].append(one)
    return [
        _head(name, cycles, worked.changes_ms.get(name, []), handling_s, states) for name, cycles in sorted(own.items())
    ]


def _head(
    name: _HeadName, cycles: Sequence[Cycle], changes: Sequence[int], handling_s: float, states: Sequence[StateTime]
) -> Head:
    loads = [one for one in cycles if one.result == _PASS and one.load_ms and one.sizes]
    return Head(
        name="/".join(name),
        attempts=len(cycles),
        good=sum(one.result == _PASS for one in cycles),
        retries_s=sum((one.cycle_ms - one.store_ms) / 1000 + handling_s for one in cycles if one.result != _PASS),
        change=spread(changes) if changes else None,
        ms_per_byte=sum(one.load_ms for one in loads) / sum(sum(one.sizes) for one in loads) if loads else None,
        uptime=_uptime(row for row in states if (row.station, row.head) == name),
    )


# ---- what it takes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """What the model knows of a line: T in parts, uptime, heads."""

    parts: Parts
    uptime: float
    heads: int
    target: float | None = None

    @property
    def rate(self) -> float:
        """Good units an hour when no head waits for a unit."""
        return self.heads * self.uptime * _HOUR_S / self.parts.total

    @property
    def exact(self) -> float | None:
        """Heads the target takes, before rounding up."""
        return None if self.target is None else self.target * self.parts.total / _HOUR_S / self.uptime

    @property
    def needed(self) -> int | None:
        """Heads the target takes."""
        return None if self.exact is None else math.ceil(round(self.exact, 6))


def answer(
    measured: Measured, *, target: float | None = None, uptime: float | None = None, heads_per_station: int = 0
) -> Answer:
    """Return what a target (good units an hour) takes. `uptime` None: the measured one, all of the time where there is
    none; `heads_per_station` 0: as many as the largest station has.
    """
    known = uptime if uptime is not None else measured.uptime if measured.uptime is not None else 1.0
    line = _Line(measured.parts, known, len(measured.heads), target)
    largest = max(Counter(head.name.partition("/")[0] for head in measured.heads).values())
    per_station = heads_per_station or largest
    shares = _shares(measured, known)
    found = Answer(
        uptime=known,
        rate_now=line.rate,
        bottleneck=max(shares, key=lambda name: shares[name]),
        shares=shares,
        options=_options(measured, line, per_station),
        heads_per_station=per_station,
    )
    if line.target is None or line.exact is None or line.needed is None:
        return found
    return replace(
        found,
        target=target,
        exact=line.exact,
        exact_high=line.exact * (1 + measured.margin_s / measured.parts.total),
        heads=line.needed,
        stations=math.ceil(line.needed / per_station),
        rate_one_down=replace(line, heads=line.needed - 1).rate,
    )


def _shares(measured: Measured, uptime: float) -> dict[str, float]:
    """Seconds of a head's time that each thing costs a good unit, with what is no part of T: down, no unit there."""
    parts = measured.parts
    return {
        "load": parts.load,
        "rest of the cycle": parts.rest,
        "change of units": parts.handling,
        "attempts that did not pass": sum(parts.retries.values()),
        "wait for the store": parts.store,
        "down": parts.total * (1 / uptime - 1),
        "wait for a unit": measured.long_changes[1] / measured.good,
    }


def _options(measured: Measured, line: _Line, per_station: int) -> list[Option]:
    """What can be mended, the best first, then what can be bought."""
    mend = [
        _option(line, what, replace(line, parts=parts), assumed=assumed)
        for what, parts, assumed in _better_parts(measured)
    ]
    worst = min((head for head in measured.heads if head.uptime is not None), key=_up, default=None)
    if worst is not None and measured.uptime is not None and line.uptime == measured.uptime:
        others = _up_without(measured, worst)
        mend.append(_option(line, f"{worst.name} as seldom down as the other heads", replace(line, uptime=others)))
    mend = sorted((one for one in mend if one.gain > 0.005 * line.rate), key=lambda one: -one.gain)
    buy = [
        _option(line, f"{count} more head{'s' if count > 1 else ''}{note}", replace(line, heads=line.heads + count))
        for count, note in ((1, ""), (per_station, f": a station of {per_station}"))
    ]
    return [*mend, *(replace(one, buys=True, heads_needed=line.needed) for one in buy[: 1 + (per_station > 1)])]


def _up(head: Head) -> float:
    return 1.0 if head.uptime is None else head.uptime


def _up_without(measured: Measured, worst: Head) -> float:
    """Uptime of a line whose worst head does as the others do on average."""
    others = [head.uptime for head in measured.heads if head is not worst and head.uptime is not None]
    return fmean(others) if others else _up(worst)


def _option(line: _Line, what: str, then: _Line, assumed: str = "") -> Option:
    return Option(what, buys=False, gain=then.rate - line.rate, heads_needed=then.needed, assumed=assumed)


def _better_parts(measured: Measured) -> Iterable[tuple[str, Parts, str]]:
    """Give what would change T: what, T then, and what of it is assumed."""
    parts = measured.parts
    yield "loads a fifth shorter (reader speed, larger blocks)", replace(parts, load=0.8 * parts.load), "a fifth"
    if (best := _fastest(measured.heads)) is not None:
        average = fmean(head.ms_per_byte for head in measured.heads if head.ms_per_byte)
        faster = replace(parts, load=parts.load * (best.ms_per_byte or average) / average)
        yield f"every head loads as fast as {best.name}", faster, ""
    quickest = min((head for head in measured.heads if head.change), key=_change_s, default=None)
    if quickest is not None and _change_s(quickest) < measured.change.p50:
        shorter = parts.handling - (measured.change.p50 - _change_s(quickest))
        yield f"units are changed as fast as at {quickest.name}", replace(parts, handling=max(0.0, shorter)), ""
    for outcome in parts.retries:
        fewer = {name: lost for name, lost in parts.retries.items() if name != outcome}
        yield f"no attempt ends as {outcome} ({measured.not_passed[outcome]} did)", replace(parts, retries=fewer), ""
    if (worst := _worst(measured.heads)) is not None:
        head, saved = worst
        scale = 1 - saved / (sum(parts.retries.values()) * measured.good)
        less = {name: lost * scale for name, lost in parts.retries.items()}
        yield f"{head.name} fails no more often than the other heads", replace(parts, retries=less), ""
    if parts.store:
        yield "no head waits for the store", replace(parts, store=0.0), ""


def _change_s(head: Head) -> float:
    return math.inf if head.change is None else head.change.p50


def _fastest(heads: Sequence[Head]) -> Head | None:
    """The head with the fastest loads, where there are others to compare with."""
    known = [head for head in heads if head.ms_per_byte is not None and head.good >= MIN_UNITS // 3]
    return min(known, key=lambda head: head.ms_per_byte or 0.0) if len(known) > 1 else None


def _worst(heads: Sequence[Head]) -> tuple[Head, float] | None:
    """The head that loses most time to attempts that did not pass, and the seconds it loses more than the others do."""
    found: tuple[Head, float] | None = None
    for head in heads:
        good = sum(other.good for other in heads if other is not head)
        if not good:
            continue
        usual = sum(other.retries_s for other in heads if other is not head) / good * head.good
        if head.retries_s > usual and (found is None or head.retries_s - usual > found[1]):
            found = head, head.retries_s - usual
    return found
