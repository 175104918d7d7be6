"""What a slow HSM costs the line: 16 heads over keys that take 50 ms an operation, against keys that take none."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ifpp.roles.factory_floor import SUPERVISOR, FactoryFloor
from ifpp.sim.template import build_template
from ifpp.sim.world import JobPlan, build_world
from tests.bench.table import goal, row

_STATION = "st01"
_HEADS, _UNITS_A_HEAD, _RUNS = 16, 8, 3
_PROFILE_BYTES = 30_000
_HSM_MS = 50.0


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds the robot was at work, and key operations of a unit: in the station, which units wait for; beside it."""

    work_s: float
    at_station: float
    beside: float


class _Floor(FactoryFloor):
    """One station whose keys, and whose supervisor's, take some time; every key deletion and lock is authorised."""

    station_extra = FactoryFloor.station_extra + "\n[recipe]\ndm_auth = true\n"

    def __init__(self, folder: Path, heads: int, hsm_ms: float) -> None:
        super().__init__(folder, [_STATION], heads=heads, apdu_ms=5, broker=None)
        self._hsm_ms = hsm_ms

    def command(self, name: str) -> list[str]:
        """Return the words that start ifpp over slow keys."""
        if name not in (_STATION, SUPERVISOR):
            return super().command(name)
        root = Path(__file__).parents[2]
        start = ["env", f"PYTHONPATH={root}", sys.executable, "-m", "tests.bench.slow_keys"]
        return [*start, str(self._hsm_ms), str(self.counts(name))]

    def counts(self, name: str) -> Path:
        """Where a process writes how many operations it asked for."""
        return self.folder.resolve() / f"{name}.operations"


def run() -> bool:
    ratios, stations, besides = [], [], []
    for seed in range(_RUNS):
        fast, slow = (measure(_HEADS, _HEADS * _UNITS_A_HEAD, hsm_ms, seed) for hsm_ms in (0.0, _HSM_MS))
        ratios.append(fast.work_s / slow.work_s)
        stations.append(slow.at_station)
        besides.append(slow.beside)
    most = row("key operations a unit waits for", stations, "")
    row("key operations a unit beside it", besides, "")
    met = goal("key operations a unit waits for", most, 2, at_least=False)
    name = f"units/s, HSM of {_HSM_MS:g} ms / software"
    return goal(name, row("ratio", ratios, ""), 0.97, at_least=True) and met


def measure(heads: int, units: int, hsm_ms: float, seed: int = 1) -> Run:
    """Let one station make `units` over keys that take `hsm_ms` an operation."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder), heads, units, hsm_ms, seed))


async def _measure(folder: Path, heads: int, units: int, hsm_ms: float, seed: int) -> Run:
    jobs = [JobPlan("JO-1", "BENCH", "EU", [_STATION])]
    template = build_template(_PROFILE_BYTES, seed=1)
    world = build_world(folder / "world", units=units, seed=seed, jobs=jobs, templates=[template])
    floor = _Floor(folder, heads, hsm_ms)
    try:
        await floor.start_broker()
        await floor.open(world)
        chips = floor.fleets[_STATION]
        await chips.tell("go")
        await asyncio.wait_for(chips.process.wait(), 600)
        await floor.settled()
    finally:
        await floor.close()
    work_s = float(json.loads(floor.fleet_file(_STATION).read_bytes())["work_s"])
    at_station, beside = (int(floor.counts(name).read_text()) / units for name in (_STATION, SUPERVISOR))
    return Run(work_s, at_station, beside)
