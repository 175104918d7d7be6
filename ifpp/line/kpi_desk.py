"""The supervisor's part in the figures: publish `L/kpi/{hour,shift,job}` when they changed, show the exact gauges."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from ifpp import metrics as series
from ifpp.errors import ServiceError
from ifpp.line.kpi_book import KpiBook, Written
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.settings import Site
from ifpp.store.factory import Factory

KPI_S = 5.0
_REVISE_S = 60.0
_SHARE = 3  # counting takes at most a quarter of the time
_LONG = frozenset({"heads"})  # hundreds of them: `ifpp kpi --json` tells them
log = get_logger("line.kpi")

Say = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Publishes the content of a document, by the kind of its window, where it differs from what was said last."""


class KpiDesk:
    """Keeps the figures of one line on the bus."""

    def __init__(self, site: Site, factory: Factory, say: Say, *, clock: Clock, metrics: Metrics) -> None:
        """Raises SettingsError SETTINGS.INVALID for a calendar that cannot be."""
        self._book = KpiBook(site, factory)
        self._factory = factory
        self._say = say
        self._clock = clock
        self._metrics = metrics
        self._mark = -1
        self._revised_s = -math.inf
        self._complete: set[tuple[str, str]] = set()

    async def run(self, over: asyncio.Event) -> None:
        """Count and publish until `over`; a database or a broker that is away only delays it."""
        while True:
            began_s = self._clock.monotonic()
            try:
                for written in await asyncio.to_thread(self._count):
                    self._show(written)
                    content = {name: value for name, value in written.content.items() if name not in _LONG}
                    await self._say(written.window.kind, content)
            except ServiceError as error:  # the next round says it
                log.warning("kpi.not_said", error=error)
            took_s = self._clock.monotonic() - began_s
            if await pause(self._clock, max(KPI_S, _SHARE * took_s), over):
                return

    def _count(self) -> list[Written]:
        now = self._clock.now()
        found = [self._book.write(window, now, job=job, keep=True) for window, job in self._book.present(now)]
        self._revise(now)
        return found

    def _revise(self, now: datetime) -> None:
        """Count again what ended lately and was not complete, when events came: each change of it is a revision."""
        mark, now_s = self._factory.figures.events_mark(), self._clock.monotonic()
        if mark == self._mark or now_s - self._revised_s < _REVISE_S:
            return
        self._mark, self._revised_s = mark, now_s
        ended = {(one.kind, one.name): one for one in self._book.ended(now)}
        self._complete &= ended.keys()
        for key, window in ended.items():
            if key not in self._complete and self._book.write(window, now, keep=True).content["complete"]:
                self._complete.add(key)

    def _show(self, written: Written) -> None:
        total, window = written.content["total"], written.window.kind
        for name, value in (("good", total.good), ("units_in", total.units_in), ("first_pass", total.first_pass)):
            self._metrics.set(series.KPI_UNITS, value, window=window, count=name)
        ratios = {"fpy": total.fpy, "final_yield": total.final_yield, "retest_rate": total.retest_rate}
        if total.oee is not None:
            ratios |= {name: getattr(total.oee, name) for name in ("oee", "availability", "effectiveness", "quality")}
        for name, ratio in ratios.items():
            self._metrics.set(series.KPI_RATIO, math.nan if ratio is None else ratio, window=window, ratio=name)
        self._metrics.set(series.KPI_UPH, total.uph or 0.0, window=window)
        self._metrics.set(series.KPI_COMPLETE, written.content["complete"], window=window)
