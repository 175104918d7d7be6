"""The station's journal and outbox: one SQLite file, one writer thread, group commit with fsync.

Every durable change is a function over the connection, run inside a transaction of the writer thread. Functions that
arrive together share one commit; one that fails is rolled back alone. The future given back completes only after
the commit is on disk (`synchronous=FULL`), so "future done" means "survives a power cut".

`Kept` records are stored in their turn even when the file cannot be written for a while (see `ifpp.station.writer`).
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import msgspec

from ifpp.errors import CustodyError
from ifpp.model.clock import Clock, utc_ms_text
from ifpp.model.messages import Message, Rejected, StateChanged
from ifpp.model.states import PackageState
from ifpp.station.records import (
    ClosedUnit,
    Events,
    Kept,
    LeftOpen,
    OutboxDepth,
    OutboxRow,
    SentPackage,
    SettledPackage,
    Whereabouts,
)
from ifpp.station.tables import SCHEMA_VERSION, WORKS_SINCE, put_life, put_place, put_will, since
from ifpp.station.writer import Change, Outcome, Writer

_RESOLVE = (
    "UPDATE package SET resolved_by = ? "
    "WHERE eid = ? AND state IN ('SENT', 'UNKNOWN') AND resolved_by = '' AND attempt_id <> ?"
)
_FREE = (
    "DELETE FROM hold WHERE eid = ? AND NOT EXISTS (SELECT 1 FROM package "
    "WHERE package.eid = hold.eid AND state IN ('SENT', 'UNKNOWN') AND resolved_by = '')"
)
_LINK_KEPT = timedelta(days=7)  # then the largest blocks are tried again: the link may have been mended
_KNOWN = (PackageState.INSTALLED, PackageState.FAILED)


class Journal:
    """Open with `Journal.open`; every method but `close` may be called from any thread and returns at once.

    `on_event` is called on the writer thread when events were stored; it may not raise.
    """

    def __init__(
        self, path: Path, station_id: str, clock: Clock, *, busy_timeout_s: float, retry_s: tuple[float, float]
    ) -> None:
        self._path = path
        self._clock = clock
        self.boot_id = str(uuid4())
        self.on_event: Callable[[], object] = lambda: None
        self.clock_ok = True  # told with every event that is stored from here on
        self._lock = _lock(path)
        try:
            self._file = _File(path, _connect(path, station_id, busy_timeout_s))
            self._session = self._file.session()
        except BaseException:
            self._lock.close()
            raise
        self._appended = False
        self._writer = Writer(self._file, self._prove, retry_s, self._stored)

    @classmethod
    def open(
        cls,
        path: Path,
        station_id: str,
        clock: Clock,
        *,
        busy_timeout_s: float = 2.0,
        retry_s: tuple[float, float] = (0.2, 10.0),
    ) -> Journal:
        """Open or create the journal of one station.

        `busy_timeout_s` is how long a lock of somebody else is waited for, `retry_s` the first and the longest pause
        while the file cannot be written. Raises CustodyError: JOURNAL.WRITE (cannot be opened or written),
        CUSTODY.JOURNAL_IN_USE (this station runs already), CUSTODY.FOREIGN_JOURNAL (another station's),
        CUSTODY.SCHEMA_NEWER, CUSTODY.SCHEMA_OLDER.
        """
        try:
            return cls(path, station_id, clock, busy_timeout_s=busy_timeout_s, retry_s=retry_s)
        except (sqlite3.Error, OSError) as error:
            raise CustodyError("JOURNAL.WRITE", str(error), where=str(path)) from error

    # ---- what the last process left ---------------------------------------------------------------

    def left_open(self) -> Future[LeftOpen]:
        """Read what the last process did not bring to its end; to be asked before anything is written."""

        def read(connection: sqlite3.Connection) -> LeftOpen:
            newest = connection.execute("SELECT stored_at FROM outbox ORDER BY seq DESC LIMIT 1").fetchone()
            running = connection.execute("SELECT 1 FROM meta WHERE key = 'running'").fetchone()
            rows = connection.execute("SELECT name, e10, code, since FROM resource")
            return LeftOpen(
                wills=[body for (body,) in connection.execute("SELECT body FROM will ORDER BY rowid")],
                died=running is not None,
                last_at="" if newest is None else newest[0],
                resources={name: Whereabouts(e10, code, since) for name, e10, code, since in rows},
            )

        return self._writer.read(read)

    def begin(self, recovered: list[ClosedUnit], events: Events, resources: dict[str, Whereabouts]) -> Kept:
        """Close what the last process left open and store the events that tell of it, before anything of this one.

        `resources` is where the heads stand from now on.
        """

        def change(connection: sqlite3.Connection) -> None:
            for unit in recovered:
                self._close_attempt(connection, unit)
            for name, event in events:
                self._append(connection, name, event)
            for name, where in resources.items():
                put_place(connection, name, where)
            connection.execute(
                "INSERT INTO meta VALUES ('running', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (self.boot_id,),
            )

        return self._writer.keep(change)

    # ---- what a unit leaves behind ----------------------------------------------------------------

    def sent(self, package: SentPackage, will: bytes) -> Future[None]:
        """Write the intent to send; wait for the future before the first byte of the BPP leaves.

        `will` is the attempt's unit_result document as it is to be sent if this process dies now.
        """
        now = utc_ms_text(self._clock.now())

        def change(connection: sqlite3.Connection) -> None:
            put_will(connection, package.attempt_id, will)
            connection.execute(
                "INSERT INTO package VALUES (?, ?, ?, ?, ?, ?, ?, 'SENT', 0, '', NULL, ?, NULL, '')",
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

        return self._writer.write(change)

    def removing(self, attempt_id: str, will: bytes) -> Future[None]:
        """Write what is to be told if this process dies while a profile leaves the chip; wait as for `sent`."""
        return self._writer.write(lambda connection: put_will(connection, attempt_id, will))

    def settled(self, package: SettledPackage, will: bytes) -> Future[None]:
        """Write what became of a sent package, before its result is removed from the chip; `will` as of `sent`."""

        def change(connection: sqlite3.Connection) -> None:
            self._settle(connection, package)
            connection.execute("UPDATE will SET body = ? WHERE attempt_id = ?", (will, package.attempt_id))

        return self._writer.write(change)

    def result(self, eid: str, package_id: str) -> Future[bytes | None]:
        """Return the newest raw result this station ever stored of a package; None when there is none."""

        def read(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(
                "SELECT pir FROM package WHERE eid = ? AND package_id = ? AND pir IS NOT NULL "
                "ORDER BY rowid DESC LIMIT 1",
                (eid, package_id),
            ).fetchone()
            return None if row is None else row[0]

        return self._writer.read(read)

    def next_attempt(self, eid: str) -> Future[int]:
        """Count one more attempt of this unit at this station; returns its number, from 1."""

        def change(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO unit VALUES (?, 1) ON CONFLICT (eid) DO UPDATE SET attempts = attempts + 1 "
                "RETURNING attempts",
                (eid,),
            ).fetchone()
            return int(row[0])

        return self._writer.write(change)

    def block_size(self, card: str, port: str) -> Future[int | None]:
        """Return how large the blocks of a card type were lately learnt to be on a port, in bytes; None: not known."""
        since = utc_ms_text(self._clock.now() - _LINK_KEPT)

        def read(connection: sqlite3.Connection) -> int | None:
            query = "SELECT block_size FROM link WHERE card = ? AND port = ? AND learnt_at > ?"
            row = connection.execute(query, (card, port, since)).fetchone()
            return None if row is None else int(row[0])

        return self._writer.read(read)

    def learn_block_size(self, card: str, port: str, block_size: int) -> Kept:
        """Remember how large the blocks of a card type may be on a port."""
        now = utc_ms_text(self._clock.now())

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO link VALUES (?, ?, ?, ?) ON CONFLICT (card, port) "
                "DO UPDATE SET block_size = excluded.block_size, learnt_at = excluded.learnt_at",
                (card, port, block_size, now),
            )

        return self._writer.keep(change)

    def close_unit(self, unit: ClosedUnit) -> Kept:
        """Commit outcome, holds and outgoing events of one unit together; only when stored the lamp may show it."""
        return self._writer.keep(lambda connection: self._close_attempt(connection, unit))

    def events(self, events: Events, lives: Mapping[str, bytes] | None = None) -> Kept:
        """Store durable events, and with them the lives of the heads they changed."""

        def change(connection: sqlite3.Connection) -> None:
            for name, event in events:
                self._append(connection, name, event)
            for head_id, life in (lives or {}).items():
                put_life(connection, head_id, life)

        return self._writer.keep(change)

    def lives(self) -> Future[dict[str, bytes]]:
        """Return the life of every head that ever had a unit: head id -> record."""
        return self._writer.read(lambda connection: dict(connection.execute("SELECT head_id, body FROM life")))

    def told(self, event_id: str) -> Future[bool]:
        """Return whether the event of this id was stored here and is still kept."""

        def read(connection: sqlite3.Connection) -> bool:
            return connection.execute("SELECT 1 FROM outbox WHERE id = ?", (event_id,)).fetchone() is not None

        return self._writer.read(read)

    def read(self, look: Change[sqlite3.Connection, object]) -> Future[Any]:
        """Return what `look` reads, outside of any transaction."""
        return self._writer.read(look)

    def write(self, change: Change[sqlite3.Connection, object]) -> Future[Any]:
        """Run a change of tables that are somebody else's (`rsp_book`), as safely as every other."""
        return self._writer.write(change)

    def held(self) -> Future[dict[str, str]]:
        """Return every held unit, longest held first: EID -> why, and what the operator does."""

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            rows = connection.execute("SELECT eid, code, action FROM hold ORDER BY since, eid")
            return {eid: f"{code}: {action}" for eid, code, action in rows}

        return self._writer.read(read)

    # ---- the outbox -------------------------------------------------------------------------------

    def unacked(self, after_seq: int, limit: int) -> Future[list[OutboxRow]]:
        """Return up to `limit` unacknowledged events with a number above `after_seq`, in order."""

        def read(connection: sqlite3.Connection) -> list[OutboxRow]:
            rows = connection.execute(
                "SELECT seq, name, body FROM outbox WHERE acked_at IS NULL AND seq > ? ORDER BY seq LIMIT ?",
                (after_seq, limit),
            )
            return [OutboxRow(*row) for row in rows]

        return self._writer.read(read)

    def acknowledge(self, through: int, rejected: list[Rejected]) -> Future[int]:
        """Close every event up to `through`; keep what was rejected and why. Returns how many were closed now.

        Raises CustodyError (CUSTODY.SEQ_CONFLICT) when `through` is a number this journal never gave out.
        """
        now = utc_ms_text(self._clock.now())

        def change(connection: sqlite3.Connection) -> int:
            last = connection.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0]
            if through > last:
                raise CustodyError(
                    "CUSTODY.SEQ_CONFLICT",
                    f"event {through} was acknowledged, but only {last} exist",
                    where=str(self._path),
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

        return self._writer.write(change)

    def take_back_acks(self) -> Future[int]:
        """Let every event that is still kept be sent again, also rejected ones; returns how many were closed."""

        def change(connection: sqlite3.Connection) -> int:
            reopen = "UPDATE outbox SET acked_at = NULL, rejected = NULL WHERE acked_at IS NOT NULL AND name <> ''"
            return connection.execute(reopen).rowcount

        return self._writer.write(change)

    def depth(self) -> Future[OutboxDepth]:
        """Return how many events wait for their acknowledgement, and how many the supervisor put aside."""

        def read(connection: sqlite3.Connection) -> OutboxDepth:
            count, oldest = connection.execute(
                "SELECT count(*), coalesce(min(stored_at), '') FROM outbox WHERE acked_at IS NULL"
            ).fetchone()
            rejected = connection.execute("SELECT count(*) FROM outbox WHERE rejected IS NOT NULL").fetchone()[0]
            return OutboxDepth(count, oldest, rejected)

        return self._writer.read(read)

    def range(self) -> Future[tuple[int, int]]:
        """Return (first sequence number kept, next sequence number)."""

        def read(connection: sqlite3.Connection) -> tuple[int, int]:
            first, last = connection.execute(
                "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM outbox"
            ).fetchone()
            return first, last + 1

        return self._writer.read(read)

    def purge(self, before: str, limit: int = 1000) -> Future[int]:
        """Remove up to `limit` events acknowledged before a time, oldest first; returns how many.

        What waits or was rejected stays, and so does the newest event: it carries the sequence number.
        """

        def change(connection: sqlite3.Connection) -> int:
            done = connection.execute(
                "DELETE FROM outbox WHERE seq IN (SELECT seq FROM (SELECT seq, acked_at FROM outbox "
                "WHERE acked_at IS NOT NULL AND rejected IS NULL ORDER BY seq LIMIT ?) "
                "WHERE acked_at < ?) AND seq < (SELECT max(seq) FROM outbox)",
                (limit, before),
            )
            return done.rowcount

        return self._writer.write(change)

    def next_session(self) -> Future[int]:
        """Count one more connection to the broker and return its number; it never steps back.

        In trouble the number is given out before it is stored.
        """
        self._session += 1
        session = self._session
        kept = self._writer.keep(
            lambda connection: connection.execute(
                "INSERT INTO meta VALUES ('session', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(session),),
            )
        )
        answer: Future[int] = Future()
        kept.tried.add_done_callback(lambda _tried: answer.set_result(session))
        return answer

    def watch(self, on_trouble: Callable[[CustodyError | None], object]) -> None:
        """Have `on_trouble` called on the writer thread: with the fault when the file cannot be written, then with None
        when it can again. It may not raise.
        """
        self._writer.on_trouble = on_trouble

    def close(self) -> None:
        """Commit what is queued and close the file; what cannot be stored even now is given up."""
        self._writer.close()
        self._file.close(self.boot_id if self._writer.trouble is None else "")
        self._lock.close()

    # ---- inside a transaction ---------------------------------------------------------------------

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

    def _close_attempt(self, connection: sqlite3.Connection, unit: ClosedUnit) -> None:
        """Settle its packages, close older open rows of what is known now, hold or free the unit, tell."""
        for package in unit.packages:
            self._settle(connection, package)
            if package.state in _KNOWN:
                resolved = (unit.attempt_id, unit.eid, unit.attempt_id, package.package_id)
                connection.execute(f"{_RESOLVE} AND package_id = ?", resolved)
        if unit.finished:
            connection.execute(_RESOLVE, (unit.attempt_id, unit.eid, unit.attempt_id))
        connection.execute("DELETE FROM will WHERE attempt_id = ?", (unit.attempt_id,))
        if unit.eid:
            self._hold_or_free(connection, unit)
        if unit.life is not None:
            put_life(connection, *unit.life)
        for name, event in unit.events:
            self._append(connection, name, event)

    def _hold_or_free(self, connection: sqlite3.Connection, unit: ClosedUnit) -> None:
        if unit.hold is not None:
            connection.execute(
                "INSERT INTO hold VALUES (?, ?, ?, ?) "
                "ON CONFLICT (eid) DO UPDATE SET code = excluded.code, action = excluded.action",
                (unit.eid, utc_ms_text(self._clock.now()), unit.hold.code, unit.hold.action),
            )
        elif unit.judged:
            connection.execute(_FREE, (unit.eid,))

    def _append(self, connection: sqlite3.Connection, name: str, event: Message) -> None:
        """Give the event its number in the transaction that stores it; one that is stored already is left alone."""
        self._appended = True
        event.seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM outbox").fetchone()[0]
        event.clock_ok = self.clock_ok
        connection.execute(
            "INSERT INTO outbox (seq, id, name, body, stored_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (event.seq, event.id, name, msgspec.json.encode(event), utc_ms_text(self._clock.now())),
        )
        if isinstance(event, StateChanged):
            put_place(connection, event.resource, Whereabouts(event.new, event.new_code, event.ts))

    def _prove(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO meta VALUES ('written_at', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (utc_ms_text(self._clock.now()),),
        )

    def _stored(self) -> None:
        if self._appended:
            self._appended = False
            self.on_event()


class _File:
    """The SQLite file: the one place where its errors become faults."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._identity = _identity(path)

    def transaction(self, changes: list[Change[sqlite3.Connection, object]]) -> list[Outcome]:
        if _identity(self._path) != self._identity:
            raise self._fault("the file was taken away or replaced")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._change(change) for change in changes]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise self._fault(str(error)) from error
        return outcomes

    def _change(self, change: Change[sqlite3.Connection, object]) -> Outcome:
        """Run one change so that its own failure leaves the others of the transaction alone."""
        self._connection.execute("SAVEPOINT one")
        try:
            result = change(self._connection)
        except sqlite3.IntegrityError as error:
            self._connection.execute("ROLLBACK TO one")
            return None, CustodyError("CUSTODY.TRANSITION", str(error), where=str(self._path))
        except sqlite3.Error:
            raise  # the file, not this change: the whole transaction fails
        except Exception as error:  # noqa: BLE001 - whatever a change does, the writer thread must live
            self._connection.execute("ROLLBACK TO one")
            return None, error
        finally:
            self._connection.execute("RELEASE one")
        return result, None

    def read(self, look: Change[sqlite3.Connection, object]) -> Outcome:
        try:
            return look(self._connection), None
        except sqlite3.Error as error:
            return None, self._fault(f"cannot be read: {error}")
        except Exception as error:  # noqa: BLE001 - as above
            return None, error

    def session(self) -> int:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'session'").fetchone()
        return 0 if row is None else int(row[0])

    def close(self, boot_id: str) -> None:
        with suppress(sqlite3.Error):  # only its own mark: this process may have looked into it and no more
            self._connection.execute("DELETE FROM meta WHERE key = 'running' AND value = ?", (boot_id,))
        self._connection.close()

    def _fault(self, detail: str) -> CustodyError:
        return CustodyError("JOURNAL.WRITE", detail, where=str(self._path))


def _lock(path: Path) -> IO[bytes]:
    """Hold the journal for this process; the system lets go of it when the process ends, however it ends."""
    lock = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CustodyError("CUSTODY.JOURNAL_IN_USE", "another process writes it", where=str(path)) from error
    return lock


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands under this name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path, station_id: str, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_timeout_s)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        _prepare(connection, path, station_id)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, station_id: str) -> None:
    """Make the tables of a new journal, or check that an old one is ours."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION and not _works_with(connection, SCHEMA_VERSION):
        detail = f"journal version {version}, known {SCHEMA_VERSION}"
        raise CustodyError("CUSTODY.SCHEMA_NEWER", detail, where=str(path))
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")  # all or nothing: a journal without owner would be nobody's for good
        _create(connection, since(version))
        connection.execute("INSERT INTO meta VALUES ('station_id', ?)", (station_id,))
        connection.execute("COMMIT")
    elif version < SCHEMA_VERSION and since(version):
        connection.execute("BEGIN IMMEDIATE")
        _create(connection, since(version))
        connection.execute("COMMIT")
    elif version < SCHEMA_VERSION:
        detail = f"journal version {version}, this ifpp writes {SCHEMA_VERSION}"
        raise CustodyError("CUSTODY.SCHEMA_OLDER", detail, where=str(path))
    owner = connection.execute("SELECT value FROM meta WHERE key = 'station_id'").fetchone()
    if owner is None or owner[0] != station_id:
        found = "nobody" if owner is None else owner[0]
        raise CustodyError("CUSTODY.FOREIGN_JOURNAL", f"it belongs to {found}, not {station_id}", where=str(path))


def _create(connection: sqlite3.Connection, tables: str) -> None:
    for statement in tables.split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('works_since', ?)", (str(WORKS_SINCE),))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _works_with(connection: sqlite3.Connection, version: int) -> bool:
    since = connection.execute("SELECT value FROM meta WHERE key = 'works_since'").fetchone()
    return since is not None and int(since[0]) <= version


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
