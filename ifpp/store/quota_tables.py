"""Tables of signed production orders; what they allow and who was counted is in `ifpp.store.quota`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from ifpp.store.schema import metadata


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


# Every version of every order, with the document that was signed; the highest version counts.
production_order = Table(
    "production_order",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _text("sku"),
    Column("quantity", BigInteger, nullable=False),
    _text("from_at"),
    _text("until_at"),
    _text("key_id"),
    _text("sha256"),
    Column("document", LargeBinary, nullable=False),
    _text("taken_at"),
)
Index("ix_production_order_sku", production_order.c.sku)

# A unit counts once, and a number of an order is given once: whatever a program does wrong, no order is overdrawn.
quota_unit = Table(
    "quota_unit",
    metadata,
    Column("eid", ForeignKey("chip.eid"), primary_key=True),
    _text("order_id"),
    Column("version", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    _text("event_id"),
    _text("at"),
    UniqueConstraint("order_id", "number"),
    ForeignKeyConstraint(["order_id", "version"], ["production_order.order_id", "production_order.version"]),
)

KEPT = ("production_order", "quota_unit")
