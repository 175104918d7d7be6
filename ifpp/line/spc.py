"""Statistical process control: X-bar/S charts, run rules, one-sided capability, comparison of many heads.

Sources: ISO 7870-2 (X-bar/S), Western Electric and Nelson rules, Bissell's bound for capability, Welch's test, Holm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, fmean, stdev

SUBGROUP = 5
MIN_SUBGROUPS = 25
MIN_CAPABILITY = 100
_NORMAL = NormalDist()


def c4(n: int) -> float:
    """Return E(s)/sigma of n normal values."""
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def a3(n: int) -> float:
    """Return the factor from mean s to the limits of X-bar."""
    return 3 / (c4(n) * math.sqrt(n))


def b3(n: int) -> float:
    """Return the factor from mean s to its lower limit."""
    return max(0.0, 1 - 3 * math.sqrt(1 - c4(n) ** 2) / c4(n))


def b4(n: int) -> float:
    """Return the factor from mean s to its upper limit."""
    return 1 + 3 * math.sqrt(1 - c4(n) ** 2) / c4(n)


@dataclass(frozen=True, slots=True)
class Limits:
    """Centre lines of X-bar and S, of subgroups of n."""

    mean: float
    s_mean: float
    n: int = SUBGROUP

    @property
    def sigma(self) -> float:
        """Standard deviation of a subgroup's mean."""
        return self.s_mean / (c4(self.n) * math.sqrt(self.n))

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper limit of X-bar."""
        return self.mean - a3(self.n) * self.s_mean, self.mean + a3(self.n) * self.s_mean

    @property
    def s_bounds(self) -> tuple[float, float]:
        """Lower and upper limit of S."""
        return b3(self.n) * self.s_mean, b4(self.n) * self.s_mean


def limits_of(subgroups: Sequence[Sequence[float]]) -> Limits | None:
    """Return limits from subgroups of one size; None when there are fewer than 25."""
    if len(subgroups) < MIN_SUBGROUPS:
        return None
    return Limits(
        fmean(fmean(group) for group in subgroups), fmean(stdev(group) for group in subgroups), len(subgroups[0])
    )


# ---- run rules: on points in units of sigma ---------------------------------------------------------------

Rule = Callable[[Sequence[float]], bool]
"""Says of points, the newest last, whether the newest one breaks the rule."""


def _beyond(share: int, of: int, sigmas: float) -> Rule:
    def broken(z: Sequence[float]) -> bool:
        last = z[-of:]
        return any(side * z[-1] > sigmas and sum(side * one > sigmas for one in last) >= share for side in (1, -1))

    return broken


def _one_side(length: int) -> Rule:
    def broken(z: Sequence[float]) -> bool:
        last = z[-length:]
        return len(last) == length and (all(one > 0 for one in last) or all(one < 0 for one in last))

    return broken


def _trend(z: Sequence[float]) -> bool:
    steps = [b - a for a, b in pairwise(z[-6:])]
    return len(steps) == 5 and (all(step > 0 for step in steps) or all(step < 0 for step in steps))


def _alternating(z: Sequence[float]) -> bool:
    steps = [b - a for a, b in pairwise(z[-14:])]
    return len(steps) == 13 and all(a * b < 0 for a, b in pairwise(steps))


def _hugging(z: Sequence[float]) -> bool:
    return len(z) >= 15 and all(abs(one) < 1 for one in z[-15:])


def _avoiding(z: Sequence[float]) -> bool:
    return len(z) >= 8 and all(abs(one) > 1 for one in z[-8:])


OPERATOR_RULES: dict[str, Rule] = {"1 beyond 3 sigma": _beyond(1, 1, 3), "9 on one side": _one_side(9)}
ENGINEER_RULES: dict[str, Rule] = {
    "2 of 3 beyond 2 sigma": _beyond(2, 3, 2),
    "4 of 5 beyond 1 sigma": _beyond(4, 5, 1),
    "8 on one side": _one_side(8),
    "6 rising or falling": _trend,
    "14 alternating": _alternating,
    "15 within 1 sigma": _hugging,
    "8 outside 1 sigma": _avoiding,
}
_MEMORY = 15


def breaks(z: Sequence[float], rules: dict[str, Rule]) -> list[tuple[int, str]]:
    """Return (place, rule) wherever a point breaks one."""
    found = []
    for place in range(len(z)):
        seen = z[max(0, place + 1 - _MEMORY) : place + 1]
        found += [(place, name) for name, rule in rules.items() if rule(seen)]
    return found


def operator_alarms(z: Sequence[float]) -> list[tuple[int, str]]:
    """Return where an operator is called: the same rule broken by two points in a row, told once a run."""
    broken, found = set(breaks(z, OPERATOR_RULES)), []
    for place, name in sorted(broken):
        if (place - 1, name) in broken and (place - 2, name) not in broken:
            found.append((place, name))
    return found


def standing_calls(z: Sequence[float]) -> list[str]:
    """Return the rules of operators that the newest two points both break: for these one is called now."""
    broken, newest = set(breaks(z, OPERATOR_RULES)), len(z) - 1
    return sorted(rule for place, rule in broken if place == newest and (newest - 1, rule) in broken)


# ---- capability -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capability:
    """Against an upper limit alone. `cpu` by the spread within subgroups, `ppu` by that of all values.

    `ppu_low`: below it with 5 % chance only (Bissell); `percentile`: (limit - P50) / (P99.865 - P50), no distribution
    taken for granted.
    """

    n: int
    cpu: float
    ppu: float
    ppu_low: float
    percentile: float


def capability(values: Sequence[float], limits: Limits, upper: float) -> Capability | None:
    """Return the capability; None of fewer than 100 values, or of values without spread."""
    n = len(values)
    if n < MIN_CAPABILITY or limits.s_mean <= 0 or (spread := stdev(values)) <= 0:
        return None
    ordered, mean = sorted(values), fmean(values)
    ppu = (upper - mean) / (3 * spread)
    low = ppu - _NORMAL.inv_cdf(0.95) * math.sqrt(1 / (9 * n) + ppu**2 / (2 * (n - 1)))
    middle, high = _quantile(ordered, 0.5), _quantile(ordered, 0.99865)
    percentile = (upper - middle) / (high - middle) if high > middle else math.inf
    return Capability(n, (upper - mean) * c4(limits.n) / (3 * limits.s_mean), ppu, low, percentile)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


# ---- heads against each other ------------------------------------------------------------------------------


def mean_difference(own: Sequence[float], others: Sequence[float]) -> float:
    """Return the two-sided p-value that two large samples have the same mean (Welch, normal approximation)."""
    error = math.sqrt(stdev(own) ** 2 / len(own) + stdev(others) ** 2 / len(others))
    if error == 0:
        return 1.0 if fmean(own) == fmean(others) else 0.0
    return 2 * _NORMAL.cdf(-abs(fmean(own) - fmean(others)) / error)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for how many there are (Holm), in the same order."""
    adjusted, worst = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = worst
    return adjusted
