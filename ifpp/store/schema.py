"""Tables of the factory database and the rules the database itself enforces, for SQLite and PostgreSQL.

A package changes by a step and by nothing else: its identity is fixed, `revision` grows by one, and (old state, new
state) must stand in `package_transition` (FAILED -> CLAIMED only while the one-time key is not spent). The database
writes the ledger row of every step itself, so that no step can be forgotten. History is never changed nor deleted.
"""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    inspect,
    select,
    text,
)

from ifpp.errors import CustodyError, SettingsError
from ifpp.model.states import PACKAGE_TRANSITIONS, PackageState

SCHEMA_VERSION = 1

_CREATE_LOCK = 0x69667070  # "ifpp": PostgreSQL advisory lock while tables are made

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
    Column("chips", Integer, nullable=False),
    Column("packages", Integer, nullable=False),
    Column("jobs", Integer, nullable=False),
    sqlite_autoincrement=True,
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
_IDENTITY = [column.name for column in package.c][: list(package.c.keys()).index("state")]

Index("ix_package_book", package.c.sku, package.c.region, package.c.smdp_oid, package.c.state)
_available, _claimed = package.c.state == text("'AVAILABLE'"), package.c.state == text("'CLAIMED'")
Index("ix_package_available", package.c.sku, package.c.region, sqlite_where=_available, postgresql_where=_available)
Index("ix_package_claimed", package.c.attempt_id, sqlite_where=_claimed, postgresql_where=_claimed)
Index("ix_package_lease", package.c.lease_until, sqlite_where=_claimed, postgresql_where=_claimed)

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
    _text("lease_until"),
    _text("released_at", null=True),
)

# Which attempt was told to read from the chip what became of a package that `of_attempt` had sent.
reading = Table(
    "reading",
    metadata,
    Column("attempt_id", ForeignKey("claim.attempt_id"), primary_key=True),
    Column("package_id", ForeignKey("package.package_id"), primary_key=True),
    _text("of_attempt"),
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
    Column("moved", Boolean, nullable=False),  # False: a late word on a package that was settled already
    _text("head_id"),
    _text("started_at"),
    _text("ended_at"),
    _text("taken_at"),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_package_result_taken", "taken_at"),
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

line_lease = Table(
    "line_lease",
    metadata,
    Column("line", Text, primary_key=True),
    _text("owner"),
    Column("epoch", BigInteger, nullable=False),
    _text("expires_at"),
)

# ---- rules inside the database ----------------------------------------------------------------------

_KEPT = (
    "package_transition",
    "ledger",
    "event",
    "parked",
    "package_result",
    "package_bytes",
    "batch",
    "batch_count",
    "chain",
    "info2",
    "otk",
)
_FORBIDDEN_STEP = (
    "NEW.revision <> OLD.revision + 1 OR NOT EXISTS (SELECT 1 FROM package_transition t "
    "WHERE t.from_state = OLD.state AND t.to_state = NEW.state AND NOT (t.unspent_only AND OLD.spent))"
)
_ENTRY = (
    "INSERT INTO ledger "
    "(package_id, revision, from_state, to_state, at, node_id, head_id, attempt_id, event_id, detail) VALUES "
    "(NEW.package_id, NEW.revision, {old_state}, NEW.state, NEW.changed_at, NEW.node_id, NEW.head_id, "
    "coalesce(NEW.attempt_id, {old_attempt}, ''), NEW.event_id, NEW.detail);"
)
_BIRTH_ENTRY = _ENTRY.format(old_state="''", old_attempt="NULL")
_STEP_ENTRY = _ENTRY.format(old_state="OLD.state", old_attempt="OLD.attempt_id")
_BAD_BIRTH = "NEW.state <> 'AVAILABLE' OR NEW.revision <> 0"
_SAY_BIRTH = "a package comes into the books AVAILABLE"
_SAY_STEP = "this package may not take this step"
_SAY_IDENTITY = "the identity of a package never changes"
_SAY_KEPT = "history is neither changed nor deleted"


def _sqlite_rules() -> list[str]:
    def refuse(name: str, when: str, table: str, condition: str, say: str) -> str:
        return (
            f"CREATE TRIGGER {name} BEFORE {when} ON {table} {condition and f'WHEN {condition}'} "
            f"BEGIN SELECT RAISE(ABORT, '{say}'); END"
        )

    rules = [
        refuse("package_birth", "INSERT", "package", _BAD_BIRTH, _SAY_BIRTH),
        refuse("package_step", "UPDATE", "package", _FORBIDDEN_STEP, _SAY_STEP),
        refuse("package_identity", f"UPDATE OF {', '.join(_IDENTITY)}", "package", "", _SAY_IDENTITY),
        refuse("package_kept", "DELETE", "package", "", _SAY_KEPT),
        refuse("package_transition_fixed", "INSERT", "package_transition", "", _SAY_KEPT),
        f"CREATE TRIGGER package_born AFTER INSERT ON package BEGIN {_BIRTH_ENTRY} END",
        f"CREATE TRIGGER package_entry AFTER UPDATE ON package BEGIN {_STEP_ENTRY} END",
    ]
    for table in _KEPT:
        rules.append(refuse(f"{table}_unchanged", "UPDATE", table, "", _SAY_KEPT))
        rules.append(refuse(f"{table}_undeleted", "DELETE", table, "", _SAY_KEPT))
    return rules


def _postgresql_rules() -> list[str]:
    def function(name: str, body: str) -> str:
        return (
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $rule$ BEGIN {body} RETURN NEW; END $rule$"
        )

    def refuse(say: str) -> str:
        return f"RAISE EXCEPTION '{say}' USING ERRCODE = 'check_violation';"

    def trigger(name: str, when: str, table: str, called: str, each: str = "ROW") -> str:
        return f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION {called}()"

    rules = [
        function("ifpp_birth", f"IF {_BAD_BIRTH} THEN {refuse(_SAY_BIRTH)} END IF;"),
        function("ifpp_step", f"IF {_FORBIDDEN_STEP} THEN {refuse(_SAY_STEP)} END IF;"),
        function("ifpp_identity", refuse(_SAY_IDENTITY)),
        function("ifpp_kept", refuse(_SAY_KEPT)),
        function("ifpp_born", _BIRTH_ENTRY),
        function("ifpp_entry", _STEP_ENTRY),
        trigger("package_birth", "BEFORE INSERT", "package", "ifpp_birth"),
        trigger("package_step", "BEFORE UPDATE", "package", "ifpp_step"),
        trigger("package_identity", f"BEFORE UPDATE OF {', '.join(_IDENTITY)}", "package", "ifpp_identity"),
        trigger("package_kept", "BEFORE DELETE", "package", "ifpp_kept"),
        trigger("package_cut", "BEFORE TRUNCATE", "package", "ifpp_kept", "STATEMENT"),
        trigger("package_transition_fixed", "BEFORE INSERT", "package_transition", "ifpp_kept"),
        trigger("package_born", "AFTER INSERT", "package", "ifpp_born"),
        trigger("package_entry", "AFTER UPDATE", "package", "ifpp_entry"),
    ]
    for table in _KEPT:
        rules.append(trigger(f"{table}_kept", "BEFORE UPDATE OR DELETE", table, "ifpp_kept"))
        rules.append(trigger(f"{table}_cut", "BEFORE TRUNCATE", table, "ifpp_kept", "STATEMENT"))
    return rules


def _fill_transitions(_target: MetaData, connection: Connection, **_options: object) -> None:
    """Write the transition table before its own rule closes it."""
    rows = [
        {"from_state": old, "to_state": new, "unspent_only": (old, new) == (PackageState.FAILED, PackageState.CLAIMED)}
        for old, targets in PACKAGE_TRANSITIONS.items()
        for new in targets
    ]
    connection.execute(package_transition.insert(), rows)


event.listen(metadata, "after_create", _fill_transitions)
for _dialect, _rules in (("sqlite", _sqlite_rules()), ("postgresql", _postgresql_rules())):
    for _rule in _rules:
        event.listen(metadata, "after_create", DDL(_rule).execute_if(dialect=_dialect))


def prepare(connection: Connection, created_at: str) -> str:
    """Make the tables of a new database, or check those of an old one; return the factory id.

    Runs in one transaction; two processes may start at once. Raises CustodyError CUSTODY.SCHEMA_NEWER,
    SettingsError for somebody else's database.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
    if not inspect(connection).has_table(meta.name):
        metadata.create_all(connection, checkfirst=False)
        facts = {"schema_version": str(SCHEMA_VERSION), "factory_id": str(uuid4()), "created_at": created_at}
        connection.execute(meta.insert(), [{"key": key, "value": value} for key, value in facts.items()])
    found = {row.key: row.value for row in connection.execute(select(meta.c.key, meta.c.value))}
    where = connection.engine.url.render_as_string(hide_password=True)
    if "schema_version" not in found or "factory_id" not in found:
        raise SettingsError("SETTINGS.INVALID", "this is not a factory database", where=where)
    version = int(found["schema_version"])
    if version > SCHEMA_VERSION:
        detail = f"the database has schema version {version}, this ifpp knows {SCHEMA_VERSION}"
        raise CustodyError("CUSTODY.SCHEMA_NEWER", detail, where=where)
    return found["factory_id"]
