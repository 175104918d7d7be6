"""The thread that writes the journal: group commit, and what must not be lost is tried until it is stored.

What arrives together shares one transaction; a change that is impossible fails alone. While the file cannot be written
(disk full, locked by another, damaged, taken away) the writer is in trouble: what must be kept waits in order and is
tried again, every other change fails at once, reading goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ifpp.errors import CustodyError
from ifpp.station.records import Kept

C = TypeVar("C")
T = TypeVar("T")
Change = Callable[[C], T]
Outcome = tuple[object, BaseException | None]
"""What a change gave, or why it is impossible."""


class File(Protocol[C]):
    """The file behind the writer; both are called on its thread only."""

    def transaction(self, changes: list[Change[C, object]]) -> list[Outcome]:
        """Run changes in order and return after they are on the disk; CustodyError JOURNAL.WRITE: none of them is."""

    def read(self, look: Change[C, object]) -> Outcome:
        """Read outside of any transaction."""


@dataclass(slots=True)
class _Entry(Generic[C]):
    """One thing to do; either `future` or `kept` waits for it."""

    change: Change[C, object]
    future: Future[object] | None = None
    kept: Kept | None = None
    reads: bool = False

    def finish(self, outcome: Outcome) -> None:
        """Tell whoever waits that it is done, or impossible."""
        result, failure = outcome
        if self.future is not None:
            _complete(self.future, result, failure)
        if self.kept is not None:
            if not self.kept.tried.done():
                _complete(self.kept.tried, True, failure)
            _complete(self.kept.stored, None, failure)

    def put_off(self, fault: CustodyError) -> None:
        """Tell whoever waits that it could not be written now."""
        if self.future is not None:
            self.future.set_exception(fault)
        if self.kept is not None and not self.kept.tried.done():
            self.kept.tried.set_result(False)


class Writer(Generic[C]):
    """Runs from its making until `close`. `prove` is a change that shows that writing works again.

    `retry_s`: first and longest pause between tries. `on_stored` is called on the thread after every commit,
    `on_trouble` with the fault when writing fails and with None when it works again; neither may raise.
    """

    def __init__(
        self, file: File[C], prove: Change[C, object], retry_s: tuple[float, float], on_stored: Callable[[], None]
    ) -> None:
        self._file = file
        self._prove = prove
        self._retry_first_s, self._retry_last_s = retry_s
        self._on_stored = on_stored
        self.on_trouble: Callable[[CustodyError | None], object] = lambda _fault: None
        self._queue: queue.SimpleQueue[_Entry[C] | None] = queue.SimpleQueue()
        self._owed: deque[_Entry[C]] = deque()
        self.trouble: CustodyError | None = None
        self._retry_s = self._retry_at_s = 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def read(self, look: Change[C, T]) -> Future[T]:
        """Read; sees every change submitted before that succeeded."""
        return self._put(look, reads=True)

    def write(self, change: Change[C, T]) -> Future[T]:
        """Write, or fail."""
        return self._put(change, reads=False)

    def keep(self, change: Change[C, object]) -> Kept:
        """Write, now or as soon as it can be."""
        kept = Kept()
        for future in (kept.tried, kept.stored):
            future.set_running_or_notify_cancel()
        self._queue.put(_Entry(change, kept=kept))
        return kept

    def close(self) -> None:
        """Do what was submitted before, try once more what is owed, and end; once more does no harm."""
        self._queue.put(None)
        self._thread.join()

    # ---- on the thread ----------------------------------------------------------------------------

    def _put(self, change: Change[C, T], *, reads: bool) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who stops waiting does not stop the change
        self._queue.put(_Entry(change, future=future, reads=reads))  # type: ignore[arg-type]  # many result types
        return future

    def _run(self) -> None:
        more = True
        while more:
            batch = self._take()
            more = None not in batch
            self._serve([entry for entry in batch if entry is not None])
            if self.trouble is not None and (not more or time.monotonic() >= self._retry_at_s):
                self._retry()
        for entry in self._owed:
            entry.finish((None, self._fault()))

    def _take(self) -> list[_Entry[C] | None]:
        """Wait for something to do, in trouble no longer than until the next try; return all there is."""
        batch: list[_Entry[C] | None] = []
        wait_s = None if self.trouble is None else max(0.0, self._retry_at_s - time.monotonic())
        with suppress(queue.Empty):
            batch.append(self._queue.get(timeout=wait_s))
            while True:
                batch.append(self._queue.get_nowait())
        return batch

    def _serve(self, batch: list[_Entry[C]]) -> None:
        writes = [entry for entry in batch if not entry.reads]
        if writes and self.trouble is None:
            self._commit(writes)
        elif writes:
            self._put_off(writes)
        for entry in batch:
            if entry.reads:
                entry.finish(self._file.read(entry.change))

    def _commit(self, entries: list[_Entry[C]]) -> None:
        try:
            outcomes = self._file.transaction([entry.change for entry in entries])
        except CustodyError as fault:
            self._stumble(fault)
            self._put_off(entries)
            return
        self._finish(entries, outcomes)

    def _retry(self) -> None:
        """Write what is owed, in order."""
        entries = list(self._owed)
        try:
            outcomes = self._file.transaction([*(entry.change for entry in entries), self._prove])
        except CustodyError as fault:
            self._stumble(fault)
            return
        self._owed.clear()
        self.trouble = None
        self.on_trouble(None)
        self._finish(entries, outcomes[:-1])

    def _finish(self, entries: list[_Entry[C]], outcomes: list[Outcome]) -> None:
        self._on_stored()
        for entry, outcome in zip(entries, outcomes, strict=True):
            entry.finish(outcome)

    def _stumble(self, fault: CustodyError) -> None:
        """Note that the file cannot be written, and when to try again."""
        first = self.trouble is None
        self._retry_s = self._retry_first_s if first else min(2 * self._retry_s, self._retry_last_s)
        self._retry_at_s = time.monotonic() + self._retry_s
        self.trouble = fault
        if first:
            self.on_trouble(fault)

    def _put_off(self, entries: list[_Entry[C]]) -> None:
        self._owed += [entry for entry in entries if entry.kept is not None]
        for entry in entries:
            entry.put_off(self._fault())

    def _fault(self) -> CustodyError:
        """The trouble as a fault of its own for each who is told."""
        if self.trouble is None:
            return CustodyError("JOURNAL.WRITE", "the journal was closed")
        return CustodyError(self.trouble.code, self.trouble.detail, where=self.trouble.where)


def _complete(future: Future[T], result: T, failure: BaseException | None) -> None:
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
