"""The Sparkplug view: its messages as a host takes them, what it shows of a line, what it refuses, and who speaks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import aiomqtt
import msgspec
import pytest

from ifpp.bus.client import BrokerAddress, Inbound
from ifpp.bus.edge import EdgeConnection
from ifpp.bus.sparkplug import DataType, EdgeTopics, Metric
from ifpp.bus.topics import Place
from ifpp.line import sparkplug as module
from ifpp.line.lease import Lease
from ifpp.line.sparkplug import HostWatch, SparkplugDesk
from ifpp.line.sparkplug_node import EdgeNode, Said
from ifpp.line.sparkplug_view import LineViews, View
from ifpp.metrics import Metrics, Role
from ifpp.model.alarms import ActiveAlarm, ActiveAlarms
from ifpp.model.kpi import Kpi, KpiWindow, Oee
from ifpp.model.mes import JobStock, Stock
from ifpp.model.messages import HeadState, JobState, LineState, Message, StationState
from ifpp.settings import Site, Sparkplug
from tests.bus.node import TOPICS, until
from tests.clock import FakeClock
from tests.line.world import JOB, GatedFactory, Running, Station, site_at
from tests.real.mosquitto import running
from tests.sparkplug_host import Host, command, read

EDGE = EdgeTopics("graz-hall-2", "L1")
TS = "2026-03-01T08:00:00.123Z"
TS_MS = 1_772_352_000_123
NAMES: dict[str, Any] = {"id": "i", "ts": TS, "boot_id": "b"}


def station_state(phase: str = "IDLE", station: str = "st01", heads: int = 1, **changes: Any) -> StationState:
    head = HeadState(e10="SBY", code=2202, phase=phase, since=TS, ok=3, ng=1, last="PASS", sn="SN-1", eid="8" * 32)
    named = {f"h{number:02d}": head for number in range(1, heads + 1)}
    fields: dict[str, Any] = {"e10": "SBY", "e10_code": 2202, "phase": phase, "since": TS, "heads": named}
    return StationState(schema="station/1.0", node_id=station, **NAMES, **fields | changes)


def figures(good: int, *, start: str = TS, revision: int = 0, **changes: Any) -> Kpi:
    """Figures of a window, those not in `changes` as of a line that made nothing."""
    window = KpiWindow(kind="hour", start=start, end=TS, shift_id="h", job_order_id="JO-1")
    counts = {one.name: 0 for one in msgspec.structs.fields(Kpi) if one.type is int and one.required}
    fields: dict[str, Any] = {"schema": "kpi/1.0", "node_id": "_line", **NAMES, **counts, "complete": True}
    return Kpi(**fields | {"epoch": 1, "window": window, "good": good, "revision": revision} | changes)


def alarm(source: str, state: str, priority: int = 2) -> ActiveAlarm:
    named: dict[str, Any] = {"text": "station offline", "action": "check it", "first_at": TS}
    return ActiveAlarm(code="A-101", source=source, priority=priority, state=state, **named)


def line(kind: type[Message], **content: Any) -> Any:
    return kind(schema="x/1.0", node_id="_line", **NAMES, **content)


def heard(*said: tuple[str, str, str, Message]) -> LineViews:
    views = LineViews()
    for node, kind, name, document in said:
        views.hear(Place(node, kind, name), msgspec.json.encode(document))
    return views


def by_name(metrics: list[Metric]) -> dict[str, Any]:
    return {one.name: one.value for one in metrics}


def shown(host: Host, *said: Said) -> Host:
    for topic, body in said:
        host.hear(topic, body)
    return host


def one(value: object = 1, name: str = "n", kind: DataType = DataType.INT64) -> list[Metric]:
    return [Metric(name, kind, cast(Any, value), TS_MS)]


# ---- the node's messages -------------------------------------------------------------------------


def test_births_come_first_and_tell_every_type() -> None:
    node = EdgeNode(EDGE, 7, 0.0)
    born = [node.born]
    said = node.birth(View(one(), {"st01": one("PRD", "e10", DataType.STRING)}), TS_MS)
    assert [*born, node.born] == [False, True]
    assert [topic for topic, _ in said] == ["spBv1.0/graz-hall-2/NBIRTH/L1", "spBv1.0/graz-hall-2/DBIRTH/L1/st01"]
    host = shown(Host(), *said)
    assert (host.faults, host.bd_seq, host.types["bdSeq"], host.types["n"]) == ([], 7, 4, 4)
    assert host.values == {"bdSeq": 7, "Node Control/Rebirth": False, "n": 1, "st01/e10": "PRD"}


def test_the_number_goes_from_255_to_0_and_a_rebirth_begins_anew() -> None:
    node, host = EdgeNode(EDGE, 0, 0.0), Host()
    shown(host, *node.birth(View(one(0), {}), TS_MS))
    numbers = []
    for value in range(1, 300):
        shown(host, *node.changes(View(one(value), {}), TS_MS))
        numbers.append(host.last.seq)
    assert numbers == [value % 256 for value in range(1, 300)]
    shown(host, *node.birth(View(one(300), {}), TS_MS))
    assert (host.faults, host.last.seq, host.births, host.numbers) == ([], 0, 2, [0])


def test_data_are_what_changed_and_real_numbers_have_a_deadband() -> None:
    node = EdgeNode(EDGE, 0, 0.01)

    def at(fpy: float | None, good: int) -> View:
        return View([*one(good, "good"), *one(fpy, "fpy", DataType.DOUBLE)], {"st01": one("a", "p", DataType.STRING)})

    host = shown(Host(), *node.birth(at(0.9, 1), TS_MS))
    assert node.changes(at(0.9, 1), TS_MS) == []
    assert node.changes(at(0.905, 1), TS_MS) == []
    assert node.changes(at(0.908, 1), TS_MS) == []
    shown(host, *node.changes(at(0.91, 2), TS_MS))  # measured from what was told, not from what was seen last
    assert (host.last.names, host.values["fpy"]) == ({"fpy", "good"}, 0.91)
    shown(host, *node.changes(at(None, 2), TS_MS))
    assert (host.last.metric("fpy").null, host.values["fpy"]) == (True, None)
    shown(host, *node.changes(at(0.91, 2), TS_MS))
    assert (host.values["fpy"], host.faults) == (0.91, [])


def test_devices_come_go_and_change_their_metrics() -> None:
    node, host = EdgeNode(EDGE, 0, 0.0), Host()
    shown(host, *node.birth(View(one(), {}), TS_MS))
    shown(host, *node.changes(View(one(), {"st01": one()}), TS_MS))
    shown(host, *node.changes(View(one(), {"st01": [*one(), *one(2, "m")]}), TS_MS))  # a head more: born again
    assert host.kinds[1:] == ["DBIRTH", "DBIRTH"]
    shown(host, *node.changes(View(one(), {}), TS_MS))
    assert (host.devices, host.kinds[-1], host.last.metrics) == ({"st01": False}, "DDEATH", [])
    shown(host, *node.changes(View(one(), {"st01": one()}), TS_MS))
    assert (host.devices, host.faults) == ({"st01": True}, [])


def test_a_death_that_comes_late_does_not_kill_the_successor() -> None:
    old, new, host = EdgeNode(EDGE, 255, 0.0), EdgeNode(EDGE, 0, 0.0), Host()
    shown(host, *old.birth(View(one(), {}), TS_MS), *new.birth(View(one(), {}), TS_MS), old.death(TS_MS))
    assert (host.alive, host.stale_deaths) == (True, [255])
    shown(host, new.death(TS_MS))
    assert (host.alive, host.faults) == (False, [])


def test_every_connection_has_the_next_number_whoever_makes_it(factory: GatedFactory) -> None:
    now = FakeClock().now()
    other = GatedFactory.at(factory.file.parent)
    assert [one.edge_numbers.next("L1", now) for one in (factory, other, factory)] == [0, 1, 2]
    other.close()
    with closing(sqlite3.connect(factory.file, isolation_level=None)) as books:
        books.execute("UPDATE meta SET value = '254' WHERE key = 'sparkplug/L1'")
    assert [factory.edge_numbers.next("L1", now) for _ in range(3)] == [255, 0, 1]
    assert factory.edge_numbers.next("L2", now) == 0


# ---- what is shown -------------------------------------------------------------------------------


def test_a_line_nobody_spoke_of_is_all_null() -> None:
    view = LineViews().view({}, TS_MS)
    known = {name: value for name, value in by_name(view.node).items() if value is not None}
    assert set(known) == {"Properties/software", "Stations/known", "Stations/online"}
    assert view.devices == {}


def test_the_line_is_shown_from_its_documents() -> None:
    views = heard(
        ("_line", "state", "line", line(LineState, epoch=1, stations={}, units=12, passed=10, failed=2)),
        ("_line", "state", "job", line(JobState, epoch=1, jobs=[replace_job("JO-9", 9), JOB])),
        ("_line", "kpi", "job", figures(8)),
        ("_line", "kpi", "shift", figures(8, fpy=0.75, uph=40.0, oee=Oee(pbt_ms=1, apt_ms=1, pq=1, gq=1, oee=0.5))),
        ("_line", "state", "stock", line(Stock, epoch=1, jobs={"JO-1": STOCK})),
    )
    view = views.view({"st01": True, "st02": False}, 5)
    values = by_name(view.node)
    assert (values["Stations/known"], values["Stations/online"], values["Units/passed"]) == (2, 1, 10)
    assert (values["Job/job_order_id"], values["Job/quantity"], values["Job/good"]) == ("JO-1", 100, 8)
    assert (values["Coverage/covered"], values["Coverage/hours_left"]) == (40, None)
    assert (values["KPI/Shift/fpy"], values["KPI/Shift/uph"], values["KPI/Shift/oee"]) == (0.75, 40.0, 0.5)
    assert (values["KPI/Shift/from"], values["KPI/Shift/availability"]) == (TS_MS, None)
    assert {one.at_ms for one in view.node if one.name.startswith("Units/")} == {TS_MS}


def replace_job(name: str, priority: int) -> Any:
    return msgspec.structs.replace(JOB, job_order_id=name, priority=priority)


STOCK = JobStock(expected_units=100, eids_known=50, covered=40, uncovered=10, spare=0, spoiled=0, coverage_ratio=0.4)


def test_alarms_are_counted_by_priority_and_the_first_one_is_told() -> None:
    alarms = {
        "a": alarm("st01", "UNACK_ALARM", 1),
        "b": alarm("st01/h01", "ACK_ALARM"),
        "c": alarm("st02", "SHELVED"),
        "d": alarm("st10", "SUPPRESSED", 3),
    }
    views = heard(
        ("_line", "state", "alarms", line(ActiveAlarms, alarms=alarms, horn=True)),
        ("st01", "state", "station", station_state()),
    )
    view = views.view({"st01": True}, 5)
    values = {name.removeprefix("Alarms/"): value for name, value in by_name(view.node).items() if "Alarms/" in name}
    first = values.pop("first")
    assert first == "A-101 st01: station offline - check it"
    counts = {"active": 2, "high": 1, "medium": 1, "low": 0, "unacknowledged": 1, "shelved": 1, "suppressed": 1}
    assert values == counts | {"flood": False, "horn": True}
    assert by_name(view.devices["st01"])["Alarms/active"] == 2


def test_a_station_shows_its_heads_and_no_unit() -> None:
    views = heard(("st01", "state", "station", station_state(heads=2, locked=True, held_units=2**70)))
    (metrics,) = views.view({"st01": True, "st02": True}, 5).devices.values()
    values = by_name(metrics)
    assert (values["Heads/h02/phase"], values["Heads/h02/ok"], values["Heads/h02/last"]) == ("IDLE", 3, "PASS")
    assert (values["locked"], values["job_order_id"], values["Alarms/active"]) == (True, None, None)
    assert not any("SN-1" in str(value) or "8" * 32 in str(value) for value in values.values())
    assert views.view({"st01": False}, 5).devices == {}
    host = shown(Host(), *EdgeNode(EDGE, 0, 0.0).birth(views.view({"st01": True}, 5), 5))
    assert (host.values["st01/held_units"], host.faults) == (None, [])


def test_a_window_that_ended_does_not_take_the_place_of_the_present_one() -> None:
    early, late = "2026-03-01T07:00:00.000Z", "2026-03-01T08:00:00.000Z"
    views = heard(
        ("_line", "kpi", "hour", figures(5, start=late)), ("_line", "kpi", "hour", figures(9, start=early, revision=2))
    )
    assert by_name(views.view({}, 5).node)["KPI/Hour/good"] == 5
    views.hear(Place("_line", "kpi", "hour"), msgspec.json.encode(figures(1, start=early)))  # the clock was set back
    assert by_name(views.view({}, 5).node)["KPI/Hour/good"] == 1


def test_what_was_taken_back_is_gone_and_what_is_no_document_changes_nothing() -> None:
    views = heard(("st01", "state", "station", station_state()))
    for garbage in (b"{", b'{"schema":1}', msgspec.json.encode(station_state(station="st02"))):
        with pytest.raises(msgspec.MsgspecError):
            views.hear(Place("st01", "state", "station"), garbage)
    assert list(views.view({"st01": True}, 5).devices) == ["st01"]
    views.hear(Place("st01", "state", "station"), b"")
    assert views.view({"st01": True}, 5).devices == {}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"ts": "0001-01-01T00:00:00+14:00"}),
        json.dumps({"ts": "1960-01-01T00:00:00Z", "e10_code": -(2**40), "held_units": 2**64 - 1}),
        '{"phase":"\\u0000\\ud83d\\ude00"}',
        json.dumps({"phase": "x" * 100_000, "heads": {"a/b": {}, "h01": {}, "": {}}}),
    ],
)
def test_odd_documents_are_shown_or_left_out_and_stop_nothing(text: str) -> None:
    plain = json.loads(msgspec.json.encode(station_state()))
    changes = json.loads(text)
    changes["heads"] = dict.fromkeys(changes.get("heads", {}), plain["heads"]["h01"])
    views = LineViews()
    views.hear(Place("st01", "state", "station"), json.dumps(plain | changes).encode())
    host = shown(Host(), *EdgeNode(EDGE, 0, 0.0).birth(views.view({"st01": True}, TS_MS), TS_MS))
    assert (host.devices, host.faults) == ({"st01": True}, [])
    assert len(str(host.values["st01/phase"])) <= 256
    assert {name.split("/")[2] for name in host.values if "/Heads/" in name} <= {"h01"}


# ---- host and commands ---------------------------------------------------------------------------


def state(at_ms: object, *, online: object) -> bytes:
    return json.dumps({"online": online, "timestamp": at_ms}).encode()


def test_an_older_word_of_the_host_does_not_count() -> None:
    host = HostWatch(wanted=True)
    seen = []
    for online, at_ms in ((True, 10), (False, 9), (False, 10), (True, 9), (True, 11)):
        host.hear(state(at_ms, online=online))
        seen.append(host.online)
    assert seen == [True, True, False, False, True]
    for garbage in (b"ONLINE", b"", state("11", online=True), state(11, online="yes")):
        with pytest.raises(msgspec.MsgspecError):
            host.hear(garbage)
    assert HostWatch(wanted=False).online


class Wire:
    """In the place of a connection: notes what is published, gives what is to be heard."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.inbound: list[Inbound] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))

    async def messages(self) -> AsyncIterator[Inbound]:
        for inbound in self.inbound:
            yield inbound

    @property
    def connection(self) -> EdgeConnection:
        return cast(EdgeConnection, self)


class Ours:
    """A lease that is held."""

    def check(self) -> None: ...


def desk(clock: FakeClock, metrics: Metrics, **settings: Any) -> SparkplugDesk:
    site = msgspec.structs.replace(site_at(1), sparkplug=Sparkplug(enabled=True, **settings))
    return SparkplugDesk(
        site,
        cast(GatedFactory, None),
        cast(Lease, Ours()),
        TOPICS,
        BrokerAddress("127.0.0.1", 1),
        stations=dict,
        clock=clock,
        metrics=metrics,
        violation=lambda *_, **__: None,
    )


async def test_only_a_rebirth_is_heard_and_all_else_is_refused_and_counted() -> None:
    metrics, wire = Metrics(Role.SUPERVISOR, line="L1"), Wire()
    here, ncmd = desk(FakeClock(), metrics), EDGE.node("NCMD")
    rebirth = command("Node Control/Rebirth", boolean=True)
    wire.inbound = [
        Inbound(ncmd, rebirth, retained=True),
        Inbound(ncmd, command("Node Control/Rebirth", boolean=False), retained=False),
        Inbound(ncmd, command("Node Control/Reboot", boolean=True), retained=False),
        Inbound(ncmd, command("Job/quantity", text="9"), retained=False),
        Inbound(EDGE.device("DCMD", "st01"), command("locked", boolean=True), retained=False),
        Inbound(EDGE.device("DCMD", "st01"), rebirth, retained=False),
        Inbound(ncmd, b"\xff\xff", retained=False),
        Inbound(ncmd, bytes(70_000), retained=False),
        Inbound("spBv1.0/STATE/scada", b"OFFLINE", retained=True),
    ]
    node = EdgeNode(EDGE, 0, 0.0)
    await here._say(wire.connection, node)
    await here._hear(wire.connection)
    refused = {
        reason: metrics.value("ifpp_sparkplug_refused_total", line="L1", reason=reason)
        for reason in ("write", "payload", "too_big", "retained", "state")
    }
    assert refused == {"write": 5, "payload": 1, "too_big": 1, "retained": 1, "state": 1}
    await here._say(wire.connection, node)
    assert [topic for topic, _ in wire.said] == [EDGE.node("NBIRTH")]


async def test_hosts_that_ask_again_and_again_get_one_rebirth() -> None:
    clock, wire = FakeClock(), Wire()
    here, node, host = desk(clock, Metrics(Role.SUPERVISOR, line="L1")), EdgeNode(EDGE, 4, 0.0), Host()
    wire.inbound = [Inbound(EDGE.node("NCMD"), command("Node Control/Rebirth", boolean=True), retained=False)]
    for _ in range(20):  # one a second
        await here._hear(wire.connection)
        await here._say(wire.connection, node)
        clock.advance(1.0)
    shown(host, *wire.said)
    assert (host.kinds, host.numbers, host.faults) == (["NBIRTH"] * 4, [4], [])


# ---- with broker and supervisor ------------------------------------------------------------------


class Scada:
    """A primary host: hears everything of the namespace, says its state, commands."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.said: list[Said] = []
        self.manners: set[tuple[str, int, bool]] = set()
        self.host = Host()

    async def listen(self) -> None:
        async for message in self._client.messages:
            if "/STATE/" not in str(message.topic):
                assert isinstance(message.payload, bytes)
                self.said.append((str(message.topic), message.payload))
                self.host.hear(*self.said[-1])
                self.manners.add((str(message.topic).split("/")[2], message.qos, message.retain))

    async def is_online(self, online: bool) -> int:
        now_ms = int(time.time() * 1000)
        await self._client.publish("spBv1.0/STATE/scada", state(now_ms, online=online), 1, True)
        return now_ms

    async def command(self, topic: str, body: bytes) -> None:
        await self._client.publish(topic, body, 0)

    @asynccontextmanager
    @staticmethod
    async def at(port: int) -> AsyncIterator[Scada]:
        async with aiomqtt.Client("127.0.0.1", port, identifier="scada") as client:
            await client.subscribe("spBv1.0/#", 1)
            here = Scada(client)
            listening = asyncio.create_task(here.listen())
            try:
                yield here
            finally:
                listening.cancel()
                await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()


def shown_site(port: int) -> Site:
    """With a lease that nobody renews meanwhile: who lost the line hears of it from the broker."""
    sparkplug = Sparkplug(enabled=True, host="scada", scan_s=0.05)
    return msgspec.structs.replace(site_at(port, lease_s=600.0), sparkplug=sparkplug)


async def told(station: Station, phase: str) -> None:
    body = msgspec.json.encode(station_state(phase, locked=False, held_units=1))
    await station.client.publish(TOPICS.station_state("st01"), body, retain=True)


async def _lives(scada: Scada, station: Station, supervisor: Running, began_ms: int) -> None:
    """Birth, data, rebirth, refused commands."""
    host = scada.host
    await until(lambda: host.values.get("st01/phase") == "IDLE" and host.values["Job/job_order_id"] == "JO-1")
    assert (host.numbers, host.devices, host.kinds[0]) == ([0], {"st01": True}, "NBIRTH")
    assert (read(scada.said[0][1]).timestamp or 0) >= began_ms  # nothing before the host was there
    await told(station, "LOADING")
    await until(lambda: host.values.get("st01/Heads/h01/phase") == "LOADING")
    (data,) = [read(payload) for topic, payload in scada.said if "/DDATA/" in topic]
    assert data.names == {"phase", "Heads/h01/phase"}
    births = host.births
    await scada.command(EDGE.device("DCMD", "st01"), command("locked", boolean=True))
    await scada.command(EDGE.node("NCMD"), command("Job/quantity", text="1"))
    await scada.command(EDGE.node("NCMD"), command("Node Control/Rebirth", boolean=True))
    await until(lambda: host.births == births + 1 and host.devices == {"st01": True})
    assert supervisor.value("ifpp_sparkplug_refused_total", reason="write") == 2
    assert (host.numbers, host.values["Job/quantity"], host.values["st01/locked"]) == ([0], 100, False)


async def _follows_its_host(scada: Scada) -> None:
    """Dies when the host goes, is born under the next number when it comes back."""
    await scada.is_online(False)
    await until(lambda: not scada.host.alive)
    assert scada.host.kinds[-1] == "NDEATH"
    await scada.is_online(True)
    await until(lambda: scada.host.alive and scada.host.devices == {"st01": True})


def _take_away(factory: GatedFactory) -> None:
    """The line belongs to somebody else now, and its owner does not know."""
    with closing(sqlite3.connect(factory.file, isolation_level=None)) as books:
        books.execute(
            "UPDATE line_lease SET owner = 'nobody', epoch = epoch + 1, expires_at = '1970-01-01T00:00:00.000Z'"
        )


async def test_scada_sees_a_line_live_die_and_change_hands(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REBIRTH_S", 0.1)
    factory.add_job(JOB)
    async with running(tmp_path) as broker, AsyncExitStack() as stack:
        scada = await stack.enter_async_context(Scada.at(broker.port))
        one = Running(shown_site(broker.port), factory)
        stack.push_async_callback(one.end)
        async with Station(broker.port).up() as station:
            await told(station, "IDLE")
            await until(one.ready.is_set)
            await _lives(scada, station, one, await scada.is_online(True))
            await _follows_its_host(scada)
            drawn = scada.host.numbers[-1]
            two = Running(shown_site(broker.port), factory)
            stack.push_async_callback(two.end)
            _take_away(factory)  # the successor's connection ends the old one, and the broker says its will
            await until(lambda: scada.host.alive and scada.host.bd_seq > drawn and scada.host.devices == {"st01": True})
        await until(lambda: scada.host.devices == {"st01": False})
        assert scada.host.kinds[-1] != "NDEATH"
        await one.end()
        await two.end()
        await until(lambda: not scada.host.alive)
        assert scada.host.faults == []
        assert scada.host.numbers == sorted(set(scada.host.numbers))
        assert not any(retained for _, _, retained in scada.manners)
        assert {kind for kind, qos, _ in scada.manners if qos == 1} == {"NDEATH"}  # as a will


async def test_nothing_is_shown_unless_it_is_switched_on(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr("ifpp.line.supervisor.SparkplugDesk", lambda *parts, **_: made.append(parts))
    async with running(tmp_path) as broker, Scada.at(broker.port) as scada:
        await scada.is_online(True)
        one = Running(site_at(broker.port), factory)
        await until(one.ready.is_set)
        await one.end()
        assert (scada.said, made) == ([], [])
        assert one.value("ifpp_sparkplug_born") == 0


async def test_after_a_broker_restart_it_is_born_under_the_next_number(tmp_path: Path, factory: GatedFactory) -> None:
    async with running(tmp_path) as broker:
        one, port = Running(shown_site(broker.port), factory), broker.port
        async with Scada.at(port) as scada:
            await scada.is_online(True)
            await until(lambda: scada.host.alive)
        await broker.kill()
        await until(lambda: one.value("ifpp_sparkplug_born") == 0)
    async with running(tmp_path, port=port), Scada.at(port) as scada:
        await scada.is_online(True)
        await until(lambda: scada.host.alive)
        await one.end()
        await until(lambda: not scada.host.alive)
    assert (scada.host.faults, len(scada.host.numbers)) == ([], 1)
    assert scada.host.bd_seq > 0
