"""What a process tells its service manager, and that a hang of its own is never covered up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from ifpp.bus.broker import free_port
from ifpp.hw.port import CardPort, make_port
from ifpp.line.lease import Lease
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock, uuid7
from ifpp.model.messages import OperatorAction
from ifpp.roles import notify
from ifpp.roles.runtime import run_until_stopped, say_ready
from ifpp.settings import Broker, Head, Site, Station, Store
from ifpp.station import agent as agents
from ifpp.station.agent import Agent
from ifpp.station.journal import Journal
from ifpp.station.records import OutboxDepth
from ifpp.store.factory import Factory
from ifpp.storefront.app import SWEEP_S, build_app
from ifpp.trust.chain import TrustStore
from tests.bus.node import until
from tests.clock import FakeClock
from tests.roles.notifying import Manager, listening

SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with listening(tmp_path, monkeypatch) as heard:
        yield heard


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    opened = Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")
    yield opened
    opened.close()


class Hang:
    """A call that does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered, self.free = threading.Event(), threading.Event()

    def __call__(self, *_: object, **__: object) -> int:
        self.entered.set()
        assert self.free.wait(20)
        return 0


async def turns() -> None:
    """Let the loop do everything that can be done now."""
    for _ in range(200):
        await asyncio.sleep(0)


# ---- the datagrams ----------------------------------------------------------------------------------------


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready("serves")
    notify.beat("goes on")
    notify.stopping()
    assert not notify.managed()


def test_each_word_is_one_datagram(manager: Manager) -> None:
    notify.ready("serves\nhere")
    notify.beat("goes on")
    notify.stopping()
    assert manager.waiting() == [
        ["READY=1", "STATUS=serves here"],
        ["WATCHDOG=1", "STATUS=goes on"],
        ["STOPPING=1", "STATUS=finishes what is under way"],
    ]


def test_a_socket_in_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(f"@ifpp-test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    notify.ready("serves")
    assert manager.until("READY=1")
    manager.close()


def test_no_watchdog_is_fed_that_nobody_set_or_that_watches_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path, monkeypatch, watchdog=False) as manager:
        notify.beat("goes on")
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
        notify.beat("goes on")
        assert manager.waiting() == [["STATUS=goes on"]] * 2
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notify.beat("goes on")
        assert manager.waiting() == [["WATCHDOG=1", "STATUS=goes on"]]


def test_a_manager_that_is_gone_stops_nothing(manager: Manager) -> None:
    manager.close()
    notify.ready("serves")
    Path(manager.address).unlink()
    notify.beat("goes on")


# ---- the end ----------------------------------------------------------------------------------------------


def test_a_signal_says_stopping_and_the_drain_goes_on(manager: Manager) -> None:
    drained = []

    async def main(stop: asyncio.Event) -> None:
        say_ready("store")
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        drained.append([lines[0] for lines in manager.waiting()])

    run_until_stopped(main)
    assert drained == [["READY=1", "STOPPING=1"]]


def test_a_second_signal_ends_it_as_ctrl_c_does(manager: Manager) -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(main)


# ---- what hangs, and what may ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["expire_leases", "ping"])
async def test_a_store_whose_writer_or_reader_hangs_is_silent(
    part: str, manager: Manager, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hang = FakeClock(), Hang()
    app = build_app(factory, clock, beat=partial(notify.beat, "serves"))
    runner = web.AppRunner(app)
    await runner.setup()
    await until(lambda: clock.sleepers == 1)
    assert manager.waiting() == [["WATCHDOG=1", "STATUS=serves"]]
    monkeypatch.setattr(factory, part, hang)
    clock.advance(SWEEP_S)
    await until(hang.entered.is_set)
    for _ in range(20):
        clock.advance(SWEEP_S)
        await turns()
    assert manager.waiting() == []
    hang.free.set()
    await until(lambda: clock.sleepers == 1)
    assert manager.waiting() == [["WATCHDOG=1", "STATUS=serves"]]
    await runner.cleanup()


async def test_a_supervisor_whose_database_hangs_is_silent(
    manager: Manager, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hang, over = FakeClock(), Hang(), asyncio.Event()
    site = Site("e", "s", "a", "L1")
    with ThreadPoolExecutor(1) as executor:
        other = Lease(site, factory, executor, "other", clock)
        assert await other.win(over) == 1
        lease = Lease(site, factory, executor, "owner", clock, notify.beat)
        winning = asyncio.create_task(lease.win(over))
        await until(lambda: clock.sleepers == 1)
        (stands_by,) = manager.waiting()
        assert stands_by == ["WATCHDOG=1", "STATUS=waits for line L1: another supervisor runs it: standing by"]
        await other.release()
        clock.advance(1.0)
        assert await winning == 2
        keeping = asyncio.create_task(lease.keep(over))
        await until(lambda: clock.sleepers == 1)
        assert manager.waiting()[-1] == ["WATCHDOG=1", "STATUS=runs line L1, epoch 2"]
        acquire = factory.acquire_line
        monkeypatch.setattr(factory, "acquire_line", hang)
        clock.advance(5.0)
        await until(hang.entered.is_set)
        for _ in range(20):
            clock.advance(5.0)
            await turns()
        assert manager.waiting() == []
        monkeypatch.setattr(factory, "acquire_line", acquire)
        hang.free.set()
        over.set()
        await keeping


async def test_a_station_whose_journal_hangs_is_silent_and_one_whose_heads_hang_is_not(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, writer, asked, stop = Hang(), Hang(), asyncio.Event(), asyncio.Event()

    def stuck(url: str, lamp: str) -> CardPort:
        port = make_port(url, lamp)
        monkeypatch.setattr(port, "open", driver)
        return port

    monkeypatch.setattr(agents, "make_port", stuck)
    monkeypatch.setattr(agents, "_DRAIN_S", 0.0)  # there is no broker to take the events
    station, clock = Station(id="st01", heads={"h01": Head(port="tcp://127.0.0.1:9")}), SystemClock()
    site = Site("e", "s", "a", "L1", broker=Broker(port=free_port()), store=Store(url="http://127.0.0.1:9"))
    journal, metrics = (
        Journal.open(tmp_path / "journal.db", "st01", clock),
        Metrics(Role.STATION, line="L1", station="st01"),
    )
    agent = Agent(site, station, journal=journal, trust=TrustStore([]), metrics=metrics, clock=clock)
    run = asyncio.create_task(agent.run(stop, lambda: None, notify.beat))
    await until(driver.entered.is_set)
    manager.waiting()
    for _ in range(2):
        await until(lambda: any("WATCHDOG=1" in said for said in manager.waiting()))
    look = journal.depth

    def seen() -> Future[OutboxDepth]:
        asked.set()
        return look()

    journal.on_event = writer  # called on the thread that writes
    journal.events([("operator_action", event())])
    await until(writer.entered.is_set)
    monkeypatch.setattr(journal, "depth", seen)
    await asked.wait()
    manager.waiting()
    await turns()
    assert manager.waiting() == []
    writer.free.set()
    said = await asyncio.to_thread(manager.until, "WATCHDOG=1")
    assert said[1].startswith("STATUS=st01 takes units; ")
    driver.free.set()
    stop.set()
    await run
    journal.close()


def event() -> OperatorAction:
    return OperatorAction(
        schema="operator_action/1.0",
        id=uuid7(SystemClock().now()),
        ts="2026-03-01T08:00:00.000Z",
        node_id="st01",
        boot_id="b",
        action="LOGIN",
        operator_id="anna",
        target="st01",
    )


# ---- real processes ---------------------------------------------------------------------------------------


def test_processes_tell_it_themselves(tmp_path: Path) -> None:
    """A store is ready when it answers /readyz; a supervisor when it waits for its line, though its broker is away."""
    site = tmp_path / "site.toml"
    ports = f"[broker]\nport = {free_port()}\n[store]\nport = {free_port()}\n[supervisor]\nmetrics_port = 0\n"
    site.write_text(SITE + ports)
    store, supervisor = Manager(str(tmp_path / "store")), Manager(str(tmp_path / "supervisor"))
    with (
        managed(store, "store", "serve", "--config", str(site)) as serving,
        managed(supervisor, "supervisor", "run", "--config", str(site)) as supervising,
    ):
        store.until("READY=1")
        port = tomllib.loads(site.read_text())["store"]["port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            assert answer.status == 200
        assert store.until("WATCHDOG=1")[1] == "STATUS=serves http://127.0.0.1:8470"
        assert supervisor.until("READY=1")[1] == "STATUS=waits for line L1"
        assert supervisor.until("WATCHDOG=1")[1] == "STATUS=runs line L1, epoch 1"
        serving.send_signal(signal.SIGTERM)
        assert store.until("STOPPING=1")
        assert serving.wait(20) == 0
        supervising.send_signal(signal.SIGABRT)  # what the watchdog sends
        told = supervising.communicate(timeout=20)[1]
        assert supervising.returncode == -signal.SIGABRT
        assert "lease.py" in told or "selectors.py" in told, "it says where it stood"
    for one in (store, supervisor):
        one.close()


@contextmanager
def managed(manager: Manager, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ifpp under a service manager; killed if it still runs at the end."""
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"}
    command = ["prlimit", "--core=0", sys.executable, "-m", "ifpp", *words]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
