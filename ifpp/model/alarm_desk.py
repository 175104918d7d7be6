"""Alarms from condition to forgotten: the life cycle of ISA-18.2 (IEC 62682), for one station or one line.

Pure: conditions, people's acts and the clock come in, changes of state come out. An alarm is one (code, source); a
source is a place: "_line", "_mes", "st01" or "st01/h03". Times that must outlive the process are UTC, delays monotonic:
after a take-over pending delays begin anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ifpp.model.alarm_list import ALARM_KINDS, UNKNOWN_KIND, AlarmKind
from ifpp.model.alarms import ActiveAlarm, AlarmCommand
from ifpp.model.clock import Clock, parse_utc, utc_ms_text, uuid7
from ifpp.model.messages import Alarm

NORMAL, UNACK, ACKED, RTN_UNACK = "NORMAL", "UNACK_ALARM", "ACK_ALARM", "RTN_UNACK"
SHELVED, SUPPRESSED, OUT_OF_SERVICE = "SHELVED", "SUPPRESSED", "OUT_OF_SERVICE"
_FLOOD_S = 600.0
_FLOOD_BEGINS, _FLOOD_ENDS = 10, 5  # new alarms in ten minutes (ISA-18.2, EEMUA 191)
_FIRST_OUT = 5
_LONGEST_SHELF_MIN = 8 * 60
_HIGH = 1


@dataclass(slots=True)
class Standing:
    """One alarm that is not forgotten yet. `state` is the process's (A to D), `shown` what people were told last."""

    kind: AlarmKind
    alarm_id: str
    source: str
    text: str
    first_at: str
    state: str = NORMAL
    shown: str = NORMAL
    active: bool = False
    since_s: float = 0.0
    count: int = 1
    priority: int = 0
    value: float | None = None
    limit: float | None = None
    operator_id: str = ""
    reason: str = ""
    shelved_until: str = ""
    out_of_service: bool = False
    suppressed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.kind.code, self.source

    @property
    def face(self) -> str:
        """The state people see: what was set aside hides the process's state (ISA-18.2 states G, H, I)."""
        if self.out_of_service:
            return OUT_OF_SERVICE
        if self.shelved_until:
            return SHELVED
        if self.suppressed and self.state != NORMAL:
            return SUPPRESSED
        return self.state


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm went from one state to another; `alarm` is a copy of what it was then."""

    alarm: Standing
    old_state: str
    state: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer to a person's act: ACCEPTED, or REJECTED with a code."""

    status: str
    text: str
    code: str = ""


class Flood:
    """Whether more alarms come than a person can take in (more than ten in ten minutes), and which came first."""

    def __init__(self) -> None:
        self._rung: deque[tuple[float, str]] = deque()
        self.on = False
        self.first_out: tuple[str, ...] = ()

    def ring(self, now_s: float, alarm_id: str) -> None:
        """Count one alarm that came; `now_s` monotonic."""
        self._rung.append((now_s, alarm_id))

    def judge(self, now_s: float) -> None:
        """Let time pass: a flood ends when fewer than five came in ten minutes."""
        while self._rung and now_s - self._rung[0][0] > _FLOOD_S:
            self._rung.popleft()
        if len(self._rung) > _FLOOD_BEGINS and not self.on:
            self.on = True
            self.first_out = tuple(alarm_id for _, alarm_id in list(self._rung)[:_FIRST_OUT])
        elif len(self._rung) < _FLOOD_ENDS:
            self.on, self.first_out = False, ()


class AlarmDesk:
    """The alarms of one place. `changes()` after any call returns what must be told."""

    def __init__(self, clock: Clock, kept: Iterable[tuple[str, ActiveAlarm]] = ()) -> None:
        """`kept`: what the desk before this one published, so that nothing acknowledged rings again."""
        self._clock = clock
        self._standing: dict[tuple[str, str], Standing] = {}
        self.floods = Flood()
        for alarm_id, alarm in kept:
            self._take_over(alarm_id, alarm)

    def say(
        self,
        code: str,
        source: str,
        *,
        active: bool,
        text: str = "",
        value: float | None = None,
        limit: float | None = None,
        alarm_id: str = "",
        priority: int = 0,
    ) -> None:
        """Tell how a condition stands now; telling the same again changes nothing.

        `text` says more than the kind's own words, `alarm_id` names the occurrence where its source has named it, and
        `priority` overrides the kind's.
        """
        one = self._standing.get((code, source))
        if one is None:
            if not active:
                return
            one = self._new(code, source, alarm_id)
        if active:
            one.text, one.value, one.limit = text or one.kind.text, value, limit
            one.priority = priority or one.kind.priority
        if one.active != active:
            one.active, one.since_s = active, self._clock.monotonic()
            if active and one.state != NORMAL:
                one.count += 1  # it came back before it was gone: the same occurrence, chattering

    def sources(self, code: str) -> set[str]:
        """Where an alarm of this code is not forgotten: what has gone there must be said, too."""
        return {source for known, source in self._standing if known == code}

    def seen(self, code: str, source: str, by: str) -> None:
        """A person saw to the cause itself: that acknowledges, too."""
        one = self._standing.get((code, source))
        if one is not None and one.state in (UNACK, RTN_UNACK):
            one.state = ACKED if one.state == UNACK else NORMAL
            one.operator_id = by

    def hides(self, code: str, source: str) -> bool:
        """Whether an alarm that stands here explains one of another desk."""
        return any(_explains(other, code, source) for other in self._standing.values())

    def act(self, command: AlarmCommand, *, maintenance: bool = False) -> Verdict:
        """Carry out what a person asks; `maintenance`: whether the person may take an alarm out of service."""
        one = next((one for one in self._standing.values() if one.alarm_id == command.alarm_id), None)
        if one is None:
            return Verdict("REJECTED", "no such alarm stands", "ALARM.UNKNOWN")
        if not command.operator_id:
            return Verdict("REJECTED", "who asks? operator_id is empty", "ALARM.REFUSED")
        acts = {
            "ACK": self._acknowledge,
            "SHELVE": self._shelve,
            "UNSHELVE": self._unshelve,
            "OUT_OF_SERVICE": self._take_out if maintenance else _not_maintenance,
            "IN_SERVICE": self._put_back if maintenance else _not_maintenance,
        }
        act = acts.get(command.action)
        if act is None:
            return Verdict("REJECTED", f"{command.action[:32]!r} is none of {', '.join(acts)}", "ALARM.REFUSED")
        verdict = act(one, command)
        if verdict.status == "ACCEPTED":
            one.operator_id, one.reason = command.operator_id, command.reason
        return verdict

    def changes(self) -> list[Change]:
        """Let time pass, and return every change of state since the last call, in the order of the alarms."""
        now_s = self._clock.monotonic()
        for one in self._standing.values():
            self._pass_time(one, now_s)
        for one in self._standing.values():
            one.suppressed = self._hidden(one)
        told = []
        for one in list(self._standing.values()):
            if one.face != one.shown:
                told.append(Change(replace(one), one.shown, one.face))
                if one.face == UNACK and one.shown in (NORMAL, RTN_UNACK):
                    self.floods.ring(now_s, one.alarm_id)
                one.shown = one.face
            if one.face == NORMAL and not one.active:
                del self._standing[one.key]
        self.floods.judge(now_s)
        return told

    def active(self) -> dict[str, ActiveAlarm]:
        """Every alarm that is not NORMAL, the most urgent first, the oldest of these first."""
        shown = [one for one in self._standing.values() if one.shown != NORMAL]
        shown.sort(key=lambda one: (one.priority, one.first_at, one.alarm_id))
        return {one.alarm_id: _document(one) for one in shown}

    # ---- time ----

    def _pass_time(self, one: Standing, now_s: float) -> None:
        lasted_s = now_s - one.since_s
        if one.active and one.state in (NORMAL, RTN_UNACK) and lasted_s >= one.kind.on_s:
            one.state = UNACK
        elif not one.active and one.state in (UNACK, ACKED) and lasted_s >= one.kind.off_s:
            one.state = RTN_UNACK if one.state == UNACK else NORMAL
        if one.shelved_until and self._clock.now() >= parse_utc(one.shelved_until):
            one.shelved_until = ""

    def _hidden(self, one: Standing) -> bool:
        """Whether an alarm that stands explains this one (suppressed by design)."""
        for other in self._standing.values():
            if other is not one and _explains(other, one.kind.code, one.source):
                return True
        return False

    # ---- people ----

    def _acknowledge(self, one: Standing, _: AlarmCommand) -> Verdict:
        if one.state == UNACK:
            one.state = ACKED
        elif one.state == RTN_UNACK:
            one.state = NORMAL
        else:
            return Verdict("ACCEPTED", "it was acknowledged before")
        return Verdict("ACCEPTED", "acknowledged; it stands until its cause is gone")

    def _shelve(self, one: Standing, command: AlarmCommand) -> Verdict:
        if one.priority <= _HIGH:
            return Verdict("REJECTED", "an alarm of priority 1 cannot be shelved", "ALARM.REFUSED")
        if not command.reason.strip():
            return Verdict("REJECTED", "shelving needs a reason", "ALARM.REFUSED")
        if not 0 < command.minutes <= _LONGEST_SHELF_MIN:
            return Verdict("REJECTED", f"shelving takes 1 to {_LONGEST_SHELF_MIN} minutes", "ALARM.REFUSED")
        until = self._clock.now() + timedelta(minutes=command.minutes)
        one.shelved_until = utc_ms_text(until)
        return Verdict("ACCEPTED", f"shelved until {one.shelved_until}")

    def _unshelve(self, one: Standing, _: AlarmCommand) -> Verdict:
        one.shelved_until = ""
        return Verdict("ACCEPTED", "not shelved any more")

    def _take_out(self, one: Standing, command: AlarmCommand) -> Verdict:
        if not command.reason.strip():
            return Verdict("REJECTED", "out of service needs a reason", "ALARM.REFUSED")
        one.out_of_service = True
        return Verdict("ACCEPTED", "out of service until somebody puts it back")

    def _put_back(self, one: Standing, _: AlarmCommand) -> Verdict:
        one.out_of_service = False
        return Verdict("ACCEPTED", "in service again")

    # ---- inside ----

    def _new(self, code: str, source: str, alarm_id: str) -> Standing:
        kind = ALARM_KINDS.get(code) or replace(UNKNOWN_KIND, code=code)
        now = self._clock.now()
        one = Standing(kind, alarm_id or uuid7(now), source, kind.text, utc_ms_text(now))
        self._standing[one.key] = one
        return one

    def _take_over(self, alarm_id: str, alarm: ActiveAlarm) -> None:
        """Continue an alarm as it was published; whether its condition still holds is told by `say`."""
        one = self._new(alarm.code, alarm.source, alarm_id)
        one.text, one.first_at, one.count = alarm.text, alarm.first_at, alarm.count
        one.priority, one.value, one.limit = alarm.priority, alarm.value, alarm.limit
        one.operator_id, one.reason, one.shelved_until = alarm.operator_id, alarm.reason, alarm.shelved_until
        one.out_of_service = alarm.state == OUT_OF_SERVICE
        state = alarm.beneath or alarm.state
        one.state = state if state in (NORMAL, UNACK, ACKED, RTN_UNACK) else UNACK
        one.suppressed = alarm.state == SUPPRESSED
        one.shown = alarm.state
        one.active, one.since_s = one.state in (UNACK, ACKED), self._clock.monotonic()


def _not_maintenance(_: Standing, command: AlarmCommand) -> Verdict:
    return Verdict("REJECTED", f"{command.action} is for maintenance", "ALARM.REFUSED")


def _explains(one: Standing, code: str, source: str) -> bool:
    """Whether an alarm that stands explains another: one below its place, or one its kind names."""
    if one.state not in (UNACK, ACKED):
        return False
    below = source == one.source or source.startswith(f"{one.source}/")
    return (one.kind.hides_below and below) or code in one.kind.hides


def as_event(change: Change, *, node_id: str, boot_id: str, clock: Clock) -> Alarm:
    """Return the event that tells a change."""
    one, now = change.alarm, clock.now()
    return Alarm(
        schema="alarm/1.0",
        id=uuid7(now),
        ts=utc_ms_text(now),
        node_id=node_id,
        boot_id=boot_id,
        alarm_id=one.alarm_id,
        code=one.kind.code,
        source=one.source,
        priority=one.priority,
        kind=one.kind.kind,
        old_state=change.old_state,
        state=change.state,
        text=one.text,
        action=one.kind.action,
        first_at=one.first_at,
        value=one.value,
        limit=one.limit,
        operator_id=one.operator_id,
        reason=one.reason,
        shelved_until=one.shelved_until,
        count=one.count,
    )


def as_list(alarms: dict[str, ActiveAlarm], floods: Flood) -> dict[str, Any]:
    """Return the content of the document that lists alarms, by the names of `ActiveAlarms`."""
    states = [alarm.state for alarm in alarms.values()]
    return {
        "alarms": alarms,
        "flood": floods.on,
        "first_out": floods.first_out,
        "horn": UNACK in states,
        "shelved": states.count(SHELVED),
        "suppressed": states.count(SUPPRESSED),
    }


def _document(one: Standing) -> ActiveAlarm:
    return ActiveAlarm(
        code=one.kind.code,
        source=one.source,
        priority=one.priority,
        state=one.shown,
        text=one.text,
        action=one.kind.action,
        first_at=one.first_at,
        count=one.count,
        value=one.value,
        limit=one.limit,
        operator_id=one.operator_id,
        shelved_until=one.shelved_until,
        reason=one.reason,
        beneath=one.state if one.shown in (SHELVED, SUPPRESSED, OUT_OF_SERVICE) else "",
    )
