"""Stations that lost their journal: which event was the last one, and which will never come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection, func, select

from ifpp.store import events
from ifpp.store.database import Database
from ifpp.store.records import ReceivedEvent
from ifpp.store.schema import event_log, node_cursor, parked
from ifpp.store.trail import Trail

LOST = "CUSTODY.EVENT_LOST"


class NodeStore:
    """What the books know of a node's numbers."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing

    def last_event(self, node_id: str) -> int:
        """Return the highest number a node's event ever had here, taken or parked; 0 when none came."""
        with self._database.read() as connection:
            return _last(connection, node_id)

    def give_up(self, node_id: str, by: str, reason: str, now: datetime) -> list[int]:
        """Park, as lost, every event below the last one that never came, so that those after it count; return them."""
        with self._writing(now) as (connection, trail):
            through = events.open_cursor(connection, node_id)
            last = _last(connection, node_id)
            there: set[int] = set()
            for table in (event_log, parked):
                after = select(table.c.seq).where(table.c.node_id == node_id, table.c.seq > through)
                there.update(connection.execute(after).scalars())
            missing = [seq for seq in range(through + 1, last) if seq not in there]
            for seq in missing:
                lost = ReceivedEvent(node_id, seq, "", "", b"")
                events.park(connection, trail, lost, LOST, f"the journal is lost; {by}: {reason}")
            events.advance(connection, node_id, through)
        return missing


def _last(connection: Connection, node_id: str) -> int:
    found = [connection.execute(select(node_cursor.c.through).where(node_cursor.c.node_id == node_id)).scalar()]
    for table in (event_log, parked):
        found.append(connection.execute(select(func.max(table.c.seq)).where(table.c.node_id == node_id)).scalar())
    return max(int(number or 0) for number in found)
