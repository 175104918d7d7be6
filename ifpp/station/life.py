"""The life of a station's heads: wear, contact against their siblings, streaks, quarantine. Knows no card and no disk.

1. A unit counts once on a head, however often it is seated there again: its contact failed if one seating failed.
2. Contact errors (A-110), or fails (A-111), of so many different units in a row put the head into quarantine.
3. A head that loses contact significantly more often than its siblings gets a warning (A-112), or quarantine.
4. A socket that has seen its insertions is due for a change (A-113).
5. Only a person with a name lets a head out of quarantine, or says that its socket is a new one.

A unit that never said who it is: the one that was to be seated again, if there is one, else a new one.
Sources: line contract 5.5 (head health), 6.2 (alarms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from ifpp.model.clock import Clock, utc_ms_text, uuid7
from ifpp.settings import Life as LifeSettings
from ifpp.station.odds import is_worse, smoothed

CONTACT_STREAK, FAIL_STREAK, WORN, DUE = "A-110", "A-111", "A-112", "A-113"
BY_HAND = "BY_HAND"
"""The code of a quarantine that a person ordered."""
ALARMS = (CONTACT_STREAK, FAIL_STREAK, WORN, DUE)

_LONGEST_STREAK = 100  # units; no limit is set higher
_CALM = 0.95  # a warning ends when the head is no longer worse even at this confidence
_NEWEST = 0.1  # weight of the newest load in the mean time


class Finding(StrEnum):
    """What one seating says about its head."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"  # the product was judged, so contact held
    CONTACT = "CONTACT"
    OTHER = "OTHER"  # contact held, nothing was judged
    NOTHING = "NOTHING"  # the station's own fault: it says nothing about contact


@dataclass(frozen=True, slots=True)
class Seating:
    """One seating at its end. `eid` is "" when it was never told; `again`: the same unit is to be seated once more.

    `load_s` and `load_kb` (1000 bytes) measure what was installed, 0 when nothing was.
    """

    eid: str
    finding: Finding
    again: bool = False
    load_s: float = 0.0
    load_kb: float = 0.0


class Quarantine(msgspec.Struct, kw_only=True):
    """Why a head takes no unit: an alarm's code or BY_HAND; `by` is the person, "" when the station did it."""

    code: str
    reason: str
    since: str
    by: str = ""


class Raised(msgspec.Struct, kw_only=True):
    """The cause of an alarm that stands; `ifpp.station.alarm_watch` makes the alarm of it."""

    alarm_id: str
    first_at: str
    text: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of an alarm came (`standing`) or went; `by` is the person who saw to it, "" when it went by itself."""

    head_id: str
    code: str
    what: Raised
    standing: bool
    by: str = ""


class LifeRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the journal keeps of a head.

    `insertions` are all there ever were, `cycles` those of the present socket; `contacts` has a character for each of
    the last units, oldest first: "1" where contact failed. The streaks are lists of units.
    """

    insertions: int = 0
    cycles: int = 0
    contacts: str = ""
    last_unit: str = ""
    awaited: bool = False
    contact_streak: list[str] = []
    fail_streak: list[str] = []
    seconds_per_kb: float = 0.0
    quarantine: Quarantine | None = None
    alarms: dict[str, Raised] = {}


@dataclass(frozen=True, slots=True)
class LifeShown:
    """What people see of a head's life; fields as in HeadState, `blocked` the reason of its quarantine or ""."""

    blocked: str = ""
    cycles: int = 0
    maintenance_due: bool = False
    contact: tuple[int, int] = (0, 0)
    seconds_per_kb: float = 0.0
    alarms: tuple[str, ...] = ()


class HeadLife:
    """The life of one head. Belongs to the event loop."""

    def __init__(self) -> None:
        self.record = LifeRecord()
        self._seatings: dict[str, int] = {}
        self._free = asyncio.Event()
        self._free.set()

    @property
    def blocked(self) -> str:
        """Why no unit is taken; "" when units are."""
        why = self.record.quarantine
        return "" if why is None else f"{why.code}: {why.reason}"

    @property
    def tally(self) -> tuple[int, int]:
        """(units whose contact failed, units) of those remembered."""
        return self.record.contacts.count("1"), len(self.record.contacts)

    async def freed(self) -> None:
        """Wait until the head is in no quarantine."""
        await self._free.wait()

    def seated(self, eid: str) -> int:
        """Count a seating of a unit on this head; returns its number since the unit last passed here, from 1."""
        unit = self._name(eid)
        self._seatings[unit] = self._seatings.get(unit, 0) + 1
        return self._seatings[unit]

    def close(self, seating: Seating, window: int) -> None:
        """Take what a seating showed into the counters; `window` units are remembered."""
        record, unit = self.record, self._name(seating.eid)
        self._count_contact(unit, seating.finding, window)
        record.insertions += 1
        record.cycles += 1
        record.last_unit, record.awaited = unit, seating.again
        match seating.finding:
            case Finding.PASS:
                record.contact_streak, record.fail_streak = [], []
                self._seatings.pop(unit, None)
            case Finding.FAIL:
                record.contact_streak = []
                record.fail_streak = _with(record.fail_streak, unit)
            case Finding.CONTACT:
                record.contact_streak = _with(record.contact_streak, unit)
        if seating.load_kb:
            now, mean = seating.load_s / seating.load_kb, record.seconds_per_kb
            record.seconds_per_kb = mean + _NEWEST * (now - mean) if mean else now

    def block(self, quarantine: Quarantine) -> None:
        self.record.quarantine = quarantine
        self._free.clear()

    def release(self) -> None:
        """Begin anew: what was held against the head was seen to."""
        record = self.record
        record.quarantine, record.contacts, record.contact_streak, record.fail_streak = None, "", [], []
        record.last_unit, record.awaited = "", False
        self._free.set()

    def restore(self, record: LifeRecord) -> None:
        self.record = record
        if record.quarantine is not None:
            self._free.clear()

    def _name(self, eid: str) -> str:
        if eid:
            return eid
        return self.record.last_unit if self.record.awaited else f"unnamed {self.record.insertions + 1}"

    def _count_contact(self, unit: str, finding: Finding, window: int) -> None:
        record = self.record
        if finding is Finding.NOTHING:
            return
        failed = finding is Finding.CONTACT
        if unit == record.last_unit and record.contacts:
            failed = failed or record.contacts[-1] == "1"
            record.contacts = record.contacts[:-1]
        record.contacts = (record.contacts + "01"[failed])[-window:]


class Lives:
    """The heads of one station, each judged against the others. Every change returns the causes that came or went.

    `on_cause` hears of each, too.
    """

    def __init__(self, heads: Iterable[str], settings: LifeSettings, *, clock: Clock) -> None:
        self._lives = {head_id: HeadLife() for head_id in heads}
        self._settings = settings
        self._clock = clock
        self.on_cause: Callable[[Cause], object] = lambda _cause: None

    def __getitem__(self, head_id: str) -> HeadLife:
        return self._lives[head_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lives)

    def __contains__(self, head_id: str) -> bool:
        return head_id in self._lives

    def restore(self, rows: dict[str, bytes]) -> None:
        """Go on where the journal ended; heads that are no more are left alone."""
        for head_id, life in self._lives.items():
            if head_id in rows:
                life.restore(msgspec.json.decode(rows[head_id], type=LifeRecord))

    def row(self, head_id: str) -> bytes:
        """A head's life as the journal keeps it."""
        return msgspec.json.encode(self._lives[head_id].record)

    def due(self, head_id: str) -> bool:
        """Whether the socket has seen all the insertions it is made for."""
        limit = self._settings.socket_cycles_due
        return limit > 0 and self._lives[head_id].record.cycles >= limit

    def shown(self, head_id: str) -> LifeShown:
        """What people are to see of a head."""
        life = self._lives[head_id]
        return LifeShown(
            blocked=life.blocked,
            cycles=life.record.cycles,
            maintenance_due=self.due(head_id),
            contact=life.tally,
            seconds_per_kb=round(life.record.seconds_per_kb, 4),
            alarms=tuple(sorted(life.record.alarms)),
        )

    # ---- what happens on a head -------------------------------------------------------------------

    def close(self, head_id: str, seating: Seating) -> list[Cause]:
        """Count one seating and judge the head."""
        life, settings = self._lives[head_id], self._settings
        life.close(seating, settings.window)
        alarms: list[Cause] = []
        for code, streak, limit, what in (
            (CONTACT_STREAK, life.record.contact_streak, settings.contact_streak, "lost contact"),
            (FAIL_STREAK, life.record.fail_streak, settings.fail_streak, "failed"),
        ):
            if 0 < limit <= len(streak):
                text = f"{len(streak)} different units in a row {what}"
                alarms += self._raise(head_id, code, text, stops=True, value=len(streak), limit=limit)
        alarms += self._judge_contact(head_id)
        if self.due(head_id):
            cycles, limit = life.record.cycles, settings.socket_cycles_due
            alarms += self._raise(head_id, DUE, f"{cycles} insertions of {limit}", value=cycles, limit=limit)
        return alarms

    def _judge_contact(self, head_id: str) -> list[Cause]:
        settings, life = self._settings, self._lives[head_id]
        own = life.tally
        if not own[0] and WORN not in life.record.alarms:
            return []
        others = self._siblings(head_id)
        if WORN in life.record.alarms:
            calm = life.record.quarantine is None and not is_worse(own, others, _CALM)
            return self._end(head_id, [WORN]) if calm else []
        if not is_worse(own, others, settings.confidence):
            return []
        text = f"{own[0]} of {own[1]} units lost contact, {others[0]} of {others[1]} on the other heads"
        value, limit = round(own[0] / own[1], 4), round(smoothed(*others), 4)
        return self._raise(head_id, WORN, text, stops=settings.worn_stops, value=value, limit=limit)

    def _siblings(self, head_id: str) -> tuple[int, int]:
        """What the heads that are not known to be worn saw together."""
        tallies = [
            life.tally
            for other, life in self._lives.items()
            if other != head_id and life.record.quarantine is None and WORN not in life.record.alarms
        ]
        return sum(failures for failures, _ in tallies), sum(units for _, units in tallies)

    # ---- what people do ---------------------------------------------------------------------------

    def quarantine(self, head_id: str, by: str, reason: str) -> None:
        """A person takes a head out of work; one that is out stays out for the first reason."""
        life = self._lives[head_id]
        if life.record.quarantine is None:
            life.block(Quarantine(code=BY_HAND, reason=reason, since=self._now(), by=by))

    def release(self, head_id: str, by: str) -> list[Cause]:
        """A person lets a head work again, as one that nothing is held against."""
        ended = self._end(head_id, [CONTACT_STREAK, FAIL_STREAK, WORN], by)
        self._lives[head_id].release()
        return ended

    def change_socket(self, head_id: str, by: str) -> list[Cause]:
        """A person has put a new socket in: its insertions count from 0. A quarantine stays: release it, too."""
        record = self._lives[head_id].record
        record.cycles, record.contacts, record.contact_streak = 0, "", []
        return self._end(head_id, [DUE, WORN], by)

    # ---- causes of alarms -----------------------------------------------------------------------------------

    def _raise(
        self, head_id: str, code: str, text: str, *, value: float, limit: float, stops: bool = False
    ) -> list[Cause]:
        life, now = self._lives[head_id], self._now()
        if stops and life.record.quarantine is None:
            life.block(Quarantine(code=code, reason=text, since=now))
        if code in life.record.alarms:
            return []
        raised = Raised(alarm_id=uuid7(self._clock.now()), first_at=now, text=text, value=value, limit=limit)
        life.record.alarms[code] = raised
        return self._told([Cause(head_id, code, raised, standing=True)])

    def _end(self, head_id: str, codes: list[str], by: str = "") -> list[Cause]:
        """End what was the cause of alarms: by a person who saw to it, or by itself."""
        alarms = self._lives[head_id].record.alarms
        return self._told(
            [Cause(head_id, code, alarms.pop(code), standing=False, by=by) for code in codes if code in alarms]
        )

    def _told(self, causes: list[Cause]) -> list[Cause]:
        for cause in causes:
            self.on_cause(cause)
        return causes

    def _now(self) -> str:
        return utc_ms_text(self._clock.now())


def _with(streak: list[str], unit: str) -> list[str]:
    return streak if unit in streak else [*streak, unit][-_LONGEST_STREAK:]
