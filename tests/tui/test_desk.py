"""What scans and keys do, without a terminal: everything that goes to the station, and what is refused before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from ifpp.tui.desk import Desk
from ifpp.tui.hand_over import page
from ifpp.tui.heard import Heard
from ifpp.tui.link import Said
from ifpp.tui.marks import UNICODE
from ifpp.tui.paint import Moment, paint, text
from ifpp.tui.words import Words
from tests.tui import pictures

MOMENT = Moment(0.0, datetime(2026, 11, 23, 13, tzinfo=UTC), "14:00")


class Station:
    """Hears what a desk asks."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.there = True

    def ask(self, ask: str, **more: Any) -> bool:
        if self.there:
            self.asked.append((ask, more))
        return self.there

    def last(self) -> dict[str, Any]:
        """The document of the last command, without its id."""
        document = dict(self.asked[-1][1]["document"])
        UUID(document.pop("request_id"))
        assert document.pop("schema") == f"{self.asked[-1][0]}/1.0"
        assert document.pop("operator_id") == ""
        return document


@pytest.fixture
def station() -> Station:
    return Station()


@pytest.fixture
def desk(station: Station) -> Desk:
    heard = Heard(connected=True, operator="anna", role="operator")
    for at, document in pictures.alarmed().items():
        heard.take(at, document, 0.0)
    return Desk(heard, Words(), UNICODE, station.ask)


def scan(desk: Desk, text: str, at_s: float = 0.0) -> None:
    desk.type(text)
    desk.enter(at_s)


def test_a_badge_logs_in_and_is_never_shown(desk: Desk, station: Station) -> None:
    scan(desk, "B-123456")
    assert station.asked == [("login", {"badge": "B-123456", "head_id": ""})]
    assert "123456" not in desk.message
    desk.answered(Said(ask="login", status="ACCEPTED", text="", operator="bob", role="technician"))
    assert (desk.heard.operator, desk.heard.role) == ("bob", "technician")
    assert desk.message == "Logged in: bob, technician"


def test_a_wrong_badge_says_so(desk: Desk) -> None:
    scan(desk, "B-123456")
    desk.answered(Said(ask="login", status="REJECTED", text="nobody here has this badge", code="OPERATOR.BADGE"))
    assert desk.message.startswith("Not accepted: OPERATOR.BADGE")
    assert desk.heard.operator == "anna"


def test_blank_double_and_endless_scans_are_refused(desk: Desk, station: Station) -> None:
    scan(desk, "  \t ")
    assert desk.message == "Blank scan: nothing was read"
    scan(desk, "x" * 257)
    assert desk.message == "Too long for a scan: ignored"
    scan(desk, "B-123456", 10.0)
    scan(desk, "B-123456", 11.9)
    assert desk.message == "Same scan twice: ignored"
    assert len(station.asked) == 1
    scan(desk, "B-123456", 12.1)
    assert len(station.asked) == 2


def test_a_unit_is_found_in_its_head_on_hold_or_nowhere(desk: Desk, station: Station) -> None:
    scan(desk, pictures.eid(9))
    assert (desk.message, desk.head) == ("Unit 000009: in head h09, LOAD", "h09")
    scan(desk, "SN00010")
    assert desk.head == "h10"
    scan(desk, "8" * 32)
    assert desk.message == "Unit 888888: not at this station"
    assert desk.heard.station is not None
    desk.heard.station.held["7" * 32] = "seat it again"
    scan(desk, "7" * 32)
    assert desk.message == "Unit 777777 is on hold: seat it again"
    assert not station.asked


def test_a_traveller_says_how_its_job_stands(desk: Desk, station: Station) -> None:
    scan(desk, "JO-1042")
    assert desk.message == "Traveller JO-1042: in work here, 1290 of 5000"
    scan(desk, "JO-1043")
    assert desk.message == "Traveller JO-1043: another job (READY); in work here: JO-1042"
    assert not station.asked


def test_a_number_chooses_a_head_and_arrows_move_on(desk: Desk) -> None:
    scan(desk, "7")
    assert desk.head == "h07"
    desk.move(1)
    assert desk.head == "h08"
    desk.move(-100)
    assert desk.head == "h01"
    scan(desk, "77")
    assert desk.message == "77: not one of the choice"


def test_stop_wants_a_reason_and_start_does_not(desk: Desk, station: Station) -> None:
    desk.press("f2")
    assert desk.question is not None
    scan(desk, "5")
    assert station.asked[-1][0] == "lock"
    assert station.last() == {"reason": "end of shift"}
    assert desk.heard.station is not None
    desk.heard.station.locked = True
    desk.press("f2")
    assert station.asked[-1][0] == "unlock"
    assert station.last() == {}
    desk.answered(Said(ask="lock", status="ACCEPTED", text="takes no new units"))
    assert desk.message == "Stop the intake of units: takes no new units"


def test_block_and_release_of_the_chosen_head(desk: Desk, station: Station) -> None:
    desk.head = "h09"
    desk.press("f3")
    scan(desk, "bent pin")
    assert station.last() == {"head_id": "h09", "action": "BLOCK", "reason": "bent pin"}
    desk.head = "h02"
    desk.press("f3")
    scan(desk, "1")
    assert station.last() == {"head_id": "h02", "action": "UNBLOCK", "reason": "contact"}


def test_without_a_choice_the_first_head_out_of_work_is_meant(desk: Desk) -> None:
    desk.press("f3")
    assert desk.head == "h02"
    assert desk.question is not None
    assert desk.question.what == "Release head h02"


def test_a_new_socket_cannot_be_taken_back_and_wants_a_yes(desk: Desk, station: Station) -> None:
    desk.head = "h05"
    desk.press("f4")
    scan(desk, "1")
    assert not station.asked
    scan(desk, "yes")
    assert station.last() == {"head_id": "h05"}
    assert station.asked[-1][0] == "change_socket"


def test_a_bar_code_can_answer_no_question(desk: Desk, station: Station) -> None:
    desk.head = "h05"
    for key in ("f4", "f2", "f3"):
        desk.press(key)
        scan(desk, "4006381333931")
        assert desk.question is not None
    assert not station.asked


def test_escape_leaves_everything(desk: Desk, station: Station) -> None:
    desk.press("f3")
    desk.type("ab")
    desk.press("escape")
    assert (desk.question, desk.typed, desk.overlay) == (None, "", "")
    assert not station.asked


def test_alarms_are_acknowledged_and_shelved(desk: Desk, station: Station) -> None:
    desk.press("f6")
    assert station.asked[-1][0] == "alarm"
    assert station.last() == {"alarm_id": "a1", "action": "ACK"}
    desk.press("f8")
    desk.move(1)
    desk.press("f7")
    scan(desk, "4")
    assert station.last() == {"alarm_id": "a2", "action": "SHELVE", "minutes": 60, "reason": "maintenance"}
    desk.heard.alarms = None
    desk.press("f6")
    assert desk.message == "No alarm to act on"


def test_retry_says_what_helps(desk: Desk) -> None:
    desk.head = "h05"
    desk.press("f5")
    assert desk.message.startswith("Head h05: take the unit out and seat it again")
    desk.head = "h01"
    desk.press("f5")
    assert desk.message == "Head h01: nothing to retry"


def shift_page(desk: Desk) -> str:
    return "\n".join(page(desk.heard, desk.opened, desk.words))


def test_the_page_of_the_shift_shows_what_the_next_one_must_know(desk: Desk) -> None:
    desk.press("f9", "14:00")
    said = shift_page(desk)
    assert "Hand-over of st01 at 14:00" in said
    assert "Last: 2026-11-22 " in said
    assert "carol to anna: h07 waits for a socket" in said
    assert "1290 of 5000 done, first pass yield 98.3 %" in said
    assert "Heads out of work: h02, h07" in said
    assert "Units on hold: 1" in said
    assert "Events not sent yet: 31" in said
    assert "A-110 st01/h02" in said
    assert "  000003: CONTACT.LOST: seat the same unit again" in said
    desk.press("f9")
    assert (desk.overlay, desk.question) == ("", None)


def test_who_goes_hands_over_to_who_comes(desk: Desk, station: Station) -> None:
    desk.press("f9", "14:00")
    desk.type("B-2222")
    assert "B-2222" not in "".join(text(paint(desk, MOMENT, 80, 24)))
    desk.enter(0.0)
    assert not station.asked
    scan(desk, "h02 is dirty", 1.0)
    assert station.asked[-1][1]["badge"] == "B-2222"
    assert station.last() == {"reason": "h02 is dirty"}
    desk.answered(Said(ask="hand_over", status="ACCEPTED", text="handed over", operator="bob", role="technician"))
    assert (desk.heard.operator, desk.overlay) == ("bob", "hand")
    assert desk.message == "Handed over: anna to bob"


def test_a_hand_over_may_find_nobody_or_not_be_meant(desk: Desk, station: Station) -> None:
    desk.press("f9")
    scan(desk, "-")
    scan(desk, "1", 1.0)
    assert station.asked[-1][1]["badge"] == ""
    assert station.last() == {"reason": "nothing special"}
    desk.press("f9")
    desk.press("f9")
    scan(desk, "B2", 2.0)
    assert desk.message == "B2: not one of the choice"
    desk.press("f9")
    desk.press("f9")
    scan(desk, "0", 3.0)
    assert station.asked[-1] == ("logout", {})
    desk.answered(Said(ask="hand_over", status="ACCEPTED", text="handed over"))
    assert desk.message == "Handed over: anna to nobody yet"
    assert desk.heard.operator == ""


def test_who_has_shown_no_badge_does_nothing(desk: Desk, station: Station) -> None:
    desk.heard.operator = ""
    desk.press("f6")
    desk.press("f9")
    desk.press("f2")
    scan(desk, "1")
    assert desk.message == "Show your badge first"
    assert not station.asked


def test_without_a_connection_it_is_said_that_nothing_was_sent(desk: Desk, station: Station) -> None:
    station.there = False
    desk.press("f6")
    assert desk.message == "No connection: nothing was sent"
    desk.lost()
    assert desk.heard.operator == ""


def test_the_stations_own_logout_is_told(desk: Desk) -> None:
    desk.answered(Said(ask="logout", status="ACCEPTED", text="logged out: nothing was done for a while"))
    assert (desk.heard.operator, desk.message) == ("", "Logged out: nothing was done for a while")


def test_unknown_keys_do_nothing(desk: Desk, station: Station) -> None:
    for key in ("f10", "f11", "home", "ctrl+x"):
        desk.press(key)
    assert (desk.question, desk.overlay, station.asked) == (None, "", [])
