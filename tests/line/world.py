"""A line for the supervisor's tests: a factory database, stations that speak MQTT, a supervisor that can be gated."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ifpp.errors import IfppError
from ifpp.line.settle import USUAL, Limits
from ifpp.line.supervisor import run_supervisor
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock, utc_ms_text, uuid7
from ifpp.model.messages import Ack, Birth, Job, JobState, LineState, Product, Recipe
from ifpp.settings import Broker, Site, Supervisor
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent, TakeResult
from tests.bus.node import TOPICS, Node, until

JOB = Job(
    job_order_id="JO-1",
    version=1,
    product=Product(part_number="P-100"),
    region="EU",
    recipe=Recipe(name="load"),
    quantity=100,
)


def site_at(port: int, lease_s: float = 15.0) -> Site:
    return Site(
        enterprise="acme",
        site="graz",
        area="hall-2",
        line="L1",
        broker=Broker(port=port),
        supervisor=Supervisor(lease_s=lease_s),
    )


class GatedFactory(Factory):
    """The real database behind a gate: commits wait while it is closed, or fail with what `faults` holds."""

    file: Path
    gate: threading.Event
    faults: list[IfppError]
    entered: int

    @classmethod
    def at(cls, folder: Path) -> GatedFactory:
        factory = cls.open(f"sqlite:///{folder / 'factory.db'}")
        assert isinstance(factory, GatedFactory)
        factory.file = folder / "factory.db"
        factory.gate = threading.Event()
        factory.gate.set()
        factory.faults = []
        factory.entered = 0
        return factory

    def take_events(self, received: Sequence[ReceivedEvent], now: datetime) -> list[TakeResult]:
        self.entered += 1
        if self.faults:
            raise self.faults.pop(0)
        assert self.gate.wait(20)
        return super().take_events(received, now)

    def add_job(self, job: Job) -> None:
        with self.intake("job", job.job_order_id, f"{job.job_order_id}-{job.version}", datetime.now(UTC)) as intake:
            intake.add_job("L1", job)

    def taken(self, node_id: str) -> list[int]:
        """Numbers of the events stored from one node, in order."""
        with closing(sqlite3.connect(self.file)) as connection:
            rows = connection.execute("SELECT seq FROM event WHERE node_id = ? ORDER BY seq", (node_id,))
            return [seq for (seq,) in rows]


class Station(Node):
    """A station with an outbox in memory: numbers its events, hears its acknowledgements."""

    def __init__(self, port: int, node_id: str = "st01") -> None:
        topics = [TOPICS.ack(node_id), TOPICS.job, TOPICS.line_state, f"{TOPICS.base}/_line/meta/birth"]
        super().__init__(port, node_id, [*topics, f"{TOPICS.base}/_line/state/online"])
        self.node_id = node_id
        self.outbox: dict[int, bytes] = {}

    def record(self, count: int, **changes: object) -> list[int]:
        """Put `count` new events into the outbox; return their numbers."""
        seqs = range(len(self.outbox) + 1, len(self.outbox) + 1 + count)
        for seq in seqs:
            self.outbox[seq] = event(self.node_id, seq, **changes)
        return list(seqs)

    async def send(self, *seqs: int, name: str = "state_changed") -> None:
        for seq in seqs:
            await self.client.publish(TOPICS.event(self.node_id, name), self.outbox[seq])

    @property
    def acks(self) -> list[Ack]:
        return [msgspec.json.decode(body, type=Ack) for body in self.payloads(TOPICS.ack(self.node_id))]

    @property
    def through(self) -> int:
        return max((ack.through for ack in self.acks), default=0)

    @property
    def rejected(self) -> dict[int, str]:
        return {row.seq: row.code for ack in self.acks for row in ack.rejected}

    @property
    def jobs(self) -> list[JobState]:
        return [msgspec.json.decode(body, type=JobState) for body in self.payloads(TOPICS.job)]

    @property
    def line(self) -> list[LineState]:
        return [msgspec.json.decode(body, type=LineState) for body in self.payloads(TOPICS.line_state)]

    @property
    def births(self) -> list[Birth]:
        return [msgspec.json.decode(body, type=Birth) for body in self.payloads(TOPICS.birth("_line"))]


def event(node_id: str, seq: int, **changes: object) -> bytes:
    """A durable event that settles nothing; `changes` replaces or adds keys, None takes one away."""
    now = datetime.now(UTC)
    document: dict[str, object] = {
        "schema": "state_changed/1.0",
        "id": uuid7(now),
        "ts": utc_ms_text(now),
        "node_id": node_id,
        "boot_id": "boot-1",
        "seq": seq,
        "resource": "h01",
        "old": "SBY",
        "old_code": 2202,
        "old_duration_ms": 1,
        "new": "PRD",
        "new_code": 1100,
    }
    return msgspec.json.encode({key: value for key, value in (document | changes).items() if value is not None})


class Running:
    """A supervisor under test."""

    def __init__(self, site: Site, factory: Factory, limits: Limits = USUAL) -> None:
        self.metrics = Metrics(Role.SUPERVISOR, line="L1")
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(
            run_supervisor(
                site,
                factory,
                metrics=self.metrics,
                clock=SystemClock(),
                stop=self.stop,
                ready=self.ready.set,
                limits=limits,
            ),
            name="supervisor",
        )

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.value(name, line="L1", **labels)

    async def end(self) -> None:
        self.stop.set()
        await self.task


@asynccontextmanager
async def supervised(site: Site, factory: Factory, limits: Limits = USUAL) -> AsyncIterator[Running]:
    """A supervisor that is there and connected for the block."""
    running = Running(site, factory, limits)
    try:
        await until(lambda: running.ready.is_set() or running.task.done())
        yield running
    finally:
        await running.end()
