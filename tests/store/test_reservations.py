"""Chips kept for one job order, and claims for somebody else's job; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ifpp.errors import SupplyError
from ifpp.line.request import Wish
from ifpp.line.reserve import choose_chips
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from tests.clock import START
from tests.store.world import (
    REGION,
    SKU,
    Node,
    add_job,
    chip_item,
    eid,
    import_chips,
    job,
    later,
    load,
    refusal,
    request,
    send_all,
    settle,
    states,
    stock,
)

BY = "Eve", "as agreed"


def eids(*numbers: int) -> list[str]:
    return [str(eid(number)) for number in numbers]


def entries(factory: Factory, *kinds: str) -> list[dict[str, Any]]:
    with factory.audit_log() as log:
        return [json.loads(entry.facts) for entry in log.entries("factory", 0, 1000) if entry.kind in kinds]


@pytest.fixture(autouse=True)
def jobs(factory: Factory) -> None:
    stock(factory, 4)
    add_job(factory)
    add_job(factory, job_order_id="JO-2")


def test_nobody_else_gets_what_is_reserved(factory: Factory) -> None:
    assert factory.reserve("JO-1", eids(1, 2), *BY, START) == 2
    for other in ("JO-2", ""):
        error = refusal(factory, request(1, job_order_id=other))
        assert (error.code, error.detail) == ("BPP.RESERVED", "kept for job order JO-1")
    assert states(factory, 1) == ["AVAILABLE"]
    assert factory.claim(request(1, job_order_id="JO-1"), START).packages
    assert factory.claim(request(3, job_order_id="JO-2"), START).packages
    assert factory.reservations() == {"JO-1": 2}
    assert factory.audit() == []
    (note,) = entries(factory, "reserved")
    assert (note["job"], note["chips"], note["by"], note["reason"]) == ("JO-1", 2, *BY)


def test_a_reservation_ends_with_its_job(factory: Factory) -> None:
    factory.reserve("JO-1", eids(1, 2), *BY, START)
    add_job(factory, 2, dispatch_status="COMPLETED")
    assert factory.reservations() == {}
    assert {chip.kept_for for chip in factory.lot_chips(None, START)} == {""}
    assert factory.claim(request(1, job_order_id="JO-2"), START).packages
    assert factory.reserve("JO-2", eids(2), *BY, START) == 1
    assert refusal(factory, request(2, job_order_id="JO-1")).code == "BPP.RESERVED"
    with pytest.raises(SupplyError, match=r"JOB\.UNKNOWN"):
        factory.reserve("JO-1", eids(3), *BY, START)


def test_what_is_freed_is_for_all(factory: Factory) -> None:
    factory.reserve("JO-1", eids(1, 2), *BY, START)
    assert (factory.unreserve("JO-1", *BY, later(1)), factory.unreserve("JO-1", *BY, later(2))) == (2, 0)
    assert factory.claim(request(1, job_order_id="JO-2"), START).packages
    assert [note["chips"] for note in entries(factory, "unreserved")] == [2]


def test_all_or_none_is_reserved(factory: Factory) -> None:
    factory.reserve("JO-2", eids(1), *BY, START)
    factory.claim(request(2, "a", job_order_id="JO-2"), START)
    load(factory, 3)
    with pytest.raises(SupplyError) as caught:
        factory.reserve("JO-1", [*eids(4, 1, 2, 3), "' OR 1=1 --"], *BY, START)
    error = caught.value
    assert error.code == "RESERVATION.REFUSED"
    for said in ("is kept for JO-2", "has a package that is CLAIMED", "is clean to ship", "' OR 1=1 -- is not in"):
        assert said in error.detail
    assert factory.reservations() == {"JO-2": 1}
    assert factory.claim(request(4, job_order_id="JO-2"), START).packages


def test_the_same_reservation_twice_is_one(factory: Factory) -> None:
    assert [factory.reserve("JO-1", eids(1, 1, 2), *BY, START) for _ in range(2)] == [2, 0]
    factory.claim(request(1, job_order_id="JO-1"), START)
    assert factory.reserve("JO-1", eids(1, 3), *BY, START) == 1, "a head of its own job is no hindrance"
    assert factory.reservations() == {"JO-1": 3}
    with pytest.raises(SupplyError, match=r"JOB\.UNKNOWN"):
        factory.reserve("JO-9", eids(1), *BY, START)


def test_a_claim_that_was_made_before_goes_its_way(factory: Factory) -> None:
    claim = factory.claim(request(1, "a", job_order_id="JO-1"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "UNKNOWN")
    with pytest.raises(SupplyError, match="UNKNOWN"):
        factory.reserve("JO-2", eids(1), *BY, START)
    assert factory.claim(request(1, "b", job_order_id="JO-1"), START).unresolved


def test_a_job_for_other_stations_gets_nothing_here(factory: Factory) -> None:
    add_job(factory, job_order_id="JO-3", stations=["st02", "st03"])
    error = refusal(factory, request(1, job_order_id="JO-3"))
    assert (error.code, error.detail) == ("JOB.OTHER_STATION", "it is for st02, st03")
    assert states(factory, 1) == ["AVAILABLE"]
    assert factory.claim(request(1, job_order_id="JO-3", station_id="st02"), START).packages


def test_a_number_of_chips_are_the_first_that_are_free(factory: Factory) -> None:
    import_chips(factory, [chip_item(5)])
    factory.reserve("JO-2", eids(1), *BY, START)
    factory.claim(request(2, "a", job_order_id="JO-1"), START)
    order = job()
    assert choose_chips(factory, order, 1, lot="", now=START) == eids(3)
    factory.reserve("JO-1", eids(4), *BY, START)
    assert choose_chips(factory, order, 2, lot="", now=START) == eids(4, 3), "what it has already counts"
    with pytest.raises(SupplyError, match=r"RESERVATION\.REFUSED.*2 chips"):
        choose_chips(factory, order, 3, lot="", now=START)
    factory.change_plan((SKU, REGION, ""), [Planned("operational-1")], (START, None), *BY, START)
    factory.unreserve("JO-1", *BY, START)
    with pytest.raises(SupplyError, match=r"RESERVATION\.REFUSED.*0 chips"):
        choose_chips(factory, order, 1, lot="", now=START)


def test_chips_of_another_job_are_for_something_else(factory: Factory) -> None:
    factory.reserve("JO-2", eids(1), *BY, START)
    profiles = (Planned("operational-0"),)
    chip = next(iter(factory.lot_chips(None, START)))
    assert (chip.eid, chip.kept_for, chip.busy) == (str(eid(1)), "JO-2", False)
    meant = [Wish(SKU, REGION, profiles, name).elsewhere(chip) for name in ("JO-1", "JO-2", "")]
    assert meant == [True, False, False]


def test_two_nodes_of_one_job(factory: Factory) -> None:
    """A reservation is the job's, not a station's."""
    factory.reserve("JO-1", eids(1, 2), *BY, START)
    for number, station in ((1, "st01"), (2, "st02")):
        claim = factory.claim(request(number, f"a{number}", job_order_id="JO-1", station_id=station), START)
        send_all(factory, claim, station)
        settle(factory, claim, number, "INSTALLED", node=Node(station))
    assert factory.audit() == []
