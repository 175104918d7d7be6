"""The right to run a line: won by one supervisor, renewed three times in its length, given back or run out.

Behind an old owner there are three fences, so that one that was frozen, or has a wrong clock, does no harm: the
database takes no event for a past tenure; nothing is published once the length of the lease has passed since the last
renewal, by the monotonic clock; and before each connection to the broker the lease is renewed. All supervisors of a
line have one MQTT client id: a new owner's connection ends the old one's, which does not return.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import TypeVar

from ifpp.errors import CustodyError, IfppError, LineTakenError, ServiceError
from ifpp.log import get_logger
from ifpp.model.clock import Clock, pause
from ifpp.settings import Site
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent, TakeResult
from ifpp.store.tenure import Tenure

_RETRY_S = 0.5
_RENEW_S = 5.0  # at least so often: it is also the word that the supervisor goes on

log = get_logger("line.lease")
T = TypeVar("T")


class Lease:
    """The line's row in the database: who supervises it, and under which epoch."""

    def __init__(
        self,
        site: Site,
        factory: Factory,
        executor: Executor,
        owner: str,
        clock: Clock,
        beat: Callable[[str], None] = lambda _standing: None,
    ) -> None:
        """`beat` hears how the supervisor stands, each time the thread of the database has answered."""
        self._line = site.line
        self._lease_s = site.supervisor.lease_s
        self._factory = factory
        self._executor = executor
        self._owner = owner
        self._clock = clock
        self._beat = beat
        self._epoch = 0
        self._until_s = -math.inf

    @property
    def ours(self) -> bool:
        """Whether nobody else can have taken the line by now."""
        return self._clock.monotonic() < self._until_s

    def check(self) -> None:
        """Raise ServiceError LINE.NOT_OURS when another may have taken the line."""
        if not self.ours:
            raise ServiceError("LINE.NOT_OURS", f"epoch {self._epoch} may have ended", where=self._line)

    async def win(self, stop: asyncio.Event) -> int | None:
        """Wait until the line is ours and return the epoch; None when `stop` comes first.

        A lease that nobody renews is over when its length has passed here, too: its owner's clock may have been wrong.
        """
        seen, since_s, abandoned, said = "", 0.0, "", ""
        while not stop.is_set():
            try:
                self._epoch = await self._acquire(abandoned)
            except LineTakenError as error:
                until, why = error.until, "another supervisor runs it: standing by"
            except IfppError as error:
                until, why = "", str(error)
            else:
                return self._epoch
            if why != said:
                log.warning("line.not_ours", line=self._line, why=why)
                said = why
            self._beat(f"waits for line {self._line}: {why}")
            now_s = self._clock.monotonic()
            if until != seen:
                seen, since_s = until, now_s
            abandoned = seen if now_s - since_s > self._lease_s else ""
            await pause(self._clock, min(_RETRY_S, self._lease_s / 3), stop)
        return None

    async def keep(self, over: asyncio.Event) -> None:
        """Renew the lease until `over`; sets `over` when the line belongs to somebody else."""
        self._say_ours()
        while not await pause(self._clock, min(self._lease_s / 3, _RENEW_S), over):
            await self.renew(over)
            self._say_ours()

    async def renew(self, over: asyncio.Event) -> bool:
        """Renew the lease, or set `over` when the line belongs to somebody else; returns whether it is ours."""
        try:
            if await self._acquire() == self._epoch:
                return self.ours
            log.error("line.lost", line=self._line, epoch=self._epoch, why="the lease had run out")
        except CustodyError as error:
            log.error("line.lost", line=self._line, epoch=self._epoch, error=error)
        except ServiceError as error:  # without the database nothing is committed or acknowledged either
            log.warning("lease.not_renewed", line=self._line, error=error)
            return self.ours
        self._until_s = -math.inf
        over.set()
        return False

    def _say_ours(self) -> None:
        runs = f"runs line {self._line}, epoch {self._epoch}"
        self._beat(runs if self.ours else f"{runs}: the lease could not be renewed")

    async def release(self) -> None:
        """Give the line back; a lease that cannot be given back runs out by itself."""
        try:
            await self._call(lambda: self._factory.release_line(self._line, self._owner, self._clock.now()))
        except ServiceError as error:
            log.warning("lease.not_released", line=self._line, error=error)

    def fenced(self) -> Fenced:
        """The database as the present tenure may use it."""
        return Fenced(self._factory, Tenure(self._line, self._owner, self._epoch))

    async def _acquire(self, abandoned: str = "") -> int:
        began_s = self._clock.monotonic()
        epoch = await self._call(
            lambda: self._factory.acquire_line(
                self._line, self._owner, self._lease_s, self._clock.now(), abandoned=abandoned
            )
        )
        self._until_s = began_s + self._lease_s
        return epoch

    async def _call(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class Fenced:
    """Takes events for one tenure, and none after it (`ifpp.line.settle.EventStore`)."""

    def __init__(self, factory: Factory, tenure: Tenure) -> None:
        self._factory = factory
        self._tenure = tenure

    def take_events(self, received: Sequence[ReceivedEvent], now: datetime) -> list[TakeResult]:
        return self._factory.take_events(received, now, self._tenure)

    def park(self, node_id: str, body: bytes, text: str, now: datetime) -> None:
        self._factory.park(node_id, body, text, now)
