"""Results nobody had allowed, in the books: asked in order, answered once, refused until the MES says otherwise."""

from __future__ import annotations

import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import RouteNote
from ifpp.store.factory import Factory
from ifpp.store.unasked import LateAnswer
from tests.clock import START
from tests.store.world import Node, add_job, eid, later, stock

UNALLOWED = RouteNote(request_id="r", result="SKIPPED", source="OFF")
LINE = "L1"


def keys(factory: Factory, after: tuple[str, int] = ("", 0), limit: int = 100) -> list[tuple[str, int]]:
    return [(one.node_id, one.seq) for one in factory.unasked.questions(LINE, after, limit)]


@pytest.fixture
def worked(factory: Factory) -> Factory:
    """Two stations made three units each that nobody had allowed, and one each that was allowed."""
    add_job(factory)
    stock(factory, 4)
    for name in ("st01", "st02"):
        node = Node(name)
        events = [node.result(number, f"{name}-{number}", route_check=UNALLOWED) for number in (1, 2, 3)]
        factory.take_events([*events, node.result(4, f"{name}-4"), events[0]], START)
    return factory


def test_questions_come_in_pages_and_of_their_line_alone(worked: Factory) -> None:
    wanted = [(name, seq) for name in ("st01", "st02") for seq in (1, 2, 3)]
    assert keys(worked) == wanted
    assert keys(worked, limit=2) == wanted[:2]
    assert keys(worked, ("st01", 2)) == wanted[2:]
    assert worked.unasked.questions("L9", ("", 0), 9) == []


def test_the_first_answer_counts_and_a_refusal_until_it_is_asked_again(worked: Factory) -> None:
    worked.unasked.answer(
        [LateAnswer("st01", 1, "PASS", "", ""), LateAnswer("st01", 2, "FAIL", "ROUTE", "bin 7" * 99)], later(1)
    )
    worked.unasked.answer([LateAnswer("st01", 1, "FAIL", "", "")], later(2))
    assert len(keys(worked)) == 4
    refused = worked.unasked.refused(LINE, later(1))
    assert list(refused) == [eid(2)]
    assert refused[eid(2)].startswith("ROUTE: bin 7")
    assert worked.unasked.refused(LINE, later(2)) == {}
    assert (worked.unit_gate(eid(2)).code, worked.unit_gate(eid(1)).code) == ("GATE.ROUTE", "GATE.NOT_SEALED")
    assert worked.unasked.ask_again(eid(2), "anna", "it was booked late", later(3)) == 1
    assert ("st01", 2) in keys(worked)
    with pytest.raises(CustodyError, match="refused no unit"):
        worked.unasked.ask_again(eid(1), "anna", "why not", later(4))
    assert worked.audit() == []
