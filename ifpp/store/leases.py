"""Claims that stations made ahead, to work without the store: which chips there are for that, and how they stand.

A claim made ahead is one like every other, with CACHE_HEAD for its head and a long lease, kept longer by the store than
it told the station. Any head of its station takes it over; the lease stays as long as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BindParameter, Connection, bindparam, exists, or_, select, text

from ifpp.model.messages import ExpectedAnswer, ExpectedQuestion, LeaseAnswer
from ifpp.model.states import PackageState
from ifpp.store.schema import SHELVED, WITHDRAWN, chip, package, reservation

PAGE = 100
_CLAIMED = package.c.state == text("'CLAIMED'")
_AVAILABLE = package.c.state == text("'AVAILABLE'")
_ids: BindParameter[str] = bindparam("leases", expanding=True)
_standing = (
    select(package.c.attempt_id, WITHDRAWN.label("withdrawn"))
    .where(package.c.attempt_id.in_(_ids), _CLAIMED, package.c.node_id == bindparam("station_id"))
    .order_by(package.c.attempt_id)
)
_other = package.alias("other")
_busy = exists().where(
    _other.c.eid == package.c.eid,
    _other.c.state.in_((PackageState.CLAIMED, PackageState.SENT, PackageState.UNKNOWN)),
)
_kept_for_us = exists().where(reservation.c.eid == package.c.eid, reservation.c.job_order_id == bindparam("job"))
_kept = exists().where(reservation.c.eid == package.c.eid)
_expected = (
    select(package.c.eid)
    .distinct()
    .join(chip, chip.c.eid == package.c.eid)
    .where(
        package.c.sku == bindparam("sku"),
        package.c.region == bindparam("region"),
        package.c.eid > bindparam("after"),
        or_(package.c.expires_at.is_(None), package.c.expires_at > bindparam("at")),
        chip.c.clean_to_ship_at.is_(None),
        _AVAILABLE,
        package.c.bpp_bytes > 0,
        SHELVED,
        ~WITHDRAWN,
        ~_busy,
    )
    .order_by(package.c.eid)
    .limit(PAGE)
)
_reserved = select(exists().where(reservation.c.job_order_id == bindparam("job")))


def standing(connection: Connection, station_id: str, leases: Sequence[str]) -> LeaseAnswer:
    """Say which of these claims of a station still hold packages on their way to a head, and which were withdrawn."""
    rows = connection.execute(_standing, {"station_id": station_id, "leases": list(leases)}).all()
    held = dict.fromkeys(row.attempt_id for row in rows)
    withdrawn = dict.fromkeys(row.attempt_id for row in rows if row.withdrawn)
    return LeaseAnswer(held=list(held), withdrawn=list(withdrawn))


def expected(connection: Connection, question: ExpectedQuestion, at: str) -> ExpectedAnswer:
    """Return chips that may be claimed ahead; where the job order has reserved some, only those."""
    job = question.job_order_id
    wanted = {"sku": question.sku, "region": question.region, "after": question.after, "at": at}
    ours = bool(job) and bool(connection.execute(_reserved, {"job": job}).scalar())
    query = _expected.where(_kept_for_us) if ours else _expected.where(~_kept)
    values = wanted | ({"job": job} if ours else {})
    return ExpectedAnswer(eids=list(connection.execute(query, values).scalars()))
