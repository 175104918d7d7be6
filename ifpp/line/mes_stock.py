"""`L/state/stock`: how far the packages of each open job order reach, said when it has changed (line contract 4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.errors import IfppError
from ifpp.line.coverage import Coverage, cover
from ifpp.log import get_logger
from ifpp.model.clock import Clock, pause, utc_ms_text, uuid7
from ifpp.model.mes import JobStock, Stock, TypeStock
from ifpp.model.orders import ENDED
from ifpp.store.factory import Factory

_ROUND_S = 30.0
_RETRY_S = 1.0
_SHARE = 10  # counting takes at most one tenth of the time: every chip is read for each job

log = get_logger("line.mes_stock")


class StockDesk:
    """Belongs to the event loop of one supervisor, for one epoch."""

    def __init__(
        self,
        factory: Factory,
        topics: Topics,
        publish: Callable[[str, bytes, bool], Awaitable[None]],
        *,
        boot_id: str,
        epoch: int,
        low_stock_hours: float,
        clock: Clock,
    ) -> None:
        self._factory = factory
        self._topics = topics
        self._publish = publish
        self._boot_id = boot_id
        self._epoch = epoch
        self._low_stock_hours = low_stock_hours
        self._clock = clock
        self._said: dict[str, JobStock] | None = None

    def connected(self) -> None:
        """A new connection: what is retained is said again."""
        self._said = None

    async def run(self, over: asyncio.Event) -> None:
        """Count again and again until `over`."""
        while True:
            began_s, round_s = self._clock.monotonic(), _ROUND_S
            try:
                await self._say(await asyncio.to_thread(self._count))
            except IfppError as error:  # database or broker away: the next round says it
                log.debug("stock.not_said", error=error)
                round_s = _RETRY_S
            took_s = self._clock.monotonic() - began_s
            if await pause(self._clock, max(round_s, _SHARE * took_s), over):
                return

    def _count(self) -> dict[str, JobStock]:
        line, now = self._topics.line, self._clock.now()
        found = {}
        for job in self._factory.jobs(line):
            if job.dispatch_status not in ENDED:
                report = cover(
                    self._factory, line, now=now, job=job.job_order_id, low_stock_hours=self._low_stock_hours
                )
                found[job.job_order_id] = stock_of(report.products[0])
        return found

    async def _say(self, jobs: dict[str, JobStock]) -> None:
        if jobs == self._said:
            return
        now = self._clock.now()
        document = Stock(
            schema="stock/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=LINE_NODE,
            boot_id=self._boot_id,
            epoch=self._epoch,
            jobs=jobs,
        )
        await self._publish(f"{self._topics.base}/{LINE_NODE}/state/stock", msgspec.json.encode(document), True)
        self._said = jobs


def stock_of(about: Coverage) -> JobStock:
    """Return the coverage of one job as the MES is told; of each type: needed, and how many of those are there."""
    needed = about.needed or 0
    lacking: dict[str, int] = {}
    for order in about.orders:
        lacking[order.profile_type] = lacking.get(order.profile_type, 0) + order.packages
    types = [name.partition("@")[0] for name in about.profiles]
    per_unit = {name: types.count(name) for name in types}
    return JobStock(
        expected_units=needed,
        eids_known=about.covered + about.uncovered,
        covered=about.covered,
        uncovered=about.uncovered,
        spare=about.spare,
        spoiled=about.spoiled,
        coverage_ratio=min(1.0, (about.covered + about.codes) / needed) if needed else 1.0,
        hours_left=about.hours_left,
        profile_types={
            name: TypeStock(
                need=needed * number,
                have=max(0, (needed - about.missing) * number - lacking.get(name, 0)),
            )
            for name, number in per_unit.items()
        },
    )
