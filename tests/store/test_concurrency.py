"""Many heads at once: no package is given twice, whatever the timing; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

from ifpp.errors import SupplyError
from ifpp.model.messages import Claim
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent, TakeResult
from tests.clock import START
from tests.store.world import Node, outcome, request, stock

HEADS = 16


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """Run all in threads that start together; return what came out, exceptions too."""
    start = Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        start.wait()
        try:
            return work()
        except SupplyError as error:
            return error.code

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_sixteen_heads_and_one_chip(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)

    def claim(head: int) -> Callable[[], object]:
        return lambda: factory.claim(request(1, f"a{head}", head_id=f"h{head}"), START)

    answers = at_once([claim(head) for head in range(HEADS)])
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    assert [len(one.packages) for one in claims] == [2]
    assert Counter(answer for answer in answers if isinstance(answer, str)) == {"BPP.TAKEN": HEADS - 1}
    assert factory.audit() == []


def test_one_attempt_sixteen_times(factory: Factory) -> None:
    """A client that repeats itself gets one answer."""
    stock(factory, 1)
    answers = at_once([lambda: factory.claim(request(1, "a"), START)] * HEADS)
    assert all(answer == answers[0] and isinstance(answer, Claim) for answer in answers)


def test_sixteen_heads_of_two_processes_and_many_chips(url: str) -> None:
    """Two factories on one database are two processes; each head takes chip after chip from one pile."""
    chips = 80
    with closing(Factory.open(url)) as one, closing(Factory.open(url)) as two:
        stock(one, chips)

        def work(head: int) -> Callable[[], object]:
            factory = (one, two)[head % 2]

            def load() -> list[str]:
                node, got = Node(f"st{head:02d}"), []
                for number in range(1, chips + 1):
                    wanted = request((number * 7 + head * 5) % chips + 1, station_id=node.node_id)
                    try:
                        claim = factory.claim(wanted, START)
                    except SupplyError as error:
                        assert error.code in ("BPP.TAKEN", "UNIT.ALREADY_LOADED")  # noqa: PT017
                        continue
                    for package in claim.packages:
                        factory.mark_sent(package.package_id, claim.attempt_id, node.node_id, START)
                        got.append(package.package_id)
                        number_of = int(package.package_id[-4:])
                        word = outcome(number_of, 0, "INSTALLED", package_id=package.package_id)
                        factory.take_events([node.result(number_of, claim.attempt_id, [word])], START)
                return got

            return load

        answers = at_once([work(head) for head in range(HEADS)])
        given = [package_id for answer in answers if isinstance(answer, list) for package_id in answer]
        assert len(given) == len(set(given)) == chips
        (balance,) = one.balance()
        assert (balance.installed, balance.holds) == (chips, True)
        assert one.audit() == []


def test_two_supervisors_take_the_same_events(url: str) -> None:
    """Two at once is only wasteful: each event is stored and settled once."""
    stations, each = 4, 25
    with closing(Factory.open(url)) as one, closing(Factory.open(url)) as two:
        stock(one, stations * each)
        events: list[ReceivedEvent] = []
        for station in range(stations):
            node = Node(f"st{station}")
            for place in range(each):
                number = station * each + place + 1
                claim = one.claim(request(number, station_id=node.node_id, head_id=f"h{place}"), START)
                word = outcome(number, 0, "INSTALLED", package_id=claim.packages[0].package_id)
                events.append(node.result(number, claim.attempt_id, [word]))
        answers = at_once(
            [
                lambda: one.take_events(events, START),
                lambda: two.take_events(events[::-1], START),
                lambda: one.take_events(events[::2], START),
                lambda: two.take_events(events[1::2], START),
            ]
        )
        results = [row for answer in answers if isinstance(answer, list) for row in answer]
        assert all(isinstance(row, TakeResult) and row.rejected == () for row in results)
        fresh = Counter((row.node_id, seq) for row in results for seq in row.fresh)
        assert len(fresh) == stations * each
        assert set(fresh.values()) == {1}
        assert one.audit() == []
