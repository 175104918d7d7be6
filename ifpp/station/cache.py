"""Packages kept at a station, to work while the store is away: one SQLite file beside the journal.

Each chip has the claim that was made ahead for it, and until when its packages may be loaded, by this station's own
clock: so long after they were asked for as the lease lasts, whatever the store's clock says. Time never steps back
here: within a process the monotonic clock holds it up, over a start the latest time that was seen. A clock that was
set back between two starts makes every lease worthless until it is renewed.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import msgspec

from ifpp.errors import CustodyError
from ifpp.model.clock import Clock, parse_utc, utc_ms_text
from ifpp.model.messages import Claim

_VERSION = 1
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE unit (
    eid TEXT PRIMARY KEY, lease_id TEXT NOT NULL, until TEXT NOT NULL, kept_at TEXT NOT NULL, sku TEXT NOT NULL,
    region TEXT NOT NULL, customer TEXT NOT NULL, job_order_id TEXT NOT NULL, claim BLOB NOT NULL,
    digest BLOB NOT NULL) STRICT;
CREATE TABLE package (
    sha256 TEXT PRIMARY KEY, eid TEXT NOT NULL REFERENCES unit (eid) ON DELETE CASCADE, bpp BLOB NOT NULL) STRICT;
CREATE INDEX package_by_eid ON package (eid);
"""
_LEASES = "SELECT eid, lease_id, until, kept_at, sku, region, customer, job_order_id FROM unit"
_OWN_TABLES = 3
_CLOCK_SLACK = timedelta(minutes=1)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What packages are fetched for; `job_order_id` "" = any job order of the product."""

    sku: str
    region: str
    customer: str = ""
    job_order_id: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long the packages of one chip may be loaded: until `until` by this station's clock, "" = not known."""

    eid: str
    lease_id: str
    until: str
    kept_at: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Holding:
    """What the cache holds: chips, when the oldest was kept and when the first lease ends ("" without one)."""

    units: int = 0
    oldest_at: str = ""
    first_until: str = ""


class Cache:
    """Open with `Cache.open`. Methods block for the disk and may be called from any thread.

    All raise CustodyError: CACHE.WRITE when the file cannot be written or read now, CACHE.CORRUPT when it is damaged.
    """

    def __init__(self, path: Path, station_id: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._guard = threading.Lock()
        self._lock = _lock(path)
        try:
            with self._named():
                self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                with self._named():
                    self._prepare(station_id)
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    @classmethod
    def open(cls, path: Path, station_id: str, clock: Clock) -> Cache:
        """Open or create the cache of one station.

        Raises CustodyError: CACHE.WRITE, CACHE.CORRUPT, CACHE.IN_USE (the station runs), CACHE.FOREIGN (another
        station's), CUSTODY.SCHEMA_NEWER. Nothing is changed in a file that is refused.
        """
        return cls(path, station_id, clock)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._lock.close()

    # ---- time -------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the time by which leases end here: it never steps back."""
        return max(self._clock.now(), self._began + timedelta(seconds=self._clock.monotonic() - self._began_s))

    def remember_job(self, state: bytes) -> None:
        """Keep what the line last said of its job orders."""
        with self._writing() as connection:
            _set(connection, "job", state.decode())

    def job(self) -> bytes | None:
        """Return what the line last said of its job orders."""
        rows = self._read("SELECT value FROM meta WHERE key = 'job'")
        return str(rows[0][0]).encode() if rows else None

    def remember_time(self) -> None:
        """Keep the present time, for the next start to tell whether the clock was set back."""
        with self._writing() as connection:
            _see(connection, self.now())

    # ---- packages ---------------------------------------------------------------------------------

    def keep(self, claim: Claim, wanted: Wanted, until: datetime, packages: Mapping[str, bytes]) -> None:
        """Keep a claim and its packages (SHA-256 -> content) in place of what there was of its chip."""
        body = msgspec.json.encode(claim)
        now = self.now()
        row = (claim.attempt_id, utc_ms_text(until), utc_ms_text(now), *_words(wanted), body, sha256(body).digest())
        with self._writing() as connection:
            connection.execute("DELETE FROM unit WHERE eid = ?", (claim.eid,))
            connection.execute("INSERT INTO unit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (claim.eid, *row))
            contents = [(digest, claim.eid, content) for digest, content in packages.items()]
            connection.executemany("INSERT INTO package VALUES (?, ?, ?)", contents)
            _see(connection, now)

    def lease(self, eid: str) -> Lease | None:
        """Return the lease of a chip; None when nothing is kept for it."""
        rows = self._read(_LEASES + " WHERE eid = ?", (eid,))
        return _lease(rows[0]) if rows else None

    def leases(self) -> list[Lease]:
        """Return every lease, the first to end first."""
        return [_lease(row) for row in self._read(_LEASES + " ORDER BY until, eid")]

    def claim(self, eid: str) -> Claim | None:
        """Return the claim of a chip as it was kept; None when nothing is kept for it."""
        rows = self._read("SELECT lease_id, claim, digest FROM unit WHERE eid = ?", (eid,))
        if not rows:
            return None
        ((lease_id, body, digest),) = rows
        if sha256(body).digest() != digest:
            raise self._fault("CACHE.CORRUPT", f"what is kept for EID {eid} has another digest")
        return msgspec.structs.replace(msgspec.json.decode(body, type=Claim), attempt_id=lease_id)

    def package(self, digest: str) -> bytes | None:
        """Return a package byte for byte; None when it is not kept."""
        rows = self._read("SELECT bpp FROM package WHERE sha256 = ?", (digest,))
        if not rows:
            return None
        content = bytes(rows[0][0])
        if sha256(content).hexdigest() != digest:
            raise self._fault("CACHE.CORRUPT", f"package {digest} has another digest")
        return content

    def relet(self, eid: str, lease_id: str) -> None:
        """The store gave the same packages to another claim of this station: they are held under its id now."""
        with self._writing() as connection:
            connection.execute("UPDATE unit SET lease_id = ? WHERE eid = ?", (lease_id, eid))

    def drop(self, eid: str) -> None:
        """Keep nothing for a chip; when this returns, no later start finds it."""
        with self._writing() as connection:
            connection.execute("DELETE FROM unit WHERE eid = ?", (eid,))

    def holding(self) -> Holding:
        """Return what is kept."""
        row = self._read("SELECT count(*), coalesce(min(kept_at), ''), coalesce(min(until), '') FROM unit")[0]
        return Holding(*row)

    # ---- inside -----------------------------------------------------------------------------------

    def _prepare(self, station_id: str) -> None:
        """Make a new file, or check that an old one is whole and ours; then look at the clock."""
        connection = self._connection
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise self._fault("CUSTODY.SCHEMA_NEWER", f"cache version {version}, known {_VERSION}")
        if not tables:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        else:
            self._check(station_id)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("INSERT INTO meta VALUES ('station_id', ?) ON CONFLICT DO NOTHING", (station_id,))
        seen = connection.execute("SELECT value FROM meta WHERE key = 'seen'").fetchone()
        self._began, self._began_s = self._clock.now(), self._clock.monotonic()
        if seen is not None and self._began + _CLOCK_SLACK < parse_utc(seen[0]):
            connection.execute("UPDATE unit SET until = ''")
            connection.execute("DELETE FROM meta WHERE key = 'seen'")

    def _check(self, station_id: str) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        known = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('unit', 'package', 'meta')")
        if found != "ok" or known.fetchone()[0] != _OWN_TABLES:
            raise self._fault("CACHE.CORRUPT", "no cache of ifpp" if found == "ok" else str(found))
        owner = self._connection.execute("SELECT value FROM meta WHERE key = 'station_id'").fetchone()
        if owner is not None and owner[0] != station_id:
            raise self._fault("CACHE.FOREIGN", f"it belongs to {owner[0]}, not {station_id}")

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._guard, self._named():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard, self._named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise self._fault("CACHE.CORRUPT" if primary in _DAMAGED else "CACHE.WRITE", str(error)) from error

    def _fault(self, code: str, detail: str) -> CustodyError:
        return CustodyError(code, detail, where=str(self._path))


def _lock(path: Path) -> IO[bytes]:
    try:
        lock = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise CustodyError("CACHE.WRITE", str(error), where=str(path)) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CustodyError("CACHE.IN_USE", "another process has it open", where=str(path)) from error
    return lock


def _lease(row: tuple[Any, ...]) -> Lease:
    eid, lease_id, until, kept_at, *wanted = map(str, row)
    return Lease(eid, lease_id, until, kept_at, Wanted(*wanted))


def _words(wanted: Wanted) -> tuple[str, ...]:
    return wanted.sku, wanted.region, wanted.customer, wanted.job_order_id


def _set(connection: sqlite3.Connection, key: str, value: str) -> None:
    change = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    connection.execute(change, (key, value))


def _see(connection: sqlite3.Connection, now: datetime) -> None:
    _set(connection, "seen", utc_ms_text(now))  # `Cache.now` never steps back, nor does this
