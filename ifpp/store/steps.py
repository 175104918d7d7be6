"""The way of a factory database from one schema version to the next: ordered, numbered steps, never changed later.

A new database is made at once in its present shape (`ifpp.store.schema`, `ifpp.store.rules`); one made by an older ifpp
takes every step it lacks, each in one transaction with its entry in the audit log. What both ways lead to is the same,
and a test holds them against each other. Nothing migrates by itself: `ifpp store migrate`, after a backup, while
nothing else has the database open.

To change the schema: change `schema.py` and `rules.py`, and append one Step here.
"""

from __future__ import annotations

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
)
SCHEMA_VERSION = STEPS[-1].version
"""The schema this ifpp works with."""
