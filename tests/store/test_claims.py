"""Claims, the word "sent", releases and leases; on SQLite and on PostgreSQL."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from ifpp.errors import CustodyError, SupplyError
from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.raw import raw
from tests.store.world import (
    Node,
    chip_item,
    eid,
    import_chips,
    import_packages,
    later,
    package_item,
    refusal,
    request,
    send_all,
    settle,
    states,
    stock,
    way,
)


def test_a_claim_gives_all_packages_of_one_chip_in_order(factory: Factory) -> None:
    stock(factory, 2, packages_each=2)
    claim = factory.claim(request(2, "a"), START)
    items = [package_item(2, 0), package_item(2, 1)]
    assert [package.iccid for package in claim.packages] == [item.iccid for item in items]
    assert [b64decode(package.prepare_download_b64) for package in claim.packages] == [
        item.prepare_download for item in items
    ]
    assert [factory.package_bytes(package.bpp_sha256) for package in claim.packages] == [item.bpp for item in items]
    assert {package.state for package in claim.packages} == {"CLAIMED"}
    assert (claim.eid, claim.lease_until) == (eid(2), "2026-03-01T08:15:00.000Z")
    assert b64decode(claim.euicc_certificate_b64) == chip_item(2).certificate
    assert [b64decode(certificate) for certificate in claim.eum_chain_b64] == list(chip_item(2).eum_chain)
    assert (claim.unresolved, claim.installed) == ([], [])
    assert states(factory, 1) == ["AVAILABLE", "AVAILABLE"]


def test_the_same_attempt_gets_the_same_answer(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    first = factory.claim(request(1, "a"), START)
    assert factory.claim(request(1, "a"), later(10)) == first
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED"]


def test_an_attempt_id_belongs_to_one_claim(factory: Factory) -> None:
    stock(factory, 2)
    factory.claim(request(1, "a"), START)
    assert refusal(factory, request(2, "a")).code == "STORE.REFUSED"
    assert refusal(factory, request(1, "a", head_id="h02")).code == "STORE.REFUSED"


def test_what_is_not_there_is_named(factory: Factory) -> None:
    stock(factory, 1)
    import_chips(factory, [chip_item(2)])
    assert refusal(factory, request(3)).code == "EID.UNKNOWN"
    assert refusal(factory, request(1, sku="OTHER")).code == "SKU.UNKNOWN"
    assert refusal(factory, request(1, region="US")).code == "REGION.UNKNOWN"
    assert refusal(factory, request(2)).code == "BPP.NOT_FOUND"


def test_only_packages_of_the_sku_and_region_are_given(factory: Factory) -> None:
    import_chips(factory, [chip_item(1, keys=3)])
    items = [package_item(1, 0), package_item(1, 1, sku="OTHER"), package_item(1, 2, region="US")]
    import_packages(factory, items)
    claim = factory.claim(request(1), START)
    assert [package.iccid for package in claim.packages] == [items[0].iccid]
    assert states(factory, 1) == ["CLAIMED", "AVAILABLE", "AVAILABLE"]


def test_another_head_must_wait_for_the_lease(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "a", lease_s=60), START)
    assert refusal(factory, request(1, "b", head_id="h02"), 59).code == "BPP.TAKEN"
    assert refusal(factory, request(1, "c", station_id="st02"), 59).code == "BPP.TAKEN"
    assert factory.claim(request(1, "d", head_id="h02"), later(60)).packages
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "AVAILABLE", "CLAIMED"]
    assert refusal(factory, request(1, "a"), 61).code == "BPP.TAKEN"


def test_a_head_that_starts_anew_takes_over_from_itself(factory: Factory) -> None:
    stock(factory, 1)
    first = factory.claim(request(1, "a"), START)
    assert factory.claim(request(1, "b"), later(1)).packages
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        factory.mark_sent(first.packages[0].package_id, "a", "st01", later(2))


def test_a_claim_is_all_or_nothing(factory: Factory) -> None:
    """One package of the chip is with another head: the other one is not given out alone."""
    stock(factory, 1)
    factory.claim(request(1, "a"), START)
    import_packages(factory, [package_item(1, 1)])
    assert refusal(factory, request(1, "b", head_id="h02")).code == "BPP.TAKEN"
    assert states(factory, 1) == ["CLAIMED", "AVAILABLE"]


def test_a_repeated_claim_is_not_widened_by_a_new_delivery(factory: Factory) -> None:
    stock(factory, 1)
    first = factory.claim(request(1, "a"), START)
    import_packages(factory, [package_item(1, 1)])
    assert factory.claim(request(1, "a"), later(1)) == first


def test_an_expired_package_is_never_given(factory: Factory) -> None:
    import_chips(factory, [chip_item(1), chip_item(2)])
    import_packages(factory, [package_item(1, 0, expires_at=later(10)), package_item(1, 1)])
    import_packages(factory, [package_item(2, 0, expires_at=later(10))])
    assert len(factory.claim(request(1), later(10)).packages) == 1
    assert refusal(factory, request(2), 10).code == "BPP.EXPIRED"
    assert len(factory.claim(request(2), later(9)).packages) == 1


def test_a_sent_package_is_unresolved_for_everybody_and_for_ever(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a", lease_s=60), START)
    send_all(factory, claim)
    for at_s, wanted in ((1, request(1)), (10_000, request(1, station_id="st02"))):
        again = factory.claim(wanted, later(at_s))
        assert again.packages == []
        assert [(package.package_id, package.state) for package in again.unresolved] == [
            (claim.packages[0].package_id, "SENT")
        ]
    assert states(factory, 1) == ["SENT"]


def test_what_is_free_is_claimed_beside_what_is_unresolved(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
    other = factory.claim(request(1, "b", head_id="h02"), later(1))
    assert (other.packages, len(other.unresolved)) == ([], 1)
    later_claim = factory.claim(request(1, "c", head_id="h02"), later(901))
    assert [package.iccid for package in later_claim.packages] == [package_item(1, 1).iccid]
    assert len(later_claim.unresolved) == 1


def test_an_unknown_package_comes_back_for_reading_whatever_the_sku(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "UNKNOWN")
    import_packages(factory, [package_item(1, 1, sku="OTHER")])
    again = factory.claim(request(1, sku="OTHER"), later(1))
    assert [package.state for package in again.unresolved] == ["UNKNOWN"]
    assert [package.iccid for package in again.packages] == [package_item(1, 1).iccid]


def test_a_failed_package_with_a_usable_key_is_given_again(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "FAILED")
    assert states(factory, 1) == ["FAILED"]
    assert len(factory.claim(request(1, "b", station_id="st02"), later(1)).packages) == 1
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT", "FAILED", "CLAIMED"]


def test_a_spent_package_is_exhausted(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "SPENT")
    assert refusal(factory, request(1)).code == "BPP.EXHAUSTED"


def test_a_replacement_for_a_spent_package_completes_the_unit(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    node = Node()
    settle(factory, claim, 1, "SPENT", node=node)
    import_packages(factory, [package_item(1, 1, profile_type=package_item(1, 0).profile_type)])
    claim = factory.claim(request(1, "b"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "INSTALLED", node=node, clean_to_ship=False)
    sealing = factory.claim(request(1, "c"), START)
    assert (sealing.packages, sealing.unresolved, len(sealing.installed)) == ([], [], 1)


def test_a_unit_that_was_not_sealed_is_claimed_with_what_is_installed(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "INSTALLED", clean_to_ship=False)
    again = factory.claim(request(1, "b"), START)
    assert (again.packages, again.unresolved) == ([], [])
    assert [package.iccid for package in again.installed] == [package_item(1).iccid]


def test_a_unit_that_is_clean_to_ship_is_finished(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "INSTALLED")
    assert refusal(factory, request(1)).code == "UNIT.ALREADY_LOADED"
    import_packages(factory, [package_item(1, 1)])
    assert refusal(factory, request(1)).code == "UNIT.ALREADY_LOADED"
    assert states(factory, 1) == ["INSTALLED", "AVAILABLE"]


def test_destroyed_packages_are_no_supply(factory: Factory, url: str) -> None:
    stock(factory, 1)
    with raw(url) as connection:
        connection.execute("UPDATE package SET state = 'DESTROYED', revision = revision + 1")
    assert refusal(factory, request(1)).code == "BPP.EXHAUSTED"


# ---- sent -------------------------------------------------------------------------------------------


def test_sent_is_idempotent(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    send_all(factory, claim)
    assert way(factory, 1) == ["AVAILABLE", "CLAIMED", "SENT"]


def test_sent_needs_the_lease(factory: Factory) -> None:
    stock(factory, 1)
    package_id = factory.claim(request(1, "a"), START).packages[0].package_id
    for attempt_id, station_id in (("b", "st01"), ("a", "st02")):
        with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
            factory.mark_sent(package_id, attempt_id, station_id, START)
    with pytest.raises(SupplyError, match=r"BPP\.NOT_FOUND"):
        factory.mark_sent("000009-0000001", "a", "st01", START)
    assert states(factory, 1) == ["CLAIMED"]


def test_sent_after_the_lease_ran_out(factory: Factory) -> None:
    """Late is fine while nobody else was given the package; after that it is refused."""
    stock(factory, 2)
    for number in (1, 2):
        factory.claim(request(number, f"a{number}", head_id=f"h0{number}", lease_s=60), START)
    factory.mark_sent("000002-0000001", "a1", "st01", later(100))
    assert factory.expire_leases(later(100)) == 1
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        factory.mark_sent("000002-0000002", "a2", "st01", later(101))


def test_sent_is_refused_once_the_result_is_known(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "FAILED")
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        send_all(factory, claim)


# ---- release and leases -----------------------------------------------------------------------------


def test_release_frees_what_was_not_sent(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
    assert factory.release("a", "st01", START) == 1
    assert factory.release("a", "st01", START) == 0
    assert states(factory, 1) == ["SENT", "AVAILABLE"]
    assert refusal(factory, request(1, "a")).code == "STORE.REFUSED"


def test_only_the_station_itself_releases(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "a"), START)
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        factory.release("a", "st02", START)
    assert states(factory, 1) == ["CLAIMED"]


def test_a_release_that_overtakes_its_claim_holds(factory: Factory) -> None:
    """The claim was under way when its sender gave up: it must not take the package any more."""
    stock(factory, 1)
    assert factory.release("a", "st01", START) == 0
    assert refusal(factory, request(1, "a")).code == "STORE.REFUSED"
    assert states(factory, 1) == ["AVAILABLE"]


def test_an_attempt_that_has_reported_claims_no_more(factory: Factory) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    send_all(factory, claim)
    settle(factory, claim, 1, "FAILED")
    assert refusal(factory, request(1, "a")).code == "STORE.REFUSED"


def test_leases_run_out_for_claimed_packages_only(factory: Factory) -> None:
    stock(factory, 3)
    claims = [
        factory.claim(request(number, head_id=f"h{number}", lease_s=lease_s), START)
        for number, lease_s in ((1, 60), (2, 60), (3, 600))
    ]
    send_all(factory, claims[1])
    assert factory.expire_leases(later(59)) == 0
    assert factory.expire_leases(later(60)) == 1
    assert [states(factory, number) for number in (1, 2, 3)] == [["AVAILABLE"], ["SENT"], ["CLAIMED"]]


def test_a_lease_given_by_a_wrong_clock_does_not_hold(factory: Factory) -> None:
    """The clock was a day ahead and was set right: nobody waits a day for a head that may be dead."""
    stock(factory, 3)
    claims = [
        factory.claim(request(number, f"a{number}", head_id="h01", lease_s=600), later(ahead_s))
        for number, ahead_s in ((1, 86400), (2, 30), (3, 86400))
    ]
    factory.claim(request(1, "b", head_id="h02"), START)
    with pytest.raises(CustodyError, match=r"CUSTODY\.TRANSITION"):
        send_all(factory, claims[0])
    assert refusal(factory, request(2, "c", head_id="h02")).code == "BPP.TAKEN"
    assert factory.expire_leases(START) == 1
    assert [states(factory, number) for number in (1, 2, 3)] == [["CLAIMED"], ["CLAIMED"], ["AVAILABLE"]]


def test_an_attempt_whose_lease_ran_out_may_claim_again(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "a", lease_s=60), START)
    factory.expire_leases(later(60))
    assert factory.claim(request(1, "a", lease_s=60), later(61)).lease_until == "2026-03-01T08:02:01.000Z"


@pytest.mark.parametrize(
    "changes",
    [{"attempt_id": ""}, {"sku": "a\x00b"}, {"station_id": "x" * 200}, {"lease_s": 0}, {"lease_s": 10**9}],
    ids=str,
)
def test_nonsense_is_refused_before_the_database_sees_it(factory: Factory, changes: dict[str, Any]) -> None:
    stock(factory, 1)
    wanted = request(1, "a")
    for name, value in changes.items():
        setattr(wanted, name, value)
    assert refusal(factory, wanted).code == "STORE.REFUSED"
