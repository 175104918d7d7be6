"""The desired state: which job order this station works on, as the line last said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ifpp.model.messages import FirstArticles, Job, JobState

_WORKING = frozenset({"READY", "RUNNING"})


class Jobs:
    """Holds the job for this station; the line's retained document replaces it at any time.

    `heard`: the line has said something since this process began.
    """

    def __init__(self, station_id: str) -> None:
        self._station_id = station_id
        self._job: Job | None = None
        self._changed = asyncio.Event()
        self._first: dict[str, FirstArticles] = {}
        self._begun: dict[str, int] = {}
        self.heard = False

    def update(self, state: JobState) -> None:
        """Take the line's document: of the jobs in work that name this station, or none, the most urgent."""
        mine = [job for job in state.jobs if not job.stations or self._station_id in job.stations]
        working = [job for job in mine if job.dispatch_status in _WORKING]
        self._job = min(working, key=lambda job: (-job.priority, job.due_at or "~"), default=None)
        for name, before in self._first.items():  # attempts that the line knows now are in its numbers
            known = state.first_articles[name].made.get(self._station_id, 0) if name in state.first_articles else 0
            begun = self._begun.get(name, 0) - max(0, known - before.made.get(self._station_id, 0))
            self._begun[name] = max(0, begun)
        self._first = state.first_articles
        self.heard = True
        self._changed.set()
        self._changed = asyncio.Event()

    async def current(self, wait_s: float = 0.5) -> Job | None:
        """Return the job to work on; waits up to `wait_s` for one to come."""
        if self._job is None:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self._job

    def waits(self, job: Job) -> bool:
        """Whether this station has shown what it makes, or is about to, and a person has still to release it."""
        first = self._first.get(job.job_order_id)
        if first is None:
            return False
        return first.left.get(self._station_id, first.wanted) <= self._begun.get(job.job_order_id, 0)

    def begin(self, job: Job) -> bool:
        """Count a unit of a job that is not open for series; False when none may be begun now."""
        if self.waits(job):
            return False
        if job.job_order_id in self._first:
            self._begun[job.job_order_id] = self._begun.get(job.job_order_id, 0) + 1
        return True

    def changed(self) -> Awaitable[object]:
        """What is over with the first word of the line after this call."""
        return self._changed.wait()

    @property
    def job_order_id(self) -> str:
        """Id of the job in work, "" when there is none."""
        return "" if self._job is None else self._job.job_order_id
