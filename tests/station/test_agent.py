"""A whole station process against a real broker: what it says at its start, and while its journal cannot be written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind
from ifpp.errors import CustodyError
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.model.messages import Ack, Birth, HeadCommand, StationState
from ifpp.settings import Broker, Head, Site, Station, Store
from ifpp.sim.slots import Lamp, Slot, SlotServer
from ifpp.sim.world import WorldSummary
from ifpp.station.agent import Agent
from ifpp.station.journal import Journal
from ifpp.trust.chain import TrustStore
from tests.bus.node import TOPICS, Node, until
from tests.real.mosquitto import running
from tests.station.records import sent
from tests.station.shop import world
from tests.station.test_attempt import PACKAGE
from tests.station.test_recovery import begin

__all__ = ["world"]


class Line:
    """A broker, somebody who listens, and the slot of the one head of `st01`."""

    def __init__(self, folder: Path, port: int, listener: Node, slot: Slot, slot_port: int) -> None:
        self.path = folder / "journal.db"
        self.port = port
        self.listener = listener
        self.slot = slot
        self._site = Site(
            "acme", "graz", "hall-2", "L1", broker=Broker(port=port), store=Store(url="http://127.0.0.1:9")
        )
        self._station = Station(id="st01", heads={"h01": Head(port=f"tcp://127.0.0.1:{slot_port}")})

    def journal(self) -> Journal:
        return Journal.open(self.path, "st01", SystemClock(), busy_timeout_s=0.05, retry_s=(0.02, 0.1))

    @asynccontextmanager
    async def station(self, world: WorldSummary, journal: Journal) -> AsyncIterator[None]:
        stop = asyncio.Event()
        agent = Agent(
            self._site,
            self._station,
            journal=journal,
            trust=TrustStore([world.ci.read_bytes()]),
            metrics=Metrics(Role.STATION, line="L1", station="st01"),
            clock=SystemClock(),
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(agent.run(stop, lambda: None), name="agent")
            try:
                yield
            finally:
                stop.set()
        journal.close()

    def states(self) -> list[StationState]:
        payloads = self.listener.payloads(TOPICS.station_state("st01"))
        return [msgspec.json.decode(payload, type=StationState) for payload in payloads]

    def events(self, name: str) -> list[dict[str, object]]:
        return [msgspec.json.decode(payload) for payload in self.listener.payloads(TOPICS.event("st01", name))]

    async def acknowledge(self, through: int, epoch: int = 1, node_id: str = "st01") -> None:
        ack = Ack(schema="ack/1.0", ts="", node_id=node_id, epoch=epoch, through=through)
        await self.listener.client.publish(TOPICS.ack("st01"), msgspec.json.encode(ack))

    async def retain(self, topic: str, document: msgspec.Struct) -> None:
        await self.listener.client.publish(topic, msgspec.json.encode(document), retain=True)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    slot = Slot("h01")
    server = SlotServer({"h01": slot})
    await server.start()
    topics = [TOPICS.every_event, f"{TOPICS.base}/+/state/station", TOPICS.every_birth]
    async with running(tmp_path, BrokerKind.AMQTT) as broker, Node(broker.port, "_line", topics).up() as listener:
        yield Line(tmp_path, broker.port, listener, slot, server.ports["h01"])
    server.stop()


async def test_a_station_begins_with_what_the_last_process_left_and_shows_the_held_unit(
    line: Line, world: WorldSummary
) -> None:
    dead, clock = line.journal(), SystemClock()
    attempt = begin("a", PACKAGE)
    attempt.eid = world.units[0].eid
    dead.sent(sent("a", "p1", attempt.eid), attempt.will(station_id="st01", boot_id="b", now=clock.now(), now_s=0.0))
    dead.close()
    async with line.station(world, line.journal()):
        await until(lambda: line.events("unit_result")[0]["transaction_id"] == "a")
        assert line.events("unit_result")[0]["seq"] == 1
        await until(lambda: list(line.states()[-1].held) == [attempt.eid])
        assert line.states()[-1].held_units == 1
        births = len(line.listener.payloads(TOPICS.birth("st01")))
        again = HeadCommand(schema="republish/1.0", request_id=str(uuid4()), operator_id="the next supervisor")
        await line.listener.client.publish(TOPICS.command("st01", "republish"), msgspec.json.encode(again))
        await until(lambda: len(line.listener.payloads(TOPICS.birth("st01"))) == births + 1)
        await until(lambda: [one["seq"] for one in line.events("unit_result")].count(1) == 2)
        await line.acknowledge(1000, node_id="st02")
        await line.acknowledge(1)
        await until(lambda: line.states()[-1].outbox_depth == 0)


async def test_a_station_whose_journal_cannot_be_written_stays_says_so_and_resumes(
    line: Line, world: WorldSummary
) -> None:
    journal = line.journal()
    with closing(sqlite3.connect(line.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with line.station(world, journal):
            await until(lambda: line.states()[-1].refusing == "JOURNAL.WRITE")
            await until(lambda: line.slot.lamp is Lamp.HOLD)
            state = line.states()[-1]
            assert "free the disk" in state.attention["JOURNAL.WRITE"]
            birth = msgspec.json.decode(line.listener.payloads(TOPICS.birth("st01"))[-1], type=Birth)
            assert birth.session == 1
            assert line.events("state_changed") == []
            holder.execute("ROLLBACK")
            await until(lambda: line.states()[-1].refusing == "")
            await until(lambda: line.slot.lamp is Lamp.OFF)
            await until(lambda: [event["seq"] for event in line.events("state_changed")][:2] == [1, 2])
            told = [(event["old"], event["new"]) for event in line.events("state_changed")]
            assert told[:2] == [("SBY", "UDT"), ("UDT", "SBY")]
            await line.acknowledge(2)


@pytest.mark.breaks_the_contract
async def test_a_command_the_broker_has_kept_is_not_obeyed_and_nonsense_harms_nobody(
    line: Line, world: WorldSummary
) -> None:
    """A retained command is of any age: whoever published it so may be long gone."""
    topic = TOPICS.command("st01", "block_head")
    request = "0b1f4f3c-6f0a-4d53-8d0e-0d6d3f6f2a11"
    command = HeadCommand(
        schema="block_head/1.0", request_id=request, head_id="h01", operator_id="Anna", action="BLOCK", reason="old"
    )
    await line.retain(topic, command)
    async with line.station(world, line.journal()):
        await until(lambda: line.states()[-1].heads["h01"].phase == "EMPTY")
        await line.listener.client.publish(topic, b"{]")
        await line.listener.client.publish(topic, b"")
        await asyncio.sleep(0.3)
        assert not line.states()[-1].heads["h01"].blocked
        await line.listener.client.publish(topic, msgspec.json.encode(command))
        await until(lambda: line.states()[-1].heads["h01"].blocked)


async def test_a_journal_that_cannot_be_read_does_not_end_the_station(
    line: Line, world: WorldSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = line.journal()

    def broken(*_arguments: object) -> Future[object]:
        failed: Future[object] = Future()
        failed.set_exception(CustodyError("JOURNAL.WRITE", "cannot be read"))
        return failed

    for name in ("range", "depth", "unacked"):
        monkeypatch.setattr(journal, name, broken)
    async with line.station(world, journal):
        await until(lambda: bool(line.listener.payloads(TOPICS.birth("st01"))))
        birth = msgspec.json.decode(line.listener.payloads(TOPICS.birth("st01"))[-1], type=Birth)
        assert birth.outbox is None
        await until(lambda: bool(line.states()))
        monkeypatch.undo()
