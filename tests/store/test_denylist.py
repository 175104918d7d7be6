"""The denylist: learnt from failures of different chips, decided by people, told with claims; on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import Link
from ifpp.store.denylist import LEARNER, DeniedRow, Learning, Standing
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.clock import START
from tests.store.world import Node, eid, later, outcome, request, stock, take_one

FIRMWARE, OTHER = "89049999/1.4.2", "89049999/1.5.0"
KIND = "operational-0"
Told = Callable[..., None]


@pytest.fixture
def told(factory: Factory) -> Told:
    """Say that chip `number` came to an end with the package in its slot 0, as a station with this firmware would."""
    stock(factory, 12, packages_each=2)
    node = Node()

    def tell(
        number: int, state: str = "FAILED", firmware: str = FIRMWARE, *, spent: bool = True, **changes: Any
    ) -> None:
        claim = factory.claim(request(number), START)
        package = claim.packages[0]
        result = outcome(number, 0, state, spent=spent, package_id=package.package_id)
        changes.setdefault("outcome_class", "PASS" if state == "INSTALLED" else "PRODUCT")
        facts = {"firmware": firmware, "clean_to_ship": False, "seal": None} | changes
        answer = take_one(factory, node.result(number, claim.attempt_id, [result], **facts), later(number))
        assert not answer.rejected

    return tell


def only(factory: Factory) -> DeniedRow:
    (row,) = factory.denylist()
    return row


def test_failures_of_three_chips_and_no_success_make_a_proposal(factory: Factory, told: Told) -> None:
    told(1)
    told(2)
    assert factory.denylist() == []
    told(3)
    row = only(factory)
    assert (row.firmware, row.profile_type, row.standing) == (FIRMWARE, KIND, Standing.PROPOSED)
    assert (row.by, row.failed, row.succeeded) == (LEARNER, 3, False)
    assert factory.claim(request(4), START).denied == {}, "a proposal refuses nothing"


def test_one_chip_counts_once(factory: Factory, told: Told) -> None:
    told(1, spent=False)
    told(1, spent=False)
    told(1)
    told(2)
    assert factory.denylist() == []
    told(3)
    assert only(factory).failed == 3


@pytest.mark.parametrize(
    "changes", [{"outcome_class": "CONTACT"}, {"outcome_class": "SUPPLY"}, {"firmware": ""}, {"firmware": "x" * 5000}]
)
def test_what_is_not_the_products_fault_teaches_nothing(factory: Factory, told: Told, changes: dict[str, Any]) -> None:
    for number in range(1, 6):
        told(number, **changes)
    assert factory.denylist() == []


def test_firmware_and_profile_types_are_told_apart(factory: Factory, told: Told) -> None:
    told(1)
    told(2)
    told(3, firmware=OTHER)
    told(4, firmware=OTHER)
    assert factory.denylist() == []


def test_a_success_before_or_after_speaks_against_it(factory: Factory, told: Told) -> None:
    for number in (1, 2, 3):
        told(number)
    assert only(factory).standing == Standing.PROPOSED
    told(4, "INSTALLED")
    assert factory.denylist() == [], "the proposal is taken back"
    for number in (5, 6, 7):
        told(number)
    assert factory.denylist() == []


def test_by_setting_it_refuses_at_once_or_never_learns(url: str) -> None:
    for learning, standing in ((Learning(1, refuse=True), [Standing.ACTIVE]), (Learning(0), [])):
        with closing(Factory.open(url, learning=learning)) as factory:
            if standing:
                stock(factory, 3)
            number = 1 if standing else 2
            claim = factory.claim(request(number), START)
            failed = outcome(number, 0, "FAILED", spent=True, package_id=claim.packages[0].package_id)
            firmware = FIRMWARE if standing else OTHER
            take_one(factory, Node(f"st0{number}").result(number, claim.attempt_id, [failed], firmware=firmware))
            assert [row.standing for row in factory.denylist() if row.firmware == firmware] == standing


def test_people_decide_and_claims_tell(factory: Factory) -> None:
    stock(factory, 2, packages_each=2)
    with pytest.raises(CustodyError, match=r"DENYLIST\.UNKNOWN"):
        factory.deny(FIRMWARE, KIND, "Eve", "seen in the lab", START, known=True)
    factory.deny(FIRMWARE, KIND, "Eve", "seen in the lab", START, known=False)
    factory.deny("12345678/1.4.2", KIND, "Eve", "another maker", START, known=False)
    factory.deny(FIRMWARE, "for another product", "Eve", "another type", START, known=False)
    assert factory.claim(request(1, "a"), START).denied == {KIND: [FIRMWARE]}
    factory.allow(FIRMWARE, KIND, "Adam", "mended in 1.4.2b", START)
    assert factory.claim(request(2), START).denied == {}
    row = next(row for row in factory.denylist() if (row.firmware, row.profile_type) == (FIRMWARE, KIND))
    assert (row.standing, row.by, row.reason) == (Standing.REMOVED, "Adam", "mended in 1.4.2b")
    with pytest.raises(CustodyError, match=r"DENYLIST\.UNKNOWN"):
        factory.allow(FIRMWARE, KIND, "Adam", "twice", START)


def test_a_proposal_can_be_activated(factory: Factory, told: Told) -> None:
    for number in (1, 2, 3):
        told(number)
    factory.deny(FIRMWARE, KIND, "Eve", "the lab agrees", later(10), known=True)
    assert only(factory).standing == Standing.ACTIVE
    assert factory.claim(request(4), START).denied == {KIND: [FIRMWARE]}


def test_after_a_removal_only_later_failures_count(factory: Factory, told: Told) -> None:
    for number in (1, 2, 3):
        told(number)
    factory.allow(FIRMWARE, KIND, "Adam", "the profile was mended", later(3.5))
    told(4)
    told(5)
    assert only(factory).standing == Standing.REMOVED
    told(6)
    assert only(factory).standing == Standing.PROPOSED


def test_every_change_stands_in_the_audit_log(factory: Factory, told: Told) -> None:
    for number in (1, 2, 3):
        told(number)
    factory.deny(FIRMWARE, KIND, "Eve", "the lab agrees", later(10), known=True)
    factory.allow(FIRMWARE, KIND, "Adam", "mended", later(20))
    found = list(_denylist_entries(factory))
    assert [entry["standing"] for entry in found] == ["PROPOSED", "ACTIVE", "REMOVED"]
    assert [entry["by"] for entry in found] == [LEARNER, "Eve", "Adam"]
    assert factory.audit() == []


def test_the_link_of_every_attempt_is_in_the_books(factory: Factory, told: Told) -> None:
    told(1, "INSTALLED", link=Link(atr="3b9f", protocol="T=0", bit_rate=250_000, block_size=120))
    unit = factory.unit(str(eid(1)))
    assert unit is not None
    (attempt,) = unit.attempts
    assert (attempt.atr, attempt.protocol, attempt.bit_rate, attempt.block_size) == ("3b9f", "T=0", 250_000, 120)
    assert attempt.firmware == FIRMWARE


def _denylist_entries(factory: Factory) -> Iterator[dict[str, Any]]:
    with factory.audit_log() as log:
        for head in log.heads():
            for page in log.pages(head.chain_id):
                yield from (json.loads(entry.facts) for entry in page if entry.kind == "denylist")


def test_two_supervisors_learn_the_same_at_once(url: str) -> None:
    with closing(Factory.open(url, writer="one")) as one, closing(Factory.open(url, writer="two")) as two:
        stock(one, 8)
        work: list[tuple[Factory, list[ReceivedEvent]]] = [(one, []), (two, [])]
        for number in range(1, 9):
            factory, events = work[number % 2]
            claim = factory.claim(request(number), START)
            failed = outcome(number, 0, "FAILED", spent=True, package_id=claim.packages[0].package_id)
            events.append(Node(f"st{number:02d}").result(number, claim.attempt_id, [failed], firmware=FIRMWARE))
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(factory.take_events, events, START) for factory, events in work]
        assert all(not result.rejected for answer in answers for result in answer.result())
        row = only(one)
        assert (row.standing, row.failed) == (Standing.PROPOSED, 8)
        assert one.audit() == []
