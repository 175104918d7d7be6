"""Taking events: many stations in, one database transaction a group, one acknowledgement a station after the commit.

Rules (line contract 4.3): nothing is acknowledged before it is committed; a duplicate is acknowledged again; an event
that cannot be taken is parked and rejected, and the line goes on. While the database is away nothing is acknowledged,
and stations send again what they miss.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Annotated, Protocol, TypeVar

import msgspec

from ifpp import metrics as series
from ifpp.bus.contract import CHANNELS
from ifpp.errors import IfppError, ServiceError, WireError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause, utc_ms_text
from ifpp.model.messages import Ack, Rejected
from ifpp.store.records import MAX_EVENT_BYTES, MAX_SEQ, EventId, ReceivedEvent, TakeResult

UNREADABLE = "unreadable/0.0"
EVENT_NAMES = frozenset({"unit_result", "state_changed", "alarm", "operator_action", "material"})
CONTRACT_NAMES = frozenset(one.name for one in CHANNELS)
_RETRY_FIRST_S = 0.2
_RETRY_LAST_S = 5.0

log = get_logger("line.settle")
T = TypeVar("T")
D = TypeVar("D", bound=msgspec.Struct)


class EventStore(Protocol):
    """The part of the factory database that takes events (`ifpp.store.factory.Factory`)."""

    def take_events(self, received: Sequence[ReceivedEvent], now: datetime) -> list[TakeResult]:
        """Settle a group in one transaction; one result for each node of the group."""

    def park(self, node_id: str, body: bytes, text: str, now: datetime) -> None:
        """Keep a document whose envelope cannot be read, and why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How events are grouped: `collect_s` from the first event of a group to its commit, `group` events at most.

    `waiting` events may wait for their commit; then reception waits.
    """

    collect_s: float = 0.05
    group: int = 500
    waiting: int = 5000


USUAL = Limits()


@dataclass(frozen=True, slots=True)
class _Waiting:
    received_s: float
    event: ReceivedEvent


class Settling:
    """Events of one line under one epoch. All methods belong to the event loop; the store runs on `executor`."""

    def __init__(
        self,
        store: EventStore,
        executor: Executor,
        send_ack: Callable[[Ack], Awaitable[None]],
        *,
        epoch: int,
        clock: Clock,
        metrics: Metrics,
        limits: Limits = USUAL,
    ) -> None:
        self._store = store
        self._executor = executor
        self._send_ack = send_ack
        self._epoch = epoch
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self.rejected = 0
        self._waiting: deque[_Waiting] = deque()
        self._numbers: set[tuple[str, int, str]] = set()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._acks: dict[str, Ack] = {}
        self._committed = asyncio.Event()

    @property
    def oldest_s(self) -> float:
        """How long the oldest event has waited for its commit; 0.0 when none waits."""
        return self._clock.monotonic() - self._waiting[0].received_s if self._waiting else 0.0

    async def receive(self, node_id: str, name: str, body: bytes) -> None:
        """Take over one document from the event topic of a station; waits while too many wait for their commit."""
        # way of a unit, step 9
        try:
            event = ReceivedEvent.parse(node_id, body)
        except WireError as error:
            numbered, reason = _glance(node_id, body)
            if numbered is None:
                await self.refuse(node_id, name, body, reason, error)
                return
            self.violation(name, reason, node_id=node_id, error=error)
            event = numbered
        if (event.node_id, event.seq, event.id) in self._numbers:
            self._metrics.add(series.EVENTS, outcome="duplicate")
            return  # sent again while it waits here: one answer will do
        while len(self._waiting) >= self._limits.waiting:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(_Waiting(self._clock.monotonic(), event))
        self._numbers.add((event.node_id, event.seq, event.id))
        self._arrived.set()

    async def refuse(self, node_id: str, name: str, body: bytes, reason: str, error: WireError) -> None:
        """Count a document that broke the contract, and keep it for people."""
        self.violation(name, reason, node_id=node_id, error=error)
        await self._park(node_id, body, f"{name}: {error.detail}")

    def violation(self, name: str, reason: str, **fields: object) -> None:
        """Count and log a document that broke the contract."""
        schema = name if name in CONTRACT_NAMES else "unknown"
        self._metrics.add(series.CONTRACT_VIOLATIONS, schema=schema, reason=reason)
        log.warning("contract.violation", schema=schema, reason=reason, **fields)

    async def commit(self, stop: asyncio.Event) -> None:
        """Commit groups until `stop`; the group under way is finished, what waits is left to be sent again."""
        while await self._group_ready(stop):
            group = list(islice(self._waiting, self._limits.group))
            results = await self._commit_group([one.event for one in group], stop)
            if results is None:
                return
            for one in group:
                self._waiting.popleft()
                self._numbers.discard((one.event.node_id, one.event.seq, one.event.id))
            self._room.set()
            self._note(group, results)

    async def acknowledge(self, stop: asyncio.Event) -> None:
        """Send acknowledgements of what is committed until `stop`, then the last ones.

        One that cannot be sent is dropped: the station sends its events again and is answered again.
        """
        while not (stop.is_set() and not self._acks):
            await either(self._committed, stop)
            self._committed.clear()
            acks, self._acks = self._acks, {}
            sent = await asyncio.gather(*(self._send_ack(ack) for ack in acks.values()), return_exceptions=True)
            for failure in sent:
                if isinstance(failure, ServiceError):
                    log.warning("ack.not_sent", error=failure)
                elif isinstance(failure, BaseException):
                    raise failure

    async def _group_ready(self, stop: asyncio.Event) -> bool:
        """Wait until a group may be committed: the first event is there, and it was given time for company."""
        if not self._waiting:
            self._arrived.clear()
            await either(self._arrived, stop)
        if len(self._waiting) < self._limits.group:
            await pause(self._clock, self._limits.collect_s - self.oldest_s, stop)
        return not stop.is_set()

    async def _commit_group(self, events: list[ReceivedEvent], stop: asyncio.Event) -> list[TakeResult] | None:
        """Commit, again and again while the database is away; None when `stop` came first."""
        retry_s = _RETRY_FIRST_S
        while True:
            try:
                with self._metrics.timed(series.COMMIT_SECONDS):
                    return await self._in_store(lambda: self._store.take_events(events, self._clock.now()))
            except IfppError as error:  # nothing was committed: poison is the store's to put aside, the rest passes
                self._metrics.add(series.COMMIT_FAILURES)
                log.error("commit.failed", error=error, events=len(events), retry_s=retry_s)
            if await pause(self._clock, retry_s, stop):
                return None
            retry_s = min(2 * retry_s, _RETRY_LAST_S)

    def _note(self, group: list[_Waiting], results: list[TakeResult]) -> None:
        """Count a committed group and queue its acknowledgements."""
        fresh = sum(len(result.fresh) for result in results)
        rejected = sum(len(result.rejected) for result in results)
        self._metrics.observe(series.COMMIT_EVENTS, len(group))
        self._metrics.add(series.EVENTS, fresh, outcome="taken")
        self._metrics.add(series.EVENTS, rejected, outcome="rejected")
        self.rejected += rejected
        self._metrics.add(series.EVENTS, len(group) - fresh - rejected, outcome="duplicate")
        schemas = {(one.event.node_id, one.event.seq, one.event.id): one.event.schema for one in group}
        for result in results:
            for row in result.rejected:
                schema = schemas.get((result.node_id, row.seq, row.id), UNREADABLE)
                if schema != UNREADABLE:  # that one is counted already
                    self.violation(schema.partition("/")[0], row.code.partition(".")[2].lower(), node_id=result.node_id)
                log.error("event.rejected", node_id=result.node_id, seq=row.seq, code=row.code, text=row.text)
            self._acks[result.node_id] = self._ack(result, self._acks.get(result.node_id))
        self._committed.set()

    def _ack(self, result: TakeResult, unsent: Ack | None) -> Ack:
        rejected: dict[int, Rejected] = {row.seq: row for row in unsent.rejected} if unsent else {}
        rejected.update({row.seq: row for row in result.rejected})
        return Ack(
            schema="ack/1.0",
            ts=utc_ms_text(self._clock.now()),
            node_id=result.node_id,
            epoch=self._epoch,
            through=result.through,
            rejected=list(rejected.values()),
        )

    async def _park(self, node_id: str, body: bytes, text: str) -> None:
        try:
            await self._in_store(lambda: self._store.park(node_id, body, text, self._clock.now()))
        except ServiceError as failure:  # the sender gets no answer and sends it again
            log.warning("park.failed", node_id=node_id, error=failure)

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class _Glance(msgspec.Struct):
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQ)]
    node_id: str


class _Named(msgspec.Struct):
    id: EventId = ""


def _glance(node_id: str, body: bytes) -> tuple[ReceivedEvent | None, str]:
    """Return what can be told of a document that breaks the envelope rules, and why it does.

    None without a number of this node. With its number it is taken as a document the store can only refuse: parked,
    rejected, and no gap stays in the numbers of the station.
    """
    seen = _decode(body, _Glance)
    if seen is not None and seen.node_id != node_id:
        return None, "node"
    reason = "too_big" if len(body) > MAX_EVENT_BYTES else "envelope"
    if seen is None:
        return None, reason
    named = _decode(body, _Named)
    return ReceivedEvent(node_id, seen.seq, named.id if named else "", UNREADABLE, body), reason


def _decode(body: bytes, kind: type[D]) -> D | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Return as soon as one of the two is set."""
    waits = {asyncio.ensure_future(one.wait()), asyncio.ensure_future(other.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
