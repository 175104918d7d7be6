"""Heads that are taken out of work: by themselves, by people, over a restart; and nothing of a unit is lost by it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from ifpp.model.messages import HeadAnswer, HeadCommand, OperatorAction
from ifpp.model.states import Lamp, PackageState, Phase
from ifpp.settings import Life
from ifpp.sim.fleet import Fleet
from ifpp.sim.world import JobPlan, build_world
from ifpp.station.commands import BLOCK_HEAD, CHANGE_SOCKET
from ifpp.station.edges import Edge
from ifpp.store.records import ReceivedEvent
from tests.station.shop import JOB, PATIENCE_S, Run, Shop, open_shop, shop, truth, world

__all__ = ["shop", "world"]

CLEAN = (1, 0, True)
S = PackageState


def ask(action: str = "BLOCK", head: str = "h01", by: str = "Anna", reason: str = "bent pin", **more: str) -> bytes:
    command = HeadCommand(
        schema="block_head/1.0", request_id=str(uuid4()), head_id=head, operator_id=by, action=action, reason=reason
    )
    return msgspec.json.encode(msgspec.structs.replace(command, **more))


async def tell(run: Run, command: bytes, name: str = BLOCK_HEAD) -> HeadAnswer:
    return await run.commands.obey(name, command)


def told(events: list[ReceivedEvent], schema: str, kind: type[msgspec.Struct]) -> list[object]:
    return [msgspec.json.decode(one.body, type=kind) for one in events if one.schema.startswith(f"{schema}/")]


async def until_phase(run: Run, head: str, phase: Phase) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while run.board.rows[head].phase is not phase:  # noqa: ASYNC110 - the board tells nobody
            await asyncio.sleep(0.005)


async def lose(run: Run, shop: Shop, number: int, cut: int = 12) -> None:
    """One unit loses contact once and is taken away."""
    run.socket.seat(shop.chip(number), cut=(cut, False), from_power_up=True)
    await run.socket.shows(Lamp.RESEAT)
    run.socket.take()
    await run.socket.shows(Lamp.OFF, Lamp.HOLD)


# ---- by itself ----------------------------------------------------------------------------------------


async def test_a_head_on_which_three_units_lose_contact_takes_no_fourth(shop: Shop) -> None:
    async with shop.start() as run:
        for number in range(3):
            await lose(run, shop, number)
        await until_phase(run, "h01", Phase.QUARANTINED)
        row = run.board.rows["h01"]
        assert (row.e10, row.code) == ("UDT", 5300)
        assert Lamp.OFF not in run.socket.lamps, "at no moment may it look free"
        run.socket.seat(shop.chip(3))
        await asyncio.sleep(0.6)
        assert shop.state(3) is S.AVAILABLE
        shown = run.board.head("h01")
        assert (shown.blocked, shown.cycles, shown.alarms) == (True, 3, ["A-110"])
        assert shown.reason == "A-110: 3 different units in a row lost contact"
        metrics = {"line": "L1", "station": "st01", "head": "h01"}
        assert run.metrics.value("ifpp_head_quarantined", **metrics) == 1
        assert run.metrics.value("ifpp_contact_failures_total", **metrics) == 3
        assert run.metrics.value("ifpp_insertions_total", **metrics) == 3


async def test_a_mute_unit_is_asked_for_again_as_often_as_any_other_and_then_put_aside(shop: Shop) -> None:
    """It never says who it is: its head remembers that it is the one that was to be seated again."""
    async with shop.start() as run:
        for expected in (Lamp.RESEAT, Lamp.RESEAT, Lamp.FAIL):
            run.socket.seat(shop.chip(), cut=(1, False), from_power_up=True)
            assert await run.socket.shows(Lamp.RESEAT, Lamp.FAIL, Lamp.HOLD) is expected
            run.socket.take()
            await run.socket.shows(Lamp.OFF)
        assert run.board.head("h01").contact_units == 1
        assert await run.load(shop.chip(1)) is Lamp.PASS


async def test_contact_lost_in_a_load_is_the_heads_failure_and_the_unit_is_settled_elsewhere(shop: Shop) -> None:
    chips = [shop.chip(number) for number in range(3)]
    async with shop.start(heads=2) as run:
        for number, chip in enumerate(chips):
            run.sockets[0].seat(chip, cut=(5 + number, True))
            await run.sockets[0].shows(Lamp.RESEAT)
            run.sockets[0].take()
            await run.sockets[0].shows(Lamp.OFF, Lamp.HOLD)
        await until_phase(run, "h01", Phase.QUARANTINED)
        await run.supervise()
        assert {shop.state(number) for number in range(3)} == {S.UNKNOWN}
        for chip in chips:
            run.sockets[1].seat(chip)
            assert await run.sockets[1].shows(Lamp.PASS, Lamp.RESEAT, Lamp.FAIL, Lamp.HOLD) is Lamp.PASS
            run.sockets[1].take()
            await run.sockets[1].shows(Lamp.OFF)
        await run.supervise()
        assert await run.held() == {}
    assert [truth(chip) for chip in chips] == [CLEAN] * 3


async def test_a_quarantine_outlives_the_process_and_ends_by_a_person(shop: Shop) -> None:
    async with shop.start() as run:
        for number in range(3):
            await lose(run, shop, number)
        await until_phase(run, "h01", Phase.QUARANTINED)
    async with shop.start() as run:
        await until_phase(run, "h01", Phase.QUARANTINED)
        assert await run.socket.shows(Lamp.HOLD, Lamp.OFF) is Lamp.HOLD
        run.socket.seat(shop.chip(0))
        answer = await tell(run, ask("UNBLOCK", reason="socket cleaned"))
        assert (answer.status, answer.code) == ("ACCEPTED", "")
        assert await run.socket.shows(Lamp.PASS, Lamp.FAIL, Lamp.RESEAT) is Lamp.PASS
        events = await run.supervise()
        (action,) = told(events, "operator_action", OperatorAction)
        assert isinstance(action, OperatorAction)
        assert (action.action, action.operator_id, action.target) == ("UNBLOCK_HEAD", "Anna", "h01")
        assert run.board.head("h01").alarms == []
    async with shop.start() as run:
        await run.socket.shows(Lamp.OFF)
        assert run.board.head("h01").cycles == 4


# ---- by people ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [Edge.CLAIMED, Edge.JOURNALLED, Edge.ANSWERED, Edge.CLOSING])
async def test_a_head_that_is_blocked_while_a_unit_is_seated_finishes_it_first(shop: Shop, edge: Edge) -> None:
    asked: list[asyncio.Task[HeadAnswer]] = []

    def at_edge(passed: Edge) -> None:
        if passed is edge and not asked:
            asked.append(asyncio.get_running_loop().create_task(tell(run, ask())))

    chip = shop.chip()
    async with shop.start(at_edge) as run:
        run.socket.seat(chip)
        assert await run.socket.shows(Lamp.PASS, Lamp.FAIL, Lamp.HOLD, Lamp.RESEAT) is Lamp.PASS
        assert (await asked[0]).status == "ACCEPTED"
        assert run.board.head("h01").blocked
        run.socket.take()
        assert await run.socket.shows(Lamp.HOLD, Lamp.OFF) is Lamp.HOLD
        assert run.board.rows["h01"].phase is Phase.QUARANTINED
        await run.supervise()
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED
    assert shop.record().clean_to_ship_at is not None


async def test_the_same_request_twice_is_carried_out_once_also_after_a_restart(shop: Shop) -> None:
    command = ask()
    async with shop.start() as run:
        first, again = await tell(run, command), await tell(run, command)
        assert (first.status, again.status) == ("ACCEPTED", "DUPLICATE")
        await tell(run, ask("UNBLOCK", reason="was a mistake"))
        assert (await tell(run, command)).status == "DUPLICATE"
        assert not run.board.head("h01").blocked, "a repeated command does not come back to life"
    async with shop.start() as run:
        assert (await tell(run, command)).status == "DUPLICATE"
        await run.socket.shows(Lamp.OFF)
        actions = told(await run.supervise(), "operator_action", OperatorAction)
        assert [one.action for one in actions if isinstance(one, OperatorAction)] == ["BLOCK_HEAD", "UNBLOCK_HEAD"]


async def test_a_head_is_taken_out_of_work_while_the_journal_cannot_be_written_and_that_is_recorded_later(
    shop: Shop,
) -> None:
    async with shop.start() as run:
        await run.socket.shows(Lamp.OFF)
        command = ask()
        with closing(sqlite3.connect(shop.path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            answer = await tell(run, command)
            assert (answer.status, answer.code) == ("ACCEPTED", "JOURNAL.WRITE")
            assert run.board.head("h01").blocked
            assert (await tell(run, command)).status == "DUPLICATE"
            holder.execute("ROLLBACK")
        async with asyncio.timeout(PATIENCE_S):
            while run.gate.refusing:  # noqa: ASYNC110 - the gate tells its opening, not that it is over
                await asyncio.sleep(0.005)
        assert len(told(await run.supervise(), "operator_action", OperatorAction)) == 1
    async with shop.start() as run:
        await until_phase(run, "h01", Phase.QUARANTINED)


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        (ask("UNBLOCK", by=""), BLOCK_HEAD, "OPERATOR.UNNAMED"),
        (ask("UNBLOCK", by="  \u00a0"), BLOCK_HEAD, "OPERATOR.UNNAMED"),
        (ask("UNBLOCK", by="\x1b[2J"), BLOCK_HEAD, "OPERATOR.UNNAMED"),
        (ask("UNBLOCK", by="x" * 65), BLOCK_HEAD, "OPERATOR.UNNAMED"),
        (ask("", by=" "), CHANGE_SOCKET, "OPERATOR.UNNAMED"),
        (ask("UNBLOCK", reason=" "), BLOCK_HEAD, "OPERATOR.NO_REASON"),
        (ask("UNBLOCK", head="h99"), BLOCK_HEAD, "HEAD.UNKNOWN"),
        (ask("EXPLODE"), BLOCK_HEAD, "COMMAND.INVALID"),
        (ask("BLOCK"), CHANGE_SOCKET, "COMMAND.INVALID"),
        (ask("UNBLOCK", request_id="1"), BLOCK_HEAD, "COMMAND.INVALID"),
        (ask("UNBLOCK", request_id="{" + str(uuid4()) + "}"), BLOCK_HEAD, "COMMAND.INVALID"),
    ],
)
async def test_what_nobody_signs_or_nobody_can_mean_changes_nothing(
    shop: Shop, command: bytes, name: str, code: str
) -> None:
    async with shop.start() as run:
        await tell(run, ask())
        answer = await tell(run, command, name)
        assert (answer.status, answer.code) == ("REJECTED", code)
        assert run.board.head("h01").reason == "BY_HAND: bent pin"
        assert len(told(await run.supervise(), "operator_action", OperatorAction)) == 1


async def test_a_new_socket_is_noted_and_its_insertions_count_from_zero(shop: Shop) -> None:
    async with shop.start(life=Life(socket_cycles_due=2)) as run:
        for number in range(2):
            assert await run.load(shop.chip(number)) is Lamp.PASS
        shown = run.board.head("h01")
        assert (shown.cycles, shown.maintenance_due, shown.alarms) == (2, True, ["A-113"])
        assert run.metrics.value("ifpp_maintenance_due", line="L1", station="st01", head="h01") == 1
        answer = await tell(run, ask(""), CHANGE_SOCKET)
        assert answer.text == "new socket noted, the old one had 2 insertions"
        assert answer.head is not None
        assert (answer.head.cycles, answer.head.maintenance_due, answer.head.alarms) == (0, False, [])
    async with shop.start() as run:
        assert await run.load(shop.chip(2)) is Lamp.PASS
        assert run.board.head("h01").cycles == 1


# ---- a worn socket in a fixture -----------------------------------------------------------------------

UNITS = 18


@pytest.fixture
async def big_shop(tmp_path: Path) -> AsyncIterator[Shop]:
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"])]
    made = build_world(tmp_path / "world", units=UNITS, seed=11, jobs=plan, profile_kb=(4, 5))
    async with open_shop(tmp_path, made) as opened:
        yield opened


async def test_a_robot_run_with_a_worn_socket_ends_with_that_head_out_of_work_and_every_unit_done(
    big_shop: Shop, tmp_path: Path
) -> None:
    fleet = Fleet(big_shop.world.directory, ["st01"], slots=4, apdu_ms=0, handling_ms=5, reseats=9, worn={"h03": 1.0})
    heads = (await fleet.start())["st01"]
    ports = {head: told["port"] for head, told in heads.items()}
    try:
        async with big_shop.start(ports=ports, life=Life(contact_streak=1)) as run:
            async with asyncio.timeout(40):
                await fleet.work()
            await run.supervise()
            blocked = {head: run.board.head(head).reason for head in heads if run.board.head(head).blocked}
            assert list(blocked) == ["h03"]
            assert blocked["h03"].startswith("A-110")
    finally:
        fleet.finish(tmp_path / "fleet.json")
    units = json.loads((tmp_path / "fleet.json").read_bytes())["units"]
    assert {unit["bin"] for unit in units} == {"pass"}
    assert {unit["slot"] for unit in units} == {"h01", "h02", "h04"}
    assert {big_shop.state(number) for number in range(UNITS)} == {S.INSTALLED}
