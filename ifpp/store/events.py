"""Taking events in: each (node, seq) once, stored and settled in one transaction, poison put aside.

A chunk of events is planned against what the database says and written with a few bulk statements inside a savepoint.
When the database refuses the chunk, its events are taken one by one, and the one it refuses is parked.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, exists, select, tuple_
from sqlalchemy import exc as sa
from sqlalchemy.dialects import postgresql, sqlite

from ifpp.errors import CustodyError, IfppError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.ids import Eid
from ifpp.model.messages import Message, ProfileResult, Rejected, UnitResultEvent
from ifpp.model.states import PackageState
from ifpp.store import settle
from ifpp.store.ledger import HELD, Held, Step, held_of
from ifpp.store.ledger import take as take_steps
from ifpp.store.records import MAX_EVENT_BYTES, ReceivedEvent, TakeResult
from ifpp.store.schema import (
    chip,
    event_log,
    ledger,
    node_cursor,
    package,
    package_result,
    parked,
    reading,
    unit_attempt,
)

_CHUNK = 500
_MAX_TEXT = 200
_MAX_INT = 2**53 - 1  # line contract 4.2
# What a driver may say about one event's values; everything else concerns the database and stops the batch.
_POISON = (sa.IntegrityError, sa.DataError, OverflowError)

_RESULT = msgspec.json.Decoder(UnitResultEvent)
_OTHER = msgspec.json.Decoder(Message)

_known = select(event_log.c.node_id, event_log.c.seq, event_log.c.id).where(
    tuple_(event_log.c.node_id, event_log.c.seq).in_(bindparam("keys", expanding=True))
)
_known_ids = select(event_log.c.id).where(event_log.c.id.in_(bindparam("ids", expanding=True)))
_parked = select(parked.c.node_id, parked.c.seq, parked.c.id, parked.c.code, parked.c.text).where(
    tuple_(parked.c.node_id, parked.c.seq).in_(bindparam("keys", expanding=True))
)
_lock_chips = (
    select(chip.c.eid)
    .where(chip.c.eid.in_(bindparam("eids", expanding=True)))
    .order_by(chip.c.eid)
    .with_for_update(key_share=True)
)
_lock_packages = (
    select(*HELD)
    .where(package.c.package_id.in_(bindparam("ids", expanding=True)))
    .order_by(package.c.package_id)
    .with_for_update(key_share=True)
)
# Who was last told to read a sent package from its chip; a claim after that started a new sending.
_readers = (
    select(reading.c.package_id, reading.c.attempt_id)
    .where(
        reading.c.package_id.in_(bindparam("ids", expanding=True)),
        ~exists().where(
            ledger.c.package_id == reading.c.package_id,
            ledger.c.revision > reading.c.revision,
            ledger.c.to_state == PackageState.CLAIMED,
        ),
    )
    .order_by(reading.c.number)
)
_seal = (
    chip.update()
    .where(chip.c.eid == bindparam("b_eid"), chip.c.clean_to_ship_at.is_(None))
    .values(clean_to_ship_at=bindparam("b_at"), clean_event_id=bindparam("b_event"))
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


@dataclass(frozen=True, slots=True)
class _Result:
    """A checked unit_result: `at` its times as sortable texts, `pirs` the decoded results in order of `profiles`."""

    document: UnitResultEvent
    started_at: str
    ended_at: str
    pirs: tuple[bytes | None, ...]


@dataclass(slots=True)
class _Plan:
    """The rows a chunk will write."""

    events: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sealed: list[dict[str, Any]] = field(default_factory=list)


def take_events(connection: Connection, received: Sequence[ReceivedEvent], now: datetime) -> list[TakeResult]:
    """Take a batch (see `Factory.take_events`); the caller commits."""
    at = utc_ms_text(now)
    cursors = {node: _open_cursor(connection, node) for node in sorted({event.node_id for event in received})}
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    ordered = sorted(received, key=lambda event: (event.node_id, event.seq))
    for start in range(0, len(ordered), _CHUNK):
        _take_chunk(connection, ordered[start : start + _CHUNK], at, tallies)
    answers = []
    for node, before in cursors.items():
        through = _advance(connection, node, before)
        tally = tallies[node]
        answers.append(TakeResult(node, through, tuple(tally.rejected.values()), tuple(tally.fresh)))
    return answers


def park_unreadable(connection: Connection, node_id: str, body: bytes, text: str, at: str) -> None:
    """Keep a document whose envelope cannot be read; the same bytes of a node once, however often they are resent."""
    event = ReceivedEvent(node_id, 0, "", "", body[:MAX_EVENT_BYTES])
    same = (parked.c.node_id == node_id, parked.c.seq == 0, parked.c.body == event.body)
    if not connection.execute(select(exists().where(*same))).scalar():
        park(connection, event, "CUSTODY.EVENT_REFUSED", text, at)


def park(connection: Connection, event: ReceivedEvent, code: str, text: str, at: str) -> Rejected:
    """Put an event aside for people, with the reason."""
    text = text[:_MAX_TEXT].replace("\x00", "\\0")
    row = {"node_id": event.node_id, "seq": event.seq, "id": event.id, "code": code, "text": text}
    connection.execute(parked.insert(), [row | {"body": event.body[:MAX_EVENT_BYTES], "at": at}])
    return Rejected(seq=event.seq, id=event.id, code=code, text=text)


# ---- the cursor of a node -----------------------------------------------------------------------------


def _open_cursor(connection: Connection, node: str) -> int:
    """Lock the node against another supervisor and return its highest gap-free seq."""
    through = connection.execute(_lock_cursor, {"node_id": node}).scalar()
    if through is None:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(node_cursor)
        connection.execute(insert.values(node_id=node, through=0).on_conflict_do_nothing())
        through = connection.execute(_lock_cursor, {"node_id": node}).scalar_one()
    return int(through)


def _advance(connection: Connection, node: str, before: int) -> int:
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


def _take_chunk(connection: Connection, chunk: Sequence[ReceivedEvent], at: str, tallies: dict[str, _Tally]) -> None:
    fresh = _sift(connection, chunk, at, tallies)
    if not fresh:
        return
    savepoint = connection.begin_nested()
    try:
        taken, refused = _plan_and_write(connection, fresh, at)
    except _POISON as error:
        savepoint.rollback()
        if len(fresh) == 1:
            _reject(connection, fresh[0], "CUSTODY.EVENT_REFUSED", _driver_text(error), at, tallies)
        else:
            for event in fresh:
                _take_chunk(connection, [event], at, tallies)
        return
    savepoint.commit()
    for event in taken:
        tallies[event.node_id].fresh.append(event.seq)
    for event, why in refused:
        _reject(connection, event, why.code, why.detail, at, tallies)


def _driver_text(error: Exception) -> str:
    cause = error.orig if isinstance(error, sa.DBAPIError) else error
    return f"the database refuses it: {cause}".splitlines()[0]


def _reject(
    connection: Connection, event: ReceivedEvent, code: str, text: str, at: str, tallies: dict[str, _Tally]
) -> None:
    rejected = park(connection, event, code, text, at)
    tallies[event.node_id].rejected[event.seq, event.id] = rejected


def _sift(
    connection: Connection, chunk: Sequence[ReceivedEvent], at: str, tallies: dict[str, _Tally]
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
            _reject(connection, event, "CUSTODY.SEQ_CONFLICT", text, at, tallies)
    return fresh


def _plan_and_write(
    connection: Connection, fresh: Sequence[ReceivedEvent], at: str
) -> tuple[list[ReceivedEvent], list[tuple[ReceivedEvent, IfppError]]]:
    """Plan every event against the database, write the plan, and return what was taken and what was refused."""
    readable: list[tuple[ReceivedEvent, _Result | None]] = []
    refused: list[tuple[ReceivedEvent, IfppError]] = []
    used = set(connection.execute(_known_ids, {"ids": [event.id for event in fresh]}).scalars())
    for event in fresh:
        try:
            if event.id in used:
                raise settle.refused("its id stands for another event")
            readable.append((event, _read(event)))
            used.add(event.id)
        except CustodyError as error:
            refused.append((event, error))
    view = _view(connection, [result.document for _, result in readable if result is not None])
    plan, taken = _Plan(), []
    for event, result in readable:
        try:
            _plan_event(plan, view, event, result, at)
            taken.append(event)
        except CustodyError as error:
            refused.append((event, error))
    _write(connection, plan)
    return taken, refused


def _write(connection: Connection, plan: _Plan) -> None:
    inserts: Iterable[tuple[Table, list[dict[str, Any]]]] = (
        (event_log, plan.events),
        (unit_attempt, plan.attempts),
        (package_result, plan.results),
    )
    for table, rows in inserts:
        if rows:
            connection.execute(table.insert(), rows)
    take_steps(connection, plan.steps)
    if plan.sealed:
        connection.execute(_seal, plan.sealed)


# ---- reading one event --------------------------------------------------------------------------------


def _read(event: ReceivedEvent) -> _Result | None:
    """Check an event against the contract; None for one that settles nothing. Raises CUSTODY.EVENT_REFUSED."""
    name, _, version = event.schema.partition("/")
    if b"\\u0000" in event.body:
        raise settle.refused("a text with a NUL character")
    try:
        if name != "unit_result":
            document: Message = _OTHER.decode(event.body)
            checked = None
        else:
            if version.partition(".")[0] != "1":
                raise settle.refused(f"unit_result of version {version}")
            document = result = _RESULT.decode(event.body)
            checked = _check_result(result)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise settle.refused(str(error)) from error
    if (document.node_id, document.seq, document.id, document.schema) != (
        event.node_id,
        event.seq,
        event.id,
        event.schema,
    ):
        raise settle.refused("the document is not the one its envelope names")
    return checked


def _check_result(document: UnitResultEvent) -> _Result:
    """Raises ValueError, or CustodyError, on what the contract does not allow."""
    if document.unit.eid:
        Eid(document.unit.eid)
    for name in ("attempt", "cycle_ms", "load_ms", "handling_ms"):
        if not 0 <= getattr(document, name) <= _MAX_INT:
            raise ValueError(f"{name} is out of range")
    ids = [profile.package_id for profile in document.profiles]
    if len(set(ids)) != len(ids):
        raise ValueError("a package stands twice in one result")
    if not document.transaction_id:
        raise ValueError("no transaction_id")
    started, ended = (utc_ms_text(parse_utc(at)) for at in (document.started_at, document.ended_at))
    return _Result(document, started, ended, tuple(_pir(profile) for profile in document.profiles))


def _pir(profile: ProfileResult) -> bytes | None:
    if not profile.pir_b64:
        return None
    try:
        return b64decode(profile.pir_b64, validate=True)
    except Base64Error as error:
        raise ValueError(f"pir_b64: {error}") from error


# ---- planning one event -------------------------------------------------------------------------------


@dataclass(slots=True)
class _View:
    """The packages a chunk speaks of, kept up to date while it is planned, and who was last told to read them."""

    packages: dict[str, Held]
    readers: dict[str, str]


def _view(connection: Connection, documents: Sequence[UnitResultEvent]) -> _View:
    """Lock and read what the documents speak of: chips first, then packages, as a claim does."""
    spoken = [document for document in documents if document.profiles]
    if not spoken:
        return _View({}, {})
    ids = sorted({profile.package_id for document in spoken for profile in document.profiles})
    connection.execute(_lock_chips, {"eids": sorted({document.unit.eid for document in spoken})})
    rows = connection.execute(_lock_packages, {"ids": ids})
    held = {row.package_id: held_of(row) for row in rows}
    readers = {row.package_id: row.attempt_id for row in connection.execute(_readers, {"ids": ids})}
    return _View(held, readers)


def _plan_event(plan: _Plan, view: _View, event: ReceivedEvent, result: _Result | None, at: str) -> None:
    """Add one event's rows to the plan, all or none; raises CustodyError CUSTODY.EVENT_REFUSED."""
    if result is not None:
        moves = [_move(view, result.document, profile, at) for profile in result.document.profiles]
        for profile, pir, steps in zip(result.document.profiles, result.pirs, moves, strict=True):
            plan.results.append(_result_row(event, result, profile, pir, steps[-1].revision if steps else None, at))
            plan.steps.extend(steps)
            if steps:
                last = steps[-1]
                view.packages[profile.package_id] = replace(
                    view.packages[profile.package_id],
                    state=last.state,
                    spent=last.spent,
                    revision=last.revision,
                    attempt_id=last.attempt_id,
                )
                if steps[0].state is PackageState.CLAIMED:
                    view.readers.pop(profile.package_id, None)
        plan.attempts.append(_attempt_row(event, result))
        if result.document.clean_to_ship and result.document.unit.eid:
            sealed = {"b_eid": result.document.unit.eid, "b_at": result.ended_at, "b_event": event.id}
            plan.sealed.append(sealed)
    row = {"node_id": event.node_id, "seq": event.seq, "id": event.id, "schema": event.schema}
    plan.events.append(row | {"body": event.body, "taken_at": at})


def _move(view: _View, document: UnitResultEvent, profile: ProfileResult, at: str) -> list[Step]:
    """Return the steps one ProfileResult asks for."""
    held = view.packages.get(profile.package_id)
    if held is None:
        raise settle.refused(f"package {profile.package_id[:64]!r} is not in the store")
    if (held.eid, held.iccid, held.bpp_sha256) != (document.unit.eid, profile.iccid, profile.bpp_sha256):
        raise settle.refused(f"package {held.package_id} belongs to another chip, profile or content")
    attempt = document.transaction_id
    holder = attempt == view.readers.get(held.package_id, held.attempt_id)
    word = settle.told(profile)
    states = settle.path(settle.Standing(held.state, held.spent), word, holder=holder)
    spent = word in (settle.Told.INSTALLED, settle.Told.SPENT)
    steps = []
    for number, state in enumerate(states, 1):
        final = number == len(states)
        steps.append(
            Step(
                held.package_id,
                held.revision + number,
                state,
                at,
                document.node_id,
                document.head_id,
                attempt_id=None if state is PackageState.AVAILABLE else attempt,
                lease_until=at if state is PackageState.CLAIMED else None,
                spent=spent and final,
                event_id=document.id,
                detail=profile.error[:_MAX_TEXT] if final else "made up for by its result",
            )
        )
    return steps


def _attempt_row(event: ReceivedEvent, result: _Result) -> dict[str, Any]:
    document = result.document
    return {
        "node_id": event.node_id,
        "seq": event.seq,
        "event_id": event.id,
        "transaction_id": document.transaction_id,
        "unit": document.unit.sn or document.unit.eid,
        "sn": document.unit.sn,
        "eid": document.unit.eid,
        "operation": document.operation,
        "job_order_id": document.job_order_id,
        "head_id": document.head_id,
        "attempt": document.attempt,
        "result": document.result,
        "outcome_class": document.outcome_class,
        "disposition": document.disposition,
        "clean_to_ship": document.clean_to_ship,
        "defect": document.defects[0].code if document.defects else "",
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "cycle_ms": document.cycle_ms,
        "load_ms": document.load_ms,
    }


def _result_row(
    event: ReceivedEvent, result: _Result, profile: ProfileResult, pir: bytes | None, revision: int | None, at: str
) -> dict[str, Any]:
    return {
        "package_id": profile.package_id,
        "node_id": event.node_id,
        "seq": event.seq,
        "state": profile.package_state,
        "spent": profile.key_consumed,
        "reason": profile.error[:_MAX_TEXT],
        "pir": pir,
        "revision": revision,
        "head_id": result.document.head_id,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "taken_at": at,
    }
