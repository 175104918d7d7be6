"""What stations ask for does not grow with the store: no step of it goes through all packages (SQLite says how)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.world import later, request, send_all, settle, stock

PARTS = tuple(f"SCAN package USING INDEX ix_package_{name}" for name in ("lease", "claimed"))  # the claimed ones alone


class Plans:
    """How SQLite carries every statement out, as it was bound."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.steps: list[str] = []

    def note(
        self, _connection: Connection, _cursor: object, statement: str, bound: Any, _context: object, many: bool
    ) -> None:
        if not statement.startswith(("SELECT", "UPDATE", "DELETE")):
            return
        with closing(sqlite3.connect(self._path)) as connection:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", bound[0] if many else bound)
            self.steps += [row[3] for row in rows]


def claim(factory: Factory, now: datetime) -> None:
    factory.claim(request(3), now)


def give_back(factory: Factory, now: datetime) -> None:
    factory.release("a", "st01", now)


def finish(factory: Factory, now: datetime) -> None:
    answer = factory.claim(request(2, "b"), now)
    send_all(factory, answer)
    settle(factory, answer, 2, "INSTALLED")


def sweep(factory: Factory, now: datetime) -> None:
    assert factory.expire_leases(now) == 1


@pytest.mark.parametrize(("work", "at_s"), [(claim, 0), (give_back, 0), (finish, 0), (sweep, 2000)])
def test_nothing_goes_through_every_package(
    sqlite_url: str, work: Callable[[Factory, datetime], None], at_s: float
) -> None:
    with closing(Factory.open(sqlite_url)) as factory:
        stock(factory, 4)
        factory.claim(request(1, "a"), START)
        plans = Plans(Path(sqlite_url.removeprefix("sqlite:///")))
        event.listen(Engine, "before_cursor_execute", plans.note)
        try:
            work(factory, later(at_s))
        finally:
            event.remove(Engine, "before_cursor_execute", plans.note)
    assert plans.steps
    assert [step for step in plans.steps if step.startswith("SCAN package") and step not in PARTS] == []
