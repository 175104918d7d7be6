"""Which faults, in which order: chosen by the seed alone.

Every named edge comes in turn, in an order of the seed; between them the other kinds by their weights. Now and then two
faults come at once, never two on one process.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ifpp.roles.factory_floor import SMDP_PLUS
from tests.campaign.edges import STATION, edges, passed_at_start

BROKER, STORE, SUPERVISOR, LINE = "broker", "store", "supervisor", "line"
_EDGES_SHARE = 0.4
_TWO_AT_ONCE = 0.15
_JUMPS_S = (-3000.0, -300.0, -20.0, 20.0, 300.0, 3000.0, 90000.0)


class Kind(StrEnum):
    KILL = "kill"  # kill -9, started again after `down_s`
    EDGE = "edge"  # the same at the `times`-th passing of `edge`
    PULL = "pull"  # the chip leaves the slot over the `at`-th APDU from now
    POWER = "power"  # only its power fails there
    READER = "reader"  # the connection to the slot breaks while a unit is in it
    FREEZE = "freeze"  # SIGSTOP for `lasts_s`
    CLOCK = "clock"  # the time of day jumps by `lasts_s` and stays wrong until the next jump
    DISK = "disk"  # the disk of the station, or of the factory database (target store), is full for `lasts_s`
    OUTAGE = "outage"  # the broker is away for `lasts_s`
    BLACKOUT = "blackout"  # everything dies at once, and every chip loses its power


_WEIGHTS = {
    Kind.KILL: 8,
    Kind.PULL: 4,
    Kind.POWER: 4,
    Kind.READER: 3,
    Kind.FREEZE: 4,
    Kind.CLOCK: 3,
    Kind.DISK: 2,
    Kind.OUTAGE: 1,
    Kind.BLACKOUT: 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `target` is a process (broker, store, supervisor or a station) or the whole line, `slot` a head."""

    number: int
    kind: Kind
    target: str
    edge: str = ""
    times: int = 1
    slot: str = ""
    at: int = 0
    executed: bool = False
    lasts_s: float = 0.0
    down_s: float = 0.0
    rights_clock: bool = False  # the time of day is right again when the killed process starts

    def __str__(self) -> str:
        at = f" at APDU {self.at}" if self.at else ""
        what = self.edge or self.slot + at
        lasts = f"{self.lasts_s:+.1f} s" if self.lasts_s else ""
        return " ".join(word for word in (self.kind, self.target, what, lasts) if word)


@dataclass(frozen=True, slots=True)
class Step:
    """Faults that come together, `pause_s` after the ones before."""

    pause_s: float
    faults: tuple[Fault, ...]


def plan(
    count: int, seed: int, *, stations: Sequence[str], heads: Sequence[str], disk: bool, online: bool = False
) -> list[Step]:
    """Choose `count` faults; without `disk` no disk is filled. `online`: the SM-DP+ stops answering, too."""
    rng = random.Random(seed)
    choose = _Chooser(rng, stations, heads, disk, online=online)
    steps: list[Step] = []
    number = 0
    while number < count:
        faults = [choose.fault(number + 1)]
        if number + 2 <= count and faults[0].target != LINE and rng.random() < _TWO_AT_ONCE:
            faults.append(choose.fault(number + 2, but_not=faults[0].target))
        number += len(faults)
        steps.append(Step(round(rng.uniform(0.1, 0.8), 2), tuple(faults)))
    return steps


class _Chooser:
    def __init__(
        self, rng: random.Random, stations: Sequence[str], heads: Sequence[str], disk: bool, *, online: bool
    ) -> None:
        self._rng = rng
        self._stations = stations
        self._heads = heads
        self._weights = {kind: weight for kind, weight in _WEIGHTS.items() if disk or kind is not Kind.DISK}
        self._turn: list[str] = []
        self._edges = edges(online=online)
        self._servers = [SMDP_PLUS, SMDP_PLUS] if online else []

    def fault(self, number: int, but_not: str = "") -> Fault:
        found = self._any(number)
        while but_not and found.target in (but_not, LINE):
            found = self._any(number)
        if found.edge:
            self._turn.remove(found.edge)
        return found

    def _any(self, number: int) -> Fault:
        return self._at_edge(number) if self._rng.random() < _EDGES_SHARE else self._anywhere(number)

    def _at_edge(self, number: int) -> Fault:
        rng = self._rng
        self._turn = self._turn or list(self._edges)
        edge = rng.choice(self._turn)
        process = edge.partition(".")[0]
        target = rng.choice(self._stations) if process == STATION else process
        times = 1 if passed_at_start(edge) else rng.randint(1, 2)
        return Fault(number, Kind.EDGE, target, edge=edge, times=times, down_s=self._down_s())

    def _down_s(self) -> float:
        return round(self._rng.choice((0.0, self._rng.uniform(0.1, 2.0))), 2)

    def _anywhere(self, number: int) -> Fault:
        rng = self._rng
        kind = rng.choices(list(self._weights), list(self._weights.values()))[0]
        station = rng.choice(self._stations)
        process = rng.choice([rng.choice(self._stations), STORE, SUPERVISOR, BROKER])
        match kind:
            case Kind.PULL | Kind.POWER:
                at, executed = rng.randint(1, 150), rng.random() < 0.5
                return Fault(number, kind, station, slot=rng.choice(self._heads), at=at, executed=executed)
            case Kind.READER:
                return Fault(number, kind, station, slot=rng.choice(self._heads))
            case Kind.FREEZE:
                frozen = rng.choice([process, *self._servers])
                return Fault(number, kind, frozen, lasts_s=round(rng.uniform(0.3, 4.0), 2))
            case Kind.CLOCK:
                target = rng.choice([station, STORE, SUPERVISOR])
                return Fault(number, kind, target, lasts_s=rng.choice(_JUMPS_S))
            case Kind.DISK:
                target = rng.choice([*self._stations, STORE])
                return Fault(number, kind, target, lasts_s=round(rng.uniform(0.5, 3.0), 2))
            case Kind.BLACKOUT:
                return Fault(number, kind, LINE, down_s=self._down_s(), rights_clock=True)
            case Kind.OUTAGE:
                return Fault(number, kind, BROKER, lasts_s=round(rng.uniform(3.0, 6.0), 2))
        return Fault(number, Kind.KILL, process, down_s=self._down_s(), rights_clock=rng.random() < 0.5)
