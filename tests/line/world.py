"""A line for the supervisor's tests: a factory database, stations that speak MQTT, a supervisor that can be gated."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from ifpp.bus.broker import BrokerKind, DemoBroker
from ifpp.errors import IfppError
from ifpp.line.settle import USUAL, Limits
from ifpp.line.supervisor import run_supervisor
from ifpp.metrics import Metrics, Role
from ifpp.model.chip import OneTimeKey
from ifpp.model.clock import SystemClock, utc_ms_text, uuid7
from ifpp.model.ids import Eid, Iccid, eid_check_digits, luhn_digit
from ifpp.model.messages import (
    Ack,
    Birth,
    ClaimedPackage,
    ClaimRequest,
    Job,
    JobState,
    LineState,
    Product,
    ProfileResult,
    Recipe,
    SealProof,
    UnitRef,
    UnitResultEvent,
)
from ifpp.settings import Broker, Site, Supervisor
from ifpp.store.factory import Factory
from ifpp.store.records import ChipItem, PackageItem, ReceivedEvent, TakeResult
from ifpp.store.tenure import Tenure
from ifpp.trust.signer import Signer
from tests.bus.node import TOPICS, Node, until
from tests.real.mosquitto import running

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

    def take_events(
        self, received: Sequence[ReceivedEvent], now: datetime, tenure: Tenure | None = None
    ) -> list[TakeResult]:
        self.entered += 1
        if self.faults:
            raise self.faults.pop(0)
        assert self.gate.wait(20)
        return super().take_events(received, now, tenure)

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


def event(sender: str, number: int, /, **changes: object) -> bytes:
    """A durable event that settles nothing; `changes` replaces or adds keys, None takes one away."""
    now = datetime.now(UTC)
    document: dict[str, object] = {
        "schema": "state_changed/1.0",
        "id": uuid7(now),
        "ts": utc_ms_text(now),
        "node_id": sender,
        "boot_id": "boot-1",
        "seq": number,
        "resource": "h01",
        "old": "SBY",
        "old_code": 2202,
        "old_duration_ms": 1,
        "new": "PRD",
        "new_code": 1100,
    }
    return msgspec.json.encode({key: value for key, value in (document | changes).items() if value is not None})


def unit_result(sender: str, number: int, /, eid: str, *profiles: ProfileResult, result: str = "PASS") -> bytes:
    """A unit_result as a station writes it for its attempt `attempt-<number>`."""
    now = datetime.now(UTC)
    document = UnitResultEvent(
        schema="unit_result/1.0",
        id=uuid7(now),
        ts=utc_ms_text(now),
        node_id=sender,
        boot_id="boot-1",
        seq=number,
        operation="PROFILE_LOAD",
        transaction_id=f"attempt-{number}",
        head_id="h01",
        unit=UnitRef(eid=str(eid)),
        job_order_id="JO-1",
        product=JOB.product,
        region=JOB.region,
        recipe=JOB.recipe,
        attempt=1,
        result=result,
        outcome_class="PASS" if result == "PASS" else "PRODUCT",
        disposition="CONTINUE",
        clean_to_ship=result == "PASS",
        seal=SEALED if result == "PASS" else None,
        started_at=utc_ms_text(now),
        ended_at=utc_ms_text(now),
        cycle_ms=10,
        load_ms=8,
        handling_ms=2,
        profiles=list(profiles),
    )
    return msgspec.json.encode(document)


SMDP = "2.999.10"
SEALED = SealProof(keys_deleted=0, keys_remaining=0, fpa_locked=True, lpa_answers=True)


def eid_of(number: int) -> Eid:
    first = f"8904903212345123451234567890{number:02d}"
    return Eid(first + eid_check_digits(first))


def iccid_of(number: int) -> Iccid:
    first = f"89430103000000000{number:02d}"
    return Iccid(first + luhn_digit(first))


def stock(factory: Factory, count: int) -> None:
    """Put chips 1 to `count` into the books, each with one key and one package of SKU P-100, region EU."""
    now = datetime.now(UTC)
    with factory.intake("esed", "chips", "c" * 64, now) as intake:
        for number in range(1, count + 1):
            key = OneTimeKey(slot=0, otk_id=bytes([number]) * 20, state=0, alg=1, public=bytes([4, number]) * 32 + b"x")
            intake.add_chip(ChipItem(eid_of(number), b"cert", (b"eum",), b"info2", b"otks", (key,)))
    with factory.intake("esbpp", "packages", "p" * 64, now) as intake:
        for number in range(1, count + 1):
            intake.add_package(_package(number))


def _package(number: int) -> PackageItem:
    bpp = b"bpp-%d" % number
    return PackageItem(
        eid=eid_of(number),
        otk_id=bytes([number]) * 20,
        transaction_id=bytes([number]) * 16,
        iccid=iccid_of(number),
        profile_type="T",
        sku="P-100",
        region="EU",
        smdp_oid=SMDP,
        smdp_chain=(b"dp",),
        order_ref="O",
        prepare_download=b"prepare",
        bpp=bpp,
        bpp_sha256=sha256(bpp).hexdigest(),
    )


def send_package(factory: Factory, number: int, attempt: str, station: str = "st01") -> ClaimedPackage:
    """Claim the package of a chip and mark it as sent."""
    now = datetime.now(UTC)
    request = ClaimRequest(
        attempt_id=attempt, eid=eid_of(number), sku="P-100", region="EU", station_id=station, head_id="h01"
    )
    (package,) = factory.claim(request, now).packages
    factory.mark_sent(package.package_id, attempt, station, now)
    return package


def profile_result(
    package: ClaimedPackage, state: str, *, spent: bool, pir: bytes = b"", error: str = ""
) -> ProfileResult:
    return ProfileResult(
        package_id=package.package_id,
        iccid=package.iccid,
        profile_type=package.profile_type,
        bpp_sha256=package.bpp_sha256,
        bytes=package.bytes,
        apdus=1,
        retries=0,
        load_ms=8,
        result="PASS" if state == "INSTALLED" else "FAIL",
        package_state=state,
        key_consumed=spent,
        pir_b64=b64encode(pir).decode(),
        error=error,
    )


class Running:
    """A supervisor under test."""

    def __init__(self, site: Site, factory: Factory, limits: Limits = USUAL, signer: Signer | None = None) -> None:
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
                signer=signer,
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
async def supervised(
    site: Site, factory: Factory, limits: Limits = USUAL, signer: Signer | None = None
) -> AsyncIterator[Running]:
    """A supervisor that is there and connected for the block."""
    running = Running(site, factory, limits, signer)
    try:
        await until(lambda: running.ready.is_set() or running.task.done())
        yield running
    finally:
        await running.end()


@asynccontextmanager
async def line(
    folder: Path, factory: Factory, kind: BrokerKind = BrokerKind.MOSQUITTO
) -> AsyncIterator[tuple[DemoBroker, Running, Station]]:
    """A broker, a supervisor and one connected station."""
    async with (
        running(folder, kind) as broker,
        supervised(site_at(broker.port), factory) as supervisor,
        Station(broker.port).up() as station,
    ):
        yield broker, supervisor, station
