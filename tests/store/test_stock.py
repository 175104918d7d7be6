"""How far the stock goes, and deliveries that are withdrawn; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json

import pytest

from ifpp.errors import SupplyError
from ifpp.store.factory import Factory
from ifpp.store.stock import StockLevel
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.world import (
    REGION,
    SKU,
    SMDP,
    Node,
    chip_item,
    eid,
    import_chips,
    import_packages,
    later,
    load,
    outcome,
    package_item,
    refusal,
    request,
    states,
    stock,
    take_one,
)

DELIVERY = "2"  # of a `stock`: its first file are the chips


def test_a_withdrawn_delivery_is_given_out_no_more(factory: Factory, url: str) -> None:
    stock(factory, 4)
    sent = factory.claim(request(1, "a"), START)
    factory.mark_sent(sent.packages[0].package_id, "a", "st01", START)
    held = factory.claim(request(2, "b"), START)
    done = factory.withdraw(DELIVERY, "Eve", "wrong region", START)
    assert (done.batch, done.stopped, done.going_on, done.new) == (2, 2, 2, True)
    assert refusal(factory, request(3)).code == "BPP.WITHDRAWN"
    assert states(factory, 3) == ["AVAILABLE"]
    factory.mark_sent(held.packages[0].package_id, "b", "st01", START)
    assert len(factory.claim(request(1, "c"), START).unresolved) == 1
    result = outcome(1, 0, "INSTALLED", package_id=sent.packages[0].package_id)
    assert not take_one(factory, Node().result(1, "a", [result])).rejected
    assert states(factory, 1) == ["INSTALLED"]
    assert factory.audit() == []
    with pytest.raises(REFUSALS, match="neither changed nor deleted"), raw(url) as connection:
        connection.execute("DELETE FROM withdrawal")


def test_what_a_head_gives_back_stays_withdrawn(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "a"), START)
    factory.withdraw(DELIVERY, "Eve", "wrong region", START)
    factory.release("a", "st01", START)
    assert refusal(factory, request(1)).code == "BPP.WITHDRAWN"


def test_the_first_word_on_a_delivery_counts(factory: Factory) -> None:
    stock(factory, 1)
    factory.withdraw("order.esbpp.jsonl", "Eve", "wrong region", START)
    again = factory.withdraw(DELIVERY, "Adam", "me too", later(9))
    assert (again.by, again.reason, again.at, again.new) == ("Eve", "wrong region", "2026-03-01T08:00:00.000Z", False)
    with factory.audit_log() as log:
        notes = [json.loads(entry.facts) for entry in log.entries("factory", 0, 100) if entry.kind == "withdrawn"]
    assert notes == [{"batch": 2, "name": "order.esbpp.jsonl", "by": "Eve", "reason": "wrong region"}]


@pytest.mark.parametrize("name", ["1", "99", "chips.esed.jsonl", "' OR 1=1 --", "../order.esbpp.jsonl", ""])
def test_only_a_delivery_is_withdrawn(factory: Factory, name: str) -> None:
    stock(factory, 1)
    with pytest.raises(SupplyError, match=r"BATCH\.UNKNOWN"):
        factory.withdraw(name, "Eve", "why", START)
    assert factory.claim(request(1), START).packages


def test_a_name_that_two_deliveries_have_is_refused(factory: Factory) -> None:
    stock(factory, 1)
    import_packages(factory, [package_item(1, 1)])
    with pytest.raises(SupplyError, match="give its number"):
        factory.withdraw("order.esbpp.jsonl", "Eve", "why", START)
    factory.withdraw("3", "Eve", "why", START)
    assert [package.profile_type for package in factory.claim(request(1), START).packages] == ["operational-0"]


def test_chips_of_a_withdrawn_delivery_lack_it_again(factory: Factory) -> None:
    stock(factory, 1)
    factory.withdraw(DELIVERY, "Eve", "wrong region", START)
    (chip,) = factory.lot_chips(None, START)
    assert chip.held == ()
    assert [one.profile_type for one in chip.spoiled] == ["operational-0"]
    assert chip.spoiled[0].smdp_oid == SMDP


def test_levels_count_chips_that_can_be_loaded_and_the_last_hour(factory: Factory) -> None:
    stock(factory, 5, packages_each=2)
    import_chips(factory, [chip_item(8), chip_item(9)])
    import_packages(factory, [package_item(8, 0, expires_at=later(60)), package_item(9, 0, region="US")])
    for number, at_s in ((1, 0), (2, 3000)):
        load(factory, number, node=Node(f"st{number:02d}"), at_s=at_s)
    assert factory.stock_levels(later(3100))[0].chips == 3, "one of the five has expired, two are loaded"
    assert factory.stock_levels(later(10)) == [StockLevel(SKU, REGION, 4, 2.0), StockLevel(SKU, "US", 1, 0.0)]
    first, second = factory.stock_levels(later(3700))
    assert (first.chips, first.units_an_hour, first.hours) == (3, 1.0, 3.0)
    assert (first.low(3.0), first.low(3.1), first.low(0)) == (False, True, False)
    assert (second.hours, second.low(1000)) == (None, False)
    assert factory.suppliers() == {(SKU, REGION): [SMDP], (SKU, "US"): [SMDP]}
    factory.withdraw("4", "Eve", "why", START)
    assert [level.chips for level in factory.stock_levels(later(10))] == [3, 0]
    assert str(eid(1)) not in [chip.eid for chip in factory.lot_chips(None, START)]
