"""The physical world of a campaign: chips and robots that can be disturbed by hand. It is never killed.

`python -m tests.campaign.chips WORLD STATION --heads N --apdu-ms MS --out FILE`. Says once that it is ready, then does
what it is told, one JSON line each, and answers when it is done, one JSON line each:

    {"do": "feed"}                  robots feed every unit                 -> {"fed": true}
    {"do": "allow", "units"}        they have taken so many from the pile, at most (at first: none)
    {"do": "again"}                 and once more those that did not pass  -> {"fed": true}
    {"do": "cut", "slot", "at", "executed", "stays", "fresh", "wait_s"}
            contact is lost over the `at`-th APDU from now, or of the next unit if `fresh`; given up after `wait_s`
                                                                           -> {"cut": whether it was}
    {"do": "hang_up", "slot", "wait_s"}     the connection to the slot breaks over an APDU    -> {"cut": whether it did}
    {"do": "blackout"}              every chip loses its power
    {"do": "count"}                 -> {"binned", "units", "slots": {slot: what is going on there}}
    {"do": "end"}                   write the result (as `ifpp sim fleet` does) and end
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from ifpp.sim.fleet import Fleet
from ifpp.sim.robot import Robot, Unit
from ifpp.sim.slots import Cut, Lamp, precise_loop

_RESEATS = 12  # a person would not give up earlier either
_HANDLING_MS = 50.0
_LOOK_S = 0.005
# these units cannot pass
_HOPELESS = {"small_memory", "no_package", "dead", "tampered"}


class Chips(Fleet):
    """One station's chips, and what the campaign does to them."""

    def __init__(self, world: Path, station: str, *, heads: int, apdu_ms: float) -> None:
        super().__init__(world, [station], slots=heads, apdu_ms=apdu_ms, handling_ms=_HANDLING_MS)
        self._station = station
        self._rounds = 1
        units = self.units[station]
        self._robots = [Robot(self._slots[station], units, handling_ms=_HANDLING_MS, reseats=_RESEATS)]
        self.allow(0)

    async def feed(self) -> dict[str, Any]:
        await self.work()
        return {"fed": True}

    async def again(self) -> dict[str, Any]:
        """Feed every unit once more that can pass and did not."""
        back = [unit for unit in self.units[self._station] if unit.bin != "pass" and not hopeless(unit)]
        self._rounds += 1
        robot = Robot(self._slots[self._station], back, handling_ms=_HANDLING_MS, reseats=self._rounds * _RESEATS)
        for unit in back:
            unit.bin = ""
        await robot.run()
        return {"fed": True}

    async def cut(self, name: str, cut: Cut, *, fresh: bool, wait_s: float) -> dict[str, Any]:
        """Lose contact once, with whatever unit is in the slot when its turn comes."""
        slot = self._slots[self._station][name]
        before, end = slot.losses, time.monotonic() + wait_s
        while slot.losses == before and time.monotonic() < end:
            fresh = fresh and slot.seated
            if not fresh and slot.seated and not slot.cut_planned:
                slot.plan(cut)
            await asyncio.sleep(_LOOK_S)
        slot.plan(None)
        return {"cut": slot.losses > before}

    async def hang_up(self, name: str, wait_s: float) -> dict[str, Any]:
        """Break the station's connection to a slot in which a unit is at work."""
        slot, end = self._slots[self._station][name], time.monotonic() + wait_s
        while not (slot.seated and slot.lamp is Lamp.BUSY):
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() > end:
                return {"cut": False}
        slot.hang_up()
        return {"cut": True}

    def count(self) -> dict[str, Any]:
        units = self.units[self._station]
        here = {unit.slot: unit for unit in units if unit.slot and not unit.bin}
        slots = {
            name: f"{'seated' if slot.seated else 'empty'}, lamp {slot.lamp.name}, {_progress(here.get(name))}"
            for name, slot in self._slots[self._station].items()
        }
        return {"binned": sum(bool(unit.bin) for unit in units), "units": len(units), "slots": slots}


def hopeless(unit: Unit) -> bool:
    """Whether the unit was made so that it cannot pass."""
    return unit.faults.get("class") in _HOPELESS


def _progress(unit: Unit | None) -> str:
    return "no unit" if unit is None else f"EID {unit.eid} after {unit.seatings} seatings"


async def serve(chips: Chips, out: Path) -> None:
    """Do what standard input says, until its end."""
    _answer({"ready": True, "heads": await chips.start()})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while (line := await reader.readline()) and (told := json.loads(line))["do"] != "end":
        tasks.add(asyncio.create_task(_do(chips, told)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    chips.finish(out)


async def _do(chips: Chips, told: dict[str, Any]) -> None:
    match told["do"]:
        case "feed":
            _answer(await chips.feed())
        case "again":
            _answer(await chips.again())
        case "cut":
            cut = Cut(told["at"], executed=told["executed"], stays=told["stays"])
            _answer(await chips.cut(told["slot"], cut, fresh=told["fresh"], wait_s=told["wait_s"]))
        case "allow":
            chips.allow(told["units"])
        case "hang_up":
            _answer(await chips.hang_up(told["slot"], told["wait_s"]))
        case "blackout":
            chips.blackout()
        case "count":
            _answer(chips.count())


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.campaign.chips")
    parser.add_argument("world", type=Path)
    parser.add_argument("station")
    parser.add_argument("--heads", type=int, required=True)
    parser.add_argument("--apdu-ms", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        chips = Chips(options.world, options.station, heads=options.heads, apdu_ms=options.apdu_ms)
        runner.run(serve(chips, options.out))


if __name__ == "__main__":
    main()
