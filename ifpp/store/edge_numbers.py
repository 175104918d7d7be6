"""`bdSeq` of a line's Sparkplug edge node: a number for every connection, whichever supervisor makes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from ifpp.store.schema import meta
from ifpp.store.trail import Trail

_NUMBERS = 256  # 0 to 255, then 0 again


class EdgeNumbers:
    """Part of a `Factory`: blocks for one short transaction and may be called from any thread."""

    def __init__(self, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]) -> None:
        self._writing = writing

    def next(self, line: str, now: datetime) -> int:
        """Return the number of a line's next connection: 0 for its first, each time one more."""
        mine = meta.c.key == f"sparkplug/{line}"
        with self._writing(now) as (connection, _):
            before = connection.execute(select(meta.c.value).where(mine)).scalar()
            number = 0 if before is None else (int(before) + 1) % _NUMBERS
            if before is None:
                connection.execute(insert(meta), [{"key": f"sparkplug/{line}", "value": str(number)}])
            else:
                connection.execute(update(meta).where(mine).values(value=str(number)))
        return number
