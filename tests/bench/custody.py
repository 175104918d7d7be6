"""What custody costs: journal and ledger on the disk against the same run on a file system in memory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.line import demo_figures
from tests.bench.table import goal, row

_HEADS, _UNITS_A_HEAD, _RUNS = 16, 8, 3
_PROFILE_BYTES = 30_000
_MEMORY = Path("/dev/shm")  # a tmpfs on every Linux: there a sync costs nothing


def run() -> bool:
    if not _MEMORY.is_dir():
        sys.stdout.write(f"there is no {_MEMORY}: nothing to compare with\n")
        return False
    sys.stdout.write(f"disk: {tempfile.gettempdir()}, memory: {_MEMORY}\n")
    ratios = []
    for _ in range(_RUNS):
        disk, memory = (
            demo_figures(
                units=_UNITS_A_HEAD * _HEADS, heads=_HEADS, apdu_ms=5, profile_bytes=_PROFILE_BYTES, place=place
            )
            for place in (None, _MEMORY)
        )
        ratios.append(memory["units_per_hour"] / disk["units_per_hour"])
    return goal("time of a unit, disk / memory", row("ratio", ratios, ""), 1.02, at_least=False)
