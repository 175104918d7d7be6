"""From what the database counted to the line's figures: sums first, one division at the end (line contract 5.1).

A head is the work unit. Ratios of a line are those of the sums over its heads, never means of ratios.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from ifpp.line.shifts import Window
from ifpp.model.clock import utc_ms_text
from ifpp.model.kpi import Figures, KpiWindow, Loss, Oee
from ifpp.model.messages import Job
from ifpp.settings import Kpi as KpiSettings
from ifpp.store.factory import Factory
from ifpp.store.figures import Asked, AttemptGroup, Counted, StateTime

_BUSY = frozenset({"PRD", "SBY", "UDT"})
_SETUP = 4500
_WAITING = (5100, 5200)  # for people, for parts: down, and not under repair
_MAX_NAMES = 20


@dataclass(slots=True)
class _Sum:
    """What is added up for a line or a part of it."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    states: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    heads: set[tuple[str, str]] = field(default_factory=set)
    pbt_ms: int = 0
    apt_ms: int = 0
    planned_ms: int = 0
    good_planned_ms: int = 0
    pru: set[int] = field(default_factory=set)

    def add_attempts(self, group: AttemptGroup, pru_ms: int) -> None:
        for name, number in group.counts.items():
            self.counts[name] += number
        cycles, good = (group.counts.get(name, 0) for name in ("attempts", "final_pass"))
        self.heads.add((group.station, group.head))
        self.planned_ms += pru_ms * (cycles + group.counts.get("unidentified", 0))
        self.good_planned_ms += pru_ms * good
        self.pru.add(pru_ms)

    def add_state(self, row: StateTime, *, setup_in_pbt: bool) -> None:
        self.heads.add((row.station, row.head))
        if not row.planned and row.e10 != "PRD":
            self.states["NST"] += row.ms  # nothing was planned: no loss
            return
        self.states[row.e10] += row.ms
        if row.e10 in _BUSY or (setup_in_pbt and row.code == _SETUP):
            self.pbt_ms += row.ms
        if row.e10 == "PRD":
            self.apt_ms += row.ms
        if row.e10 == "UDT":
            self.counts["down_ms"] += row.ms
            self.counts["repair_ms"] += 0 if row.code in _WAITING else row.ms

    def figures(self, hours: float, *, states: bool) -> Figures:
        c = self.counts
        good, run_ms = c["final_pass"], self.apt_ms
        named = {name: c[name] for name in _COUNTS}
        found = msgspec.convert({**named, "good": good, "heads": len(self.heads)}, Figures)
        found.fpy = ratio(c["first_pass"], c["units_in"])
        found.fpy_product = ratio(c["first_pass"], c["units_in"] - c["first_error"])
        found.final_yield = ratio(c["final_pass"], c["units_out"])
        found.retest_rate = ratio(c["units_retested"], c["units_in"])
        found.reseat_rate = ratio(c["reseats"], c["attempts"])
        found.uph = ratio(good, hours)
        if states:
            found.uph_run = ratio(good * len(self.heads) * 3_600_000, run_ms)
            found.mtbf_s = ratio(run_ms, 1000 * c["failures"])
            found.mdt_s = ratio(c["down_ms"], 1000 * c["failures"])
            found.mttr_s = ratio(c["repair_ms"], 1000 * c["failures"])
            found.state_ms = dict(sorted(self.states.items()))
            found.oee = self._oee()
        return found

    def _oee(self) -> Oee:
        c, planned = self.counts, 0 not in self.pru and bool(self.pru)
        oee = Oee(pbt_ms=self.pbt_ms, apt_ms=self.apt_ms, pq=c["attempts"] + c["unidentified"], gq=c["final_pass"])
        oee.availability = ratio(self.apt_ms, self.pbt_ms)
        if planned:
            oee.planned_ms, oee.good_planned_ms = self.planned_ms, self.good_planned_ms
            oee.pru_ms = next(iter(self.pru)) if len(self.pru) == 1 else 0
            oee.effectiveness = ratio(self.planned_ms, self.apt_ms)
            oee.quality = ratio(self.good_planned_ms, self.planned_ms)
            oee.oee = ratio(self.good_planned_ms, self.pbt_ms)
        return oee


_COUNTS = (
    "units_in",
    "first_pass",
    "first_error",
    "units_out",
    "final_pass",
    "attempts",
    "unidentified",
    "units_retested",
    "recovered",
    "reseats",
    "failures",
    "down_ms",
    "repair_ms",
)


def ratio(part: float, whole: float) -> float | None:
    """Return part ÷ whole; None where there is nothing to divide by."""
    return part / whole if whole > 0 else None


def percentile(numbers: Mapping[int, int], share: float) -> int | None:
    """Return the nearest-rank percentile of values, each with how often it is there; None of none."""
    rank, seen = max(1, math.ceil(share * sum(numbers.values()))), 0
    for value, number in sorted(numbers.items()):
        seen += number
        if seen >= rank:
            return value
    return None


def figures_of(
    factory: Factory,
    line: str,
    window: Window,
    settings: KpiSettings,
    *,
    now: datetime,
    jobs: Mapping[str, Job],
    job: str = "",
) -> dict[str, Any]:
    """Return the content of a window's document, without envelope and revision: keys of `ifpp.model.kpi.Kpi`."""
    until = min(now, window.end)
    asked = Asked(line, window.start, window.end, until, tuple(window.pieces(until)), job)
    counted = factory.figures.count(asked)
    hours = max(0.0, (until - window.start).total_seconds() / 3600)
    return {
        "window": _described(window, job),
        "complete": counted.complete,
        **_sums(counted, settings, jobs, hours),
        **_pareto(counted),
        "takt_s": _takt(window, jobs.get(job), counted),
        "cycle_ms_p50": percentile(counted.cycles_ms, 0.5),
        "load_ms_p50": percentile(counted.loads_ms, 0.5),
        "load_ms_p95": percentile(counted.loads_ms, 0.95),
    }


def digest(content: Mapping[str, Any]) -> str:
    """Return what tells one content from another."""
    return sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _described(window: Window, job: str) -> KpiWindow:
    name = "" if job else window.name
    start, end = utc_ms_text(window.start), utc_ms_text(window.end)
    return KpiWindow(kind=window.kind, start=start, end=end, shift_id=name, job_order_id=job)


def _sums(counted: Counted, settings: KpiSettings, jobs: Mapping[str, Job], hours: float) -> dict[str, Any]:
    def sku(job: str) -> str:
        return jobs[job].product.part_number if job in jobs else ""

    def pru_ms(group: AttemptGroup) -> int:
        return round(1000 * settings.planned_cycle_of.get(sku(group.job), settings.planned_cycle_s))

    keys: dict[str, Callable[[AttemptGroup], str]] = {
        "stations": lambda group: group.station,
        "heads": lambda group: f"{group.station}/{group.head}",
        "skus": lambda group: sku(group.job),
        "jobs": lambda group: group.job,
        "operations": lambda group: group.operation,
    }
    total, parts = _Sum(), {name: defaultdict[str, _Sum](_Sum) for name in keys}
    for group in counted.attempts:
        for one in (total, *(parts[name][key(group)] for name, key in keys.items())):
            one.add_attempts(group, pru_ms(group))
    placed: list[tuple[tuple[str, str], Callable[[_Sum], None]]] = [
        ((row.station, row.head), lambda one, row=row: one.add_state(row, setup_in_pbt=settings.setup_in_pbt))  # type: ignore[misc]
        for row in counted.states
    ]
    for (station, head), add in placed:
        for one in (total, parts["stations"][station], parts["heads"][f"{station}/{head}"]):
            add(one)
    for (station, head), number in counted.failures.items():
        for one in (total, parts["stations"][station], parts["heads"][f"{station}/{head}"]):
            one.counts["failures"] += number
    found: dict[str, Any] = {"total": total.figures(hours, states=True)}
    for name, sums in parts.items():
        states = name in ("stations", "heads")
        found[name] = {key: one.figures(hours, states=states) for key, one in sorted(sums.items())}
    found["rty"] = _product(one.fpy for one in found["operations"].values())
    return found


def _product(yields: Iterable[float | None]) -> float | None:
    known = [one for one in yields if one is not None]
    return math.prod(known) if known else None


def _pareto(counted: Counted) -> dict[str, Any]:
    by_count = sorted(counted.defects.items(), key=lambda item: (-item[1][0], item[0]))
    losses = {code: Loss(count=number, ms=ms) for code, (number, ms) in counted.defects.items()}
    for row in counted.states:
        if row.planned and row.e10 in ("SBY", "SDT", "UDT"):
            loss = losses.setdefault(f"{row.e10} {row.code}", Loss(count=0, ms=0))
            loss.count += row.count
            loss.ms += row.ms
    by_time = sorted(losses.items(), key=lambda item: (-item[1].ms, item[0]))
    return {
        "top_defects": {code: number for code, (number, _) in by_count[:_MAX_NAMES]},
        "losses": dict(by_time[:_MAX_NAMES]),
    }


def _takt(window: Window, job: Job | None, counted: Counted) -> float | None:
    """Planned time ÷ units wanted: of a shift its target, of a job order its quantity."""
    wanted = job.quantity if job is not None else window.target
    return ratio(window.planned_s(window.end), wanted) if counted.attempts or wanted else None
