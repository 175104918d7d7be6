"""Starting, stopping and losing the demo broker."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from ifpp.bus import broker as broker_module
from ifpp.bus.broker import BrokerKind, free_port, start_demo_broker, wait_until_open
from ifpp.errors import ServiceError, SettingsError
from ifpp.model.clock import SystemClock
from tests.bus.node import TOPICS, Node, until
from tests.clock import FakeClock
from tests.real.mosquitto import both_brokers, require, running


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@both_brokers
async def test_it_answers_until_it_is_stopped(kind: BrokerKind, tmp_path: Path) -> None:
    async with running(tmp_path, kind) as broker:
        assert broker.kind is kind
        assert _answers(broker.port)
        await broker.stop()
        assert not _answers(broker.port)
        assert broker.process.returncode == 0
        assert broker.logfile.is_file()


@both_brokers
async def test_kill_ends_it_at_once(kind: BrokerKind, tmp_path: Path) -> None:
    async with running(tmp_path, kind) as broker:
        await broker.kill()
        assert broker.process.returncode == -9
        await broker.kill()  # and once more does no harm


async def test_mosquitto_is_preferred_where_it_is_installed(tmp_path: Path) -> None:
    require(BrokerKind.MOSQUITTO)
    broker = await start_demo_broker(tmp_path, free_port(), SystemClock())
    await broker.stop()
    assert broker.kind is BrokerKind.MOSQUITTO


async def test_amqtt_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "mosquitto_path", lambda: None)
    broker = await start_demo_broker(tmp_path, free_port(), SystemClock())
    await broker.stop()
    assert broker.kind is BrokerKind.AMQTT


@pytest.mark.parametrize("kind", [BrokerKind.MOSQUITTO, None])
async def test_a_machine_without_broker_is_told_what_to_install(
    kind: BrokerKind | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "mosquitto_path", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="install") as caught:
        await start_demo_broker(tmp_path, free_port(), SystemClock(), kind=kind)
    assert caught.value.code == "SETTINGS.MISSING"


async def test_a_broker_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    require(BrokerKind.MOSQUITTO)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # taken, but nobody answers there
        with pytest.raises(ServiceError, match=r"broker\.log") as caught:
            await start_demo_broker(tmp_path, taken.getsockname()[1], SystemClock())
    assert caught.value.code == "PROCESS.DIED"
    assert "in use" in (tmp_path / "broker.log").read_text()


async def test_waiting_ends_by_the_clock() -> None:
    clock = FakeClock()
    waiting = asyncio.create_task(wait_until_open(free_port(), clock, timeout_s=5), name="waiting")
    await until(lambda: clock.sleepers == 1)
    clock.advance(5)
    with pytest.raises(ServiceError, match="no answer within 5 s"):
        await waiting


def processes_with(word: str) -> list[str]:
    """Numbers of the processes that have this word in their command line."""
    found = subprocess.run(["pgrep", "-f", "--", f"--port {word}"], capture_output=True, text=True, check=False)
    return found.stdout.split()


async def test_cancelling_the_start_leaves_no_process(tmp_path: Path) -> None:
    clock, port = FakeClock(), free_port()
    starting = asyncio.create_task(start_demo_broker(tmp_path, port, clock, kind=BrokerKind.AMQTT), name="starting")
    await until(lambda: clock.sleepers == 1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_with(str(port)) == []


@pytest.mark.breaks_the_contract
async def test_mosquitto_with_persistence_keeps_what_is_retained(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(2):
        async with running(tmp_path, port=port, persistence=True), Node(port, "late", [TOPICS.job]).up() as node:
            if not (tmp_path / "published").exists():
                (tmp_path / "published").touch()
                await node.client.publish(TOPICS.job, b"job", retain=True)
            await until(lambda node=node: node.payloads(TOPICS.job) == [b"job"])  # type: ignore[misc]
