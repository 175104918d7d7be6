"""Listening only, at a real broker: what was kept, what comes, and coming back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from ifpp.bus.broker import free_port, start_demo_broker
from ifpp.bus.client import BrokerAddress
from ifpp.bus.follow import follow
from ifpp.bus.topics import Topics
from ifpp.bus.visit import visit
from ifpp.model.clock import SystemClock
from tests.tui import pictures

TOPICS = Topics("E", "S", "A", "L1")
PATIENCE_S = 60.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.02)


async def test_a_listener_hears_what_comes_and_is_back_when_the_broker_is(tmp_path: Path) -> None:
    clock, port = SystemClock(), free_port()
    document = msgspec.json.encode(pictures.station())
    heard: list[tuple[str, bytes]] = []
    links: list[bool] = []
    address = BrokerAddress("127.0.0.1", port, timeout_s=PATIENCE_S)
    listening = asyncio.create_task(
        follow(address, TOPICS, ["+/state/station"], lambda *one: heard.append(one), links.append, clock)
    )
    try:
        await until(lambda: links == [False])
        broker = await start_demo_broker(tmp_path / "one", port, clock)
        try:
            await until(lambda: links[-1])
            async with visit(address, "L1", []) as here:
                await here.publish(TOPICS.station_state("st01"), document)
            await until(lambda: heard == [("st01/state/station", document)])
        finally:
            await broker.stop()
        await until(lambda: not links[-1])
        again = await start_demo_broker(tmp_path / "two", port, clock)
        try:
            await until(lambda: links[-1])
        finally:
            await again.stop()
    finally:
        listening.cancel()
        await asyncio.wait([listening])
