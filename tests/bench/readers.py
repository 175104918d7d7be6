"""16 PC/SC heads through a real pcscd: a station against a C program that sends the same APDUs to the same readers.

A station provisions the units of a world while the chips record what they get; then the C program (replay.c, compiled
here) sends the same to a second copy of that world, one thread a reader. The robot is the same for both.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ifpp.roles.children import Child
from ifpp.roles.factory_floor import FactoryFloor
from ifpp.sim.doors import Ports
from ifpp.sim.template import build_template
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from tests.bench.table import goal, row

_HEADS, _UNITS_A_HEAD, _RUNS, _APDU_MS = 16, 4, 3, 5.0
_PROFILE_BYTES, _STATION = 30_000, "st01"
_SOURCE = Path(__file__).with_name("replay.c")


@dataclass(frozen=True, slots=True)
class Run:
    """`work_s`: from the first unit to the last removal; `busy_ms`: of a unit, from power-up to its verdict."""

    work_s: float
    busy_ms: float
    cpu_ms: float


class _Floor(FactoryFloor):
    """One station in a folder, whose chips write down what they get."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [_STATION], heads=_HEADS, apdu_ms=_APDU_MS, broker=None, ports=Ports.PCSC)
        self.tape = folder / "tape"
        self.fleet_extra = ("--tape", str(self.tape))


def run() -> bool:
    walls, ratios, ours, theirs = [], [], [], []
    for number in range(_RUNS):
        with tempfile.TemporaryDirectory() as name:
            station, program = asyncio.run(_compare(Path(name), number, _compiled(Path(name))))
        walls.append(station.work_s / program.work_s)
        ratios.append(station.busy_ms / program.busy_ms)
        ours.append(station.cpu_ms)
        theirs.append(program.cpu_ms)
    row("host CPU a unit, station", ours, "ms")
    row("host CPU a unit, C program", theirs, "ms")
    row("time of a unit at the head, station / C", ratios, "")
    return goal("wall time, station / C program", row("wall time", walls, ""), 1.05, at_least=False)


def _compiled(folder: Path) -> Path:
    binary, ask = folder / "replay", ["pkg-config", "--cflags", "--libs", "libpcsclite"]
    flags = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["gcc", "-O2", "-o", binary, _SOURCE, *flags, "-lpthread"], check=True)
    return binary


async def _compare(folder: Path, seed: int, binary: Path) -> tuple[Run, Run]:
    world = build_world(
        folder / "world",
        units=_HEADS * _UNITS_A_HEAD,
        seed=seed,
        jobs=[JobPlan("JO-1", "BENCH", "EU", [_STATION])],
        templates=[build_template(_PROFILE_BYTES, seed=1)],
    )
    shutil.copytree(world.directory, folder / "again")
    floor = _Floor(folder / "station")
    try:
        await floor.start_broker()
        await floor.open(world)
        station = await _station(floor)
    finally:
        await floor.close()
    return station, await _program(folder, world, floor.tape, binary)


async def _station(floor: _Floor) -> Run:
    child, chips = floor.children[_STATION], floor.fleets[_STATION]
    before_s = child.cpu_s()
    await chips.tell("go")
    await asyncio.wait_for(chips.process.wait(), 300)
    return _measured(floor.fleet_file(_STATION), child.cpu_s() - before_s)


async def _program(folder: Path, world: WorldSummary, tape: Path, binary: Path) -> Run:
    floor = _Floor(folder / "program")
    try:
        chips = floor.fleets[_STATION] = await floor.start_fleet(replace(world, directory=folder / "again"), _STATION)
        await chips.wait_ready()
        output = await _replay(floor, chips, binary, tape)
    finally:
        await floor.close()
    return _measured(floor.fleet_file(_STATION), json.loads(output)["cpu_s"])


async def _replay(floor: _Floor, chips: Child, binary: Path, tape: Path) -> bytes:
    heads = chips.facts["heads"][_STATION].values()
    places = [word for head in heads for word in (head["port"].partition(":")[2], head["lamp"].removeprefix("unix://"))]
    program = await asyncio.create_subprocess_exec(
        binary,
        tape,
        str(_HEADS * _UNITS_A_HEAD),
        *places,
        env={"PCSCLITE_CSOCK_NAME": str(floor.readers(_STATION).socket)},
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
    )
    await chips.tell("go")
    output, _ = await asyncio.wait_for(program.communicate(), 300)
    await asyncio.wait_for(chips.process.wait(), 60)
    return output


def _measured(fleet_file: Path, cpu_s: float) -> Run:
    document = json.loads(fleet_file.read_bytes())
    units = document["units"]
    if any(unit["lamp"] != "pass" for unit in units):
        raise RuntimeError("a unit did not pass: nothing was measured")
    return Run(
        document["work_s"],
        statistics.fmean(unit["busy_ms"][-1] for unit in units),
        cpu_s * 1000 / len(units),
    )
