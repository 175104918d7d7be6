"""The table of activation codes (SGP.22 4.1): stock that is for no chip until a claim ties it to one.

A tied code is a package of its chip like any other, one without bytes, and takes its steps in the same ledger. Which
package that is stands in `package_id`, how many it has been in `ties`; a code may be tied anew only when its last
package was destroyed before anything of it can have been spent, which the database checks itself.
"""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from ifpp.store.schema import metadata, otk


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


code = Table(
    "code",
    metadata,
    Column("code_id", Text, primary_key=True),
    Column("batch", ForeignKey("batch.number"), nullable=False),
    _text("address"),
    _text("oid"),  # of the only SM-DP+ it may be taken from, "" = any at the address
    _text("matching_id"),
    _text("confirmation_code"),  # "" = none is asked for
    _text("sku"),
    _text("region"),
    _text("profile_type"),
    _text("expires_at", null=True),
    # what a claim changes
    Column("package_id", ForeignKey("package.package_id")),
    Column("ties", Integer, nullable=False),
    UniqueConstraint("address", "matching_id"),
)
IDENTITY = [column.name for column in code.c][: list(code.c.keys()).index("package_id")]

_free = code.c.package_id.is_(None)
Index("ix_code_free", code.c.sku, code.c.region, code.c.code_id, sqlite_where=_free, postgresql_where=_free)
Index("ix_code_batch", code.c.batch)
# Only of those that are tied: SQLite would look for the free ones in it, and find all of them.
_tied = code.c.package_id.is_not(None)
Index("ux_code_package_id", code.c.package_id, unique=True, sqlite_where=_tied, postgresql_where=_tied)

# A key of the chip's own; the others, one for each activation code it was ever tied to, have no slot.
OF_CHIP = otk.c.slot >= 0
