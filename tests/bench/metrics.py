"""What a scrape of a station of 64 heads costs: time to write it, and its size."""

from __future__ import annotations

import statistics
import time

from tests.bench.table import goal, row
from tests.test_metrics import busy_station

_TIMES = 50


def run() -> bool:
    metrics, took_ms = busy_station(), []
    for _ in range(_TIMES):
        began_s = time.perf_counter()
        text = metrics.text()
        took_ms.append(1000 * (time.perf_counter() - began_s))
    row("exposition", took_ms, "ms")
    quick = goal("exposition, median (ms)", statistics.median(took_ms), 20, at_least=False)
    small = goal("exposition (kB)", len(text) / 1000, 150, at_least=False)
    return quick and small
