"""The figures a line publishes: its present hour and shift, its last job order, and what late events change.

A window that has ended is looked at again until it is complete, and whenever events came: what differs is its next
revision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ifpp.line.kpi import digest, figures_of, ratio
from ifpp.line.shifts import Shifts, Window
from ifpp.model.clock import parse_utc
from ifpp.model.messages import Job
from ifpp.model.orders import ENDED
from ifpp.settings import Site
from ifpp.store.factory import Factory


@dataclass(frozen=True, slots=True)
class Written:
    """One window's figures: `content` as in `ifpp.model.kpi.Kpi` without its envelope; `total`: the whole."""

    window: Window
    content: dict[str, Any]
    revision: int

    def as_json(self) -> str:
        """Return the content for people and programs."""
        return msgspec.json.format(msgspec.json.encode(self.content), indent=2).decode()


class KpiBook:
    """Figures of one line from its database."""

    def __init__(self, site: Site, factory: Factory) -> None:
        """Raises SettingsError SETTINGS.INVALID for a calendar that cannot be."""
        self.shifts = Shifts(site.calendar)
        self._site = site
        self._factory = factory

    def write(self, window: Window, now: datetime, *, job: str = "", keep: bool = False) -> Written:
        """Count one window; `keep`: its revision goes on record, as that of a document that is published."""
        jobs = self._jobs()
        content = figures_of(self._factory, self._site.line, window, self._site.kpi, now=now, jobs=jobs, job=job)
        order = jobs.get(job)
        going = order is not None and order.dispatch_status not in ENDED
        if order is not None and going and order.due_at:
            content["takt_s"] = self._takt(order, content["total"].good, now)
        if now < window.end or going:
            return Written(window, content | {"revision": 0}, 0)
        key, told = (self._site.line, window.kind, window.name), digest(content)
        if keep:
            revision = self._factory.figures.keep_kpi_revision(key, told, now, complete=content["complete"])
        else:
            revision = self._factory.figures.kpi_revision(key, told)
        return Written(window, content | {"revision": revision}, revision)

    def present(self, now: datetime) -> Iterator[tuple[Window, str]]:
        """Give the windows whose documents stand on the bus, each with its job order or "".

        A shift stays until the next one has begun, a job order until work on another; what ended is in `ended`.
        """
        yield self.shifts.hour(now), ""
        if (shift := self.shifts.latest(now)) is not None:
            yield shift, ""
        if (last := self._factory.figures.last_job(self._site.line)) is not None:
            yield self._of_job(*last), last[0]

    def ended(self, now: datetime) -> list[Window]:
        """Return what ended lately, whose documents late events may change: hours of a day, shifts of two."""
        hours = [self.shifts.hour(now - timedelta(hours=number)) for number in range(24, 0, -1)]
        return [*hours, *(one for one in self.shifts.between(now - timedelta(days=2), now) if one.end <= now)]

    def job(self, job: str) -> Window | None:
        """Return the window of a job order; None when nothing was done for it."""
        times = self._factory.figures.job_times(job)
        return None if times is None else self._of_job(job, *times)

    def _of_job(self, job: str, began_at: str, ended_at: str) -> Window:
        start, end = parse_utc(began_at), parse_utc(ended_at) + timedelta(milliseconds=1)  # the last one ends in it
        return Window("job", job, start, end, self.shifts.breaks(start, end))

    def _takt(self, order: Job, good: int, now: datetime) -> float | None:
        """Return the seconds of planned work until the order is due for each unit it still wants."""
        try:
            due = parse_utc(order.due_at)
        except ValueError:
            return None
        ahead = Window("job", order.job_order_id, now, due, self.shifts.breaks(now, due)) if now < due else None
        return None if ahead is None else ratio(ahead.planned_s(due), order.quantity - good)

    def _jobs(self) -> dict[str, Job]:
        return {job.job_order_id: job for job in self._factory.jobs(self._site.line)}
