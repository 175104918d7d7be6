"""What a line screen says, without any terminal: its stations, the banner, the figures, the hand-over."""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.model.messages import StationState
from ifpp.model.states import Phase
from ifpp.tui.hand_over import held as kept_apart
from ifpp.tui.hand_over import said as handed
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.marks import LEVEL_OF_PRIORITY, Level, Marks
from ifpp.tui.view import Banner, age_text, alarm_words, head_state, local
from ifpp.tui.words import Words

UNKNOWN = "-"
LOW_HOURS = 2.0
"""Packages that last less are named: line contract 6.2, A-130."""
_OUT = (Phase.QUARANTINED, Phase.RETIRED)
_BARS = "▁▂▃▄▅▆▇█"
_BARS_ASCII = ".:-=+*%#"


@dataclass(frozen=True, slots=True)
class StationRow:
    """One station as the line shows it."""

    name: str
    mark: str
    word: str
    level: Level
    job: str = UNKNOWN
    good: str = UNKNOWN
    fpy: str = UNKNOWN
    uph: str = UNKNOWN
    busy: str = UNKNOWN
    out: int = 0
    waiting: int = 0


def station_row(heard: LineHeard, name: str, words: Words, marks: Marks) -> StationRow:
    """Return how a station stands; of one that is away, the figures of its shift alone."""
    state = heard.stations.get(name)
    own = heard.shift.stations.get(name) if heard.shift else None
    good = str(own.good) if own else UNKNOWN
    fpy, uph = percent(own.fpy if own else None), UNKNOWN if own is None or own.uph is None else f"{own.uph:.0f}"
    if state is None or heard.away(name):
        return StationRow(name, marks.lost, words("line.away"), Level.MEDIUM, good=good, fpy=fpy, uph=uph)
    mark, word, level = _stands(state, words, marks)
    heads = state.heads.values()
    busy = sum(head.phase not in (Phase.EMPTY, Phase.REFUSING, *_OUT) for head in heads)
    out = sum(head.phase in _OUT for head in heads)
    return StationRow(
        name, mark, word, level, state.job_order_id or UNKNOWN, good, fpy, uph, f"{busy}/{len(state.heads)}", out,
        state.outbox_depth,
    )  # fmt: skip


def _stands(state: StationState, words: Words, marks: Marks) -> tuple[str, str, Level]:
    """Return shape, word and urgency of a station: its intake, then the head that wants somebody most."""
    if state.refusing and state.refusing != "STATION.LOCKED":
        return marks.stop, words("line.refusing"), Level.HIGH
    if state.locked:
        return marks.stop, words("state.REFUSING"), Level.LOW
    order = (Level.HIGH, Level.MEDIUM, Level.LOW)
    wanting = [head_state(head, words, marks) for head in state.heads.values()]
    worst = min((one for one in wanting if one[2] in order), key=lambda one: order.index(one[2]), default=None)
    if worst is not None:
        return worst
    if any(head.phase not in (Phase.EMPTY, *_OUT) for head in state.heads.values()):
        return marks.work, words("line.works"), Level.NORMAL
    return marks.free, words("line.waits"), Level.NORMAL


def banner(heard: LineHeard, now_s: float, words: Words) -> Banner:
    """Return the most urgent thing of the line: what - where - do what."""
    where = heard.name
    if not heard.connected:
        if not heard.names:
            return Banner(Level.HIGH, words("line.never"), where, words("line.todo_never"))
        what = words("line.lost", age=age_text(now_s - heard.since_s))
        return Banner(Level.HIGH, what, where, words("line.todo_lost"))
    if heard.line_away:
        return Banner(Level.HIGH, words("line.no_supervisor"), where, words("line.todo_supervisor"))
    found: list[tuple[float, Banner]] = []
    for _, alarm in heard.standing():
        if alarm.state == "UNACK_ALARM":
            what, todo = alarm_words(alarm, words)
            level = LEVEL_OF_PRIORITY.get(alarm.priority, Level.MEDIUM)
            found.append((float(alarm.priority), Banner(level, f"{alarm.code} {what}", alarm.source, todo)))
    for name in heard.names:
        if heard.away(name):
            found.append((2.1, Banner(Level.MEDIUM, words("line.station_away"), name, words("line.todo_station"))))
    for job, hours in low_stock(heard):
        what = words("line.low", job=job, hours=f"{hours:.1f}")
        found.append((2.9, Banner(Level.LOW, what, where, words("line.todo_low"))))
    if found:
        return min(found, key=lambda one: one[0])[1]
    return Banner(Level.NORMAL, words("banner.running"), where, words("line.todo_nothing"))


def low_stock(heard: LineHeard) -> list[tuple[str, float]]:
    """Return the jobs whose packages run out soon, and in how many hours, the first first."""
    jobs = heard.stock.jobs.items() if heard.stock else ()
    found = [(name, one.hours_left) for name, one in jobs if one.hours_left is not None and one.hours_left < LOW_HOURS]
    return sorted(found, key=lambda one: one[1])


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return UNKNOWN if share is None else f"{share * 100:.1f} %"


def done(heard: LineHeard) -> tuple[int, int]:
    """Return (good, wanted) units of the orders in work."""
    running = [
        one for one in (heard.orders.orders.values() if heard.orders else ()) if one.dispatch_status == "RUNNING"
    ]
    return sum(one.good for one in running), sum(one.quantity for one in running)


def sparkline(counts: list[int | None], width: int, marks: Marks) -> str:
    """Return the last `width` minutes as bars, the tallest for the best one; a blank where nobody looked."""
    bars = _BARS_ASCII if marks.minus == "-" else _BARS
    shown = counts[-width:] if width > 0 else []
    most = max((one for one in shown if one is not None), default=0)
    return "".join(" " if one is None else bars[0 if not most else one * (len(bars) - 1) // most] for one in shown)


def pareto(heard: LineHeard, most: int) -> list[tuple[str, int, float]]:
    """Return the commonest defects of the shift: code, count, share of all defects."""
    counts = heard.shift.top_defects if heard.shift else {}
    everything = sum(counts.values())
    found = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [(code, count, count / everything) for code, count in found[:most] if count]


def alarm_levels(heard: LineHeard) -> dict[Level, int]:
    """Return how many alarms stand, by urgency."""
    counts = dict.fromkeys((Level.HIGH, Level.MEDIUM, Level.LOW), 0)
    for _, alarm in heard.standing():
        counts[LEVEL_OF_PRIORITY.get(alarm.priority, Level.MEDIUM)] += 1
    return counts


def hand_over(heard: LineHeard, words: Words) -> list[str]:
    """Return what the next shift has to know."""
    good, wanted = done(heard)
    shift = heard.shift
    out, held, waiting, apart, last = [], 0, 0, [], []
    for name, state in heard.stations.items():
        out += [f"{name}/{head}" for head, one in state.heads.items() if one.phase in _OUT]
        held, waiting = held + state.held_units, waiting + state.outbox_depth
        apart += kept_apart(state.held, state.held_units, words, f"{name} ")
        last += [words("line.hand_last", station=name, said=handed(state.hand_over, words))] if state.hand_over else []
    alarms = [f"  {one.code} {one.source} {alarm_words(one, words)[0]}" for _, one in heard.standing()]
    shelved = [one for one in (heard.alarms.alarms.values() if heard.alarms else ()) if one.state == "SHELVED"]
    low = [words("line.low", job=job, hours=f"{hours:.1f}") for job, hours in low_stock(heard)]
    away = [name for name in heard.names if heard.away(name)]
    none = words("hand.none")
    return [
        words("line.hand_title", line=heard.name, shift=shift.window.shift_id if shift else UNKNOWN),
        *last,
        words("hand.units", done=good, target=wanted, fpy=percent(shift.fpy if shift else None)),
        words("line.hand_yield", final=percent(shift.final_yield if shift else None), good=shift.good if shift else 0),
        words("line.hand_away", stations=", ".join(away) or none),
        words("hand.heads", heads=", ".join(out) or none),
        words("hand.held", count=held),
        *apart,
        words("hand.waiting", count=waiting),
        *(low or [words("line.hand_stock", stock=none)]),
        words("hand.alarms", count=len(alarms), shelved=len(shelved)),
        *alarms,
        *(words("line.hand_shelved", code=one.code, source=one.source, reason=one.reason or "-",
                until=local(one.shelved_until)) for one in shelved),
    ]  # fmt: skip
