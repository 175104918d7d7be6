"""24 hours of a line with wrong events' times but real processes' ways: two shifts, a changeover, three outages.

Stations send a day's events as fast as they go, over a real Mosquitto, to a real supervisor with an MES that
acknowledges. MES, broker and database are each away once. IFPP_DAY_UNITS makes the day busier (2400).
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind, start_demo_broker
from ifpp.errors import ServiceError
from ifpp.line import mes_desk
from ifpp.line.kpi_book import KpiBook
from ifpp.model.clock import SystemClock
from ifpp.settings import Calendar, Shift, Site
from ifpp.store.records import ReceivedEvent
from tests.bus.node import TOPICS
from tests.line import test_kpi
from tests.line.feeder import Feeder, eventually
from tests.line.test_kpi import JOBS, PLANNED, T0, Stay, Try, brute, check, events
from tests.line.test_mes_desk import MesNode, with_mes
from tests.line.world import GatedFactory, supervised
from tests.real.mosquitto import running

_STATIONS, _HEADS, _HOUR = 4, 2, 3600
_DAY = 24 * _HOUR
_CHANGEOVER = (13 * _HOUR, 14 * _HOUR)
_SHIFTS = {"day": (0, 12 * _HOUR), "night": (12 * _HOUR, _DAY)}
_UNITS = int(os.environ.get("IFPP_DAY_UNITS", "2400"))
_WITHIN_S = 120.0 + _UNITS / 20


def day() -> tuple[list[Try], list[Stay]]:
    """What happens: on every head one attempt after another; some fail, some are seated again; setup in between."""
    each, random, number = _DAY * _STATIONS * _HEADS // _UNITS, Random(7), 0
    tries, stays = [], []
    for place in range(_STATIONS * _HEADS):
        station, head = f"st{place // _HEADS + 1:02d}", f"h{place % _HEADS + 1:02d}"
        lives: list[tuple[str, int, int]] = []
        again: list[tuple[str, int]] = []
        at = place  # no two heads at the same second
        while at < _DAY + each:
            if _CHANGEOVER[0] <= at < _CHANGEOVER[1]:
                lives.append(("SDT", at, _CHANGEOVER[1] + place - at))
                at = _CHANGEOVER[1] + place
                again = []  # what failed before the changeover is not tried again
                continue
            number += 1
            unit, attempt = again.pop() if again else (f"U{number}", 1)
            result = random.choices(["PASS", "FAIL", "ERROR"], [94, 3, 3])[0] if attempt < 3 else "PASS"
            took = random.randint(each // 4, each - 2)
            job = "A" if at < _CHANGEOVER[0] else "B"
            tries.append(Try(station, head, job, "LOAD", unit, attempt, result, at, took))
            lives += [("PRD", at, took), ("SBY", at + took, each - took)]
            if result != "PASS":
                again.append((unit, attempt + 1))
            at += each
        for (e10, start, took), (after, *_) in pairwise([*lives, ("SBY", 0, 0)]):
            codes = test_kpi.CODES
            stays.append(Stay(station, head, e10, codes[e10], start, took, after, codes[after]))
    return tries, stays


def state_ms(stays: list[Stay], start: int, end: int) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for one in stays:
        found[one.e10] += 1000 * max(0, min(end, one.at + one.took) - max(start, one.at))
    return {name: ms for name, ms in found.items() if ms}


class Mes:
    """An MES that acknowledges what it has without a gap, whenever it is there."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.has: dict[int, dict[str, Any]] = {}
        self.conflicts = 0

    @asynccontextmanager
    async def there(self) -> AsyncIterator[None]:
        node = MesNode(self._port)
        async with node.up():
            task = asyncio.create_task(self._acknowledge(node))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [one for one in self.has.values() if one["schema"].startswith("unit_result/")]

    @property
    def through(self) -> int:
        number = 0
        while number + 1 in self.has:
            number += 1
        return number

    async def _acknowledge(self, node: MesNode) -> None:
        read = 0
        while True:
            for message in node.received[read:]:
                if "/_line/evt/" in message.topic:
                    document = msgspec.json.decode(message.payload)
                    before = self.has.setdefault(document["seq"], document)
                    self.conflicts += before != document
            read = len(node.received)
            with suppress(ServiceError):  # the broker is away: said again
                await node.acknowledge(self.through)
            await asyncio.sleep(0.05)


def told_all(factory: GatedFactory) -> bool:
    state = factory.line_log_state("L1")
    return state.acknowledged == state.last


def deal(feeders: dict[str, Feeder], told: list[ReceivedEvent]) -> None:
    for one in told:
        feeders[one.node_id].add(one.schema.partition("/")[0], one.body)


async def test_a_day_adds_up_whatever_was_away(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mes_desk, "_ROUND_S", 0.02)
    monkeypatch.setattr(mes_desk, "_RESEND_FIRST_S", 1.0)
    for job in JOBS.values():
        factory.add_job(msgspec.structs.replace(job, quantity=1_000_000))
    tries, stays = day()
    told = events(tries, stays)
    parts = [told[len(told) * n // 6 : len(told) * (n + 1) // 6] for n in range(6)]
    async with running(tmp_path) as broker, AsyncExitStack() as stack:
        mes = Mes(broker.port)
        feeders = {f"st{n:02d}": Feeder(broker.port, TOPICS, f"st{n:02d}") for n in range(1, _STATIONS + 1)}

        async def all_taken() -> None:
            await eventually(lambda: all(one.done for one in feeders.values()), _WITHIN_S)

        await stack.enter_async_context(supervised(with_mes(broker.port), factory))
        for feeder in feeders.values():
            await stack.enter_async_context(feeder.up())
        async with mes.there():
            deal(feeders, parts[0])
            await all_taken()
        deal(feeders, parts[1])  # the MES is away
        await all_taken()
        async with mes.there():
            deal(feeders, parts[2])
            await eventually(lambda: any(not one.done for one in feeders.values()), _WITHIN_S)
            await broker.kill()
            deal(feeders, parts[3])
        again = await start_demo_broker(tmp_path / "again", broker.port, SystemClock(), kind=BrokerKind.MOSQUITTO)
        stack.push_async_callback(again.stop)
        async with mes.there():
            await all_taken()
            factory.faults = [ServiceError("DATABASE.UNREACHABLE", "gone") for _ in range(3)]
            deal(feeders, parts[4])
            await eventually(lambda: not factory.faults, _WITHIN_S)
            deal(feeders, parts[5])
            await all_taken()
            await eventually(lambda: len(mes.results) == len(tries), _WITHIN_S)
            await eventually(lambda: told_all(factory), _WITHIN_S)
        for feeder in feeders.values():
            assert feeder.rejected == {}
            assert factory.taken(feeder.node_id) == list(range(1, len(feeder.outbox) + 1))
        await stack.aclose()
    the_mes_has_everything_once(mes, tries)
    the_shifts_add_up(factory, tries, stays, monkeypatch)


def the_mes_has_everything_once(mes: Mes, tries: list[Try]) -> None:
    """The line's log: numbers without a gap, one document a number, every result of the stations in one of them."""
    assert mes.through == len(mes.has)
    assert mes.conflicts == 0
    told = sorted((one["unit"]["sn"], one["attempt"], one["result"]) for one in mes.results)
    assert told == sorted((one.unit, one.attempt, one.result) for one in tries)


def the_shifts_add_up(
    factory: GatedFactory, tries: list[Try], stays: list[Stay], monkeypatch: pytest.MonkeyPatch
) -> None:
    calendar = Calendar(shifts=(Shift("day", "06:00", "18:00"), Shift("night", "18:00", "06:00")))
    site = Site("acme", "graz", "hall-2", "L1", calendar=calendar, kpi=PLANNED)
    now = T0 + timedelta(hours=26)
    book, attempts = KpiBook(site, factory), 0
    for name, (start, end) in _SHIFTS.items():
        monkeypatch.setattr(test_kpi, "inside", lambda one, a=start, b=end: a <= one.at + one.took < b)
        content = book.write(book.shifts.named(f"2026-03-02/{name}", now), now).content
        check(content["total"], brute(tries))
        for sku, figures in content["skus"].items():
            check(figures, brute(tries, lambda one, sku=sku: f"SKU-{one.job}" == sku))
        assert content["total"].state_ms == state_ms(stays, start, end)
        assert content["complete"]
        assert set(content["skus"]) == ({"SKU-A"} if name == "day" and _CHANGEOVER[0] >= end else {"SKU-A", "SKU-B"})
        attempts += content["total"].attempts
    assert attempts == sum(one.at + one.took < _DAY for one in tries)
