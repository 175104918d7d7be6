"""The supervisor's part in the figures: publish `L/kpi/{hour,shift,job}` when they changed, show the exact gauges."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Protocol

from ifpp import metrics as series
from ifpp.errors import ServiceError
from ifpp.line.kpi_book import KpiBook, Written
from ifpp.line.shifts import Window
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.settings import Site
from ifpp.store.factory import Factory

KPI_S = 5.0
_LOOK_S = 0.5
_SHARE = 3  # counting takes at most a quarter of the time
_LONG = frozenset({"heads"})  # hundreds of them: `ifpp kpi --json` tells them
log = get_logger("line.kpi")
_Key = tuple[str, str]


class Say(Protocol):
    """Publishes the content of a document, by the kind of its window; whether it could.

    One to `keep` stands on the bus, and is said where it differs from what was said last.
    """

    def __call__(self, kind: str, content: dict[str, Any], /, *, keep: bool) -> Awaitable[bool]: ...


class KpiDesk:
    """Keeps the figures of one line on the bus."""

    def __init__(self, site: Site, factory: Factory, say: Say, *, clock: Clock, metrics: Metrics) -> None:
        """Raises SettingsError SETTINGS.INVALID for a calendar that cannot be."""
        self._book = KpiBook(site, factory)
        self._factory = factory
        self._say = say
        self._clock = clock
        self._metrics = metrics
        self._mark = self._seen = -1
        self._next_s = -math.inf
        self._known: set[_Key] = set()
        self._waiting: list[Window] = []
        self._final: set[_Key] = set()
        self._told: dict[_Key, int] = {}

    async def run(self, over: asyncio.Event) -> None:
        """Count and publish until `over`; a database or a broker that is away only delays it."""
        while True:
            began_s = self._clock.monotonic()
            try:
                if await asyncio.to_thread(self._due):
                    await self._round()
                    took_s = self._clock.monotonic() - began_s
                    self._next_s = self._clock.monotonic() + max(KPI_S, _SHARE * took_s)
                    if await pause(self._clock, _SHARE * took_s, over):
                        return
            except ServiceError as error:  # the next round says it
                log.warning("kpi.not_said", error=error)
            if await pause(self._clock, min(KPI_S, _LOOK_S), over):
                return

    def _due(self) -> bool:
        """Whether it is time, or the last event of several came: nobody waits for the time then."""
        before, self._seen = self._seen, self._factory.figures.events_mark()
        return self._clock.monotonic() >= self._next_s or self._mark != self._seen == before

    async def _round(self) -> None:
        self._mark = self._seen
        present, revised = await asyncio.to_thread(self._count)
        for written in present:
            self._show(written)
            await self._say(written.window.kind, _short(written), keep=True)
        if revised is not None and await self._say(revised.window.kind, _short(revised), keep=False):
            self._told[_key(revised.window)] = revised.revision

    def _count(self) -> tuple[list[Written], Written | None]:
        now = self._clock.now()
        found = [self._book.write(window, now, job=job, keep=True) for window, job in self._book.present(now)]
        return found, self._revised(now)

    def _revised(self, now: datetime) -> Written | None:
        """Count again one window that ended lately and was not complete; return it when that has not been told."""
        ended = {_key(one): one for one in self._book.ended(now)}
        if not self._waiting or self._known != ended.keys():  # what ended just now comes first
            self._known = set(ended)
            self._final &= ended.keys()
            self._told = {key: number for key, number in self._told.items() if key in ended}
            late = (one for key, one in ended.items() if key not in self._final)
            self._waiting = sorted(late, key=lambda one: one.end)
        if not self._waiting:
            return None
        window = self._waiting.pop()
        written = self._book.write(window, now, keep=True)
        fresh = self._told.get(_key(window)) != written.revision
        if written.content["complete"] and not fresh:
            self._final.add(_key(window))
        return written if fresh and written.content["total"].heads else None  # an hour nobody worked in is no news

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


def _key(window: Window) -> _Key:
    return window.kind, window.name


def _short(written: Written) -> dict[str, Any]:
    content = {name: value for name, value in written.content.items() if name not in _LONG}
    total = content.pop("total")
    return content | {name: getattr(total, name) for name in total.__struct_fields__}
