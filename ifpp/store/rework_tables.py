"""Tables of rework: which packages' profiles are to leave their chip again, and what the chips said (SGP.41 A.4)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    Text,
    exists,
)

from ifpp.store.schema import metadata, package


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


# `sku`, `region`: what the unit is to become, "" = stock; `sealed`: it was clean to ship, so it can never be again.
rework_order = Table(
    "rework_order",
    metadata,
    Column("rework_id", Text, primary_key=True),
    Column("eid", ForeignKey("chip.eid"), nullable=False),
    _text("sku"),
    _text("region"),
    Column("sealed", Boolean, nullable=False),
    _text("told_by"),
    _text("reason"),
    _text("at"),
)
Index("ix_rework_order_eid", rework_order.c.eid)

# The profiles an order has removed; each package is loaded once and removed once.
rework_package = Table(
    "rework_package",
    metadata,
    Column("package_id", ForeignKey("package.package_id"), primary_key=True),
    Column("rework_id", ForeignKey("rework_order.rework_id"), nullable=False),
)
Index("ix_rework_package_rework_id", rework_package.c.rework_id)

# What a station said of a removal. Its package stays INSTALLED in the ledger: that it was is history.
removal = Table(
    "removal",
    metadata,
    Column("package_id", ForeignKey("rework_package.package_id"), primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("gone", Boolean, nullable=False),
    Column("result", BigInteger),
    _text("reason"),
    Column("notification", LargeBinary),
    _text("at"),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
)
Index(
    "ux_removal_gone", removal.c.package_id, unique=True, sqlite_where=removal.c.gone, postgresql_where=removal.c.gone
)

KEPT = ("rework_order", "rework_package", "removal")

LEAVING = exists().where(rework_package.c.package_id == package.c.package_id)
"""Of a package: its profile has left the chip, or is to."""
GONE = exists().where(removal.c.package_id == package.c.package_id, removal.c.gone)
"""Of a package: its profile has left the chip."""
