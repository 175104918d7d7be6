"""Group commit: short changes that come at the same moment share one transaction, and so one sync of the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import Connection

from ifpp.errors import IfppError
from ifpp.model.clock import utc_ms_text
from ifpp.store.trail import Trail

T = TypeVar("T")
Change = Callable[[Connection, Trail], T]
Begin = Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    """One caller's change and, once `done`, what came of it."""

    now: datetime
    change: Change[T]
    done: bool = False
    result: T | None = None
    failure: Exception | None = None


class GroupCommit:
    """Whoever comes first commits for all who wait. A change that fails is rolled back alone and raises alone.

    `begin` opens a transaction that is committed when its block ends; `named` turns the library's errors into ours.
    When the commit itself fails, every change of the group raises what it raised.
    """

    def __init__(self, begin: Begin, named: Callable[[], AbstractContextManager[None]]) -> None:
        self._begin = begin
        self._named = named
        self._leader = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: list[_Entry[object]] = []

    def run(self, now: datetime, change: Change[T]) -> T:
        """Return what `change` returned, after it was committed; raises what it raised, or the commit's error."""
        entry: _Entry[T] = _Entry(now, change)
        with self._guard:
            self._waiting.append(entry)  # type: ignore[arg-type]  # a list of many result types
        with self._leader:
            if not entry.done:
                with self._guard:
                    group, self._waiting = self._waiting, []
                self._commit(group)
        if entry.failure is not None:
            raise entry.failure
        return entry.result  # type: ignore[return-value]  # T may be None itself

    def _commit(self, group: list[_Entry[object]]) -> None:
        try:
            with self._begin(max(entry.now for entry in group)) as (connection, trail):
                if len(group) == 1:  # what fails alone needs no savepoint: the transaction goes with it
                    group[0].result = group[0].change(connection, trail)
                else:
                    for entry in group:
                        self._apply(connection, trail, entry)
        except Exception as error:  # noqa: BLE001 - nobody of the group may take what was not committed for done
            for entry in group:
                entry.failure = entry.failure or error
        for entry in group:
            entry.done = True

    def _apply(self, connection: Connection, trail: Trail, entry: _Entry[object]) -> None:
        part = Trail(utc_ms_text(entry.now))
        try:
            with self._named(), connection.begin_nested():
                entry.result = entry.change(connection, part)
        except IfppError as error:
            entry.failure = error
        else:
            trail.join(part)
