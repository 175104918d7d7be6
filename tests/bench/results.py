"""Results through one supervisor: publish, commit, acknowledgement, with a real broker and a real supervisor process.

Every result settles a package that was claimed and sent before, and clears its unit; the supervisor signs that.
First as fast as the stations' windows allow, then at a pace.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from ifpp.bus.broker import free_port, start_demo_broker
from ifpp.bus.client import BrokerAddress, BusClient, Inbound
from ifpp.bus.topics import Topics
from ifpp.metrics import Metrics, Role
from ifpp.model.chip import OneTimeKey
from ifpp.model.clock import SystemClock, utc_ms_text, uuid7
from ifpp.model.ids import Eid, Iccid, eid_check_digits, luhn_digit
from ifpp.model.messages import (
    Ack,
    ClaimRequest,
    Product,
    ProfileResult,
    Recipe,
    SealProof,
    UnitRef,
    UnitResultEvent,
)
from ifpp.roles.children import Children
from ifpp.roles.demo_keys import DemoKeys, KeysKind
from ifpp.roles.keys import Place, init
from ifpp.store.factory import Factory
from ifpp.store.records import ChipItem, PackageItem
from tests.bench.table import goal, row

_STATIONS, _FAST, _PACED, _PACE_PER_S, _WINDOW = 20, 6000, 3000, 500, 100
_TOPICS = Topics("bench", "site", "area", "L1")


@dataclass(slots=True)
class Station:
    """One station's outbox: results ready to go, when each left, when it was acknowledged."""

    name: str
    outbox: list[bytes] = field(default_factory=list)
    left: dict[int, float] = field(default_factory=dict)
    took_ms: list[float] = field(default_factory=list)
    through: int = 0
    acked: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_message(self, message: Inbound) -> None:
        ack = msgspec.json.decode(message.payload, type=Ack)
        if ack.rejected:
            raise AssertionError(f"{self.name}: {ack.rejected[0]}")
        now = time.perf_counter()
        self.took_ms += [1000 * (now - self.left[seq]) for seq in range(self.through + 1, ack.through + 1)]
        self.through = max(self.through, ack.through)
        self.acked.set()

    async def send(self, bus: BusClient, count: int, pause_s: float) -> None:
        """Send the next `count` results, at most a window unacknowledged, and wait for their acknowledgement."""
        first = self.through + 1
        for seq in range(first, first + count):
            while seq - self.through > _WINDOW:
                self.acked.clear()
                await self.acked.wait()
            self.left[seq] = time.perf_counter()
            await bus.publish(_TOPICS.event(self.name, "unit_result"), self.outbox[seq - 1])
            if pause_s:
                await asyncio.sleep(max(0.0, pause_s - (time.perf_counter() - self.left[seq])))
        while self.through < first + count - 1:
            self.acked.clear()
            await self.acked.wait()


def run() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> bool:
    stations = [Station(f"st{number:02d}") for number in range(1, _STATIONS + 1)]
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    _stock(factory, stations, (_FAST + _PACED) // _STATIONS)
    factory.close()
    broker = await start_demo_broker(folder / "broker", free_port(), SystemClock())
    keys = DemoKeys(folder, KeysKind.SOFTWARE)
    keys.prepare()
    os.environ.update(keys.environment)
    site = folder / "site.toml"
    site.write_text(
        'enterprise = "bench"\nsite = "site"\narea = "area"\nline = "L1"\n'
        f"[broker]\nport = {broker.port}\n[store]\ndatabase = 'sqlite:///factory.db'\n"
        f"{keys.table}"
    )
    init(Place.load(site, None), "bench", "a new line")
    children = Children(folder / "logs", lambda _name: [sys.executable, "-m", "ifpp"])
    try:
        supervisor = await children.start_ifpp("supervisor", "supervisor", "run", "--config", str(site))
        await supervisor.wait_ready()
        return await _drive(broker.port, stations, supervisor.cpu_s)
    finally:
        await children.stop_all()
        await broker.stop()


async def _drive(port: int, stations: list[Station], cpu_s: Callable[[], float]) -> bool:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        buses = [_connect(port, station) for station in stations]
        for bus in buses:
            tasks.create_task(bus.run(stop))
        while not all(bus.connected for bus in buses):  # noqa: ASYNC110 - the clients tell only when asked
            await asyncio.sleep(0.05)
        start, cpu = time.perf_counter(), cpu_s()
        await _all(stations, buses, _FAST // _STATIONS, 0.0)
        rate, cpu = _FAST / (time.perf_counter() - start), (cpu_s() - cpu) / _FAST
        met = goal("committed results a second", rate, 2000, at_least=True)
        row("supervisor CPU a result", [1000 * cpu], "ms")
        _latency("as fast as it goes", stations)
        await _all(stations, buses, _PACED // _STATIONS, _STATIONS / _PACE_PER_S)
        _latency(f"at {_PACE_PER_S} results a second", stations)
        stop.set()
    return met


async def _all(stations: list[Station], buses: list[BusClient], count: int, pause_s: float) -> None:
    for station in stations:
        station.took_ms.clear()
    await asyncio.gather(*(station.send(bus, count, pause_s) for station, bus in zip(stations, buses, strict=True)))


def _latency(name: str, stations: list[Station]) -> None:
    took = [value for station in stations for value in station.took_ms]
    cut = statistics.quantiles(took, n=100)
    sys.stdout.write(f"publish, commit, ack {name:24} p50 {cut[49]:7.1f}  p99 {cut[98]:7.1f} ms\n")


def _connect(port: int, station: Station) -> BusClient:
    async def session() -> int:
        return 1

    async def connected(_session: int) -> None:
        return None

    return BusClient(
        BrokerAddress("127.0.0.1", port),
        _TOPICS,
        station.name,
        "boot",
        subscriptions=[_TOPICS.ack(station.name)],
        next_session=session,
        on_connected=connected,
        on_message=station.on_message,
        clock=SystemClock(),
        metrics=Metrics(Role.STATION, line="L1", station=station.name),
    )


def _stock(factory: Factory, stations: list[Station], each: int) -> None:
    """Chips, one package each, claimed and sent; and the result that settles it, in its station's outbox."""
    now = datetime.now(UTC)
    numbers = range(each * len(stations))
    with factory.intake("esed", "chips", "c" * 64, now) as intake:
        for number in numbers:
            otk = OneTimeKey(
                0, _digest("otk", number)[:20], 0, 0, b"\x04" + _digest("x", number) + _digest("y", number)
            )
            intake.add_chip(ChipItem(_eid(number), b"cert", (b"eum",), b"info2", b"otks", (otk,)))
    with factory.intake("esbpp", "packages", "p" * 64, now) as intake:
        for number in numbers:
            intake.add_package(_package(number))
    for number in numbers:
        station = stations[number % len(stations)]
        station.outbox.append(_result(factory, station.name, len(station.outbox) + 1, number))


def _result(factory: Factory, station: str, seq: int, number: int) -> bytes:
    now = datetime.now(UTC)
    attempt, eid, at = uuid7(now), str(_eid(number)), utc_ms_text(now)
    request = ClaimRequest(attempt_id=attempt, eid=eid, sku="P", region="EU", station_id=station, head_id="h01")
    (package,) = factory.claim(request, now).packages
    factory.mark_sent(package.package_id, attempt, station, now)
    profile = ProfileResult(
        package_id=package.package_id,
        iccid=package.iccid,
        profile_type="t",
        bpp_sha256=package.bpp_sha256,
        bytes=package.bytes,
        apdus=150,
        retries=0,
        load_ms=800,
        result="PASS",
        package_state="INSTALLED",
        key_consumed=True,
        pir_b64="vzeBpb8nX4AQ" * 18,
    )
    return msgspec.json.encode(
        UnitResultEvent(
            schema="unit_result/1.0",
            id=uuid7(now),
            ts=at,
            node_id=station,
            boot_id="boot",
            seq=seq,
            transaction_id=attempt,
            operation="PROFILE_LOAD",
            unit=UnitRef(eid=eid),
            job_order_id="JO-1",
            product=Product(part_number="P"),
            region="EU",
            recipe=Recipe(name="r"),
            head_id="h01",
            attempt=1,
            result="PASS",
            outcome_class="PASS",
            disposition="CONTINUE",
            clean_to_ship=True,
            seal=SealProof(keys_deleted=1, keys_remaining=0, fpa_locked=True, lpa_answers=True),
            started_at=at,
            ended_at=at,
            cycle_ms=1000,
            load_ms=800,
            handling_ms=200,
            profiles=[profile],
        )
    )


def _package(number: int) -> PackageItem:
    bpp = b"bpp-%d" % number
    first = f"8943010{number:012d}"[:19]
    return PackageItem(
        eid=_eid(number),
        otk_id=_digest("otk", number)[:20],
        transaction_id=_digest("transaction", number)[:16],
        iccid=Iccid(first + luhn_digit(first)),
        profile_type="t",
        sku="P",
        region="EU",
        smdp_oid="2.999.10",
        smdp_chain=(b"dppb",),
        order_ref="order",
        prepare_download=b"prepare",
        bpp=bpp,
        bpp_sha256=sha256(bpp).hexdigest(),
    )


def _eid(number: int) -> Eid:
    first = f"8904903212345{number:017d}"
    return Eid(first + eid_check_digits(first))


def _digest(what: str, number: int) -> bytes:
    return sha256(f"{what}-{number}".encode()).digest()
