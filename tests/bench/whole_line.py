"""Five lines of 20 stations of 16 heads, 12 s a cycle: 133 results a second with their states, then the knee.

Each line has a supervisor process of its own; all share one database and one Mosquitto. Every result comes with two
state events and a snapshot of its station; none settles a package (what that costs is the benchmark `results`).
IFPP_BENCH_SECONDS: how long the floor runs (600). IFPP_BENCH_STEP_SECONDS: each step towards the knee (20).
IFPP_BENCH_DATABASE: `postgresql` (the usual one) or `sqlite`.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgspec

from ifpp.bus.broker import free_port, start_demo_broker
from ifpp.bus.topics import Topics
from ifpp.errors import ServiceError
from ifpp.model.clock import SystemClock, utc_ms_text, uuid7
from ifpp.model.messages import HeadState, Job, Product, Recipe, StationState, UnitRef, UnitResultEvent
from ifpp.roles.children import Children
from ifpp.store.factory import Factory
from tests.bench.results import _eid
from tests.bench.table import goal, row
from tests.line.feeder import Feeder, eventually
from tests.line.stored import numbers
from tests.line.world import event
from tests.real import postgres

LINES, STATIONS, HEADS, CYCLE_S = 5, 20, 16, 12.0
_FLOOR_MS, _KNEE_MS = 500.0, 1000.0
_FACTOR = 1.5  # from one step towards the knee to the next
_DRAIN_S = 120.0
_NUMBERS = count(1)


def run() -> bool:
    seconds = float(os.environ.get("IFPP_BENCH_SECONDS", "600"))
    step_s = float(os.environ.get("IFPP_BENCH_STEP_SECONDS", "20"))
    with tempfile.TemporaryDirectory() as name, _database(Path(name)) as url:
        return asyncio.run(_run(Path(name), url, seconds, step_s))


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    if os.environ.get("IFPP_BENCH_DATABASE", "postgresql") == "sqlite":
        yield f"sqlite:///{folder}/factory.db"
        return
    with postgres.running(sync=True) as server:
        yield server.new_database()


async def _run(folder: Path, url: str, seconds: float, step_s: float, lines: int = LINES, per: int = STATIONS) -> bool:
    topics = [Topics("bench", "site", "area", f"L{number}") for number in range(1, lines + 1)]
    _jobs(url, [one.line for one in topics])
    broker = await start_demo_broker(folder / "broker", free_port(), SystemClock())
    children = Children(folder / "logs", lambda _name: [sys.executable, "-m", "ifpp"])
    try:
        for one in topics:
            site = folder / f"{one.line}.toml"
            site.write_text(
                f'enterprise = "bench"\nsite = "site"\narea = "area"\nline = "{one.line}"\n'
                f'[broker]\nport = {broker.port}\n[store]\ndatabase = "{url}"\n'
            )
            child = await children.start_ifpp(one.line, "supervisor", "run", "--config", str(site))
            await child.wait_ready()
        floor = Floor(broker.port, topics, per)
        async with AsyncExitStack() as stack:
            for feeder in floor.feeders:
                await stack.enter_async_context(feeder.up())
            return await _measure(floor, url, seconds, step_s)
    finally:
        await children.stop_all()
        await broker.stop()


class Floor:
    """All stations of all lines."""

    def __init__(self, port: int, topics: list[Topics], per: int) -> None:
        self.stations = [
            (one, Feeder(port, one, f"{one.line}-st{number:02d}")) for one in topics for number in range(1, per + 1)
        ]
        self.feeders = [feeder for _, feeder in self.stations]
        self.usual_per_s = len(self.stations) * HEADS / CYCLE_S

    async def work(self, results_per_s: float, seconds: float) -> list[float]:
        """Make results at a pace and wait for the last acknowledgement; return the times to it, in ms, sorted."""
        for feeder in self.feeders:
            feeder.took_s.clear()
        each_s = len(self.stations) / results_per_s
        async with asyncio.TaskGroup() as tasks:
            for turn, (topics, feeder) in enumerate(self.stations):
                offset_s = each_s * turn / len(self.stations)
                tasks.create_task(_station(topics, feeder, each_s, offset_s, seconds))
        await eventually(lambda: all(feeder.done for feeder in self.feeders), _DRAIN_S)
        return sorted(1000 * value for feeder in self.feeders for value in feeder.took_s)


async def _station(topics: Topics, feeder: Feeder, each_s: float, offset_s: float, seconds: float) -> None:
    """One result each `each_s`, on one head after the other, with its two state events and the station's snapshot."""
    start_s = time.monotonic() + offset_s
    for turn in range(round(seconds / each_s)):
        await asyncio.sleep(max(0.0, start_s + turn * each_s - time.monotonic()))
        head = f"h{turn % HEADS + 1:02d}"
        for old, new in ((("SBY", 2202), ("PRD", 1100)), (("PRD", 1100), ("SBY", 2202))):
            said = {"resource": head, "old": old[0], "old_code": old[1], "new": new[0], "new_code": new[1]}
            feeder.add("state_changed", event(feeder.node_id, len(feeder.outbox) + 1, **said))
        feeder.add("unit_result", _result(topics.line, feeder.node_id, len(feeder.outbox) + 1, head))
        try:
            await feeder.bus.publish(topics.station_state(feeder.node_id), _snapshot(feeder.node_id), retain=True)
        except ServiceError:
            continue  # a snapshot is said again with the next result


async def _measure(floor: Floor, url: str, seconds: float, step_s: float) -> bool:
    took = await floor.work(floor.usual_per_s, seconds)
    row("results a second, all lines", [floor.usual_per_s], "")
    _latency("at the usual pace", took)
    met = goal("p99 publish, commit, ack (ms)", percentile(took, 99), _FLOOR_MS, at_least=False)
    pace, knee = floor.usual_per_s, 0.0
    while knee == 0.0:
        pace *= _FACTOR
        try:
            took = await floor.work(pace, step_s)
        except TimeoutError:
            took = [1000 * _DRAIN_S] * 100
        _latency(f"at {pace:.0f} results a second", took)
        if percentile(took, 99) > _KNEE_MS:
            knee = pace
    row("the knee: results a second, p99 over 1 s", [knee], "")
    await eventually(lambda: all(feeder.done for feeder in floor.feeders), 5 * _DRAIN_S)
    lost = await asyncio.to_thread(_lost, floor, url)
    return goal("events lost or doubled", lost, 0, at_least=False) and met


def _lost(floor: Floor, url: str) -> int:
    """How many events are not in the books once, or were refused."""
    stored = numbers(url)
    wrong = sum(len(set(range(1, len(one.outbox) + 1)) ^ set(stored[one.node_id])) for one in floor.feeders)
    return wrong + sum(len(feeder.rejected) for feeder in floor.feeders)


def percentile(values: list[float], part: int) -> float:
    return statistics.quantiles(values, n=100)[part - 1]


def _latency(name: str, took: list[float]) -> None:
    p50, p99 = percentile(took, 50), percentile(took, 99)
    sys.stdout.write(f"publish, commit, ack {name:28} p50 {p50:8.1f}  p99 {p99:8.1f} ms  ({len(took)} events)\n")
    sys.stdout.flush()


def _jobs(url: str, lines: list[str]) -> None:
    now = datetime.now(UTC)
    with closing(Factory.open(url, writer="bench")) as factory:
        for line in lines:
            job = Job(
                job_order_id=f"JO-{line}",
                version=1,
                product=Product(part_number="P"),
                region="EU",
                recipe=Recipe(name="r"),
                quantity=1_000_000,
            )
            with factory.intake("job", job.job_order_id, job.job_order_id, now) as intake:
                intake.add_job(line, job)


def _snapshot(station: str) -> bytes:
    now = utc_ms_text(datetime.now(UTC))
    head = HeadState(e10="PRD", code=1100, phase="LOAD", since=now)
    return msgspec.json.encode(
        StationState(
            schema="station/1.0",
            id=uuid7(datetime.now(UTC)),
            ts=now,
            node_id=station,
            boot_id="boot-1",
            e10="PRD",
            e10_code=1100,
            phase="LOAD",
            since=now,
            heads={f"h{number:02d}": head for number in range(1, HEADS + 1)},
        )
    )


def _result(line: str, station: str, seq: int, head: str) -> bytes:
    """A unit that found no package: its result settles none."""
    now = datetime.now(UTC)
    at, eid = utc_ms_text(now), str(_eid(next(_NUMBERS)))
    return msgspec.json.encode(
        UnitResultEvent(
            schema="unit_result/1.0",
            id=uuid7(now),
            ts=at,
            node_id=station,
            boot_id="boot-1",
            seq=seq,
            transaction_id=uuid7(now),
            operation="PROFILE_LOAD",
            unit=UnitRef(eid=eid),
            job_order_id=f"JO-{line}",
            product=Product(part_number="P"),
            region="EU",
            recipe=Recipe(name="r"),
            head_id=head,
            attempt=1,
            result="FAIL",
            outcome_class="PRODUCT",
            disposition="REWORK",
            clean_to_ship=False,
            seal=None,
            started_at=at,
            ended_at=at,
            cycle_ms=12_000,
            load_ms=9000,
            handling_ms=3000,
            profiles=[],
        )
    )
