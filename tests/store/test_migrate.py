"""From a database that an older ifpp made to the present one; on SQLite and on PostgreSQL.

`schema2.*.sql` are dumps of databases that the first ifpp with an audit log made and worked with.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, inspect

from ifpp.errors import CustodyError, SettingsError
from ifpp.store import backup as backups
from ifpp.store import migrate as module
from ifpp.store import rules
from ifpp.store.factory import Factory
from ifpp.store.migrate import migrate
from ifpp.store.steps import FIRST_VERSION, SCHEMA_VERSION, STEPS, Step, works_since
from tests.real.postgres import Postgres
from tests.store.raw import raw
from tests.store.world import Node, later, outcome, request, states, take_one

HERE = Path(__file__).parent


def old_sqlite(folder: Path) -> str:
    path = folder / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "schema2.sqlite.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{path}"


def old_postgres(server: Postgres) -> str:
    url = server.own_database()
    with psycopg.connect(url) as connection:
        connection.execute((HERE / "schema2.postgresql.sql").read_bytes())
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return old_sqlite(tmp_path)
    return old_postgres(request.getfixturevalue("postgres_server"))


def shape(url: str) -> dict[str, Any]:
    """Everything a database is made of, but for the order and the defaults of columns that came later."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        known = inspect(connection)
        tables = {
            table: {
                "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in known.get_columns(table)},
                "primary key": known.get_pk_constraint(table),
                "foreign keys": sorted(map(repr, known.get_foreign_keys(table))),
                "unique": sorted(map(repr, known.get_unique_constraints(table))),
                "checks": sorted(map(repr, known.get_check_constraints(table))),
            }
            for table in known.get_table_names()
        }
        connection.rollback()
        if url.startswith("sqlite"):
            rest = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type <> 'table'").all()
        else:
            rest = [
                *connection.exec_driver_sql(
                    "SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes "
                    "WHERE schemaname = current_schema()"
                ).all(),
                *connection.exec_driver_sql(
                    "SELECT tgname, replace(pg_get_triggerdef(t.oid), n.nspname || '.', '') FROM pg_trigger t "
                    "JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace "
                    "WHERE NOT tgisinternal AND n.nspname = current_schema()"
                ).all(),
                *connection.exec_driver_sql(
                    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"
                ).all(),
            ]
        return {"tables": tables, "rest": sorted((name, " ".join(str(sql).split())) for name, sql in rest)}


def test_steps_are_numbered_without_a_gap() -> None:
    assert [step.version for step in STEPS] == list(range(FIRST_VERSION + 1, SCHEMA_VERSION + 1))


def test_an_old_database_is_refused_until_it_is_migrated(old: str) -> None:
    with pytest.raises(CustodyError, match=r"CUSTODY\.SCHEMA_OLDER.*store migrate"):
        Factory.open(old)
    assert migrate(old, later(10)) == list(STEPS)
    assert migrate(old, later(11)) == []
    with closing(Factory.open(old)) as factory:
        assert factory.audit() == []
        with factory.audit_log() as log:
            kinds = [(entry.kind, entry.at) for entry in log.entries("upkeep", 0, 100)]
        assert kinds == [("opened", "2026-03-01T08:00:10.000Z")] + [("schema", "2026-03-01T08:00:10.000Z")] * len(STEPS)


def test_what_was_in_the_books_goes_on(old: str) -> None:
    migrate(old, later(10))
    with closing(Factory.open(old)) as factory:
        assert [states(factory, number) for number in (1, 2, 3, 4)] == [
            ["INSTALLED"],
            ["SENT"],
            ["CLAIMED"],
            ["AVAILABLE"],
        ]
        (balance,) = factory.balance()
        assert balance.holds
        node = Node(seq=1)
        take_one(factory, node.result(2, "a2", [outcome(2, 0, "INSTALLED", package_id="000002-0000002")]), later(20))
        package = factory.claim(request(4, "a4"), later(21)).packages[0]
        factory.mark_sent(package.package_id, "a4", "st01", later(22))
        assert [states(factory, number) for number in (2, 4)] == [["INSTALLED"], ["SENT"]]
        assert factory.audit() == []


def test_a_migrated_database_is_like_a_new_one(old: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    migrate(old, later(10))
    new = f"sqlite:///{tmp_path / 'new.db'}"
    if old.startswith("postgresql"):
        new = request.getfixturevalue("postgres_server").new_database()
    Factory.open(new).close()
    one, other = shape(old), shape(new)
    assert one["tables"] == other["tables"]
    assert one["rest"] == other["rest"]


def test_a_step_that_fails_leaves_the_version_before_it(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(old)
    broken = Step(FIRST_VERSION + 1, "broken", both=("CREATE TABLE half (one TEXT)", "CREATE TABLE half (two TEXT)"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "STEPS", (broken,))
        with pytest.raises(Exception, match="already exists"):
            migrate(old, later(10))
    assert shape(old) == before
    assert migrate(old, later(11)) == list(STEPS)


def test_nothing_is_migrated_while_others_have_it_open(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OTHERS_LEAVE_S", 0.3)
    with raw(old) as other:
        other.execute("SELECT * FROM meta").fetchall()
        with pytest.raises(CustodyError, match=r"DATABASE\.IN_USE"):
            migrate(old, later(10))
    monkeypatch.undo()
    assert migrate(old, later(11)) == list(STEPS)


@pytest.mark.parametrize(("version", "code"), [(SCHEMA_VERSION + 1, "NEWER"), (FIRST_VERSION - 1, "OLDER")])
def test_there_is_no_way_from_everywhere(old: str, version: int, code: str) -> None:
    with raw(old) as connection:
        connection.execute(f"UPDATE meta SET value = '{version}' WHERE key = 'schema_version'")
    with pytest.raises(CustodyError, match=rf"CUSTODY\.SCHEMA_{code}"):
        migrate(old, later(10))


def test_a_foreign_database_is_left_alone(url: str) -> None:
    with raw(url) as connection:
        connection.execute("CREATE TABLE precious (content text)")
    with pytest.raises(SettingsError, match="not a factory database"):
        migrate(url, later(10))


# ---- back to the ifpp of the version before --------------------------------------------------------------

_NEXT = SCHEMA_VERSION + 1
_TALLY = "CREATE TABLE tally (package_id TEXT NOT NULL PRIMARY KEY)"
_COUNT = (
    "INSERT INTO tally SELECT package_id FROM package p WHERE p.state = 'SENT' "
    "AND NOT EXISTS (SELECT 1 FROM tally t WHERE t.package_id = p.package_id)"
)


class Release:
    """Be the ifpp that knows one schema, for what follows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def knows(self, *steps: Step) -> None:
        known = (*STEPS, *steps)
        for place in (module, rules, backups):
            for name, value in (("STEPS", known), ("SCHEMA_VERSION", known[-1].version)):
                if hasattr(place, name):
                    self._patch.setattr(place, name, value)


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Release:
    return Release(monkeypatch)


def test_one_may_go_back_to_the_ifpp_before_and_on_again(old: str, release: Release, tmp_path: Path) -> None:
    step = Step(_NEXT, "a tally of what was sent", both=(_TALLY,), catch_up=(_COUNT,))
    migrate(old, later(10))
    release.knows(step)
    assert migrate(old, later(11)) == [step]
    Factory.open(old).close()

    release.knows()  # rolled back: a unit goes on with the older ifpp
    with closing(Factory.open(old)) as factory:
        package = factory.claim(request(4, "a4"), later(12)).packages[0]
        factory.mark_sent(package.package_id, "a4", "st01", later(13))
        assert factory.audit() == []
    if old.startswith("sqlite"):
        backups.backup(old, tmp_path / "back", later(14))

    release.knows(step)
    with pytest.raises(CustodyError, match=rf"CUSTODY\.SCHEMA_OLDER.*knows schema {SCHEMA_VERSION}.*store migrate"):
        Factory.open(old)
    assert migrate(old, later(15)) == []
    with closing(Factory.open(old)) as factory:
        assert factory.audit() == []
        with factory.audit_log() as log:
            last = log.entries("upkeep", 0, 100)[-1]
    assert b"wrote meanwhile" in last.facts
    with raw(old) as connection:
        tally = {row[0] for row in connection.execute("SELECT package_id FROM tally").fetchall()}
    assert package.package_id in tally


def test_a_step_that_does_not_say_so_lets_no_older_ifpp_in(old: str, release: Release) -> None:
    migrate(old, later(10))
    release.knows(Step(_NEXT, "a tally", both=(_TALLY,)))
    migrate(old, later(11))
    release.knows()
    with pytest.raises(CustodyError, match=r"CUSTODY\.SCHEMA_NEWER"):
        Factory.open(old)


@pytest.mark.parametrize(
    ("catch_up", "since"), [((None, None), 4), ((None, ()), 3), (((), ()), FIRST_VERSION), (((), None), 4)]
)
def test_who_may_work_with_a_schema(catch_up: tuple[tuple[str, ...] | None, ...], since: int) -> None:
    steps = [Step(number, "", catch_up=text) for number, text in enumerate(catch_up, 3)]
    assert works_since(steps, 4) == since
