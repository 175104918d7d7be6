"""Group commit: one transaction for those who wait together, and none pays for another's fault."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from ifpp.errors import CustodyError, IfppError, ServiceError
from ifpp.store.database import Database
from ifpp.store.group import GroupCommit
from ifpp.store.trail import Trail

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Bench:
    """A table of names, transactions that can be held or made to fail at their commit, and a count of them."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'names.db'}", busy_timeout_s=5.0)
        with self.database.write() as connection:
            connection.execute(text("CREATE TABLE names (name TEXT PRIMARY KEY)"))
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.commits = 0
        self.fault: Exception | None = None
        self.notes: list[str] = []
        self.group = GroupCommit(self._begin, self.database.named)

    @contextmanager
    def _begin(self, now: datetime) -> Iterator[tuple[Connection, Trail]]:
        trail = Trail(now.isoformat())
        with self.database.write() as connection:
            self.entered.set()
            assert self.gate.wait(10)
            yield connection, trail
            if self.fault is not None:
                raise self.fault
        self.commits += 1
        self.notes += [note.kind for note in trail.notes]

    def add(self, name: str, *, refuse: bool = False) -> str:
        def change(connection: Connection, trail: Trail) -> str:
            connection.execute(text("INSERT INTO names VALUES (:name)"), {"name": name})
            trail.note(name)
            if refuse:
                raise CustodyError("CUSTODY.TRANSITION", name)
            return f"added {name}"

        return self.group.run(NOW, change)

    def names(self) -> set[Any]:
        with self.database.read() as connection:
            return set(connection.execute(text("SELECT name FROM names")).scalars())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.database.close()


def waiting_together(bench: Bench, count: int, pool: ThreadPoolExecutor) -> None:
    """Hold the first transaction until `count` others have lined up behind it."""
    while len(bench.group._waiting) < count:
        threading.Event().wait(0.005)


def test_those_who_wait_share_one_transaction(bench: Bench) -> None:
    bench.gate.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(bench.add, "first")
        assert bench.entered.wait(10)
        others = [pool.submit(bench.add, f"n{number}") for number in range(8)]
        waiting_together(bench, 8, pool)
        bench.gate.set()
        assert first.result() == "added first"
        assert [other.result() for other in others] == [f"added n{number}" for number in range(8)]
    assert bench.commits == 2
    assert len(bench.names()) == len(bench.notes) == 9


def test_a_refused_change_is_rolled_back_alone_with_what_it_noted(bench: Bench) -> None:
    bench.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        pool.submit(bench.add, "first")
        assert bench.entered.wait(10)
        good, bad, last = (pool.submit(bench.add, name, refuse=name == "bad") for name in ("good", "bad", "last"))
        waiting_together(bench, 3, pool)
        bench.gate.set()
        with pytest.raises(CustodyError):
            bad.result()
        assert (good.result(), last.result()) == ("added good", "added last")
    assert bench.names() == set(bench.notes) == {"first", "good", "last"}


@pytest.mark.parametrize("fault", [ServiceError("DATABASE.UNREACHABLE", "gone"), RuntimeError("unforeseen")])
def test_nobody_takes_a_failed_commit_for_done(bench: Bench, fault: Exception) -> None:
    bench.fault = fault
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(bench.add, name) for name in "abc"]:
            with pytest.raises(type(fault)):
                done.result()
    assert bench.names() == set()
    bench.fault = None
    assert bench.add("after") == "added after"


def test_what_the_database_refuses_of_a_call_for_all_is_tried_one_by_one(bench: Bench) -> None:
    calls: list[list[str]] = []

    def change(connection: Connection, trail: Trail, asked: Sequence[str]) -> list[str | IfppError]:
        calls.append(list(asked))
        connection.execute(text("INSERT INTO names VALUES (:name)"), [{"name": name} for name in asked])
        for name in asked:
            trail.note(name)
        return list(asked)

    bench.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        pool.submit(bench.add, "first")
        assert bench.entered.wait(10)
        good, twice, last = (pool.submit(bench.group.together, NOW, change, name) for name in ("a", "first", "b"))
        waiting_together(bench, 3, pool)
        bench.gate.set()
        with pytest.raises(CustodyError):
            twice.result()
        assert (good.result(), last.result()) == ("a", "b")
    assert (len(calls), len(calls[0])) == (4, 3)
    assert bench.names() == set(bench.notes) == {"first", "a", "b"}
