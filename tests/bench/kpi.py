"""Documents of a shift of 100,000 units: time from the last event in the database to the document, on both databases.

`python -m tests.bench kpi`; IFPP_BENCH_UNITS makes it smaller.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path

from ifpp.line.kpi import figures_of
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.line.test_kpi import JOBS, PLANNED, T0, WINDOW, Stay, Try, events
from tests.real import postgres

_WITHIN_S = 2.0
_HEADS = 320
_BATCH = 2000


def run() -> int:
    units = int(os.environ.get("IFPP_BENCH_UNITS", "100000"))
    missed = 0
    with tempfile.TemporaryDirectory() as folder, postgres.running() as server:
        for name, url in (("SQLite", f"sqlite:///{Path(folder)}/factory.db"), ("PostgreSQL", server.new_database())):
            first_s, took_s = _measure(url, units)
            missed += took_s > _WITHIN_S
            told = f"{took_s:6.2f} s  (wanted: {_WITHIN_S} s); {first_s:.2f} s the first time after a start"
            sys.stdout.write(f"{name:10}  {units} units  {told}\n")
    return missed


def _measure(url: str, units: int) -> tuple[float, float]:
    """Fill a database; return how long the first count took, and the longest of three, each after one more event."""
    factory = Factory.open(url)
    try:
        for name, job in JOBS.items():
            with factory.intake("job", name, name, T0) as intake:
                intake.add_job("L1", job)
        told = iter(_shift(units))
        *last, rest = [next(told) for _ in range(3)], told
        while batch := list(islice(rest, _BATCH)):
            factory.take_events(batch, T0)
        first_s, took_s = _count_s(factory), 0.0
        for event in (event for group in last for event in group):
            factory.take_events([event], T0)
            took_s = max(took_s, _count_s(factory))
        return first_s, took_s
    finally:
        factory.close()


def _count_s(factory: Factory) -> float:
    began_s = time.perf_counter()
    figures_of(factory, "L1", WINDOW, PLANNED, now=T0 + timedelta(hours=8), jobs=JOBS)
    return time.perf_counter() - began_s


def _shift(units: int) -> Iterator[ReceivedEvent]:
    """Units on 20 stations of 16 heads over the shift: one in fifty is tried twice; two states a unit."""
    each_s = 8 * 3600 * _HEADS // units
    tries, stays = [], []
    for number in range(units):
        place, turn = number % _HEADS, number // _HEADS
        station, head = f"st{place // 16:02d}", f"h{place % 16:02d}"
        at, busy = turn * each_s, max(1, each_s - 3)
        again = number % 50 == 49
        unit = f"U{number - _HEADS if again else number}"
        result = "FAIL" if number % 50 == 48 else "PASS"
        tries.append(Try(station, head, "A", "LOAD", unit, 1 + again, result, at, busy))
        stays.append(Stay(station, head, "PRD", 1100, at, busy, "SBY", 2202))
        stays.append(Stay(station, head, "SBY", 2202, at + busy, each_s - busy, "PRD", 1100))
    yield from events(tries, stays)
