"""The station's alarms: causes, acts, the journal behind them; and a whole station at a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind
from ifpp.metrics import Metrics, Role
from ifpp.model.alarms import ActiveAlarms, AlarmAnswer, AlarmCommand
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Alarm, Online, OperatorAction
from ifpp.model.states import Phase, UnitResult
from ifpp.settings import Life
from ifpp.sim.slots import Slot, SlotServer
from ifpp.sim.world import WorldSummary
from ifpp.station import alarm_watch as module
from ifpp.station.alarm_watch import AlarmWatch
from ifpp.station.board import CODE_REPAIR, Board
from ifpp.station.gate import Gate
from ifpp.station.journal import Journal
from ifpp.station.life import Finding, Lives, Seating
from tests.bus.node import TOPICS, Node, until
from tests.clock import FakeClock
from tests.real.mosquitto import running
from tests.station.shop import world
from tests.station.test_agent import Line

__all__ = ["world"]
HEADS = ["h01", "h02"]


class Place:
    """A station's alarms over a real journal; `start` is the next process."""

    def __init__(self, folder: Path, heads: list[str] = HEADS) -> None:
        self.clock = FakeClock()
        self.path = folder / "journal.db"
        self.heads = heads
        self.said: list[ActiveAlarms] = []
        self.online = True
        self.journal: Journal | None = None

    async def start(self) -> Place:
        if self.journal is not None:
            self.journal.close()
        self.journal = Journal.open(self.path, "st01", self.clock)
        self.lives = Lives(self.heads, Life(), clock=self.clock)
        self.board = Board("st01", self.journal.boot_id, self.clock)
        for head in self.heads:
            self.board.add(head)
        self.gate = Gate()
        self.metrics = Metrics(Role.STATION, line="L1", station="st01")
        self.watch = AlarmWatch(
            "st01",
            lives=self.lives,
            board=self.board,
            gate=self.gate,
            journal=self.journal,
            metrics=self.metrics,
            clock=self.clock,
            connected=lambda: self.online,
            publish=self._publish,
        )
        rows = await asyncio.wrap_future(self.journal.lives())
        self.lives.restore(rows)
        self.watch.restore(rows)
        self.watch.note_line(Online(schema="online/1.0", node_id="_line", online=True, session=1, boot_id="b", ts=""))
        await self.watch.look()
        return self

    async def _publish(self, alarms: ActiveAlarms) -> None:
        self.said.append(alarms)

    async def after(self, seconds: float = 0.0) -> dict[str, str]:
        """Let time pass; return the state by code and source."""
        self.clock.advance(seconds)
        await self.watch.look()
        return {f"{one.code} {one.source}": one.state for one in self.said[-1].alarms.values()}

    async def ask(self, code: str, action: str, /, **more: object) -> AlarmAnswer:
        (alarm_id,) = [key for key, one in self.said[-1].alarms.items() if one.code == code]
        command = msgspec.structs.replace(ask(alarm_id, action), **more)
        return await self.watch.obey(msgspec.json.encode(command))

    async def events(self, kind: type[msgspec.Struct]) -> list[msgspec.Struct]:
        assert self.journal is not None
        rows = await asyncio.wrap_future(self.journal.unacked(0, 1000))
        name = "alarm" if kind is Alarm else "operator_action"
        return [msgspec.json.decode(row.body, type=kind) for row in rows if row.name == name]

    async def steps(self) -> list[tuple[str, str]]:
        found = await self.events(Alarm)
        return [(one.code, one.state) for one in found if isinstance(one, Alarm)]

    def lose(self, head: str = "h01", count: int = 3) -> None:
        for number in range(count):
            self.lives.close(head, Seating(f"{head}-{number}", Finding.CONTACT))


def ask(alarm_id: str, action: str, **more: object) -> AlarmCommand:
    command = AlarmCommand(
        schema="alarm/1.0", request_id=str(uuid4()), alarm_id=alarm_id, action=action, operator_id="Anna"
    )
    return msgspec.structs.replace(command, **more)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if made.journal is not None:
        made.journal.close()


async def test_a_heads_alarm_rings_once_and_its_acknowledgement_outlives_the_process(place: Place) -> None:
    await place.start()
    place.lose()
    assert await place.after() == {"A-110 st01/h01": "UNACK_ALARM"}
    assert (await place.ask("A-110", "ACK")).status == "ACCEPTED"
    before = place.said[-1].alarms
    row = place.lives.row("h01")
    assert place.journal is not None
    await asyncio.wrap_future(place.journal.events([], {"h01": row}).stored)
    await place.start()
    assert await place.after(60) == {"A-110 st01/h01": "ACK_ALARM"}
    assert place.said[-1].alarms == before
    assert await place.steps() == [("A-110", "UNACK_ALARM"), ("A-110", "ACK_ALARM")]


async def test_a_cause_that_was_stored_rings_in_the_next_process_if_nobody_heard_it(place: Place) -> None:
    await place.start()
    place.lose()
    assert place.journal is not None
    await asyncio.wrap_future(place.journal.events([], {"h01": place.lives.row("h01")}).stored)
    await place.start()
    assert await place.after() == {"A-110 st01/h01": "UNACK_ALARM"}
    assert await place.steps() == [("A-110", "UNACK_ALARM")]


async def test_who_releases_a_head_has_seen_its_alarm(place: Place) -> None:
    await place.start()
    place.lose()
    await place.after()
    place.lives.release("h01", "Bert")
    assert await place.after() == {"A-110 st01/h01": "ACK_ALARM"}
    assert await place.after(31) == {}
    assert (await place.steps())[-1] == ("A-110", "NORMAL")
    last = (await place.events(Alarm))[-1]
    assert isinstance(last, Alarm)
    assert last.operator_id == "Bert"


async def test_a_request_is_carried_out_once_and_recorded_in_a_name(place: Place) -> None:
    await place.start()
    place.lose()
    await place.after()
    (alarm_id,) = place.said[-1].alarms
    command = msgspec.json.encode(ask(alarm_id, "SHELVE", minutes=30, reason="spare part at ten"))
    assert (await place.watch.obey(command)).status == "ACCEPTED"
    assert (await place.watch.obey(command)).status == "DUPLICATE"
    await place.start()
    assert (await place.watch.obey(command)).status == "DUPLICATE"
    (done,) = await place.events(OperatorAction)
    assert isinstance(done, OperatorAction)
    assert (done.action, done.operator_id, done.target, done.comment) == (
        "SHELVE",
        "Anna",
        alarm_id,
        "spare part at ten",
    )


async def test_shelving_ends_by_itself_and_what_was_acknowledged_stays_so_over_a_restart(place: Place) -> None:
    await place.start()
    place.board.enter("h02", Phase.VERDICT, CODE_REPAIR)
    place.gate.note("OUTBOX.LATE", "", shuts=False)
    await place.after()
    await place.ask("A-104", "ACK")
    assert (await place.ask("A-104", "SHELVE", minutes=5)).code == "ALARM.REFUSED"
    await place.ask("A-104", "SHELVE", minutes=5, reason="known")
    assert place.said[-1].shelved == 1
    await place.start()
    place.gate.note("OUTBOX.LATE", "", shuts=False)
    assert await place.after(299) == {"A-104 st01": "SHELVED"}
    assert await place.after(2) == {"A-104 st01": "ACK_ALARM"}
    assert not place.said[-1].horn


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operator_id": " "}, "OPERATOR.UNNAMED"),
        ({"request_id": "7"}, "COMMAND.INVALID"),
        ({"alarm_id": "no such"}, "ALARM.UNKNOWN"),
        ({"action": "FORGET"}, "ALARM.REFUSED"),
    ],
)
async def test_what_is_refused_changes_nothing(place: Place, changes: dict[str, str], code: str) -> None:
    await place.start()
    place.lose()
    await place.after()
    assert (await place.ask("A-110", "ACK", **changes)).code == code
    assert await place.after() == {"A-110 st01/h01": "UNACK_ALARM"}


async def test_no_supervisor_and_a_wrong_clock_are_alarms_after_their_delays(place: Place) -> None:
    await place.start()
    place.online = False
    place.watch.note_time(utc_ms_text(place.clock.now()))
    assert await place.after() == {}
    assert await place.after(15) == {"A-102 st01": "UNACK_ALARM"}
    assert len(await place.events(Alarm)) == 1, "stored while the clock was right"
    place.online = True
    place.clock.advance(2)
    place.watch.note_time("2026-03-01T08:00:00.000Z")
    await place.after()
    assert await place.after(300) == {"A-102 st01": "RTN_UNACK", "A-151 st01": "UNACK_ALARM"}
    told = [(one.code, one.clock_ok) for one in await place.events(Alarm) if isinstance(one, Alarm)]
    assert told == [("A-102", True), ("A-102", False), ("A-151", False)]


async def test_a_full_store_of_events_is_more_urgent_than_a_late_one(place: Place) -> None:
    await place.start()
    place.gate.note("OUTBOX.LATE", "", shuts=False)
    await place.after()
    place.gate.note("OUTBOX.FULL", "", shuts=True)
    await place.after()
    (alarm,) = place.said[-1].alarms.values()
    assert (alarm.code, alarm.priority) == ("A-104", 1)


async def test_a_lost_reader_strange_units_and_a_lot_without_packages(place: Place) -> None:
    await place.start()
    place.board.enter("h02", Phase.RETIRED, CODE_REPAIR)
    place.board.count("h01", UnitResult.FAIL, "", "PIR.SIGNATURE")
    place.board.count("h01", UnitResult.PASS)
    assert await place.after() == {"A-141 st01/h01": "UNACK_ALARM", "A-170 st01/h02": "UNACK_ALARM"}
    for number in range(3):
        place.board.seat("h01", f"{number}", "")
        place.board.count("h01", UnitResult.ERROR, "", "BPP.NOT_FOUND")
    assert (await place.after())["A-131 st01"] == "UNACK_ALARM"
    place.board.count("h01", UnitResult.PASS)
    place.board.enter("h02", Phase.EMPTY, 2202)
    await place.after()
    assert set((await place.after(30)).values()) == {"RTN_UNACK"}


async def test_a_unit_the_mes_refuses_rings_until_the_next_one_is_let_in(place: Place) -> None:
    await place.start()
    place.board.count("h01", UnitResult.FAIL, "", "ROUTE.REFUSED")
    place.board.count("h02", UnitResult.PASS)
    assert await place.after() == {"A-121 st01/h01": "UNACK_ALARM"}
    place.board.count("h01", UnitResult.FAIL, "", "ROUTE.REFUSED")
    assert await place.after(60) == {"A-121 st01/h01": "UNACK_ALARM"}
    place.board.count("h01", UnitResult.PASS)
    await place.after()
    assert await place.after(30) == {"A-121 st01/h01": "RTN_UNACK"}


async def test_64_heads_at_once_are_a_flood_that_names_what_came_first(tmp_path: Path) -> None:
    place = await Place(tmp_path, [f"h{number:02}" for number in range(64)]).start()
    assert place.journal is not None
    try:
        for head in place.heads:
            place.lose(head)
        assert len(await place.after()) == 64
        last = place.said[-1]
        assert (last.flood, len(last.first_out)) == (True, 5)
        labels = {"line": "L1", "node": "st01", "priority": "2", "state": "UNACK_ALARM"}
        assert place.metrics.value("ifpp_alarms", **labels) == 64
        assert len(await place.steps()) == 64
    finally:
        place.journal.close()


async def test_a_whole_station_tells_its_alarms_and_obeys_over_the_broker(
    tmp_path: Path, world: WorldSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader is away: that rings, is acknowledged, and the next process does not ring again."""
    monkeypatch.setattr(module, "_ROUND_S", 0.05)
    server = SlotServer({"h01": Slot("h01")})
    await server.start()
    port = server.ports["h01"]
    server.stop()
    topics = [TOPICS.every_event, f"{TOPICS.base}/+/state/+", TOPICS.answer("st01", "alarm")]
    async with running(tmp_path, BrokerKind.MOSQUITTO) as broker, Node(broker.port, "_line", topics).up() as listener:
        line = Line(tmp_path, broker.port, listener, Slot("h01"), port)

        def last() -> ActiveAlarms:
            return msgspec.json.decode(listener.payloads(TOPICS.alarms("st01"))[-1], type=ActiveAlarms)

        async with line.station(world, line.journal()):
            await until(lambda: [one.code for one in last().alarms.values()] == ["A-170"])
            (alarm_id,) = last().alarms
            command = msgspec.json.encode(ask(alarm_id, "ACK"))
            await listener.client.publish(TOPICS.command("st01", "alarm"), command)
            await until(lambda: last().alarms[alarm_id].state == "ACK_ALARM")
            await until(lambda: bool(listener.payloads(TOPICS.answer("st01", "alarm"))))
        heard = len(listener.payloads(TOPICS.alarms("st01")))
        async with line.station(world, line.journal()):
            await until(lambda: len(listener.payloads(TOPICS.alarms("st01"))) > heard)
            assert {key: one.state for key, one in last().alarms.items()} == {alarm_id: "ACK_ALARM"}
        await until(lambda: len({one["id"] for one in line.events("alarm")}) == 2)
    assert [one["state"] for one in line.events("alarm")][:2] == ["UNACK_ALARM", "ACK_ALARM"]
