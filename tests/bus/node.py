"""A node on the bus that writes down everything that happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import msgspec

from ifpp.bus.client import BrokerAddress, BusClient, Inbound
from ifpp.bus.topics import Topics
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.model.messages import Online

TOPICS = Topics("acme", "graz", "hall-2", "L1")
PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fails the test after PATIENCE_S. What is not there yet does not hold."""
    async with asyncio.timeout(PATIENCE_S):
        while not _holds(condition):  # noqa: ASYNC110 - the condition is another process's doing
            await asyncio.sleep(0.005)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except IndexError:  # the last of an empty list
        return False


class Node:
    """One BusClient with recording callbacks."""

    def __init__(
        self, port: int, node_id: str, subscriptions: list[str] | None = None, *, timeout_s: float = 30.0
    ) -> None:
        self.sessions: list[int] = []
        self.connections: list[int] = []
        self.received: list[Inbound] = []
        self.stop = asyncio.Event()
        self.metrics = Metrics(Role.STATION, line="L1", station=node_id)
        self.gate = asyncio.Event()
        self.gate.set()
        self.client = BusClient(
            BrokerAddress("127.0.0.1", port, timeout_s=timeout_s, retry_first_s=0.02, retry_last_s=0.1),
            TOPICS,
            node_id,
            "boot-1",
            subscriptions=subscriptions or [],
            next_session=self._next_session,
            on_connected=self._connected,
            on_message=self._message,
            clock=SystemClock(),
            metrics=self.metrics,
        )

    async def _next_session(self) -> int:
        self.sessions.append(len(self.sessions) + 1)
        return self.sessions[-1]

    async def _connected(self, session: int) -> None:
        self.connections.append(session)

    async def _message(self, inbound: Inbound) -> None:
        await self.gate.wait()
        self.received.append(inbound)

    def payloads(self, topic: str) -> list[bytes]:
        return [one.payload for one in self.received if one.topic == topic]

    def online(self, node_id: str) -> list[tuple[bool, int]]:
        """What was heard of another node's liveness: (online, session), oldest first."""
        seen = [msgspec.json.decode(p, type=Online) for p in self.payloads(TOPICS.online(node_id))]
        return [(one.online, one.session) for one in seen]

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Self]:
        """Connected for the block; leaves in good order."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.client.run(self.stop), name="node")
            try:
                await until(lambda: bool(self.connections))
                yield self
            finally:
                self.stop.set()
