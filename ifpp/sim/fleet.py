"""One process of virtual chips: the slots of one or more stations, the robot that feeds them, and the truth afterwards.

stdout   one line when the slots are open:
    {"ready": true, "heads": {"<station>": {"h01": {"port": URL, "lamp": URL or ""}, ...}}}
stdin    a line "go" lets the robots start; so does SIGUSR1; end of file without it ends the process
    "allow N"   from now on a robot takes no more than so many units from its pile, in all
    "blackout"  every chip loses its power, as where the mains fail
    "busy"      says in a line how many units sit under a busy lamp: {"busy": N}
    "end"       where the slots stay open after the last unit, which a line says: {"done": true}
result   `out_path`, written when the piles are empty and the slots cleared, or on SIGTERM and SIGINT:
    {"finished": true, "work_s": seconds from "go" to the last removal, "units": [{"eid", "sn", "station", "slot",
      "bin": "pass"|"fail"|"hold"|"contact"|"", "lamp": the last verdict, "lamps": one for each seating, "seatings",
      "busy_ms": for each seating, from the first power-up to the verdict,
      "apdus": STORE DATA + GET RESPONSE the chip received in all,
      "load_apdus": [for each result delivered: the same from PrepareDownload (BF21) to the result (BF37)],
      "download_apdus": [for each result of an online session: the same from GetEUICCChallenge (BF2E) on],
      "card": {"profiles": [{"iccid", "enabled", "nickname"}], "default_address", "eims": [ids],
               "keys_left": number, "keys": ["available", ...],
               "fpa_locked", "results": kept PIRs, "notifications": kept in all}}, ...]}
tape     with `tape_path`, every APDU the chips received: a line "EID <digits>" and one line of hex for each APDU
  `card` is what the chip really holds, read from its memory and not from what anybody reported.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifpp.sim.doors import DoorPlan, Doors
from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.nvm import KeyState
from ifpp.sim.robot import RESEATS, Robot, Unit
from ifpp.sim.slots import Lamp, Slot, precise_loop
from ifpp.sim.tlv import parse_one

TCP_DOORS = DoorPlan()


class Fleet:
    """The units and slots of some stations of a world; nothing moves before `work`. `worn` as in Robot."""

    def __init__(
        self,
        world_dir: Path,
        stations: Sequence[str],
        *,
        slots: int,
        apdu_ms: float,
        handling_ms: float,
        reseats: int = RESEATS,
        doors: DoorPlan = TCP_DOORS,
        worn: Mapping[str, float] | None = None,
    ) -> None:
        self._world_dir = world_dir
        world = json.loads((world_dir / "world.json").read_bytes())
        names = [f"h{number:02d}" for number in range(1, slots + 1)]
        self.units = {
            station: [self._unit(plan) for plan in world["units"] if plan["station"] == station] for station in stations
        }
        self._slots = {station: {name: Slot(name, apdu_ms) for name in names} for station in stations}
        self._doors = {station: Doors(doors, self._slots[station]) for station in stations}
        self._robots = [
            Robot(self._slots[station], self.units[station], handling_ms=handling_ms, reseats=reseats, worn=worn)
            for station in stations
        ]
        self._tape: list[tuple[bytes, bytes]] = []
        self.finished = False
        self.work_s = 0.0

    async def start(self) -> dict[str, dict[str, dict[str, str]]]:
        """Open the slots; returns port and lamp of every head by station and slot name."""
        return {station: await doors.start() for station, doors in self._doors.items()}

    async def work(self) -> None:
        """Feed all units; returns when the piles are empty and the slots cleared."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for robot in self._robots:
                group.create_task(robot.run())
        self.work_s = time.monotonic() - start
        self.finished = True

    def allow(self, units: int) -> None:
        """Let each robot take so many units from its pile, in all."""
        for robot in self._robots:
            robot.allowed = units

    @property
    def busy(self) -> int:
        """How many units sit in a slot whose head is at work."""
        slots = (slot for own in self._slots.values() for slot in own.values())
        return sum(slot.seated and slot.lamp is Lamp.BUSY for slot in slots)

    def blackout(self) -> None:
        """Take the power from every chip; the units stay where they are."""
        for units in self.units.values():
            for unit in units:
                unit.card.power_off()

    def finish(self, out_path: Path) -> None:
        """Close the slots, write every chip's state into its card file, and the result."""
        for doors in self._doors.values():
            doors.stop()
        for unit in (unit for units in self.units.values() for unit in units):
            unit.card.power_off()
            unit.card.save(self._card_path(unit.eid))
        out_path.write_text(json.dumps(self.result(), indent=1) + "\n", encoding="utf-8")

    def record(self) -> None:
        """Keep every APDU from now on for `write_tape`."""
        for slots in self._slots.values():
            for slot in slots.values():
                slot.tape = self._tape

    def write_tape(self, path: Path) -> None:
        """Write what was recorded, unit by unit."""
        units: dict[bytes, list[bytes]] = {}
        for eid, apdu in self._tape:
            units.setdefault(eid, []).append(apdu)
        with path.open("w", encoding="ascii") as out:
            for eid, apdus in units.items():
                out.write(f"EID {eid.hex()}\n")
                out.writelines(f"{apdu.hex()}\n" for apdu in apdus)

    def result(self) -> dict[str, Any]:
        """The result document (see the module text)."""
        units = [
            {**unit.record(), "station": station, "card": card_contents(unit.card)}
            for station, members in self.units.items()
            for unit in members
        ]
        return {"finished": self.finished, "work_s": self.work_s, "units": units}

    def _unit(self, plan: dict[str, Any]) -> Unit:
        card = Euicc.load(self._card_path(plan["eid"]))
        return Unit(plan["eid"], plan["sn"], card, card.chip.card.faults)

    def _card_path(self, eid: str) -> Path:
        return self._world_dir / "cards" / f"{eid}.card.json"


def card_contents(card: Euicc) -> dict[str, Any]:
    """What a chip really holds."""
    nvm = card.nvm
    return {
        "profiles": [
            {"iccid": _digits(profile.iccid), "enabled": profile.enabled, "nickname": profile.nickname}
            for profile in nvm.profiles
        ],
        "default_address": nvm.default_dp_address,
        "eims": [_eim_id(raw) for raw in nvm.eims],
        "keys_left": sum(slot.state <= KeyState.RESERVED for slot in nvm.keys),
        "keys": [slot.state.name.lower() for slot in nvm.keys],
        "fpa_locked": nvm.locked,
        "results": sum(kept.is_result for kept in nvm.notifications),
        "notifications": len(nvm.notifications),
    }


async def run_fleet(
    world_dir: Path,
    stations: Sequence[str],
    *,
    slots: int,
    apdu_ms: float,
    handling_ms: float,
    out_path: Path,
    reseats: int = RESEATS,
    doors: DoorPlan = TCP_DOORS,
    tape_path: Path | None = None,
    stay: bool = False,
) -> bool:
    """Serve, announce, wait for "go", work, write the result; True when every unit went through.

    `stay`: the slots stay open until "end", so that no station sees its heads go.
    Raises OSError, ValueError, KeyError when the world cannot be read.
    """
    fleet = Fleet(
        world_dir, stations, slots=slots, apdu_ms=apdu_ms, handling_ms=handling_ms, reseats=reseats, doors=doors
    )
    if tape_path is not None:
        fleet.record()
    gc.freeze()  # chips live as long as the process: the collector need not look at them again
    work = asyncio.create_task(_serve(fleet, stay=stay), name="fleet")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    await asyncio.wait([work])
    fleet.finish(out_path)
    if tape_path is not None:
        fleet.write_tape(tape_path)
    if not work.cancelled():
        work.result()
    return fleet.finished


def serve_fleet(world_dir: Path, stations: Sequence[str], **options: Any) -> bool:
    """run_fleet on an event loop with precise timers: what a process of chips calls. Options as of run_fleet."""
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(run_fleet(world_dir, stations, **options))


async def _serve(fleet: Fleet, *, stay: bool) -> None:
    heads = await fleet.start()
    _say({"ready": True, "heads": heads})
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        if await _go(fleet, reader):
            orders = asyncio.create_task(_orders(fleet, reader), name="orders")
            try:
                await fleet.work()
                if stay:
                    _say({"done": True})
                    await orders
            finally:
                orders.cancel()
    finally:
        transport.close()


async def _go(fleet: Fleet, reader: asyncio.StreamReader) -> bool:
    """Wait for the line or the signal that lets the robots start; False when whoever could give it is gone."""
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signalled.set)
    line = asyncio.create_task(_orders(fleet, reader), name="go-line")
    signal_wait = asyncio.create_task(signalled.wait(), name="go-signal")
    try:
        await asyncio.wait([line, signal_wait], return_when=asyncio.FIRST_COMPLETED)
        return signalled.is_set() or line.result()
    finally:
        line.cancel()
        signal_wait.cancel()
        await asyncio.wait([line])


async def _orders(fleet: Fleet, reader: asyncio.StreamReader) -> bool:
    """Do what standard input says; True at "go", False at "end" and at its end."""
    while text := await reader.readline():
        match text.split():
            case [b"go"]:
                return True
            case [b"end"]:
                return False
            case [b"allow", units] if units.isdigit():
                fleet.allow(int(units))
            case [b"blackout"]:
                fleet.blackout()
            case [b"busy"]:
                _say({"busy": fleet.busy})
    return False


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _eim_id(raw: bytes) -> str:
    """The id in an EimConfigurationData."""
    return parse_one(raw).need(0x80).value.decode()


def _digits(iccid: bytes) -> str:
    """ICCID digits of the nibble-swapped form, without filler."""
    return "".join(f"{octet & 0x0F:x}{octet >> 4:x}" for octet in iccid).rstrip("f")
