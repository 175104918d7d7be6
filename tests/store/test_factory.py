"""Opening, restarting, losing and sharing a factory database."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from ifpp.errors import CustodyError, LineTakenError, ServiceError, SettingsError
from ifpp.store.factory import Factory
from ifpp.store.steps import SCHEMA_VERSION
from tests.clock import START
from tests.real import postgres
from tests.store.raw import raw
from tests.store.world import eid, job, later, package_item, request, states, stock


def test_a_factory_keeps_its_identity(url: str) -> None:
    with closing(Factory.open(url)) as first:
        stock(first, 1)
        claim = first.claim(request(1, "a"), START)
        with closing(Factory.open(url)) as second:
            assert second.factory_id == first.factory_id
            assert second.claim(request(1, "a"), later(1)) == claim
    with closing(Factory.open(url)) as third:
        assert states(third, 1) == ["CLAIMED"]


@pytest.mark.parametrize(("umask", "mode"), [(0o007, 0o660), (0o077, 0o600)])
def test_users_of_a_group_share_a_new_database_where_the_umask_lets_them(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")):
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("factory.db", "factory.db-wal", "factory.db-shm"), mode)


def test_many_processes_may_open_a_new_database_at_once(url: str) -> None:
    opened: list[Factory] = []
    threads = [threading.Thread(target=lambda: opened.append(Factory.open(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert len({factory.factory_id for factory in opened}) == 1
    for factory in opened:
        factory.close()


@pytest.mark.parametrize(
    ("version", "code"), [(SCHEMA_VERSION + 1, "SCHEMA_NEWER"), (SCHEMA_VERSION - 1, "SCHEMA_OLDER")]
)
def test_another_schema_is_refused(url: str, version: int, code: str) -> None:
    Factory.open(url).close()
    with raw(url) as connection:
        connection.execute(f"UPDATE meta SET value = '{version}' WHERE key IN ('schema_version', 'works_since')")
    with pytest.raises(CustodyError, match=rf"CUSTODY\.{code}"):
        Factory.open(url)


def test_a_foreign_database_is_left_alone(url: str) -> None:
    with raw(url) as connection:
        connection.execute("CREATE TABLE meta (key text, value text)")
    with pytest.raises(SettingsError, match="not a factory database"):
        Factory.open(url)


@pytest.mark.parametrize("url", ["", "factory.db", "sqlite://", "sqlite:///:memory:", "mysql://h/db", "http://h/"])
def test_a_url_that_names_no_factory_database(url: str) -> None:
    with pytest.raises(SettingsError, match=r"SETTINGS\.INVALID"):
        Factory.open(url)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/absent/factory.db", f"postgresql://x@/x?host={tmp_path}"):
        with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
            Factory.open(url)


def test_passwords_do_not_show(tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as caught:
        Factory.open(f"postgresql://user:hush-hush@/x?host={tmp_path}")
    assert "hush" not in str(caught.value)


def test_sqlite_is_set_up_to_survive_a_power_cut(sqlite_url: str) -> None:
    with closing(Factory.open(sqlite_url)) as factory, factory._database.write() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
        }
        assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}


def test_a_locked_file_is_waited_for_then_reported(sqlite_url: str) -> None:
    """Another process holds the write lock: reading goes on, writing fails in time and works again afterwards."""
    with closing(Factory.open(sqlite_url, busy_timeout_s=0.2)) as factory:
        stock(factory, 1)
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
                factory.claim(request(1, "a"), START)
            assert states(factory, 1) == ["AVAILABLE"]
            other.execute("ROLLBACK")
        assert len(factory.claim(request(1, "a"), START).packages) == 1


@pytest.mark.needs("postgresql")
def test_a_locked_row_is_waited_for_then_reported(postgres_url: str) -> None:
    with closing(Factory.open(postgres_url, busy_timeout_s=0.2)) as factory:
        stock(factory, 2)
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT * FROM chip WHERE eid = %s FOR UPDATE", (eid(1),))
            with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
                factory.claim(request(1, "a"), START)
            assert len(factory.claim(request(2, "b"), START).packages) == 1
            other.rollback()
        assert len(factory.claim(request(1, "a"), START).packages) == 1


@pytest.mark.needs("postgresql")
def test_a_delivery_under_way_holds_no_head_up(postgres_url: str) -> None:
    """Packages of the chip are being imported while it is claimed."""
    with closing(Factory.open(postgres_url)) as one, closing(Factory.open(postgres_url, busy_timeout_s=0.2)) as two:
        stock(one, 1)
        with one.intake("esbpp", "more.jsonl", "digest", START) as intake:
            intake.add_package(package_item(1, 1))
            intake._flush()
            assert len(two.claim(request(1, "a"), START).packages) == 1
        assert states(two, 1) == ["CLAIMED", "AVAILABLE"]


def test_a_file_that_is_no_database(sqlite_url: str) -> None:
    Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(b"not a database " * 100)
    with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
        Factory.open(sqlite_url)


@pytest.mark.needs("postgresql")
def test_a_server_that_crashes_comes_back_with_everything_committed() -> None:
    with postgres.running() as server, closing(Factory.open(server.new_database())) as factory:
        stock(factory, 1)
        claim = factory.claim(request(1, "a"), START)
        server.stop("immediate")
        with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
            factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
        with pytest.raises(ServiceError, match=r"DATABASE\.UNREACHABLE"):
            factory.ping()
        server.start()
        factory.mark_sent(claim.packages[0].package_id, "a", "st01", START)
        factory.ping()
        assert states(factory, 1) == ["SENT"]
        assert factory.audit() == []


_VICTIM = """
import sys
from ifpp.store.factory import Factory
from ifpp.store.steps import SCHEMA_VERSION
from tests.clock import START
from tests.store.world import request
factory = Factory.open(sys.argv[1])
for number in range(1, 1000):
    claim = factory.claim(request(number, f"a{number}"), START)
    factory.mark_sent(claim.packages[0].package_id, f"a{number}", "st01", START)
    print(number, flush=True)
"""


def test_what_was_answered_survives_kill_9(url: str) -> None:
    with closing(Factory.open(url)) as factory:
        stock(factory, 1000)
    with subprocess.Popen([sys.executable, "-c", _VICTIM, url], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        said = 0
        for line in victim.stdout:
            said = int(line)
            if said == 40:
                victim.send_signal(signal.SIGKILL)
    with closing(Factory.open(url)) as factory:
        (balance,) = factory.balance()
        assert factory.audit() == []
        assert balance.holds
        assert balance.sent >= said >= 40
        assert balance.claimed + balance.sent <= said + 1
        assert {tuple(states(factory, number)) for number in (1, 20, said)} == {("SENT",)}


# ---- the line's lease -------------------------------------------------------------------------------


def test_a_line_has_one_supervisor(factory: Factory) -> None:
    assert factory.acquire_line("L1", "one", 15, START) == 1
    assert factory.acquire_line("L1", "one", 15, later(10)) == 1
    with pytest.raises(CustodyError, match=r"CUSTODY\.LINE_TAKEN"):
        factory.acquire_line("L1", "two", 15, later(24))
    assert factory.acquire_line("L2", "two", 15, later(24)) == 1
    assert factory.acquire_line("L1", "two", 15, later(25)) == 2
    with pytest.raises(CustodyError, match=r"CUSTODY\.LINE_TAKEN"):
        factory.acquire_line("L1", "one", 15, later(26))


def test_a_lease_that_nobody_renews_can_be_called_abandoned(factory: Factory) -> None:
    """Written by a clock that was a day ahead; whoever renews it in time keeps it."""
    assert factory.acquire_line("L1", "dead", 15, later(86400)) == 1
    with pytest.raises(LineTakenError) as taken:
        factory.acquire_line("L1", "two", 15, later(1))
    with pytest.raises(LineTakenError):
        factory.acquire_line("L1", "two", 15, later(2), abandoned="2026-03-01T08:00:00.000Z")
    assert factory.acquire_line("L1", "two", 15, later(2), abandoned=taken.value.until) == 2
    with pytest.raises(LineTakenError):
        factory.acquire_line("L1", "three", 15, later(3), abandoned=taken.value.until)


def test_every_tenure_has_its_own_epoch(factory: Factory) -> None:
    assert factory.acquire_line("L1", "one", 15, START) == 1
    assert factory.acquire_line("L1", "one", 15, later(20)) == 2
    factory.release_line("L1", "other", later(21))
    with pytest.raises(CustodyError, match=r"CUSTODY\.LINE_TAKEN"):
        factory.acquire_line("L1", "two", 15, later(21))
    factory.release_line("L1", "one", later(22))
    assert factory.acquire_line("L1", "two", 15, later(22)) == 3


def test_a_long_reader_sees_one_moment_and_holds_nobody_up(factory: Factory) -> None:
    stock(factory, 1)
    with factory._database.read() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM ledger").scalar()
        factory.claim(request(1, "a"), START)
        assert connection.exec_driver_sql("SELECT count(*) FROM ledger").scalar() == before
    assert states(factory, 1) == ["CLAIMED"]


def test_a_reader_cannot_write(postgres_url: str) -> None:
    with (
        closing(Factory.open(postgres_url)) as factory,
        pytest.raises(ServiceError, match="read-only"),
        factory._database.read() as connection,
    ):
        connection.exec_driver_sql("UPDATE meta SET value = ''")


def test_jobs_survive_a_restart(url: str) -> None:
    with closing(Factory.open(url)) as factory, factory.intake("job", "one", "1", START) as intake:
        intake.add_job("L1", job(1))
    with closing(Factory.open(url)) as factory:
        assert factory.jobs("L1") == [job(1)]
