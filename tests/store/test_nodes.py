"""What the books know of the numbers of a station that lost its journal."""

from __future__ import annotations

from ifpp.store.factory import Factory
from ifpp.store.nodes import LOST
from tests.store.world import Node, later, take_one


def test_a_node_nobody_knows_has_no_last_event(factory: Factory) -> None:
    assert factory.nodes.last_event("st77") == 0
    assert factory.nodes.give_up("st77", "me", "a test", later(0)) == []


def test_what_never_came_is_given_up_and_what_comes_later_counts(factory: Factory) -> None:
    node = Node()
    first, second, third, fourth = (node.result(1, f"a{number}", []) for number in range(1, 5))
    assert take_one(factory, first, later(1)).through == 1
    assert take_one(factory, third, later(2)).through == 1
    assert factory.nodes.last_event(node.node_id) == 3
    assert factory.nodes.give_up(node.node_id, "me", "its disk died", later(3)) == [2]
    assert take_one(factory, fourth, later(4)).through == 4
    (lost,) = factory.parked()
    assert (lost.node_id, lost.seq, lost.code) == (node.node_id, 2, LOST)
    assert "its disk died" in lost.text
    assert factory.nodes.give_up(node.node_id, "me", "again", later(5)) == []
    assert take_one(factory, second, later(6)).rejected, "it was given up"
