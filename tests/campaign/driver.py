"""Runs a campaign: robots feed units, faults come as planned, then the line is left in peace and every unit asked for.

1. The line starts and the robots feed.
2. The faults of the plan come one after another. The robots take units from the piles as the plan goes on, and some
   more while a fault waits for a unit to come by.
3. The clocks are set right, what is broken has been started again; units that did not pass are fed once more.
4. Every station's outbox empties, and every process ends in order.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ifpp.sim.world import WorldSummary
from ifpp.station.look import owed_notices
from tests.campaign.edges import passed_at_start
from tests.campaign.line import BROKER, Line, Say
from tests.campaign.plan import LINE, Fault, Kind, Step
from tests.real.small_disk import SmallDisk

_EDGE_S = 12.0
_CUT_S = 10.0
_LOOK_S = 0.02
_PACE_S = 0.4
_DISARM_S = 0.1
_AHEAD = 16
_KEPT = 3  # units for each fault to come
_PROGRESS_S = 0.5
_PATIENCE_S = 90.0
_SETTLE_S = 60.0
_READING_APDUS = (8, 9, 10, 7)  # EUICCInfo2 and status; meanwhile the packages are claimed


@dataclass(slots=True)
class Log:
    """What was done to the line."""

    kills: Counter[str] = field(default_factory=Counter)
    edges: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    done: int = 0
    binned: int = 0


class Driver:
    """Drives one campaign over an open line."""

    def __init__(self, line: Line, world: WorldSummary, steps: list[Step], say: Say) -> None:
        self._line = line
        self._total = sum(len(step.faults) for step in steps)
        self._units = len(world.units)
        self._steps = steps
        self._say = say
        self._allowed = 0
        self._waiting = 0
        self.log = Log()

    async def run(self, limit_s: float) -> None:
        """Bring the campaign to its end; what does not come to an end within its bound is noted as stuck."""
        line = self._line
        try:
            async with asyncio.timeout(limit_s):
                await self._work()
        except TimeoutError:
            line.stuck.append(f"the campaign did not end within {limit_s:.0f} s; " + "; ".join(await self._heads()))
        await line.close_line()

    async def _work(self) -> None:
        feeding = [asyncio.create_task(chips.feed("feed")) for chips in self._line.chips.values()]
        helping = [asyncio.create_task(self._watch()), asyncio.create_task(self._pace())]
        try:
            await self._disturb()
            await self._calm()
            if await self._through(feeding):
                self._say("no more faults; units that did not pass are fed once more")
                again = [asyncio.create_task(chips.feed("again")) for chips in self._line.chips.values()]
                await self._through(again)
            await self._settled()
        finally:
            for task in helping:
                task.cancel()

    # ---- faults -----------------------------------------------------------------------------------

    async def _disturb(self) -> None:
        for step in self._steps:
            await asyncio.sleep(step.pause_s)
            await asyncio.gather(*(self._cause(fault) for fault in step.faults))
        self._allowed = self._units

    async def _pace(self) -> None:
        """Let the robots take as many units as the plan has come to, and a few more while a fault waits for one."""
        while True:
            left = self._total - self.log.done - 1
            part = self._units * (self.log.done + 1) // self._total
            most = max(part, min(part + _AHEAD, self._units - _KEPT * left))
            self._allowed = max(self._allowed, part, min(most, self._allowed + (self._waiting > 0)))
            for chips in self._line.chips.values():
                await chips.allow(-(-self._allowed // len(self._line.chips)))
            await asyncio.sleep(_PACE_S)

    async def _cause(self, fault: Fault) -> None:
        """Let one fault happen; one that does not come to pass becomes a plain kill."""
        line = self._line
        acts = {
            Kind.KILL: self._kill,
            Kind.EDGE: self._edge,
            Kind.PULL: self._cut,
            Kind.POWER: self._cut,
            Kind.READER: self._reader,
            Kind.FREEZE: self._freeze,
            Kind.BLACKOUT: self._blackout,
            Kind.CLOCK: self._clock,
            Kind.DISK: self._disk,
            Kind.OUTAGE: self._outage,
        }
        targets = line.processes if fault.target == LINE else [fault.target]
        if fault.kind is not Kind.CLOCK and not all([await line.up(target) for target in targets]):
            return
        self._waiting += 1
        came = await acts[fault.kind](fault)
        self._waiting -= 1
        if came:
            name = f"{fault.kind} {fault.target}" if fault.kind in (Kind.KILL, Kind.FREEZE) else str(fault.kind)
            self.log.kills[name] += 1
        else:
            self.log.missed.append(str(fault))
            await self._kill(fault)
            self.log.kills[f"{Kind.KILL} {fault.target}"] += 1
        self.log.done += 1
        self._say(f"[{self.log.done}/{self._total}] {fault}; {self.log.binned}/{self._units} units")

    async def _kill(self, fault: Fault) -> bool:
        if fault.rights_clock:
            self._line.control(fault.target).set_clock(0.0)
        await self._line.kill(fault.target, fault.down_s)
        return True

    async def _edge(self, fault: Fault) -> bool:
        line, control = self._line, self._line.control(fault.target)
        if passed_at_start(fault.edge):
            control.arm(fault.number, fault.edge, fault.times)
            await line.kill(fault.target, fault.down_s)
            await self._died(fault)
        else:
            line.expect(fault.target, fault.down_s)
            control.arm(fault.number, fault.edge, fault.times)
            if fault.edge.startswith("store.release"):
                await self._make_heads_give_back(fault)
            else:
                await self._died(fault)
        control.disarm()
        await asyncio.sleep(_DISARM_S)  # it may be on its way
        died = control.died_at(fault.number)
        if died:
            self.log.edges[fault.edge] += 1
        else:
            line.unexpect(fault.target)
        return died

    async def _died(self, fault: Fault) -> None:
        """Wait until the process has died at its edge."""
        await _until(lambda: self._line.control(fault.target).died_at(fault.number), _EDGE_S)

    async def _make_heads_give_back(self, fault: Fault) -> None:
        """Packages are given back when a chip goes away while it is read: pull one after another."""
        died = asyncio.create_task(self._died(fault))
        heads = range(1, self._line.heads + 1)
        pulls = itertools.cycle(itertools.product(heads, _READING_APDUS))
        while not died.done():
            head, at = next(pulls)
            cuts = [chips.cut(f"h{head:02d}", at, fresh=True, wait_s=3.0) for chips in self._line.chips.values()]
            await asyncio.gather(*cuts)

    async def _cut(self, fault: Fault) -> bool:
        chips, stays = self._line.chips[fault.target], fault.kind is Kind.POWER
        return await chips.cut(fault.slot, fault.at, executed=fault.executed, stays=stays, wait_s=_CUT_S)

    async def _reader(self, fault: Fault) -> bool:
        return await self._line.chips[fault.target].hang_up(fault.slot, _CUT_S)

    async def _blackout(self, fault: Fault) -> bool:
        line = self._line
        for name in line.processes:
            line.control(name).set_clock(0.0)
        await asyncio.gather(*(line.kill(name, fault.down_s) for name in line.processes))
        await asyncio.gather(*(chips.blackout() for chips in line.chips.values()))
        return True

    async def _freeze(self, fault: Fault) -> bool:
        line = self._line
        line.stop(fault.target)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            line.resume(fault.target)
        return True

    async def _clock(self, fault: Fault) -> bool:
        self._line.control(fault.target).set_clock(fault.lasts_s)
        return True

    async def _disk(self, fault: Fault) -> bool:
        """Fill a disk to the last byte, and free it again."""
        disk = SmallDisk(self._line.disk(fault.target))
        try:
            disk.fill()
            await asyncio.sleep(fault.lasts_s)
        finally:
            disk.clear()
        return True

    async def _outage(self, fault: Fault) -> bool:
        await self._line.kill(BROKER, fault.lasts_s)
        return True

    # ---- the end ----------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """No more faults: clocks are right, everything serves."""
        line = self._line
        for name in line.processes:
            line.control(name).set_clock(0.0)
            await line.up(name)

    async def _through(self, feeding: list[asyncio.Task[None]]) -> bool:
        """Wait until the robots are done; False, and noted, when no unit is finished for too long."""
        binned, moved = self.log.binned, time.monotonic()
        while not all(task.done() for task in feeding):
            await asyncio.wait(feeding, timeout=_PROGRESS_S)
            if self.log.binned != binned:
                binned, moved = self.log.binned, time.monotonic()
            elif time.monotonic() - moved > _PATIENCE_S:
                self._line.stuck += await self._heads()
                for task in feeding:
                    task.cancel()
                return False
        for task in feeding:
            task.result()
        return True

    async def _heads(self) -> list[str]:
        """What every head that is not idle waits for."""
        found = []
        for station, chips in self._line.chips.items():
            slots = (await chips.count())["slots"]
            found += [f"{station} {slot}: {what}" for slot, what in slots.items() if not what.endswith("no unit")]
        return found

    async def _watch(self) -> None:
        while True:
            counts = [await chips.count() for chips in self._line.chips.values()]
            self.log.binned = sum(count["binned"] for count in counts)
            await asyncio.sleep(_PROGRESS_S)

    async def _settled(self) -> None:
        """Wait until the supervisor has acknowledged every event, and SM-DP+ have all that is owed to them."""
        line = self._line
        journals = {station: line.journal(station) for station in line.stations}
        await _until(lambda: not any(map(_unacknowledged, journals.values())), _SETTLE_S)
        for station, journal in journals.items():
            if left := _unacknowledged(journal):
                line.stuck.append(f"{station}: {left} events were never acknowledged")
        await _until(lambda: not any(map(owed_notices, journals.values())), _SETTLE_S)
        for station, journal in journals.items():
            if left := len(owed_notices(journal)):
                line.stuck.append(f"{station}: {left} notifications were never delivered")


async def _until(done: Callable[[], bool], wait_s: float) -> None:
    """Wait until something outside of this process has come about, `wait_s` at most."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end and not done():  # noqa: ASYNC110 - nothing in this process could set an event
        await asyncio.sleep(_LOOK_S)


def _unacknowledged(journal: Path) -> int:
    with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM outbox WHERE acked_at IS NULL").fetchone()[0])
