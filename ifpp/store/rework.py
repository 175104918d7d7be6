"""Rework (SGP.41 annex A.4): profiles leave a chip again, with evidence, and the unit becomes something else.

An order names all profiles of a chip. The next claim of the chip tells the station which to remove; what the chip says
of it is kept in `removal`. The ledger does not move: that a package was installed stays true.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, select

from ifpp.errors import CustodyError, SupplyError
from ifpp.model.clock import uuid7
from ifpp.model.states import OPEN_STATES, PackageState
from ifpp.store.database import Database
from ifpp.store.records import RemovalRow, ReworkRow
from ifpp.store.rework_tables import GONE, LEAVING, removal, rework_order, rework_package
from ifpp.store.schema import chip, package
from ifpp.store.trail import Trail

_lock_chip = (
    select(chip.c.eid, chip.c.clean_to_ship_at).where(chip.c.eid == bindparam("eid")).with_for_update(key_share=True)
)
_packages = (
    select(package.c.package_id, package.c.iccid, package.c.state, LEAVING.label("leaving"), GONE.label("gone"))
    .where(package.c.eid == bindparam("eid"))
    .order_by(package.c.package_id)
)
_orders = select(rework_order).where(rework_order.c.eid == bindparam("eid")).order_by(rework_order.c.at.desc()).limit(1)
_sealed = select(exists().where(rework_order.c.eid == bindparam("eid"), rework_order.c.sealed))
_pending = (
    select(rework_package.c.package_id)
    .join(package, package.c.package_id == rework_package.c.package_id)
    .where(package.c.eid.in_(bindparam("eids", expanding=True)), ~GONE)
)
_gone = select(package.c.package_id).where(package.c.eid.in_(bindparam("eids", expanding=True)), GONE)


class ReworkStore:
    """Part of a `Factory`: methods block for one short transaction and may be called from any thread."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing

    def order(self, eid: str, sku: str, region: str, by: str, reason: str, now: datetime) -> ReworkRow:
        """Order that every profile of a chip is removed; `sku` and `region` both or none.

        Raises SupplyError EID.UNKNOWN, CustodyError REWORK.OPEN_PACKAGE, REWORK.NOTHING, REWORK.OPEN.
        """
        with self._writing(now) as (connection, trail):
            rework_id = order(connection, trail, (eid, sku, region, by, reason), uuid7(now))
            (row,) = rows(connection, rework_order.c.rework_id == rework_id)
        return row

    def orders(self) -> list[ReworkRow]:
        """Return every rework order, oldest first."""
        with self._database.read() as connection:
            return rows(connection)


def order(connection: Connection, trail: Trail, wanted: tuple[str, str, str, str, str], rework_id: str) -> str:
    """See `ReworkStore.order`."""
    eid, sku, region, by, reason = wanted
    known = connection.execute(_lock_chip, {"eid": eid}).one_or_none()
    if known is None:
        raise SupplyError("EID.UNKNOWN", "the store has no eUICC data for it", where=eid[:64])
    packages = connection.execute(_packages, {"eid": eid}).all()
    still_open = [row.iccid for row in packages if row.state in OPEN_STATES]
    if still_open:
        raise CustodyError("REWORK.OPEN_PACKAGE", f"ICCID {', '.join(still_open)} is not settled", where=eid)
    if any(row.leaving and not row.gone for row in packages):
        raise CustodyError("REWORK.OPEN", "it has a rework order already", where=eid)
    leaving = [row.package_id for row in packages if row.state == PackageState.INSTALLED and not row.leaving]
    if not leaving:
        raise CustodyError("REWORK.NOTHING", "no profile is on its chip", where=eid)
    facts: dict[str, Any] = {"eid": eid, "sku": sku, "region": region, "sealed": known.clean_to_ship_at is not None}
    who = {"told_by": by, "reason": reason, "at": trail.at}
    connection.execute(rework_order.insert(), [{"rework_id": rework_id, **facts, **who}])
    connection.execute(
        rework_package.insert(), [{"package_id": package_id, "rework_id": rework_id} for package_id in leaving]
    )
    trail.note("rework", rework=rework_id, packages=leaving, by=by, reason=reason, **facts)
    return rework_id


def rows(connection: Connection, *where: Any) -> list[ReworkRow]:
    """Return rework orders and how far they have come, oldest first."""
    o, named = rework_order.c, rework_package.c.rework_id == rework_order.c.rework_id
    mine = rework_package.join(package, package.c.package_id == rework_package.c.package_id)
    total = select(func.count()).select_from(rework_package).where(named).scalar_subquery()
    gone = select(func.count()).select_from(mine).where(named, GONE).scalar_subquery()
    refused = exists().where(removal.c.package_id == rework_package.c.package_id, ~removal.c.gone)
    failed = exists(select(1).select_from(mine).where(named, ~GONE, refused))
    p = package.c
    of_this = exists().where(rework_package.c.package_id == p.package_id, named)
    product = (p.eid == o.eid) & (p.sku == o.sku) & (p.region == o.region)
    fresh = exists().where(product, p.state == PackageState.INSTALLED, p.changed_at >= o.at, ~of_this)
    found = select(rework_order, total, gone, failed, fresh).where(*where).order_by(o.at, o.rework_id)
    return [
        ReworkRow(**dict(zip(ReworkRow.__slots__, row, strict=True)))
        for row in ([row[0], *row[1:]] for row in connection.execute(found))
    ]


def removals(connection: Connection, eid: str) -> dict[str, RemovalRow]:
    """Return which packages of a chip were removed, by package."""
    r = removal.c
    found = (
        select(r.package_id, rework_package.c.rework_id, r.at, r.node_id, r.seq, r.result, r.notification)
        .join(rework_package, rework_package.c.package_id == r.package_id)
        .join(package, package.c.package_id == r.package_id)
        .where(package.c.eid == eid, r.gone)
    )
    return {
        row.package_id: RemovalRow(
            row.package_id,
            row.rework_id,
            row.at,
            row.node_id,
            row.seq,
            row.result,
            b64encode(row.notification or b"").decode(),
        )
        for row in connection.execute(found)
    }


def newest(connection: Connection, eid: str) -> Any | None:
    """Return the newest rework order of a chip, or None."""
    return connection.execute(_orders, {"eid": eid}).one_or_none()


def was_sealed(connection: Connection, eid: str) -> bool:
    """Whether a chip was reworked after it was sealed: it can only be emptied, and never leaves as a product."""
    return bool(connection.execute(_sealed, {"eid": eid}).scalar())


def leaving(connection: Connection, eids: list[str]) -> tuple[set[str], set[str]]:
    """Return the packages of these chips that are still to be removed, and those that were."""
    asked = {"eids": eids}
    return set(connection.execute(_pending, asked).scalars()), set(connection.execute(_gone, asked).scalars())


def misplaced(connection: Connection) -> list[str]:
    """Prove the removals: none is of a package that never was installed."""
    wrong = select(package.c.package_id).where(GONE, package.c.state != PackageState.INSTALLED)
    return [f"package {name}: removed, but never installed" for name in connection.execute(wrong).scalars()]
