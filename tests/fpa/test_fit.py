"""What does not fit is refused with its own code before a command is sent; all from what the chip has said already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ifpp.errors import FAULTS, Blame, IfppError, Retry
from ifpp.fpa.chip import Chip, Identity
from ifpp.fpa.fit import Wanted, preflight
from ifpp.fpa.load import Order
from ifpp.model.chip import firmware_name, version_bytes
from tests.fpa.conftest import Case

Make = Callable[..., list[Case]]


@pytest.fixture
def seen(make_cases: Make) -> tuple[Identity, Order]:
    (case,) = make_cases()
    chip = Chip(case.port())
    chip.open()
    return chip.identify(chip.eid()), replace(case.order, profile_type="operational")


def refused(identity: Identity, orders: list[Order], wanted: Wanted) -> IfppError:
    with pytest.raises(IfppError) as caught:
        preflight(identity, orders, wanted)
    assert caught.value.fault.retry is Retry.NO
    return caught.value


def with_info2(identity: Identity, **changes: Any) -> Identity:
    return replace(identity, info2=replace(identity.info2, **changes))


def with_metadata(order: Order, **changes: Any) -> Order:
    return replace(order, bpp=replace(order.bpp, metadata=replace(order.bpp.metadata, **changes)))


def test_a_package_for_this_chip_fits(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    preflight(identity, [order], Wanted(svn=version_bytes("2.6.0"), profile_version=version_bytes("2.3.1")))
    preflight(with_info2(identity, svn=b"\0\0\0", free_nvm=0), [], Wanted(svn=version_bytes("2.6.0")))


def test_versions(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    old = refused(identity, [order], Wanted(svn=version_bytes("2.6.1")))
    assert (old.code, old.detail) == ("FIT.SVN", "the chip has 2.6.0, 2.6.1 wanted")
    preflight(with_info2(identity, highest_svn=b"\3\0\0"), [order], Wanted(svn=version_bytes("2.6.1")))
    wanted = Wanted(profile_version=version_bytes("3.1.0"))
    assert refused(identity, [order], wanted).code == "FIT.PROFILE_VERSION"
    preflight(with_info2(identity, further_profile_versions=(b"\3\1\0",)), [order], wanted)


def test_the_ci_of_the_package_must_be_one_the_chip_trusts(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    fault = refused(with_info2(identity, ci_pkids_verification=(b"x" * 20,)), [order], Wanted())
    assert fault.code == "FIT.CI_KEY"
    (ours,) = identity.info2.ci_pkids_verification
    assert ours.hex() in fault.detail


def test_rules_the_chip_forbids(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    strict = with_info2(identity, forbidden_pprs=frozenset({1, 2}))
    preflight(strict, [order], Wanted())
    fault = refused(strict, [with_metadata(order, pprs=frozenset({0, 2}))], Wanted())
    assert (fault.code, fault.detail) == ("FIT.RULE", "the profile sets PPR2, which the chip forbids")


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [({"profile_class": 0}, 3), ({"service_data": True}, 5), ({"iot": True}, 26)],
)
def test_capabilities_the_metadata_need(seen: tuple[Identity, Order], changes: dict[str, Any], lacking: int) -> None:
    identity, order = seen
    needy, bits = with_metadata(order, **changes), identity.info2.rsp_capability
    preflight(with_info2(identity, rsp_capability=bits | {lacking}), [needy], Wanted())
    assert refused(with_info2(identity, rsp_capability=bits - {lacking}), [needy], Wanted()).code == "FIT.CAPABILITY"


def test_all_packages_of_a_unit_must_fit_together(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    tight = with_info2(identity, free_nvm=len(order.bpp.raw) * 3 // 2)
    preflight(tight, [order], Wanted())
    assert refused(tight, [order, order], Wanted()).code == "EUICC.NO_MEMORY"
    single = with_info2(identity, rsp_capability=identity.info2.rsp_capability - {0})
    preflight(single, [order], Wanted())
    assert refused(single, [order, order], Wanted()).code == "FIT.CAPABILITY"


def test_the_denylist_names_firmware_of_a_maker_and_a_profile_type(seen: tuple[Identity, Order]) -> None:
    identity, order = seen
    firmware = firmware_name(identity.eid, identity.info2)
    assert firmware == f"{identity.eid[:8]}/1.4.2"
    preflight(identity, [order], Wanted(denied={"test": [firmware], "operational": ["99999999/1.4.2"]}))
    fault = refused(identity, [order], Wanted(denied={"operational": [firmware]}))
    assert fault.code == "FIT.DENIED"
    assert firmware in fault.detail


def test_a_misfit_is_never_counted_as_contact_or_station_trouble() -> None:
    blames = {code: fault.blame for code, fault in FAULTS.items() if code.startswith("FIT.")}
    assert set(blames.values()) == {Blame.PRODUCT, Blame.SUPPLY}
    assert blames["FIT.DENIED"] is Blame.SUPPLY, "a denied unit must not feed the count that denied it"
