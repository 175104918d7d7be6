"""Chips kept for one job order: nobody loads them for another one until that job has ended.

Packages are bound to chips, so what is reserved are chips. A job order has ended when its newest version says so;
nothing has to be done for its reservations then, they simply count no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select

from ifpp.errors import SupplyError
from ifpp.model.messages import Job
from ifpp.model.states import OPEN_STATES
from ifpp.store.schema import chip, job_order, package, reservation
from ifpp.store.trail import Trail

ENDED = frozenset({"COMPLETED", "ABORTED", "CANCELLED", "CLOSED"})
"""ISA-95 dispatch states from which a job order never returns."""

_PAGE = 500
_MAX_NAMED = 10

newest_job = (
    select(job_order.c.body)
    .where(job_order.c.job_order_id == bindparam("job_order_id"))
    .order_by(job_order.c.version.desc())
    .limit(1)
)
_lock_chips = (
    select(chip.c.eid, chip.c.clean_to_ship_at)
    .where(chip.c.eid.in_(bindparam("eids", expanding=True)))
    .order_by(chip.c.eid)
    .with_for_update(key_share=True)
)
_kept = select(reservation.c.eid, reservation.c.job_order_id).where(
    reservation.c.eid.in_(bindparam("eids", expanding=True))
)
_busy = select(package.c.eid, package.c.state).where(
    package.c.eid.in_(bindparam("eids", expanding=True)),
    package.c.state.in_(OPEN_STATES),
)
read_job = msgspec.json.Decoder(Job).decode


def running(connection: Connection, job_order_id: str) -> bool:
    """Whether a job order is known and has not ended."""
    body = connection.execute(newest_job, {"job_order_id": job_order_id}).scalar()
    return body is not None and read_job(body).dispatch_status not in ENDED


def kept_for(connection: Connection) -> dict[str, int]:
    """Return how many chips each job order that has not ended keeps."""
    counted = select(reservation.c.job_order_id, func.count()).group_by(reservation.c.job_order_id)
    return {job: number for job, number in connection.execute(counted) if running(connection, job)}


def keeper(connection: Connection, eid: str) -> str:
    """Return the job order a chip is kept for; "" when there is none, or it has ended."""
    job = connection.execute(_kept, {"eids": [eid]}).first()
    return job.job_order_id if job is not None and running(connection, job.job_order_id) else ""


def reserve(connection: Connection, trail: Trail, job_order_id: str, eids: Iterable[str], by: str, reason: str) -> int:
    """Keep chips for a job order, all or none; return how many were not kept for it before.

    Raises SupplyError JOB.UNKNOWN, and RESERVATION.REFUSED naming the first chips that cannot be kept: unknown,
    finished, with a head at this moment, or kept for another job order.
    """
    if not running(connection, job_order_id):
        raise SupplyError("JOB.UNKNOWN", "no such job order, or it has ended", where=job_order_id[:64])
    wanted = sorted(set(eids))
    alive: dict[str, bool] = {job_order_id: True}
    refused: list[str] = []
    fresh: list[str] = []
    for start in range(0, len(wanted), _PAGE):
        page = wanted[start : start + _PAGE]
        ours, bad = _judge(connection, job_order_id, page, alive)
        refused += bad
        fresh += [eid for eid in page if eid not in ours]
    if refused:
        more = f" and {len(refused) - _MAX_NAMED} more" if len(refused) > _MAX_NAMED else ""
        raise SupplyError("RESERVATION.REFUSED", "; ".join(refused[:_MAX_NAMED]) + more, where=job_order_id)
    for start in range(0, len(fresh), _PAGE):
        page = fresh[start : start + _PAGE]
        connection.execute(delete(reservation).where(reservation.c.eid.in_(page)))  # of jobs that have ended
        rows = [{"eid": eid, "job_order_id": job_order_id, "at": trail.at} for eid in page]
        connection.execute(reservation.insert(), rows)
    if fresh:
        digest = sha256(",".join(fresh).encode()).hexdigest()
        trail.note("reserved", job=job_order_id, chips=len(fresh), sha256=digest, by=by, reason=reason)
    return len(fresh)


def free(connection: Connection, trail: Trail, job_order_id: str, by: str, reason: str) -> int:
    """Keep no chip for a job order any more; return how many there were."""
    gone = delete(reservation).where(reservation.c.job_order_id == job_order_id)
    number = connection.execute(gone).rowcount
    if number:
        trail.note("unreserved", job=job_order_id, chips=number, by=by, reason=reason)
    return number


def _judge(
    connection: Connection, job_order_id: str, eids: Sequence[str], alive: dict[str, bool]
) -> tuple[set[str], list[str]]:
    """Return which of these chips the job order keeps already, and what speaks against others."""
    known = {row.eid: row.clean_to_ship_at for row in connection.execute(_lock_chips, {"eids": eids})}
    kept = {row.eid: row.job_order_id for row in connection.execute(_kept, {"eids": eids})}
    busy = {row.eid: row.state for row in connection.execute(_busy, {"eids": eids})}
    bad = []
    for eid in eids:
        holder = kept.get(eid, job_order_id)
        if holder not in alive:
            alive[holder] = running(connection, holder)
        if eid not in known:
            bad.append(f"{eid[:64]} is not in the store")
        elif known[eid] is not None:
            bad.append(f"{eid} is clean to ship since {known[eid]}")
        elif holder != job_order_id and alive[holder]:
            bad.append(f"{eid} is kept for {holder}")
        elif eid in busy and eid not in kept:
            bad.append(f"{eid} has a package that is {busy[eid]}")
    return {eid for eid in eids if kept.get(eid) == job_order_id}, bad
