"""What chips have and lack; on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifpp.errors import SupplyError
from ifpp.store import supply as module
from ifpp.store.factory import Factory
from ifpp.store.supply import HeldPackage, LotChip
from tests.clock import START
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
    package_item,
    stock,
)


def chips(factory: Factory, number: int | None = None) -> dict[str, LotChip]:
    found = list(factory.lot_chips(number, START))
    assert [chip.eid for chip in found] == sorted(chip.eid for chip in found)
    return {chip.eid: chip for chip in found}


def test_chips_with_what_they_have_and_their_free_keys(factory: Factory) -> None:
    stock(factory, 3)
    import_packages(factory, [package_item(2, 1)])
    found = chips(factory)
    keys = {number: chip_item(number).keys for number in (1, 2, 3)}
    held = HeldPackage(SKU, REGION, "operational-0", SMDP)
    assert found[eid(1)].held == (held,)
    assert found[eid(1)].free_keys == ((keys[1][1].otk_id.hex(), keys[1][1].public),)
    assert set(found[eid(2)].held) == {held, HeldPackage(SKU, REGION, "operational-1", SMDP)}
    assert found[eid(2)].free_keys == ()
    assert (found[eid(3)].certificate, found[eid(3)].otk_list) == (chip_item(3).certificate, chip_item(3).otk_list)


def test_a_lot_is_one_file(factory: Factory) -> None:
    for name, numbers in (("one", (1, 2)), ("two", (3,)), ("two", (4,))):
        with factory.intake("esed", name, f"{name}-{numbers}", START) as intake:
            for number in numbers:
                intake.add_chip(replace(chip_item(number), info2=name.encode()))
    assert list(chips(factory, factory.lot_number("one"))) == [eid(1), eid(2)]
    assert list(chips(factory, factory.lot_number("3"))) == [eid(4)]
    assert len(chips(factory)) == 4
    for name, why in (("two", "give its number"), ("4", "no eUICC data"), ("' OR 1=1 --", "no eUICC data")):
        with pytest.raises(SupplyError, match=why):
            factory.lot_number(name)
    ((certificates, info2),) = factory.lot_shared(1).values()
    assert (certificates, list(info2.values())) == ([b"eum certificate"], [b"one"])
    ((_, both),) = factory.lot_shared(None).values()
    assert sorted(both.values()) == [b"one", b"two"]


def test_more_chips_than_a_page(factory: Factory) -> None:
    import_chips(factory, (chip_item(number) for number in range(1, module.PAGE + 3)))
    assert len(chips(factory)) == module.PAGE + 2


def test_what_is_spent_expired_or_gone_does_not_count(factory: Factory) -> None:
    import_chips(factory, [chip_item(number) for number in range(1, 6)])
    soon = [package_item(1, expires_at=later(-1)), package_item(2, expires_at=later(60))]
    import_packages(factory, [*soon, package_item(3), package_item(4), package_item(5)])
    node = Node()
    for number, word in ((3, "SPENT"), (4, "FAILED"), (5, "INSTALLED")):
        load(factory, number, word, node=node)
    held = {number: bool(chips(factory)[eid(number)].held) for number in (1, 2, 3, 4)}
    assert held == {1: False, 2: True, 3: False, 4: True}
    assert eid(5) not in chips(factory), "it has left"
