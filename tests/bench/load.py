"""Commands really received by the chips, from PrepareDownload to the result, against the minimum of the protocol."""

from __future__ import annotations

from tests.bench.line import demo_figures
from tests.bench.table import goal, row


def run() -> bool:
    out = demo_figures(units=16, heads=4, apdu_ms=0)
    row("commands a load", [out["apdus_per_unit"]], "")
    row("the protocol's minimum", [out["apdu_floor_per_unit"]], "")
    ratio = out["apdus_per_unit"] / out["apdu_floor_per_unit"]
    return goal("commands / minimum", ratio, 1.0, at_least=False)
