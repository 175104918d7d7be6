"""Group commit: short changes that come at the same moment share one transaction, and so one sync of the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from ifpp.errors import IfppError
from ifpp.model.clock import utc_ms_text
from ifpp.store.trail import Trail

T = TypeVar("T")
Asked = TypeVar("Asked")
Change = Callable[[Connection, Trail], T]
Together = Callable[[Connection, Trail, Sequence[Asked]], Sequence[T | IfppError]]
Begin = Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]


@dataclass(slots=True, eq=False)
class _Entry:
    """What one caller asks of a change and, once `done`, what came of it."""

    now: datetime
    change: Together[Any, Any]
    asked: Any
    done: bool = False
    result: Any = None
    failure: BaseException | None = None
    woken: threading.Event = field(default_factory=threading.Event)

    def settle(self, answer: object) -> None:
        if isinstance(answer, IfppError):
            self.failure = answer
        else:
            self.result = answer


class GroupCommit:
    """Whoever comes first commits for all who wait. A change that fails is rolled back alone and raises alone.

    Those who ask the same change of `together` are answered by one call of it; when that call fails, each of them is
    tried by itself. `begin` opens a transaction that is committed when its block ends; `named` turns the library's
    errors into ours. When the commit itself fails, every change of the group raises what it raised.
    """

    def __init__(self, begin: Begin, named: Callable[[], AbstractContextManager[None]]) -> None:
        self._begin = begin
        self._named = named
        self._guard = threading.Lock()
        self._led = False
        self._waiting: list[_Entry] = []

    def run(self, now: datetime, change: Change[T]) -> T:
        """Return what `change` returned, after it was committed; raises what it raised, or the commit's error."""

        def alone(connection: Connection, trail: Trail, _asked: Sequence[None]) -> Sequence[T | IfppError]:
            return [change(connection, trail)]

        return self.together(now, alone, None)

    def together(self, now: datetime, change: Together[Asked, T], asked: Asked) -> T:
        """Return what `change` answered to `asked`, after it was committed; raises it when it is an error, or `run`'s.

        `change` takes everything that is asked of it at this moment and answers in the same order; for what it answers
        with an error it has written nothing. The time of its trail is the latest of the callers'.
        """
        entry = _Entry(now, change, asked)
        with self._guard:
            self._waiting.append(entry)
            lead, self._led = not self._led, True
        if not lead:
            entry.woken.wait()
        if not entry.done:
            self._lead()
        if entry.failure is not None:
            raise entry.failure
        return cast(T, entry.result)

    def _lead(self) -> None:
        """Commit for all who wait, let them go, and make the first of those who came meanwhile the next leader.

        The lead is handed over, not raced for: a lock that all wait at goes back to the thread that has just had it,
        and groups would stay small.
        """
        with self._guard:
            group, self._waiting = self._waiting, []
        try:
            self._commit(group)
        finally:
            with self._guard:
                following = self._waiting[:1]
                self._led = bool(following)
            for entry in (*group, *following):
                entry.woken.set()

    def _commit(self, group: list[_Entry]) -> None:
        parts: dict[Together[Any, Any], list[_Entry]] = {}
        for entry in group:
            parts.setdefault(entry.change, []).append(entry)
        try:
            with self._begin(max(entry.now for entry in group)) as (connection, trail):
                if len(group) == 1:  # what fails alone needs no savepoint: the transaction goes with it
                    group[0].settle(*group[0].change(connection, trail, [group[0].asked]))
                else:
                    for part in parts.values():
                        self._apply(connection, trail, part)
        except BaseException as error:  # nobody of the group may take what was not committed for done
            for entry in group:
                entry.failure = entry.failure or error
            if not isinstance(error, Exception):
                raise
        finally:
            for entry in group:
                entry.done = True

    def _apply(self, connection: Connection, trail: Trail, entries: list[_Entry]) -> None:
        noted = Trail(utc_ms_text(max(entry.now for entry in entries)))
        try:
            with self._named(), connection.begin_nested():
                answers = entries[0].change(connection, noted, [entry.asked for entry in entries])
        except IfppError as error:
            if len(entries) == 1:
                entries[0].failure = error
                return
            for entry in entries:
                self._apply(connection, trail, [entry])
        else:
            for entry, answer in zip(entries, answers, strict=True):
                entry.settle(answer)
            trail.join(noted)
