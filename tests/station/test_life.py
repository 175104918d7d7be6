"""The life of heads, without cards or disk: streaks, comparison with siblings, quarantine, sockets, what is kept."""

from __future__ import annotations

import asyncio

import pytest

from ifpp.settings import Life
from ifpp.station.life import BY_HAND, Cause, Finding, Lives, Seating
from tests.clock import FakeClock

HEADS = [f"h{number:02d}" for number in range(1, 17)]
F = Finding


def lives(settings: Life | None = None, heads: list[str] = HEADS) -> Lives:
    return Lives(heads, settings or Life(), clock=FakeClock())


def feed(subject: Lives, head: str, *seatings: tuple[str, Finding] | tuple[str, Finding, bool]) -> list[Cause]:
    """Seatings of a head in order: (EID or "", what was found, whether the same unit is awaited again)."""
    return [alarm for one in seatings for alarm in subject.close(head, Seating(*one))]


def codes(causes: list[Cause]) -> list[tuple[str, bool]]:
    return [(cause.code, cause.standing) for cause in causes]


def keep(subject: Lives, settings: Life | None = None) -> Lives:
    """The same heads in the next process."""
    following = lives(settings)
    following.restore({head: subject.row(head) for head in subject})
    return following


# ---- streaks ------------------------------------------------------------------------------------------


def test_three_different_units_that_lose_contact_in_a_row_put_the_head_into_quarantine() -> None:
    subject = lives()
    assert feed(subject, "h01", ("A", F.CONTACT), ("B", F.CONTACT)) == []
    assert subject["h01"].blocked == ""
    (alarm,) = feed(subject, "h01", ("C", F.CONTACT))
    assert (alarm.code, alarm.standing, alarm.head_id) == ("A-110", True, "h01")
    assert subject["h01"].blocked == "A-110: 3 different units in a row lost contact"
    assert subject["h02"].blocked == ""


def test_one_unit_seated_again_and_again_is_one_unit() -> None:
    subject = lives()
    assert feed(subject, "h01", *[("A", F.CONTACT, True)] * 9, ("B", F.CONTACT), ("A", F.CONTACT)) == []
    assert subject["h01"].blocked == ""


def test_three_fails_of_different_units_in_a_row_are_for_quality() -> None:
    subject = lives()
    assert feed(subject, "h01", ("A", F.FAIL), ("A", F.FAIL), ("B", F.FAIL)) == []
    (alarm,) = feed(subject, "h01", ("C", F.FAIL))
    assert (alarm.code, alarm.standing) == ("A-111", True)
    assert subject["h01"].blocked.startswith("A-111")


@pytest.mark.parametrize(
    ("between", "quarantined"),
    [(F.PASS, False), (F.FAIL, False), (F.OTHER, True), (F.NOTHING, True), (F.CONTACT, True)],
)
def test_what_ends_a_streak_of_lost_contact(between: Finding, quarantined: bool) -> None:
    """A verdict of the chip does; a missing package or a store that is away says nothing for the contact."""
    subject = lives()
    feed(subject, "h01", ("A", F.CONTACT), ("B", F.CONTACT), ("X", between), ("C", F.CONTACT))
    assert bool(subject["h01"].blocked) is quarantined


def test_contact_lost_between_two_fails_does_not_end_their_streak() -> None:
    subject = lives()
    feed(subject, "h01", ("A", F.FAIL), ("B", F.CONTACT, True), ("B", F.FAIL), ("C", F.FAIL))
    assert subject["h01"].blocked.startswith("A-111")


def test_a_mute_unit_is_one_unit_while_it_is_awaited_and_another_after_that() -> None:
    """No EID was ever told: what was to be seated again is taken for the same unit, what was put aside is not."""
    subject = lives()
    mute = [("", F.CONTACT, True), ("", F.CONTACT, True), ("", F.CONTACT, False)]
    feed(subject, "h01", *mute, *mute)
    assert subject["h01"].tally == (2, 2)
    assert subject["h01"].blocked == ""
    feed(subject, "h01", *mute)
    assert subject["h01"].blocked.startswith("A-110")


def test_a_mute_seating_of_a_unit_that_is_awaited_is_that_unit() -> None:
    subject = lives()
    life = subject["h01"]
    assert life.seated("A") == 1
    feed(subject, "h01", ("A", F.CONTACT, True))
    assert life.seated("") == 2
    feed(subject, "h01", ("", F.CONTACT, True))
    assert life.seated("A") == 3
    assert life.tally == (1, 1)


def test_the_number_of_a_seating_begins_anew_when_the_unit_has_passed() -> None:
    subject = lives()
    assert [subject["h01"].seated("A"), subject["h01"].seated("A"), subject["h01"].seated("B")] == [1, 2, 1]
    feed(subject, "h01", ("A", F.PASS))
    assert subject["h01"].seated("A") == 1


def test_a_streak_that_is_switched_off_stops_nothing_and_does_not_grow_for_ever() -> None:
    subject = lives(Life(contact_streak=0, fail_streak=0, confidence=0.999999), ["h01"])
    feed(subject, "h01", *[(f"u{number}", F.CONTACT) for number in range(300)])
    assert subject["h01"].blocked == ""
    assert len(subject["h01"].record.contact_streak) == 100


# ---- against the siblings -----------------------------------------------------------------------------


def good(subject: Lives, units: int, heads: list[str] = HEADS) -> None:
    for head in heads:
        feed(subject, head, *[(f"{head}-{number}", F.PASS) for number in range(units)])


def worn(subject: Lives, head: str, times: int, prefix: str = "w") -> list[Cause]:
    """Units that lose contact first and pass when they are seated again: no streak ever shows that."""
    seatings = [
        (f"{prefix}{n}", finding, finding is F.CONTACT) for n in range(times) for finding in (F.CONTACT, F.PASS)
    ]
    return feed(subject, head, *seatings)


def test_a_head_that_loses_contact_more_often_than_its_siblings_is_named_and_goes_on() -> None:
    subject = lives()
    good(subject, 100)
    alarms = worn(subject, "h07", 5)
    assert codes(alarms) == [("A-112", True)]
    assert alarms[0].what.text == "3 of 103 units lost contact, 0 of 1500 on the other heads"
    assert alarms[0].what.value == pytest.approx(3 / 103, abs=1e-4)
    assert subject["h07"].blocked == ""
    assert subject.shown("h07").alarms == ("A-112",)


def test_a_rate_stops_a_head_where_that_is_wanted() -> None:
    subject = lives(Life(worn_stops=True))
    good(subject, 100)
    worn(subject, "h07", 5)
    assert subject["h07"].blocked.startswith("A-112")


def test_what_is_bad_on_every_head_is_no_worn_socket() -> None:
    subject = lives()
    for number in range(20):
        for head in HEADS:
            assert worn(subject, head, 1, f"{number}-") == []


def test_a_head_known_to_be_worn_does_not_hide_the_next_one() -> None:
    subject = lives()
    good(subject, 50)
    assert codes(worn(subject, "h01", 60)) == [("A-112", True)]
    assert codes(worn(subject, "h02", 4)) == [("A-112", True)]


def test_a_warning_ends_by_itself_when_the_head_is_as_good_as_the_others_again() -> None:
    subject = lives(Life(window=50))
    good(subject, 50)
    worn(subject, "h07", 5)
    ended = feed(subject, "h07", *[(f"g{number}", F.PASS) for number in range(50)])
    assert codes(ended) == [("A-112", False)]
    assert subject.shown("h07").alarms == ()


def test_the_stations_own_faults_say_nothing_of_contact() -> None:
    subject = lives()
    feed(subject, "h01", ("A", F.NOTHING), ("B", F.OTHER), ("C", F.CONTACT))
    assert subject["h01"].tally == (1, 2)


# ---- people -------------------------------------------------------------------------------------------


async def test_a_person_takes_a_head_out_of_work_and_lets_it_in_again() -> None:
    subject = lives()
    waiting = asyncio.create_task(subject["h01"].freed())
    await waiting
    subject.quarantine("h01", "Anna", "bent pin")
    subject.quarantine("h01", "Bert", "another reason")
    assert subject["h01"].blocked == f"{BY_HAND}: bent pin"
    freed = asyncio.create_task(subject["h01"].freed())
    await asyncio.sleep(0)
    assert not freed.done()
    assert subject.release("h01", "Anna") == []
    await asyncio.wait_for(freed, 60)


def test_a_release_ends_the_alarms_in_a_persons_name_and_begins_anew() -> None:
    subject = lives()
    good(subject, 100)
    feed(subject, "h01", ("A", F.CONTACT), ("B", F.CONTACT), ("C", F.CONTACT))
    ended = subject.release("h01", "Anna")
    assert sorted(codes(ended)) == [("A-110", False), ("A-112", False)]
    assert {cause.by for cause in ended} == {"Anna"}
    assert subject["h01"].tally == (0, 0)
    feed(subject, "h01", ("D", F.CONTACT), ("E", F.CONTACT))
    assert subject["h01"].blocked == "", "three in a row again, not the third in all"


def test_a_socket_is_due_after_its_insertions_until_somebody_says_it_is_new() -> None:
    subject = lives(Life(socket_cycles_due=5))
    alarms = feed(subject, "h01", *[("A", F.CONTACT, True)] * 4, *[("A", F.PASS)] * 3)
    assert codes(alarms) == [("A-113", True)]
    assert subject.due("h01")
    assert subject["h01"].blocked == "", "due is no reason to stop"
    assert codes(subject.change_socket("h01", "Anna")) == [("A-113", False)]
    assert (subject.shown("h01").cycles, subject.due("h01")) == (0, False)
    assert subject["h01"].record.insertions == 7


def test_a_new_socket_does_not_release_the_head() -> None:
    subject = lives()
    subject.quarantine("h01", "Anna", "bent pin")
    subject.change_socket("h01", "Bert")
    assert subject["h01"].blocked


def test_time_of_a_load_is_a_moving_mean_by_the_kilobyte() -> None:
    subject = lives()
    subject.close("h01", Seating("A", F.PASS, load_s=4.0, load_kb=40.0))
    assert subject.shown("h01").seconds_per_kb == pytest.approx(0.1)
    subject.close("h01", Seating("B", F.PASS, load_s=8.0, load_kb=40.0))
    assert 0.1 < subject.shown("h01").seconds_per_kb < 0.2
    subject.close("h01", Seating("C", F.FAIL))
    assert subject.shown("h01").seconds_per_kb == pytest.approx(0.11)


# ---- the next process ---------------------------------------------------------------------------------


def test_everything_survives_a_restart() -> None:
    subject = lives()
    good(subject, 60)
    feed(subject, "h01", ("A", F.CONTACT), ("B", F.CONTACT), ("C", F.CONTACT))
    feed(subject, "h02", ("A", F.CONTACT), ("B", F.CONTACT))
    following = keep(subject)
    assert [following.shown(head) for head in HEADS] == [subject.shown(head) for head in HEADS]
    assert following["h01"].blocked.startswith("A-110")
    feed(following, "h02", ("B", F.CONTACT))
    assert following["h02"].blocked == ""
    feed(following, "h02", ("C", F.CONTACT))
    assert following["h02"].blocked.startswith("A-110")


async def test_a_quarantine_that_was_kept_waits_for_a_person_again() -> None:
    subject = lives()
    subject.quarantine("h01", "Anna", "bent pin")
    following = keep(subject)
    freed = asyncio.create_task(following["h01"].freed())
    await asyncio.sleep(0.01)
    assert not freed.done()
    following.release("h01", "Anna")
    await asyncio.wait_for(freed, 60)


def test_heads_the_journal_does_not_know_begin_and_those_that_are_no_more_are_left_alone() -> None:
    subject = lives(heads=["h01", "h99"])
    subject.restore({"h77": b"{}", "h01": b'{"insertions":3,"cycles":2}'})
    assert [subject.shown(head).cycles for head in subject] == [2, 0]


def test_an_alarm_is_raised_once_and_ends_under_the_same_id() -> None:
    subject = lives()
    raised = feed(subject, "h01", *[(f"u{number}", F.FAIL) for number in range(6)])
    assert codes(raised) == [("A-111", True)]
    (ended,) = keep(subject).release("h01", "Anna")
    assert ended.what.alarm_id == raised[0].what.alarm_id
