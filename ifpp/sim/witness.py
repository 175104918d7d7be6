"""What everybody says of a line that has ended, as plain values: chips and robots, books, journals, SM-DPf.

What the judge (`ifpp.sim.judge`) compares is here and nothing else, so a test can forge any of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ifpp.sim import card_file
from ifpp.sim.world import WorldSummary


@dataclass(slots=True)
class Unit:
    """The physical truth: what the chip holds, and where the robot put the unit.

    `keys`: state of every one-time key by its id: available, reserved, consumed, deleted. `fault`: planned at making.
    `has_results`: the chip still keeps an installation result.
    """

    eid: str
    profiles: list[str]
    keys: dict[str, str]
    locked: bool
    bin: str
    lamp: str
    fault: str = ""
    has_results: bool = False


@dataclass(slots=True)
class Package:
    """A package in the factory's books, with the states it went through; `lease_until` while it is CLAIMED."""

    package_id: str
    eid: str
    otk_id: str
    iccid: str
    state: str
    spent: bool
    steps: list[str] = field(default_factory=list)
    lease_until: str = ""


@dataclass(slots=True)
class Attempt:
    """A unit_result in the factory's books."""

    eid: str
    transaction_id: str
    result: str


@dataclass(frozen=True, slots=True)
class Event:
    """One numbered event of a node: in the factory's books, or in the node's own journal."""

    node: str
    seq: int
    id: str


@dataclass(frozen=True, slots=True)
class Sending:
    """What a station's journal says of a package it sent; `resolved`: a later attempt knows better."""

    node: str
    eid: str
    iccid: str
    state: str
    spent: bool
    has_result: bool
    resolved: bool


@dataclass(slots=True)
class Evidence:
    """Everything together.

    `cleared`: units the books call clean to ship. `parked`: events put aside, with the reason. `held`: units a station
    holds, with the reason. `counted`: units and passed units in the line's figures. `proven`: ICCIDs whose installation
    the SM-DPf verified, one entry for each report line; `refused`: report lines it did not believe. `gates`: why the
    end-of-line gate holds a unit back, "" when it lets it go. `broken`: what the books themselves, and whoever checks
    their exported audit log, find wrong with them. `at`: when the books were read.
    """

    units: list[Unit]
    packages: list[Package]
    attempts: list[Attempt]
    cleared: set[str]
    taken: list[Event]
    parked: dict[Event, str]
    stored: list[Event]
    sendings: list[Sending]
    held: dict[str, str]
    counted: tuple[int, int]
    proven: list[str]
    refused: list[str]
    gates: dict[str, str]
    broken: list[str]
    at: str = ""


def units_of(fleet_files: Iterable[Path], world: WorldSummary) -> Iterator[Unit]:
    """Give the units of some stations by what their fleets wrote at their end; KeyError for one of another world."""
    faults = {plan.eid: plan.fault for plan in world.units}
    for path in fleet_files:
        for unit in json.loads(path.read_bytes())["units"]:
            card = unit["card"]
            made = card_file.load(world.directory / "cards" / f"{unit['eid']}.card.json")
            keys = zip((key.otk_id.hex() for key in made.one_time_keys), card["keys"], strict=True)
            yield Unit(
                eid=unit["eid"],
                profiles=[profile["iccid"] for profile in card["profiles"]],
                keys=dict(keys),
                locked=card["fpa_locked"],
                bin=unit["bin"],
                lamp=unit["lamp"],
                fault=faults[unit["eid"]],
                has_results=card["results"] > 0,
            )
