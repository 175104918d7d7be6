"""Profile plans: which packages a claim gives, in which order, and why no other; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from ifpp.errors import SupplyError
from ifpp.store.factory import Factory
from ifpp.store.plans import Plan, Planned
from ifpp.store.selection import Product, Selection
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.world import (
    REGION,
    SKU,
    chip_item,
    eid,
    import_chips,
    import_packages,
    later,
    load,
    package_item,
    refusal,
    request,
    states,
    stock,
)

OTHER_SMDP = "2.999.20"
OURS = Product(SKU, REGION)


def plan(
    factory: Factory, *profiles: str, customer: str = "", start: datetime = START, end: datetime | None = None
) -> Plan:
    planned = [Planned(*text.split("@")) for text in profiles]
    return factory.change_plan((SKU, REGION, customer), planned, (start, end), "Eve", "as ordered", START)


def claimed(factory: Factory, number: int, at_s: float = 0, **changes: Any) -> list[str]:
    answer = factory.claim(request(number, **changes), later(at_s))
    assert {(package.sku, package.region) for package in answer.packages} <= {(SKU, REGION)}
    return [package.profile_type for package in answer.packages]


def reasons(selection: Selection) -> dict[str, str]:
    return {row.profile_type: why for row, why in selection.refused}


def test_without_a_plan_everything_delivered_is_loaded(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    assert factory.plan_for(SKU, REGION, "", START) is None
    assert claimed(factory, 1) == ["operational-0", "operational-1"]


def test_a_claim_follows_the_plan_in_its_order(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=3)])
    import_packages(factory, [package_item(1, 0), package_item(1, 1), package_item(1, 2, smdp_oid=OTHER_SMDP)])
    plan(factory, f"operational-2@{OTHER_SMDP}", "operational-0")
    assert claimed(factory, 1, attempt_id="a") == ["operational-2", "operational-0"]
    assert claimed(factory, 1, attempt_id="a") == ["operational-2", "operational-0"], "asked again"
    assert states(factory, 1) == ["CLAIMED", "AVAILABLE", "CLAIMED"]
    assert factory.audit() == []
    unit = factory.unit(str(eid(1)))
    assert unit is not None
    assert unit.packages[0].history[-1].detail == f"plan {SKU}/{REGION} version 1"


@pytest.mark.parametrize("wanted", ["operational-9", f"operational-1@{OTHER_SMDP}"])
def test_several_profiles_are_given_all_or_none(factory: Factory, wanted: str) -> None:
    stock(factory, 1, packages_each=2)
    plan(factory, "operational-0", wanted)
    error = refusal(factory, request(1))
    assert error.code == "BPP.INCOMPLETE"
    assert wanted in error.detail
    assert states(factory, 1) == ["AVAILABLE", "AVAILABLE"]


def test_nothing_is_sealed_that_lacks_a_profile_of_its_plan(factory: Factory) -> None:
    """One package is sent and open, the other is not there: reading the chip alone must not finish the unit."""
    stock(factory, 1)
    first = factory.claim(request(1, "a"), START)
    factory.mark_sent(first.packages[0].package_id, "a", "st01", START)
    plan(factory, "operational-0", "operational-1")
    assert refusal(factory, request(1)).code == "BPP.INCOMPLETE"
    import_packages(factory, [package_item(1, 1)])
    again = factory.claim(request(1, "b"), START)
    assert [package.profile_type for package in again.packages] == ["operational-1"]
    assert [package.profile_type for package in again.unresolved] == ["operational-0"]


def test_what_is_installed_is_not_loaded_again(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=3)])
    import_packages(factory, [package_item(1, 0), package_item(1, 1, profile_type="operational-0")])
    plan(factory, "operational-0")
    load(factory, 1, clean_to_ship=False, seal=None)
    again = factory.claim(request(1, "b"), START)
    assert (again.packages, len(again.installed)) == ([], 1)
    plan(factory, "operational-0", "operational-2")
    assert refusal(factory, request(1)).code == "BPP.INCOMPLETE"


def test_of_two_packages_of_one_type_the_one_that_expires_first_is_loaded(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=4)])
    dates = (None, later(900), later(300), later(-1))
    import_packages(
        factory,
        [package_item(1, slot, profile_type="operational", expires_at=date) for slot, date in enumerate(dates)],
    )
    plan(factory, "operational")
    (package,) = factory.claim(request(1), START).packages
    assert package.iccid == package_item(1, 2).iccid
    _, selection = factory.try_plan(str(eid(1)), OURS, later(10))
    why = [why for _, why in selection.refused]
    assert any(why.startswith("expired at") for why in why)
    assert any("loaded first" in why for why in why)


def test_a_plan_holds_from_its_day_to_its_end(factory: Factory) -> None:
    plan(factory, "standard")
    plan(factory, "summer", start=later(100), end=later(200))
    in_force = [factory.plan_for(SKU, REGION, "", later(at)) for at in (-1, 0, 99, 100, 199, 200)]
    names = [None if one is None else str(one.profiles[0]) for one in in_force]
    assert names == [None, "standard", "standard", "summer", "summer", "standard"]
    plan(factory, start=later(300))
    assert factory.plan_for(SKU, REGION, "", later(299)) is not None
    assert factory.plan_for(SKU, REGION, "", later(300)) is None


def test_the_customers_plan_goes_before_the_general_one(factory: Factory) -> None:
    stock(factory, 3, packages_each=2)
    plan(factory, "operational-0")
    plan(factory, "operational-1", customer="acme")
    assert claimed(factory, 1, customer="acme") == ["operational-1"]
    assert claimed(factory, 2, customer="other") == ["operational-0"]
    plan(factory, customer="acme")
    assert claimed(factory, 3, customer="acme") == ["operational-0"], "the customer's plan has ended"


def test_every_version_stays_on_record(factory: Factory, url: str) -> None:
    plan(factory, "one")
    plan(factory, "two", "three")
    plan(factory, "four", customer="acme")
    assert [(one.customer, one.version, list(map(str, one.profiles))) for one in factory.plan_history()] == [
        ("", 2, ["two", "three"]),
        ("", 1, ["one"]),
        ("acme", 1, ["four"]),
    ]
    assert {(one.by, one.reason, one.at) for one in factory.plan_history()} == {
        ("Eve", "as ordered", "2026-03-01T08:00:00.000Z")
    }
    with factory.audit_log() as log:
        notes = [json.loads(entry.facts) for entry in log.entries("factory", 0, 100) if entry.kind == "plan"]
    assert [(note["version"], note["profiles"], note["by"]) for note in notes] == [
        (1, ["one"], "Eve"),
        (2, ["two", "three"], "Eve"),
        (1, ["four"], "Eve"),
    ]
    for change in ("UPDATE profile_plan SET reason = 'x'", "DELETE FROM profile_plan"):
        with pytest.raises(REFUSALS, match="neither changed nor deleted"), raw(url) as connection:
            connection.execute(change)


def test_the_choice_and_every_refusal_are_explained(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=6)])
    items = [
        package_item(1, 0),
        package_item(1, 1, sku="OTHER"),
        package_item(1, 2, region="US"),
        package_item(1, 3),
        package_item(1, 4, expires_at=later(-5)),
    ]
    import_packages(factory, items)
    import_packages(factory, [package_item(1, 5)])
    factory.withdraw("3", "Eve", "wrong region", START)
    force = plan(factory, "operational-0")
    found, selection = factory.try_plan(str(eid(1)), OURS, START)
    assert found == force
    assert [row.profile_type for row in selection.granted] == ["operational-0"]
    assert reasons(selection) == {
        "operational-1": f"is for OTHER in {REGION}",
        "operational-2": f"is for {SKU} in US",
        "operational-3": f"profile type operational-3 is not in the plan {SKU}/{REGION} version 1",
        "operational-4": "expired at 2026-03-01T07:59:55.000Z",
        "operational-5": "its delivery was withdrawn",
    }
    assert states(factory, 1) == ["AVAILABLE"] * 6, "a test changes nothing"
    claim = factory.claim(request(1, "a"), START)
    _, selection = factory.try_plan(str(eid(1)), OURS, START)
    assert reasons(selection)["operational-0"].startswith("claimed by st01 h01 until")
    factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
    _, selection = factory.try_plan(str(eid(1)), OURS, START)
    assert "must be read first" in reasons(selection)["operational-0"]
    with pytest.raises(SupplyError, match=r"EID\.UNKNOWN"):
        factory.try_plan(str(eid(2)), OURS, START)


def test_job_and_packages_must_speak_of_the_same_product(factory: Factory) -> None:
    """The traveller says one SKU, the packages of the chip another: nothing is given, by a code of its own."""
    stock(factory, 1)
    import_chips(factory, [chip_item(2)])
    import_packages(factory, [package_item(2, 0, sku="OTHER")])
    error = refusal(factory, request(2))
    assert error.code == "BPP.OTHER_PRODUCT"
    assert "OTHER in EU" in error.detail
    assert refusal(factory, request(1, sku="OTHER")).code == "BPP.OTHER_PRODUCT"
    assert claimed(factory, 1) == ["operational-0"]
