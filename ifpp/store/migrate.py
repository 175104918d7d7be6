"""`ifpp store migrate`: bring a factory database that an older ifpp made to the present schema (`ifpp.store.steps`)."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, inspect, text

from ifpp.errors import CustodyError
from ifpp.model.clock import utc_ms_text
from ifpp.store.audit import Chain
from ifpp.store.database import Database
from ifpp.store.rules import Facts, prepare, read_facts, set_fact, wrong_version
from ifpp.store.steps import FIRST_VERSION, SCHEMA_VERSION, STEPS, Step, works_since
from ifpp.store.trail import Trail

UPKEEP = "upkeep"
"""The chain of the audit log for what is done to the database itself."""

_OTHERS_LEAVE_S = 3.0
_POLL_S = 0.1
# Our own connections, and those of every role that may write the books; a tool that watches the server does not count.
_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid "
    "WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND (r.rolname = current_user "
    "OR (NOT r.rolsuper AND has_table_privilege(r.oid, 'ledger', 'INSERT')))"
)


def make_where_none_is(url: str, now: datetime, *, busy_timeout_s: float = 5.0) -> bool:
    """Make the tables in an empty PostgreSQL database, whose owner we are; return False where there are tables.

    An SQLite database is a file, which is made by the first to open it. Raises ServiceError DATABASE.UNREACHABLE.
    """
    database = Database(url, busy_timeout_s)
    try:
        if database.file is not None:
            return False
        with database.write() as connection:
            if inspect(connection).get_table_names():
                return False
            prepare(connection, utc_ms_text(now))
        return True
    finally:
        database.close()


def migrate(url: str, now: datetime, *, busy_timeout_s: float = 5.0) -> list[Step]:
    """Take every step the database lacks, in order; return those taken. Where an older ifpp worked with it meanwhile,
    what that one wrote is brought in first.

    A step that fails leaves the database at the version before it. Raises CustodyError CUSTODY.SCHEMA_NEWER, or
    CUSTODY.SCHEMA_OLDER for one there is no way from, DATABASE.IN_USE while others have it open; SettingsError for
    somebody else's database.
    """
    database = Database(url, busy_timeout_s)
    try:
        database.need()
        with database.read() as connection:
            found = read_facts(connection)
        if not FIRST_VERSION <= found.version <= SCHEMA_VERSION:
            raise wrong_version(found.version, database.name)
        lacking = [step for step in STEPS if step.version > found.version]
        if lacking or found.behind is not None:
            database.close()  # our own idle connection counts too
            _wait_until_alone(database)
        chain = Chain(UPKEEP, found.factory_id)
        if found.behind is not None:
            with database.write() as connection:
                _catch_up(connection, found, chain, now)
        for step in lacking:
            with database.write() as connection:
                _take(connection, step, chain, now)
        return lacking
    finally:
        database.close()


def _catch_up(connection: Connection, found: Facts, chain: Chain, now: datetime) -> None:
    assert found.behind is not None  # noqa: S101 - asked by the caller
    for step in STEPS:
        if found.behind < step.version <= found.version:
            for statement in step.catch_up or ():
                connection.exec_driver_sql(statement)
    set_fact(connection, "behind", None)
    trail = Trail(utc_ms_text(now))
    trail.note("schema", version=found.version, brings=f"what an ifpp of schema {found.behind} wrote meanwhile")
    chain.append(connection, trail)


def _take(connection: Connection, step: Step, chain: Chain, now: datetime) -> None:
    version = read_facts(connection).version
    if version != step.version - 1:
        raise CustodyError("DATABASE.IN_USE", "somebody else migrates it", where=f"schema version {version}")
    for statement in step.statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
    set_fact(connection, "schema_version", str(step.version))
    set_fact(connection, "works_since", str(works_since(STEPS, step.version)))
    trail = Trail(utc_ms_text(now))
    trail.note("schema", version=step.version, brings=step.brings)
    chain.append(connection, trail)


def _wait_until_alone(database: Database) -> None:
    """Return when nobody else is connected: a process of the older ifpp would not know the new tables."""
    end = time.monotonic() + _OTHERS_LEAVE_S
    with database.scratch() as connection:
        alone = _alone_in_file if connection.dialect.name == "sqlite" else _alone_on_server
        while not alone(connection):
            if time.monotonic() >= end:
                raise CustodyError("DATABASE.IN_USE", "other processes have it open", where=database.name)
            time.sleep(_POLL_S)


def _alone_in_file(connection: Connection) -> bool:
    """SQLite leaves the WAL mode for its last connection only; the next one to open the file enters it again."""
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.execute("PRAGMA busy_timeout = 0").close()
        driver.execute("PRAGMA journal_mode = DELETE").close()
    except connection.dialect.loaded_dbapi.OperationalError:
        return False
    return True


def _alone_on_server(connection: Connection) -> bool:
    with connection.begin():
        return connection.execute(_OTHERS).scalar() == 0
