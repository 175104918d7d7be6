"""The start of a station: what the last process left open is closed and told, before anything new.

1. Every attempt that had sent a package and was not closed ends as ERROR and AMBIGUOUS, its unit is held. What the
   chip's own word had settled before keeps that word; everything else stays UNKNOWN until a chip is read again.
2. The time from the last event of a process that died to this start was unscheduled down for every head
   (line contract 5.2, rule 5); nobody saw it, so it is marked as inferred.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from datetime import datetime

import msgspec

from ifpp.errors import FAULTS
from ifpp.log import get_logger
from ifpp.model.clock import Clock, parse_utc, utc_ms_text, uuid7
from ifpp.model.messages import ProfileResult, StateChanged, UnitResultEvent
from ifpp.model.states import E10, PackageState
from ifpp.station.board import CODE_DEAD, CODE_STARVED
from ifpp.station.journal import Journal
from ifpp.station.material import used_up
from ifpp.station.records import ClosedUnit, Events, Hold, LeftOpen, SettledPackage, Whereabouts

_DIED = FAULTS["STATION.DIED"]
log = get_logger("station.recovery")


async def recover(
    journal: Journal, station_id: str, heads: Iterable[str], clock: Clock, *, material: bool = False
) -> list[UnitResultEvent]:
    """Close what the last process left open (see the module); returns the results told.

    `material`: what was used up is told, too.

    While the journal cannot be written they wait in it, ahead of everything that follows. Raises CustodyError
    JOURNAL.WRITE when it cannot be read.
    """
    left = await asyncio.wrap_future(journal.left_open())
    now = clock.now()
    told = [_told(will, journal.boot_id, now) for will in left.wills]
    standby = Whereabouts(E10.SBY, CODE_STARVED, utc_ms_text(now))
    heads = list(heads)
    gap = [event for head in heads for event in _gap(left, head, standby, station_id, journal.boot_id)]
    journal.begin(
        [_closed(result, material=material) for result in told],
        [("state_changed", event) for event in gap],
        dict.fromkeys(heads, standby),
    )
    for result in told:
        action = f"hold unit EID {result.unit.eid} until it was read again"
        log.error(action, code=_DIED.code, attempt=result.transaction_id, head=result.head_id, advice=_DIED.advice)
    if left.died:
        log.warning("the last process died", last_at=left.last_at, left_open=len(told))
    return told


def _told(will: bytes, boot_id: str, now: datetime) -> UnitResultEvent:
    """1: the dead process's last will, told by this one; times and durations stay those it knew."""
    result = msgspec.json.decode(will, type=UnitResultEvent)
    return msgspec.structs.replace(result, id=uuid7(now), ts=utc_ms_text(now), boot_id=boot_id)


def _closed(result: UnitResultEvent, *, material: bool) -> ClosedUnit:
    events: Events = [("unit_result", result), *(used_up(result) if material else ())]
    return ClosedUnit(
        attempt_id=result.transaction_id,
        eid=result.unit.eid,
        packages=[_settled(result.transaction_id, profile) for profile in result.profiles],
        events=events,
        hold=Hold(_DIED.code, _DIED.advice),
    )


def _settled(attempt_id: str, profile: ProfileResult) -> SettledPackage:
    return SettledPackage(
        attempt_id=attempt_id,
        package_id=profile.package_id,
        state=PackageState(profile.package_state),
        spent=profile.key_consumed,
        reason=profile.error.partition(":")[0],
        pir=base64.b64decode(profile.pir_b64) or None,
    )


def _gap(left: LeftOpen, head_id: str, now: Whereabouts, station_id: str, boot_id: str) -> Iterable[StateChanged]:
    """2: from the head's last state into unscheduled down when it was last heard of, and back to standby now."""
    last = left.resources.get(head_id)
    if not left.died or last is None:
        return
    if last.e10 != E10.UDT:
        dead = Whereabouts(E10.UDT, CODE_DEAD, max(left.last_at, last.since))
        yield _passage(head_id, last, dead, station_id, boot_id)
        last = dead
    yield _passage(head_id, last, now, station_id, boot_id)


def _passage(head_id: str, old: Whereabouts, new: Whereabouts, station_id: str, boot_id: str) -> StateChanged:
    at = parse_utc(new.since)
    lasted = at - parse_utc(old.since)
    return StateChanged(
        schema="state_changed/1.0",
        id=uuid7(at),
        ts=new.since,
        node_id=station_id,
        boot_id=boot_id,
        resource=head_id,
        old=old.e10,
        old_code=old.code,
        old_duration_ms=max(0, round(lasted.total_seconds() * 1000)),
        new=new.e10,
        new_code=new.code,
        reason=_DIED.code,
        inferred=True,
    )
