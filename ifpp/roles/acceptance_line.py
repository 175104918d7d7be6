"""The line that is accepted: a copy of the plant's (`acceptance_copy`) in a folder of its own, and what is done to it.

Disturbances come one after the other, each while units are in hand: the robots take a share of their piles before each.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import time
import tomllib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random

from ifpp.errors import IfppError, ServiceError
from ifpp.roles.acceptance_copy import Plant, toml
from ifpp.roles.children import Child
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.doors import Ports
from ifpp.sim.esbpp import PUBLIC_FILE
from ifpp.sim.smdpf import SmDpf
from ifpp.sim.world import WorldSummary
from ifpp.store.factory import Factory

BROKER, LINE_OF_ALL = "broker", "line"
RESEATS = 12
_IN_HAND_S = 20.0
_AWAY_S = 3.0
_LOOK_S = 0.02
_MOMENT_S = 0.4  # of a load, in which the instant of an act falls
_PROGRESS_S = 0.5
_PATIENCE_S = 120.0
_SETTLE_S = 120.0
_SHORT = {"fleet", "import", "keys", "report", "deliver", "smdpf"}  # processes that end by themselves


class Act(StrEnum):
    """What is done to the line, in this order."""

    BROKER_AWAY = "Broker down for 3 s"
    STORE_KILLED = "Store killed (kill -9)"
    STATION_KILLED = "Station killed (kill -9)"
    SUPERVISOR_KILLED = "Supervisor killed (kill -9)"
    POWER_CUT = "Power cut: every process killed at once, every chip without power"
    RESTART = "Every process stopped in order and started again"


@dataclass(frozen=True, slots=True)
class Done:
    """One act: to what, how many units were being worked on, and after how many seconds everything served again.

    `fault`: why it does not, "" = it does.
    """

    act: Act
    target: str
    in_hand: int
    back_s: float
    fault: str = ""


@dataclass(slots=True)
class Journey:
    """What was done, and what went wrong outside of that; `elapsed_s` from the first unit to the last."""

    done: list[Done] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0


class AcceptanceLine(FactoryFloor):
    """A copy of a plant's line; `books` is the URL of its factory database, "" = SQLite in its folder."""

    fleet_extra = ("--reseats", str(RESEATS))

    def __init__(
        self, plant: Plant, folder: Path, *, apdu_ms: float, books: str = "", ports: Ports = Ports.TCP
    ) -> None:
        super().__init__(folder, sorted(plant.stations), heads=1, apdu_ms=apdu_ms, broker=None, ports=ports)
        self.plant = plant
        self._books = books
        self._broker_port, self._smdpf_port = plant.own_port(), plant.own_port()

    @property
    def database(self) -> str:
        return self._books or super().database

    async def start_fleet(self, world: WorldSummary, station: str) -> Child:
        self.heads = len(self.plant.stations[station].heads)
        return await super().start_fleet(world, station)

    def _write_site(self, world: WorldSummary, _store_port: int) -> None:
        trust, smdpf, port = self._site_file.parent / "trust", world.directory / "smdpf", self.plant.own_port()
        trust.mkdir(parents=True)
        shutil.copy(world.ci, trust / "ci.der")
        reports = {
            "url": f"http://127.0.0.1:{self._smdpf_port}/reports",
            "key": str((smdpf / PUBLIC_FILE).resolve()),
        }
        own: dict[str, object] = {
            "broker.port": self._broker_port,
            "store.url": f"http://127.0.0.1:{port}",
            "store.port": port,
            "store.database": self.database,
            "trust": {"roots": "trust"},
            "reports.smdp": {SmDpf.load(smdpf).oid: reports},
            "keys": tomllib.loads(self.keys.table)["keys"],
        }
        if self.plant.site.recipes:
            self.plant.give_recipes(self._site_file.parent / "recipes")
            own["recipes"] = "recipes"
        self._site_file.write_text(toml(self.plant.site_copy(own)), encoding="utf-8")

    def _write_station(self, station: str, heads: dict[str, dict[str, str]]) -> None:
        path, journal = self.station_file(station), self.journal(station)
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {
            "journal": str(journal.resolve()),
            "keys": tomllib.loads(self.keys.table)["keys"],
            "cache.file": str(journal.with_suffix(".cache").resolve()),
            "life.contact_streak": 0,
            "life.fail_streak": 0,
        }
        places = dict(zip(self.plant.stations[station].heads, heads.values(), strict=True))
        path.write_text(toml(self.plant.station_copy(station, own, places)), encoding="utf-8")

    # ---- what is done to it -----------------------------------------------------------------------

    async def kill(self, *names: str) -> None:
        """`kill -9`, all at once."""
        processes = [self._process(name) for name in names]
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))

    async def again(self, *names: str) -> None:
        """Start processes that ended, in the order of a line that opens; returns when they serve."""
        if BROKER in names:
            await self.start_broker()
        started = [await self.start(name) for name in (STORE, SUPERVISOR, *self.stations) if name in names]
        await asyncio.gather(*(child.wait_ready() for child in started))

    async def stop_in_order(self, *names: str) -> list[str]:
        """End processes by SIGTERM; return what did not end in order."""
        codes = [(name, await self.children[name].stop()) for name in names]
        return [f"{name} ended with status {code}" for name, code in codes if code]

    def died(self) -> list[str]:
        """Processes that should run and have ended by themselves."""
        newest = {child.name: child for child in self.children.dead() if child.name.partition("-")[0] not in _SHORT}
        found = [child for name, child in newest.items() if self.children[name] is child]
        gone = [child.death(f"{child.name} ended by itself").detail for child in found]
        if self.broker is not None and self.broker.process.returncode is not None:
            gone.append(f"the broker ended by itself with status {self.broker.process.returncode}")
        return gone

    def _process(self, name: str) -> asyncio.subprocess.Process:
        if name == BROKER and self.broker is not None:
            return self.broker.process
        return self.children[name].process


class Driver:
    """Lets an open line make every unit of its world while the acts come to pass."""

    def __init__(self, line: AcceptanceLine, world: WorldSummary, seed: int, say: Callable[[str], None]) -> None:
        self._line = line
        self._piles = {name: sum(unit.station == name for unit in world.units) for name in line.stations}
        self._chance = Random(seed)  # noqa: S311 - which station and which instant, no secret
        self._victim = self._chance.choice(line.stations)
        self._say = say
        self.journey = Journey()

    async def run(self) -> None:
        """Bring the line to its end; what goes wrong is in `journey.faults`."""
        fleets, start = list(self._line.fleets.values()), time.monotonic()
        factory = Factory.open(self._line.database)
        try:
            await self._allow(0)
            for fleet in fleets:
                await tell(fleet, "go")
            for number, act in enumerate(Act, start=1):
                await self._allow(number / (len(Act) + 1))
                await self._do(act)
                if self.journey.done[-1].fault:
                    return
            await self._allow(1)
            await self._through(fleets, factory)
            self.journey.elapsed_s = time.monotonic() - start
            await self._line.settled(_SETTLE_S)
        except IfppError as error:
            self.journey.faults.append(str(error))
        finally:
            factory.close()

    async def _allow(self, share: float) -> None:
        for station, fleet in self._line.fleets.items():
            await tell(fleet, f"allow {math.ceil(self._piles[station] * share)}")

    async def _do(self, act: Act) -> None:
        acts: dict[Act, Callable[[], Awaitable[str]]] = {
            Act.BROKER_AWAY: self._broker_away,
            Act.STORE_KILLED: lambda: self._killed(STORE),
            Act.STATION_KILLED: lambda: self._killed(self._victim),
            Act.SUPERVISOR_KILLED: lambda: self._killed(SUPERVISOR),
            Act.POWER_CUT: self._power_cut,
            Act.RESTART: self._restart,
        }
        targets = {
            Act.BROKER_AWAY: BROKER,
            Act.STORE_KILLED: STORE,
            Act.STATION_KILLED: self._victim,
            Act.SUPERVISOR_KILLED: SUPERVISOR,
        }
        target = targets.get(act, LINE_OF_ALL)
        in_hand = await self._in_hand([target] if target in self._line.stations else self._line.stations)
        start = time.monotonic()
        try:
            fault = await acts[act]()
        except IfppError as error:
            fault = str(error)
        done = Done(act, target, in_hand, round(time.monotonic() - start, 2), fault)
        self.journey.done.append(done)
        self._say(f"{act}: {in_hand} units in hand; " + (fault or f"served again after {done.back_s:.1f} s"))

    async def _in_hand(self, stations: list[str]) -> int:
        """Wait until units are being worked on at these stations, and a moment more; return how many, 0 if none is."""
        end = time.monotonic() + _IN_HAND_S
        moment_s = self._chance.uniform(0.0, _MOMENT_S)
        while time.monotonic() < end:
            if await self._busy(stations):
                await asyncio.sleep(moment_s)
                if found := await self._busy(stations):
                    return found
            await asyncio.sleep(_LOOK_S)
        return 0

    async def _busy(self, stations: list[str]) -> int:
        """Ask the simulated slots how many units are under a busy lamp."""
        found = 0
        for fleet in (self._line.fleets[name] for name in stations):
            if fleet.process.stdout is not None and await tell(fleet, "busy"):
                line = await fleet.process.stdout.readline()
                found += json.loads(line)["busy"] if line else 0
        return found

    async def _broker_away(self) -> str:
        await self._line.kill(BROKER)
        await asyncio.sleep(_AWAY_S)
        await self._line.again(BROKER)
        return ""

    async def _killed(self, name: str) -> str:
        await self._line.kill(name)
        await self._line.again(name)
        return ""

    async def _power_cut(self) -> str:
        line = self._line
        await line.kill(BROKER, STORE, SUPERVISOR, *line.stations)
        for fleet in line.fleets.values():
            await tell(fleet, "blackout")
        await line.again(BROKER, STORE, SUPERVISOR, *line.stations)
        return ""

    async def _restart(self) -> str:
        line = self._line
        wrong = await line.stop_in_order(*line.stations, SUPERVISOR, STORE)
        await line.again(STORE, SUPERVISOR, *line.stations)
        return "; ".join(wrong)

    async def _through(self, fleets: list[Child], factory: Factory) -> None:
        """Wait until the piles are empty; raises ServiceError when a process dies or nothing moves any more."""
        attempts, moved = 0, time.monotonic()
        while any(fleet.process.returncode is None for fleet in fleets):
            await asyncio.sleep(_PROGRESS_S)
            if gone := self._line.died():
                raise ServiceError("PROCESS.DIED", "; ".join(gone), where=str(self._line.folder / "logs"))
            now = sum(row.attempts for row in await asyncio.to_thread(factory.unit_counts))
            if now != attempts:
                attempts, moved = now, time.monotonic()
            elif time.monotonic() - moved > _PATIENCE_S:
                detail = f"no unit was finished for {_PATIENCE_S:.0f} s"
                raise ServiceError("HOST.TIMEOUT", detail, where=str(self._line.folder / "logs"))
        for fleet in fleets:
            if fleet.process.returncode:
                raise fleet.death(f"{fleet.name} ended with {fleet.process.returncode}")


async def tell(fleet: Child, order: str) -> bool:
    """Give an order to a fleet; False when it has ended: its piles are empty."""
    try:
        if fleet.process.returncode is None:
            await fleet.tell(order)
            return True
    except ConnectionError:  # it ends at this moment
        pass
    return False
