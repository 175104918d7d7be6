"""Rules the database itself enforces, for SQLite and PostgreSQL, and the making of a new database.

A package changes by a step and by nothing else: its identity is fixed, `revision` grows by one, and (old state, new
state) must stand in `package_transition` (FAILED -> CLAIMED only while the one-time key is not spent). The database
writes the ledger row of every step itself, so that no step can be forgotten. History is never changed nor deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import DDL, Connection, MetaData, event, inspect, select, text

from ifpp.errors import CustodyError, SettingsError
from ifpp.model.states import PACKAGE_TRANSITIONS, PackageState
from ifpp.store.code_tables import IDENTITY as CODE_IDENTITY
from ifpp.store.figure_tables import KEPT
from ifpp.store.quota_tables import KEPT as QUOTA_KEPT
from ifpp.store.rework_tables import KEPT as REWORK_KEPT
from ifpp.store.schema import IDENTITY, meta, metadata, package_transition
from ifpp.store.steps import SCHEMA_VERSION, STEPS, works_since

_CREATE_LOCK = 0x69667070  # "ifpp": PostgreSQL advisory lock while tables are made

_KEPT = (
    "package_transition",
    "ledger",
    "event",
    "parked",
    "package_result",
    "batch",
    "batch_total",
    "batch_count",
    "chain",
    "info2",
    "otk",
    "report",
    "report_item",
    "report_ack",
    "report_signature",
    "report_delivery",
    "report_answer",
    "report_verdict",
    "profile_plan",
    "withdrawal",
    "traveller",
    "order_word",
    "line_log",
    *KEPT,
    *QUOTA_KEPT,
    *REWORK_KEPT,
    "audit_entry",
    "audit_key",
    "audit_checkpoint",
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
_OF_A_PACKAGE = "EXISTS (SELECT 1 FROM package p WHERE p.bpp_sha256 = OLD.sha256)"
# Bytes never change; those of a package that can never be loaded again may go (`ifpp.store.purge`).
_STILL_NEEDED = (
    "NEW.sha256 <> OLD.sha256 OR length(NEW.bpp) > 0 OR NOT EXISTS (SELECT 1 FROM package p "
    "WHERE p.bpp_sha256 = OLD.sha256 AND (p.spent OR p.state = 'DESTROYED'))"
)
_BAD_ICCID = "NEW.iccid <> OLD.iccid AND (OLD.iccid <> OLD.package_id OR NEW.state <> 'INSTALLED')"
_BAD_CODE = "NEW.package_id IS NOT NULL OR NEW.ties <> 0"
_SAY_CODE = "an activation code comes into the books tied to no chip"
# Sent no more often than a station said that the SM-DP+ cannot have tied it: only then FAILED becomes DESTROYED.
_BAD_TIE = (
    "NEW.ties <> OLD.ties + 1 OR NEW.package_id IS NULL OR (OLD.package_id IS NOT NULL AND NOT EXISTS ("
    "SELECT 1 FROM package p WHERE p.package_id = OLD.package_id AND p.state = 'DESTROYED' AND NOT p.spent AND "
    "(SELECT count(*) FROM ledger l WHERE l.package_id = p.package_id AND l.to_state = 'SENT') <= "
    "(SELECT count(*) FROM ledger l WHERE l.package_id = p.package_id AND l.from_state = 'FAILED' "
    "AND l.to_state = 'DESTROYED')))"
)
_SAY_TIE = "an activation code is for one chip"
_BACKWARDS = "NEW.chain_id <> OLD.chain_id OR NEW.number <= OLD.number"
_SAY_BACKWARDS = "an audit chain only grows"


def _sqlite_rules() -> list[str]:
    def refuse(name: str, when: str, table: str, condition: str, say: str) -> str:
        return (
            f"CREATE TRIGGER {name} BEFORE {when} ON {table} {condition and f'WHEN {condition}'} "
            f"BEGIN SELECT RAISE(ABORT, '{say}'); END"
        )

    rules = [
        refuse("package_birth", "INSERT", "package", _BAD_BIRTH, _SAY_BIRTH),
        refuse("package_step", "UPDATE", "package", _FORBIDDEN_STEP, _SAY_STEP),
        refuse("package_identity", f"UPDATE OF {', '.join(IDENTITY)}", "package", "", _SAY_IDENTITY),
        refuse("package_iccid", "UPDATE OF iccid", "package", _BAD_ICCID, _SAY_IDENTITY),
        refuse("package_kept", "DELETE", "package", "", _SAY_KEPT),
        refuse("code_birth", "INSERT", "code", _BAD_CODE, _SAY_CODE),
        refuse("code_identity", f"UPDATE OF {', '.join(CODE_IDENTITY)}", "code", "", _SAY_IDENTITY),
        refuse("code_tied", "UPDATE", "code", _BAD_TIE, _SAY_TIE),
        refuse("code_kept", "DELETE", "code", "", _SAY_KEPT),
        refuse("package_bytes_unchanged", "UPDATE", "package_bytes", _STILL_NEEDED, _SAY_KEPT),
        refuse("package_bytes_undeleted", "DELETE", "package_bytes", _OF_A_PACKAGE, _SAY_KEPT),
        refuse("audit_chain_grows", "UPDATE", "audit_chain", _BACKWARDS, _SAY_BACKWARDS),
        refuse("audit_chain_kept", "DELETE", "audit_chain", "", _SAY_KEPT),
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
        function("ifpp_iccid", f"IF {_BAD_ICCID} THEN {refuse(_SAY_IDENTITY)} END IF;"),
        function("ifpp_code", f"IF {_BAD_CODE} THEN {refuse(_SAY_CODE)} END IF;"),
        function("ifpp_tie", f"IF {_BAD_TIE} THEN {refuse(_SAY_TIE)} END IF;"),
        function("ifpp_kept", refuse(_SAY_KEPT)),
        function("ifpp_bytes_kept", f"IF {_OF_A_PACKAGE} THEN {refuse(_SAY_KEPT)} END IF; RETURN OLD;"),
        function("ifpp_bytes_needed", f"IF {_STILL_NEEDED} THEN {refuse(_SAY_KEPT)} END IF;"),
        function("ifpp_grows", f"IF {_BACKWARDS} THEN {refuse(_SAY_BACKWARDS)} END IF;"),
        function("ifpp_born", _BIRTH_ENTRY),
        function("ifpp_entry", _STEP_ENTRY),
        trigger("package_birth", "BEFORE INSERT", "package", "ifpp_birth"),
        trigger("package_step", "BEFORE UPDATE", "package", "ifpp_step"),
        trigger("package_identity", f"BEFORE UPDATE OF {', '.join(IDENTITY)}", "package", "ifpp_identity"),
        trigger("package_iccid", "BEFORE UPDATE OF iccid", "package", "ifpp_iccid"),
        trigger("package_kept", "BEFORE DELETE", "package", "ifpp_kept"),
        trigger("code_birth", "BEFORE INSERT", "code", "ifpp_code"),
        trigger("code_identity", f"BEFORE UPDATE OF {', '.join(CODE_IDENTITY)}", "code", "ifpp_identity"),
        trigger("code_tied", "BEFORE UPDATE", "code", "ifpp_tie"),
        trigger("code_kept", "BEFORE DELETE", "code", "ifpp_kept"),
        trigger("code_cut", "BEFORE TRUNCATE", "code", "ifpp_kept", "STATEMENT"),
        trigger("package_cut", "BEFORE TRUNCATE", "package", "ifpp_kept", "STATEMENT"),
        trigger("package_bytes_fixed", "BEFORE UPDATE", "package_bytes", "ifpp_bytes_needed"),
        trigger("package_bytes_kept", "BEFORE DELETE", "package_bytes", "ifpp_bytes_kept"),
        trigger("package_bytes_cut", "BEFORE TRUNCATE", "package_bytes", "ifpp_kept", "STATEMENT"),
        trigger("audit_chain_grows", "BEFORE UPDATE", "audit_chain", "ifpp_grows"),
        trigger("audit_chain_kept", "BEFORE DELETE", "audit_chain", "ifpp_kept"),
        trigger("audit_chain_cut", "BEFORE TRUNCATE", "audit_chain", "ifpp_kept", "STATEMENT"),
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
        # SQLAlchemy has no types for it
        event.listen(metadata, "after_create", DDL(_rule).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a factory database says of itself: schema `version`, and which ifpp, by the schema each knows, may work
    with it (`works_since`); `behind`: the oldest one that has, and wrote what newer ones want to know, or None.
    """

    version: int
    factory_id: str
    works_since: int
    behind: int | None


def prepare(connection: Connection, created_at: str) -> str:
    """Make the tables of a new database, or check those of an old one; return the factory id.

    A newer schema is worked with when it says so. Runs in one transaction; two processes may start at once. Raises
    CustodyError CUSTODY.SCHEMA_NEWER or CUSTODY.SCHEMA_OLDER, SettingsError for somebody else's database.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
    if not inspect(connection).has_table(meta.name):
        metadata.create_all(connection, checkfirst=False)
        facts = {"schema_version": str(SCHEMA_VERSION), "factory_id": str(uuid4()), "created_at": created_at}
        connection.execute(meta.insert(), [{"key": key, "value": value} for key, value in facts.items()])
        set_fact(connection, "works_since", str(works_since(STEPS, SCHEMA_VERSION)))
    found = read_facts(connection)
    if not found.works_since <= SCHEMA_VERSION <= found.version:
        raise wrong_version(found.version, _name(connection))
    if found.version > SCHEMA_VERSION and (found.behind is None or found.behind > SCHEMA_VERSION):
        set_fact(connection, "behind", str(SCHEMA_VERSION))
    if found.version == SCHEMA_VERSION and found.behind is not None:
        detail = f"an ifpp that knows schema {found.behind} worked with it"
        raise CustodyError("CUSTODY.SCHEMA_OLDER", detail, where=_name(connection))
    return found.factory_id


def read_facts(connection: Connection) -> Facts:
    """Return what the database says of itself; raises SettingsError when this is no factory database."""
    found: dict[str, str] = {}
    if inspect(connection).has_table(meta.name):
        found = {row.key: row.value for row in connection.execute(select(meta.c.key, meta.c.value))}
    if "schema_version" not in found or "factory_id" not in found:
        raise SettingsError("SETTINGS.INVALID", "this is not a factory database", where=_name(connection))
    version = found["schema_version"]
    behind = int(found["behind"]) if "behind" in found else None
    return Facts(int(version), found["factory_id"], int(found.get("works_since", version)), behind)


def set_fact(connection: Connection, key: str, value: str | None) -> None:
    """Write one row of `meta`; None takes it away."""
    connection.execute(meta.delete().where(meta.c.key == key))
    if value is not None:
        connection.execute(meta.insert(), [{"key": key, "value": value}])


def wrong_version(version: int, where: str) -> CustodyError:
    """Return the error for a database of another schema version than ours."""
    detail = f"the database has schema version {version}, this ifpp knows {SCHEMA_VERSION}"
    code = "CUSTODY.SCHEMA_NEWER" if version > SCHEMA_VERSION else "CUSTODY.SCHEMA_OLDER"
    return CustodyError(code, detail, where=where)


def _name(connection: Connection) -> str:
    return connection.engine.url.render_as_string(hide_password=True)
