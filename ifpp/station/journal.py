"""The station's journal and outbox: one SQLite file, one writer thread, group commit with fsync.

Every durable change is a function over the connection, run inside a transaction of the writer thread. Functions that
arrive together share one commit; one that fails is rolled back alone. The future given back completes only after
the commit is on disk (`synchronous=FULL`), so "future done" means "survives a power cut".
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec

from ifpp.errors import CustodyError
from ifpp.model.clock import Clock, utc_ms_text
from ifpp.model.messages import Message, Rejected
from ifpp.model.states import PackageState

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE package (
    attempt_id TEXT NOT NULL, package_id TEXT NOT NULL, eid TEXT NOT NULL, iccid TEXT NOT NULL,
    transaction_id TEXT NOT NULL, bpp_sha256 TEXT NOT NULL, head_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('SENT', 'INSTALLED', 'FAILED', 'UNKNOWN')),
    spent INTEGER NOT NULL, reason TEXT NOT NULL, pir BLOB, sent_at TEXT NOT NULL, settled_at TEXT,
    PRIMARY KEY (attempt_id, package_id)) STRICT;
CREATE INDEX package_by_eid ON package (eid);
CREATE TABLE unit (eid TEXT PRIMARY KEY, attempts INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body BLOB NOT NULL,
    stored_at TEXT NOT NULL, acked_at TEXT, rejected TEXT) STRICT; -- the newest row stays: it carries the number
CREATE INDEX outbox_open ON outbox (seq) WHERE acked_at IS NULL;
"""


@dataclass(frozen=True, slots=True)
class SentPackage:
    """A package whose first byte is about to leave: what must be known after a crash."""

    attempt_id: str
    package_id: str
    eid: str
    iccid: str
    transaction_id: str
    bpp_sha256: str
    head_id: str


@dataclass(frozen=True, slots=True)
class SettledPackage:
    """What became of one sent package."""

    attempt_id: str
    package_id: str
    state: PackageState
    spent: bool
    reason: str
    pir: bytes | None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A durable event; `name` is the last topic level, `body` the JSON document as it is sent every time."""

    seq: int
    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """Events not yet acknowledged and when the oldest was stored ("" when there is none)."""

    count: int
    oldest_at: str


class Journal:
    """Open with `Journal.open`; every method but `close` may be called from any thread and returns a future."""

    def __init__(self, path: Path, station_id: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.boot_id = str(uuid4())
        self.on_event: Callable[[], None] = lambda: None  # called on the writer thread when one was stored
        self._appended = False
        self._queue: queue.SimpleQueue[tuple[Change[object], Future[object]] | None] = queue.SimpleQueue()
        self._connection = _connect(path, station_id)
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, station_id: str, clock: Clock) -> Journal:
        """Open or create the journal of one station.

        Raises CustodyError: JOURNAL.WRITE (cannot be opened or written), CUSTODY.FOREIGN_JOURNAL (another station's),
        CUSTODY.SCHEMA_NEWER.
        """
        try:
            return cls(path, station_id, clock)
        except sqlite3.Error as error:
            raise CustodyError("JOURNAL.WRITE", str(error), where=str(path)) from error

    # ---- what a unit leaves behind ----------------------------------------------------------------

    def sent(self, package: SentPackage) -> Future[None]:
        """Write the intent to send; wait for the future before the first byte of the BPP leaves."""
        now = utc_ms_text(self._clock.now())

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO package VALUES (?, ?, ?, ?, ?, ?, ?, 'SENT', 0, '', NULL, ?, NULL)",
                (
                    package.attempt_id,
                    package.package_id,
                    package.eid,
                    package.iccid,
                    package.transaction_id,
                    package.bpp_sha256,
                    package.head_id,
                    now,
                ),
            )

        return self._submit(change)

    def settled(self, package: SettledPackage) -> Future[None]:
        """Write what became of a sent package, before its result is removed from the chip."""
        return self._submit(lambda connection: self._settle(connection, package))

    def next_attempt(self, eid: str) -> Future[int]:
        """Count one more attempt of this unit at this station; returns its number, from 1."""

        def change(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO unit VALUES (?, 1) ON CONFLICT (eid) DO UPDATE SET attempts = attempts + 1 "
                "RETURNING attempts",
                (eid,),
            ).fetchone()
            return int(row[0])

        return self._submit(change)

    def close_unit(self, packages: list[SettledPackage], events: list[tuple[str, Message]]) -> Future[None]:
        """Commit outcome and outgoing events of one unit together; only then the lamp may show it."""

        def change(connection: sqlite3.Connection) -> None:
            for package in packages:
                self._settle(connection, package)
            for name, event in events:
                self._append(connection, name, event)

        return self._submit(change)

    def events(self, events: list[tuple[str, Message]]) -> Future[None]:
        """Store durable events: (last topic level, document without `seq`)."""
        return self.close_unit([], events)

    # ---- the outbox -------------------------------------------------------------------------------

    def unacked(self, after_seq: int, limit: int) -> Future[list[OutboxRow]]:
        """Return up to `limit` unacknowledged events with a number above `after_seq`, in order."""

        def read(connection: sqlite3.Connection) -> list[OutboxRow]:
            rows = connection.execute(
                "SELECT seq, name, body FROM outbox WHERE acked_at IS NULL AND seq > ? ORDER BY seq LIMIT ?",
                (after_seq, limit),
            )
            return [OutboxRow(*row) for row in rows]

        return self._submit(read)

    def acknowledge(self, through: int, rejected: list[Rejected]) -> Future[int]:
        """Close every event up to `through`; keep what was rejected and why. Returns how many were closed now.

        Raises CustodyError (CUSTODY.SEQ_CONFLICT) when `through` is a number this journal never gave out.
        """
        now = utc_ms_text(self._clock.now())

        def change(connection: sqlite3.Connection) -> int:
            last = connection.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0]
            if through > last:
                raise CustodyError(
                    "CUSTODY.SEQ_CONFLICT", f"event {through} was acknowledged, but only {last} exist", where=self._name
                )
            for row in rejected:
                reason = f"{row.code}: {row.text}"
                connection.execute(
                    "UPDATE outbox SET rejected = ?, acked_at = ? WHERE seq = ? AND id = ? AND acked_at IS NULL",
                    (reason, now, row.seq, row.id),
                )
            done = connection.execute(
                "UPDATE outbox SET acked_at = ? WHERE acked_at IS NULL AND seq <= ?", (now, through)
            )
            return done.rowcount

        return self._submit(change)

    def depth(self) -> Future[OutboxDepth]:
        """Return how many events wait for their acknowledgement."""

        def read(connection: sqlite3.Connection) -> OutboxDepth:
            count, oldest = connection.execute(
                "SELECT count(*), coalesce(min(stored_at), '') FROM outbox WHERE acked_at IS NULL"
            ).fetchone()
            return OutboxDepth(count, oldest)

        return self._submit(read)

    def range(self) -> Future[tuple[int, int]]:
        """Return (first sequence number kept, next sequence number)."""

        def read(connection: sqlite3.Connection) -> tuple[int, int]:
            first, last = connection.execute(
                "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM outbox"
            ).fetchone()
            return first, last + 1

        return self._submit(read)

    def next_session(self) -> Future[int]:
        """Count one more connection to the broker and return its number; it never steps back."""

        def change(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO meta VALUES ('session', '1') "
                "ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1 RETURNING value"
            ).fetchone()
            return int(row[0])

        return self._submit(change)

    def close(self) -> None:
        """Commit what is queued and close the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    # ---- inside -----------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return str(self._path)

    def _settle(self, connection: sqlite3.Connection, package: SettledPackage) -> None:
        connection.execute(
            "UPDATE package SET state = ?, spent = ?, reason = ?, pir = coalesce(?, pir), settled_at = ? "
            "WHERE attempt_id = ? AND package_id = ?",
            (
                package.state.value,
                int(package.spent),
                package.reason,
                package.pir,
                utc_ms_text(self._clock.now()),
                package.attempt_id,
                package.package_id,
            ),
        )

    def _append(self, connection: sqlite3.Connection, name: str, event: Message) -> None:
        """Give the event its number in the transaction that stores it."""
        self._appended = True
        event.seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM outbox").fetchone()[0]
        connection.execute(
            "INSERT INTO outbox (seq, id, name, body, stored_at) VALUES (?, ?, ?, ?, ?)",
            (event.seq, event.id, name, msgspec.json.encode(event), utc_ms_text(self._clock.now())),
        )

    def _submit(self, change: Change[T]) -> Future[T]:
        future: Future[T] = Future()
        self._queue.put((change, future))  # type: ignore[arg-type]  # a queue of many result types
        return future

    def _write(self) -> None:
        """The writer thread: take what has come, one transaction, then tell everybody."""
        while (entry := self._queue.get()) is not None:
            batch = [entry]
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            self._commit(batch)

    def _commit(self, batch: list[tuple[Change[object], Future[object]]]) -> None:
        outcomes: list[tuple[Future[object], object, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for change, future in batch:
                outcomes.append((future, *self._run(change)))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            fault = CustodyError("JOURNAL.WRITE", str(error), where=self._name)
            outcomes = [(future, None, fault) for _, future in batch]
        if self._appended:
            self._appended = False
            self.on_event()
        for future, result, failure in outcomes:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _run(self, change: Change[object]) -> tuple[object, BaseException | None]:
        """Run one change so that its own failure leaves the others of the batch alone."""
        self._connection.execute("SAVEPOINT one")
        try:
            result = change(self._connection)
        except sqlite3.IntegrityError as error:
            self._connection.execute("ROLLBACK TO one")
            return None, CustodyError("CUSTODY.TRANSITION", str(error), where=self._name)
        except sqlite3.Error:
            raise  # the file, not this change: everything of this commit fails
        except Exception as error:  # noqa: BLE001 - whatever a change does, the writer thread must live
            self._connection.execute("ROLLBACK TO one")
            return None, error
        finally:
            self._connection.execute("RELEASE one")
        return result, None


def _connect(path: Path, station_id: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise CustodyError(
            "CUSTODY.SCHEMA_NEWER", f"journal version {version}, known {SCHEMA_VERSION}", where=str(path)
        )
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"  # our own constants
        )
        connection.execute("INSERT INTO meta VALUES ('station_id', ?)", (station_id,))
    owner = connection.execute("SELECT value FROM meta WHERE key = 'station_id'").fetchone()
    if owner is None or owner[0] != station_id:
        connection.close()
        found = "nobody" if owner is None else owner[0]
        raise CustodyError("CUSTODY.FOREIGN_JOURNAL", f"it belongs to {found}, not {station_id}", where=str(path))
    return connection


def count_acknowledged(path: Path, name: str) -> int:
    """Count the events called `name` in a closed journal that were acknowledged and not rejected.

    Raises CustodyError JOURNAL.WRITE when it cannot be read.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        with closing(connection):
            query = "SELECT count(*) FROM outbox WHERE name = ? AND acked_at IS NOT NULL AND rejected IS NULL"
            return int(connection.execute(query, (name,)).fetchone()[0])
    except sqlite3.Error as error:
        raise CustodyError("JOURNAL.WRITE", str(error), where=str(path)) from error
