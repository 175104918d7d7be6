"""Tables of the factory database; `ifpp.store.rules` holds what the database enforces beyond constraints."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    exists,
    text,
)

from ifpp.model.states import OPEN_STATES, PackageState

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only a column of type INTEGER


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


meta = Table("meta", metadata, Column("key", Text, primary_key=True), _text("value"))

# ---- what was delivered -----------------------------------------------------------------------------

batch = Table(
    "batch",
    metadata,
    Column("number", _Number, primary_key=True),
    _text("kind"),
    _text("name"),
    Column("sha256", Text, nullable=False, unique=True),
    _text("imported_at"),
    sqlite_autoincrement=True,
)

batch_total = Table(
    "batch_total",
    metadata,
    Column("batch", ForeignKey("batch.number"), primary_key=True),
    Column("chips", Integer, nullable=False),
    Column("packages", Integer, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("travellers", Integer, nullable=False),
)

# What each file brought, counted at import and independent of the package rows: the left side of the mass balance.
batch_count = Table(
    "batch_count",
    metadata,
    Column("batch", ForeignKey("batch.number"), primary_key=True),
    Column("sku", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("smdp_oid", Text, primary_key=True),
    Column("packages", Integer, nullable=False),
)

chain = Table(
    "chain",
    metadata,
    Column("chain_id", Text, primary_key=True),  # SHA-256 over the certificates
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("certificate", LargeBinary, nullable=False),
)

info2 = Table(
    "info2",
    metadata,
    Column("info2_id", Text, primary_key=True),  # SHA-256
    Column("raw", LargeBinary, nullable=False),
)

chip = Table(
    "chip",
    metadata,
    Column("eid", Text, primary_key=True),
    Column("batch", ForeignKey("batch.number"), nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    _text("chain_id"),
    Column("info2_id", ForeignKey("info2.info2_id"), nullable=False),
    Column("otk_list", LargeBinary, nullable=False),
    _text("clean_to_ship_at", null=True),
    _text("clean_event_id", null=True),
)

otk = Table(
    "otk",
    metadata,
    Column("eid", ForeignKey("chip.eid"), primary_key=True),
    Column("otk_id", Text, primary_key=True),
    Column("slot", Integer, nullable=False),
    Column("alg", Integer, nullable=False),
    Column("public", LargeBinary, nullable=False, unique=True),
)

package_bytes = Table(
    "package_bytes",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("bpp", LargeBinary, nullable=False),
)

# What is being taken in and does not count yet: see ifpp.store.intake. `file` is the digest of the file, `place` the
# item in it, `bpp_sha256` that of a package, whose bytes are in package_bytes already.
staged = Table(
    "staged",
    metadata,
    Column("file", Text, primary_key=True),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("item", LargeBinary, nullable=False),
    _text("bpp_sha256", null=True),
)

# Deliveries whose packages are not given out any more.
withdrawal = Table(
    "withdrawal",
    metadata,
    Column("batch", ForeignKey("batch.number"), primary_key=True),
    _text("told_by"),
    _text("reason"),
    _text("at"),
)

# Which job order has a chip to itself; the word of one that has ended counts no more: see ifpp.store.reservations.
reservation = Table(
    "reservation",
    metadata,
    Column("eid", ForeignKey("chip.eid"), primary_key=True),
    _text("job_order_id"),
    _text("at"),
    Index("ix_reservation_job_order_id", "job_order_id"),
)

# What the MES says a unit is, "" = does not say; the newest file's word on a serial number counts: see
# ifpp.store.travellers.
traveller = Table(
    "traveller",
    metadata,
    Column("sn", Text, primary_key=True),
    Column("batch", ForeignKey("batch.number"), primary_key=True),
    _text("sku"),
    _text("eid"),
    _text("job_order_id"),
    Index("ix_traveller_eid", "eid"),
    Index("ix_traveller_job_order_id", "job_order_id"),
)

# Which profiles a product gets: see ifpp.store.plans. `profiles` is JSON, in order; customer "" is any.
profile_plan = Table(
    "profile_plan",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("customer", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _text("profiles"),
    _text("from_at"),
    _text("until_at", null=True),
    _text("told_by"),
    _text("reason"),
    _text("at"),
)

# ---- where every package is -------------------------------------------------------------------------

_STATES = ", ".join(f"'{state}'" for state in PackageState)

package = Table(
    "package",
    metadata,
    Column("package_id", Text, primary_key=True),
    Column("batch", ForeignKey("batch.number"), nullable=False),
    Column("eid", ForeignKey("chip.eid"), nullable=False),
    _text("otk_id"),
    Column("iccid", Text, nullable=False, unique=True),
    _text("profile_type"),
    _text("sku"),
    _text("region"),
    _text("smdp_oid"),
    _text("transaction_id"),
    _text("smdp_chain_id"),
    _text("order_ref"),
    Column("prepare_download", LargeBinary, nullable=False),
    Column("bpp_sha256", ForeignKey("package_bytes.sha256"), nullable=False, unique=True),
    Column("bpp_bytes", Integer, nullable=False),
    _text("expires_at", null=True),
    # what a step changes
    Column("state", Text, nullable=False),
    Column("spent", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    _text("attempt_id", null=True),
    _text("lease_until", null=True),
    _text("changed_at"),
    _text("node_id"),
    _text("head_id"),
    _text("event_id"),
    _text("detail"),
    ForeignKeyConstraint(["eid", "otk_id"], ["otk.eid", "otk.otk_id"]),
    UniqueConstraint("eid", "otk_id"),
    UniqueConstraint("smdp_oid", "transaction_id"),
    CheckConstraint(f"state IN ({_STATES})", name="state"),
    CheckConstraint(
        "CASE state WHEN 'INSTALLED' THEN spent WHEN 'FAILED' THEN true WHEN 'DESTROYED' THEN true ELSE NOT spent END",
        name="spent",
    ),
    CheckConstraint("(state = 'CLAIMED') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('AVAILABLE', 'DESTROYED')) = (attempt_id IS NULL)", name="attempt"),
)
# Which package this is: fixed for ever, but for the ICCID that an activation code brings when it is installed.
IDENTITY = [name for name in list(package.c.keys())[: list(package.c.keys()).index("state")] if name != "iccid"]

Index("ix_package_batch", package.c.batch)
Index("ix_package_book", package.c.sku, package.c.region, package.c.smdp_oid, package.c.state)
_available, _claimed = package.c.state == text("'AVAILABLE'"), package.c.state == text("'CLAIMED'")
Index("ix_package_available", package.c.sku, package.c.region, sqlite_where=_available, postgresql_where=_available)
Index("ix_package_claimed", package.c.attempt_id, sqlite_where=_claimed, postgresql_where=_claimed)
Index("ix_package_lease", package.c.lease_until, sqlite_where=_claimed, postgresql_where=_claimed)
# SQLite takes a partial index only for the very words it was made with: queries use this condition as it stands.
IS_OPEN = text("package.state IN ({})".format(", ".join(f"'{state}'" for state in OPEN_STATES)))
_open = text(IS_OPEN.text.replace("package.", ""))
Index("ix_package_open", package.c.state, package.c.changed_at, sqlite_where=_open, postgresql_where=_open)
# An activation code that is tied to a chip is a package without bytes: see ifpp.store.codes.
IS_CODE = text("package.bpp_bytes = 0")
_product_state = (package.c.sku, package.c.region, package.c.state)
_is_code = text(IS_CODE.text.replace("package.", ""))
Index("ix_package_code", *_product_state, sqlite_where=_is_code, postgresql_where=_is_code)

# A package is on the shelf once its whole file is in the books, and no earlier.
SHELVED = exists().where(batch_total.c.batch == package.c.batch)
WITHDRAWN = exists().where(withdrawal.c.batch == package.c.batch)

package_transition = Table(
    "package_transition",
    metadata,
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, primary_key=True),
    Column("unspent_only", Boolean, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("entry", _Number, primary_key=True),
    Column("package_id", ForeignKey("package.package_id"), nullable=False),
    Column("revision", Integer, nullable=False),
    _text("from_state"),
    _text("to_state"),
    _text("at"),
    _text("node_id"),
    _text("head_id"),
    _text("attempt_id"),
    _text("event_id"),
    _text("detail"),
    UniqueConstraint("package_id", "revision"),
    sqlite_autoincrement=True,
)

# One row for each attempt that asked for packages, or was released before it did. Without chip: only released.
claim = Table(
    "claim",
    metadata,
    Column("attempt_id", Text, primary_key=True),
    _text("eid", null=True),
    _text("sku"),
    _text("region"),
    _text("station_id"),
    _text("head_id"),
    _text("at"),
    _text("released_at", null=True),
)

# Which attempt was told to read from the chip what became of a package that had been sent, at which revision of it.
reading = Table(
    "reading",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("package_id", ForeignKey("package.package_id"), nullable=False),
    Column("attempt_id", ForeignKey("claim.attempt_id"), nullable=False),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("package_id", "attempt_id"),
    Index("ix_reading_attempt", "attempt_id"),
    sqlite_autoincrement=True,
)

# ---- what stations said -----------------------------------------------------------------------------

event_log = Table(
    "event",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    _text("schema"),
    Column("body", LargeBinary, nullable=False),
    _text("taken_at"),
)

parked = Table(
    "parked",
    metadata,
    Column("number", _Number, primary_key=True),
    _text("node_id"),
    Column("seq", BigInteger, nullable=False),
    _text("id"),
    _text("code"),
    _text("text"),
    Column("body", LargeBinary, nullable=False),
    _text("at"),
    Index("ix_parked_node_seq", "node_id", "seq"),
    sqlite_autoincrement=True,
)

node_cursor = Table(
    "node_cursor",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("through", BigInteger, nullable=False),
)

unit_attempt = Table(
    "unit_attempt",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("event_id"),
    _text("transaction_id"),
    _text("unit"),  # serial number, else EID (line contract 5.2)
    _text("sn"),
    _text("eid"),
    _text("operation"),
    _text("job_order_id"),
    _text("head_id"),
    Column("attempt", BigInteger, nullable=False),
    _text("result"),
    _text("outcome_class"),
    _text("disposition"),
    Column("clean_to_ship", Boolean, nullable=False),
    _text("defect"),
    _text("started_at"),
    _text("ended_at"),
    Column("cycle_ms", BigInteger, nullable=False),
    Column("load_ms", BigInteger, nullable=False),
    _text("firmware"),
    _text("atr"),
    _text("protocol"),
    Column("bit_rate", BigInteger),
    Column("block_size", BigInteger, nullable=False),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_unit_attempt_unit", "job_order_id", "operation", "unit"),
    Index("ix_unit_attempt_eid", "eid"),
    Index("ix_unit_attempt_sn", "sn"),
    Index("ix_unit_attempt_transaction", "transaction_id"),
)

package_result = Table(
    "package_result",
    metadata,
    Column("package_id", ForeignKey("package.package_id"), primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("state"),
    Column("spent", Boolean, nullable=False),
    _text("reason"),
    Column("pir", LargeBinary),
    Column("revision", Integer),  # of the package after it; NULL: a late word that moved nothing
    _text("head_id"),
    _text("started_at"),
    _text("ended_at"),
    _text("taken_at"),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_package_result_taken", "taken_at"),
)

IS_PRODUCT = text("unit_attempt.outcome_class = 'PRODUCT'")
_product = text(IS_PRODUCT.text.replace("unit_attempt.", ""))
Index("ix_unit_attempt_firmware", unit_attempt.c.firmware, sqlite_where=_product, postgresql_where=_product)

# Which profile type works on which chip firmware, and where it does not: see ifpp.store.denylist.
fit = Table(
    "fit",
    metadata,
    Column("firmware", Text, primary_key=True),
    Column("profile_type", Text, primary_key=True),
    _text("standing"),
    _text("told_by"),
    _text("reason"),
    _text("changed_at"),
    Column("succeeded", Boolean, nullable=False),
)

# ---- the line ---------------------------------------------------------------------------------------

job_order = Table(
    "job_order",
    metadata,
    Column("job_order_id", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("batch", ForeignKey("batch.number"), nullable=False),
    _text("line"),
    Column("body", LargeBinary, nullable=False),
    Index("ix_job_order_line", "line"),
)

# What the MES commanded, by its request id: see ifpp.store.orders.
order_word = Table(
    "order_word",
    metadata,
    Column("request_id", Text, primary_key=True),
    _text("job_order_id"),
    Column("version", BigInteger, nullable=False),
    _text("command"),
    _text("sha256"),
    _text("status"),
    _text("dispatch_status"),
    _text("code"),
    _text("text"),
    _text("at"),
    Index("ix_order_word_job_order_id", "job_order_id"),
)

# Orders that have ended, and since when their response is in the line's log; "" = not yet.
order_end = Table(
    "order_end",
    metadata,
    Column("job_order_id", Text, primary_key=True),
    _text("line"),
    _text("at"),
    _text("responded_at"),
)

# The line's own log to the MES: see ifpp.store.line_log.
line_log = Table(
    "line_log",
    metadata,
    Column("line", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("name"),
    Column("body", LargeBinary, nullable=False),
    _text("at"),
)

line_cursor = Table(
    "line_cursor",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

line_ack = Table(
    "line_ack",
    metadata,
    Column("line", Text, primary_key=True),
    Column("through", BigInteger, nullable=False),
)

line_lease = Table(
    "line_lease",
    metadata,
    Column("line", Text, primary_key=True),
    _text("owner"),
    Column("epoch", BigInteger, nullable=False),
    _text("expires_at"),
)

# ---- reports to the SM-DPf --------------------------------------------------------------------------

report = Table(
    "report",
    metadata,
    Column("report_id", Text, primary_key=True),
    _text("smdp_oid"),
    _text("file"),
    _text("sha256"),
    _text("created_at"),
    Column("items", Integer, nullable=False),
)

report_item = Table(
    "report_item",
    metadata,
    Column("report_id", ForeignKey("report.report_id"), primary_key=True),
    Column("package_id", ForeignKey("package.package_id"), primary_key=True),
    _text("state"),
    Index("ix_report_item_package", "package_id"),
)

# That the SM-DPf has taken a report, as somebody here says.
report_ack = Table(
    "report_ack",
    metadata,
    Column("report_id", ForeignKey("report.report_id"), primary_key=True),
    _text("at"),
    _text("told_by"),
)

# What signs a report: ECDSA over its statement (`ifpp.line.report`), which names its digest.
report_signature = Table(
    "report_signature",
    metadata,
    Column("report_id", ForeignKey("report.report_id"), primary_key=True),
    _text("key_id"),
    Column("signature", LargeBinary, nullable=False),
)

# That a report is in the hands of its SM-DPf; the first time counts.
report_delivery = Table(
    "report_delivery",
    metadata,
    Column("report_id", ForeignKey("report.report_id"), primary_key=True),
    _text("at"),
    _text("place"),
)

# What the SM-DPf said of a report; key_id "" = it did not sign that.
report_answer = Table(
    "report_answer",
    metadata,
    Column("report_id", ForeignKey("report.report_id"), primary_key=True),
    _text("at"),
    _text("sha256"),
    _text("key_id"),
)

# ... and of each of its items: verified, noted (it carries no proof) or refused, with the reason.
report_verdict = Table(
    "report_verdict",
    metadata,
    Column("report_id", Text, primary_key=True),
    Column("package_id", Text, primary_key=True),
    _text("verdict"),
    _text("reason"),
    ForeignKeyConstraint(["report_id", "package_id"], ["report_item.report_id", "report_item.package_id"]),
)

# ---- the audit log: see ifpp.wire.audit -------------------------------------------------------------

# Where each chain ends. Its row is locked by whoever appends.
audit_chain = Table(
    "audit_chain",
    metadata,
    Column("chain_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

audit_entry = Table(
    "audit_entry",
    metadata,
    Column("chain_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _text("at"),
    _text("kind"),
    Column("facts", LargeBinary, nullable=False),  # canonical JSON
    Column("hash", LargeBinary, nullable=False),
    _text("cleared_eid", null=True),  # of a clean_to_ship entry
    sqlite_with_rowid=False,
)
_clears = audit_entry.c.cleared_eid.is_not(None)
Index("ix_audit_entry_cleared", audit_entry.c.cleared_eid, unique=True, sqlite_where=_clears, postgresql_where=_clears)

audit_key = Table(
    "audit_key",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("public", LargeBinary, nullable=False),
    _text("at"),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("chain_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    _text("at"),
    Column("key_id", ForeignKey("audit_key.key_id"), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    ForeignKeyConstraint(["chain_id", "number"], ["audit_entry.chain_id", "audit_entry.number"]),
)
