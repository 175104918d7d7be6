"""The shift calendar: breaks, midnight, the days the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.errors import SettingsError
from ifpp.line.shifts import Shifts, Window
from ifpp.settings import Calendar, Shift

EARLY = Shift("early", "06:00", "14:00", breaks=(("10:00", "10:15"), ("12:00", "12:30")))
LATE = Shift("late", "14:00", "22:00")
NIGHT = Shift("night", "22:00", "06:00", breaks=(("23:30", "00:15"), ("02:15", "02:45")))
VIENNA = Shifts(Calendar("Europe/Vienna", (EARLY, LATE, NIGHT)))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hours(window: Window) -> float:
    return (window.end - window.start).total_seconds() / 3600


def test_a_shift_begins_where_the_one_before_it_ends() -> None:
    assert VIENNA.around(at("2026-07-01T03:59:59.999")).name == "2026-06-30/night"  # type: ignore[union-attr]
    assert VIENNA.around(at("2026-07-01T04:00")).name == "2026-07-01/early"  # type: ignore[union-attr]


def test_a_night_shift_belongs_to_the_day_it_begins_on() -> None:
    night = VIENNA.named("2026-07-01/night", at("2026-07-02T12:00"))
    assert (night.start, night.end) == (at("2026-07-01T20:00"), at("2026-07-02T04:00"))
    assert night.breaks[0] == (at("2026-07-01T21:30"), at("2026-07-01T22:15"))
    assert night.breaks[1] == (at("2026-07-02T00:15"), at("2026-07-02T00:45"))
    assert night.planned_s(night.end) == 8 * 3600 - 45 * 60 - 30 * 60


def test_the_night_the_clocks_go_forward_is_an_hour_shorter_and_its_lost_break_is_none() -> None:
    night = VIENNA.named("2026-03-28/night", at("2026-03-30T12:00"))
    assert hours(night) == 7
    assert night.breaks[1] == (at("2026-03-29T01:00"), at("2026-03-29T01:00"))
    assert night.planned_s(night.end) == 7 * 3600 - 45 * 60


def test_the_night_the_clocks_go_back_is_an_hour_longer() -> None:
    night = VIENNA.named("2026-10-24/night", at("2026-10-26T12:00"))
    assert hours(night) == 9
    assert night.breaks[1] == (at("2026-10-25T00:15"), at("2026-10-25T00:45"))  # the first of the two


@given(st.integers(0, 2 * 365 * 24 * 60))
def test_there_is_one_shift_at_every_moment_of_a_three_shift_day(minute: int) -> None:
    here = at("2026-01-01") + timedelta(minutes=minute)
    found = VIENNA.around(here)
    assert found is not None
    assert found.start <= here < found.end
    assert len(VIENNA.between(here, here + timedelta(microseconds=1))) == 1
    pieces = list(found.pieces(found.end))
    assert sum((end - start).total_seconds() for start, end, _ in pieces) == (found.end - found.start).total_seconds()
    assert all(end > start for start, end, _ in pieces)


def test_between_shifts_there_is_none_and_the_last_one_is_current() -> None:
    weekdays = Shifts(Calendar("UTC", (Shift("day", "08:00", "16:00", days=("mon", "fri")),)))
    assert weekdays.around(at("2026-03-03T09:00")) is None
    assert weekdays.named("current", at("2026-03-03T09:00")).name == "2026-03-02/day"
    assert weekdays.named("day", at("2026-03-06T09:00")).name == "2026-03-06/day"
    idle = weekdays.breaks(at("2026-03-02T06:00"), at("2026-03-02T18:00"))
    assert idle == ((at("2026-03-02T06:00"), at("2026-03-02T08:00")), (at("2026-03-02T16:00"), at("2026-03-02T18:00")))


@pytest.mark.parametrize("name", ["noon", "2026-03-02/noon", "yesterday/early", "2026-13-40/early"])
def test_a_shift_that_is_not_there(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        VIENNA.named(name, at("2026-03-03T09:00"))
    assert caught.value.code == "SHIFT.UNKNOWN"


@pytest.mark.parametrize(
    "calendar",
    [
        Calendar("Mars/Base"),
        Calendar("UTC", (EARLY, EARLY)),
        Calendar("UTC", (EARLY, Shift("b", "13:59", "20:00"))),
        Calendar("UTC", (Shift("a", "06:00", "14:00", breaks=(("13:50", "14:10"),)),)),
        Calendar("UTC", (Shift("a", "06:00", "14:00", breaks=(("10:00", "11:00"), ("10:30", "11:30"))),)),
    ],
)
def test_a_calendar_that_cannot_be(calendar: Calendar) -> None:
    with pytest.raises(SettingsError) as caught:
        Shifts(calendar)
    assert caught.value.code == "SETTINGS.INVALID"


def test_an_hour_is_one_of_utc_with_the_breaks_in_it() -> None:
    hour = VIENNA.hour(at("2026-07-01T08:20"))
    assert (hour.name, hour.start, hour.end) == ("2026-07-01T08Z", at("2026-07-01T08:00"), at("2026-07-01T09:00"))
    assert hour.breaks == ((at("2026-07-01T08:00"), at("2026-07-01T08:15")),)
