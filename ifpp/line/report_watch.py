"""Watches that every Profile Loading Report is acknowledged in time (alarm A-160)."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from ifpp import metrics as series
from ifpp.errors import ServiceError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.store.factory import Factory

_ROUND_S = 30.0

log = get_logger("line.report_watch")


def due_before(now: datetime, due_h: float) -> datetime:
    """Reports written before this and not acknowledged are overdue."""
    return now - timedelta(hours=due_h)


class ReportWatch:
    """Counts what is overdue, again and again; `overdue` is what it found last."""

    def __init__(self, factory: Factory, *, clock: Clock, metrics: Metrics, due_h: float) -> None:
        self._factory = factory
        self._clock = clock
        self._metrics = metrics
        self._due_h = due_h
        self.overdue: list[str] = []

    async def run(self, over: asyncio.Event) -> None:
        """Count until `over`; a database that is away is asked again."""
        while True:
            try:
                await self.look()
            except ServiceError as error:
                log.warning("reports.not_counted", error=error)
            if await pause(self._clock, _ROUND_S, over):
                return

    async def look(self) -> None:
        """Count once; raises ServiceError DATABASE.UNREACHABLE."""
        before = due_before(self._clock.now(), self._due_h)
        found = await asyncio.to_thread(self._factory.overdue_reports, before)
        for report_id in sorted(set(found) - set(self.overdue)):
            log.error("report.overdue", alarm="A-160", report=report_id, due_h=self._due_h)
        self.overdue = found
        self._metrics.set(series.REPORTS_OVERDUE, len(found))
