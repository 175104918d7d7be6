"""The robot of one station: it seats units, waits for the verdict lamp, seats again where asked, and sorts into bins.

One task serves one slot; all slots of a station take from one pile. A unit whose lamp says RESEAT or HOLD, or that
fell out of a head which does not miss it (OFF), is seated again, at most `reseats` times, then it goes where its last
lamp sends it. A head whose lamp stays at HOLD over an empty socket takes no unit: the others get it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ifpp.sim.euicc import Euicc
from ifpp.sim.slots import Cut, Lamp, Slot

RESEATS = 3
# where a unit goes by its last lamp; one that never lost its RESEAT lamp has bad contacts
BINS = {Lamp.PASS: "pass", Lamp.FAIL: "fail", Lamp.HOLD: "hold", Lamp.RESEAT: "contact", Lamp.OFF: "contact"}
_AGAIN = (Lamp.RESEAT, Lamp.HOLD, Lamp.OFF)
_ARM_S = 0.05  # to put one unit into one slot
_LOOK_S = 0.005
_HELD_LOOKS = 100  # half a second
_WORN_AT_MOST = 40  # commands of a seating: a worn contact fails somewhere from power-up to the load


@dataclass(slots=True)
class Unit:
    """One unit and what became of it: `faults` is the hint of its card file.

    Of every seating: `lamps` the verdict, `busy_ms` the time from the first power-up to it.
    """

    eid: str
    sn: str
    card: Euicc
    faults: Mapping[str, Any] = field(default_factory=dict)
    slot: str = ""
    lamps: list[Lamp] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    bin: str = ""

    @property
    def seatings(self) -> int:
        return len(self.lamps)

    @property
    def dead(self) -> bool:
        return self.faults.get("class") == "dead"

    def record(self) -> dict[str, Any]:
        """The robot's record as a JSON value (see fleet for its meaning)."""
        return {
            "eid": self.eid,
            "sn": self.sn,
            "slot": self.slot,
            "bin": self.bin,
            "lamp": self.lamps[-1].name.lower() if self.lamps else "",
            "lamps": [lamp.name.lower() for lamp in self.lamps],
            "seatings": self.seatings,
            "busy_ms": list(self.busy_ms),
            "apdus": self.card.apdus,
            "load_apdus": list(self.card.load_apdus),
            "download_apdus": list(self.card.download_apdus),
        }


def planned_cut(faults: Mapping[str, Any], seating: int) -> Cut | None:
    """The loss of contact planned for this seating (from 1).

    Fault class `contact`: the chip is away until it is seated again; `power_cut`: it stays and works from the next
    power-up on. `pull_at_apdu` says at which APDU after power-up, `executed` whether the chip still executes it.
    """
    kind = faults.get("class")
    if seating != 1 or kind not in ("contact", "power_cut"):
        return None
    return Cut(at=int(faults["pull_at_apdu"]), executed=bool(faults.get("executed", False)), stays=kind == "power_cut")


class Robot:
    """Feeds the slots of one station from one pile. `handling_ms` is the time from one unit to the next in a slot.

    `worn`: slot name -> probability that a seating there loses contact over one of its commands.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        pile: Iterable[Unit],
        *,
        handling_ms: float = 0.0,
        reseats: int = RESEATS,
        worn: Mapping[str, float] | None = None,
        seed: int = 1,
    ) -> None:
        self._slots = slots
        self._pile = deque(pile)
        self._left = len(self._pile)  # on the pile or in a slot
        self._taken = 0
        self.allowed = self._left  # so many units it may take from the pile until it is allowed more
        self._handling_s = handling_ms / 1000
        self._reseats = reseats
        self._worn = worn or {}
        self._chance = random.Random(seed)  # noqa: S311 - faults of a simulation

    async def run(self) -> None:
        """Work until every unit is in a bin and every slot cleared."""
        async with asyncio.TaskGroup() as group:
            for place, (name, slot) in enumerate(self._slots.items()):
                group.create_task(self._serve(slot, place), name=f"robot-{name}")

    async def _serve(self, slot: Slot, place: int) -> None:
        await asyncio.sleep(place * min(_ARM_S, self._handling_s))  # one arm fills the fixture, slot after slot
        while self._left:
            if not self._pile or slot.lamp is Lamp.HOLD or self._taken >= self.allowed:
                await asyncio.sleep(_LOOK_S)
                continue
            unit = self._pile.popleft()
            self._taken += 1
            unit.slot = slot.name
            try:
                await self._process(slot, unit)
            finally:
                slot.unseat()
            if unit.bin:
                self._left -= 1
            else:
                self._pile.appendleft(unit)
                self._taken -= 1

    async def _process(self, slot: Slot, unit: Unit) -> None:
        """Seat a unit until it is sorted, or until the head takes no more."""
        while True:
            await asyncio.sleep(self._handling_s)
            if not await _takes(slot):
                return
            slot.seat(None if unit.dead else unit.card, self._cut(slot, unit), unit.sn)
            lamp = await slot.verdict()
            unit.lamps.append(lamp)
            unit.busy_ms.append(round(slot.busy_s * 1000, 1))
            slot.unseat()
            if lamp not in _AGAIN or unit.seatings > self._reseats:
                unit.bin = BINS[lamp]
                return

    def _cut(self, slot: Slot, unit: Unit) -> Cut | None:
        """The loss of contact of the next seating: the unit's own, or the socket's."""
        planned = planned_cut(unit.faults, unit.seatings + 1)
        if planned is not None or self._chance.random() >= self._worn.get(slot.name, 0.0):
            return planned
        return Cut(self._chance.randint(1, _WORN_AT_MOST), executed=self._chance.random() < 0.5, stays=True)


async def _takes(slot: Slot) -> bool:
    """Wait until the head has seen the last removal; False when it says HOLD over its empty socket and means it."""
    looks = 0
    while slot.lamp >= Lamp.PASS:
        if slot.lamp is Lamp.HOLD and looks >= _HELD_LOOKS:
            return False
        looks += 1
        await asyncio.sleep(_LOOK_S)
    return True
