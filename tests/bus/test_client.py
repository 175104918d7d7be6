"""The bus client against real brokers: liveness, loss, return, bounds."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import pytest

from ifpp.bus import client as client_module
from ifpp.bus.broker import BrokerKind, free_port, start_demo_broker
from ifpp.bus.client import Inbound
from ifpp.errors import ServiceError
from ifpp.model.clock import SystemClock
from tests.bus.node import TOPICS, Node, until
from tests.real.mosquitto import both_brokers, require, running

EVENT = TOPICS.event("st01", "unit_result")

# What travels does not matter here, only that it does.
pytestmark = pytest.mark.breaks_the_contract


@both_brokers
async def test_messages_arrive_in_order_with_their_bytes(kind: BrokerKind, tmp_path: Path) -> None:
    async with running(tmp_path, kind) as broker:
        reader = Node(broker.port, "_line", [TOPICS.every_event])
        async with reader.up(), Node(broker.port, "st01").up() as writer:
            payloads = [bytes([n]) * (n + 1) for n in range(50)]
            for payload in payloads:
                await writer.client.publish(EVENT, payload)
            await until(lambda: len(reader.received) == 50)
        assert reader.received == [Inbound(EVENT, payload, retained=False) for payload in payloads]


@both_brokers
async def test_online_is_said_after_connect_and_before_disconnect(kind: BrokerKind, tmp_path: Path) -> None:
    async with running(tmp_path, kind) as broker:
        watcher = Node(broker.port, "_line", [TOPICS.every_online])
        async with watcher.up():
            async with Node(broker.port, "st01").up() as station:
                await until(lambda: watcher.online("st01") == [(True, 1)])
                assert station.metrics.value("ifpp_broker_connected", line="L1", node="st01") == 1.0
            await until(lambda: watcher.online("st01")[-1] == (False, 1))
            assert station.metrics.value("ifpp_broker_connected", line="L1", node="st01") == 0.0
            assert not station.client.connected


@both_brokers
async def test_the_will_speaks_for_a_node_that_vanished(kind: BrokerKind, tmp_path: Path) -> None:
    async with running(tmp_path, kind) as broker:
        watcher = Node(broker.port, "_line", [TOPICS.every_online])
        async with watcher.up():
            station = await asyncio.create_subprocess_exec(
                *_VANISHING_STATION, str(broker.port), stdout=asyncio.subprocess.PIPE
            )
            await until(lambda: watcher.online("st01") == [(True, 7)])
            station.kill()
            await station.communicate()
            await until(lambda: watcher.online("st01") == [(True, 7), (False, 7)])
            late = Node(broker.port, "late", [TOPICS.every_online])
            async with late.up():
                await until(lambda: set(late.online("st01")) == {(False, 7)})  # amqtt says it twice
                assert all(one.retained for one in late.received if one.topic == TOPICS.online("st01"))


@both_brokers
async def test_a_killed_broker_is_met_again_with_subscriptions_and_a_new_session(
    kind: BrokerKind, tmp_path: Path
) -> None:
    require(kind)
    port = free_port()
    async with running(tmp_path, kind, port=port) as broker:
        node = Node(port, "st01", [TOPICS.ack("st01")])
        async with node.up():
            await broker.kill()
            await until(lambda: not node.client.connected)
            with pytest.raises(ServiceError, match=r"BROKER\.UNREACHABLE"):
                await node.client.publish(EVENT, b"x")
            again = await start_demo_broker(tmp_path / "again", port, SystemClock(), kind=kind)
            try:
                await until(lambda: len(node.connections) == 2)
                assert node.connections[1] == node.sessions[-1] > node.connections[0]
                async with Node(port, "_line").up() as line:
                    await line.client.publish(TOPICS.ack("st01"), b"ack")
                    await until(lambda: node.payloads(TOPICS.ack("st01")) == [b"ack"])
                node.stop.set()
                await until(lambda: not node.client.connected)
            finally:
                await again.stop()


@both_brokers
async def test_a_late_subscriber_sees_retained_messages_of_its_own_subscriptions_only(
    kind: BrokerKind, tmp_path: Path
) -> None:
    async with running(tmp_path, kind) as broker:
        other = Node(broker.port, "st02", [f"{TOPICS.base}/#"])
        async with Node(broker.port, "_line").up() as line, other.up():
            await line.client.publish(TOPICS.job, b"job", retain=True)
            await line.client.publish(TOPICS.line_state, b"line", retain=True)
            async with Node(broker.port, "st01", [TOPICS.job]).up() as late:
                await until(lambda: bool(late.received))
                await line.client.publish(TOPICS.job, b"second", retain=True)
                await until(lambda: b"second" in late.payloads(TOPICS.job))
                # amqtt says retained messages twice: once too many, never once too few
                assert list(dict.fromkeys((one.payload, one.retained) for one in late.received)) == [
                    (b"job", True),
                    (b"second", False),
                ]


@both_brokers
async def test_many_stations_may_connect_at_once(kind: BrokerKind, tmp_path: Path) -> None:
    async with (
        running(tmp_path, kind) as broker,
        Node(broker.port, "_line", [TOPICS.job, TOPICS.every_online]).up() as line,
        asyncio.TaskGroup() as tasks,
    ):
        await line.client.publish(TOPICS.job, b"job", retain=True)
        nodes = [Node(broker.port, f"st{n:02d}", [TOPICS.ack(f"st{n:02d}"), TOPICS.job]) for n in range(20)]
        for node in nodes:
            tasks.create_task(node.client.run(node.stop), name="node")
        await until(lambda: all(node.connections and node.received for node in nodes))
        await until(lambda: len({one.topic for one in line.received}) == 22)  # all online, and the job
        assert [node.sessions for node in nodes] == [[1]] * 20  # nobody needed a second attempt
        for node in nodes:
            node.stop.set()


async def test_a_broker_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, Node(broker.port, "st01", timeout_s=1.0).up() as node:
        broker.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ServiceError, match=r"BROKER\.UNREACHABLE"):
                await node.client.publish(EVENT, b"x")
        finally:
            broker.process.send_signal(signal.SIGCONT)


async def test_a_publish_under_way_fails_at_once_when_the_connection_goes(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, Node(broker.port, "st01").up() as node:
        broker.process.send_signal(signal.SIGSTOP)
        publishing = asyncio.create_task(node.client.publish(EVENT, b"x"), name="publish")
        await asyncio.sleep(0.05)
        await broker.kill()
        with pytest.raises(ServiceError, match="connection was lost"):
            await publishing


async def test_a_listener_that_never_answers_leaves_no_socket_behind() -> None:
    begun, ended = [], []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(writer)
        await reader.read()  # returns when the peer has closed
        ended.append(writer)
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    node = Node(server.sockets[0].getsockname()[1], "st01", timeout_s=1.0)
    running_node = asyncio.create_task(node.client.run(node.stop), name="node")
    await until(lambda: len(begun) == 2)
    node.stop.set()
    await running_node
    await until(lambda: ended == begun)
    server.close()
    await server.wait_closed()


async def test_cancelling_says_offline_and_leaves_no_socket_behind(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        watcher = Node(broker.port, "_line", [TOPICS.every_online])
        async with watcher.up():
            station = Node(broker.port, "st01")
            task = asyncio.create_task(station.client.run(station.stop), name="station")
            await until(lambda: watcher.online("st01") == [(True, 1)])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: watcher.online("st01") == [(True, 1), (False, 1)])


async def test_cancelling_while_connecting_leaves_no_socket_behind(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        for delay_s in (0.0, 0.001, 0.005):
            node = Node(broker.port, "st01")
            task = asyncio.create_task(node.client.run(node.stop), name="station")
            await until(lambda node=node: bool(node.sessions))  # type: ignore[misc]
            await asyncio.sleep(delay_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_too_big_messages_and_a_full_queue_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_PAYLOAD", 100)
    monkeypatch.setattr(client_module, "_MAX_WAITING", 3)
    async with running(tmp_path) as broker:
        reader = Node(broker.port, "_line", [TOPICS.every_event])
        reader.gate.clear()
        async with reader.up(), Node(broker.port, "st01").up() as writer:
            await writer.client.publish(EVENT, bytes(101))
            for n in range(10):
                await writer.client.publish(EVENT, bytes([n]))
            await until(lambda: reader.metrics.value(_DROPPED, line="L1", node="_line", reason="queue_full") >= 6)
            reader.gate.set()
            await until(lambda: len(reader.received) == 4)
        assert reader.metrics.value(_DROPPED, line="L1", node="_line", reason="too_big") == 1.0
        assert [one.payload for one in reader.received] == [bytes([n]) for n in range(4)]


async def test_what_a_handler_raises_ends_the_run(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        node = Node(broker.port, "_line", [TOPICS.every_event])
        node.gate = None  # type: ignore[assignment]
        task = asyncio.create_task(node.client.run(node.stop), name="node")
        await until(lambda: bool(node.connections))
        async with Node(broker.port, "st01").up() as writer:
            await writer.client.publish(EVENT, b"x")
            with pytest.raises(ExceptionGroup) as caught:
                await task
        assert caught.group_contains(AttributeError)


async def test_a_publish_waits_for_no_delayed_acknowledgement(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, Node(broker.port, "st01").up() as node:
        assert node.client._connection is not None
        stream = node.client._connection._client._client.socket()
        assert isinstance(stream, socket.socket)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # Nagle's way costs 40 ms each


_DROPPED = "ifpp_broker_dropped_total"
_VANISHING_STATION = [
    sys.executable,
    "-c",
    """
import asyncio, sys
from tests.bus.node import Node
async def main():
    node = Node(int(sys.argv[1]), "st01")
    node.sessions = list(range(1, 7))
    async with node.up():
        await asyncio.sleep(60)
asyncio.run(main())
""",
]
