"""What the factory database says of every package, attempt and event, row by row: evidence for a judge."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text

from ifpp.store.database import Database

_WAIT_S = 10.0
_PACKAGES = "SELECT package_id, eid, otk_id, iccid, state, spent, coalesce(lease_until, '') FROM package"
_STEPS = "SELECT package_id, to_state FROM ledger ORDER BY entry"
_ATTEMPTS = "SELECT eid, transaction_id, result FROM unit_attempt"
_DEFECTS = "SELECT eid, defect FROM unit_attempt WHERE eid <> '' ORDER BY ended_at, node_id, seq"
_CLEARED = "SELECT eid FROM chip WHERE clean_to_ship_at IS NOT NULL"
_TAKEN = "SELECT node_id, seq, id FROM event"
_PARKED = "SELECT node_id, seq, id, code, text FROM parked"


@dataclass(frozen=True, slots=True)
class Books:
    """Rows as they stand in the tables.

    `packages`: package, EID, key, ICCID, state, whether its key is spent, end of its lease; `steps`: states each
    package went to, in order; `attempts`: EID, transaction, result; `defects`: of each EID's last attempt, "" = none;
    `cleared`: EIDs that are clean to ship; `taken`: node, number, id of each event; `parked`: the same with code and
    text.
    """

    packages: list[tuple[str, str, str, str, str, bool, str]]
    steps: dict[str, list[str]]
    attempts: list[tuple[str, str, str]]
    defects: dict[str, str]
    cleared: set[str]
    taken: list[tuple[str, int, str]]
    parked: list[tuple[str, int, str, str, str]]


def read_books(url: str) -> Books:
    """Read a factory database that nobody writes to any more; raises ServiceError DATABASE.UNREACHABLE."""
    with closing(Database(url, _WAIT_S)) as database:
        database.need()
        with database.read() as connection:
            return _books(connection)


def tables_in(url: str) -> int:
    """Return how many tables a database has where ours would be made; raises ServiceError DATABASE.UNREACHABLE."""
    with closing(Database(url, _WAIT_S)) as database:
        if database.file is not None and not database.file.is_file():
            return 0
        with database.read() as connection:
            return len(inspect(connection).get_table_names())


def _books(connection: Connection) -> Books:
    steps: dict[str, list[str]] = {}
    for package_id, state in connection.execute(text(_STEPS)):
        steps.setdefault(package_id, []).append(state)
    return Books(
        packages=[(*row[:5], bool(row[5]), row[6]) for row in connection.execute(text(_PACKAGES))],
        steps=steps,
        attempts=[row._tuple() for row in connection.execute(text(_ATTEMPTS))],
        defects=dict(row._tuple() for row in connection.execute(text(_DEFECTS))),
        cleared=set(connection.execute(text(_CLEARED)).scalars()),
        taken=[row._tuple() for row in connection.execute(text(_TAKEN))],
        parked=[row._tuple() for row in connection.execute(text(_PARKED))],
    )
