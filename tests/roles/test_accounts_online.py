"""What the SM-DP+ says against books and chips: one sound run, then one lie after another; and what is counted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ifpp.model.ids import Eid
from ifpp.model.rsp import Notice
from ifpp.roles.accounts import Figures
from ifpp.roles.accounts_online import figures, judge, owed_results, text
from ifpp.station.journal import Journal
from ifpp.station.look import owed_notices
from ifpp.station.rsp_book import RspBook
from ifpp.store.records import UnitRecord
from tests.clock import FakeClock
from tests.fpa.online import Site

CHANGE = Callable[[dict[str, Any]], object]


def order(iccid: str, eid: str, state: str, round_trips: int) -> dict[str, Any]:
    return {"iccid": iccid, "eid": eid, "state": state, "round_trips": round_trips}


def result(iccid: str, eid: str, sequence: int, *, installed: bool = True) -> dict[str, Any]:
    return {"iccid": iccid, "eid": eid, "sequence": sequence, "verified": True, "installed": installed}


# e1 had no luck at first; e3 has too little memory; i4 waits for a chip
EVIDENCE: dict[str, Any] = {
    "orders": [
        order("i1", "e1", "INSTALLED", 6),
        order("i2", "e2", "INSTALLED", 3),
        order("i3", "e3", "DOWNLOADED", 3),
        order("i4", "", "RELEASED", 0),
    ],
    "notifications": [
        result("i1", "e1", 1, installed=False),
        result("i1", "e1", 2),
        {"eid": "e1", "sequence": 3, "verified": True},
        result("i2", "e2", 1),
    ],
    "cancelled": [],
    "calls": {"initiateAuthentication": 4, "handleNotification": 4},
    "open_sessions": 0,
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


def test_a_result_that_was_told_twice_is_one() -> None:
    evidence = deepcopy(EVIDENCE)
    evidence["notifications"].append(result("i2", "e2", 1))
    assert list(judge(evidence, units(*BOOKS), CHIPS)) == []


def test_the_books_say_another_profile_than_was_given() -> None:
    books = units(("e1", "i2", "INSTALLED"), ("e2", "i1", "INSTALLED"), ("e3", "i4", "INSTALLED"))
    said = list(judge(EVIDENCE, books, {}))
    assert "EID e1: the books say ICCID i2, the SM-DP+ gave it to e2" in said
    assert "EID e3: the books say ICCID i4, the SM-DP+ gave it to nobody" in said


def test_the_books_do_not_know_of_a_profile() -> None:
    books = units(("e1", "i1", "FAILED"), *BOOKS[1:])
    assert list(judge(EVIDENCE, books, CHIPS)) == [
        "EID e1: it told the SM-DP+ that it has ICCID i1, the books do not say so"
    ]


@pytest.mark.parametrize("change", [{"verified": False}, {"installed": False}])
def test_a_result_the_smdp_did_not_get(change: dict[str, bool]) -> None:
    evidence = deepcopy(EVIDENCE)
    evidence["notifications"][1] |= change
    assert list(judge(evidence, units(*BOOKS), CHIPS)) == ["EID e1: the SM-DP+ has no result of ICCID i1"]
    assert list(judge(evidence, units(*BOOKS), CHIPS, {"i1"})) == []


def test_one_profile_on_two_chips() -> None:
    chips = CHIPS | {"e3": {"profiles": [{"iccid": "i1"}]}}
    assert list(judge(EVIDENCE, units(*BOOKS), chips)) == ["ICCID i1 is on 2 chips"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told: told["notifications"].append(result("i1", "e1", 9)), "ICCID i1 was installed 2 times"),
        (lambda told: told["orders"].append(order("i4", "", "RELEASED", 0)), "ICCID i4 was given for 2 codes"),
    ],
)
def test_a_code_that_was_used_twice(change: CHANGE, says: str) -> None:
    evidence = deepcopy(EVIDENCE)
    change(evidence)
    assert list(judge(evidence, units(*BOOKS), CHIPS)) == [says]


def test_one_profile_in_the_books_of_two_chips() -> None:
    said = list(judge(EVIDENCE, units(*BOOKS[:2], ("e3", "i1", "INSTALLED")), CHIPS))
    assert said == ["EID e3: the books say ICCID i1, the SM-DP+ gave it to e1", "ICCID i1 is in the books of 2 chips"]


def test_what_a_download_took_is_counted_where_nothing_went_wrong() -> None:
    counted = figures(EVIDENCE, [{"eid": "e2", "download_apdus": [58]}], [])
    assert counted["codes"] == {"free": 1, "used": 2, "tied": 1}
    assert (counted["downloads"], counted["apdus_per_download"], counted["round_trips_per_download"]) == (2, 58, 3)
    assert (counted["notifications_delivered"], counted["owed"], counted["sessions_open"]) == (4, 0, 0)
    assert counted["calls"] == {"handleNotification": 4, "initiateAuthentication": 4}
    assert next(text(counted)).startswith("downloads      2, 58.0 commands and 3.00 round trips each;")
    assert figures(EVIDENCE, [], [])["apdus_per_download"] == 0


def test_what_stations_owe_is_found_in_their_journals(tmp_path: Path) -> None:
    """The chip's own bytes: a result, and the word of a profile's enabling, which is no result."""
    site = Site(tmp_path)
    try:
        site.release()
        seat = site.seat()
        got = site.download(seat)
        assert got.notice is not None
        path, clock = tmp_path / "st02.db", FakeClock(datetime(2026, 11, 23, tzinfo=UTC))
        journal = Journal.open(path, "st02", clock)
        book = RspBook(journal, clock)
        other = Notice(Eid(str(seat.eid)), 2, site.smdp.address, base64.b64decode("vy8A"))
        book.owe([got.notice, other])
        assert (owed_results([path]), len(owed_notices(path))) == ({str(got.iccid)}, 2)
        book.delivered(got.notice)
        assert (owed_results([path]), len(owed_notices(path))) == (set(), 1)
        book.note_refused(other, "8.1/6.1").result()
        assert owed_notices(path) == []
        journal.close()
    finally:
        site.close()


@pytest.mark.parametrize(("owed", "sound"), [(0, True), (1, False)])
def test_a_run_that_still_owes_something_is_not_sound(owed: int, sound: bool) -> None:
    run = Figures(units=2)
    run.rsp = figures(EVIDENCE, [], []) | {"owed": owed}
    assert run.sound is sound
    assert "apdu_floor_per_unit" not in run.document()
