"""`ifpp store backup` and `restore`: a whole factory database in one file, and back into a place where there is none.

SQLite: the online backup of its library, while stations work; the copy is opened, checked and its books are proved
before the file gets its name. PostgreSQL: `pg_dump` in its custom format, one snapshot, proved when it is restored.
With a backup key the file is sealed (`ifpp.store.sealing`), and nothing of it lies beside it in the clear. Neither
overwrites anything. What happened after the backup is not in it: see deploy/MANUAL.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any, BinaryIO, cast

from sqlalchemy import URL, inspect, make_url

from ifpp.errors import CustodyError, IfppError, ServiceError
from ifpp.model.clock import utc_ms_text
from ifpp.store import books, sealing
from ifpp.store.audit import Chain
from ifpp.store.database import Database
from ifpp.store.migrate import UPKEEP
from ifpp.store.rules import read_facts, wrong_version
from ifpp.store.steps import FIRST_VERSION, SCHEMA_VERSION
from ifpp.store.trail import Trail
from ifpp.trust.keyring import KeyProvider

_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A backup: its file, size in bytes, SHA-256; factory id and schema version of the database in it."""

    path: Path
    size: int
    sha256: str
    factory_id: str
    version: int


def backup(url: str, path: Path, now: datetime, keys: KeyProvider | None = None) -> BackupReport:
    """Write the database to a new file, sealed when there are `keys`, and note it in the audit log.

    Raises CustodyError FILE.WRITE when the file exists or cannot be written, BACKUP.BROKEN when the copy does not hold,
    ServiceError BACKUP.TOOL, DATABASE.UNREACHABLE or KEYS.UNREACHABLE, SettingsError KEYS.MISSING.
    """
    with closing(Database(url, _BUSY_S)) as database, _new_file(path) as part:
        database.need()
        with database.read() as connection:
            found = read_facts(connection)
        factory_id = found.factory_id
        if database.file is not None:
            with _copied(database, factory_id) as copy, copy.open("rb") as source:
                sealing.write(source, part, keys)
        else:
            words = ("--format=custom", "--no-owner", "--no-privileges")
            _run("pg_dump", url, *words, drain=lambda source: sealing.write(source, part, keys))
        with sealing.opened(part, lambda: keys, path.name) as whole:  # what cannot be opened again is no backup
            if database.file is None:
                _run("pg_restore", None, "--list", feed=whole)
        report = _report(path, part, found.version, factory_id)
    _note(url, factory_id, now, "backup", report)
    return report


def restore(path: Path, url: str, now: datetime, keys: sealing.Keys = sealing.no_keys) -> BackupReport:
    """Make a factory database from a backup where there is none, and note it in the audit log.

    Raises CustodyError FILE.WRITE when there is a database, BACKUP.BROKEN when the file holds no whole one,
    CUSTODY.SCHEMA_NEWER, ENVELOPE.BROKEN or ENVELOPE.KEY before anything is written; ServiceError BACKUP.TOOL,
    DATABASE.UNREACHABLE or KEYS.UNREACHABLE.
    """
    if not path.is_file():
        raise CustodyError("BACKUP.BROKEN", "there is no such file", where=str(path))
    with closing(Database(url, _BUSY_S)) as database, sealing.opened(path, keys) as whole:
        if database.file is not None:
            version, factory_id = _restore_file(whole, database.file)
        else:
            version, factory_id = _restore_server(whole, url, database)
    report = _report(path, path, version, factory_id)
    _note(url, factory_id, now, "restored", report)
    return report


# ---- SQLite -----------------------------------------------------------------------------------------


@contextmanager
def _copied(database: Database, factory_id: str) -> Iterator[Path]:
    """Give a proved copy of the database, one file, where the database itself lies; it is gone afterwards."""
    assert database.file is not None  # noqa: S101 - asked by the caller
    try:
        folder = tempfile.TemporaryDirectory(prefix=".backup-", dir=database.file.parent)
    except OSError as error:
        where = str(database.file.parent)
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=where) from error
    with folder as name:
        copy = Path(name, "factory.db")
        try:
            _copy(database, copy)
            _prove(f"sqlite:///{copy}", factory_id)
            _single_file(copy)
        except IfppError as error:
            cause = error if isinstance(error, ServiceError) else error.__cause__
            if not isinstance(cause, ServiceError):  # it was written, and does not hold
                raise
            where = str(database.file.parent)
            raise CustodyError("FILE.WRITE", f"no copy can be made ({cause.detail})", where=where) from error
        yield copy


def _copy(database: Database, part: Path) -> None:
    target = Database(f"sqlite:///{part}", _BUSY_S)
    with closing(target), database.scratch() as source, target.scratch() as copy:
        reading: Any = source.connection.dbapi_connection
        reading.backup(copy.connection.dbapi_connection)  # all at once: writers of a WAL go on meanwhile


def _single_file(part: Path) -> None:
    """Leave the WAL mode, so that the one file is all of it."""
    with closing(Database(f"sqlite:///{part}", _BUSY_S)) as database, database.scratch() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA journal_mode = DELETE").close()


def _restore_file(source: BinaryIO, place: Path) -> tuple[int, str]:
    for name in (place, *(place.with_name(place.name + end) for end in ("-wal", "-shm", "-journal"))):
        if name.exists():
            raise CustodyError("FILE.WRITE", "there is a database already", where=str(name))
    with _new_file(place) as part:
        with part.open("wb") as target:
            shutil.copyfileobj(source, target)
        found = _prove(f"sqlite:///{part}", None)
        _single_file(part)
    return found


# ---- PostgreSQL -------------------------------------------------------------------------------------


def _restore_server(source: BinaryIO, url: str, database: Database) -> tuple[int, str]:
    with database.read() as connection:
        if inspect(connection).get_table_names():
            raise CustodyError("FILE.WRITE", "there are tables already: name an empty database", where=database.name)
    words = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
    _run("pg_restore", url, *words, feed=source)
    return _prove(url, None)


def _run(
    program: str,
    url: str | None,
    *arguments: str,
    feed: BinaryIO | None = None,
    drain: Callable[[BinaryIO], None] | None = None,
) -> None:
    """Run a client program of PostgreSQL; the password goes by the environment, where no other user sees it.

    `feed` is what it reads, `drain` takes what it writes.
    """
    environment = dict(os.environ)
    words = [program, *arguments]
    if url is not None:
        parsed = make_url(url).set(drivername="postgresql")
        if parsed.password is not None:
            environment["PGPASSWORD"] = str(parsed.password)
        words.append(f"--dbname={_without_password(parsed)}")
    with tempfile.TemporaryFile() as said:
        ends = (subprocess.PIPE if feed else subprocess.DEVNULL, subprocess.PIPE if drain else subprocess.DEVNULL)
        try:
            process = subprocess.Popen(words, env=environment, stdin=ends[0], stdout=ends[1], stderr=said)
        except OSError as error:
            raise ServiceError("BACKUP.TOOL", f"cannot be run ({error.strerror})", where=program) from error
        with suppress(BrokenPipeError), process:  # it may end before it has read everything
            if drain is not None and process.stdout is not None:
                drain(cast(BinaryIO, process.stdout))
            if feed is not None and process.stdin is not None:
                shutil.copyfileobj(feed, process.stdin)
        if process.returncode:
            said.seek(0)
            text = " ".join(said.read().decode(errors="replace").split())[:400]
            raise ServiceError("BACKUP.TOOL", text or f"ended with {process.returncode}", where=program)


def _without_password(url: URL) -> str:
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query).render_as_string()


# ---- both -------------------------------------------------------------------------------------------


def _prove(url: str, factory_id: str | None) -> tuple[int, str]:
    """Open a copy and prove its books; return schema version and factory id. Raises CustodyError BACKUP.BROKEN."""
    where = make_url(url).render_as_string(hide_password=True)
    with closing(Database(url, _BUSY_S)) as database:
        try:
            with database.read() as connection:
                found = read_facts(connection)
                if found.version < FIRST_VERSION or found.works_since > SCHEMA_VERSION:
                    raise wrong_version(found.version, where)
                foreign = factory_id not in (None, found.factory_id)
                faults = [f"it is of factory {found.factory_id}"] if foreign else []
                if database.file is not None:
                    rows = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars()
                    faults += [row for row in rows if row != "ok"]
                if found.version >= SCHEMA_VERSION:  # the books of an older one are proved once it is migrated
                    faults += books.audit(connection)
        except IfppError as error:
            if error.code in ("CUSTODY.SCHEMA_NEWER", "CUSTODY.SCHEMA_OLDER"):
                raise
            raise CustodyError("BACKUP.BROKEN", error.detail, where=where) from error
    if faults:
        raise CustodyError("BACKUP.BROKEN", "; ".join(faults[:3]), where=where)
    return found.version, found.factory_id


def _note(url: str, factory_id: str, now: datetime, kind: str, report: BackupReport) -> None:
    trail = Trail(utc_ms_text(now))
    trail.note(kind, file=report.path.name, sha256=report.sha256)
    with closing(Database(url, _BUSY_S)) as database, database.write() as connection:
        Chain(UPKEEP, factory_id).append(connection, trail)


def _report(path: Path, content: Path, version: int, factory_id: str) -> BackupReport:
    with content.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    return BackupReport(path, content.stat().st_size, digest, factory_id, version)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to fill; at the end it is on the disk and has the name, which nobody had before."""
    if path.exists():
        raise CustodyError("FILE.WRITE", "exists and is not overwritten", where=str(path))
    part = path.with_name(f"{path.name}.part")
    leftovers: Sequence[Path] = [part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal")]
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            yield part
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            os.link(part, path)
        finally:
            for name in (part, *leftovers):
                name.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CustodyError(
            "FILE.WRITE", f"cannot be made ({error.strerror})", where=error.filename or str(path)
        ) from error
