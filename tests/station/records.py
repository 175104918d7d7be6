"""Small journal records for tests of the station."""

from __future__ import annotations

from ifpp.model.messages import StateChanged
from ifpp.model.states import PackageState
from ifpp.station.journal import Journal
from ifpp.station.records import ClosedUnit, Events, Hold, SentPackage, SettledPackage

HOLD = Hold("PIR.MISSING", "hold it")


def event(number: int, resource: str = "h01", new: str = "PRD", code: int = 1100) -> StateChanged:
    return StateChanged(
        schema="state_changed/1.0",
        id=f"event-{number}",
        ts="2026-03-01T08:00:00.000Z",
        node_id="st01",
        boot_id="boot",
        resource=resource,
        old="SBY",
        old_code=2202,
        old_duration_ms=5,
        new=new,
        new_code=code,
    )


def numbered(*numbers: int) -> Events:
    return [("state_changed", event(number)) for number in numbers]


def sent(attempt: str = "a1", package: str = "p1", eid: str = "eid") -> SentPackage:
    return SentPackage(attempt, package, eid, "iccid", "aa", "sha", "h01")


def settled(state: PackageState, attempt: str = "a1", package: str = "p1", pir: bytes | None = None) -> SettledPackage:
    return SettledPackage(attempt, package, state, state is PackageState.INSTALLED, "", pir)


def closed(
    attempt: str,
    *packages: SettledPackage,
    eid: str = "eid",
    judged: bool = False,
    finished: bool = False,
    life: tuple[str, bytes] | None = None,
) -> ClosedUnit:
    """An end; a package left UNKNOWN holds the unit, as an attempt would have it."""
    unknown = any(package.state is PackageState.UNKNOWN for package in packages)
    hold = HOLD if unknown else None
    return ClosedUnit(attempt, eid, list(packages), [], hold=hold, judged=judged, finished=finished, life=life)


def store(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.events(numbered(number)).stored.result(10)
