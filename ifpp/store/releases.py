"""Decisions of people on job orders, and what they are decided by: the units made so far."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ifpp.store.figure_tables import job_release
from ifpp.store.schema import unit_attempt
from ifpp.store.trail import Trail


@dataclass(frozen=True, slots=True)
class Release:
    """`decision` is RELEASE or REFUSE, for the `setup` (a name of the changeover; "" = the job order's first one).

    `evidence`: the units it was decided by.
    """

    job: str
    setup: str
    decision: str
    evidence: str
    by: str
    reason: str
    at: str = ""


@dataclass(frozen=True, slots=True)
class Article:
    """One attempt at a unit of a job order."""

    station: str
    head: str
    sn: str
    eid: str
    result: str
    ended_at: str


def add(connection: Connection, trail: Trail, release: Release) -> int:
    """See `FigureStore.release_job`."""
    number = len(of_job(connection, release.job)) + 1
    row = {
        "job_order_id": release.job,
        "number": number,
        "setup": release.setup,
        "decision": release.decision,
        "evidence": release.evidence,
        "told_by": release.by,
        "reason": release.reason,
        "at": trail.at,
    }
    connection.execute(job_release.insert(), [row])
    facts = {"job": release.job, "setup": release.setup, "decision": release.decision, "by": release.by}
    trail.note("job_release", **facts, reason=release.reason)
    return number


def of_job(connection: Connection, job: str) -> list[Release]:
    """See `FigureStore.job_releases`."""
    rows = connection.execute(
        select(job_release).where(job_release.c.job_order_id == job).order_by(job_release.c.number)
    )
    return [Release(job, r.setup, r.decision, r.evidence, r.told_by, r.reason, r.at) for r in rows]


def articles(connection: Connection, job: str) -> list[Article]:
    """See `FigureStore.shown_articles`."""
    a = unit_attempt.c
    wanted = select(a.node_id, a.head_id, a.sn, a.eid, a.result, a.ended_at)
    rows = connection.execute(wanted.where(a.job_order_id == job).order_by(a.ended_at, a.node_id, a.seq))
    return [Article(*row) for row in rows]
