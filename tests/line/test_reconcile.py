"""Units that went on while the MES had no answer: asked for afterwards, whoever supervises; kept when refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from ifpp.bus.topics import LINE_NODE
from ifpp.errors import CustodyError, ServiceError
from ifpp.line import alarm_watch, reconcile
from ifpp.line.reconcile import Reconciler
from ifpp.metrics import Metrics, Role
from ifpp.model.alarms import ActiveAlarms
from ifpp.model.mes import RouteAnswer, RouteCheck
from ifpp.model.messages import RouteNote, UnitResultEvent
from ifpp.roles.genealogy import tree
from ifpp.settings import Mes
from ifpp.store.records import ReceivedEvent
from tests.bus.node import TOPICS, until
from tests.clock import START, FakeClock
from tests.line.test_route import ASK, Plant
from tests.line.world import JOB, GatedFactory, Station, eid_of, site_at, stock, supervised, unit_result
from tests.real.mosquitto import running

UNALLOWED = RouteNote(request_id="r", result="SKIPPED", source="OFF")


def worked(seq: int, note: RouteNote | None = UNALLOWED) -> bytes:
    """A result of unit `seq`; by default nobody had allowed it."""
    document = msgspec.json.decode(unit_result("st01", seq, eid_of(seq)), type=UnitResultEvent)
    return msgspec.json.encode(msgspec.structs.replace(document, route_check=note))


def take(factory: GatedFactory, *bodies: bytes) -> None:
    factory.take_events([ReceivedEvent.parse("st01", body) for body in bodies], START)


class Mind:
    """An MES without a wire: answers by EID, or with nothing."""

    def __init__(self, factory: GatedFactory) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[RouteCheck] = []
        self.online: bool | None = None
        self.broken = False
        self.metrics = Metrics(Role.SUPERVISOR, line="L1")
        self.clock = FakeClock()
        self.reconciler = Reconciler(
            factory, "L1", self.ask, online=lambda: self.online, clock=self.clock, metrics=self.metrics
        )

    async def ask(self, check: RouteCheck) -> RouteAnswer | None:
        self.asked.append(check)
        if self.broken:
            raise ServiceError("BROKER.UNREACHABLE", "not connected")
        if (result := self.answers.get(check.unit.eid)) is None:
            return None
        return RouteAnswer(schema="route_check/1.0", request_id=check.request_id, result=result, code="X")

    async def rounds(self) -> int:
        """Go on as long as there is more to ask; return how many questions were put."""
        before = len(self.asked)
        over = asyncio.Event()
        running = asyncio.create_task(self.reconciler.run(over))
        async with asyncio.timeout(60):
            while not self.clock.sleepers:  # noqa: ASYNC110 - the database's doing
                await asyncio.sleep(0.001)
        over.set()
        await running
        return len(self.asked) - before


def gate(factory: GatedFactory, number: int) -> str:
    return factory.unit_gate(str(eid_of(number))).code


def later(factory: GatedFactory, number: int) -> list[str]:
    unit = factory.unit(str(eid_of(number)))
    assert unit is not None
    return [row["result"] for row in tree(unit)["asked_later"]]


@pytest.fixture
def mind(factory: GatedFactory) -> Mind:
    factory.add_job(JOB)
    stock(factory, 9)
    return Mind(factory)


async def test_only_what_nobody_allowed_is_asked_for_and_a_refusal_keeps_the_unit(
    factory: GatedFactory, mind: Mind
) -> None:
    others = [None, *(RouteNote(request_id="r", result=r, source=s) for r, s in (("PASS", "MES"), ("ERROR", "OFF")))]
    take(factory, worked(1), worked(2), *(worked(seq, note) for seq, note in enumerate(others, 3)))
    mind.answers = {str(eid_of(1)): "PASS", str(eid_of(2)): "FAIL"}
    assert await mind.rounds() == 2
    assert [one.worked_at != "" for one in mind.asked] == [True, True]
    assert await mind.rounds() == 0
    assert (gate(factory, 1), gate(factory, 2)) == ("", "GATE.ROUTE")
    assert (later(factory, 1), later(factory, 2), later(factory, 3)) == (["PASS"], ["FAIL"], [])
    assert mind.metrics.value("ifpp_route_checks_late_total", line="L1", result="FAIL") == 1
    assert factory.unasked.refused("L1", START) == {str(eid_of(2)): "X"}
    assert factory.unasked.refused("L2", START) == {}


async def test_an_mes_that_was_corrected_is_asked_again(factory: GatedFactory, mind: Mind) -> None:
    take(factory, worked(1))
    eid = str(eid_of(1))
    with pytest.raises(CustodyError):
        factory.unasked.ask_again(eid, "anna", "why not", START)
    mind.answers = {eid: "FAIL"}
    await mind.rounds()
    assert factory.unasked.ask_again(eid, "anna", "the step was booked late", START) == 1
    assert later(factory, 1) == [""]
    mind.answers = {eid: "PASS"}
    assert await mind.rounds() == 1
    assert gate(factory, 1) == ""
    assert len({one.request_id for one in mind.asked}) == 1, "the question stays the same"


async def test_what_has_no_answer_keeps_nothing_else_waiting(factory: GatedFactory, mind: Mind) -> None:
    take(factory, *(worked(seq) for seq in range(1, 6)))
    mind.answers = {str(eid_of(seq)): "PASS" for seq in (1, 2, 4, 5)} | {str(eid_of(3)): "ERROR"}
    await mind.rounds()
    assert [later(factory, seq) for seq in range(1, 6)] == [["PASS"], ["PASS"], [""], ["PASS"], ["PASS"]]
    mind.online = False
    assert await mind.rounds() == 0
    mind.online, mind.broken = True, True
    assert await mind.rounds() == 1
    mind.broken, mind.answers[str(eid_of(3))] = False, "SKIPPED"
    await mind.rounds()
    assert later(factory, 3) == ["SKIPPED"]


async def test_the_next_supervisor_asks_what_the_last_one_could_not(
    tmp_path: Path, factory: GatedFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_ROUND_S", 0.05)
    monkeypatch.setattr(alarm_watch, "_ROUND_S", 0.05)
    monkeypatch.setattr(alarm_watch, "_AGAINST_ROUTE_S", 0.0)
    factory.add_job(JOB)
    stock(factory, 1)
    async with running(tmp_path) as broker:
        site = msgspec.structs.replace(site_at(broker.port), mes=Mes(enabled=True))
        station = Station(broker.port)
        station.outbox[1] = worked(1)
        (event,) = [msgspec.json.decode(station.outbox[1], type=UnitResultEvent)]
        async with Plant(broker.port).up() as mes, station.up():

            def asked() -> list[RouteCheck]:
                return [msgspec.json.decode(body, type=RouteCheck) for body in mes.payloads(ASK)]

            def alarms() -> dict[str, str]:
                said = msgspec.json.decode(mes.payloads(TOPICS.alarms(LINE_NODE))[-1], type=ActiveAlarms)
                return {one.source: one.state for one in said.alarms.values() if one.code == "A-122"}

            async with supervised(site, factory):
                await station.send(1, name="unit_result")
                await until(lambda: len(asked()) == 1)
            async with supervised(site, factory) as supervisor:
                await until(lambda: len(asked()) == 2)
                assert {one.request_id for one in asked()} == {event.id}
                await mes.say(asked()[-1], "FAIL", code="ROUTE", text="it belongs to bin 7")
                await until(lambda: alarms() == {f"_line/{eid_of(1)}": "UNACK_ALARM"})
                standing = supervisor.value("ifpp_alarm_standing", code="A-122", priority="2")
        assert standing == 1
    assert gate(factory, 1) == "GATE.ROUTE"
    assert later(factory, 1) == ["FAIL"]
