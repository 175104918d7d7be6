"""Claims made ahead: nobody else gets what a station may be loading out of reach; on SQLite and on PostgreSQL."""

from __future__ import annotations

import msgspec

from ifpp.model.messages import CACHE_HEAD, ClaimRequest, ExpectedQuestion
from ifpp.model.states import PackageState
from ifpp.store import leases
from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.world import (
    REGION,
    SKU,
    Node,
    chip_item,
    eid,
    import_chips,
    import_packages,
    job,
    later,
    outcome,
    package_item,
    refusal,
    request,
    states,
    stock,
    take_one,
    way,
)

LEASE_S, SLACK_S = 8 * 3600, 3600


def ahead(number: int, lease_id: str) -> ClaimRequest:
    return request(number, lease_id, head_id=CACHE_HEAD, lease_s=LEASE_S)


def expected(factory: Factory, **changes: object) -> list[str]:
    question = ExpectedQuestion(station_id="st01", sku=SKU, region=REGION)
    return factory.expected(msgspec.structs.replace(question, **changes), START).eids


def test_nobody_else_gets_what_was_claimed_ahead(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(ahead(1, "ahead"), START)
    assert refusal(factory, request(1, station_id="st02"), LEASE_S + SLACK_S - 1).code == "BPP.TAKEN"
    factory.expire_leases(later(LEASE_S + SLACK_S - 1))
    assert states(factory, 1) == ["CLAIMED"]
    factory.expire_leases(later(LEASE_S + SLACK_S))
    assert states(factory, 1) == ["AVAILABLE"]


def test_a_store_whose_clock_was_set_back_frees_nothing_that_was_claimed_ahead(factory: Factory) -> None:
    stock(factory, 2)
    factory.claim(ahead(1, "ahead"), START)
    factory.claim(request(2, "usual"), START)
    factory.expire_leases(later(-3600))
    assert (states(factory, 1), states(factory, 2)) == (["CLAIMED"], ["AVAILABLE"])
    assert refusal(factory, request(1, station_id="st02"), -3600).code == "BPP.TAKEN"


def test_every_head_of_the_station_takes_it_over_and_the_lease_stays_long(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(ahead(1, "ahead"), START)
    factory.claim(request(1, "first", head_id="h01"), later(10))
    factory.claim(request(1, "second", head_id="h02"), later(20))
    factory.expire_leases(later(LEASE_S))
    assert states(factory, 1) == ["CLAIMED"]
    factory.mark_sent(_package(factory, 1), "second", "st01", later(LEASE_S))
    assert states(factory, 1) == ["SENT"]


def test_an_attempt_takes_nothing_from_a_head_at_work(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "head"), START)
    assert refusal(factory, ahead(1, "ahead")).code == "BPP.TAKEN"


def test_what_must_be_read_first_or_expires_too_soon_is_not_claimed_ahead(factory: Factory) -> None:
    stock(factory, 1)
    import_chips(factory, [chip_item(2)])
    import_packages(factory, [package_item(2, expires_at=later(LEASE_S + SLACK_S))])
    claim = factory.claim(request(1, "a"), START)
    factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
    assert refusal(factory, ahead(1, "ahead-1")).code == "UNIT.UNRESOLVED"
    assert refusal(factory, ahead(2, "ahead-2")).code == "BPP.EXPIRED"
    assert states(factory, 2) == ["AVAILABLE"]


def test_a_result_settles_under_the_claim_it_was_loaded_under(factory: Factory) -> None:
    """The store heard nothing of the sending; the chip refused without spending its key: the package is free again."""
    stock(factory, 1)
    package_id = factory.claim(ahead(1, "ahead"), START).packages[0].package_id
    profile = outcome(1, 0, "FAILED", package_id=package_id, lease_id="ahead")
    assert take_one(factory, Node().result(1, "attempt", [profile])).rejected == ()
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "FAILED"]


def test_a_foreign_word_does_not_free_what_was_claimed_ahead(factory: Factory) -> None:
    stock(factory, 1)
    package_id = factory.claim(ahead(1, "ahead"), START).packages[0].package_id
    take_one(factory, Node("st02").result(1, "attempt", [outcome(1, 0, "FAILED", package_id=package_id)]))
    assert states(factory, 1) == ["CLAIMED"]


def test_how_claims_made_ahead_stand(factory: Factory) -> None:
    stock(factory, 4)
    claims = [factory.claim(ahead(number, f"ahead-{number}"), START) for number in (1, 2, 3, 4)]
    factory.release("ahead-2", "st01", START)
    factory.mark_sent(claims[2].packages[0].package_id, "ahead-3", "st01", START)
    names = [f"ahead-{number}" for number in range(1, 6)]
    answer = factory.leases("st01", names)
    assert (answer.held, answer.withdrawn) == (["ahead-1", "ahead-4"], [])
    assert factory.leases("st02", names).held == []
    assert factory.leases("st01", []).held == []
    factory.withdraw("order.esbpp.jsonl", "anna", "wrong region", START)
    answer = factory.leases("st01", names)
    assert (answer.held, answer.withdrawn) == (["ahead-1", "ahead-4"], ["ahead-1", "ahead-4"])


def test_which_chips_may_be_claimed_ahead(factory: Factory) -> None:
    stock(factory, 5)
    import_chips(factory, [chip_item(6), chip_item(7)])
    import_packages(factory, [package_item(7, region="US")])
    factory.claim(request(2, "a"), START)
    all_of_it = sorted(str(eid(number)) for number in (1, 3, 4, 5))
    assert expected(factory) == all_of_it
    assert expected(factory, after=all_of_it[1]) == all_of_it[2:]
    more = range(8, leases.PAGE + 18)
    import_chips(factory, (chip_item(number) for number in more))
    import_packages(factory, (package_item(number) for number in more))
    first_page = expected(factory)
    assert len(first_page) == leases.PAGE
    assert len(expected(factory, after=first_page[-1])) == 14
    assert expected(factory, sku="OTHER") == []


def test_a_job_that_reserved_chips_gets_those_and_no_other_job_does(factory: Factory) -> None:
    stock(factory, 3)
    with factory.intake("job", "job.json", "0" * 64, START) as intake:
        intake.add_job("L1", job())
    factory.reserve("JO-1", [str(eid(2))], "anna", "first delivery", START)
    assert expected(factory, job_order_id="JO-1") == [str(eid(2))]
    assert expected(factory, job_order_id="JO-2") == sorted([str(eid(1)), str(eid(3))])


def _package(factory: Factory, number: int) -> str:
    record = factory.unit(str(eid(number)))
    assert record is not None
    (package,) = record.packages
    assert PackageState(package.state) is PackageState.CLAIMED
    return package.package_id
