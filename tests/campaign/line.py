"""The line of a campaign: the demo's processes, each kept alive by a keeper that starts it again when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ifpp.errors import IfppError
from ifpp.roles.children import Child
from ifpp.roles.factory_floor import SMDP_PLUS, STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.world import WorldSummary
from tests.campaign.control import Handle

BROKER = "broker"
DISK_BYTES = 128 * 1024 * 1024
_PYTHON = ("env", f"PYTHONPATH={Path(__file__).parent.parent.parent}", sys.executable)
_UP_S = 60.0
_ANSWER_S = 10.0
_PAUSE_S = 0.3  # between an end nobody asked for and the next start

Say = Callable[[str], None]


@cache
def can_mount() -> bool:
    """Whether a small disk can be made here, to be filled: that takes root."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount(Path(folder))
        except subprocess.CalledProcessError:
            return False
        _unmount(Path(folder))
        return True


class Line(FactoryFloor):
    """Start with `open_line`; `stuck` gathers what never came to an end."""

    # Short times, so that a restart or a lapsed lease is waited for in seconds.
    supervisor_extra = "lease_s = 3\n"
    station_extra = FactoryFloor.station_extra + (
        "\n[deadlines]\nlease_s = 20\nstore_s = 2\nreconnect_s = 0.3\n\n[outbox]\nresend_s = 1\nresend_max_s = 4\n"
    )

    def __init__(self, folder: Path, stations: list[str], *, heads: int, apdu_ms: float, say: Say) -> None:
        super().__init__(folder, stations, heads=heads, apdu_ms=apdu_ms, broker=None)
        self.processes = [BROKER, STORE, SUPERVISOR, *stations]
        self.chips: dict[str, Chips] = {}
        self.stuck: list[str] = []
        self.ended: list[str] = []
        self.refused: list[str] = []
        self._say = say
        self._handles: dict[str, Handle] = {}
        self._up: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._down_s: dict[str, float] = {}
        self._online = False
        self._killed: Counter[int] = Counter()
        self._mounts: list[Path] = []
        self._keepers: list[asyncio.Task[None]] = []

    # ---- what is different from the demo ----------------------------------------------------------

    def command(self, name: str) -> list[str]:
        return [*_PYTHON, "-m", "tests.campaign.launch", str(self.control(name).path)]

    def control(self, name: str) -> Handle:
        """What the campaign may do inside a process of this name."""
        if name not in self._handles:
            folder = self.folder / "control"
            folder.mkdir(parents=True, exist_ok=True)
            self._handles[name] = Handle(folder / f"{name}.json")
        return self._handles[name]

    def journal(self, station: str) -> Path:
        return self.disk(station) / "journal.db"

    @property
    def database_file(self) -> Path:
        """The factory database."""
        return self.disk(STORE) / "factory.db"

    @property
    def database(self) -> str:
        return f"sqlite:///{self.database_file.resolve()}"

    def disk(self, name: str) -> Path:
        """The disk of a station, or (name of the store) of the factory: a small one where that can be made."""
        return self.folder / "disks" / name

    async def start_fleet(self, world: WorldSummary, station: str) -> Child:
        options = ["--heads", str(self.heads), "--apdu-ms", str(self.apdu_ms), "--out", str(self.fleet_file(station))]
        module = ["-m", "tests.campaign.chips"]
        child = await self.children.start(
            f"chips-{station}", *_PYTHON, *module, str(world.directory), station, *options
        )
        self.chips[station] = Chips(child)
        return child

    # ---- beginning and end ------------------------------------------------------------------------

    async def open_line(self, world: WorldSummary) -> None:
        """Start everything and keep it alive from then on."""
        for name in (STORE, *self.stations):
            self.disk(name).mkdir(parents=True)
            if can_mount():
                _mount(self.disk(name))
                self._mounts.append(self.disk(name))
        await self.start_broker()
        self._online = bool(world.smdp_plus)
        await self.open(world)
        for chips in self.chips.values():
            chips.listen()
        self._keepers = [asyncio.create_task(self._keep(name), name=f"keep {name}") for name in self.processes]
        for name in (*self.processes, SMDP_PLUS):
            self._up[name].set()

    async def close_line(self) -> None:
        """End the processes in the order of a line that closes; what does not end is killed and told."""
        await self._let_go()
        await asyncio.gather(*(self._end(name) for name in self.stations))
        await self._end(SUPERVISOR)
        await self._end(STORE)
        if self._online:
            await self._end(SMDP_PLUS)
        for chips in self.chips.values():
            await chips.end()

    async def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        await self._let_go()
        for name in (*self.processes, SMDP_PLUS):
            self.resume(name)
        await super().close()
        while self._mounts:
            _unmount(self._mounts.pop())

    async def _let_go(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []

    async def _end(self, name: str) -> None:
        child = self.children[name]
        if child.process.returncode is not None:
            self.stuck.append(f"{name} did not run at the end: status {child.process.returncode}")
        elif await child.stop() != 0:
            self.stuck.append(child.death(f"{name} did not end in order, status {child.process.returncode}").detail)

    # ---- keepers ----------------------------------------------------------------------------------

    async def kill(self, name: str, down_s: float) -> None:
        """`kill -9`; the keeper starts it again after `down_s`."""
        process = self._process(name)
        self.expect(name, down_s)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def expect(self, name: str, down_s: float) -> None:
        """The process that runs now will end, and that is wanted."""
        process = self._process(name)
        self._killed[process.pid] += 1  # two faults may want the same end
        self._down_s[name] = down_s
        self._up[name].clear()

    def unexpect(self, name: str) -> None:
        """It will not end after all."""
        process = self._process(name)
        if process.returncode is None:
            self._killed[process.pid] -= 1
            if self._killed[process.pid] <= 0:
                self._up[name].set()

    def stop(self, name: str) -> None:
        """SIGSTOP."""
        with suppress(ProcessLookupError):
            os.kill(self._process(name).pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        with suppress(ProcessLookupError, KeyError, AttributeError):
            os.kill(self._process(name).pid, signal.SIGCONT)

    def is_running(self, name: str) -> bool:
        """Whether the process is there now."""
        return self._process(name).returncode is None

    async def up(self, name: str) -> bool:
        """Wait until the process serves; False, and noted as stuck, when it does not in a minute."""
        try:
            await asyncio.wait_for(self._up[name].wait(), _UP_S)
        except TimeoutError:
            self.stuck.append(f"{name} did not serve again within {_UP_S:g} s")
            return False
        return True

    def _process(self, name: str) -> asyncio.subprocess.Process:
        if name == BROKER:
            assert self.broker is not None
            return self.broker.process
        return self.children[name].process

    async def _keep(self, name: str) -> None:
        """Start a process again whenever it has ended."""
        while True:
            process = self._process(name)
            await process.wait()
            self._up[name].clear()
            # A fault may be meant for the process before this one; nothing else here ends a process with SIGKILL.
            if self._killed[process.pid] > 0 or process.returncode == -signal.SIGKILL:
                pause_s = self._down_s.pop(name, 0.0)
            else:
                pause_s = _PAUSE_S
                self.ended.append(self._death(name, f"{name} ended by itself with status {process.returncode}"))
                self._say(self.ended[-1])
            await asyncio.sleep(pause_s)
            if await self._started(name):
                self._up[name].set()

    async def _started(self, name: str) -> bool:
        """Start a process; False when it refuses: then it has ended, and in words."""
        if name == BROKER:
            await self.start_broker()
            return True
        child = await self.start(name)
        try:
            await child.wait_ready()
        except IfppError as fault:
            if child.process.returncode is None:
                self.stuck.append(fault.detail)
                await self.kill(name, _PAUSE_S)
            elif self._killed[child.process.pid] <= 0 and child.process.returncode > 0:
                self.refused.append(fault.detail)
            self._killed[child.process.pid] += 1
            self._down_s.setdefault(name, _PAUSE_S)
            return False
        return child.process.returncode is None

    def _death(self, name: str, what: str) -> str:
        return what if name == BROKER else self.children[name].death(what).detail


def _mount(disk: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True, capture_output=True)


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", "-l", str(disk)], check=False)


class Chips:
    """The fleet of one station: orders out, answers in."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._answers: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._reader: asyncio.Task[None] | None = None
        self._cutting = asyncio.Lock()

    def listen(self) -> None:
        """Read answers from now on; the ready line was read."""
        self._reader = asyncio.create_task(self._read(), name=f"read {self._child.name}")

    async def feed(self, what: str) -> None:
        """Let the robots feed ("feed", "again"); returns when the piles are empty."""
        await self._child.tell(json.dumps({"do": what}))
        await self._answers["fed"].get()

    async def allow(self, units: int) -> None:
        """Let the robots have taken so many units from their pile."""
        await self._child.tell(json.dumps({"do": "allow", "units": units}))

    async def cut(
        self, slot: str, at: int, *, wait_s: float, executed: bool = False, stays: bool = False, fresh: bool = False
    ) -> bool:
        """Lose contact once (see `tests.campaign.chips`); False when that did not come to pass in `wait_s`."""
        order = {"do": "cut", "slot": slot, "at": at, "executed": executed, "stays": stays, "fresh": fresh}
        return await self._disturb(order, wait_s)

    async def hang_up(self, slot: str, wait_s: float) -> bool:
        """Break the connection to a slot at work; False when none was in `wait_s`."""
        return await self._disturb({"do": "hang_up", "slot": slot}, wait_s)

    async def _disturb(self, order: dict[str, Any], wait_s: float) -> bool:
        async with self._cutting:
            await self._child.tell(json.dumps(order | {"wait_s": wait_s}))
            return bool(await asyncio.wait_for(self._answers["cut"].get(), wait_s + _ANSWER_S))

    async def blackout(self) -> None:
        """Take the power away from every chip."""
        await self._child.tell('{"do": "blackout"}')

    async def count(self) -> dict[str, Any]:
        """Return how far the units of this station are."""
        await self._child.tell('{"do": "count"}')
        answer: dict[str, Any] = await asyncio.wait_for(self._answers["binned"].get(), _ANSWER_S)
        return answer

    async def end(self) -> None:
        """Let the fleet write what became of its units, and end."""
        await self._child.tell('{"do": "end"}')
        await asyncio.wait_for(self._child.process.wait(), _ANSWER_S)
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        stdout = self._child.process.stdout
        assert stdout is not None
        while line := await stdout.readline():
            answer = json.loads(line)
            kind = next(iter(answer))
            await self._answers[kind].put(answer[kind] if len(answer) == 1 else answer)
