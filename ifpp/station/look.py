"""A look at a station's journal from outside: nothing is opened for writing, nothing is made."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ifpp.errors import CustodyError
from ifpp.station.tables import SCHEMA_VERSION

_OLDEST = 2  # what is older is not taken over
SQLITE_NEEDED = (3, 37, 0)  # STRICT tables


@dataclass(frozen=True, slots=True)
class JournalLook:
    """Whose journal it is, whether a process has it, how many events wait, and how many attempts were left open."""

    station_id: str
    in_use: bool
    waiting: int
    open_attempts: int


@dataclass(frozen=True, slots=True)
class JournalRows:
    """What a journal says, row by row.

    `stored`: number and id of each event; `sendings`: EID, ICCID, state, whether its key is spent, whether the chip's
    result is kept, whether a later attempt knows better; `held`: EID and why.
    """

    stored: list[tuple[int, str]]
    sendings: list[tuple[str, str, str, bool, bool, bool]]
    held: list[tuple[str, str]]


def sqlite_version() -> tuple[int, int, int]:
    """Return the version of the SQLite this Python works with."""
    return sqlite3.sqlite_version_info[:3]


def look_at_journal(path: Path) -> JournalLook:
    """Look at a journal; its station may run.

    Raises CustodyError CUSTODY.SCHEMA_NEWER, CUSTODY.SCHEMA_OLDER, JOURNAL.WRITE when it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return _look(connection, path)
    except sqlite3.Error as error:
        raise CustodyError("JOURNAL.WRITE", f"cannot be read: {error}", where=str(path)) from error


def read_journal(path: Path) -> JournalRows:
    """Read the journal of a station that has ended; raises CustodyError JOURNAL.WRITE when it cannot be read."""
    sendings = "SELECT eid, iccid, state, spent, pir IS NOT NULL, resolved_by <> '' FROM package ORDER BY rowid"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as journal:
            return JournalRows(
                list(journal.execute("SELECT seq, id FROM outbox")),
                [(*row[:3], *map(bool, row[3:])) for row in journal.execute(sendings)],
                [(eid, f"{code}: {act}") for eid, code, act in journal.execute("SELECT eid, code, action FROM hold")],
            )
    except sqlite3.Error as error:
        raise CustodyError("JOURNAL.WRITE", f"cannot be read: {error}", where=str(path)) from error


def owed_notices(path: Path) -> list[bytes]:
    """Read what a station still owes to SM-DP+, oldest first, as the chips signed it; the station may run.

    Raises CustodyError JOURNAL.WRITE when it cannot be read.
    """
    query = "SELECT raw FROM rsp_notice WHERE delivered_at IS NULL AND refused IS NULL ORDER BY id"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as journal:
            return [raw for (raw,) in journal.execute(query)]
    except sqlite3.Error as error:
        raise CustodyError("JOURNAL.WRITE", f"cannot be read: {error}", where=str(path)) from error


def _look(connection: sqlite3.Connection, path: Path) -> JournalLook:
    def one(query: str) -> str:
        row = connection.execute(query).fetchone()
        return "0" if row is None else str(row[0])

    version = int(one("PRAGMA user_version"))
    works_since = int(one("SELECT value FROM meta WHERE key = 'works_since'")) if version else version
    if version > SCHEMA_VERSION and works_since > SCHEMA_VERSION:
        detail = f"journal version {version}, known {SCHEMA_VERSION}"
        raise CustodyError("CUSTODY.SCHEMA_NEWER", detail, where=str(path))
    if version < _OLDEST:
        detail = f"journal version {version}, this ifpp writes {SCHEMA_VERSION}"
        raise CustodyError("CUSTODY.SCHEMA_OLDER", detail, where=str(path))
    return JournalLook(
        one("SELECT value FROM meta WHERE key = 'station_id'"),
        _in_use(path),
        int(one("SELECT count(*) FROM outbox WHERE acked_at IS NULL AND rejected IS NULL")),
        int(one("SELECT count(*) FROM will")),
    )


def _in_use(path: Path) -> bool:
    """Whether a process holds the journal; asked with a shared lock that is let go at once."""
    try:
        with path.with_name(path.name + ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
