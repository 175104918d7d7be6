"""What the books say of a group of claims, read with one statement a table for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, Row, bindparam, select

from ifpp.model.messages import ClaimRequest, Job
from ifpp.store import travellers
from ifpp.store.code_tables import code
from ifpp.store.codes import CODE, Desk
from ifpp.store.plans import Plan, in_force
from ifpp.store.reservations import newest_job, read_job
from ifpp.store.rework_tables import GONE, LEAVING
from ifpp.store.schema import SHELVED, WITHDRAWN, chip, claim, package, reservation, unit_attempt

_Row = Row[Any]


def _several(name: str) -> BindParameter[str]:
    return bindparam(name, expanding=True)


# Locked in one order everywhere, so that the groups of two processes wait for each other and never in a circle.
_lock_chips = (
    select(
        chip.c.eid,
        chip.c.certificate,
        chip.c.chain_id,
        chip.c.clean_to_ship_at,
        select(reservation.c.job_order_id).where(reservation.c.eid == chip.c.eid).scalar_subquery().label("kept_for"),
    )
    .where(chip.c.eid.in_(_several("eids")))
    .order_by(chip.c.eid)
    .with_for_update(key_share=True)
)
_lock_attempts = (
    select(claim)
    .where(claim.c.attempt_id.in_(_several("attempts")))
    .order_by(claim.c.attempt_id)
    .with_for_update(key_share=True)
)
_reported = select(unit_attempt.c.transaction_id).where(unit_attempt.c.transaction_id.in_(_several("attempts")))
PACKAGES = (
    select(package, WITHDRAWN.label("withdrawn"), LEAVING.label("leaving"), GONE.label("gone"), *CODE)
    .outerjoin(code, code.c.package_id == package.c.package_id)
    .where(package.c.eid.in_(_several("eids")), SHELVED)
    .order_by(package.c.eid, package.c.package_id)
)
_lock_packages = PACKAGES.with_for_update(key_share=True, of=package)
_job = select(newest_job.scalar_subquery().label("body"), travellers.OF_JOB.label("travels"))


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The newest version of a job order, None when nobody knows it, and whether it has travellers."""

    job: Job | None
    travels: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Chips by EID, packages by EID in order, attempts by id, and so on; all of it locked that a claim changes."""

    chips: dict[str, _Row]
    packages: dict[str, list[_Row]]
    attempts: dict[str, _Row]
    reported: frozenset[str]
    jobs: dict[str, JobFacts]
    plans: dict[tuple[str, str, str], Plan | None]
    travelling: frozenset[tuple[str, str]]
    codes: Desk


def read(connection: Connection, requests: Sequence[ClaimRequest], at: str) -> Facts:
    """Read what claims of different chips and attempts are judged by."""
    eids = sorted({one.eid for one in requests})
    attempts = {"attempts": sorted({one.attempt_id for one in requests})}
    chips = {row.eid: row for row in connection.execute(_lock_chips, {"eids": eids})}
    known = {row.attempt_id: row for row in connection.execute(_lock_attempts, attempts)}
    packages: dict[str, list[_Row]] = {eid: [] for eid in eids}
    for row in connection.execute(_lock_packages, {"eids": eids}):
        packages[row.eid].append(row)
    return Facts(
        chips=chips,
        packages=packages,
        attempts=known,
        reported=frozenset(connection.execute(_reported, attempts).scalars()),
        jobs={name: _read_job(connection, name) for name in {one.job_order_id for one in requests}},
        plans={key: in_force(connection, *key, at) for key in _products(requests)},
        travelling=travellers.known(connection, [(one.sn, one.eid) for one in requests]),
        codes=Desk(connection, at),
    )


def _read_job(connection: Connection, job_order_id: str) -> JobFacts:
    row = connection.execute(_job, {"job_order_id": job_order_id}).one()
    return JobFacts(None if row.body is None else read_job(row.body), bool(row.travels))


def _products(requests: Iterable[ClaimRequest]) -> set[tuple[str, str, str]]:
    return {(one.sku, one.region, one.customer) for one in requests}
