"""What one event writes: reading it against the contract, and planning its rows against the ledger.

A chunk of events is planned as a whole: the packages it speaks of are locked and read once, and each event sees what
the events before it will have done.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, exists, select

from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.ids import Eid
from ifpp.model.messages import Message, ProfileResult, UnitResultEvent
from ifpp.model.states import PackageState
from ifpp.store import settle
from ifpp.store.ledger import HELD, Held, Step, held_of, take
from ifpp.store.records import ReceivedEvent
from ifpp.store.schema import chip, event_log, ledger, package, package_result, reading, unit_attempt

MAX_TEXT = 200
_MAX_INT = 2**53 - 1  # line contract 4.2

_RESULT = msgspec.json.Decoder(UnitResultEvent)
_OTHER = msgspec.json.Decoder(Message)

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


@dataclass(frozen=True, slots=True)
class Result:
    """A checked unit_result: times as sortable texts, `pirs` the decoded results in the order of its profiles."""

    document: UnitResultEvent
    started_at: str
    ended_at: str
    pirs: tuple[bytes | None, ...]


@dataclass(slots=True)
class Plan:
    """The rows a chunk will write."""

    events: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sealed: list[dict[str, Any]] = field(default_factory=list)


# ---- reading one event --------------------------------------------------------------------------------


def read_event(event: ReceivedEvent) -> Result | None:
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


def _check_result(document: UnitResultEvent) -> Result:
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
    return Result(document, started, ended, tuple(_pir(profile) for profile in document.profiles))


def _pir(profile: ProfileResult) -> bytes | None:
    if not profile.pir_b64:
        return None
    try:
        return b64decode(profile.pir_b64, validate=True)
    except Base64Error as error:
        raise ValueError(f"pir_b64: {error}") from error


# ---- planning one event -------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """The packages a chunk speaks of, kept up to date while it is planned, and who was last told to read them."""

    packages: dict[str, Held]
    readers: dict[str, str]


def look_up(connection: Connection, documents: Sequence[UnitResultEvent]) -> View:
    """Lock and read what the documents speak of: chips first, then packages, as a claim does."""
    spoken = [document for document in documents if document.profiles]
    if not spoken:
        return View({}, {})
    ids = sorted({profile.package_id for document in spoken for profile in document.profiles})
    connection.execute(_lock_chips, {"eids": sorted({document.unit.eid for document in spoken})})
    rows = connection.execute(_lock_packages, {"ids": ids})
    held = {row.package_id: held_of(row) for row in rows}
    readers = {row.package_id: row.attempt_id for row in connection.execute(_readers, {"ids": ids})}
    return View(held, readers)


def plan_event(plan: Plan, view: View, event: ReceivedEvent, result: Result | None, at: str) -> None:
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
        plan.attempts.append(_attempt_row(event, result))
        if result.document.clean_to_ship and result.document.unit.eid:
            sealed = {"b_eid": result.document.unit.eid, "b_at": result.ended_at, "b_event": event.id}
            plan.sealed.append(sealed)
    row = {"node_id": event.node_id, "seq": event.seq, "id": event.id, "schema": event.schema}
    plan.events.append(row | {"body": event.body, "taken_at": at})


def _move(view: View, document: UnitResultEvent, profile: ProfileResult, at: str) -> list[Step]:
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
                detail=profile.error[:MAX_TEXT] if final else "made up for by its result",
            )
        )
    return steps


def _attempt_row(event: ReceivedEvent, result: Result) -> dict[str, Any]:
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
    event: ReceivedEvent, result: Result, profile: ProfileResult, pir: bytes | None, revision: int | None, at: str
) -> dict[str, Any]:
    return {
        "package_id": profile.package_id,
        "node_id": event.node_id,
        "seq": event.seq,
        "state": profile.package_state,
        "spent": profile.key_consumed,
        "reason": profile.error[:MAX_TEXT],
        "pir": pir,
        "revision": revision,
        "head_id": result.document.head_id,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
        "taken_at": at,
    }


def write(connection: Connection, plan: Plan) -> None:
    """Write a plan with a few bulk statements; what the database refuses comes out as its own error."""
    inserts: Iterable[tuple[Table, list[dict[str, Any]]]] = (
        (event_log, plan.events),
        (unit_attempt, plan.attempts),
        (package_result, plan.results),
    )
    for table, rows in inserts:
        if rows:
            connection.execute(table.insert(), rows)
    take(connection, plan.steps)
    if plan.sealed:
        connection.execute(_seal, plan.sealed)
