"""What the SM-DP+ says against books and chips: one sound run, then one lie after another."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ifpp.roles.accounts_online import judge
from ifpp.store.records import UnitRecord

EVIDENCE: dict[str, Any] = {
    "orders": [{"iccid": "i1", "eid": "e1"}, {"iccid": "i2", "eid": "e2"}, {"iccid": "i3", "eid": ""}],
    "notifications": [
        {"iccid": "i1", "verified": True, "installed": True},
        {"verified": True},
        {"iccid": "i2", "verified": True, "installed": True},
    ],
}
CHIPS: dict[str, dict[str, Any]] = {
    "e1": {"profiles": [{"iccid": "i1"}]},
    "e2": {"profiles": [{"iccid": "i2"}]},
    "e3": {"profiles": []},
}


def units(*booked: tuple[str, str, str]) -> dict[str, UnitRecord]:
    """(EID, ICCID, state) of the packages in the books."""
    made = {eid: SimpleNamespace(packages=[SimpleNamespace(iccid=iccid, state=state)]) for eid, iccid, state in booked}
    return cast("dict[str, UnitRecord]", made)


BOOKS = (("e1", "i1", "INSTALLED"), ("e2", "i2", "INSTALLED"), ("e3", "c3", "FAILED"))


def test_a_sound_run_has_nothing_against_it() -> None:
    assert list(judge(EVIDENCE, units(*BOOKS), CHIPS)) == []


def test_the_books_say_another_profile_than_was_given() -> None:
    (said,) = judge(EVIDENCE, units(("e1", "i2", "INSTALLED")), {})
    assert said == "EID e1: the books say ICCID i2, the SM-DP+ gave it to e2"


@pytest.mark.parametrize("change", [{"verified": False}, {"installed": False}])
def test_a_result_the_smdp_did_not_get(change: dict[str, bool]) -> None:
    evidence = deepcopy(EVIDENCE)
    evidence["notifications"][0] |= change
    assert list(judge(evidence, units(*BOOKS), CHIPS)) == ["EID e1: the SM-DP+ has no result of ICCID i1"]


def test_one_profile_on_two_chips() -> None:
    chips = CHIPS | {"e3": {"profiles": [{"iccid": "i1"}]}}
    assert list(judge(EVIDENCE, units(*BOOKS), chips)) == ["ICCID i1 is on 2 chips"]
