"""What a factory database holds, asked past ifpp."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing

import psycopg

_QUERY = "SELECT node_id, seq FROM event ORDER BY node_id, seq"


def numbers(database: str) -> dict[str, list[int]]:
    """Return the numbers of the stored events of every node, in order; `database` is its URL."""
    if database.startswith("sqlite"):
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as file:
            rows = file.execute(_QUERY).fetchall()
    else:
        with psycopg.connect(database) as server:
            rows = server.execute(_QUERY.encode()).fetchall()
    found: dict[str, list[int]] = defaultdict(list)
    for node, seq in rows:
        found[node].append(seq)
    return found
