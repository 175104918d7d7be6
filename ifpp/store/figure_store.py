"""The line's figures in the factory database: what they are made of, revisions, loads, limits of charts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection

from ifpp.model.clock import utc_ms_text
from ifpp.store import cycles, figures, loads, releases, revisions
from ifpp.store.database import Database
from ifpp.store.slices import Kept
from ifpp.store.trail import Trail


class FigureStore:
    """Part of a `Factory`: methods block for one short transaction and may be called from any thread."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing
        self._kept = Kept()

    def count(self, asked: figures.Asked) -> figures.Counted:
        """Return what the figures of one window are made of."""
        with self._database.read() as connection:
            return figures.count(connection, asked, self._kept)

    def worked(self, line: str, start: datetime, end: datetime) -> cycles.Worked:
        """Return every work cycle of a line that ended in [start, end), and the changes of units between them."""
        with self._database.read() as connection:
            return cycles.between(connection, line, start, end)

    def last_end(self, line: str) -> datetime | None:
        """Return when the last work cycle of a line ended; None when there was none."""
        with self._database.read() as connection:
            return cycles.last_end(connection, line)

    def last_job(self, line: str) -> tuple[str, str, str] | None:
        """Return the job order a line worked on last, when its first attempt began, and when its last one ended."""
        with self._database.read() as connection:
            job = figures.last_job(connection, line)
            times = figures.job_times(connection, job) if job else None
        return None if times is None else (job, *times)

    def job_times(self, job: str) -> tuple[str, str] | None:
        """Return when the first attempt of a job order began and the last ended; None when there is none."""
        with self._database.read() as connection:
            return figures.job_times(connection, job)

    def events_mark(self) -> int:
        """Return a number that grows with every event taken."""
        with self._database.read() as connection:
            return figures.mark(connection)

    def kpi_revision(self, key: revisions.Key, sha256: str) -> int:
        """Return the revision a document of an ended window has, or would get."""
        with self._database.read() as connection:
            return revisions.of(connection, key, sha256)

    def keep_kpi_revision(self, key: revisions.Key, sha256: str, now: datetime, *, complete: bool) -> int:
        """Keep the document of an ended window by its digest; return its revision, from 1."""
        with self._database.write() as connection:
            return revisions.keep(connection, key, sha256, utc_ms_text(now), complete=complete)

    def load_times(self, line: str, start: datetime, end: datetime) -> list[loads.Load]:
        """Return every measured load of a line that ended in [start, end), in order."""
        with self._database.read() as connection:
            return loads.between(connection, line, utc_ms_text(start), utc_ms_text(end))

    def new_loads(self, line: str, after: Mapping[str, int]) -> loads.NewLoads:
        """Return the loads of a line's stations behind these numbers of events; of one not named, its newest loads.

        A page at a time: what is left comes with the next call.
        """
        with self._database.read() as connection:
            return loads.newer(connection, line, after)

    def chart_limits(self, line: str) -> dict[str, loads.Frozen]:
        """Return the newest frozen limits of each stratum."""
        with self._database.read() as connection:
            return loads.newest_limits(connection, line)

    def freeze_limits(self, line: str, limits: loads.Frozen, by: str, reason: str, now: datetime) -> int:
        """Freeze limits as the next version of their stratum; return the version."""
        with self._writing(now) as (connection, trail):
            return loads.freeze(connection, trail, line, limits, by, reason)

    def release_job(self, release: releases.Release, now: datetime) -> int:
        """Keep a person's decision on a job order; return its number."""
        with self._writing(now) as (connection, trail):
            return releases.add(connection, trail, release)

    def job_releases(self, job: str) -> list[releases.Release]:
        """Return the decisions on a job order, oldest first."""
        with self._database.read() as connection:
            return releases.of_job(connection, job)

    def shown_articles(self, job: str) -> list[releases.Article]:
        """Return the attempts at units of a job order, oldest first."""
        with self._database.read() as connection:
            return releases.articles(connection, job)
