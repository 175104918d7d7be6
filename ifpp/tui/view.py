"""What a station screen says, without any terminal: heads, the banner, the figures, from what was heard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ifpp.errors import FAULTS
from ifpp.model.alarms import ActiveAlarm
from ifpp.model.clock import parse_utc
from ifpp.model.messages import HeadState
from ifpp.model.states import Lamp, Phase
from ifpp.tui.heard import Heard
from ifpp.tui.marks import LEVEL_OF_PRIORITY, Level, Marks
from ifpp.tui.words import Words

_WORKING = (Phase.SEATED, Phase.IDENTIFIED, Phase.CLAIMED, Phase.LOADING, Phase.VERIFYING, Phase.SEALING)
_LEVEL_OF_VERDICT = {"PASS": Level.GOOD, "FAIL": Level.LOW, "RESEAT": Level.MEDIUM, "HOLD": Level.MEDIUM}
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Tile:
    """One head as it is shown. `share`: how much of a load is done, None when nothing is; `last`: its verdict."""

    head_id: str
    mark: str
    word: str
    level: Level
    share: float | None = None
    last: str = ""
    last_level: Level = Level.NORMAL
    unit: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Banner:
    """The one thing a person must do now: what - where - do what."""

    level: Level
    what: str
    where: str
    todo: str


def head_state(state: HeadState, words: Words, marks: Marks) -> tuple[str, str, Level]:
    """Return shape, word and urgency of what a head does."""
    phase = state.phase
    if phase == Phase.VERDICT:
        return verdict(state, words, marks)
    if phase in _WORKING:
        return marks.work, words(f"state.{phase}"), Level.NORMAL
    shapes = {
        Phase.EMPTY: (marks.free, Level.NORMAL),
        Phase.NOT_STORED: (marks.wait, Level.HIGH),
        Phase.REFUSING: (marks.stop, Level.DIM),
        Phase.QUARANTINED: (marks.stop, Level.MEDIUM),
        Phase.RETIRED: (marks.lost, Level.HIGH),
    }
    if phase not in Phase.__members__:
        return marks.unknown, phase[:12] or marks.unknown, Level.LOW
    shape, level = shapes[Phase(phase)]
    return shape, words(f"state.{phase}"), level


def verdict(state: HeadState, words: Words, marks: Marks) -> tuple[str, str, Level]:
    """Return shape, word and urgency of a head's last verdict; of one that is to be tried again, what to do."""
    shown = state.lamp if state.lamp in (Lamp.RESEAT, Lamp.HOLD) else state.last
    shape = {"PASS": marks.good, "FAIL": marks.bad, "RESEAT": marks.again, "HOLD": marks.wait}.get(shown, marks.bad)
    return shape, words.of("state", shown, shown), _LEVEL_OF_VERDICT.get(shown, Level.LOW)


def tile(head_id: str, state: HeadState, words: Words, marks: Marks) -> Tile:
    """Return a head as it is shown; the last verdict stays until the next unit is seated."""
    mark, word, level = head_state(state, words, marks)
    share, last, last_level = None, "", Level.NORMAL
    if state.phase in (Phase.LOADING, Phase.VERIFYING, Phase.SEALING) and state.to_load:
        share = min(1.0, state.loaded / state.to_load)
    if state.last and state.phase not in (*_WORKING, Phase.VERDICT):
        shape, said, last_level = verdict(state, words, marks)
        last = f"{shape} {said}"
        last_level = Level.GOOD if last_level is Level.GOOD else Level.NORMAL
    unit = state.sn or (state.eid[-6:] if state.eid else "")
    return Tile(head_id, mark, word, level, share, last, last_level, unit, state.blocked)


def age_text(seconds: float) -> str:
    """Return how long something lasts, short: 12 s, 3 min, 2 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


# ---- the banner ---------------------------------------------------------------------------------------


def banner(heard: Heard, now_s: float, words: Words) -> Banner:
    """Return the most urgent thing; what is heard about anything counts only while it is not old."""
    station = heard.station
    where = heard.station_id
    if station is None or heard.stale(now_s):
        if station is None:
            return Banner(Level.HIGH, words("banner.never"), where, words("todo.never"))
        what = words("banner.stale", age=age_text(heard.age_s(now_s)))
        return Banner(Level.HIGH, what, where, words("todo.stale", station=where))
    if station.refusing and station.refusing != "STATION.LOCKED":
        code = station.refusing
        todo = words.of("advice", code, station.attention.get(code, "") or _advice(code))
        return Banner(Level.HIGH, words("banner.refusing", code=code), where, todo)
    found = [*_of_heads(heard, words), *_of_alarms(heard, words)]
    if station.held_units:
        first = next(iter(station.held), "")
        what = words("banner.held", count=station.held_units, unit=first[-6:])
        found.append((2.5, Banner(Level.MEDIUM, what, where, words("todo.held"))))
    for code, todo in station.attention.items():
        if code != station.refusing:
            found.append((2.7, Banner(Level.LOW, code, where, words.of("advice", code, todo))))
    if station.locked:
        what = words("banner.locked", reason=station.lock_reason)
        found.append((2.8, Banner(Level.LOW, what, where, words("todo.start"))))
    if found:
        return min(found, key=lambda one: one[0])[1]
    return _in_order(heard, words)


def _in_order(heard: Heard, words: Words) -> Banner:
    station = heard.station
    assert station is not None  # noqa: S101 - asked before
    if not station.job_order_id:
        return Banner(Level.NORMAL, words("banner.no_job"), heard.station_id, words("todo.job"))
    free = any(state.phase == Phase.EMPTY for state in station.heads.values())
    todo = words("todo.feed") if free else words("todo.nothing")
    return Banner(Level.NORMAL, words("banner.running"), heard.station_id, todo)


def _of_heads(heard: Heard, words: Words) -> list[tuple[float, Banner]]:
    """What single heads want, by urgency."""
    found: list[tuple[float, Banner]] = []
    for head_id, state in heard.station.heads.items() if heard.station else ():
        where = words("head.name", head=head_id)
        if (one := _of_head(state, words)) is not None:
            rank, level, what, todo = one
            found.append((rank, Banner(level, what, where, todo)))
    return found


def _of_head(state: HeadState, words: Words) -> tuple[float, Level, str, str] | None:
    """(rank, urgency, what, do what) of a head that wants somebody."""
    fault = words.of("advice", state.fault, _advice(state.fault))
    lamp = state.lamp if state.phase == Phase.VERDICT else ""
    wants = (
        (state.phase == Phase.NOT_STORED, 0.5, Level.HIGH, words("head.keep"), words("todo.keep")),
        (state.phase == Phase.RETIRED, 1.2, Level.HIGH, words("head.lost"), words("todo.lost")),
        (lamp == Lamp.HOLD, 1.4, Level.MEDIUM, words("head.hold"), fault or words("todo.hold")),
        (lamp == Lamp.RESEAT, 1.5, Level.MEDIUM, words("head.reseat"), words("todo.reseat")),
        (
            state.phase == Phase.QUARANTINED,
            2.1,
            Level.MEDIUM,
            words("head.blocked", reason=state.reason),
            words("todo.blocked"),
        ),
        (lamp == Lamp.FAIL, 2.4, Level.LOW, words("head.fail", code=state.fault), fault or words("todo.fail")),
        (state.phase not in Phase.__members__, 2.9, Level.LOW, words("head.unknown", phase=state.phase[:12]), ""),
        (state.maintenance_due, 3.1, Level.LOW, words("head.socket"), words("todo.socket")),
    )
    return next(((rank, level, what, todo) for want, rank, level, what, todo in wants if want), None)


def _of_alarms(heard: Heard, words: Words) -> list[tuple[float, Banner]]:
    """Alarms nobody has acknowledged yet."""
    found = []
    flood = heard.alarms.first_out if heard.alarms is not None and heard.alarms.flood else ()
    if flood and heard.alarms is not None:
        first = [heard.alarms.alarms[one] for one in flood if one in heard.alarms.alarms]
        codes = " ".join(f"{one.code} {one.source}" for one in first)
        what = words("banner.flood", count=len(heard.standing()), first=codes)
        todo = alarm_words(first[0], words)[1] if first else ""
        found.append((0.9, Banner(Level.HIGH, what, heard.station_id, todo)))
    for _, alarm in heard.standing():
        if alarm.state == "UNACK_ALARM":
            what, todo = alarm_words(alarm, words)
            level = LEVEL_OF_PRIORITY.get(alarm.priority, Level.MEDIUM)
            found.append((float(alarm.priority), Banner(level, f"{alarm.code} {what}", alarm.source, todo)))
    return found


def alarm_words(alarm: ActiveAlarm, words: Words) -> tuple[str, str]:
    """Return what an alarm means and what to do about it, in the screen's language where that knows it."""
    todo = words.of("action", alarm.code, alarm.action)
    return words.of("alarm", alarm.code, alarm.text), todo[:1].upper() + todo[1:]


def local(utc: str, form: str = "%H:%M") -> str:
    """Return a time of a document as the clock on the wall has it; "-" for none."""
    try:
        return parse_utc(utc).astimezone().strftime(form)
    except ValueError:
        return _UNKNOWN


def _advice(code: str) -> str:
    return FAULTS[code].advice if code in FAULTS else ""


# ---- the figures --------------------------------------------------------------------------------------


def progress(heard: Heard) -> tuple[str, str]:
    """Return (done, target) of the job in work, "-" where nobody has said."""
    station = heard.station
    order = heard.orders.orders.get(station.job_order_id) if heard.orders and station else None
    if order is not None:
        return str(order.good), str(order.quantity)
    return _UNKNOWN, str(heard.job.quantity) if heard.job else _UNKNOWN


def pace(heard: Heard, now: datetime, marks: Marks) -> str:
    """Return by how many units the job will be ahead or behind when it is due, at the rate of this shift."""
    station = heard.station
    order = heard.orders.orders.get(station.job_order_id) if heard.orders and station else None
    uph = heard.shift.uph if heard.shift else None
    if order is None or not order.due_at or uph is None:
        return _UNKNOWN
    try:
        left_h = max(0.0, (parse_utc(order.due_at) - now).total_seconds() / 3600)
    except ValueError:
        return _UNKNOWN
    ahead = round(order.good + uph * left_h) - order.quantity
    return f"+{ahead}" if ahead >= 0 else f"{marks.minus}{-ahead}"


def first_pass(heard: Heard) -> str:
    """Return the station's first pass yield of this shift, the line's where it has none of its own."""
    if heard.shift is None:
        return _UNKNOWN
    own = heard.shift.stations.get(heard.station_id)
    fpy = own.fpy if own is not None else heard.shift.fpy
    return _UNKNOWN if fpy is None else f"{fpy * 100:.1f} %"


def stock(heard: Heard, words: Words) -> str:
    """Return how long the packages last."""
    station = heard.station
    one = heard.stock.jobs.get(station.job_order_id) if heard.stock and station else None
    if one is None:
        return _UNKNOWN
    if one.hours_left is None:
        return words("figure.units", units=one.covered)
    return words("figure.hours", hours=f"{one.hours_left:.1f}")


def alarm_counts(heard: Heard) -> dict[Level, int]:
    """Return how many alarms stand, by urgency; of a station that tells no alarms, those of its heads."""
    counts = dict.fromkeys((Level.HIGH, Level.MEDIUM, Level.LOW), 0)
    if heard.alarms is not None:
        for _, alarm in heard.standing():
            counts[LEVEL_OF_PRIORITY.get(alarm.priority, Level.MEDIUM)] += 1
    elif heard.station is not None:
        counts[Level.MEDIUM] = sum(len(state.alarms) for state in heard.station.heads.values())
    return counts
