"""Production orders limit what is sealed: exact, once a unit, under two writers at once; on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import FAULTS, IntakeError
from ifpp.line.quota import take_order
from ifpp.model.messages import ProfileResult
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from ifpp.trust.signer import SoftwareSigner, VerificationKey, create_key
from ifpp.wire.production_order import ProductionOrder, write_order
from tests.clock import START
from tests.store.test_audit import facts_of as read_facts
from tests.store.test_audit import log_of
from tests.store.test_events import word
from tests.store.world import SEALED, SKU, Node, eid, later, request, stock, take_one


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> SoftwareSigner:
    path = tmp_path_factory.mktemp("key") / "planner.key"
    create_key(path)
    return SoftwareSigner.load(path)


def order(quantity: int, **changes: object) -> ProductionOrder:
    facts = {"order_id": "PO-1", "version": 1, "site": "acme/north", "sku": SKU, "quantity": quantity}
    times = {"from_at": "2026-03-01T00:00:00Z", "until_at": "2026-03-02T00:00:00Z"}
    return ProductionOrder(**facts | times | changes)  # type: ignore[arg-type]


def signed(planner: SoftwareSigner, wanted: ProductionOrder) -> bytes:
    return write_order(wanted, planner.key_id, planner.sign(wanted.message()))


def take(factory: Factory, planner: SoftwareSigner, content: bytes, now: datetime = START) -> bool:
    keys = [VerificationKey.from_der(planner.public)]
    return take_order(factory, content, keys, site="acme/north", now=now, where="x.production-order.json")[1]


def installed(factory: Factory, number: int, attempt: str) -> list[ProfileResult]:
    claim = factory.claim(request(number, attempt), START)
    for package in claim.packages:
        factory.mark_sent(package.package_id, attempt, "st01", later(1))
    return [word(package.package_id, "INSTALLED", number=number) for package in claim.packages]


def seal(factory: Factory, number: int, node: Node | None = None, now: datetime = START) -> None:
    attempt = f"a{number}"
    take_one(factory, (node or NODES[factory]).result(number, attempt, installed(factory, number, attempt)), now)


NODES: dict[Factory, Node] = {}
SEALED_AGAIN: dict[str, Any] = {"clean_to_ship": True, "seal": SEALED, "result": "PASS", "outcome_class": "PASS"}


def facts_of(factory: Factory, kind: str) -> list[dict[str, Any]]:
    return [read_facts(entry) for entry in log_of(factory) if entry.kind == kind]


@pytest.fixture
def line(factory: Factory) -> Factory:
    stock(factory, 6)
    NODES[factory] = Node()
    return factory


def clean(factory: Factory) -> list[int]:
    return [number for number in range(1, 7) if factory.unit_gate(eid(number), START).clean_to_ship]


def test_an_overrun_is_not_clean_to_ship(line: Factory, planner: SoftwareSigner) -> None:
    assert take(line, planner, signed(planner, order(2)))
    for number in (1, 2, 3):
        seal(line, number)
    assert clean(line) == [1, 2]
    refused = line.unit_gate(eid(3), START)
    assert (refused.code, refused.advice) == ("GATE.QUOTA", FAULTS["GATE.QUOTA"].advice)
    assert "PO-1 2 of 2 used" in refused.reason
    assert [(facts["order"], facts["number"]) for facts in facts_of(line, "clean_to_ship")] == [
        ("PO-1", 1),
        ("PO-1", 2),
    ]
    assert [facts["code"] for facts in facts_of(line, "withheld")] == ["GATE.QUOTA"]
    assert [row.used for row in line.production_orders()] == [2]
    assert line.audit() == []


def test_without_an_order_nothing_is_limited_unless_the_site_wants_one(
    line: Factory, url: str, planner: SoftwareSigner
) -> None:
    seal(line, 1)
    strict = Factory.open(url, orders_required=True)
    NODES[strict] = NODES[line]
    try:
        seal(strict, 2)
        gate = strict.unit_gate(eid(2), START)
        assert (gate.code, "no signed production order" in gate.reason) == ("GATE.QUOTA", True)
    finally:
        strict.close()
    assert clean(line) == [1]


def test_a_repeated_event_and_a_second_visit_count_once(line: Factory, planner: SoftwareSigner) -> None:
    take(line, planner, signed(planner, order(2)))
    event = NODES[line].result(1, "a1", installed(line, 1, "a1"))
    take_one(line, event)
    take_one(line, event)
    take_one(line, NODES[line].result(1, "again", **SEALED_AGAIN))
    assert [row.used for row in line.production_orders()] == [1]
    seal(line, 2)
    assert clean(line) == [1, 2]


def test_a_refused_unit_passes_under_a_further_order(line: Factory, planner: SoftwareSigner) -> None:
    take(line, planner, signed(planner, order(1)))
    seal(line, 1)
    seal(line, 2)
    assert clean(line) == [1]
    take(line, planner, signed(planner, order(2, version=2)))
    assert line.unit_gate(eid(2), START).code == "GATE.NOT_SEALED"
    take_one(line, NODES[line].result(2, "again", **SEALED_AGAIN))
    assert clean(line) == [1, 2]


def test_an_order_holds_in_its_time_only(line: Factory, planner: SoftwareSigner) -> None:
    take(line, planner, signed(planner, order(5, until_at="2026-03-01T08:00:05Z")))
    seal(line, 1, now=later(5))
    assert line.unit_gate(eid(1), later(5)).code == "GATE.QUOTA"
    take(line, planner, signed(planner, order(5, order_id="PO-2")))
    seal(line, 2, now=later(6))
    assert [(row.order_id, row.used) for row in line.production_orders()] == [("PO-1", 0), ("PO-2", 1)]


def test_two_supervisors_at_once_give_no_unit_too_many(line: Factory, url: str, planner: SoftwareSigner) -> None:
    take(line, planner, signed(planner, order(3)))
    other = Factory.open(url, writer="line-L2")
    try:
        work = [(line, Node("st01"), (1, 2, 3)), (other, Node("st02"), (4, 5, 6))]
        events = [
            (
                factory,
                [node.result(number, f"a{number}", installed(factory, number, f"a{number}")) for number in numbers],
            )
            for factory, node, numbers in work
        ]
        with ThreadPoolExecutor(2) as pool:
            for one in [pool.submit(_take_each, factory, told) for factory, told in events]:
                one.result()
    finally:
        other.close()
    assert len(clean(line)) == 3
    assert [row.used for row in line.production_orders()] == [3]
    assert line.audit() == []


def _take_each(factory: Factory, told: list[ReceivedEvent]) -> None:
    for event in told:
        factory.take_events([event], START)


def test_what_was_taken_is_known_and_older_or_changed_is_refused(line: Factory, planner: SoftwareSigner) -> None:
    assert take(line, planner, signed(planner, order(5, version=2)))
    assert not take(line, planner, signed(planner, order(5, version=2)))
    for wanted, code in (
        (order(9), "QUOTA.STALE"),
        (order(9, version=2), "QUOTA.CONFLICT"),
        (order(9, version=3, sku="OTHER"), "QUOTA.CONFLICT"),
        (order(9, version=3, site="acme/south"), "QUOTA.OTHER_SITE"),
        (order(9, version=3, until_at="2026-03-01T00:00:01Z"), "QUOTA.EXPIRED"),
    ):
        with pytest.raises(IntakeError) as caught:
            take(line, planner, signed(planner, wanted))
        assert caught.value.code == code
    assert [(row.version, row.quantity) for row in line.production_orders()] == [(2, 5)]


def test_a_changed_order_and_a_strange_key_are_refused(line: Factory, planner: SoftwareSigner, tmp_path: Path) -> None:
    content = signed(planner, order(5))
    create_key(tmp_path / "other.key")
    stranger = SoftwareSigner.load(tmp_path / "other.key")
    for damaged, code in (
        (content.replace(b'"quantity": 5', b'"quantity": 6'), "QUOTA.SIGNATURE"),
        (signed(stranger, order(5)), "QUOTA.UNKNOWN_KEY"),
        (content.replace(planner.key_id.encode(), stranger.key_id.encode()), "QUOTA.UNKNOWN_KEY"),
        (content[:-20], "QUOTA.FORMAT"),
        (content.replace(b'"sku"', b'"SKU"'), "QUOTA.FORMAT"),
    ):
        assert damaged != content
        with pytest.raises(IntakeError) as caught:
            take(line, planner, damaged)
        assert caught.value.code == code
    assert line.production_orders() == []
