"""`ifpp store backup` and `restore`: a whole factory database in one file, and back into a place where there is none.

SQLite: the online backup of its library, while stations work; the copy is opened, checked and its books are proved
before the file gets its name. PostgreSQL: `pg_dump` in its custom format, one snapshot, proved when it is restored.
Neither overwrites anything. What happened after the backup is not in it: see README.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

from sqlalchemy import URL, inspect, make_url

from ifpp.errors import CustodyError, IfppError, ServiceError
from ifpp.model.clock import utc_ms_text
from ifpp.store import books
from ifpp.store.audit import Chain
from ifpp.store.database import Database
from ifpp.store.migrate import UPKEEP
from ifpp.store.rules import read_facts, wrong_version
from ifpp.store.steps import FIRST_VERSION, SCHEMA_VERSION
from ifpp.store.trail import Trail

_BUSY_S = 5.0


@dataclass(frozen=True, slots=True)
class BackupReport:
    """A backup: its file, size in bytes, SHA-256; factory id and schema version of the database in it."""

    path: Path
    size: int
    sha256: str
    factory_id: str
    version: int


def backup(url: str, path: Path, now: datetime) -> BackupReport:
    """Write the database to a new file and note it in the audit log.

    Raises CustodyError FILE.WRITE when the file exists or cannot be written, BACKUP.BROKEN when the copy does not hold,
    ServiceError BACKUP.TOOL or DATABASE.UNREACHABLE.
    """
    with closing(Database(url, _BUSY_S)) as database, _new_file(path) as part:
        database.need()
        with database.read() as connection:
            version, factory_id = read_facts(connection)
        if database.file is not None:
            _copy(database, part)
            _prove(f"sqlite:///{part}", factory_id)
            _single_file(part)
        else:
            _run("pg_dump", url, "--format=custom", "--no-owner", "--no-privileges", f"--file={part}")
            _run("pg_restore", None, "--list", str(part))
        report = _report(path, part, version, factory_id)
    _note(url, factory_id, now, "backup", report)
    return report


def restore(path: Path, url: str, now: datetime) -> BackupReport:
    """Make a factory database from a backup where there is none, and note it in the audit log.

    Raises CustodyError FILE.WRITE when there is a database, BACKUP.BROKEN when the file holds no whole one,
    CUSTODY.SCHEMA_NEWER, ServiceError BACKUP.TOOL or DATABASE.UNREACHABLE.
    """
    if not path.is_file():
        raise CustodyError("BACKUP.BROKEN", "there is no such file", where=str(path))
    with closing(Database(url, _BUSY_S)) as database:
        if database.file is not None:
            version, factory_id = _restore_file(path, database.file)
        else:
            version, factory_id = _restore_server(path, url, database)
    report = _report(path, path, version, factory_id)
    _note(url, factory_id, now, "restored", report)
    return report


# ---- SQLite -----------------------------------------------------------------------------------------


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


def _restore_file(path: Path, place: Path) -> tuple[int, str]:
    for name in (place, *(place.with_name(place.name + end) for end in ("-wal", "-shm", "-journal"))):
        if name.exists():
            raise CustodyError("FILE.WRITE", "there is a database already", where=str(name))
    with _new_file(place) as part:
        with path.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        found = _prove(f"sqlite:///{part}", None)
        _single_file(part)
    return found


# ---- PostgreSQL -------------------------------------------------------------------------------------


def _restore_server(path: Path, url: str, database: Database) -> tuple[int, str]:
    with database.read() as connection:
        if inspect(connection).get_table_names():
            raise CustodyError("FILE.WRITE", "there are tables already: name an empty database", where=database.name)
    _run("pg_restore", url, "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", str(path))
    return _prove(url, None)


def _run(program: str, url: str | None, *arguments: str) -> None:
    """Run a client program of PostgreSQL; the password goes by the environment, where no other user sees it."""
    environment = dict(os.environ)
    words = [program, *arguments]
    if url is not None:
        parsed = make_url(url).set(drivername="postgresql")
        if parsed.password is not None:
            environment["PGPASSWORD"] = str(parsed.password)
        words.append(f"--dbname={_without_password(parsed)}")
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ServiceError("BACKUP.TOOL", f"cannot be run ({error.strerror})", where=program) from error
    if done.returncode:
        said = " ".join(done.stderr.split())[:400] or f"ended with {done.returncode}"
        raise ServiceError("BACKUP.TOOL", said, where=program)


def _without_password(url: URL) -> str:
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query).render_as_string()


# ---- both -------------------------------------------------------------------------------------------


def _prove(url: str, factory_id: str | None) -> tuple[int, str]:
    """Open a copy and prove its books; return schema version and factory id. Raises CustodyError BACKUP.BROKEN."""
    where = make_url(url).render_as_string(hide_password=True)
    with closing(Database(url, _BUSY_S)) as database:
        try:
            with database.read() as connection:
                version, found = read_facts(connection)
                if version > SCHEMA_VERSION or version < FIRST_VERSION:
                    raise wrong_version(version, where)
                faults = [f"it is of factory {found}"] if factory_id not in (None, found) else []
                if database.file is not None:
                    rows = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars()
                    faults += [row for row in rows if row != "ok"]
                if version == SCHEMA_VERSION:  # the books of an older one are proved once it is migrated
                    faults += books.audit(connection)
        except IfppError as error:
            if error.code in ("CUSTODY.SCHEMA_NEWER", "CUSTODY.SCHEMA_OLDER"):
                raise
            raise CustodyError("BACKUP.BROKEN", error.detail, where=where) from error
    if faults:
        raise CustodyError("BACKUP.BROKEN", "; ".join(faults[:3]), where=where)
    return version, found


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
