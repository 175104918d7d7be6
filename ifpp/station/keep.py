"""A copy of a running station's journal, and a journal for a station that lost its own.

What a journal knows of the time after its last backup is gone with it. Two things must still be right: no event number
is given out twice, so the new journal goes on after the last one the books have; and no load is guessed, so what the
books call CLAIMED or SENT there is read from the chip when its unit is seated again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from ifpp.errors import CustodyError
from ifpp.model.clock import SystemClock, utc_ms_text, uuid7
from ifpp.station.journal import Journal


def copy_journal(path: Path, target: Path) -> None:
    """Write a whole and checked copy of a journal to a new file, while its station goes on.

    Raises CustodyError: FILE.WRITE (it exists or cannot be written), BACKUP.BROKEN (the copy does not hold),
    JOURNAL.WRITE (the journal cannot be read).
    """
    part = _new_part(target)
    try:
        try:
            reading = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            with closing(reading), closing(sqlite3.connect(part)) as copy:
                reading.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            raise CustodyError("JOURNAL.WRITE", f"cannot be copied: {error}", where=str(path)) from error
        _check(part)
        _settle(part, target)
    finally:
        part.unlink(missing_ok=True)


def new_journal(path: Path, station_id: str, backup: Path | None, *, after: int, now: datetime) -> None:
    """Make the journal of a station that lost its own, from a backup or empty; its next event is `after` + 1 or later.

    Raises CustodyError FILE.WRITE when there is a journal, BACKUP.BROKEN, and what `Journal.open` raises for a
    backup of another station or version; then nothing has changed.
    """
    part = _new_part(path)
    try:
        if backup is not None:
            _copy_file(backup, part)
            _check(part)
        Journal.open(part, station_id, SystemClock()).close()
        with closing(sqlite3.connect(part, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN IMMEDIATE")
            _go_on_after(connection, after, now)
            connection.execute("COMMIT")
        _settle(part, path)
    finally:
        for end in ("", ".lock", "-wal", "-shm", "-journal"):
            part.with_name(part.name + end).unlink(missing_ok=True)


def _go_on_after(connection: sqlite3.Connection, after: int, now: datetime) -> None:
    """Give no number out twice: of events, and of connections to the broker, which a backup may count too low."""
    at = utc_ms_text(now)
    connection.execute("UPDATE outbox SET acked_at = ? WHERE acked_at IS NULL AND seq <= ?", (at, after))
    if connection.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0] < after:
        place = "INSERT INTO outbox (seq, id, name, body, stored_at, acked_at) VALUES (?, ?, '', x'', ?, ?)"
        connection.execute(place, (after, str(uuid7(now)), at, at))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('session', ?)", (str(int(now.timestamp())),))


def _new_part(path: Path) -> Path:
    if path.exists():
        raise CustodyError("FILE.WRITE", "exists and is not overwritten", where=str(path))
    part = path.with_name(f"{path.name}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(part)) from error
    return part


def _copy_file(source: Path, part: Path) -> None:
    try:
        part.write_bytes(source.read_bytes())
    except OSError as error:
        raise CustodyError("BACKUP.BROKEN", f"cannot be read ({error.strerror})", where=str(source)) from error


def _check(part: Path) -> None:
    try:
        with closing(sqlite3.connect(part)) as copy:
            fault = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
            version = copy.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise CustodyError("BACKUP.BROKEN", str(error), where=str(part)) from error
    if fault != "ok" or not version:
        detail = fault if fault != "ok" else "this is not a journal"
        raise CustodyError("BACKUP.BROKEN", detail, where=str(part))


def _settle(part: Path, path: Path) -> None:
    """The file is on the disk, and then it has its name, which nobody had before."""
    try:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        os.link(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error
