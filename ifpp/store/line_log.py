"""The line's own log: what the MES is told, numbered without a gap, until it says that it has it.

Results and material come from the stations' events, each once: `line_cursor` says how far those of a station are in a
log, whichever line it worked for. They enter behind the station's own acknowledgement and in its order, and nothing
waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from ifpp.errors import CustodyError
from ifpp.store.figure_tables import station_line
from ifpp.store.schema import event_log, line_ack, line_cursor, line_log, node_cursor

LINE_NODE = "_line"
_TOLD = ("unit_result/", "material/", "alarm/")
_SCAN = 2000  # events looked at in one transaction

_nodes = (
    select(station_line.c.node_id, node_cursor.c.through, func.coalesce(line_cursor.c.seq, 0).label("seq"))
    .join(node_cursor, node_cursor.c.node_id == station_line.c.node_id)
    .join(line_cursor, line_cursor.c.node_id == station_line.c.node_id, isouter=True)
    .where(station_line.c.line == bindparam("line"))
    .order_by(station_line.c.node_id)
)
_events = (
    select(event_log.c.seq, event_log.c.schema, event_log.c.body)
    .where(
        event_log.c.node_id == bindparam("node_id"),
        event_log.c.seq > bindparam("after"),
        event_log.c.seq <= bindparam("through"),
    )
    .order_by(event_log.c.seq)
    .limit(bindparam("limit"))
)
_last = select(func.coalesce(func.max(line_log.c.seq), 0)).where(line_log.c.line == bindparam("line"))


@dataclass(frozen=True, slots=True)
class LineRow:
    """One document of the log: `name` is the last level of its topic, `body` JSON."""

    seq: int
    name: str
    body: bytes


@dataclass(frozen=True, slots=True)
class LineLogState:
    """How far the log goes, and how far the MES has it."""

    last: int
    acknowledged: int


def collect(connection: Connection, line: str, boot_id: str, at: str) -> int:
    """Take what stations told since the last time into the log, one page of it; return how many events were read."""
    room, number = _SCAN, connection.execute(_last, {"line": line}).scalar_one()
    rows: list[dict[str, Any]] = []
    for node in connection.execute(_nodes, {"line": line}).all():
        if room <= 0 or node.seq >= node.through:
            continue
        span = {"node_id": node.node_id, "after": node.seq, "through": node.through, "limit": room}
        events = connection.execute(_events, span).all()
        room -= len(events)
        for event in events:
            if event.schema.startswith(_TOLD):
                number += 1
                name, body = _retold(node.node_id, event, number, boot_id)
                rows.append({"line": line, "seq": number, "name": name, "body": body, "at": at})
        _move(connection, node.node_id, events[-1].seq if len(events) == span["limit"] else node.through)
    if rows:
        connection.execute(insert(line_log), rows)
    return _SCAN - room


def append(connection: Connection, line: str, name: str, document: msgspec.Struct, at: str) -> int:
    """Write one document of the line's own; its `seq` is set. Returns it."""
    number: int = connection.execute(_last, {"line": line}).scalar_one() + 1
    body = msgspec.json.encode(msgspec.structs.replace(document, seq=number))
    connection.execute(insert(line_log), [{"line": line, "seq": number, "name": name, "body": body, "at": at}])
    return number


def page(connection: Connection, line: str, after: int, limit: int) -> list[LineRow]:
    """Return the documents that follow a number."""
    wanted = select(line_log.c.seq, line_log.c.name, line_log.c.body)
    wanted = wanted.where(line_log.c.line == line, line_log.c.seq > after).order_by(line_log.c.seq).limit(limit)
    return [LineRow(row.seq, row.name, row.body) for row in connection.execute(wanted)]


def state(connection: Connection, line: str) -> LineLogState:
    """Return how far the log goes and how far the MES has it."""
    last = connection.execute(_last, {"line": line}).scalar_one()
    through = connection.execute(select(line_ack.c.through).where(line_ack.c.line == line)).scalar()
    return LineLogState(last, through or 0)


def acknowledge(connection: Connection, line: str, through: int) -> LineLogState:
    """Note that the MES has everything up to and including `through`; an older word changes nothing.

    Raises CustodyError LINE_LOG.AHEAD for a number the log has not reached.
    """
    now = state(connection, line)
    if through > now.last:
        detail = f"acknowledged through {through}, the log ends with {now.last}"
        raise CustodyError("LINE_LOG.AHEAD", detail, where=f"line {line}")
    if through <= now.acknowledged:
        return now
    known = connection.execute(update(line_ack).where(line_ack.c.line == line).values(through=through)).rowcount
    if not known:
        connection.execute(insert(line_ack), [{"line": line, "through": through}])
    return LineLogState(now.last, through)


def _move(connection: Connection, node_id: str, seq: int) -> None:
    mine = line_cursor.c.node_id == node_id
    if not connection.execute(update(line_cursor).where(mine).values(seq=seq)).rowcount:
        connection.execute(insert(line_cursor), [{"node_id": node_id, "seq": seq}])


def _retold(node_id: str, event: Row[Any], number: int, boot_id: str) -> tuple[str, bytes]:
    """Return a station's event as the line says it: its own number and node, no signed result of a chip."""
    document: dict[str, Any] = msgspec.json.decode(event.body)
    for profile in document.get("profiles", ()):
        profile.pop("pir_b64", None)
    for profile in document.get("removed", ()):
        profile.pop("notification_b64", None)
    name = event.schema.partition("/")[0]
    document |= {"node_id": LINE_NODE, "seq": number, "boot_id": boot_id, "source_node": node_id}
    if name == "unit_result":
        document["source_seq"] = event.seq
        if document.get("rework_id"):
            document["rework"] = True
    elif name == "alarm" and document["source"].partition("/")[0] != node_id:
        document["source"] = f"{node_id}/{document['source']}"  # heads of two stations have one name
    return name, msgspec.json.encode(document)
