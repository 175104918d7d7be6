"""One unit at a head: what lamp, journal, ledger and chip say when something goes wrong on its way."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.errors import ServiceError
from ifpp.model.messages import Claim, ClaimRequest, StateChanged, UnitResultEvent
from ifpp.model.states import Lamp, PackageState, Phase
from ifpp.settings import Outbox
from ifpp.station.edges import Edge
from ifpp.store.records import ReceivedEvent
from tests.real.small_disk import small_disk
from tests.station.records import numbered
from tests.station.shop import PATIENCE_S, Run, Shop, shop, truth, world

__all__ = ["shop", "world"]

CLEAN = (1, 0, True)
S = PackageState


def results(events: list[ReceivedEvent]) -> list[UnitResultEvent]:
    return [
        msgspec.json.decode(event.body, type=UnitResultEvent)
        for event in events
        if event.schema.startswith("unit_result/")
    ]


async def test_a_unit_passes(shop: Shop) -> None:
    chip = shop.chip()
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        (result,) = results(await run.supervise())
        assert await run.held() == {}
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED
    assert (result.result, result.clean_to_ship) == ("PASS", True)
    assert result.seal is not None
    assert result.seal.fpa_locked


async def test_every_edge_is_passed_in_its_order(shop: Shop) -> None:
    passed: list[Edge] = []
    async with shop.start(passed.append) as run:
        await run.load(shop.chip())
    assert passed == [edge for edge in Edge if edge not in (Edge.REMOVING, Edge.REMOVED)]  # those of a rework


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("apdu", [1, 10, 21, 22])  # the first block, one in the middle, the last, and the result
async def test_contact_lost_in_a_load_asks_for_a_reseat_at_once_and_the_same_package_passes(
    shop: Shop, apdu: int, executed: bool
) -> None:
    chip = shop.chip()
    async with shop.start() as run:
        run.socket.seat(chip, cut=(apdu, executed))
        assert await run.socket.shows(Lamp.RESEAT, Lamp.PASS, Lamp.FAIL) is Lamp.RESEAT
        held = await run.held()
        assert list(held) == [shop.eid()]
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        await run.supervise()
        assert shop.state() is S.UNKNOWN
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("apdu", [1, 4, 9, 12, 14, 37, 39, 41, 43, 45, 47])
async def test_contact_lost_anywhere_from_power_up_to_the_seal(shop: Shop, apdu: int, executed: bool) -> None:
    """Nobody knows what the chip made of the last command; the next seating finds out."""
    chip = shop.chip()
    async with shop.start() as run:
        run.socket.seat(chip, cut=(apdu, executed), from_power_up=True)
        assert await run.socket.shows(Lamp.PASS, Lamp.RESEAT, Lamp.FAIL, Lamp.HOLD) is Lamp.RESEAT
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        await run.supervise()
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED
    assert shop.record().clean_to_ship_at is not None


async def test_a_finished_unit_seated_again_before_the_books_know_passes_again(shop: Shop) -> None:
    """Its result was dropped by the chip and the store calls it sent: the journal still has the chip's word."""
    chip = shop.chip()
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        assert shop.state() is S.SENT
        assert await run.load(chip) is Lamp.PASS
        first, second = results(await run.supervise())
    assert (first.result, second.result) == ("PASS", "PASS")
    assert shop.state() is S.INSTALLED
    assert truth(chip) == CLEAN


@pytest.mark.parametrize("done", [False, True])
async def test_a_store_that_does_not_answer_the_intent_leaves_the_package_usable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """`done`: the store carried it out and only the answer was lost. Nothing was sent to the chip either way."""
    chip = shop.chip()
    async with shop.start() as run:
        tell = run.store.sent

        async def lost(package_id: str, attempt_id: str, station_id: str) -> None:
            if done:
                await tell(package_id, attempt_id, station_id)
            raise ServiceError("STORE.UNREACHABLE", "no answer")

        with monkeypatch.context() as patch:
            patch.setattr(run.store, "sent", lost)
            assert await run.load(chip) is Lamp.RESEAT
        (result,) = results(await run.supervise())
        assert [(row.package_state, row.key_consumed) for row in result.profiles] == [("FAILED", False)]
        assert shop.state() is S.FAILED
        assert await run.held() == {}
        assert truth(chip)[0] == 0
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
    assert shop.state() is S.INSTALLED
    assert truth(chip) == CLEAN


async def test_a_fault_of_our_own_in_the_middle_of_a_load_is_never_taken_for_nothing_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = shop.chip()

    def broken(*_arguments: Any) -> None:
        raise RuntimeError("a bug, after some bytes have left")

    async with shop.start() as run:
        with monkeypatch.context() as patch:
            patch.setattr("ifpp.station.cycle.load", broken)
            assert await run.load(chip) is Lamp.HOLD
        (result,) = results(await run.supervise())
        assert (result.outcome_class, result.disposition) == ("AMBIGUOUS", "HOLD")
        assert [row.package_state for row in result.profiles] == ["UNKNOWN"]
        assert shop.state() is S.UNKNOWN
        assert list(await run.held()) == [shop.eid()]
        assert await run.load(chip) is Lamp.PASS
        assert await run.held() == {}


async def test_a_chip_lost_while_the_store_is_away_asks_for_a_reseat_and_leaves_no_lease(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim that nobody waits for any more is given back, also when the store carries it out late."""
    chip = shop.chip()
    async with shop.start() as run:
        claim = run.store.claim

        async def lost(request: ClaimRequest) -> Claim:
            await claim(request)
            raise ServiceError("STORE.UNREACHABLE", "no answer")

        with monkeypatch.context() as patch:
            patch.setattr(run.store, "claim", lost)
            run.socket.seat(chip, cut=(8, False), from_power_up=True)
            await run.socket.shows(Lamp.RESEAT)
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        assert shop.state() is S.AVAILABLE
        assert await run.load(chip) is Lamp.PASS


# ---- a journal that cannot be written -----------------------------------------------------------------


class Lock:
    """Takes the write lock of a journal at an edge; `release` gives it back."""

    def __init__(self, shop: Shop, edge: Edge | None) -> None:
        self._shop = shop
        self._edge = edge
        self._holder: sqlite3.Connection | None = None

    def __call__(self, edge: Edge) -> None:
        if edge is self._edge and self._holder is None:
            self.take()

    def take(self) -> None:
        self._holder = sqlite3.connect(self._shop.path, isolation_level=None)
        self._holder.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        assert self._holder is not None
        self._holder.execute("ROLLBACK")
        self._holder.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for changes in another thread
            await asyncio.sleep(0.01)


def phases(run: Run) -> list[Phase]:
    return [row.phase for row in run.board.rows.values()]


async def test_green_means_stored(shop: Shop) -> None:
    """The verdict waits for its record: HOLD until then, on every head; then each shows what is true."""
    lock, chip = Lock(shop, Edge.CLOSING), shop.chip()
    async with shop.start(lock, heads=2) as run:
        run.socket.seat(chip)
        await run.socket.shows(Lamp.HOLD)
        assert truth(chip) == CLEAN  # done, and nobody may say so yet
        await run.sockets[1].shows(Lamp.HOLD)
        assert phases(run) == [Phase.NOT_STORED, Phase.REFUSING]
        assert run.gate.refusing == "JOURNAL.WRITE"
        assert "JOURNAL.WRITE" in run.gate.attention
        run.sockets[1].seat(shop.chip(1))
        await asyncio.sleep(0.1)
        assert shop.state(1) is S.AVAILABLE  # nothing is claimed
        assert run.sockets[1].lamps == []
        lock.release()
        await run.socket.shows(Lamp.PASS)
        await run.sockets[1].shows(Lamp.PASS)
        assert run.gate.refusing == ""
        told = results(await run.supervise())
    assert [result.result for result in told] == ["PASS", "PASS"]
    assert [result.attempt for result in told] == [1, 1]
    assert [shop.state(0), shop.state(1)] == [S.INSTALLED, S.INSTALLED]


async def test_the_times_of_a_station_that_refused_are_told_afterwards(shop: Shop) -> None:
    lock = Lock(shop, Edge.CLOSING)
    async with shop.start(lock, heads=2) as run:
        run.socket.seat(shop.chip())
        await until(lambda: phases(run) == [Phase.NOT_STORED, Phase.REFUSING])
        shop.clock.advance(100)
        lock.release()
        await run.socket.shows(Lamp.PASS)
        await run.sockets[1].shows(Lamp.OFF)
        await asyncio.wrap_future(run.journal.events([]).stored)
        events = await run.supervise()
    changes = [
        msgspec.json.decode(event.body, type=StateChanged)
        for event in events
        if event.schema.startswith("state_changed/")
    ]
    second = [
        (change.old, change.new, change.new_code, change.reason) for change in changes if change.resource == "h02"
    ]
    assert second == [("SBY", "UDT", 5300, "JOURNAL.WRITE"), ("UDT", "SBY", 2202, "")]
    assert [change.old_duration_ms for change in changes if change.resource == "h02"][1] == 100_000


@pytest.mark.parametrize(
    ("edge", "lamp"),
    [
        (None, Lamp.RESEAT),  # before the unit is seated: it is not even claimed
        (Edge.CLAIMED, Lamp.RESEAT),  # the intent cannot be written: nothing is sent
        (Edge.INTENDING, Lamp.RESEAT),
        (Edge.JOURNALLED, Lamp.PASS),  # sent already: the unit goes its way, its record waits
        (Edge.ANSWERED, Lamp.PASS),
        (Edge.SETTLED, Lamp.PASS),
        (Edge.SEALED, Lamp.PASS),
    ],
)
async def test_trouble_at_any_edge_ends_in_the_true_verdict(shop: Shop, edge: Edge | None, lamp: Lamp) -> None:
    lock, chip = Lock(shop, edge), shop.chip()
    async with shop.start(lock) as run:
        if edge is None:
            lock.take()
        run.socket.seat(chip)
        await run.socket.shows(Lamp.HOLD)
        assert phases(run) == [Phase.NOT_STORED]
        assert truth(chip) == (CLEAN if lamp is Lamp.PASS else (0, 3, False))
        lock.release()
        assert await run.socket.shows(Lamp.PASS, Lamp.RESEAT, Lamp.FAIL) is lamp
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        await run.supervise()
        if lamp is Lamp.RESEAT:
            assert shop.state() is S.AVAILABLE
            assert await run.load(chip) is Lamp.PASS
            await run.supervise()
        assert await run.held() == {}
    assert shop.state() is S.INSTALLED
    assert truth(chip) == CLEAN


async def test_a_disk_that_is_full_when_the_verdict_comes(shop: Shop, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kb=1024) as disk:
        shop.path = disk.folder / "journal.db"
        chip, passed = shop.chip(), 0

        def fill(edge: Edge) -> None:
            nonlocal passed
            passed += edge is Edge.CLOSING
            if edge is Edge.CLOSING and passed == 1:
                disk.fill()

        async with shop.start(fill) as run:
            run.socket.seat(chip)
            await run.socket.shows(Lamp.HOLD)
            assert phases(run) == [Phase.NOT_STORED]
            assert run.gate.refusing == "JOURNAL.WRITE"
            disk.clear()
            await run.socket.shows(Lamp.PASS)
            (result,) = results(await run.supervise())
        assert (result.result, result.clean_to_ship) == ("PASS", True)
        assert truth(chip) == CLEAN


async def test_a_unit_taken_out_before_its_record_is_stored_lends_its_verdict_to_no_other(shop: Shop) -> None:
    lock = Lock(shop, Edge.CLOSING)
    async with shop.start(lock) as run:
        run.socket.seat(shop.chip(0))
        await run.socket.shows(Lamp.HOLD)
        run.socket.take()
        blank = shop.chip(1)
        run.socket.seat(blank)
        await asyncio.sleep(0.6)  # the head looks every half second
        assert run.socket.lamps == []
        lock.release()
        await run.socket.shows(Lamp.BUSY)
        shown = list(run.socket.lamps)
        await run.socket.shows(Lamp.PASS)
        await run.supervise()
    assert shown == [Lamp.OFF, Lamp.BUSY]  # no PASS before the second unit was worked on
    assert truth(blank) == CLEAN
    assert [shop.state(0), shop.state(1)] == [S.INSTALLED, S.INSTALLED]


async def test_a_station_stopped_before_the_record_is_stored_tells_it_at_the_next_start(shop: Shop) -> None:
    lock, chip = Lock(shop, Edge.SEALED), shop.chip()
    async with shop.start(lock) as run:
        run.socket.seat(chip)
        await run.socket.shows(Lamp.HOLD)
    assert run.socket.lamps[-1] is Lamp.HOLD
    lock.release()
    async with shop.start() as run:
        assert list(await run.held()) == [shop.eid()]
        (told,) = results(await run.supervise())
        assert (told.result, told.outcome_class, told.disposition) == ("ERROR", "AMBIGUOUS", "HOLD")
        assert [row.package_state for row in told.profiles] == ["INSTALLED"]  # the chip's word was written
        assert shop.state() is S.INSTALLED
        assert await run.load(chip) is Lamp.PASS
        assert await run.held() == {}
        await run.supervise()
    assert shop.record().clean_to_ship_at is not None


async def test_a_unit_seated_the_moment_the_gate_shuts_is_refused(shop: Shop) -> None:
    async with shop.start() as run:
        await run.socket.watched()
        run.gate.note("OUTBOX.FULL", "by the test", shuts=True)
        run.socket.seat(shop.chip())
        assert await run.socket.shows(Lamp.HOLD, Lamp.BUSY) is Lamp.HOLD
        assert Lamp.BUSY not in run.socket.lamps
        run.gate.clear("OUTBOX.FULL")
        await run.socket.shows(Lamp.PASS)


async def test_a_full_outbox_lets_no_unit_in_until_there_is_room(shop: Shop) -> None:
    async with shop.start(outbox=Outbox(capacity=100)) as run:
        await asyncio.wrap_future(run.journal.events(numbered(*range(101))).stored)
        await run.watch.look()
        await run.socket.shows(Lamp.HOLD)
        row = run.board.rows["h01"]
        assert (row.phase, row.e10, row.code) == (Phase.REFUSING, "SBY", 2500)  # line contract 4.3
        run.socket.seat(shop.chip())
        await asyncio.sleep(0.1)
        assert shop.state() is S.AVAILABLE
        await asyncio.wrap_future(run.journal.acknowledge(101, []))
        await run.watch.look()
        await run.socket.shows(Lamp.PASS)


def stored(shop: Shop, query: str) -> list[Any]:
    with closing(sqlite3.connect(shop.path)) as reader:
        return reader.execute(query).fetchall()


async def test_a_closed_unit_leaves_no_will(shop: Shop) -> None:
    async with shop.start() as run:
        await run.load(shop.chip())
    assert stored(shop, "SELECT count(*) FROM will") == [(0,)]
    assert stored(shop, "SELECT state, spent, pir IS NOT NULL FROM package") == [("INSTALLED", 1, 1)]
