"""The pump: order, window, resend, epochs and wrong acknowledgements, on a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, ServiceError
from ifpp.model.messages import Ack, Rejected
from ifpp.settings import Outbox
from ifpp.station.journal import Journal
from ifpp.station.pump import Pump
from ifpp.station.records import OutboxRow
from tests.clock import FakeClock
from tests.station.conftest import Logged
from tests.station.records import event

OUTBOX = Outbox(max_unacked=4, resend_s=5, resend_max_s=20)


class Broker:
    """Takes what is sent; may be away."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.away = False

    async def send(self, row: OutboxRow) -> None:
        if self.away:
            raise ServiceError("BROKER.UNREACHABLE", "not connected")
        self.sent.append(row.seq)


class Bench:
    def __init__(self, journal: Journal, clock: FakeClock) -> None:
        self.journal = journal
        self.clock = clock
        self.broker = Broker()
        self.pump = Pump(journal, self.broker.send, OUTBOX, clock, node_id="st01", collect_s=0.0)

    async def store(self, *numbers: int) -> None:
        for number in numbers:
            await asyncio.wrap_future(self.journal.events([("state_changed", event(number))]).stored)
        self.pump.wake()

    async def ack(self, through: int, *rejected: Rejected, epoch: int = 1, node_id: str = "st01") -> None:
        await self.pump.acknowledge(
            Ack(schema="ack/1.0", ts="", node_id=node_id, epoch=epoch, through=through, rejected=list(rejected))
        )

    async def waiting(self) -> int:
        return (await asyncio.wrap_future(self.journal.depth())).count

    async def settle(self) -> list[int]:
        """Let the pump do what it can; return and forget what it sent."""
        for _ in range(100):
            await asyncio.wrap_future(self.journal.depth())
            await asyncio.sleep(0)
        sent, self.broker.sent = self.broker.sent, []
        return sent


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = FakeClock()
    journal = Journal.open(tmp_path / "journal.db", "st01", clock)
    bench = Bench(journal, clock)
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.pump.run(stopping))
    yield bench
    stopping.set()
    bench.pump.wake()
    await running
    journal.close()


async def test_nothing_leaves_before_the_broker_is_there(bench: Bench) -> None:
    await bench.store(1, 2)
    assert await bench.settle() == []
    bench.pump.connected(yes=True)
    assert await bench.settle() == [1, 2]


async def test_at_most_the_window_is_unacknowledged(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1, 2, 3, 4, 5, 6, 7)
    assert await bench.settle() == [1, 2, 3, 4]
    await bench.ack(2)
    assert await bench.settle() == [5, 6]
    await bench.ack(6)
    assert await bench.settle() == [7]


async def test_unacknowledged_events_are_sent_again_with_growing_pauses(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1, 2)
    assert await bench.settle() == [1, 2]
    for pause_s in (5, 10, 20, 20):
        bench.clock.advance(pause_s - 0.1)
        bench.pump.wake()
        assert await bench.settle() == []
        bench.clock.advance(0.2)
        bench.pump.wake()
        assert await bench.settle() == [1, 2]


async def test_a_reconnect_sends_again_at_once(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1)
    assert await bench.settle() == [1]
    bench.pump.connected(yes=False)
    bench.pump.connected(yes=True)
    assert await bench.settle() == [1]


async def test_a_new_supervisor_epoch_sends_again_at_once_the_same_one_does_not(bench: Bench) -> None:
    bench.pump.epoch(1)
    bench.pump.connected(yes=True)
    await bench.store(1)
    assert await bench.settle() == [1]
    bench.pump.epoch(1)
    assert await bench.settle() == []
    bench.pump.epoch(2)
    assert await bench.settle() == [1]


async def test_a_rejected_event_does_not_hold_up_the_others(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1, 2, 3)
    assert await bench.settle() == [1, 2, 3]
    await bench.ack(3, Rejected(seq=2, id="event-2", code="CUSTODY.EVENT_REFUSED", text="poison"))
    bench.clock.advance(60)
    bench.pump.wake()
    assert await bench.settle() == []
    assert await bench.waiting() == 0


async def test_a_wrong_acknowledgement_is_refused_and_nothing_is_closed(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1)
    assert await bench.settle() == [1]
    await bench.ack(99)
    assert await bench.waiting() == 1


async def test_an_acknowledgement_for_another_station_changes_nothing(bench: Bench, logged: Logged) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1)
    assert await bench.settle() == [1]
    poison = Rejected(seq=1, id="event-1", code="CUSTODY.EVENT_REFUSED", text="poison")
    await bench.ack(1, poison, node_id="st02")
    assert await bench.waiting() == 1
    assert [entry["code"] for entry in logged("acknowledgement refused")] == ["CUSTODY.ACK_REFUSED"]
    await bench.ack(1)
    assert await bench.waiting() == 0


async def test_an_acknowledgement_of_a_replaced_supervisor_changes_nothing(bench: Bench, logged: Logged) -> None:
    bench.pump.connected(yes=True)
    bench.pump.epoch(3)
    await bench.store(1, 2)
    await bench.settle()
    await bench.ack(1, epoch=2)
    assert await bench.waiting() == 2
    (entry,) = logged("acknowledgement refused")
    assert entry["code"] == "CUSTODY.ACK_REFUSED"
    assert "epoch 3" in str(entry["detail"])
    bench.pump.epoch(2)  # its retained birth comes late: it is not heard either
    await bench.ack(1, epoch=2)
    assert await bench.waiting() == 2
    await bench.ack(2, epoch=3)
    assert await bench.waiting() == 0


async def test_an_acknowledgement_makes_its_epoch_known(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1, 2)
    await bench.settle()
    await bench.ack(1, epoch=5)
    await bench.ack(2, epoch=4)
    assert await bench.waiting() == 1


async def test_a_refused_acknowledgement_sends_nothing_early_and_keeps_the_window(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1, 2, 3, 4, 5)
    assert await bench.settle() == [1, 2, 3, 4]
    await bench.ack(4, node_id="st02")
    assert await bench.settle() == []
    await bench.ack(1)
    assert await bench.settle() == [5]


async def test_the_pump_outlives_a_journal_that_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.pump.connected(yes=True)

    def broken(after_seq: int, limit: int) -> Future[list[OutboxRow]]:
        failed: Future[list[OutboxRow]] = Future()
        failed.set_exception(CustodyError("JOURNAL.WRITE", "cannot be read"))
        return failed

    with monkeypatch.context() as patch:
        patch.setattr(bench.journal, "unacked", broken)
        await bench.store(1)
        assert await bench.settle() == []
    bench.pump.wake()
    assert await bench.settle() == [1]


async def test_a_broker_that_goes_away_in_the_middle_loses_nothing(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    bench.broker.away = True
    await bench.store(1, 2)
    assert await bench.settle() == []
    bench.broker.away = False
    bench.pump.connected(yes=True)
    assert await bench.settle() == [1, 2]
