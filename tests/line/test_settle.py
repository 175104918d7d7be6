"""Taking events: groups, acknowledgements, backpressure and poison, with a store in memory and a clock of our own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec
import pytest

from ifpp.errors import IfppError, ServiceError
from ifpp.line.settle import Limits, Settling
from ifpp.metrics import Metrics, Role
from ifpp.model.messages import Ack, Rejected
from ifpp.store.records import MAX_EVENT_BYTES, ReceivedEvent, TakeResult
from tests.bus.node import until
from tests.clock import FakeClock
from tests.line.world import event

LIMITS = Limits(collect_s=0.02, group=10, waiting=25)
AWAY = ServiceError("DATABASE.UNREACHABLE", "gone")


class MemoryStore:
    """Takes everything; rejects the numbers in `poison`; raises what `faults` holds first."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.taken: dict[str, set[int]] = defaultdict(set)
        self.poison: set[int] = set()
        self.faults: list[IfppError] = []
        self.parked: list[tuple[str, bytes, str]] = []

    def take_events(self, received: Sequence[ReceivedEvent], now: datetime) -> list[TakeResult]:
        if self.faults:
            raise self.faults.pop(0)
        self.groups.append(len(received))
        return [self._of(node, received) for node in sorted({one.node_id for one in received})]

    def _of(self, node: str, received: Sequence[ReceivedEvent]) -> TakeResult:
        seqs = {one.seq for one in received if one.node_id == node}
        fresh = seqs - self.taken[node] - self.poison
        self.taken[node] |= seqs
        rejected = tuple(Rejected(seq=seq, id="x", code="C", text="t") for seq in sorted(seqs & self.poison))
        through = 0
        while through + 1 in self.taken[node]:
            through += 1
        return TakeResult(node, through, rejected, tuple(sorted(fresh)))

    def park(self, node_id: str, body: bytes, text: str, now: datetime) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.parked.append((node_id, body, text))


class Bench:
    """Settling between a memory store and a list of acknowledgements."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.metrics = Metrics(Role.SUPERVISOR, line="L1")
        self.acks: list[Ack] = []
        self.unsendable: list[Exception] = []
        self.stop = asyncio.Event()
        self.settling = Settling(
            self.store,
            executor,
            self._send,
            epoch=7,
            clock=self.clock,
            metrics=self.metrics,
            limits=LIMITS,
        )

    async def _send(self, ack: Ack) -> None:
        if self.unsendable:
            raise self.unsendable.pop(0)
        self.acks.append(ack)

    async def receive(self, *seqs: int, node: str = "st01") -> None:
        for seq in seqs:
            await self.settling.receive(node, "state_changed", event(node, seq))

    def violations(self, schema: str, reason: str) -> float:
        return self.metrics.value("ifpp_contract_violation_total", line="L1", schema=schema, reason=reason)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(1) as executor:
        yield Bench(executor)


async def test_the_first_event_waits_for_company(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bench.settling.commit(bench.stop), name="commit")
        await bench.receive(1, 2)
        await until(lambda: bench.clock.sleepers == 1)
        bench.clock.advance(0.015)
        await bench.receive(3)
        assert bench.store.groups == []
        assert bench.settling.oldest_s == pytest.approx(0.015)
        bench.clock.advance(0.005)
        await until(lambda: bench.store.groups == [3])
        await until(lambda: bench.settling.oldest_s == 0.0)
        bench.stop.set()


async def test_a_full_group_does_not_wait_and_reception_does(bench: Bench) -> None:
    async with asyncio.TaskGroup() as tasks:
        receiving = tasks.create_task(bench.receive(*range(1, 31)), name="receive")
        await asyncio.sleep(0.01)
        assert not receiving.done()  # 25 may wait, the 26th must wait outside
        tasks.create_task(bench.settling.commit(bench.stop), name="commit")
        await until(receiving.done)
        await until(lambda: sum(bench.store.groups) >= 20)
        bench.clock.advance(1)
        await until(lambda: sum(bench.store.groups) == 30)
        assert max(bench.store.groups) == 10
        bench.stop.set()


async def test_what_is_sent_again_while_it_waits_takes_no_room(bench: Bench) -> None:
    body = event("st01", 1)
    for _ in range(100):
        await bench.settling.receive("st01", "state_changed", body)
    bench.clock.advance(0.02)
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    await until(lambda: bench.settling.oldest_s == 0.0)
    await bench.settling.receive("st01", "state_changed", body)  # once more after the commit: a duplicate to answer
    bench.clock.advance(0.02)
    await until(lambda: bench.store.groups == [1, 1])
    assert bench.metrics.value("ifpp_events_total", line="L1", outcome="duplicate") == 100
    bench.stop.set()
    await committing


async def test_retries_grow_longer_and_end_with_stop(bench: Bench) -> None:
    bench.store.faults = [AWAY] * 20
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    await bench.receive(1)
    await until(lambda: bench.clock.sleepers == 1)
    bench.clock.advance(0.02)
    for retry_s in (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        await until(lambda: bench.clock.sleepers == 1)
        bench.clock.advance(retry_s - 0.01)
        assert bench.clock.sleepers == 1
        bench.clock.advance(0.01)
    await until(lambda: bench.clock.sleepers == 1)
    bench.stop.set()
    await committing
    assert bench.store.groups == []
    assert bench.metrics.value("ifpp_commit_failures_total", line="L1") == 8
    assert bench.settling.oldest_s > 0  # still unacknowledged: the station sends it again


async def test_one_acknowledgement_a_station_and_group(bench: Bench) -> None:
    bench.store.poison = {2}
    await bench.receive(1, 2, 3)
    await bench.receive(1, node="st02")
    await bench.receive(3)
    acknowledging = asyncio.create_task(bench.settling.acknowledge(bench.stop), name="acknowledge")
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    await until(lambda: bench.clock.sleepers == 1)
    bench.clock.advance(0.02)
    await until(lambda: len(bench.acks) == 2)
    assert [(ack.node_id, ack.epoch, ack.through) for ack in bench.acks] == [("st01", 7, 3), ("st02", 7, 1)]
    assert [row.seq for row in bench.acks[0].rejected] == [2]
    assert bench.acks[0].ts == "2026-03-01T08:00:00.020Z"
    counted = [bench.metrics.value("ifpp_events_total", line="L1", outcome=o) for o in _OUTCOMES]
    assert counted == [3, 1, 1]
    bench.stop.set()
    await asyncio.gather(acknowledging, committing)


async def test_acknowledgements_that_wait_are_put_together(bench: Bench) -> None:
    bench.store.poison = {1, 3}
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    for seq in (1, 2, 3):
        await bench.receive(seq)
        await until(lambda: bench.clock.sleepers == 1)
        bench.clock.advance(0.02)
        await until(lambda seq=seq: len(bench.store.groups) == seq)  # type: ignore[misc]
    bench.stop.set()
    await committing
    await bench.settling.acknowledge(bench.stop)  # stopped already: sends what is left, and ends
    assert [(ack.through, [row.seq for row in ack.rejected]) for ack in bench.acks] == [(3, [1, 3])]


async def test_an_acknowledgement_that_cannot_be_sent_is_dropped(bench: Bench) -> None:
    bench.unsendable = [ServiceError("BROKER.UNREACHABLE", "gone")]
    acknowledging = asyncio.create_task(bench.settling.acknowledge(bench.stop), name="acknowledge")
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    for seq in (1, 1):
        await bench.receive(seq)
        await until(lambda: bench.clock.sleepers == 1)
        bench.clock.advance(0.02)
        await until(lambda: bench.settling.oldest_s == 0.0)
    await until(lambda: [ack.through for ack in bench.acks] == [1])
    bench.stop.set()
    await asyncio.gather(acknowledging, committing)


async def test_a_fault_of_ours_in_sending_is_not_hidden(bench: Bench) -> None:
    bench.unsendable = [ZeroDivisionError()]
    await bench.receive(1)
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    await until(lambda: bench.clock.sleepers == 1)
    bench.clock.advance(0.02)
    with pytest.raises(ZeroDivisionError):
        await bench.settling.acknowledge(bench.stop)
    bench.stop.set()
    await committing


UNREADABLE = {
    "empty": b"",
    "not JSON": b"\xff\x00",
    "another shape": b"[1]",
    "no number": msgspec.json.encode({"node_id": "st01", "id": "a", "schema": "state_changed/1.0"}),
    "number 0": event("st01", 0),
    "number too great": event("st01", 2**53),
    "number as text": event("st01", 1, seq="1"),
    "no node": event("st01", 1, node_id=None),
    "another node": event("st01", 1, node_id="st02"),
    "too deep": b'{"seq":1,"node_id":"st01","x":' + b"[" * 50_000,
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_document_without_a_number_of_its_sender_is_parked(bench: Bench, what: str) -> None:
    body = UNREADABLE[what]
    await bench.settling.receive("st01", "unit_result", body)
    assert [(node, content) for node, content, _ in bench.store.parked] == [("st01", body)]
    assert bench.settling.oldest_s == 0.0
    assert bench.violations("unit_result", "node" if what == "another node" else "envelope") == 1


NUMBERED = {
    "no id": event("st01", 5, id=None),
    "id of another type": event("st01", 5, id=17),
    "id with a line end": event("st01", 5, id="a\nb"),
    "no schema": event("st01", 5, schema=None),
    "schema of another shape": event("st01", 5, schema="Unit Result 1"),
    "too big": event("st01", 5, reason="x" * MAX_EVENT_BYTES),
}


@pytest.mark.parametrize("what", NUMBERED)
async def test_a_broken_document_with_its_number_goes_to_the_store_to_be_rejected(bench: Bench, what: str) -> None:
    await bench.settling.receive("st01", "something", NUMBERED[what])
    bench.clock.advance(0.02)
    committing = asyncio.create_task(bench.settling.commit(bench.stop), name="commit")
    await until(lambda: bench.store.groups == [1])
    bench.stop.set()
    await committing
    assert bench.store.taken["st01"] == {5}
    assert bench.store.parked == []
    reason = "too_big" if what == "too big" else "envelope"
    assert bench.violations("unknown", reason) == 1  # no label out of what a peer wrote


async def test_a_database_that_is_away_costs_the_parking_and_nothing_else(bench: Bench) -> None:
    bench.store.faults = [AWAY]
    await bench.settling.receive("st01", "unit_result", b"")
    await bench.settling.receive("st01", "unit_result", b"")
    assert len(bench.store.parked) == 1


_OUTCOMES = ("taken", "rejected", "duplicate")
