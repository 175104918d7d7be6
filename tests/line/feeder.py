"""A station that sends what it has until it is acknowledged, as the line contract has it (4.3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec

from ifpp.bus.client import BrokerAddress, BusClient, Inbound
from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.errors import ServiceError
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.model.messages import Ack, Birth

_WINDOW = 100
_RESEND_S = 2.0
_LOOK_S = 0.02


class Feeder:
    """One station: `outbox` holds (event name, document) by number, the first is 1; `through` is acknowledged.

    `took_s`: from the first publish of each event to its acknowledgement. `acks`: (epoch, through) as they came.
    """

    def __init__(self, port: int, topics: Topics, node_id: str, window: int = _WINDOW) -> None:
        self.node_id = node_id
        self.outbox: list[tuple[str, bytes]] = []
        self.through = 0
        self.acks: list[tuple[int, int]] = []
        self.epochs: list[int] = []
        self.rejected: dict[int, str] = {}
        self.took_s: list[float] = []
        self.wake = asyncio.Event()
        self._left: dict[int, float] = {}
        self._again = False
        self._window = window
        self._topics = topics
        self.bus = BusClient(
            BrokerAddress("127.0.0.1", port, timeout_s=10.0, retry_first_s=0.05, retry_last_s=0.2),
            topics,
            node_id,
            "boot-1",
            subscriptions=[topics.ack(node_id), topics.birth(LINE_NODE)],
            next_session=self._next_session,
            on_connected=self._connected,
            on_message=self._message,
            clock=SystemClock(),
            metrics=Metrics(Role.STATION, line=topics.line, station=node_id),
        )
        self._session = 0

    def add(self, name: str, body: bytes) -> int:
        """Put the next event into the outbox and return its number."""
        self.outbox.append((name, body))
        self.wake.set()
        return len(self.outbox)

    @property
    def done(self) -> bool:
        return self.through == len(self.outbox)

    def epochs_never_fall(self) -> bool:
        """Whether no supervisor was heard acknowledging after one of a later epoch."""
        return all(one <= other for (one, _), (other, _) in pairwise(self.acks))

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Feeder]:
        """Connected and sending for the block."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.bus.run(stop))
            pump = tasks.create_task(self._pump())
            try:
                yield self
            finally:
                stop.set()
                pump.cancel()

    async def _pump(self) -> None:
        sent, before, moved_s = 0, 0, time.monotonic()
        while True:
            now_s = time.monotonic()
            if self.through != before or sent == self.through:
                before, moved_s = self.through, now_s
            if self._again or now_s - moved_s > _RESEND_S:
                self._again, sent, moved_s = False, self.through, now_s
            sent = await self._send(max(sent, self.through))
            self.wake.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self.wake.wait()
            except TimeoutError:
                continue

    async def _send(self, sent: int) -> int:
        until = min(len(self.outbox), self.through + self._window)
        for seq in range(sent + 1, until + 1):
            self._left.setdefault(seq, time.monotonic())
        publishing = [
            self.bus.publish(self._topics.event(self.node_id, name), body) for name, body in self.outbox[sent:until]
        ]
        done = await asyncio.gather(*publishing, return_exceptions=True)
        failed = [one for one in done if isinstance(one, BaseException)]
        for one in failed:
            if not isinstance(one, ServiceError):
                raise one
        return sent if failed else max(sent, until)

    async def _next_session(self) -> int:
        self._session += 1
        return self._session

    async def _connected(self, _session: int) -> None:
        self._again = True

    async def _message(self, message: Inbound) -> None:
        if message.topic.endswith("/birth"):
            epoch = msgspec.json.decode(message.payload, type=Birth).epoch or 0
            self._again |= bool(self.epochs) and epoch > self.epochs[-1]
            self.epochs.append(epoch)
        else:
            ack = msgspec.json.decode(message.payload, type=Ack)
            self.acks.append((ack.epoch, ack.through))
            self.rejected.update({row.seq: row.code for row in ack.rejected})
            now_s = time.monotonic()
            for seq in range(self.through + 1, ack.through + 1):
                self.took_s.append(now_s - self._left.pop(seq, now_s))
            self.through = max(self.through, ack.through)
        self.wake.set()


async def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Return as soon as the condition holds, looked at now and then; fails after `within_s`."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is another process's doing
            await asyncio.sleep(0.02)
