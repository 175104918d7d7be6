"""Quota: signed production orders limit how many units of a SKU are called clean to ship.

Rules, applied in the transaction that seals a unit, under a lock on the orders of its SKU:
  1. The highest version of an order counts; it holds from its beginning to its end, by the time of the settlement.
  2. A SKU that has an order is limited by its orders for ever. One that has none is not, unless the site wants one.
  3. A unit takes the next number of the oldest order in force that has one left, once; a unit that is clean to ship
     already takes none, however often it comes.
  4. Where no order has a number left, the unit is not clean to ship. It may be seated again under a further order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from ifpp.errors import CustodyError, IntakeError
from ifpp.store.quota_tables import production_order, quota_unit
from ifpp.store.schema import package
from ifpp.store.trail import Trail
from ifpp.wire.production_order import ProductionOrder, stamp

_order = production_order.c
_skus = select(package.c.eid, package.c.sku).where(package.c.eid.in_(bindparam("eids", expanding=True))).distinct()
_orders = (
    select(_order.order_id, _order.version, _order.sku, _order.quantity, _order.from_at, _order.until_at)
    .where(_order.sku.in_(bindparam("skus", expanding=True)))
    .order_by(_order.order_id, _order.version)
)
_used = (
    select(quota_unit.c.order_id, func.max(quota_unit.c.number))
    .where(quota_unit.c.order_id.in_(bindparam("ids", expanding=True)))
    .group_by(quota_unit.c.order_id)
)
_versions = select(production_order).where(_order.order_id == bindparam("order_id")).order_by(_order.version.desc())


@dataclass(slots=True)
class OrderRow:
    """An order as it stands; `used` units are counted against it."""

    order_id: str
    version: int
    sku: str
    quantity: int
    from_at: str
    until_at: str
    used: int = 0

    def holds(self, at: str) -> bool:
        """Whether it is in force at a time."""
        return self.from_at <= at < self.until_at


@dataclass(slots=True)
class Quota:
    """The orders of a chunk's SKUs, kept up to date while it is planned."""

    at: str = ""
    required: bool = False
    sku_of: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[OrderRow]] = field(default_factory=dict)

    def take(self, eid: str) -> OrderRow | None:
        """Count a unit; return the order it takes its number (`used`) from, None where nothing limits it.

        Raises CustodyError GATE.QUOTA.
        """
        sku = self.sku_of.get(eid, "")
        orders = self.orders.get(sku, [])
        if not orders and not self.required:
            return None
        for order in orders:
            if order.holds(self.at) and order.used < order.quantity:
                order.used += 1
                return order
        raise CustodyError("GATE.QUOTA", why_none(sku, orders, self.at))


def look_up(connection: Connection, eids: Sequence[str], at: str, *, required: bool, lock: bool = True) -> Quota:
    """Read the orders for these chips, and keep them locked."""
    sku_of = {row.eid: row.sku for row in connection.execute(_skus, {"eids": list(eids)})} if eids else {}
    return Quota(at, required, sku_of, _standing(connection, sorted(set(sku_of.values())), lock=lock))


def why_none(sku: str, orders: Sequence[OrderRow], at: str) -> str:
    """Say in words why no unit of a SKU may be sealed."""
    if not orders:
        return f"SKU {sku[:64]!r} has no signed production order"
    words = [
        f"{order.order_id} {order.used} of {order.quantity} used"
        if order.holds(at)
        else f"{order.order_id} not in force"
        for order in orders
    ]
    return f"SKU {sku[:64]!r}: {', '.join(words)}"[:200]


def count_row(order: OrderRow, eid: str, event_id: str, at: str) -> dict[str, Any]:
    """Return the row that counts a unit under the number it took."""
    row = {"eid": eid, "order_id": order.order_id, "version": order.version, "number": order.used}
    return row | {"event_id": event_id, "at": at}


def exhausted(connection: Connection, eid: str, at: str, *, required: bool) -> str:
    """Return why the quota would not let a chip pass now, "" when it would."""
    try:
        look_up(connection, [eid], at, required=required, lock=False).take(eid)
    except CustodyError as error:
        return error.detail
    return ""


def add(connection: Connection, trail: Trail, order: ProductionOrder, key_id: str, document: bytes) -> bool:
    """Take a verified order; False when just this was taken before. Raises IntakeError QUOTA.STALE, QUOTA.CONFLICT."""
    known = connection.execute(_versions, {"order_id": order.order_id}).first()
    digest = sha256(order.message()).hexdigest()
    if known is not None:
        if order.version < known.version:
            raise IntakeError("QUOTA.STALE", f"version {known.version} is known", where=order.order_id)
        if order.version == known.version:
            if known.sha256 == digest:
                return False
            raise IntakeError("QUOTA.CONFLICT", "this version is known with other content", where=order.order_id)
        if known.sku != order.sku:
            raise IntakeError("QUOTA.CONFLICT", f"it is an order for SKU {known.sku}", where=order.order_id)
    row = {
        "order_id": order.order_id,
        "version": order.version,
        "sku": order.sku,
        "quantity": order.quantity,
        "from_at": stamp(order.from_at),
        "until_at": stamp(order.until_at),
        "key_id": key_id,
        "sha256": digest,
    }
    connection.execute(production_order.insert(), [row | {"document": document, "taken_at": trail.at}])
    facts: dict[str, Any] = {
        name: row[name] for name in ("version", "sku", "quantity", "from_at", "until_at", "key_id", "sha256")
    }
    trail.note("production_order", order=order.order_id, **facts)
    return True


def standing(connection: Connection) -> list[OrderRow]:
    """Return every order in its highest version, by SKU and beginning."""
    skus = sorted(connection.execute(select(_order.sku).distinct()).scalars())
    found = _standing(connection, skus, lock=False)
    return [order for sku in skus for order in found[sku]]


def check(connection: Connection) -> list[str]:
    """Return in words where the count of an order is not what its units add up to."""
    u = quota_unit.c
    rows = connection.execute(select(u.order_id, func.count(), func.max(u.number)).group_by(u.order_id))
    return [
        f"production order {order_id}: {number} units counted, the last has number {last}"
        for order_id, number, last in rows
        if number != last
    ]


def _standing(connection: Connection, skus: Sequence[str], *, lock: bool = True) -> dict[str, list[OrderRow]]:
    if not skus:
        return {}
    newest: dict[str, OrderRow] = {}
    for row in connection.execute(_orders.with_for_update() if lock else _orders, {"skus": list(skus)}):
        newest[row.order_id] = OrderRow(*row)
    for order_id, used in connection.execute(_used, {"ids": list(newest)}) if newest else ():
        newest[order_id].used = used
    by_sku: dict[str, list[OrderRow]] = defaultdict(list)
    for order in sorted(newest.values(), key=lambda order: (order.from_at, order.order_id)):
        by_sku[order.sku].append(order)
    return dict(by_sku)
