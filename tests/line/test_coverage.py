"""What of a job order, of chips and of the whole store is covered, and what has to be ordered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import SupplyError
from ifpp.line.coverage import Coverage, CoverageReport, OrderLine, cover
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from tests.clock import START
from tests.store.world import (
    REGION,
    SKU,
    SMDP,
    Node,
    add_job,
    chip_item,
    eid,
    import_chips,
    import_packages,
    later,
    load,
    package_item,
    stock,
)

OTHER_SMDP = "2.999.20"


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as opened:
        yield opened


def coverage(factory: Factory, *, at_s: float = 0, hours: float = 8.0, **subject: str) -> CoverageReport:
    return cover(factory, "L1", now=later(at_s), low_stock_hours=hours, **subject)


def only(report: CoverageReport) -> Coverage:
    (one,) = report.products
    return one


def test_everything_there_is(factory: Factory) -> None:
    stock(factory, 3)
    import_chips(factory, [chip_item(4), chip_item(5)])
    import_packages(factory, [package_item(4, 0, region="US")])
    report = coverage(factory)
    assert (report.chips, report.blank) == (5, 1)
    europe, america = report.products
    assert (europe.sku, europe.region, europe.covered, europe.needed, europe.plan) == (SKU, REGION, 3, None, "")
    assert europe.profiles == ["operational-0"]
    assert (america.region, america.covered, america.uncovered, america.orders) == ("US", 1, 0, [])


def test_a_job_order_names_the_chips_it_lacks_packages_for(factory: Factory) -> None:
    stock(factory, 3)
    import_chips(factory, [chip_item(number) for number in (4, 5, 6)])
    add_job(factory, quantity=5)
    one = only(coverage(factory, job="JO-1"))
    assert (one.needed, one.covered, one.uncovered, one.missing, one.spare) == (5, 3, 2, 0, 0)
    lacking = [str(eid(4)), str(eid(5))]
    assert one.uncovered_eids == lacking
    assert one.orders == [OrderLine(SMDP, "operational-0", 2, lacking)]
    load(factory, 1, node=Node("st01"))
    assert (only(coverage(factory, job="JO-1")).needed, only(coverage(factory, job="JO-1")).covered) == (4, 2)


def test_too_many_and_too_few_chips(factory: Factory) -> None:
    stock(factory, 3)
    add_job(factory, quantity=2)
    assert (only(coverage(factory, job="JO-1")).spare, only(coverage(factory, job="JO-1")).missing) == (1, 0)
    add_job(factory, 2, quantity=9)
    assert (only(coverage(factory, job="JO-1")).spare, only(coverage(factory, job="JO-1")).missing) == (0, 6)


def test_a_plan_says_what_is_missing_from_whom(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=3), chip_item(2, keys=1)])
    import_packages(factory, [package_item(1), package_item(2)])
    planned = [Planned("operational-0"), Planned("bootstrap", OTHER_SMDP)]
    factory.change_plan((SKU, REGION, ""), planned, (START, None), "Eve", "two profiles", START)
    one = only(coverage(factory))
    assert one.plan == f"{SKU}/{REGION} version 1"
    assert one.profiles == ["operational-0", f"bootstrap@{OTHER_SMDP}"]
    assert (one.covered, one.uncovered, one.short) == (0, 2, 1)
    assert one.uncovered_eids == [str(eid(1)), str(eid(2))]
    assert one.orders == [OrderLine(OTHER_SMDP, "bootstrap", 1, [str(eid(1))])], "chip 2 has no key for it"


def test_spoiled_packages_are_no_cover(factory: Factory) -> None:
    stock(factory, 2)
    import_chips(factory, [chip_item(3)])
    import_packages(factory, [package_item(3, 0, expires_at=later(5))])
    factory.withdraw("2", "Eve", "wrong", START)
    one = only(coverage(factory, at_s=10))
    assert (one.covered, one.uncovered, one.spoiled) == (0, 3, 3)


def test_how_long_it_lasts_and_when_that_is_low(factory: Factory) -> None:
    stock(factory, 5)
    assert only(coverage(factory)).hours_left is None
    load(factory, 1, node=Node("st01"))
    load(factory, 2, node=Node("st02"))
    one = only(coverage(factory, at_s=10))
    assert (one.units_an_hour, one.hours_left, one.low) == (2.0, 1.5, True)
    assert not only(coverage(factory, at_s=10, hours=1.5)).low
    assert not only(coverage(factory, at_s=4000)).low, "nothing is made"
    add_job(factory, quantity=5)
    assert not only(coverage(factory, at_s=10, job="JO-1")).low, "it is enough for the rest of the job"
    assert not only(coverage(factory, at_s=10)).low, "and there is no other job for it"
    add_job(factory, job_order_id="JO-2", quantity=50)
    assert only(coverage(factory, at_s=10)).low


def test_a_lot_counts_its_own_chips(factory: Factory) -> None:
    stock(factory, 3)
    with factory.intake("esed", "second.esed.jsonl", "second", START) as intake:
        intake.add_chip(chip_item(7))
    import_packages(factory, [package_item(7)])
    assert only(coverage(factory, lot="second.esed.jsonl")).covered == 1
    assert coverage(factory, lot="1").chips == 3


def test_unknown_names_are_refused(factory: Factory) -> None:
    stock(factory, 1)
    with pytest.raises(SupplyError, match=r"JOB\.UNKNOWN"):
        coverage(factory, job="JO-9")
    with pytest.raises(SupplyError, match=r"LOT\.UNKNOWN"):
        coverage(factory, lot="' OR 1=1 --")


def test_what_is_reserved_counts_for_its_own_job_order_only(factory: Factory) -> None:
    stock(factory, 3)
    add_job(factory, quantity=3)
    add_job(factory, job_order_id="JO-2", quantity=3)
    factory.reserve("JO-2", [str(eid(1)), str(eid(2))], "Eve", "as agreed", START)
    ours, theirs, all_ = (only(coverage(factory, job=job)) for job in ("JO-1", "JO-2", ""))
    assert (ours.covered, ours.reserved, ours.missing) == (1, 0, 2)
    assert (theirs.covered, theirs.reserved, theirs.missing) == (3, 2, 0)
    assert (all_.covered, all_.reserved) == (3, 2)
