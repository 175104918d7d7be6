"""Route checks through a real broker and supervisor: passed on, repeated alike, remembered, never late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ifpp.model.alarms import ActiveAlarms
from ifpp.model.mes import RouteAnswer, RouteCheck, Stock
from ifpp.model.messages import Online, Recipe, UnitRef
from ifpp.settings import Mes
from ifpp.store.records import TravellerItem
from tests.bus.node import TOPICS, Node, until
from tests.line.world import JOB, GatedFactory, Running, eid_of, site_at, stock, supervised
from tests.real.mosquitto import running

L, S = f"{TOPICS.base}/_line", f"{TOPICS.base}/st01"
ASK, SAY = f"{L}/req/route_check", f"{L}/req_rsp/route_check"


class Head(Node):
    """A station that asks."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "st01", [f"{S}/req_rsp/route_check"])

    async def ask(self, number: int = 1, *, deadline_ms: int = 60_000, **changes: Any) -> RouteCheck:
        question = RouteCheck(
            schema="route_check/1.0",
            request_id=str(uuid4()),
            unit=UnitRef(eid=str(eid_of(number))),
            operation="PROFILE_LOAD",
            station_id="st01",
            head_id="h01",
            job_order_id="JO-1",
            recipe=Recipe(name="load"),
            deadline_ms=deadline_ms,
        )
        question = msgspec.structs.replace(question, **changes)
        await self.again(question)
        return question

    async def again(self, question: RouteCheck) -> None:
        await self.client.publish(f"{S}/req/route_check", msgspec.json.encode(question))

    def answers(self, question: RouteCheck) -> list[RouteAnswer]:
        found = [msgspec.json.decode(body, type=RouteAnswer) for body in self.payloads(f"{S}/req_rsp/route_check")]
        return [one for one in found if one.request_id == question.request_id]

    async def answer(self, question: RouteCheck, count: int = 1) -> RouteAnswer:
        await until(lambda: len(self.answers(question)) >= count)
        return self.answers(question)[count - 1]


class Plant(Node):
    """An MES that answers when a test says so."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "_mes", [ASK, f"{L}/state/stock", f"{L}/state/alarms"])

    async def asked(self, question: RouteCheck, count: int = 1) -> None:
        def ids() -> list[str]:
            return [msgspec.json.decode(body, type=RouteCheck).request_id for body in self.payloads(ASK)]

        await until(lambda: ids().count(question.request_id) >= count)

    async def say(self, question: RouteCheck, result: str, **fields: Any) -> None:
        answer = RouteAnswer(schema="route_check/1.0", request_id=question.request_id, result=result, **fields)
        await self.client.publish(SAY, msgspec.json.encode(answer))


@asynccontextmanager
async def plant(folder: Path, factory: GatedFactory) -> AsyncIterator[tuple[Head, Plant, Running]]:
    async with running(folder) as broker:
        site = msgspec.structs.replace(site_at(broker.port), mes=Mes(enabled=True))
        async with (
            supervised(site, factory) as supervisor,
            Plant(broker.port).up() as mes,
            Head(broker.port).up() as head,
        ):
            yield head, mes, supervisor


def violations(supervisor: Running, reason: str) -> float:
    return supervisor.value("ifpp_contract_violation_total", schema="route_check", reason=reason)


async def test_question_and_answer_are_passed_on(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (head, mes, supervisor):
        question = await head.ask()
        await mes.asked(question)
        await mes.say(question, "FAIL", code="ROUTE", text="to bin 7", source="OFF")
        answer = await head.answer(question)
        assert supervisor.value("ifpp_route_checks_total", result="FAIL", source="MES") == 1
    assert (answer.result, answer.text, answer.source) == ("FAIL", "to bin 7", "MES")


async def test_a_repeated_question_is_answered_alike_and_asked_once(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (head, mes, supervisor):
        question = await head.ask()
        await mes.asked(question)
        await mes.say(question, "PASS")
        first = await head.answer(question)
        await mes.say(question, "PASS")
        await mes.say(question, "FAIL", text="now I mean something else")
        await until(lambda: violations(supervisor, "contradiction") == 1)
        await head.again(question)
        assert await head.answer(question, 2) == first
        assert len(mes.payloads(ASK)) == 1


async def test_it_is_asked_once_more_at_half_time_and_then_an_error(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (head, mes, supervisor):
        question = await head.ask(deadline_ms=100)
        await mes.asked(question, 2)
        answer = await head.answer(question)
        assert (answer.result, answer.source, answer.code) == ("ERROR", "OFF", "HOST.TIMEOUT")
        await mes.say(question, "PASS")
        await until(lambda: violations(supervisor, "nobody_asked") == 1)
        assert len(mes.payloads(ASK)) == 2
        assert len(head.answers(question)) == 1


async def test_what_the_mes_allowed_is_remembered_and_what_it_refused_since_is_not(
    tmp_path: Path, factory: GatedFactory
) -> None:
    async with plant(tmp_path, factory) as (head, mes, _):
        for result, source in (("PASS", "CACHE"), ("FAIL", "OFF")):
            question = await head.ask()
            await mes.asked(question)
            await mes.say(question, result)
            await head.answer(question)
            later = await head.ask(deadline_ms=20)
            assert (await head.answer(later)).source == source
        question = await head.ask()
        await mes.asked(question)
        await mes.say(question, "PASS", valid_until="2020-01-01T00:00:00.000Z")
        await head.answer(question)
        later = await head.ask(deadline_ms=20)
        assert (await head.answer(later)).result == "ERROR"


async def test_more_than_three_unanswered_checks_are_an_alarm(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (head, mes, _):

        def codes() -> set[str]:
            said = [msgspec.json.decode(body, type=ActiveAlarms) for body in mes.payloads(f"{L}/state/alarms")]
            return {one.code for one in said[-1].alarms.values()} if said else set()

        for _number in range(3):
            await head.answer(await head.ask(deadline_ms=20))
        assert "A-120" not in codes()
        await head.answer(await head.ask(deadline_ms=20))
        await until(lambda: "A-120" in codes())


@pytest.mark.breaks_the_contract
async def test_travellers_of_the_job_are_its_list_and_an_mes_that_is_offline_is_not_waited_for(
    tmp_path: Path, factory: GatedFactory
) -> None:
    stock(factory, 2)
    with factory.intake("traveller", "units", "t" * 64, datetime.now(UTC)) as intake:
        intake.add_traveller(TravellerItem(sn="SN-1", sku="P-100", eid=str(eid_of(1)), job_order_id="JO-1"))
    async with plant(tmp_path, factory) as (head, mes, _):
        off = Online(schema="online/1.0", node_id="_mes", online=False, session=9, boot_id="b", ts="")
        await mes.client.publish(TOPICS.online("_mes"), msgspec.json.encode(off), retain=True)
        await mes.client.publish(SAY, b"{}")  # behind the word on its state: once counted, that was heard
        known, unknown, elsewhere = await head.ask(1), await head.ask(2), await head.ask(1, job_order_id="JO-2")
        assert (await head.answer(known)).source == "CACHE"
        assert (await head.answer(unknown)).result == "ERROR"
        assert (await head.answer(elsewhere)).result == "ERROR"


@pytest.mark.breaks_the_contract
async def test_what_breaks_the_contract_is_counted_and_nothing_stops(tmp_path: Path, factory: GatedFactory) -> None:
    async with plant(tmp_path, factory) as (head, mes, supervisor):
        lies = [b"", b"\xff", b"[" * 9000, b'{"request_id": 7}', b'"' + b"x" * 20_000 + b'"']
        for body in lies:
            await mes.client.publish(SAY, body)
        await head.ask(station_id="st02")
        await until(lambda: violations(supervisor, "schema") == len(lies) + 1)
        question = await head.ask()
        await mes.asked(question)
        await head.again(msgspec.structs.replace(question, head_id="h02"))
        await until(lambda: violations(supervisor, "schema") == len(lies) + 2)
        await mes.say(question, "MAYBE")
        assert (await head.answer(question)).result == "ERROR"


async def test_the_stock_of_open_jobs_is_retained(tmp_path: Path, factory: GatedFactory) -> None:
    factory.add_job(JOB)
    stock(factory, 3)
    async with plant(tmp_path, factory) as (_, mes, _supervisor):
        await until(lambda: bool(mes.payloads(f"{L}/state/stock")))
        document = msgspec.json.decode(mes.payloads(f"{L}/state/stock")[-1], type=Stock)
    job = document.jobs["JO-1"]
    assert (job.covered, job.uncovered, job.eids_known) == (3, 0, 3)
    assert job.expected_units == JOB.quantity
    assert job.profile_types["T"].have == min(3, JOB.quantity)
