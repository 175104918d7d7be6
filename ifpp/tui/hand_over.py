"""What the next person at a station has to know: how work stands, what is on hold, and what was said before."""

from __future__ import annotations

from ifpp.model.messages import HandOver
from ifpp.tui.heard import Heard
from ifpp.tui.view import alarm_words, first_pass, local, progress
from ifpp.tui.words import Words

MOST_HELD = 4


def page(heard: Heard, at: str, words: Words) -> list[str]:
    """Return the page of a station's shift, opened at `at` by the clock on the wall."""
    done, target = progress(heard)
    station = heard.station
    heads = station.heads.items() if station else ()
    out = ", ".join(head for head, state in heads if state.phase in ("QUARANTINED", "RETIRED"))
    alarms = [f"  {one.code} {one.source} {alarm_words(one, words)[0]}" for _, one in heard.standing()]
    shelved = heard.alarms.shelved if heard.alarms else 0
    last = station.hand_over if station else None
    return [
        words("hand.title", station=heard.station_id or "-", at=at),
        words("hand.last", said=said(last, words)) if last else words("hand.never"),
        words("hand.units", done=done, target=target, fpy=first_pass(heard)),
        words("hand.heads", heads=out or words("hand.none")),
        words("hand.held", count=station.held_units if station else 0),
        *held(station.held if station else {}, station.held_units if station else 0, words),
        words("hand.waiting", count=station.outbox_depth if station else 0),
        words("hand.alarms", count=len(alarms), shelved=shelved),
        *alarms,
    ]


def held(units: dict[str, str], count: int, words: Words, place: str = "") -> list[str]:
    """Return the units that are kept apart, the longest held first, and how many more there are."""
    shown = [f"  {place}{eid[-6:]}: {reason}" for eid, reason in list(units.items())[:MOST_HELD]]
    more = [f"  {words('alarms.more', count=count - len(shown))}"] if shown and count > len(shown) else []
    return [*shown, *more]


def said(last: HandOver, words: Words) -> str:
    """Return a hand-over in one line: when, from whom to whom, what."""
    at = local(last.at, "%Y-%m-%d %H:%M")
    return words("hand.said", at=at, by=last.by, to=last.to or words("hand.nobody"), comment=last.comment)
