"""How far the stock goes, by SKU and region, and taking a delivery out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from ifpp.errors import SupplyError
from ifpp.model.clock import utc_ms_text
from ifpp.model.states import PackageState
from ifpp.store import codes
from ifpp.store.schema import SHELVED, WITHDRAWN, batch, batch_count, package, package_result, withdrawal
from ifpp.store.trail import Trail

RATE_HOURS = 1.0
"""The present rate is that of so many hours."""

_AVAILABLE = package.c.state == PackageState.AVAILABLE
_GIVEN = (SHELVED, ~WITHDRAWN)
Product = tuple[str, str]
"""SKU and region."""


@dataclass(frozen=True, slots=True)
class StockLevel:
    """What units can be made of, and units an hour that were made lately.

    `chips`: those with a package that can be loaded, and the activation codes for any chip, which `codes` counts.
    """

    sku: str
    region: str
    chips: int
    units_an_hour: float
    codes: int = 0

    @property
    def hours(self) -> float | None:
        """How long it lasts at this rate; None while nothing is made."""
        return self.chips / self.units_an_hour if self.units_an_hour else None

    def low(self, hours: float) -> bool:
        """Whether it does not last so many hours."""
        return self.hours is not None and self.hours < hours


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A delivery that is not given out any more: `stopped` packages of it; `going_on` are with heads or were sent."""

    batch: int
    name: str
    at: str
    by: str
    reason: str
    stopped: int
    going_on: int
    new: bool


def levels(connection: Connection, now: datetime) -> list[StockLevel]:
    """Return the level of every SKU and region that was delivered. Reads every available package: not too often."""
    at, since = utc_ms_text(now), utc_ms_text(now - timedelta(hours=RATE_HOURS))
    chips = func.count(package.c.eid.distinct())
    valid = or_(package.c.expires_at.is_(None), package.c.expires_at > at)
    ready = _by_product(connection, select(package.c.sku, package.c.region, chips).where(_AVAILABLE, valid, *_GIVEN))
    made = select(package.c.sku, package.c.region, chips).join(
        package_result, package_result.c.package_id == package.c.package_id
    )
    lately = (package_result.c.taken_at > since, package_result.c.state == PackageState.INSTALLED)
    rate = _by_product(connection, made.where(*lately))
    products = connection.execute(select(batch_count.c.sku, batch_count.c.region).distinct())
    free = codes.ready(connection, at)
    return [
        StockLevel(
            *product,
            ready.get(product, 0) + free.get(product, 0),
            rate.get(product, 0) / RATE_HOURS,
            free.get(product, 0),
        )
        for product in sorted((row.sku, row.region) for row in products)
    ]


def suppliers(connection: Connection) -> dict[Product, list[str]]:
    """Return the SM-DPfs that have delivered for each SKU and region."""
    c = batch_count.c
    found: dict[Product, list[str]] = {}
    for sku, region, oid in connection.execute(select(c.sku, c.region, c.smdp_oid).distinct().order_by(c.smdp_oid)):
        found.setdefault((sku, region), []).append(oid)
    return found


def withdraw(connection: Connection, trail: Trail, name: str, by: str, reason: str) -> Withdrawn:
    """Give out no package of a delivery any more; the first word on it counts. Raises SupplyError BATCH.UNKNOWN.

    Packages that a head has already claimed or sent go their way.
    """
    number, name = _delivery(connection, name)
    known = connection.execute(select(withdrawal).where(withdrawal.c.batch == number)).one_or_none()
    if known is None:
        row = {"batch": number, "told_by": by, "reason": reason, "at": trail.at}
        connection.execute(withdrawal.insert(), [row])
        trail.note("withdrawn", batch=number, name=name, by=by, reason=reason)
        at = trail.at
    else:
        at, by, reason = known.at, known.told_by, known.reason
    idle = or_(_AVAILABLE, (package.c.state == PackageState.FAILED) & ~package.c.spent)
    going_on = package.c.state.in_((PackageState.CLAIMED, PackageState.SENT, PackageState.UNKNOWN))
    return Withdrawn(
        number,
        name,
        at,
        by,
        reason,
        _count(connection, number, idle) + codes.untied_of(connection, number),
        _count(connection, number, going_on),
        known is None,
    )


def _delivery(connection: Connection, name: str) -> tuple[int, str]:
    rows = connection.execute(select(batch.c.number, batch.c.name).where(batch.c.kind.in_(("esbpp", "codes")))).all()
    found = [row for row in rows if name in (row.name, str(row.number))]
    if len(found) != 1:
        detail = "several deliveries have this name: give its number" if found else "no delivery by this name"
        raise SupplyError("BATCH.UNKNOWN", detail, where=name[:64])
    return int(found[0].number), str(found[0].name)


def _count(connection: Connection, number: int, condition: ColumnElement[bool]) -> int:
    chosen = select(func.count()).select_from(package).where(package.c.batch == number, condition)
    return int(connection.execute(chosen).scalar_one())


def _by_product(connection: Connection, rows: Select[tuple[str, str, int]]) -> dict[Product, int]:
    grouped = connection.execute(rows.group_by(package.c.sku, package.c.region))
    return {(sku, region): int(number) for sku, region, number in grouped}
