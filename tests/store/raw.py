"""A factory database without ifpp: what a careless script or a stranger could do to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

REFUSALS = (sqlite3.IntegrityError, psycopg.errors.IntegrityError)


@contextmanager
def raw(url: str) -> Iterator[Any]:
    """A bare connection in one transaction: committed at the end, rolled back on an exception."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=5)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA recursive_triggers = ON")
            with connection:
                yield connection
    else:
        with psycopg.connect(url) as connection:
            yield connection
