"""A person stops the intake of units: seated ones are finished, no other is taken, also after a restart."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec

from ifpp.model.messages import HeadAnswer, HeadCommand, OperatorAction
from ifpp.model.states import Lamp, PackageState, Phase
from ifpp.station.commands import LOCK, UNLOCK
from ifpp.station.edges import Edge
from tests.station.shop import PATIENCE_S, Run, Shop, shop, world

__all__ = ["shop", "world"]


def ask(name: str, by: str = "Anna", reason: str = "end of shift") -> bytes:
    command = HeadCommand(schema=f"{name}/1.0", request_id=str(uuid4()), operator_id=by, reason=reason)
    return msgspec.json.encode(command)


async def until_phase(run: Run, phase: Phase) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while run.board.rows["h01"].phase is not phase:  # noqa: ASYNC110 - the board tells nobody
            await asyncio.sleep(0.005)


async def test_no_unit_is_taken_while_the_intake_is_stopped_also_after_a_restart(shop: Shop) -> None:
    async with shop.start() as run:
        await run.socket.shows(Lamp.OFF)
        answer = await run.commands.obey(LOCK, ask(LOCK))
        assert (answer.status, answer.text) == ("ACCEPTED", "takes no new units; seated ones are finished")
        assert (run.gate.refusing, run.lock.reason) == ("STATION.LOCKED", "Anna: end of shift")
    async with shop.start() as run:
        await until_phase(run, Phase.REFUSING)
        assert (run.board.rows["h01"].e10, run.lock.reason) == ("SBY", "Anna: end of shift")
        run.socket.seat(shop.chip())
        await asyncio.sleep(0.6)
        assert shop.state() is PackageState.AVAILABLE
        assert (await run.commands.obey(UNLOCK, ask(UNLOCK, "Bob", ""))).status == "ACCEPTED"
        assert await run.socket.shows(Lamp.PASS, Lamp.FAIL, Lamp.RESEAT) is Lamp.PASS
        events = [
            msgspec.json.decode(one.body, type=OperatorAction)
            for one in await run.supervise()
            if one.schema.startswith("operator_action/")
        ]
        assert [(one.action, one.operator_id, one.target) for one in events] == [
            ("LOCK", "Anna", "st01"),
            ("UNLOCK", "Bob", "st01"),
        ]
    async with shop.start() as run:
        await run.socket.shows(Lamp.OFF)
        assert run.lock.reason is None


async def test_a_unit_that_is_seated_is_finished(shop: Shop) -> None:
    asked: list[asyncio.Task[HeadAnswer]] = []

    def at_edge(passed: Edge) -> None:
        if passed is Edge.JOURNALLED and not asked:
            asked.append(asyncio.get_running_loop().create_task(run.commands.obey(LOCK, ask(LOCK))))

    async with shop.start(at_edge) as run:
        run.socket.seat(shop.chip())
        assert await run.socket.shows(Lamp.PASS, Lamp.FAIL, Lamp.HOLD, Lamp.RESEAT) is Lamp.PASS
        assert (await asked[0]).status == "ACCEPTED"
        run.socket.take()
        await until_phase(run, Phase.REFUSING)


async def test_it_wants_a_name_and_stopping_a_reason_and_twice_is_once(shop: Shop) -> None:
    async with shop.start() as run:
        await run.socket.shows(Lamp.OFF)
        assert (await run.commands.obey(LOCK, ask(LOCK, reason=" "))).code == "OPERATOR.NO_REASON"
        assert (await run.commands.obey(LOCK, ask(LOCK, by=""))).code == "OPERATOR.UNNAMED"
        assert run.lock.reason is None
        command = ask(LOCK)
        assert (await run.commands.obey(LOCK, command)).status == "ACCEPTED"
        assert (await run.commands.obey(UNLOCK, ask(UNLOCK))).status == "ACCEPTED"
        assert (await run.commands.obey(LOCK, command)).status == "DUPLICATE"
        assert run.lock.reason is None
