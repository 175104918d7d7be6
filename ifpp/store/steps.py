"""The way of a factory database from one schema version to the next: ordered, numbered steps, never changed later.

A new database is made at once in its present shape (`ifpp.store.schema`, `ifpp.store.rules`); one made by an older ifpp
takes every step it lacks, each in one transaction with its entry in the audit log. What both ways lead to is the same,
and a test holds them against each other. Nothing migrates by itself: `ifpp store migrate`, after a backup, while
nothing else has the database open.

To change the schema: change `schema.py` and `rules.py`, and append one Step here. When the ifpp of the version before
can work with the new schema too - so that one may go back to it without going back to an older database - the Step says
what to `catch_up` with afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_VERSION = 2
"""The oldest schema there is a way from."""


@dataclass(frozen=True, slots=True)
class Step:
    """What leads to schema `version`: statements for both databases, then those of the one at hand.

    In `both`, {blob} stands for the type of bytes and {serial} for a primary key that counts up, {number} for a
    reference to one. `kept` names tables
    whose rows are never changed nor deleted.
    """

    version: int
    brings: str
    both: tuple[str, ...] = ()
    sqlite: tuple[str, ...] = ()
    postgresql: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    catch_up: tuple[str, ...] | None = None

    def statements(self, dialect: str) -> list[str]:
        """Return what is executed on "sqlite" or "postgresql", in order."""
        names = _TYPES[dialect]
        own = self.sqlite if dialect == "sqlite" else self.postgresql
        rules = [rule for table in self.kept for rule in _kept(dialect, table)]
        return [*(statement.format(**names) for statement in self.both), *own, *rules]


_TYPES = {
    "sqlite": {"blob": "BLOB", "serial": "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "number": "INTEGER"},
    "postgresql": {"blob": "BYTEA", "serial": "BIGSERIAL NOT NULL", "number": "BIGINT"},
}
_SAY_KEPT = "history is neither changed nor deleted"


def _kept(dialect: str, table: str) -> list[str]:
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table}  BEGIN SELECT RAISE(ABORT, '{_SAY_KEPT}'); END"
            for name, when in (("unchanged", "UPDATE"), ("undeleted", "DELETE"))
        ]
    return [
        f"CREATE TRIGGER {table}_{name} BEFORE {when} ON {table} FOR EACH {each} EXECUTE FUNCTION ifpp_kept()"
        for name, when, each in (("kept", "UPDATE OR DELETE", "ROW"), ("cut", "TRUNCATE", "STATEMENT"))
    ]


_OF_A_PACKAGE = "EXISTS (SELECT 1 FROM package p WHERE p.bpp_sha256 = OLD.sha256)"

_STILL_NEEDED = (
    "NEW.sha256 <> OLD.sha256 OR length(NEW.bpp) > 0 OR NOT EXISTS (SELECT 1 FROM package p "
    "WHERE p.bpp_sha256 = OLD.sha256 AND (p.spent OR p.state = 'DESTROYED'))"
)
_SPANS = (
    "INSERT INTO state_span SELECT node_id, seq, resource, e10, code, next_e10, next_code, ended_ms - lasted, ended_ms "
    "FROM ({said}) AS said WHERE resource IS NOT NULL AND e10 IS NOT NULL AND next_e10 IS NOT NULL "
    "AND code IS NOT NULL AND next_code IS NOT NULL AND lasted IS NOT NULL AND ended_ms IS NOT NULL"
)
_SAID = (
    "SELECT node_id, seq, d ->> 'resource' resource, d ->> 'old' e10, {code} code, d ->> 'new' next_e10, "
    "{next_code} next_code, {lasted} lasted, {ended} ended_ms "
    "FROM (SELECT node_id, seq, {body} d FROM event WHERE substr(schema, 1, 14) = 'state_changed/') AS told"
)


def _spans(body: str, number: str, ended: str) -> str:
    """Stays in states, read out of the events: `number` and `ended` give NULL for what is none."""
    code, next_code, lasted = (number.replace("?", name) for name in ("old_code", "new_code", "old_duration_ms"))
    return _SPANS.format(said=_SAID.format(body=body, code=code, next_code=next_code, lasted=lasted, ended=ended))


_SPANS_SQLITE = _spans(
    "CAST(body AS TEXT)",
    "CASE typeof(d ->> '?') WHEN 'integer' THEN d ->> '?' END",
    "CAST(round((julianday(d ->> 'ts') - 2440587.5) * 86400000) AS INTEGER)",
)
_SPANS_POSTGRESQL = _spans(
    "convert_from(body, 'UTF8')::json",
    "CASE WHEN d ->> '?' ~ '^[0-9]{1,15}$' THEN (d ->> '?')::bigint END",
    "CASE WHEN d ->> 'ts' ~ '^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.0-9]*Z$' "
    "THEN round(extract(epoch FROM (d ->> 'ts')::timestamptz) * 1000)::bigint END",
)

_PACKAGE_IDENTITY = (
    "package_id, batch, eid, otk_id, profile_type, sku, region, smdp_oid, transaction_id, smdp_chain_id, order_ref, "
    "prepare_download, bpp_sha256, bpp_bytes, expires_at"
)
_CODE_IDENTITY = "code_id, batch, address, oid, matching_id, confirmation_code, sku, region, profile_type, expires_at"
_BAD_ICCID = "NEW.iccid <> OLD.iccid AND (OLD.iccid <> OLD.package_id OR NEW.state <> 'INSTALLED')"
_BAD_CODE = "NEW.package_id IS NOT NULL OR NEW.ties <> 0"
_BAD_TIE = (
    "NEW.ties <> OLD.ties + 1 OR NEW.package_id IS NULL OR (OLD.package_id IS NOT NULL AND NOT EXISTS ("
    "SELECT 1 FROM package p WHERE p.package_id = OLD.package_id AND p.state = 'DESTROYED' AND NOT p.spent AND "
    "(SELECT count(*) FROM ledger l WHERE l.package_id = p.package_id AND l.to_state = 'SENT') <= "
    "(SELECT count(*) FROM ledger l WHERE l.package_id = p.package_id AND l.from_state = 'FAILED' "
    "AND l.to_state = 'DESTROYED')))"
)
_SAY_IDENTITY = "the identity of a package never changes"
_CODE_RULES = (
    ("package_iccid", "package", "UPDATE OF iccid", _BAD_ICCID, _SAY_IDENTITY, "ifpp_iccid"),
    (
        "code_birth",
        "code",
        "INSERT",
        _BAD_CODE,
        "an activation code comes into the books tied to no chip",
        "ifpp_code",
    ),
    ("code_tied", "code", "UPDATE", _BAD_TIE, "an activation code is for one chip", "ifpp_tie"),
)

STEPS: tuple[Step, ...] = (
    Step(
        3,
        "deliveries are staged: what is refused in the end leaves nothing behind",
        both=(
            (
                "CREATE TABLE staged (file TEXT NOT NULL, place BIGINT NOT NULL, item {blob} NOT NULL, "
                "bpp_sha256 TEXT, CONSTRAINT pk_staged PRIMARY KEY (file, place))"
            ),
            "CREATE INDEX ix_package_batch ON package (batch)",
        ),
        sqlite=(
            "DROP TRIGGER package_bytes_undeleted",
            (
                f"CREATE TRIGGER package_bytes_undeleted BEFORE DELETE ON package_bytes WHEN {_OF_A_PACKAGE} "
                f"BEGIN SELECT RAISE(ABORT, '{_SAY_KEPT}'); END"
            ),
        ),
        postgresql=(
            "DROP TRIGGER package_bytes_kept ON package_bytes",
            (
                "CREATE FUNCTION ifpp_bytes_kept() RETURNS trigger LANGUAGE plpgsql AS $rule$ "
                f"BEGIN IF {_OF_A_PACKAGE} THEN RAISE EXCEPTION '{_SAY_KEPT}' "
                "USING ERRCODE = 'check_violation'; END IF; RETURN OLD; RETURN NEW; END $rule$"
            ),
            (
                "CREATE TRIGGER package_bytes_fixed BEFORE UPDATE ON package_bytes FOR EACH ROW "
                "EXECUTE FUNCTION ifpp_kept()"
            ),
            (
                "CREATE TRIGGER package_bytes_kept BEFORE DELETE ON package_bytes FOR EACH ROW "
                "EXECUTE FUNCTION ifpp_bytes_kept()"
            ),
        ),
    ),
    Step(
        4,
        "which profile type fits which chip firmware; the link of every attempt",
        both=(
            "ALTER TABLE unit_attempt ADD COLUMN firmware TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE unit_attempt ADD COLUMN atr TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE unit_attempt ADD COLUMN protocol TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE unit_attempt ADD COLUMN bit_rate BIGINT",
            "ALTER TABLE unit_attempt ADD COLUMN block_size BIGINT NOT NULL DEFAULT 0",
            "CREATE INDEX ix_unit_attempt_firmware ON unit_attempt (firmware) WHERE outcome_class = 'PRODUCT'",
            (
                "CREATE TABLE fit (firmware TEXT NOT NULL, profile_type TEXT NOT NULL, standing TEXT NOT NULL, "
                "told_by TEXT NOT NULL, reason TEXT NOT NULL, changed_at TEXT NOT NULL, succeeded BOOLEAN NOT NULL, "
                "CONSTRAINT pk_fit PRIMARY KEY (firmware, profile_type))"
            ),
        ),
    ),
    Step(
        5,
        "profile plans with their history; deliveries that were withdrawn",
        both=(
            (
                "CREATE TABLE profile_plan (sku TEXT NOT NULL, region TEXT NOT NULL, customer TEXT NOT NULL, "
                "version BIGINT NOT NULL, profiles TEXT NOT NULL, from_at TEXT NOT NULL, until_at TEXT, "
                "told_by TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, "
                "CONSTRAINT pk_profile_plan PRIMARY KEY (sku, region, customer, version))"
            ),
            (
                "CREATE TABLE withdrawal (batch {number} NOT NULL, told_by TEXT NOT NULL, reason TEXT NOT NULL, "
                "at TEXT NOT NULL, CONSTRAINT pk_withdrawal PRIMARY KEY (batch), "
                "CONSTRAINT fk_withdrawal_batch FOREIGN KEY(batch) REFERENCES batch (number))"
            ),
        ),
        kept=("profile_plan", "withdrawal"),
    ),
    Step(
        6,
        "chips reserved for job orders; travellers: which unit is to become what",
        both=(
            (
                "CREATE TABLE reservation (eid TEXT NOT NULL, job_order_id TEXT NOT NULL, at TEXT NOT NULL, "
                "CONSTRAINT pk_reservation PRIMARY KEY (eid), "
                "CONSTRAINT fk_reservation_eid FOREIGN KEY(eid) REFERENCES chip (eid))"
            ),
            "CREATE INDEX ix_reservation_job_order_id ON reservation (job_order_id)",
            (
                "CREATE TABLE traveller (sn TEXT NOT NULL, batch {number} NOT NULL, sku TEXT NOT NULL, "
                "eid TEXT NOT NULL, job_order_id TEXT NOT NULL, CONSTRAINT pk_traveller PRIMARY KEY (sn, batch), "
                "CONSTRAINT fk_traveller_batch FOREIGN KEY(batch) REFERENCES batch (number))"
            ),
            "CREATE INDEX ix_traveller_eid ON traveller (eid)",
            "CREATE INDEX ix_traveller_job_order_id ON traveller (job_order_id)",
            "ALTER TABLE batch_total ADD COLUMN travellers INTEGER NOT NULL DEFAULT 0",
        ),
        kept=("traveller",),
    ),
    Step(
        7,
        "signed reports, their delivery, and what the SM-DPf says of each item",
        both=(
            (
                "CREATE TABLE report_signature (report_id TEXT NOT NULL, key_id TEXT NOT NULL, "
                "signature {blob} NOT NULL, CONSTRAINT pk_report_signature PRIMARY KEY (report_id), "
                "CONSTRAINT fk_report_signature_report_id FOREIGN KEY(report_id) REFERENCES report (report_id))"
            ),
            (
                "CREATE TABLE report_delivery (report_id TEXT NOT NULL, at TEXT NOT NULL, place TEXT NOT NULL, "
                "CONSTRAINT pk_report_delivery PRIMARY KEY (report_id), "
                "CONSTRAINT fk_report_delivery_report_id FOREIGN KEY(report_id) REFERENCES report (report_id))"
            ),
            (
                "CREATE TABLE report_answer (report_id TEXT NOT NULL, at TEXT NOT NULL, sha256 TEXT NOT NULL, "
                "key_id TEXT NOT NULL, CONSTRAINT pk_report_answer PRIMARY KEY (report_id), "
                "CONSTRAINT fk_report_answer_report_id FOREIGN KEY(report_id) REFERENCES report (report_id))"
            ),
            (
                "CREATE TABLE report_verdict (report_id TEXT NOT NULL, package_id TEXT NOT NULL, "
                "verdict TEXT NOT NULL, reason TEXT NOT NULL, "
                "CONSTRAINT pk_report_verdict PRIMARY KEY (report_id, package_id), "
                "CONSTRAINT fk_report_verdict_report_id_package_id FOREIGN KEY(report_id, package_id) "
                "REFERENCES report_item (report_id, package_id))"
            ),
        ),
        kept=("report_signature", "report_delivery", "report_answer", "report_verdict"),
    ),
    Step(
        8,
        "stays in states, load times, frozen chart limits, revisions of figures, releases of job orders",
        both=(
            (
                "CREATE TABLE state_span (node_id TEXT NOT NULL, seq BIGINT NOT NULL, resource TEXT NOT NULL, "
                "e10 TEXT NOT NULL, code BIGINT NOT NULL, next_e10 TEXT NOT NULL, next_code BIGINT NOT NULL, "
                "began_ms BIGINT NOT NULL, ended_ms BIGINT NOT NULL, "
                "CONSTRAINT pk_state_span PRIMARY KEY (node_id, seq), "
                "CONSTRAINT fk_state_span_node_id_seq FOREIGN KEY(node_id, seq) REFERENCES event (node_id, seq))"
            ),
            "CREATE INDEX ix_state_span_ended_ms ON state_span (ended_ms)",
            "CREATE INDEX ix_state_span_resource ON state_span (node_id, resource, ended_ms)",
            (
                "CREATE TABLE load_time (node_id TEXT NOT NULL, seq BIGINT NOT NULL, place INTEGER NOT NULL, "
                "head_id TEXT NOT NULL, profile_type TEXT NOT NULL, firmware TEXT NOT NULL, link TEXT NOT NULL, "
                "bytes BIGINT NOT NULL, load_ms BIGINT NOT NULL, ended_at TEXT NOT NULL, "
                "CONSTRAINT pk_load_time PRIMARY KEY (node_id, seq, place), "
                "CONSTRAINT fk_load_time_node_id_seq FOREIGN KEY(node_id, seq) REFERENCES event (node_id, seq))"
            ),
            "CREATE INDEX ix_load_time_ended_at ON load_time (ended_at)",
            (
                "CREATE TABLE station_line (node_id TEXT NOT NULL, line TEXT NOT NULL, "
                "CONSTRAINT pk_station_line PRIMARY KEY (node_id))"
            ),
            "CREATE INDEX ix_station_line_line ON station_line (line)",
            (
                'CREATE TABLE kpi_revision (line TEXT NOT NULL, kind TEXT NOT NULL, "window" TEXT NOT NULL, '
                "revision BIGINT NOT NULL, sha256 TEXT NOT NULL, complete BOOLEAN NOT NULL, at TEXT NOT NULL, "
                'CONSTRAINT pk_kpi_revision PRIMARY KEY (line, kind, "window"))'
            ),
            (
                "CREATE TABLE chart_limits (line TEXT NOT NULL, stratum TEXT NOT NULL, version BIGINT NOT NULL, "
                "mean FLOAT(53) NOT NULL, s_mean FLOAT(53) NOT NULL, subgroups BIGINT NOT NULL, from_at TEXT NOT NULL, "
                "to_at TEXT NOT NULL, told_by TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL, "
                "CONSTRAINT pk_chart_limits PRIMARY KEY (line, stratum, version))"
            ),
            (
                "CREATE TABLE job_release (job_order_id TEXT NOT NULL, number BIGINT NOT NULL, setup TEXT NOT NULL, "
                "decision TEXT NOT NULL, evidence TEXT NOT NULL, told_by TEXT NOT NULL, reason TEXT NOT NULL, "
                "at TEXT NOT NULL, CONSTRAINT pk_job_release PRIMARY KEY (job_order_id, number))"
            ),
            "CREATE INDEX ix_unit_attempt_ended_at ON unit_attempt (ended_at)",
            "CREATE INDEX ix_unit_attempt_operation ON unit_attempt (operation, unit)",
            (
                "INSERT INTO station_line SELECT a.node_id, max(j.line) FROM unit_attempt a "
                "JOIN job_order j ON j.job_order_id = a.job_order_id GROUP BY a.node_id"
            ),
        ),
        kept=("state_span", "load_time", "chart_limits", "job_release"),
        sqlite=(_SPANS_SQLITE,),
        postgresql=(_SPANS_POSTGRESQL,),
    ),
    Step(
        9,
        "job orders as the MES commands them, and what the MES is told",
        both=(
            (
                "CREATE TABLE order_word (request_id TEXT NOT NULL, job_order_id TEXT NOT NULL, "
                "version BIGINT NOT NULL, command TEXT NOT NULL, sha256 TEXT NOT NULL, status TEXT NOT NULL, "
                "dispatch_status TEXT NOT NULL, code TEXT NOT NULL, text TEXT NOT NULL, at TEXT NOT NULL, "
                "CONSTRAINT pk_order_word PRIMARY KEY (request_id))"
            ),
            "CREATE INDEX ix_order_word_job_order_id ON order_word (job_order_id)",
            (
                "CREATE TABLE order_end (job_order_id TEXT NOT NULL, line TEXT NOT NULL, at TEXT NOT NULL, "
                "responded_at TEXT NOT NULL, CONSTRAINT pk_order_end PRIMARY KEY (job_order_id))"
            ),
            (
                "CREATE TABLE line_log (line TEXT NOT NULL, seq BIGINT NOT NULL, name TEXT NOT NULL, "
                "body {blob} NOT NULL, at TEXT NOT NULL, CONSTRAINT pk_line_log PRIMARY KEY (line, seq))"
            ),
            (
                "CREATE TABLE line_cursor (node_id TEXT NOT NULL, seq BIGINT NOT NULL, "
                "CONSTRAINT pk_line_cursor PRIMARY KEY (node_id))"
            ),
            (
                "CREATE TABLE line_ack (line TEXT NOT NULL, through BIGINT NOT NULL, "
                "CONSTRAINT pk_line_ack PRIMARY KEY (line))"
            ),
        ),
        kept=("order_word", "line_log"),
    ),
    Step(
        10,
        "signed production orders, and the units counted under them",
        both=(
            (
                "CREATE TABLE production_order (order_id TEXT NOT NULL, version BIGINT NOT NULL, sku TEXT NOT NULL, "
                "quantity BIGINT NOT NULL, from_at TEXT NOT NULL, until_at TEXT NOT NULL, key_id TEXT NOT NULL, "
                "sha256 TEXT NOT NULL, document {blob} NOT NULL, taken_at TEXT NOT NULL, "
                "CONSTRAINT pk_production_order PRIMARY KEY (order_id, version))"
            ),
            "CREATE INDEX ix_production_order_sku ON production_order (sku)",
            (
                "CREATE TABLE quota_unit (eid TEXT NOT NULL, order_id TEXT NOT NULL, version BIGINT NOT NULL, "
                "number BIGINT NOT NULL, event_id TEXT NOT NULL, at TEXT NOT NULL, "
                "CONSTRAINT pk_quota_unit PRIMARY KEY (eid), "
                "CONSTRAINT uq_quota_unit_order_id_number UNIQUE (order_id, number), "
                "CONSTRAINT fk_quota_unit_eid FOREIGN KEY(eid) REFERENCES chip (eid), "
                "CONSTRAINT fk_quota_unit_order_id_version FOREIGN KEY(order_id, version) "
                "REFERENCES production_order (order_id, version))"
            ),
        ),
        kept=("production_order", "quota_unit"),
    ),
    Step(
        11,
        "rework: profiles that leave their chip again, and what the chips say of it",
        both=(
            (
                "CREATE TABLE rework_order (rework_id TEXT NOT NULL, eid TEXT NOT NULL, sku TEXT NOT NULL, "
                "region TEXT NOT NULL, sealed BOOLEAN NOT NULL, told_by TEXT NOT NULL, reason TEXT NOT NULL, "
                "at TEXT NOT NULL, CONSTRAINT pk_rework_order PRIMARY KEY (rework_id), "
                "CONSTRAINT fk_rework_order_eid FOREIGN KEY(eid) REFERENCES chip (eid))"
            ),
            "CREATE INDEX ix_rework_order_eid ON rework_order (eid)",
            (
                "CREATE TABLE rework_package (package_id TEXT NOT NULL, rework_id TEXT NOT NULL, "
                "CONSTRAINT pk_rework_package PRIMARY KEY (package_id), "
                "CONSTRAINT fk_rework_package_package_id FOREIGN KEY(package_id) REFERENCES package (package_id), "
                "CONSTRAINT fk_rework_package_rework_id FOREIGN KEY(rework_id) REFERENCES rework_order (rework_id))"
            ),
            "CREATE INDEX ix_rework_package_rework_id ON rework_package (rework_id)",
            (
                "CREATE TABLE removal (package_id TEXT NOT NULL, node_id TEXT NOT NULL, seq BIGINT NOT NULL, "
                "gone BOOLEAN NOT NULL, result BIGINT, reason TEXT NOT NULL, notification {blob}, at TEXT NOT NULL, "
                "CONSTRAINT pk_removal PRIMARY KEY (package_id, node_id, seq), "
                "CONSTRAINT fk_removal_package_id FOREIGN KEY(package_id) REFERENCES rework_package (package_id), "
                "CONSTRAINT fk_removal_node_id_seq FOREIGN KEY(node_id, seq) REFERENCES event (node_id, seq))"
            ),
            "CREATE UNIQUE INDEX ux_removal_gone ON removal (package_id) WHERE gone",
        ),
        kept=("rework_order", "rework_package", "removal"),
    ),
    Step(
        12,
        "attempts at units that were tried more than once, apart, to be counted quickly",
        both=(
            (
                "CREATE TABLE unit_again (node_id TEXT NOT NULL, seq BIGINT NOT NULL, operation TEXT NOT NULL, "
                "unit TEXT NOT NULL, ended_at TEXT NOT NULL, CONSTRAINT pk_unit_again PRIMARY KEY (node_id, seq), "
                "CONSTRAINT fk_unit_again_node_id_seq FOREIGN KEY(node_id, seq) REFERENCES event (node_id, seq))"
            ),
            "CREATE INDEX ix_unit_again_ended_at ON unit_again (ended_at)",
            (
                "INSERT INTO unit_again SELECT a.node_id, a.seq, a.operation, a.unit, a.ended_at FROM unit_attempt a "
                "JOIN (SELECT operation, unit FROM unit_attempt WHERE unit <> '' GROUP BY operation, unit "
                "HAVING count(*) > 1) b ON b.operation = a.operation AND b.unit = a.unit"
            ),
        ),
        kept=("unit_again",),
    ),
    Step(
        13,
        "the bytes of packages that can never be loaded again may go",
        sqlite=(
            "DROP TRIGGER package_bytes_unchanged",
            (
                f"CREATE TRIGGER package_bytes_unchanged BEFORE UPDATE ON package_bytes WHEN {_STILL_NEEDED} "
                f"BEGIN SELECT RAISE(ABORT, '{_SAY_KEPT}'); END"
            ),
        ),
        postgresql=(
            "DROP TRIGGER package_bytes_fixed ON package_bytes",
            (
                "CREATE FUNCTION ifpp_bytes_needed() RETURNS trigger LANGUAGE plpgsql AS $rule$ "
                f"BEGIN IF {_STILL_NEEDED} THEN RAISE EXCEPTION '{_SAY_KEPT}' "
                "USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $rule$"
            ),
            (
                "CREATE TRIGGER package_bytes_fixed BEFORE UPDATE ON package_bytes FOR EACH ROW "
                "EXECUTE FUNCTION ifpp_bytes_needed()"
            ),
        ),
        catch_up=(),
    ),
    Step(
        14,
        "units that nobody had allowed, and what the MES says of them afterwards: of results from here on",
        both=(
            (
                "CREATE TABLE unasked (node_id TEXT NOT NULL, seq BIGINT NOT NULL, job_order_id TEXT NOT NULL, "
                "eid TEXT NOT NULL, result TEXT NOT NULL, code TEXT NOT NULL, text TEXT NOT NULL, "
                "answered_at TEXT NOT NULL, CONSTRAINT pk_unasked PRIMARY KEY (node_id, seq), "
                "CONSTRAINT fk_unasked_node_id_seq FOREIGN KEY(node_id, seq) REFERENCES event (node_id, seq))"
            ),
            "CREATE INDEX ix_unasked_eid ON unasked (eid)",
            "CREATE INDEX ix_unasked_open ON unasked (node_id, seq) WHERE result = ''",
            "CREATE INDEX ix_unasked_refused ON unasked (answered_at) WHERE result = 'FAIL'",
        ),
    ),
    Step(
        15,
        "activation codes: stock that a claim ties to a chip",
        both=(
            (
                "CREATE TABLE code (code_id TEXT NOT NULL, batch {number} NOT NULL, address TEXT NOT NULL, "
                "oid TEXT NOT NULL, matching_id TEXT NOT NULL, confirmation_code TEXT NOT NULL, sku TEXT NOT NULL, "
                "region TEXT NOT NULL, profile_type TEXT NOT NULL, expires_at TEXT, package_id TEXT, "
                "ties INTEGER NOT NULL, CONSTRAINT pk_code PRIMARY KEY (code_id), "
                "CONSTRAINT uq_code_address_matching_id UNIQUE (address, matching_id), "
                "CONSTRAINT fk_code_batch FOREIGN KEY(batch) REFERENCES batch (number), "
                "CONSTRAINT fk_code_package_id FOREIGN KEY(package_id) REFERENCES package (package_id))"
            ),
            "CREATE INDEX ix_code_free ON code (sku, region, code_id) WHERE package_id IS NULL",
            "CREATE INDEX ix_code_batch ON code (batch)",
            "CREATE UNIQUE INDEX ux_code_package_id ON code (package_id) WHERE package_id IS NOT NULL",
            "CREATE INDEX ix_package_code ON package (sku, region, state) WHERE bpp_bytes = 0",
        ),
        sqlite=(
            "DROP TRIGGER package_identity",
            (
                f"CREATE TRIGGER package_identity BEFORE UPDATE OF {_PACKAGE_IDENTITY} ON package  "
                f"BEGIN SELECT RAISE(ABORT, '{_SAY_IDENTITY}'); END"
            ),
            (
                f"CREATE TRIGGER code_identity BEFORE UPDATE OF {_CODE_IDENTITY} ON code  "
                f"BEGIN SELECT RAISE(ABORT, '{_SAY_IDENTITY}'); END"
            ),
            f"CREATE TRIGGER code_kept BEFORE DELETE ON code  BEGIN SELECT RAISE(ABORT, '{_SAY_KEPT}'); END",
            *(
                f"CREATE TRIGGER {name} BEFORE {when} ON {table} WHEN {bad} BEGIN SELECT RAISE(ABORT, '{say}'); END"
                for name, table, when, bad, say, _ in _CODE_RULES
            ),
        ),
        postgresql=(
            "DROP TRIGGER package_identity ON package",
            (
                f"CREATE TRIGGER package_identity BEFORE UPDATE OF {_PACKAGE_IDENTITY} ON package FOR EACH ROW "
                "EXECUTE FUNCTION ifpp_identity()"
            ),
            (
                f"CREATE TRIGGER code_identity BEFORE UPDATE OF {_CODE_IDENTITY} ON code FOR EACH ROW "
                "EXECUTE FUNCTION ifpp_identity()"
            ),
            "CREATE TRIGGER code_kept BEFORE DELETE ON code FOR EACH ROW EXECUTE FUNCTION ifpp_kept()",
            "CREATE TRIGGER code_cut BEFORE TRUNCATE ON code FOR EACH STATEMENT EXECUTE FUNCTION ifpp_kept()",
            *(
                f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $rule$ BEGIN IF {bad} THEN "
                f"RAISE EXCEPTION '{say}' USING ERRCODE = 'check_violation'; END IF; RETURN NEW; END $rule$"
                for _, _, _, bad, say, function in _CODE_RULES
            ),
            *(
                f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
                for name, table, when, _, _, function in _CODE_RULES
            ),
        ),
    ),
)
SCHEMA_VERSION = STEPS[-1].version
"""The schema this ifpp works with."""


def works_since(steps: Sequence[Step], version: int) -> int:
    """Return the oldest schema whose ifpp can work with schema `version`."""
    for step in reversed([step for step in steps if step.version <= version]):
        if step.catch_up is None:
            return step.version
    return FIRST_VERSION
