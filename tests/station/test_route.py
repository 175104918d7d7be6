"""The route check at a head: what each policy makes of an answer, of none, and of a refusal; what a unit used up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ifpp.errors import ServiceError
from ifpp.model.mes import Material, RouteAnswer, RouteCheck
from ifpp.model.messages import UnitResultEvent
from ifpp.model.states import Lamp, PackageState
from ifpp.station import route as module
from ifpp.station.board import CODE_NO_HOST
from ifpp.station.floor import Floor
from ifpp.station.route import Route
from ifpp.store.records import ReceivedEvent
from tests.bus.node import until
from tests.station.shop import JOB, Shop, shop, truth, world
from tests.station.test_head import CLEAN, results

__all__ = ["shop", "world"]

Answer = Callable[[RouteCheck], RouteAnswer | None]


def says(result: str, **fields: Any) -> Answer:
    return lambda ask: RouteAnswer(schema="route_check/1.0", request_id=ask.request_id, result=result, **fields)


def nothing(_ask: RouteCheck) -> None:
    return None


class Line:
    """The line's side of route checks; `answer` may change at any time."""

    def __init__(self, answer: Answer, deadline_ms: int = 40) -> None:
        self.answer = answer
        self.asked: list[RouteCheck] = []
        self.route = Route(self.send, deadline_ms=deadline_ms)

    async def send(self, document: bytes) -> None:
        ask = msgspec.json.decode(document, type=RouteCheck)
        self.asked.append(ask)
        answer = self.answer(ask)
        if answer is not None:
            self.route.hear(msgspec.json.encode(answer))


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer, str], Line]:
    """Give every head of the test this line, and its job this policy."""

    def install(answer: Answer, policy: str) -> Line:
        made = Line(answer)
        real = Floor.__init__

        def init(self: Floor, **fields: Any) -> None:
            real(self, **fields, route=made.route)

        async def soon(_clock: object, _seconds: float, until: asyncio.Event) -> bool:
            await asyncio.sleep(0.01)
            return until.is_set()

        monkeypatch.setattr(Floor, "__init__", init)
        monkeypatch.setattr(module, "pause", soon)
        monkeypatch.setattr("tests.station.shop.JOB", msgspec.structs.replace(JOB, route_policy=policy))
        return made

    return install


Install = Callable[[Answer, str], Line]


def told(events: list[ReceivedEvent]) -> list[Material]:
    return [msgspec.json.decode(e.body, type=Material) for e in events if e.schema.startswith("material/")]


async def judged(shop: Shop) -> tuple[Lamp, UnitResultEvent]:
    chip = shop.chip()
    async with shop.start() as run:
        lamp = await run.load(chip)
        (result,) = results(await run.supervise())
    return lamp, result


@pytest.mark.parametrize("policy", ["BLOCK", "CACHE", "ALLOW_AND_RECONCILE", "A_WORD_OF_TOMORROW"])
async def test_what_the_mes_allows_is_made(shop: Shop, line: Install, policy: str) -> None:
    mes = line(says("PASS"), policy)
    lamp, result = await judged(shop)
    assert lamp is Lamp.PASS
    assert result.route_check is not None
    assert (result.route_check.result, result.route_check.source) == ("PASS", "MES")
    (ask,) = mes.asked
    assert (ask.unit.eid, ask.head_id, ask.job_order_id) == (shop.eid(), "h01", JOB.job_order_id)
    assert ask.request_id == result.route_check.request_id


@pytest.mark.parametrize("policy", ["BLOCK", "CACHE", "ALLOW_AND_RECONCILE"])
async def test_what_the_mes_refuses_is_not_touched_and_the_head_goes_on(shop: Shop, line: Install, policy: str) -> None:
    mes, chip = line(says("FAIL", code="ROUTE", text="to bin 7"), policy), shop.chip()
    before = truth(chip)
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.FAIL
        (result,) = results(await run.supervise())
        assert truth(chip) == before
        assert run.board.verdicts[0] == ("h01", shop.eid(), "ROUTE.REFUSED"), "what rings A-121"
        assert shop.state() is PackageState.AVAILABLE, "nothing was claimed"
        mes.answer = says("PASS")
        assert await run.load(chip) is Lamp.PASS
    (defect,) = result.defects
    assert defect.code == "ROUTE.REFUSED"
    assert "bin 7" in defect.text
    assert truth(chip) == CLEAN


async def test_with_off_nobody_is_asked(shop: Shop, line: Install) -> None:
    mes = line(nothing, "OFF")
    lamp, result = await judged(shop)
    assert (lamp, result.route_check, mes.asked) == (Lamp.PASS, None, [])


@pytest.mark.parametrize("policy", ["BLOCK", "CACHE"])
async def test_without_an_answer_the_unit_waits_and_only_its_head(shop: Shop, line: Install, policy: str) -> None:
    first, other = shop.chip(0), shop.chip(1)
    mes = line(lambda ask: None if ask.head_id == "h01" else says("PASS")(ask), policy)
    async with shop.start(heads=2) as run:
        run.sockets[0].seat(first)
        await until(lambda: run.board.head("h01").code == CODE_NO_HOST)
        run.sockets[1].seat(other)
        assert await run.sockets[1].shows(Lamp.PASS) is Lamp.PASS
        assert shop.state() is PackageState.AVAILABLE
        mes.answer = says("PASS")
        assert await run.sockets[0].shows(Lamp.PASS) is Lamp.PASS
    asked = [ask.request_id for ask in mes.asked if ask.head_id == "h01"]
    assert max(map(asked.count, asked)) == 2, "once more at half time, with the same id"


async def test_a_station_that_stops_gives_a_waiting_unit_back(shop: Shop, line: Install) -> None:
    line(nothing, "BLOCK")
    async with shop.start() as run:
        run.socket.seat(shop.chip())
        await until(lambda: run.board.head("h01").code == CODE_NO_HOST)
    async with shop.start() as run:
        (result,) = results(await run.supervise())
    assert [defect.code for defect in result.defects] == ["HOST.TIMEOUT"]
    assert result.route_check is not None
    assert result.route_check.result == "ERROR"


async def test_allowed_without_an_answer_is_said_in_the_result(shop: Shop, line: Install) -> None:
    line(nothing, "ALLOW_AND_RECONCILE")
    lamp, result = await judged(shop)
    assert lamp is Lamp.PASS
    assert result.route_check is not None
    assert result.route_check.source == "OFF"


async def test_without_a_broker_nobody_is_waited_for(shop: Shop, line: Install) -> None:
    mes = line(nothing, "ALLOW_AND_RECONCILE")

    async def away(_document: bytes) -> None:
        raise ServiceError("BROKER.UNREACHABLE", "not connected")

    mes.route = Route(away, deadline_ms=600_000)
    lamp, result = await judged(shop)
    assert lamp is Lamp.PASS
    assert result.route_check is not None
    assert result.route_check.source == "OFF"


@pytest.mark.parametrize(("policy", "waits"), [("CACHE", False), ("BLOCK", True)])
async def test_what_the_line_remembers_counts_with_cache_alone(
    shop: Shop, line: Install, policy: str, waits: bool
) -> None:
    line(says("PASS", source="CACHE"), policy)
    async with shop.start() as run:
        run.socket.seat(shop.chip())
        if waits:
            await until(lambda: run.board.head("h01").code == CODE_NO_HOST)
            return
        assert await run.socket.shows(Lamp.PASS) is Lamp.PASS
        (result,) = results(await run.supervise())
    assert result.route_check is not None
    assert result.route_check.source == "CACHE"


@pytest.mark.parametrize("fields", [{"sku": "OTHER"}, {"sn": "SN-OTHER"}])
async def test_the_mes_means_another_unit(shop: Shop, line: Install, fields: dict[str, str]) -> None:
    line(says("PASS", **fields), "BLOCK")
    chip = shop.chip()
    async with shop.start() as run:
        if "sn" in fields:
            run.socket.sn = "SN-1"
        await run.load(chip)
        (result,) = results(await run.supervise())
    assert [defect.code for defect in result.defects] == ["UNIT.TRAVELLER"]


async def test_the_serial_number_of_the_mes_names_the_unit(shop: Shop, line: Install) -> None:
    line(says("PASS", sn="SN-77"), "BLOCK")
    _, result = await judged(shop)
    assert result.unit.sn == "SN-77"


async def test_a_late_answer_and_one_to_nobody_are_dropped() -> None:
    line = Line(nothing)
    line.route.hear(json.dumps({"schema": "route_check/1.0", "request_id": "gone", "result": "FAIL"}).encode())
    with pytest.raises(msgspec.MsgspecError):
        line.route.hear(b'{"result": 7}')


async def test_package_and_socket_are_told_with_the_result(shop: Shop, line: Install) -> None:
    line(says("PASS"), "BLOCK")
    async with shop.start() as run:
        await run.load(shop.chip())
        events = await run.supervise()
    (result,) = results(events)
    package, socket = told(events)
    assert (package.kind, package.ref, package.qty_used, package.qty_spoiled) == (
        "BPP",
        result.profiles[0].bpp_sha256,
        1,
        0,
    )
    assert (socket.kind, socket.ref, socket.remaining) == ("SOCKET", "st01/h01", 99_999)
    kinds = [event.schema.partition("/")[0] for event in events]
    at = kinds.index("unit_result")
    assert kinds[at : at + 3] == ["unit_result", "material", "material"]
