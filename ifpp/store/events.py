"""Taking events in: each (node, seq) once, stored and settled in one transaction, poison put aside.

A chunk of events is planned against what the database says and written with a few bulk statements inside a savepoint.
When the database refuses the chunk, its events are taken one by one, and the one it refuses is parked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import Connection, bindparam, exists, func, select, tuple_
from sqlalchemy import exc as sa
from sqlalchemy.dialects import postgresql, sqlite

from ifpp.errors import CustodyError, IfppError
from ifpp.model.messages import Rejected
from ifpp.store import settle
from ifpp.store.denylist import Learning
from ifpp.store.plan import MAX_TEXT, Plan, Result, look_up, plan_event, read_event, write
from ifpp.store.records import MAX_EVENT_BYTES, ReceivedEvent, TakeResult
from ifpp.store.schema import event_log, node_cursor, parked
from ifpp.store.trail import Trail

_CHUNK = 500
MOST_UNREADABLE = 1000  # parked of one node
# What a driver may say about one event's values; everything else concerns the database and stops the batch.
_POISON = (sa.IntegrityError, sa.DataError, OverflowError)

_known = select(event_log.c.node_id, event_log.c.seq, event_log.c.id).where(
    tuple_(event_log.c.node_id, event_log.c.seq).in_(bindparam("keys", expanding=True))
)
_known_ids = select(event_log.c.id).where(event_log.c.id.in_(bindparam("ids", expanding=True)))
_parked = select(parked.c.node_id, parked.c.seq, parked.c.id, parked.c.code, parked.c.text).where(
    tuple_(parked.c.node_id, parked.c.seq).in_(bindparam("keys", expanding=True))
)
_lock_cursor = (
    select(node_cursor.c.through).where(node_cursor.c.node_id == bindparam("node_id")).with_for_update(key_share=True)
)
_later = [
    select(table.c.seq).where(table.c.node_id == bindparam("node_id"), table.c.seq > bindparam("through"))
    for table in (event_log, parked)
]


@dataclass(slots=True)
class _Tally:
    """What happened to the events of one node in this call."""

    fresh: list[int] = field(default_factory=list)
    rejected: dict[tuple[int, str], Rejected] = field(default_factory=dict)


def take_events(
    connection: Connection,
    trail: Trail,
    received: Sequence[ReceivedEvent],
    learning: Learning,
    *,
    orders_required: bool = False,
) -> list[TakeResult]:
    """Take a batch (see `Factory.take_events`); the caller commits."""
    cursors = {node: open_cursor(connection, node) for node in sorted({event.node_id for event in received})}
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    ordered = sorted(received, key=lambda event: (event.node_id, event.seq))
    for start in range(0, len(ordered), _CHUNK):
        _take_chunk(connection, trail, ordered[start : start + _CHUNK], tallies, learning, orders_required)
    answers = []
    for node, before in cursors.items():
        through = advance(connection, node, before)
        tally = tallies[node]
        answers.append(TakeResult(node, through, tuple(tally.rejected.values()), tuple(tally.fresh)))
    return answers


def park_unreadable(connection: Connection, trail: Trail, node_id: str, body: bytes, text: str) -> None:
    """Keep a document whose envelope cannot be read: the same bytes of a node once, and MOST_UNREADABLE of a node."""
    event = ReceivedEvent(node_id, 0, "", "", body[:MAX_EVENT_BYTES])
    unreadable = (parked.c.node_id == node_id, parked.c.seq == 0)
    if connection.execute(select(exists().where(*unreadable, parked.c.body == event.body))).scalar():
        return
    if connection.execute(select(func.count()).where(*unreadable)).scalar_one() < MOST_UNREADABLE:
        park(connection, trail, event, "CUSTODY.EVENT_REFUSED", text)


def park(connection: Connection, trail: Trail, event: ReceivedEvent, code: str, text: str) -> Rejected:
    """Put an event aside for people, with the reason."""
    text = text[:MAX_TEXT].replace("\x00", "\\0")
    row = {"node_id": event.node_id, "seq": event.seq, "id": event.id, "code": code, "text": text}
    connection.execute(parked.insert(), [row | {"body": event.body[:MAX_EVENT_BYTES], "at": trail.at}])
    digest = sha256(event.body).hexdigest()
    trail.note("parked", node=event.node_id, seq=event.seq, event=event.id, code=code, text=text, sha256=digest)
    return Rejected(seq=event.seq, id=event.id, code=code, text=text)


# ---- the cursor of a node -----------------------------------------------------------------------------


def open_cursor(connection: Connection, node: str) -> int:
    """Lock the node against another supervisor and return its highest gap-free seq."""
    through = connection.execute(_lock_cursor, {"node_id": node}).scalar()
    if through is None:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(node_cursor)
        connection.execute(insert.values(node_id=node, through=0).on_conflict_do_nothing())
        through = connection.execute(_lock_cursor, {"node_id": node}).scalar_one()
    return int(through)


def advance(connection: Connection, node: str, before: int) -> int:
    """Move the cursor over every seq that is taken or parked without a gap; return it."""
    found: set[int] = set()
    for later in _later:
        found.update(connection.execute(later, {"node_id": node, "through": before}).scalars())
    through = before
    while through + 1 in found:
        through += 1
    if through != before:
        update = node_cursor.update().where(node_cursor.c.node_id == node)
        connection.execute(update, {"through": through})
    return through


# ---- one chunk ----------------------------------------------------------------------------------------


def _take_chunk(
    connection: Connection,
    trail: Trail,
    chunk: Sequence[ReceivedEvent],
    tallies: dict[str, _Tally],
    learning: Learning,
    orders_required: bool,
) -> None:
    fresh = _sift(connection, trail, chunk, tallies)
    if not fresh:
        return
    savepoint, part = connection.begin_nested(), Trail(trail.at)
    try:
        taken, refused = _plan_and_write(connection, part, fresh, learning, orders_required)
    except _POISON as error:
        savepoint.rollback()
        if len(fresh) == 1:
            _reject(connection, trail, fresh[0], "CUSTODY.EVENT_REFUSED", _driver_text(error), tallies)
        else:
            for event in fresh:
                _take_chunk(connection, trail, [event], tallies, learning, orders_required)
        return
    savepoint.commit()
    trail.join(part)
    for event in taken:
        tallies[event.node_id].fresh.append(event.seq)
    for event, why in refused:
        _reject(connection, trail, event, why.code, why.detail, tallies)


def _driver_text(error: Exception) -> str:
    cause = error.orig if isinstance(error, sa.DBAPIError) else error
    return f"the database refuses it: {cause}".splitlines()[0]


def _reject(
    connection: Connection, trail: Trail, event: ReceivedEvent, code: str, text: str, tallies: dict[str, _Tally]
) -> None:
    rejected = park(connection, trail, event, code, text)
    tallies[event.node_id].rejected[event.seq, event.id] = rejected


def _sift(
    connection: Connection, trail: Trail, chunk: Sequence[ReceivedEvent], tallies: dict[str, _Tally]
) -> list[ReceivedEvent]:
    """Return the events not seen before; repeat the answer for those that were, reject those that take their place."""
    keys = [(event.node_id, event.seq) for event in chunk]
    known = {(row.node_id, row.seq): row.id for row in connection.execute(_known, {"keys": keys})}
    aside = {(row.node_id, row.seq, row.id): row for row in connection.execute(_parked, {"keys": keys})}
    occupied = {(node, seq) for node, seq, _ in aside} | known.keys()
    fresh: list[ReceivedEvent] = []
    for event in chunk:
        key = (event.node_id, event.seq)
        before = aside.get((*key, event.id))
        if before is not None:
            again = Rejected(seq=event.seq, id=event.id, code=before.code, text=before.text)
            tallies[event.node_id].rejected[event.seq, event.id] = again
        elif key not in occupied:
            occupied.add(key)
            known[key] = event.id
            fresh.append(event)
        elif known.get(key) != event.id and (event.seq, event.id) not in tallies[event.node_id].rejected:
            text = f"seq {event.seq} of {event.node_id} is taken by another event"
            _reject(connection, trail, event, "CUSTODY.SEQ_CONFLICT", text, tallies)
    return fresh


def _plan_and_write(
    connection: Connection, trail: Trail, fresh: Sequence[ReceivedEvent], learning: Learning, orders_required: bool
) -> tuple[list[ReceivedEvent], list[tuple[ReceivedEvent, IfppError]]]:
    """Plan every event against the database, write the plan, and return what was taken and what was refused."""
    readable: list[tuple[ReceivedEvent, Result | None]] = []
    refused: list[tuple[ReceivedEvent, IfppError]] = []
    used = set(connection.execute(_known_ids, {"ids": [event.id for event in fresh]}).scalars())
    for event in fresh:
        try:
            if event.id in used:
                raise settle.refused("its id stands for another event")
            readable.append((event, read_event(event)))
            used.add(event.id)
        except CustodyError as error:
            refused.append((event, error))
    documents = [result.document for _, result in readable if result is not None]
    view = look_up(connection, documents, trail.at, orders_required=orders_required)
    plan, taken = Plan(), []
    for event, result in readable:
        try:
            plan_event(plan, view, event, result, trail.at)
            taken.append(event)
        except CustodyError as error:
            refused.append((event, error))
    write(connection, trail, plan, learning)
    return taken, refused
