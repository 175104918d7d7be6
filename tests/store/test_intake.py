"""Deliveries going in: all or nothing, once, and every bad item named."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from ifpp.errors import IfppError, IntakeError
from ifpp.model.chip import OneTimeKey
from ifpp.store import intake as module
from ifpp.store.factory import Factory
from ifpp.store.records import PackageItem
from tests.clock import START
from tests.store.world import (
    SMDP,
    chip_item,
    eid,
    iccid,
    import_chips,
    import_packages,
    job,
    package_item,
    request,
    states,
    stock,
)


def bad_items(factory: Factory, *items: PackageItem) -> list[tuple[str, str]]:
    with pytest.raises(IntakeError, match=r"INTAKE\.REJECTED") as caught:
        import_packages(factory, items)
    assert all(isinstance(item, IfppError) for item in caught.value.items)
    return [(item.code, item.where) for item in caught.value.items]


def test_what_was_delivered_is_found_again(factory: Factory) -> None:
    stock(factory, 3, packages_each=2)
    chip = factory.chip(eid(2))
    item = chip_item(2)
    assert chip is not None
    assert (chip.certificate, chip.eum_chain, chip.info2, chip.otk_list) == (
        item.certificate,
        item.eum_chain,
        item.info2,
        item.otk_list,
    )
    assert chip.keys == {key.otk_id.hex(): key.public for key in item.keys}
    assert chip.clean_to_ship_at is None
    assert factory.chip(eid(9)) is None
    assert factory.package_bytes(package_item(2, 1).bpp_sha256) == package_item(2, 1).bpp
    assert [(row.kind, row.chips, row.packages, row.jobs) for row in factory.batches()] == [
        ("esed", 3, 0, 0),
        ("esbpp", 0, 6, 0),
    ]


def test_more_than_one_chunk(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 3)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 2 * len(package_item(1).bpp))
    stock(factory, 10, packages_each=2)
    assert [row.imported for row in factory.balance()] == [20]
    assert factory.audit() == []
    assert {state for number in range(1, 11) for state in states(factory, number)} == {"AVAILABLE"}


def test_a_file_is_taken_once(factory: Factory) -> None:
    with factory.intake("esed", "one.jsonl", "digest", START) as intake:
        intake.add_chip(chip_item(1))
    with (
        pytest.raises(IntakeError, match=r"INTAKE\.DUPLICATE: two\.jsonl"),
        factory.intake("esed", "two.jsonl", "digest", START),
    ):
        pytest.fail("the file must be refused before it is read")
    assert len(factory.batches()) == 1


def test_nothing_stays_of_a_file_that_breaks_off(factory: Factory) -> None:
    stock(factory, 1)
    with suppress(KeyError), factory.intake("esbpp", "cut.jsonl", "digest", START) as intake:
        intake.add_package(package_item(1, 1))
        raise KeyError
    assert (len(factory.batches()), states(factory, 1)) == (2, ["AVAILABLE"])
    with factory.intake("esbpp", "cut.jsonl", "digest", START) as intake:
        intake.add_package(package_item(1, 1))
    assert states(factory, 1) == ["AVAILABLE", "AVAILABLE"]


def test_a_chip_comes_once(factory: Factory) -> None:
    import_chips(factory, [chip_item(1)])
    with pytest.raises(IntakeError) as caught:
        import_chips(factory, [chip_item(2), chip_item(1)])
    assert [(item.code, item.where) for item in caught.value.items] == [("INTAKE.DUPLICATE", eid(1))]
    assert factory.chip(eid(2)) is None


def test_a_key_belongs_to_one_chip(factory: Factory) -> None:
    import_chips(factory, [chip_item(1)])
    stolen = replace(chip_item(2), keys=chip_item(1).keys)
    with pytest.raises(IntakeError) as caught:
        import_chips(factory, [stolen])
    assert [item.code for item in caught.value.items] == ["INTAKE.KEY_REUSED"]


def test_a_spent_key_is_not_offered(factory: Factory) -> None:
    spent = OneTimeKey(1, b"\x01" * 4, 2, 0, None)
    import_chips(factory, [replace(chip_item(1), keys=(chip_item(1).keys[0], spent))])
    assert bad_items(factory, package_item(1, 1)) == [("INTAKE.UNKNOWN_KEY", eid(1))]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("INTAKE.UNKNOWN_EID", {"eid": eid(7)}),
        ("INTAKE.UNKNOWN_KEY", {"otk_id": b"\x09" * 4}),
        ("INTAKE.KEY_REUSED", {"otk_id": b"\x00" * 4}),
        ("INTAKE.DUPLICATE", {"iccid": iccid(10)}),
        ("INTAKE.DUPLICATE", {"bpp_sha256": package_item(1).bpp_sha256}),
        ("INTAKE.DUPLICATE", {"transaction_id": package_item(1).transaction_id}),
    ],
    ids=["eid", "key", "key used", "iccid", "content", "transaction"],
)
def test_a_bad_package_is_named_and_nothing_is_taken(factory: Factory, code: str, changes: dict[str, Any]) -> None:
    stock(factory, 3)
    bad = package_item(1, 1, **changes)
    assert bad_items(factory, package_item(2, 1), bad, package_item(3, 1)) == [(code, bad.eid)]
    assert states(factory, 2) == ["AVAILABLE"]
    assert factory.audit() == []


def test_every_bad_item_of_a_file_is_named(factory: Factory) -> None:
    stock(factory, 3)
    items = [package_item(1, 0), package_item(2, 1), package_item(9, 0), package_item(3, 1, otk_id=b"\x08" * 4)]
    assert [code for code, _ in bad_items(factory, *items)] == [
        "INTAKE.DUPLICATE",
        "INTAKE.UNKNOWN_EID",
        "INTAKE.UNKNOWN_KEY",
    ]


def test_two_packages_for_one_key_in_one_file(factory: Factory) -> None:
    import_chips(factory, [chip_item(1)])
    other = package_item(1, 1, otk_id=b"\x00" * 4)
    assert bad_items(factory, package_item(1, 0), other) == [("INTAKE.KEY_REUSED", eid(1))]


def test_a_file_of_nothing_but_bad_items_is_given_up_early(factory: Factory) -> None:
    items = [package_item(number) for number in range(1, 400)]
    assert len(bad_items(factory, *items)) == 100


def test_jobs_by_line_and_version(factory: Factory) -> None:
    with factory.intake("job", "one", "1", START) as intake:
        intake.add_job("L1", job(1))
        intake.add_job("L1", job(1, job_order_id="JO-2"))
        intake.add_job("L2", job(1, job_order_id="JO-3"))
    with factory.intake("job", "two", "2", START) as intake:
        intake.add_job("L1", job(2, quantity=7))
    assert [(order.job_order_id, order.version, order.quantity) for order in factory.jobs("L1")] == [
        ("JO-1", 2, 7),
        ("JO-2", 1, 100),
    ]
    assert [order.job_order_id for order in factory.jobs("L2")] == ["JO-3"]
    assert factory.jobs("L3") == []
    for stale in (1, 2):
        with (
            pytest.raises(IntakeError, match=r"INTAKE\.REJECTED"),
            factory.intake("job", "three", "3", START) as intake,
        ):
            intake.add_job("L1", job(stale))


def test_a_job_can_move_to_another_line(factory: Factory) -> None:
    for version, line in ((1, "L1"), (2, "L2")):
        with factory.intake("job", line, line, START) as intake:
            intake.add_job(line, job(version))
    assert factory.jobs("L1") == []
    assert [order.version for order in factory.jobs("L2")] == [2]


def test_the_balance_separates_sku_region_and_smdp(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=4)])
    items = [
        package_item(1, 0),
        package_item(1, 1, sku="OTHER"),
        package_item(1, 2, region="US"),
        package_item(1, 3, smdp_oid="2.999.11"),
    ]
    import_packages(factory, items)
    factory.claim(request(1), START)
    rows = {(row.sku, row.region, row.smdp_oid): row for row in factory.balance()}
    assert len(rows) == 4
    assert all(row.imported == 1 and row.holds for row in rows.values())
    assert rows["TRACKER-2", "EU", SMDP].claimed == 1
    assert rows["OTHER", "EU", SMDP].available == 1
