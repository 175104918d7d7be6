"""Two real supervisor processes of one line, stations that go on sending, a real Mosquitto: nothing lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.roles.children import Child, Children
from tests.bus.node import TOPICS, Node
from tests.campaign.control import Handle
from tests.line.feeder import Feeder, eventually
from tests.line.stored import numbers
from tests.line.world import event
from tests.real import postgres
from tests.real.mosquitto import running

_LEASE_S = 2.0
_SITE = """enterprise = "acme"
site = "graz"
area = "hall-2"
line = "{line}"
[broker]
port = {port}
[store]
database = "{database}"
[supervisor]
lease_s = {lease_s}
"""


class Hall:
    """Supervisors of some lines over one database; each has a clock of its own that can be set wrong."""

    def __init__(self, folder: Path, port: int, database: str) -> None:
        self.port = port
        self.database = database
        self._folder = folder
        self._control = ""
        self.children = Children(folder / "logs", self._command)

    async def supervisor(self, name: str, line: str = "L1") -> Child:
        site = self._folder / f"{name}.toml"
        site.write_text(_SITE.format(line=line, port=self.port, database=self.database, lease_s=_LEASE_S))
        return await self.children.start_ifpp(name, "supervisor", "run", "--config", str(site))

    def set_clock(self, name: str, wrong_s: float) -> None:
        Handle(self._folder / name).set_clock(wrong_s)

    def said(self, name: str, word: str) -> bool:
        log = self._folder / "logs" / f"{name}.log"
        return log.exists() and word in log.read_text()

    def _command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "tests.campaign.launch", str(self._folder / name)]


@asynccontextmanager
async def hall(folder: Path, database: str = "") -> AsyncIterator[Hall]:
    async with running(folder) as broker:
        one = Hall(folder, broker.port, database or f"sqlite:///{folder}/factory.db")
        try:
            yield one
        finally:
            for name in ("one", "two"):
                with suppress(KeyError, ProcessLookupError):
                    one.children[name].process.send_signal(signal.SIGCONT)
            await one.children.stop_all()


async def feed(feeder: Feeder, over: asyncio.Event) -> None:
    """Some 50 events a second."""
    while not over.is_set():
        for _ in range(5):
            feeder.add("state_changed", event(feeder.node_id, len(feeder.outbox) + 1))
        await asyncio.sleep(0.1)


async def kill(hall: Hall, one: Child) -> None:
    one.process.kill()


async def stop(hall: Hall, one: Child) -> None:
    one.process.terminate()


async def freeze(hall: Hall, one: Child) -> None:
    one.process.send_signal(signal.SIGSTOP)


async def clock_back(hall: Hall, one: Child) -> None:
    hall.set_clock("one", -3600.0)


async def clock_forward(hall: Hall, one: Child) -> None:
    hall.set_clock("two", 3600.0)


@pytest.mark.parametrize("accident", [kill, stop, freeze, clock_back, clock_forward])
async def test_the_standby_takes_over_and_nothing_is_lost_or_doubled(
    tmp_path: Path, accident: Callable[[Hall, Child], Awaitable[None]]
) -> None:
    async with hall(tmp_path) as here, AsyncExitStack() as stack:
        one = await here.supervisor("one")
        await one.wait_ready()
        await here.supervisor("two")
        await eventually(lambda: here.said("two", "standing by"))
        feeders = [Feeder(here.port, TOPICS, f"st{number:02d}") for number in range(1, 5)]
        watcher = await stack.enter_async_context(Node(here.port, "st99", [TOPICS.online(LINE_NODE)]).up())
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for feeder in feeders:
                await stack.enter_async_context(feeder.up())
                tasks.create_task(feed(feeder, over))
            await eventually(lambda: all(feeder.through > 20 for feeder in feeders))
            await accident(here, one)
            await eventually(lambda: all(2 in feeder.epochs for feeder in feeders))
            marks = [len(feeder.outbox) for feeder in feeders]
            await eventually(lambda: all(f.through > mark for f, mark in zip(feeders, marks, strict=True)))
            if accident is freeze:
                assert one.process.returncode is None
                one.process.send_signal(signal.SIGCONT)
                await eventually(lambda: here.said("one", "line.lost") and here.said("one", "standing by"))
            marks = [len(feeder.outbox) for feeder in feeders]
            await eventually(lambda: all(f.through > mark for f, mark in zip(feeders, marks, strict=True)))
            over.set()
        await eventually(lambda: all(feeder.done for feeder in feeders))
        await eventually(lambda: watcher.online(LINE_NODE)[-1][0])
        assert watcher.online(LINE_NODE)[-1][1] == max(session for _, session in watcher.online(LINE_NODE))
        for feeder in feeders:
            assert max(feeder.epochs) == 2, "one take-over, and no struggle"
            assert feeder.epochs_never_fall()
            assert feeder.rejected == {}
            assert numbers(here.database)[feeder.node_id] == list(range(1, len(feeder.outbox) + 1))


async def test_two_lines_on_one_database_do_not_mix(tmp_path: Path) -> None:
    with postgres.running() as server:
        async with hall(tmp_path, server.new_database()) as here, AsyncExitStack() as stack:
            one, two = await here.supervisor("one", "L1"), await here.supervisor("two", "L2")
            await asyncio.gather(one.wait_ready(), two.wait_ready())
            lines = {name: Topics("acme", "graz", "hall-2", name) for name in ("L1", "L2")}
            feeders = [
                Feeder(here.port, topics, f"{name}-st{number}") for name, topics in lines.items() for number in (1, 2)
            ]
            for feeder in feeders:
                await stack.enter_async_context(feeder.up())
                for seq in range(1, 301):
                    feeder.add("state_changed", event(feeder.node_id, seq))
            await eventually(lambda: any(feeder.through > 20 for feeder in feeders))
            one.process.kill()  # what happens to one line is nothing to the other
            await eventually(lambda: all(feeder.done for feeder in feeders if feeder.node_id.startswith("L2")))
            again = await here.supervisor("one", "L1")
            await again.wait_ready()
            await eventually(lambda: all(feeder.done for feeder in feeders))
            for feeder in feeders:
                assert feeder.epochs_never_fall()
                assert max(feeder.epochs) == (2 if feeder.node_id.startswith("L1") else 1)
                assert numbers(here.database)[feeder.node_id] == list(range(1, 301))
