"""A whole factory in one file and back; on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, IfppError, ServiceError, SettingsError
from ifpp.store.backup import backup, restore
from ifpp.store.factory import Factory
from ifpp.store.migrate import migrate
from tests.clock import START
from tests.real.postgres import Postgres
from tests.store.raw import raw
from tests.store.test_migrate import old_postgres, old_sqlite
from tests.store.world import Node, later, outcome, package_item, request, states, stock, take_one

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Gives the URL of a database that is not there yet, or is empty."""
    names = iter("abcdef")
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / next(names)}.db"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.own_database


def kinds(factory: Factory) -> list[str]:
    with factory.audit_log() as log:
        return [entry.kind for entry in log.entries("upkeep", 0, 100)]


def test_what_is_restored_is_what_was_there(new_database: NewDatabase, tmp_path: Path) -> None:
    url, file = new_database(), tmp_path / "factory.backup"
    with closing(Factory.open(url)) as factory:
        stock(factory, 3)
        claim = factory.claim(request(1, "a"), START)
        written = backup(url, file, later(1))
        factory.mark_sent(claim.packages[0].package_id, "a", "st01", later(2))
        assert kinds(factory) == ["opened", "backup"]
        factory_id = factory.factory_id
    assert (written.factory_id, written.size) == (factory_id, file.stat().st_size)
    assert file.stat().st_mode & 0o777 == 0o600
    again = new_database()
    assert restore(file, again, later(3)).sha256 == written.sha256
    with closing(Factory.open(again)) as factory:
        assert factory.factory_id == factory_id
        assert kinds(factory) == ["opened", "restored"]
        assert states(factory, 1) == ["CLAIMED"]  # as it was when the backup was made
        assert factory.package_bytes(package_item(1).bpp_sha256) == package_item(1).bpp
        word = outcome(1, 0, "INSTALLED", package_id=claim.packages[0].package_id)
        take_one(factory, Node().result(1, "a", [word]), later(4))
        assert factory.audit() == []
        with raw(again) as connection, pytest.raises(Exception, match="neither changed nor deleted"):
            connection.execute("DELETE FROM ledger")


def test_a_backup_while_stations_work_holds(new_database: NewDatabase, tmp_path: Path) -> None:
    url = new_database()
    with closing(Factory.open(url)) as factory:
        stock(factory, 60)
        half = threading.Event()

        def work() -> None:
            for number in range(1, 61):
                package = factory.claim(request(number, f"a{number}"), START).packages[0]
                factory.mark_sent(package.package_id, f"a{number}", "st01", START)
                if number == 10:
                    half.set()

        working = threading.Thread(target=work)
        working.start()
        assert half.wait(30)
        backup(url, tmp_path / "backup", later(1))
        working.join()
        assert factory.audit() == []
    again = new_database()
    restore(tmp_path / "backup", again, later(2))
    with closing(Factory.open(again)) as factory:
        assert factory.audit() == []
        (balance,) = factory.balance()
        assert balance.holds
        assert balance.sent >= 10


def test_nothing_is_overwritten(new_database: NewDatabase, tmp_path: Path) -> None:
    url, file = new_database(), tmp_path / "backup"
    Factory.open(url).close()
    file.write_text("precious")
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        backup(url, file, START)
    assert file.read_text() == "precious"
    backup(url, tmp_path / "other", START)
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        restore(tmp_path / "other", url, START)
    assert sorted(path.name for path in tmp_path.glob("*.part*")) == []


def test_what_is_no_backup_is_refused(new_database: NewDatabase, tmp_path: Path) -> None:
    url, file, broken = new_database(), tmp_path / "backup", tmp_path / "broken"
    with closing(Factory.open(url)) as factory:
        stock(factory, 5)
    backup(url, file, START)
    content = file.read_bytes()
    for bad in (b"", b"not a database at all " * 500, content[: len(content) // 2]):
        broken.write_bytes(bad)
        with pytest.raises(IfppError, match=r"BACKUP\.(BROKEN|TOOL)"):
            restore(broken, new_database(), START)
    with pytest.raises(CustodyError, match=r"BACKUP\.BROKEN.*no such file"):
        restore(tmp_path / "absent", new_database(), START)
    assert sorted(path.name for path in tmp_path.glob("*.part*")) == []


def test_a_foreign_database_is_not_backed_up(new_database: NewDatabase, tmp_path: Path) -> None:
    url = new_database()
    with raw(url) as connection:
        connection.execute("CREATE TABLE precious (content text)")
    with pytest.raises(SettingsError, match="not a factory database"):
        backup(url, tmp_path / "backup", START)
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def test_an_old_database_is_backed_up_before_it_is_migrated(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        old, again = old_sqlite(tmp_path), f"sqlite:///{tmp_path / 'again.db'}"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        old, again = old_postgres(server), server.own_database()
    written = backup(old, tmp_path / "backup", later(10))
    assert written.version == 2
    migrate(old, later(11))
    restore(tmp_path / "backup", again, later(12))
    migrate(again, later(13))
    with closing(Factory.open(again)) as factory:
        assert factory.audit() == []
        assert kinds(factory)[:3] == ["opened", "restored", "schema"]


# ---- SQLite only ------------------------------------------------------------------------------------


def test_a_changed_copy_does_not_pass(sqlite_url: str, tmp_path: Path) -> None:
    """Every byte is in its place for SQLite, but the books do not hold."""
    with closing(Factory.open(sqlite_url)) as factory:
        stock(factory, 2)
    backup(sqlite_url, tmp_path / "backup", START)
    with closing(sqlite3.connect(tmp_path / "backup")) as connection, connection:
        connection.execute("DROP TRIGGER ledger_unchanged")
        connection.execute("UPDATE ledger SET node_id = 'x' WHERE entry = 1")
    with pytest.raises(CustodyError, match=r"BACKUP\.BROKEN"):
        restore(tmp_path / "backup", f"sqlite:///{tmp_path / 'again.db'}", START)
    assert not (tmp_path / "again.db").exists()


def test_the_leftover_of_a_lost_database_is_not_mixed_with_a_backup(sqlite_url: str, tmp_path: Path) -> None:
    """SQLite would replay a WAL it finds beside the restored file."""
    Factory.open(sqlite_url).close()
    backup(sqlite_url, tmp_path / "backup", START)
    (tmp_path / "again.db-wal").write_bytes(b"old")
    with pytest.raises(CustodyError, match=r"again\.db-wal"):
        restore(tmp_path / "backup", f"sqlite:///{tmp_path / 'again.db'}", START)


def test_a_wrong_name_makes_no_database(tmp_path: Path) -> None:
    for act in (lambda url: backup(url, tmp_path / "backup", START), lambda url: migrate(url, START)):
        with pytest.raises(SettingsError, match=r"SETTINGS\.MISSING"):
            act(f"sqlite:///{tmp_path / 'typo.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(sqlite_url: str, tmp_path: Path) -> None:
    Factory.open(sqlite_url).close()
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        backup(sqlite_url, tmp_path / "absent" / "backup", START)


# ---- PostgreSQL only --------------------------------------------------------------------------------


@pytest.mark.needs("postgresql")
def test_a_machine_without_the_programs_is_told_so(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_server.own_database()
    Factory.open(url).close()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(ServiceError, match=r"BACKUP\.TOOL: pg_dump: .*Install PostgreSQL"):
            backup(url, tmp_path / "backup", START)
    assert not (tmp_path / "backup").exists()
    assert shutil.which("pg_dump")


@pytest.mark.needs("postgresql")
def test_the_password_is_not_on_the_command_line(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in place of pg_dump writes down what it was called with."""
    url = postgres_server.own_database()
    Factory.open(url).close()
    spy = tmp_path / "pg_dump"
    spy.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/words\necho "$PGPASSWORD" >{tmp_path}/password\nexit 3\n')
    spy.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=":")
        with pytest.raises(ServiceError, match="ended with 3"):
            backup(url.replace("ifpp@", "ifpp:hush-hush@"), tmp_path / "backup", START)
    assert "hush" not in (tmp_path / "words").read_text()
    assert (tmp_path / "password").read_text() == "hush-hush\n"
