"""The pump: order, window, resend, epochs and wrong acknowledgements, on a clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ifpp.errors import ServiceError
from ifpp.model.messages import Ack, Rejected
from ifpp.settings import Outbox
from ifpp.station.journal import Journal, OutboxRow
from ifpp.station.pump import Pump
from tests.clock import FakeClock
from tests.station.test_journal import event


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
        self.pump = Pump(journal, self.broker.send, Outbox(max_unacked=4, resend_s=5, resend_max_s=20), clock)

    async def store(self, *numbers: int) -> None:
        for number in numbers:
            await asyncio.wrap_future(self.journal.events([("state_changed", event(number))]))
        self.pump.wake()

    async def ack(self, through: int, *rejected: Rejected, epoch: int = 1) -> None:
        await self.pump.acknowledge(
            Ack(schema="ack/1.0", ts="", node_id="st01", epoch=epoch, through=through, rejected=list(rejected))
        )

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
    assert (await asyncio.wrap_future(bench.journal.depth())).count == 0


async def test_a_wrong_acknowledgement_is_refused_and_nothing_is_closed(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    await bench.store(1)
    assert await bench.settle() == [1]
    await bench.ack(99)
    assert (await asyncio.wrap_future(bench.journal.depth())).count == 1


async def test_a_broker_that_goes_away_in_the_middle_loses_nothing(bench: Bench) -> None:
    bench.pump.connected(yes=True)
    bench.broker.away = True
    await bench.store(1, 2)
    assert await bench.settle() == []
    bench.broker.away = False
    bench.pump.connected(yes=True)
    assert await bench.settle() == [1, 2]
