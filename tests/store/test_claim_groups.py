"""Claims that are decided together: each gets what it would get alone; on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from ifpp.errors import IfppError
from ifpp.model.messages import Claim, ClaimRequest
from ifpp.store.claims import claim_packages
from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.world import request, states, stock


def together(factory: Factory, *wanted: ClaimRequest) -> list[Claim | IfppError]:
    with factory._writing(START) as (connection, trail):
        return claim_packages(connection, trail, wanted)


def code(answer: Claim | IfppError) -> str:
    return answer.code if isinstance(answer, IfppError) else f"{answer.attempt_id}:{len(answer.packages)}"


def test_a_refused_claim_harms_nobody_and_answers_keep_their_order(factory: Factory) -> None:
    stock(factory, 3, packages_each=2)
    answers = together(
        factory,
        request(1, "a", head_id="h1"),
        request(9, "b", head_id="h2"),
        request(2, "bad\x00name"),
        request(1, "c", head_id="h3"),
        request(3, "d", head_id="h4"),
        request(1, "a", head_id="h1"),
        request(2, "d", head_id="h5"),
    )
    assert [code(answer) for answer in answers] == [
        "a:2",
        "EID.UNKNOWN",
        "STORE.REFUSED",
        "BPP.TAKEN",
        "d:2",
        "a:2",
        "STORE.REFUSED",
    ]
    assert answers[5] == answers[0]
    assert [states(factory, number) for number in (1, 2, 3)] == [["CLAIMED"] * 2, ["AVAILABLE"] * 2, ["CLAIMED"] * 2]
    assert factory.audit() == []


def test_together_they_get_what_each_gets_alone(factory: Factory) -> None:
    stock(factory, 4, packages_each=2)
    wanted = [request(number, f"a{number}", head_id=f"h{number}") for number in (3, 1, 4, 2)]
    answers = together(factory, *wanted)
    assert answers == [factory.claim(one, START) for one in wanted]


def test_what_dies_before_its_commit_has_claimed_nothing(factory: Factory) -> None:
    stock(factory, 2)
    with pytest.raises(KeyboardInterrupt), factory._writing(START) as (connection, trail):  # noqa: PT012
        assert len(claim_packages(connection, trail, [request(1, "a"), request(2, "b")])) == 2
        raise KeyboardInterrupt
    assert states(factory, 1) == states(factory, 2) == ["AVAILABLE"]
    assert [code(one) for one in together(factory, request(1, "a"), request(2, "b"))] == ["a:1", "b:1"]
    assert factory.audit() == []
