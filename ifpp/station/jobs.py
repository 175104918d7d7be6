"""The desired state: which job order this station works on, as the line last said."""

from __future__ import annotations

import asyncio

from ifpp.model.messages import Job, JobState

_WORKING = frozenset({"READY", "RUNNING"})


class Jobs:
    """Holds the job for this station; the line's retained document replaces it at any time.

    `heard`: the line has said something since this process began.
    """

    def __init__(self, station_id: str) -> None:
        self._station_id = station_id
        self._job: Job | None = None
        self._changed = asyncio.Event()
        self.heard = False

    def update(self, state: JobState) -> None:
        """Take the line's document: of the jobs in work that name this station, or none, the most urgent."""
        mine = [job for job in state.jobs if not job.stations or self._station_id in job.stations]
        working = [job for job in mine if job.dispatch_status in _WORKING]
        self._job = min(working, key=lambda job: (-job.priority, job.due_at or "~"), default=None)
        self.heard = True
        self._changed.set()

    async def current(self, wait_s: float = 0.5) -> Job | None:
        """Return the job to work on; waits up to `wait_s` for one to come."""
        if self._job is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self._job

    @property
    def job_order_id(self) -> str:
        """Id of the job in work, "" when there is none."""
        return "" if self._job is None else self._job.job_order_id
