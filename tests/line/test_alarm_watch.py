"""The line's alarms: its own, its stations', one list; acts, restarts, and a supervisor at a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from ifpp.bus.broker import BrokerKind
from ifpp.bus.topics import LINE_NODE, MES_NODE, Place
from ifpp.errors import ServiceError
from ifpp.line import alarm_watch as module
from ifpp.line.alarm_watch import AlarmWatch
from ifpp.metrics import Metrics, Role
from ifpp.model.alarms import ActiveAlarm, ActiveAlarms, AlarmAnswer, AlarmCommand
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Alarm, UnitRef, UnitResultEvent
from ifpp.store.records import ReceivedEvent
from ifpp.store.stock import StockLevel
from tests.bus.node import TOPICS, Node, until
from tests.clock import FakeClock
from tests.line.world import (
    JOB,
    GatedFactory,
    Station,
    eid_of,
    event,
    iccid_of,
    profile_result,
    send_package,
    site_at,
    stock,
    supervised,
    unit_result,
)
from tests.real.mosquitto import running


class Line:
    """The watch of one line without a broker; `start` is the next supervisor."""

    def __init__(self, factory: GatedFactory) -> None:
        self.factory = factory
        self.clock = FakeClock()
        self.stations = {"st01": True, "st02": True}
        self.mes: bool | None = None
        self.refused = 0
        self.unanswered = 0
        self.overdue: list[str] = []
        self.ending: dict[str, float] = {}
        self.published: list[tuple[str, bytes]] = []
        self.violations = 0

    def start(self) -> Line:
        self.metrics = Metrics(Role.SUPERVISOR, line="L1")
        self.over = asyncio.Event()
        self.watch = AlarmWatch(
            self.factory,
            TOPICS,
            self._publish,
            boot_id="boot",
            clock=self.clock,
            metrics=self.metrics,
            stations=lambda: self.stations,
            mes_online=lambda: self.mes,
            refused=lambda: self.refused,
            overdue=lambda: self.overdue,
            ending=lambda: self.ending,
            unanswered=lambda: self.unanswered,
            violation=self._violation,
        )
        return self

    async def _publish(self, topic: str, payload: bytes, _retain: bool) -> None:
        self.published.append((topic, payload))

    def _violation(self, *_: object, **__: object) -> None:
        self.violations += 1

    async def after(self, seconds: float = 0.0) -> dict[str, str]:
        """Let time pass and one round run; return the state by code and source."""
        self.clock.advance(seconds)
        over = asyncio.Event()
        over.set()
        await self.watch.run(over)
        return {f"{one.code} {one.source}": one.state for one in self.last.alarms.values()}

    @property
    def last(self) -> ActiveAlarms:
        topic = TOPICS.alarms(LINE_NODE)
        return msgspec.json.decode([body for at, body in self.published if at == topic][-1], type=ActiveAlarms)

    async def station(self, station: str, *codes: str, state: str = "UNACK_ALARM", retained: bool = False) -> None:
        """A station says which alarms stand on its heads h00, h01, ..."""
        alarms = {
            f"{station}-{number}": ActiveAlarm(
                code=code, source=f"{station}/h{number:02}", priority=2, state=state, text="t", action="a", first_at=""
            )
            for number, code in enumerate(codes)
        }
        said = ActiveAlarms(schema="alarms/1.0", id="i", ts="", node_id=station, boot_id="b", alarms=alarms)
        await self.watch.hear(Place(station, "state", "alarms"), msgspec.json.encode(said), retained=retained)

    async def ask(self, alarm_id: str, action: str, request_id: str = "", **more: object) -> AlarmAnswer | None:
        await self.watch.hear(Place(LINE_NODE, "cmd", "alarm"), command(alarm_id, action, request_id), retained=False)
        return self.answer()

    def answer(self) -> AlarmAnswer | None:
        found = [body for at, body in self.published if at == TOPICS.answer(LINE_NODE, "alarm")]
        return msgspec.json.decode(found[-1], type=AlarmAnswer) if found else None

    def log(self) -> list[tuple[str, str]]:
        rows = self.factory.line_log_page("L1", 0, 1000)
        told = [msgspec.json.decode(row.body, type=Alarm) for row in rows if row.name == "alarm"]
        return [(one.code, one.state) for one in told]


def command(alarm_id: str, action: str, request_id: str = "") -> bytes:
    return msgspec.json.encode(
        AlarmCommand(
            schema="alarm/1.0",
            request_id=request_id or str(uuid4()),
            alarm_id=alarm_id,
            action=action,
            operator_id="Anna",
        )
    )


@pytest.fixture
def line(factory: GatedFactory) -> Line:
    return Line(factory).start()


async def test_a_station_offline_hides_what_its_heads_say(line: Line) -> None:
    await line.station("st01", *["A-110"] * 16)
    await line.station("st02", "A-110")
    assert await line.after() == {f"A-110 st01/h{n:02}": "UNACK_ALARM" for n in range(16)} | {
        "A-110 st02/h00": "UNACK_ALARM"
    }
    line.stations["st01"] = False
    await line.after()
    states = await line.after(10)
    assert states["A-101 st01"] == "UNACK_ALARM"
    assert states["A-110 st02/h00"] == "UNACK_ALARM"
    assert (line.last.suppressed, list(states.values()).count("SUPPRESSED")) == (16, 16)
    line.stations["st01"] = True
    await line.after()
    states = await line.after(30)
    assert (line.last.suppressed, states["A-101 st01"], states["A-110 st01/h03"]) == (0, "RTN_UNACK", "UNACK_ALARM")


async def test_64_heads_are_a_flood_and_what_was_retained_is_none(line: Line) -> None:
    await line.station("st01", *["A-110"] * 64, retained=True)
    await line.after()
    assert line.last.flood is False
    await line.station("st02", *["A-110"] * 64)
    await line.after()
    assert (line.last.flood, line.last.first_out) == (True, tuple(f"st02-{n}" for n in range(5)))
    assert line.metrics.value("ifpp_alarm_flood", line="L1") == 1
    await line.after(601)
    assert line.last.flood is False


async def test_a_successor_rings_nothing_twice_and_does_nothing_twice(line: Line) -> None:
    line.mes = False
    line.stations["st01"] = False
    await line.after()
    await line.after(30)
    (mes_id,) = [key for key, one in line.last.alarms.items() if one.source == MES_NODE]
    request = str(uuid4())
    answer = await line.ask(mes_id, "ACK", request)
    assert answer is not None
    assert answer.status == "ACCEPTED"
    await line.after()
    before, told = line.last.alarms, line.log()
    assert told == [("A-101", "UNACK_ALARM"), ("A-103", "UNACK_ALARM"), ("A-103", "ACK_ALARM")]
    line.start()
    line.mes, line.stations = None, {}  # it has heard nobody yet
    await line.after()
    assert line.last.alarms == before
    line.mes, line.stations = False, {"st01": False}
    await line.after(60)
    assert line.last.alarms == before
    assert line.log() == told
    answer = await line.ask(mes_id, "ACK", request)
    assert answer is not None
    assert answer.status == "DUPLICATE"


async def test_unanswered_route_checks_ring_beyond_three_and_an_mes_offline_explains_them(line: Line) -> None:
    line.mes, line.unanswered = True, 3
    assert await line.after() == {}
    line.unanswered = 4
    assert await line.after() == {"A-120 _mes": "UNACK_ALARM"}
    (alarm,) = line.last.alarms.values()
    assert (alarm.value, alarm.limit) == (4.0, 3.0)
    line.mes = False
    await line.after()
    assert await line.after(30) == {"A-103 _mes": "UNACK_ALARM", "A-120 _mes": "SUPPRESSED"}
    line.mes, line.unanswered = True, 0
    await line.after()
    assert set((await line.after(30)).values()) == {"RTN_UNACK"}


async def test_no_change_is_lost_while_the_database_is_away(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    await line.after()
    line.refused = 1

    def away(*_: object) -> None:
        raise ServiceError("DATABASE.UNREACHABLE", "away")

    with monkeypatch.context() as patch:
        patch.setattr(line.factory.alarms, "keep", away)
        await line.after()
        assert line.log() == []
    await line.after()
    assert line.log() == [("A-150", "UNACK_ALARM")]
    await line.after(61)
    assert (await line.after(30)) == {"A-150 _line": "RTN_UNACK"}


async def test_stock_reports_certificates_and_stations_that_were_taken_away(line: Line) -> None:
    line.watch.note_stock([StockLevel("A", "EU", 5, 10.0), StockLevel("B", "EU", 0, 10.0)], 2.0)
    await line.after()  # the first round takes over: what was said before it is said again
    line.watch.note_stock([StockLevel("A", "EU", 5, 10.0), StockLevel("B", "EU", 0, 10.0)], 2.0)
    line.overdue, line.ending, line.stations["st02"] = ["r1"], {"site.crt": 3.0}, False
    await line.after(6)
    states = await line.after(10)
    assert set(states) == {
        "A-130 _line/A-EU",
        "A-131 _line/B-EU",
        "A-160 _line",
        "A-161 _line/site.crt",
        "A-101 st02",
    }
    line.watch.note_stock([StockLevel("A", "EU", 500, 10.0), StockLevel("B", "EU", 500, 10.0)], 2.0)
    line.overdue, line.ending = [], {}
    line.stations.pop("st02")
    line.watch.forget("st02")
    await line.after()
    assert set((await line.after(30)).values()) == {"RTN_UNACK"}


async def test_an_act_on_a_stations_alarm_is_passed_on_and_its_answer_back(line: Line) -> None:
    await line.station("st01", "A-110")
    await line.after()
    request = str(uuid4())
    assert await line.ask("st01-0", "ACK", request) is None
    assert line.published[-1][0] == TOPICS.command("st01", "alarm")
    said = AlarmAnswer(
        schema="a/1.0", id="i", ts="", node_id="st01", boot_id="b", request_id=request, status="ACCEPTED", text="done"
    )
    await line.watch.hear(Place("st02", "cmd_rsp", "alarm"), msgspec.json.encode(said), retained=False)
    assert line.answer() is None, "another station answers for it"
    await line.watch.hear(Place("st01", "cmd_rsp", "alarm"), msgspec.json.encode(said), retained=False)
    answer = line.answer()
    assert answer is not None
    assert (answer.node_id, answer.status, answer.request_id) == (LINE_NODE, "ACCEPTED", request)
    line.stations["st01"] = False
    answer = await line.ask("st01-0", "ACK")
    assert answer is not None
    assert answer.code == "STATION.SILENT"


async def test_one_chip_in_two_units_and_one_profile_in_two_chips_ring(line: Line, factory: GatedFactory) -> None:
    stock(factory, 4)
    factory.add_job(JOB)
    told: list[bytes] = []
    for seq, (number, sn) in enumerate([(1, "SN-1"), (1, "SN-2"), (2, "SN-3"), (2, "SN-3")], 1):
        done = msgspec.json.decode(unit_result("st01", seq, eid_of(number)), type=UnitResultEvent)
        unit = UnitRef(eid=str(eid_of(number)), sn=sn)
        now = utc_ms_text(line.clock.now())
        told.append(msgspec.json.encode(msgspec.structs.replace(done, unit=unit, ended_at=now)))
    cloned = profile_result(send_package(factory, 3, "attempt-5"), "INSTALLED", spent=True)
    told.append(unit_result("st01", 5, eid_of(4), cloned))  # the books have this profile for chip 3
    told.append(event("st01", 6, old_duration_ms=-1))  # parked, too, and about no profile
    factory.take_events([ReceivedEvent.parse("st01", body) for body in told], line.clock.now())
    states = await line.after(61)
    assert states == {f"A-140 _line/{eid_of(1)}": "UNACK_ALARM", f"A-140 _line/{iccid_of(3)}": "UNACK_ALARM"}
    texts = {one.text for one in line.last.alarms.values()}
    assert texts == {"EID in units SN-1, SN-2", f"ICCID in chips {eid_of(3)}, {eid_of(4)}"}
    await line.after(3700)
    assert set((await line.after(60)).values()) == {"RTN_UNACK"}


async def test_alarms_are_counted_by_code_and_priority_in_few_series(line: Line) -> None:
    def standing(code: str, priority: str) -> float:
        return line.metrics.value("ifpp_alarm_standing", line="L1", code=code, priority=priority)

    await line.station("st01", "A-110", "A-110", *[f"X-{number}" for number in range(50)])
    await line.after()
    assert (standing("A-110", "2"), standing("other", "2")) == (2, 50)
    shown = line.metrics.text().count(b"ifpp_alarm_standing{")
    assert shown == 2
    await line.station("st01", "A-110", state="SHELVED")
    await line.after()
    assert (standing("A-110", "2"), standing("other", "2")) == (0, 0)


@pytest.mark.parametrize("payload", [b"{}", b"\xff", b"[" * 5000, b'{"alarms": 7}'])
async def test_what_is_no_list_is_counted_and_harms_nothing(line: Line, payload: bytes) -> None:
    await line.station("st01", "A-110")
    for node, kind in (("st01", "state"), (LINE_NODE, "cmd"), ("st01", "cmd_rsp")):
        name = "alarms" if kind == "state" else "alarm"
        await line.watch.hear(Place(node, kind, name), payload, retained=False)
    assert line.violations == 3
    assert await line.after() == {"A-110 st01/h00": "UNACK_ALARM"}


async def test_a_supervisor_and_its_successor_at_a_real_broker(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROUND_S", 0.05)
    async with running(tmp_path, BrokerKind.MOSQUITTO) as broker:
        station = Station(broker.port, "st01")
        person = Node(broker.port, "panel", [TOPICS.alarms(LINE_NODE), TOPICS.answer(LINE_NODE, "alarm")])

        def last() -> ActiveAlarms:
            return msgspec.json.decode(person.payloads(TOPICS.alarms(LINE_NODE))[-1], type=ActiveAlarms)

        async with person.up(), station.up():
            async with supervised(site_at(broker.port), factory):
                await station.send(*station.record(1))
                await until(lambda: station.through == 1)
                station.outbox.clear()
                await station.send(*station.record(1))  # another event of the same number: a cloned disk
                await until(lambda: "A-150" in {one.code for one in last().alarms.values()})
                (alarm_id,) = last().alarms
                ask = command(alarm_id, "ACK")
                await person.client.publish(TOPICS.command(LINE_NODE, "alarm"), ask)
                await until(lambda: last().alarms[alarm_id].state == "ACK_ALARM")
            heard = len(person.payloads(TOPICS.alarms(LINE_NODE)))
            async with supervised(site_at(broker.port), factory):
                await until(lambda: len(person.payloads(TOPICS.alarms(LINE_NODE))) > heard)
                assert last().alarms[alarm_id].state == "ACK_ALARM"
                assert last().horn is False
    rows = [row.name for row in factory.line_log_page("L1", 0, 100)]
    assert rows.count("alarm") == 2
    assert rows.count("operator_action") == 1
