"""Profile plans: which profiles a product gets, as data that people change and nobody erases.

A plan is for a SKU and region, or for those and one customer. Each change adds a version; the version in force is the
newest whose time has come and has not ended, so one that ends gives way to the one before it. A customer's plan goes
before the general one. A version without profiles says that there is no plan: everything delivered is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, or_, select

from ifpp.model.clock import utc_ms_text
from ifpp.store.schema import profile_plan
from ifpp.store.trail import Trail

_p = profile_plan.c


class Planned(msgspec.Struct, frozen=True, omit_defaults=True):
    """One profile of a plan; `smdp_oid` "" = from any SM-DPf."""

    profile_type: str
    smdp_oid: str = ""

    def fits(self, package: Row[Any]) -> bool:
        """Whether a package is this profile."""
        return bool(package.profile_type == self.profile_type and self.smdp_oid in ("", package.smdp_oid))

    def __str__(self) -> str:
        return f"{self.profile_type}@{self.smdp_oid}" if self.smdp_oid else self.profile_type


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a plan; the profiles are loaded in this order."""

    sku: str
    region: str
    customer: str
    version: int
    profiles: tuple[Planned, ...]
    from_at: str
    until_at: str | None
    by: str
    reason: str
    at: str

    @property
    def name(self) -> str:
        """How people call it."""
        return "/".join(word for word in (self.sku, self.region, self.customer) if word) + f" version {self.version}"


_profiles = msgspec.json.Decoder(tuple[Planned, ...])
_in_force = (
    select(profile_plan)
    .where(
        _p.sku == bindparam("sku"),
        _p.region == bindparam("region"),
        _p.customer.in_(bindparam("customers", expanding=True)),
        _p.from_at <= bindparam("now"),
        or_(_p.until_at.is_(None), _p.until_at > bindparam("now")),
    )
    .order_by(_p.version.desc())
)
_newest = select(func.max(_p.version)).where(
    _p.sku == bindparam("sku"), _p.region == bindparam("region"), _p.customer == bindparam("customer")
)


def in_force(connection: Connection, sku: str, region: str, customer: str, at: str) -> Plan | None:
    """Return the plan that holds at a time, the customer's own before the general one; None where there is none."""
    customers = sorted({customer, ""}, reverse=True)
    rows = connection.execute(_in_force, {"sku": sku, "region": region, "customers": customers, "now": at}).all()
    for one in customers:
        newest = next((row for row in rows if row.customer == one), None)
        if newest is not None and (plan := _plan(newest)).profiles:
            return plan
    return None


def history(connection: Connection) -> list[Plan]:
    """Return every version of every plan, each plan's newest first."""
    rows = connection.execute(select(profile_plan).order_by(_p.sku, _p.region, _p.customer, _p.version.desc()))
    return [_plan(row) for row in rows]


def change(
    connection: Connection,
    trail: Trail,
    product: tuple[str, str, str],
    profiles: Iterable[Planned],
    times: tuple[datetime, datetime | None],
    by: str,
    reason: str,
) -> Plan:
    """Add a version for (SKU, region, customer) that holds from the first of `times` to the second."""
    sku, region, customer = product
    key = {"sku": sku, "region": region, "customer": customer}
    version = int(connection.execute(_newest, key).scalar() or 0) + 1
    start, end = times
    until = None if end is None else utc_ms_text(end)
    plan = Plan(sku, region, customer, version, tuple(profiles), utc_ms_text(start), until, by, reason, trail.at)
    row = {
        "version": version,
        "profiles": msgspec.json.encode(plan.profiles).decode(),
        "from_at": plan.from_at,
        "until_at": until,
        "told_by": by,
        "reason": reason,
        "at": trail.at,
    }
    connection.execute(profile_plan.insert(), [key | row])
    listed = [str(one) for one in plan.profiles]
    who = {"by": by, "reason": reason}
    trail.note("plan", version=version, profiles=listed, from_at=plan.from_at, until_at=until, **key, **who)
    return plan


def _plan(row: Row[Any]) -> Plan:
    return Plan(
        row.sku,
        row.region,
        row.customer,
        row.version,
        _profiles.decode(row.profiles),
        row.from_at,
        row.until_at,
        row.told_by,
        row.reason,
        row.at,
    )
