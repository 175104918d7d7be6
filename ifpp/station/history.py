"""What this station's journal knows of the packages of one chip, for when nobody else can be asked."""

from __future__ import annotations

import asyncio
import sqlite3

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
