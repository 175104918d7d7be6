"""Load-time quality: seconds per kilobyte by profile type, chip firmware and reader link, as natural logarithms.

Subgroups are five consecutive loads of one head within a stratum. A chart has limits only once they are frozen, from 25
subgroups or more; what is compared with them afterwards does not move them (line contract 5.4).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from ifpp.line import spc
from ifpp.store.loads import Frozen, Load

_MIN_HEAD = 30  # loads of a head, below which it is not compared
_SIGNIFICANT = 0.01


@dataclass(frozen=True, slots=True)
class HeadShift:
    """A head against the others of its stratum: how much slower (ratio of means), and how sure (Holm's p)."""

    head: str
    n: int
    ratio: float
    p: float
    differs: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """One stratum. `limits_version` 0: none are frozen. Calls are "<head> subgroup <number>: <rule>".

    `why_no_capability`: why there is none, else "".
    """

    stratum: str
    n: int
    subgroups: int
    seconds_per_kb: float
    limits_version: int
    operator_calls: list[str] = field(default_factory=list)
    engineer_calls: list[str] = field(default_factory=list)
    capability: spc.Capability | None = None
    why_no_capability: str = ""
    heads: list[HeadShift] = field(default_factory=list)


def stratum_of(load: Load) -> str:
    """Name what a load is compared within."""
    return f"{load.profile_type} | {load.firmware or '?'} | {load.link}"


def log_seconds_per_kb(load: Load) -> float:
    """ln of seconds per 1000 bytes: milliseconds per byte."""
    return math.log(load.ms / load.size)


def strata(loads: Iterable[Load]) -> dict[str, dict[str, list[float]]]:
    """Sort loads by stratum and head, in order."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for load in loads:
        found[stratum_of(load)][load.head].append(log_seconds_per_kb(load))
    return found


def subgroups(values: list[float]) -> list[list[float]]:
    """Cut values of one head into subgroups; the rest waits."""
    return [values[at : at + spc.SUBGROUP] for at in range(0, len(values) - spc.SUBGROUP + 1, spc.SUBGROUP)]


def chart(name: str, heads: Mapping[str, list[float]], frozen: Frozen | None, upper_s_per_kb: float) -> Chart:
    """Judge one stratum; `upper_s_per_kb` 0: there is no limit to be capable of."""
    values = [value for one in heads.values() for value in one]
    groups = {head: subgroups(one) for head, one in sorted(heads.items())}
    limits = None if frozen is None else spc.Limits(frozen.mean, frozen.s_mean)
    within = limits or spc.limits_of([group for one in groups.values() for group in one])
    capability, why = None, "no upper limit was given"
    if upper_s_per_kb > 0:
        capability = None if within is None else spc.capability(values, within, math.log(upper_s_per_kb))
        short = len(values) < spc.MIN_CAPABILITY
        why = (
            f"{len(values)} loads of the {spc.MIN_CAPABILITY} it takes" if short else "too few subgroups, or no spread"
        )
    calls = [[], []] if limits is None else [_calls(groups, limits, which) for which in (True, False)]
    return Chart(
        stratum=name,
        n=len(values),
        subgroups=sum(map(len, groups.values())),
        seconds_per_kb=math.exp(fmean(values)),
        limits_version=0 if frozen is None else frozen.version,
        operator_calls=calls[0],
        engineer_calls=calls[1],
        capability=capability,
        why_no_capability="" if capability is not None else why,
        heads=compare(heads),
    )


def _calls(groups: Mapping[str, list[list[float]]], limits: spc.Limits, operator: bool) -> list[str]:
    found = []
    for head, own in groups.items():
        z = [(fmean(group) - limits.mean) / limits.sigma for group in own] if limits.sigma else []
        broken = spc.operator_alarms(z) if operator else spc.breaks(z, spc.ENGINEER_RULES)
        found += [f"{head} subgroup {place + 1}: {rule}" for place, rule in broken]
    return found


def compare(heads: Mapping[str, list[float]]) -> list[HeadShift]:
    """Compare each head with all others of its stratum, corrected for how many there are."""
    large = {head: values for head, values in sorted(heads.items()) if len(values) >= _MIN_HEAD}
    if len(large) < 2:
        return []
    others = {head: [v for name, one in large.items() if name != head for v in one] for head in large}
    adjusted = spc.holm([spc.mean_difference(large[head], others[head]) for head in large])
    return [
        HeadShift(head, len(own), math.exp(fmean(own) - fmean(others[head])), p, p < _SIGNIFICANT)
        for (head, own), p in zip(large.items(), adjusted, strict=True)
    ]


def limits_from(name: str, heads: Mapping[str, list[float]], start: str, end: str) -> Frozen | None:
    """Return limits of a stratum to be frozen; None of fewer than 25 subgroups."""
    groups = [group for one in heads.values() for group in subgroups(one)]
    limits = spc.limits_of(groups)
    return None if limits is None else Frozen(name, limits.mean, limits.s_mean, len(groups), start, end)
