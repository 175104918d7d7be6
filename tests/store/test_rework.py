"""Rework in the books: orders, what a claim tells the station, what its word does, the gate, the counts."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from ifpp.errors import CustodyError, SupplyError
from ifpp.line.request import Wish
from ifpp.model.messages import CACHE_HEAD, Claim, RemovedProfile
from ifpp.roles.rework import count
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from ifpp.store.records import ReworkRow
from tests.store.world import (
    REGION,
    SKU,
    SMDP,
    Node,
    eid,
    import_packages,
    later,
    package_item,
    refusal,
    report_states,
    request,
    send_all,
    settle,
    stock,
    take_one,
)

US = {"region": "US"}
IN_STOCK: dict[str, Any] = {"clean_to_ship": False, "seal": None, "disposition": "STOCK"}


def load(factory: Factory, node: Node, at_s: float, *, sealed: bool = False, **changes: str) -> Claim:
    claim = factory.claim(request(1, **changes), later(at_s))
    send_all(factory, claim)
    more: dict[str, Any] = {} if sealed else IN_STOCK
    settle(factory, claim, 1, "INSTALLED", node=node, at_s=at_s + 1, **more)
    return claim


def told(claim: Claim, state: str = "GONE", **changes: object) -> list[RemovedProfile]:
    return [RemovedProfile(package_id=one.package_id, iccid=one.iccid, state=state, **changes) for one in claim.remove]  # type: ignore[arg-type]


def order(factory: Factory, at_s: float, sku: str = SKU, region: str = "US") -> ReworkRow:
    return factory.rework.order(eid(1), sku, region, "Ann", "wrong region", later(at_s))


@pytest.fixture
def stocked(factory: Factory) -> tuple[Factory, Node]:
    """Chip 1 was loaded for EU into stock; a package for US lies ready."""
    stock(factory, 1)
    import_packages(factory, [package_item(1, 1, region="US")])
    node = Node()
    load(factory, node, 1)
    return factory, node


def test_a_unit_is_emptied_and_becomes_another(stocked: tuple[Factory, Node]) -> None:
    factory, node = stocked
    assert "in stock, not sealed" in factory.unit_gate(eid(1)).reason
    made = order(factory, 10)
    assert (made.packages, made.gone, made.sealed, made.failed) == (1, 0, False, False)
    assert factory.unit_gate(eid(1)).code == "GATE.REWORK"
    assert refusal(factory, request(1), 11).code == "BPP.OTHER_PRODUCT"
    assert refusal(factory, request(1, head_id=CACHE_HEAD, **US), 11).code == "UNIT.UNRESOLVED"
    claim = factory.claim(request(1, **US), later(12))
    assert claim.rework_id == made.rework_id
    assert [one.region for one in claim.remove] == ["EU"]
    assert [one.region for one in claim.packages] == ["US"]
    assert claim.installed == []
    send_all(factory, claim)
    notice = b64encode(b"signed by the chip").decode()
    removed = told(claim, result=0, notification_b64=notice)
    settle(factory, claim, 1, "INSTALLED", node=node, at_s=13, removed=removed, rework_id=made.rework_id)
    record = factory.unit(eid(1))
    assert record is not None
    old, new = record.packages
    assert (old.state, new.state, new.removed) == ("INSTALLED", "INSTALLED", None)
    assert old.removed is not None
    assert (old.removed.result, old.removed.notification_b64) == (0, notice)
    assert factory.unit_gate(eid(1)).clean_to_ship
    assert factory.audit() == []
    assert all(row.holds for row in factory.balance())
    counts = {"ordered": 1, "removed": 1, "reprovisioned": 1, "open": 0, "failed": 0}
    assert count(factory.rework.orders()) == {(SKU, "US"): counts}
    proof = factory.unit_gate(eid(1)).proof
    assert proof is not None
    assert proof.entry["facts"]["iccids"] == [new.iccid]
    with factory.results(SMDP, later(12.5), later(20)) as rows:
        assert [(row.iccid, bool(row.deleted_at), row.notification) for row in rows] == [
            (old.iccid, True, b"signed by the chip"),
            (new.iccid, False, None),
        ]
    said = [(old.package_id, "INSTALLED"), (new.package_id, "INSTALLED")]
    report_states(factory, "before", said[:1], later(12.8))
    with factory.results(SMDP, later(0), later(20), unsaid=True) as rows:
        assert [row.iccid for row in rows] == [old.iccid, new.iccid], "that the old one left the chip is news"
    report_states(factory, "after", said, later(20))
    with factory.results(SMDP, later(0), later(20), unsaid=True) as rows:
        assert list(rows) == []


def test_a_removal_is_told_late_twice_and_openly(stocked: tuple[Factory, Node]) -> None:
    """A dead process left it open, the chip refused once, then it is gone; nothing is counted twice."""
    factory, node = stocked
    made = order(factory, 10)
    states = []
    claim = factory.claim(request(1, **US), later(12))
    for at_s, word in ((12, "UNKNOWN"), (14, "PRESENT"), (16, "GONE"), (18, "GONE")):
        factory.release(claim.attempt_id, "st01", later(at_s))
        event = node.result(1, claim.attempt_id, [], removed=told(claim, word), rework_id=made.rework_id)
        assert take_one(factory, event, later(at_s + 1)).rejected == ()
        states.append(next((row.gone, row.failed) for row in factory.rework.orders()))
        if word in ("UNKNOWN", "PRESENT"):
            claim = factory.claim(request(1, **US), later(at_s + 1))
            assert len(claim.remove) == 1
    assert states == [(0, False), (0, True), (1, False), (1, False)]
    counts = {"ordered": 1, "removed": 1, "reprovisioned": 0, "open": 0, "failed": 0}
    assert count(factory.rework.orders()) == {(SKU, "US"): counts}
    claim = factory.claim(request(1, **US), later(30))
    assert (claim.remove, claim.rework_id) == ([], made.rework_id)
    assert [one.region for one in claim.packages] == ["US"]
    assert factory.audit() == []


def test_a_unit_in_rework_is_not_called_clean(stocked: tuple[Factory, Node]) -> None:
    factory, node = stocked
    order(factory, 10)
    claim = factory.claim(request(1, **US), later(12))
    send_all(factory, claim)
    settle(factory, claim, 1, "INSTALLED", node=node, at_s=13)  # says nothing of the removal
    assert factory.unit_gate(eid(1)).code == "GATE.REWORK"
    record = factory.unit(eid(1))
    assert record is not None
    assert record.clean_to_ship_at is None


def test_a_sealed_unit_can_only_be_emptied(factory: Factory) -> None:
    stock(factory, 1)
    import_packages(factory, [package_item(1, 1, region="US")])
    node = Node()
    load(factory, node, 1, sealed=True)
    assert factory.unit_gate(eid(1)).clean_to_ship
    made = order(factory, 10)
    assert made.sealed
    assert factory.unit_gate(eid(1)).code == "GATE.REWORK"
    claim = factory.claim(request(1, **US), later(12))
    assert (len(claim.remove), claim.packages) == (1, [])
    event = node.result(1, claim.attempt_id, [], removed=told(claim, result=0), **IN_STOCK)
    assert take_one(factory, event, later(13)).rejected == ()
    assert factory.unit_gate(eid(1)).reason == "its chip was emptied after it was sealed"
    assert refusal(factory, request(1, **US), 20).code == "UNIT.EMPTIED"
    assert factory.audit() == []


def test_what_cannot_be_reworked_is_refused(factory: Factory) -> None:
    stock(factory, 1)
    refused = []
    with pytest.raises(SupplyError, match=r"EID\.UNKNOWN"):
        factory.rework.order(eid(9), "", "", "Ann", "why", later(1))
    for at_s in (2, 6, 8):
        with pytest.raises(CustodyError) as caught:
            order(factory, at_s)
        refused.append(caught.value.code)
        if at_s == 2:
            claim = factory.claim(request(1), later(3))
        elif at_s == 6:
            send_all(factory, claim)
            settle(factory, claim, 1, "INSTALLED", at_s=7, **IN_STOCK)
            order(factory, 7.5)
    assert refused == ["REWORK.NOTHING", "REWORK.OPEN_PACKAGE", "REWORK.OPEN"]


def test_a_removal_that_nobody_ordered_is_parked(stocked: tuple[Factory, Node]) -> None:
    factory, node = stocked
    claim = factory.claim(request(1), later(5))
    gone = [RemovedProfile(package_id=one.package_id, iccid=one.iccid, state="GONE") for one in claim.installed]
    answer = take_one(factory, node.result(1, claim.attempt_id, [], removed=gone), later(6))
    assert [row.code for row in answer.rejected] == ["CUSTODY.EVENT_REFUSED"]


def test_fresh_packages_are_asked_for_what_a_chip_shall_become(factory: Factory) -> None:
    stock(factory, 1)
    load(factory, Node(), 1)
    europe, america = (Wish(SKU, region, (Planned("operational-0"),)) for region in (REGION, "US"))
    (before,) = factory.lot_chips(None, later(5))
    assert (europe.lacking(before), america.elsewhere(before)) == ([], True)
    order(factory, 10)
    (chip,) = factory.lot_chips(None, later(11))
    assert chip.held == ()
    assert (europe.elsewhere(chip), america.elsewhere(chip)) == (True, False)
    assert america.lacking(chip) == [Planned("operational-0")]
    assert chip.free_keys
