"""One factory database: connections, transactions and what their failures are called.

SQLite runs in WAL mode with synchronous=FULL: a committed transaction survives a power cut. Writers start with
BEGIN IMMEDIATE, so that they queue at the start instead of failing in the middle; one lock a process keeps its own
threads in order. On PostgreSQL processes lock the rows of one chip, or of one node, against each other.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy import exc as sa
from sqlalchemy.engine import make_url

from ifpp.errors import CustodyError, IfppError, ServiceError, SettingsError

_WRITES = "ifpp_writes"
_LOCK_POLL_S = 0.05
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


class Database:
    """Transactions on one database; every method may be called from any thread."""

    def __init__(self, url: str, busy_timeout_s: float) -> None:
        self._engine = _engine(url, busy_timeout_s)
        self._writer = threading.Lock()
        self._lock_path = self._engine.url.database if self._engine.dialect.name == "sqlite" else None

    @property
    def name(self) -> str:
        """The database's URL without a password."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """Where an SQLite database is; None on PostgreSQL."""
        return None if self._lock_path is None else Path(self._lock_path)

    def make_file(self) -> None:
        """Make the file of a new SQLite database with all the rights that the umask leaves.

        SQLite itself never lets a group write: store and supervisor, each its own user, could not share the database.
        """
        if self.file is not None:
            with suppress(OSError):  # it is there, or SQLite will say what is wrong
                self.file.touch(exist_ok=False)

    def need(self) -> None:
        """Return when there may be a database, raises SettingsError: SQLite would make one of any wrong name."""
        if self.file is not None and not self.file.is_file():
            raise SettingsError("SETTINGS.MISSING", "there is no such database", where=self.name)

    @property
    def one_writer(self) -> bool:
        """Whether a transaction that writes keeps every other one waiting."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One read-write transaction: committed when the block ends, rolled back when it raises.

        Raises CustodyError CUSTODY.TRANSITION when a rule of the database refuses, ServiceError DATABASE.UNREACHABLE.
        """
        with self._writer, self.named(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read-only snapshot that waits for no writer. Raises ServiceError DATABASE.UNREACHABLE."""
        with self.named(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """For one statement that reads: it is its own snapshot, and costs one round trip instead of three."""
        with self.named(), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    @contextmanager
    def scratch(self) -> Iterator[Connection]:
        """A connection for temporary tables, which go with it; whoever has it begins the transactions."""
        with self.named(), self._engine.connect() as connection:
            connection.detach()
            yield connection

    @contextmanager
    def alone(self, what: str, wait_s: float) -> Iterator[None]:
        """Let one process at a time do `what`; one that dies gives way at once.

        Raises ServiceError INTAKE.BUSY when nobody gives way for so long.
        """
        end = time.monotonic() + wait_s
        with ExitStack() as held:
            try_lock = self._lock_file(what, held) if self._lock_path else self._lock_session(what, held)
            while not try_lock():
                if time.monotonic() >= end:
                    raise ServiceError("INTAKE.BUSY", f"another process is at it ({what})", where=self.name)
                time.sleep(_LOCK_POLL_S)
            yield

    def _lock_file(self, what: str, held: ExitStack) -> Callable[[], bool]:
        """A lock of SQLite's machine: a file beside the database."""
        try:
            file = Path(f"{self._lock_path}-{what}").open("ab")  # noqa: SIM115 - held by the stack
        except OSError as error:
            raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=self.name) from error

        held.enter_context(file)

        def try_lock() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        return try_lock

    def _lock_session(self, what: str, held: ExitStack) -> Callable[[], bool]:
        """A lock of PostgreSQL: it goes with the session."""
        connection = held.enter_context(self.scratch())
        wanted = text("SELECT pg_try_advisory_lock(hashtextextended(current_schema() || :what, 0))")

        def try_lock() -> bool:
            with connection.begin():
                return bool(connection.execute(wanted, {"what": f" ifpp {what}"}).scalar())

        return try_lock

    def close(self) -> None:
        """Close every idle connection."""
        self._engine.dispose()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn the library's errors into ours: CustodyError CUSTODY.TRANSITION, ServiceError DATABASE.UNREACHABLE."""
        try:
            yield
        except sa.SQLAlchemyError as error:
            raise _fault(error, self.name) from error
        except self._engine.dialect.loaded_dbapi.Error as error:  # of whoever works with the driver itself
            raise ServiceError("DATABASE.UNREACHABLE", str(error)[:200], where=self.name) from error


def _fault(error: sa.SQLAlchemyError, where: str) -> IfppError:
    """Name a failure: a rule refused, the database is away or broken, or we asked nonsense."""
    if isinstance(error, sa.IntegrityError):
        return CustodyError("CUSTODY.TRANSITION", _short(error), where=where)
    nonsense = isinstance(error, sa.ProgrammingError | sa.DataError | sa.NotSupportedError)
    if isinstance(error, sa.DBAPIError | sa.TimeoutError) and not nonsense:
        return ServiceError("DATABASE.UNREACHABLE", _short(error), where=where)
    return IfppError("INTERNAL", _short(error), where=where)


def _short(error: sa.SQLAlchemyError) -> str:
    """Say what the driver said, without statement and values."""
    cause = error.orig if isinstance(error, sa.DBAPIError) else error
    return (str(cause).strip() or type(error).__name__).splitlines()[0][:200]


def _engine(url: str, busy_timeout_s: float) -> Engine:
    try:
        parsed = make_url(url)
    except (sa.ArgumentError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "not a database URL", where=url[:40]) from error
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise SettingsError("SETTINGS.INVALID", "a factory database is sqlite:///… or postgresql://…", where=backend)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError("SETTINGS.INVALID", "a factory database is a file", where=url)
    parsed = parsed.set(drivername=_DRIVERS[backend])
    try:
        if backend == "postgresql":
            engine = create_engine(parsed, connect_args=_postgresql_arguments(busy_timeout_s) | _binary_results())
            event.listen(engine, "connect", _postgresql_connected(busy_timeout_s))
            return engine
        engine = create_engine(parsed, connect_args={"timeout": busy_timeout_s}, pool_size=2, max_overflow=30)
    except ModuleNotFoundError as error:
        raise SettingsError("SETTINGS.INVALID", "the PostgreSQL driver is not installed", where="database") from error
    event.listen(engine, "connect", _sqlite_connected)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _postgresql_arguments(timeout_s: float) -> dict[str, int]:
    """Notice a server that is gone, also when its machine no longer says so (libpq connection parameters)."""
    return {
        "connect_timeout": max(1, round(timeout_s)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": max(1000, round(timeout_s * 1000)),
    }


def _binary_results() -> dict[str, type]:
    """Take results as they are: as text a package has twice its bytes, and costs three times its time.

    Raises ModuleNotFoundError without the driver.
    """
    import psycopg  # noqa: PLC0415 - only who uses PostgreSQL has it

    class Binary(psycopg.Cursor[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.format = psycopg.pq.Format.BINARY

    return {"cursor_factory": Binary}


def _postgresql_connected(timeout_s: float) -> Callable[[Any, object], None]:
    def connected(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = {max(1, round(timeout_s * 1000))}")
        connection.commit()

    return connected


def _sqlite_connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "recursive_triggers = ON",  # REPLACE deletes, and must be refused like any other delete
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
