"""What the station watches: room and age in the outbox, held units, trouble; how it shows, when units are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from ifpp.errors import FAULTS, CustodyError
from ifpp.metrics import Metrics, Role
from ifpp.model.messages import Rejected, StationState
from ifpp.model.states import E10, PackageState, Phase
from ifpp.settings import Outbox
from ifpp.station.board import Board
from ifpp.station.gate import Gate
from ifpp.station.journal import Journal
from ifpp.station.records import OutboxDepth
from ifpp.station.watch import Watch
from tests.clock import FakeClock
from tests.station.conftest import Logged
from tests.station.records import HOLD, closed, sent, settled, store

DAY_S = 24 * 3600.0


class Bench:
    def __init__(self, journal: Journal, clock: FakeClock) -> None:
        self.journal = journal
        self.clock = clock
        self.gate = Gate()
        self.metrics = Metrics(Role.STATION, line="L1", station="st01")
        self.watch = Watch(journal, self.gate, Outbox(capacity=100, keep_days=7), self.metrics, clock)
        self.board = Board("st01", "boot", clock)
        self.board.add("h01")

    def gauge(self, name: str) -> float:
        return self.metrics.value(name, line="L1", station="st01")

    def state(self) -> StationState:
        return self.board.document(
            job_order_id="",
            refusing=self.gate.refusing,
            attention=self.gate.attention,
            custody=self.watch.custody,
        )

    def acknowledge(self, through: int, *rejected: Rejected) -> None:
        self.journal.acknowledge(through, list(rejected)).result()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    journal = Journal.open(tmp_path / "journal.db", "st01", clock)
    yield Bench(journal, clock)
    journal.close()


async def test_an_outbox_with_room_says_nothing(bench: Bench) -> None:
    store(bench.journal, *range(1, 80))
    await bench.watch.look()
    state = bench.state()
    assert (state.outbox_depth, state.refusing, state.attention) == (79, "", {})
    assert (bench.gauge("ifpp_outbox_alarm"), bench.gauge("ifpp_station_accepting")) == (0, 1)


async def test_four_fifths_full_is_shown_and_said_once(bench: Bench, logged: Logged) -> None:
    store(bench.journal, *range(1, 81))
    for _ in range(3):
        await bench.watch.look()
    state = bench.state()
    assert state.attention == {"OUTBOX.LATE": FAULTS["OUTBOX.LATE"].advice}
    assert state.refusing == ""
    assert bench.gauge("ifpp_outbox_alarm") == 1
    assert [entry["code"] for entry in logged("attention")] == ["OUTBOX.LATE"]


async def test_an_event_older_than_a_quarter_of_an_hour_is_shown(bench: Bench) -> None:
    store(bench.journal, 1)
    bench.clock.advance(15 * 60)
    await bench.watch.look()
    assert bench.gate.attention == {}
    bench.clock.advance(1)
    await bench.watch.look()
    assert list(bench.gate.attention) == ["OUTBOX.LATE"]
    assert bench.state().outbox_oldest_ms == 901_000
    bench.acknowledge(1)
    await bench.watch.look()
    assert bench.gate.attention == {}


async def test_a_full_outbox_refuses_units_until_acknowledgements_make_room(bench: Bench, logged: Logged) -> None:
    store(bench.journal, *range(1, 101))
    await bench.watch.look()
    await bench.watch.look()
    assert bench.state().refusing == "OUTBOX.FULL"
    assert set(bench.state().attention) == {"OUTBOX.FULL", "OUTBOX.LATE"}
    assert (bench.gauge("ifpp_outbox_alarm"), bench.gauge("ifpp_station_accepting")) == (2, 0)
    assert [entry["code"] for entry in logged("no new units")] == ["OUTBOX.FULL"]
    waiting = asyncio.create_task(bench.gate.opened())
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.acknowledge(1)
    await bench.watch.look()
    await waiting
    assert bench.state().refusing == ""
    assert list(bench.state().attention) == ["OUTBOX.LATE"]


async def test_trouble_and_a_full_outbox_both_have_to_end(bench: Bench) -> None:
    bench.watch.trouble(CustodyError("JOURNAL.WRITE", "database or disk is full", where="journal.db"))
    store(bench.journal, *range(1, 101))
    await bench.watch.look()
    assert bench.gate.refusing == "JOURNAL.WRITE"
    bench.watch.trouble(None)
    assert bench.gate.refusing == "OUTBOX.FULL"
    bench.acknowledge(100)
    await bench.watch.look()
    assert bench.gate.refusing == ""


async def test_parked_events_are_counted(bench: Bench) -> None:
    store(bench.journal, 1, 2)
    bench.acknowledge(2, Rejected(seq=1, id="event-1", code="CUSTODY.EVENT_REFUSED", text="poison"))
    await bench.watch.look()
    assert bench.state().outbox_rejected == 1
    assert bench.gauge("ifpp_outbox_rejected") == 1


async def test_held_units_are_shown_with_what_to_do_the_longest_held_first(bench: Bench) -> None:
    for number in range(120):
        unit = f"eid-{number:03d}"
        bench.journal.sent(sent(unit, eid=unit), b"").result()
        bench.journal.close_unit(closed(unit, settled(PackageState.UNKNOWN, unit), eid=unit)).stored.result()
        bench.clock.advance(1)
    await bench.watch.look()
    state = bench.state()
    assert list(state.held) == [f"eid-{number:03d}" for number in range(100)]
    assert state.held["eid-000"] == f"{HOLD.code}: {HOLD.action}"
    assert state.held_units == 120
    assert bench.gauge("ifpp_held_units") == 120


async def test_delivered_events_go_after_their_days_looked_for_once_an_hour(bench: Bench, logged: Logged) -> None:
    store(bench.journal, *range(1, 1503))
    bench.acknowledge(1502)
    bench.clock.advance(7 * DAY_S - 10)
    await bench.watch.look()
    assert bench.journal.range().result() == (1, 1503)
    bench.clock.advance(20)
    await bench.watch.look()  # the hour is not over
    assert bench.journal.range().result() == (1, 1503)
    bench.clock.advance(3600)
    await bench.watch.look()
    assert bench.journal.range().result() == (1502, 1503)
    assert [entry["events"] for entry in logged("delivered events removed")] == [1501]


async def test_a_journal_that_cannot_be_read_leaves_all_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(bench.journal, *range(1, 101))
    await bench.watch.look()

    def broken() -> Future[OutboxDepth]:
        failed: Future[OutboxDepth] = Future()
        failed.set_exception(CustodyError("JOURNAL.WRITE", "cannot be read"))
        return failed

    monkeypatch.setattr(bench.journal, "depth", broken)
    await bench.watch.look()
    assert bench.gate.refusing == "OUTBOX.FULL"
    assert bench.state().outbox_depth == 100


async def test_a_head_that_refuses_is_shown_as_blocked(bench: Bench) -> None:
    (passage,) = bench.board.enter("h01", Phase.REFUSING, 5300, reason="JOURNAL.WRITE")
    assert (passage.new, passage.reason) == (E10.UDT, "JOURNAL.WRITE")
    assert bench.state().heads["h01"].blocked is True
    bench.board.enter("h01", Phase.EMPTY, 2202)
    assert bench.state().heads["h01"].blocked is False
