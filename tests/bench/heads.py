"""16 heads at 5 ms a command against 16 times one head alone; the same profile in every unit."""

from __future__ import annotations

from tests.bench.line import demo_figures
from tests.bench.table import goal, row

_HEADS, _UNITS_ALONE, _UNITS_A_HEAD, _RUNS = 16, 20, 10, 5
_PROFILE_BYTES = 30_000


def run() -> bool:
    ratios, cpu_ms = [], []
    for _ in range(_RUNS):
        one = demo_figures(units=_UNITS_ALONE, heads=1, apdu_ms=5, profile_bytes=_PROFILE_BYTES)
        many = demo_figures(units=_UNITS_A_HEAD * _HEADS, heads=_HEADS, apdu_ms=5, profile_bytes=_PROFILE_BYTES)
        ratios.append(many["steady_units_per_hour"] / (_HEADS * one["steady_units_per_hour"]))
        cpu_ms.append(many["cpu_ms_per_unit"])
    row("station CPU a unit", cpu_ms, "ms")
    return goal(f"units/s of {_HEADS} heads / {_HEADS} x one head", row("ratio", ratios, ""), 0.95, at_least=True)
