"""What this station's journal knows of the packages of one chip, and every value it holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ifpp.model.states import PackageState
from ifpp.station.journal import Journal

Fate = tuple[PackageState, bool]
"""What became of a package, and whether its one-time key is spent."""


async def fates(journal: Journal, eid: str) -> dict[str, Fate]:
    """Return the last word on every package of a chip that this station ever began to send: package id -> fate.

    Raises CustodyError JOURNAL.WRITE when the journal cannot be read.
    """

    def read(connection: sqlite3.Connection) -> dict[str, Fate]:
        query = "SELECT package_id, state, spent FROM package WHERE eid = ? ORDER BY rowid"
        return {name: (PackageState(state), bool(spent)) for name, state, spent in connection.execute(query, (eid,))}

    return await asyncio.wrap_future(journal.read(read))


def every_value(path: Path) -> Iterator[bytes]:
    """Give every text and blob of a SQLite database, whole: on its pages a long one is cut. Another file has none."""
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            quoted = name.decode().replace('"', '""')
            for row in database.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608 - a table's own name, quoted
                yield from (value for value in row if isinstance(value, bytes))
