"""The site's shift calendar: named shifts with breaks, over midnight, in the site's time zone with its summer time.

Windows are half-open, [from, to). A shift belongs to the day it begins on. A wall time that a clock change leaves out
is the moment the clocks change; one that comes twice is its first. Hours are those of UTC, so that each has an hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from ifpp.errors import SettingsError
from ifpp.model.clock import utc_ms_text
from ifpp.settings import Calendar, Shift

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time that has a document: `kind` is hour, shift or job, `name` names it for ever.

    `breaks`: stretches of it in which nothing is planned, in order. Times are aware, in UTC.
    """

    kind: str
    name: str
    start: datetime
    end: datetime
    breaks: tuple[tuple[datetime, datetime], ...] = ()
    target: int = 0

    def pieces(self, until: datetime) -> Iterator[tuple[datetime, datetime, bool]]:
        """Give what lies before `until` in pieces: from, to, and whether work was planned."""
        end, at = min(self.end, until), self.start
        for begins, ends in self.breaks:
            if at < min(begins, end):
                yield at, min(begins, end), True
            if max(at, begins) < min(ends, end):
                yield max(at, begins), min(ends, end), False
            at = max(at, min(ends, end))
        if at < end:
            yield at, end, True

    def planned_s(self, until: datetime) -> float:
        """Seconds of planned work before `until`."""
        return sum((to - start).total_seconds() for start, to, planned in self.pieces(until) if planned)


class Shifts:
    """The shifts of a site."""

    def __init__(self, calendar: Calendar) -> None:
        """Raises SettingsError SETTINGS.INVALID for a zone, a time or a break that cannot be."""
        try:
            self._zone = ZoneInfo(calendar.zone)
        except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise _invalid(f"no time zone {calendar.zone!r}") from error
        except KeyError as error:
            raise _invalid(f"no time zone {calendar.zone!r}") from error
        self._shifts = calendar.shifts
        self._check()

    def around(self, at: datetime) -> Window | None:
        """Return the shift at a moment; None between shifts."""
        return next((one for one in self.between(at, at + timedelta(microseconds=1))), None)

    def latest(self, at: datetime) -> Window | None:
        """Return the shift at a moment, or the last one before it; None without a calendar."""
        found = list(self.between(at - timedelta(days=8), at + timedelta(microseconds=1)))
        return found[-1] if found else None

    def between(self, start: datetime, end: datetime) -> list[Window]:
        """Return every shift that shares time with [start, end), in order."""
        first = start.astimezone(self._zone).date() - timedelta(days=1)
        last = end.astimezone(self._zone).date()
        days = (first + timedelta(days=number) for number in range((last - first).days + 1))
        found = [
            self._window(shift, day) for day in days for shift in self._shifts if _DAYS[day.weekday()] in shift.days
        ]
        return sorted((one for one in found if one.start < end and start < one.end), key=lambda one: one.start)

    def named(self, name: str, now: datetime) -> Window:
        """Return a shift by `<date>/<shift>`, by its shift's name (the last that began) or "current".

        Raises SettingsError SHIFT.UNKNOWN.
        """
        day, _, shift_name = name.rpartition("/")
        if name == "current":
            found = self.latest(now)
        elif day:
            found = self._on(day, shift_name)
        else:
            past = self.between(now - timedelta(days=15), now + timedelta(microseconds=1))
            found = next((one for one in reversed(past) if one.name.endswith(f"/{name}")), None)
        if found is None:
            known = ", ".join(shift.name for shift in self._shifts) or "none: see [calendar] in the site file"
            raise SettingsError("SHIFT.UNKNOWN", f"the calendar has no shift {name!r}; it has {known}", where="--shift")
        return found

    def breaks(self, start: datetime, end: datetime) -> tuple[tuple[datetime, datetime], ...]:
        """Return where nothing is planned in [start, end): breaks, and the time between shifts. In order, disjoint."""
        if not self._shifts:
            return ()
        idle: list[tuple[datetime, datetime]] = []
        at = start
        for shift in self.between(start, end):
            if at < shift.start:
                idle.append((at, shift.start))
            idle += [(max(a, start), min(b, end)) for a, b in shift.breaks if a < end and start < b]
            at = max(at, shift.end)
        if at < end:
            idle.append((at, end))
        return tuple(idle)

    def hour(self, at: datetime) -> Window:
        """Return the hour of UTC around a moment."""
        start = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        end = start + timedelta(hours=1)
        return Window("hour", utc_ms_text(start)[:13] + "Z", start, end, self.breaks(start, end))

    def _on(self, day: str, name: str) -> Window | None:
        try:
            when = date.fromisoformat(day)
        except ValueError:
            return None
        shift = next((one for one in self._shifts if one.name == name and _DAYS[when.weekday()] in one.days), None)
        return None if shift is None else self._window(shift, when)

    def _window(self, shift: Shift, day: date) -> Window:
        start, end = self._stretch(day, shift.start, shift.end)
        breaks = []
        for begins, ends in shift.breaks:
            late = _time(begins) < _time(shift.start)  # after midnight
            breaks.append(self._stretch(day + timedelta(days=late), begins, ends))
        return Window("shift", f"{day.isoformat()}/{shift.name}", start, end, tuple(sorted(breaks)), shift.target)

    def _stretch(self, day: date, start: str, end: str) -> tuple[datetime, datetime]:
        after = day + timedelta(days=_time(end) <= _time(start))
        return self._moment(day, _time(start)), self._moment(after, _time(end))

    def _moment(self, day: date, at: time) -> datetime:
        """Return the UTC time of a wall time; of one that is left out, the moment the clocks change."""
        local = datetime.combine(day, at, self._zone)
        utc = local.astimezone(UTC)
        if utc.astimezone(self._zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return utc
        low, high = utc - timedelta(days=1), utc + timedelta(days=1)
        offset = low.astimezone(self._zone).utcoffset()
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            low, high = (middle, high) if middle.astimezone(self._zone).utcoffset() == offset else (low, middle)
        return high.replace(microsecond=0)

    def _check(self) -> None:
        names = [shift.name for shift in self._shifts]
        if len(set(names)) != len(names):
            raise _invalid("two shifts have the same name")
        week = self.between(datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 19, tzinfo=UTC))
        for one, other in pairwise(week):
            if other.start < one.end:
                raise _invalid(f"shifts {one.name} and {other.name} overlap")
        for shift in week:
            at = shift.start
            for begins, ends in shift.breaks:
                if not at <= begins < ends <= shift.end:
                    raise _invalid(f"a break of shift {shift.name} lies outside of it, or on another one")
                at = ends


def _time(text: str) -> time:
    return time.fromisoformat(text)


def _invalid(detail: str) -> SettingsError:
    return SettingsError("SETTINGS.INVALID", detail, where="calendar")
