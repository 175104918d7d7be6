"""What one event writes: reading it against the contract, and planning its rows against the ledger.

A chunk of events is planned as a whole: the packages it speaks of are locked and read once, and each event sees what
the events before it will have done.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, bindparam, exists, func, or_, select

from ifpp.errors import CustodyError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.ids import Eid
from ifpp.model.messages import Link, Message, ProfileResult, RemovedProfile, SealProof, UnitResultEvent
from ifpp.model.states import OPEN_STATES, PackageState
from ifpp.store import quota, rework, settle
from ifpp.store.denylist import MAX_NAME, Learning, learn
from ifpp.store.facts import load_rows, note_again, note_lines, span_row
from ifpp.store.figure_tables import load_time, state_span
from ifpp.store.ledger import HELD, Held, Step, held_of, take
from ifpp.store.quota_tables import quota_unit
from ifpp.store.records import ReceivedEvent
from ifpp.store.rework_tables import removal
from ifpp.store.schema import chip, event_log, ledger, package, package_result, reading, unit_attempt
from ifpp.store.trail import Trail
from ifpp.store.unasked import row_of, unasked

MAX_TEXT = 200
_MAX_INT = 2**53 - 1  # line contract 4.2

_RESULT = msgspec.json.Decoder(UnitResultEvent)
_OTHER = msgspec.json.Decoder(Message)

_lock_chips = (
    select(chip.c.eid, chip.c.clean_to_ship_at)
    .where(chip.c.eid.in_(bindparam("eids", expanding=True)))
    .order_by(chip.c.eid)
    .with_for_update(key_share=True)
)
_lock_packages = (
    select(*HELD)
    .where(
        or_(
            package.c.package_id.in_(bindparam("ids", expanding=True)),
            package.c.eid.in_(bindparam("eids", expanding=True)),
        )
    )
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
_sendings = (
    select(ledger.c.package_id, func.count())
    .where(ledger.c.package_id.in_(bindparam("ids", expanding=True)), ledger.c.to_state == PackageState.SENT)
    .group_by(ledger.c.package_id)
)
_seal = (
    chip.update()
    .where(chip.c.eid == bindparam("b_eid"), chip.c.clean_to_ship_at.is_(None))
    .values(clean_to_ship_at=bindparam("b_at"), clean_event_id=bindparam("b_event"))
)


@dataclass(frozen=True, slots=True)
class Result:
    """A checked unit_result: times as sortable texts, `pirs` the decoded results in the order of its profiles,
    `notices` the chip's words in the order of its removals."""

    document: UnitResultEvent
    started_at: str
    ended_at: str
    pirs: tuple[bytes | None, ...]
    notices: tuple[bytes | None, ...] = ()


@dataclass(slots=True)
class Plan:
    """The rows a chunk will write, the facts of its entries in the audit log, and the results it was made from."""

    events: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sealed: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    cleared: list[dict[str, Any]] = field(default_factory=list)
    withheld: list[dict[str, Any]] = field(default_factory=list)
    told: list[UnitResultEvent] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)
    counted: list[dict[str, Any]] = field(default_factory=list)
    removals: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)
    unasked: list[dict[str, Any]] = field(default_factory=list)


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
            if version.partition(".")[0] != "1":
                raise settle.refused(f"{name} of version {version}")
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
    if document.seal is not None:
        _check_seal(document.seal, clean_to_ship=document.clean_to_ship)
    ids = [profile.package_id for profile in document.profiles]
    if len(set(ids)) != len(ids):
        raise ValueError("a package stands twice in one result")
    if not document.transaction_id:
        raise ValueError("no transaction_id")
    started, ended = (utc_ms_text(parse_utc(at)) for at in (document.started_at, document.ended_at))
    pirs = tuple(_decoded(profile.pir_b64, "pir_b64") for profile in document.profiles)
    notices = tuple(_decoded(profile.notification_b64, "notification_b64") for profile in document.removed)
    return Result(document, started, ended, pirs, notices)


def _check_seal(seal: SealProof, *, clean_to_ship: bool) -> None:
    """Raises CustodyError CUSTODY.NOT_SEALED when the proof speaks against the claim, ValueError on nonsense."""
    for name in ("keys_deleted", "keys_remaining"):
        if not 0 <= getattr(seal, name) <= _MAX_INT:
            raise ValueError(f"{name} is out of range")
    closed = seal.fpa_locked or seal.fpa_absent
    if clean_to_ship and (seal.keys_remaining or not closed or not seal.lpa_answers):
        facts = (
            f"{seal.keys_remaining} one-time keys remain",
            f"factory services {'closed' if closed else 'open'}",
            f"field LPA {'answers' if seal.lpa_answers else 'silent'}",
        )
        raise CustodyError("CUSTODY.NOT_SEALED", f"called clean to ship, but: {', '.join(facts)}")


def _decoded(text: str, name: str) -> bytes | None:
    try:
        return b64decode(text, validate=True) if text else None
    except Base64Error as error:
        raise ValueError(f"{name}: {error}") from error


# ---- planning one event -------------------------------------------------------------------------------


@dataclass(slots=True)
class View:
    """The chips a chunk speaks of and their packages, kept up to date while it is planned.

    `readers`: who was last told to read a package from its chip; `sent_before`: those of the documents that were sent
    before this time; `clean`: for each known chip, whether it is clean to
    ship; `quota`: what may still be sealed; `pending`, `gone`: packages whose profiles are to leave their chips, or
    did.
    """

    packages: dict[str, Held] = field(default_factory=dict)
    of_chip: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    readers: dict[str, str] = field(default_factory=dict)
    sent_before: set[str] = field(default_factory=set)
    clean: dict[str, bool] = field(default_factory=dict)
    quota: quota.Quota = field(default_factory=quota.Quota)
    pending: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


def look_up(
    connection: Connection, documents: Sequence[UnitResultEvent], at: str = "", *, orders_required: bool = False
) -> View:
    """Lock and read what the documents speak of: first chips, then packages, as a claim does; then orders."""
    view = View()
    spoken = [document for document in documents if document.profiles or document.removed or document.clean_to_ship]
    if not spoken:
        return view
    ids = sorted({profile.package_id for document in spoken for profile in document.profiles})
    eids = sorted({document.unit.eid for document in spoken})
    for row in connection.execute(_lock_chips, {"eids": eids}):
        view.clean[row.eid] = row.clean_to_ship_at is not None
    for row in connection.execute(_lock_packages, {"ids": ids, "eids": eids}):
        view.packages[row.package_id] = held_of(row)
        view.of_chip[row.eid].append(row.package_id)
    for row in connection.execute(_readers, {"ids": ids}):
        view.readers[row.package_id] = row.attempt_id
    untied = [one.package_id for document in spoken for one in document.profiles if not one.tied]
    if untied:
        sendings = {row[0]: row[1] for row in connection.execute(_sendings, {"ids": untied})}
        now = {name for name in untied if name in view.packages and view.packages[name].state is PackageState.SENT}
        view.sent_before = {name for name, times in sendings.items() if times > (name in now)}
    view.pending, view.gone = rework.leaving(connection, eids)
    sealed = [document.unit.eid for document in spoken if document.clean_to_ship and document.unit.eid]
    view.quota = quota.look_up(connection, sealed, at, required=orders_required)
    return view


def plan_event(plan: Plan, view: View, event: ReceivedEvent, result: Result | None, at: str) -> None:
    """Add one event's rows to the plan, all or none; raises CustodyError CUSTODY.EVENT_REFUSED."""
    if event.schema.startswith("state_changed/"):
        plan.spans.append(span_row(event))
    if result is not None:
        _check_removals(view, result.document)
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
                    iccid=last.iccid or view.packages[profile.package_id].iccid,
                )
        for profile_gone, notice in zip(result.document.removed, result.notices, strict=True):
            _remove(plan, view, event, result, profile_gone, notice, at)
        plan.attempts.append(_attempt_row(event, result))
        plan.taken.append(_taken(event, result.document))
        plan.told.append(result.document)
        if (question := row_of(event, result.document)) is not None:
            plan.unasked.append(question)
        plan.loads.extend(load_rows(event, result.document, result.ended_at))
        if result.document.clean_to_ship and result.document.unit.eid:
            _clear(plan, view, event, result, at)
    row = {"node_id": event.node_id, "seq": event.seq, "id": event.id, "schema": event.schema}
    plan.events.append(row | {"body": event.body, "taken_at": at})


def _move(view: View, document: UnitResultEvent, profile: ProfileResult, at: str) -> list[Step]:
    """Return the steps one ProfileResult asks for."""
    held = view.packages.get(profile.package_id)
    if held is None:
        raise settle.refused(f"package {profile.package_id[:64]!r} is not in the store")
    if not held.is_meant(document.unit.eid, profile.iccid, profile.bpp_sha256):
        raise settle.refused(f"package {held.package_id} belongs to another chip, profile or content")
    attempt = document.transaction_id
    holder = (profile.lease_id or attempt) == view.readers.get(held.package_id, held.attempt_id)
    word = settle.told(profile)
    states = settle.path(settle.Standing(held.state, held.spent), word, holder=holder)
    if held.is_code:
        settle.check_iccid(word, profile.iccid)
        if settle.goes_back(held.state, word, states, tied=profile.tied or held.package_id in view.sent_before):
            states = (*states, PackageState.DESTROYED)
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
                attempt_id=None if state in (PackageState.AVAILABLE, PackageState.DESTROYED) else attempt,
                lease_until=at if state is PackageState.CLAIMED else None,
                spent=spent and final,
                event_id=document.id,
                detail=profile.error[:MAX_TEXT] if final else "made up for by its result",
                iccid=profile.iccid if held.is_code and state is PackageState.INSTALLED else "",
            )
        )
    return steps


def _remove(
    plan: Plan, view: View, event: ReceivedEvent, result: Result, told: RemovedProfile, notice: bytes | None, at: str
) -> None:
    """Keep the chip's word on a profile that was to leave it; a repeated or open one changes nothing."""
    held, gone = view.packages[told.package_id], told.state == "GONE"
    if held.package_id in view.gone or told.state == "UNKNOWN":
        return
    key = {"package_id": held.package_id, "node_id": event.node_id, "seq": event.seq}
    said = {"gone": gone, "result": told.result, "reason": told.error[:MAX_TEXT]}
    plan.removals.append(key | said | {"notification": notice, "at": at})
    proof = {"notification_sha256": sha256(notice).hexdigest() if notice else ""}
    rework_id = result.document.rework_id
    plan.removed.append({**key, **said, **proof, "eid": held.eid, "iccid": held.iccid, "rework": rework_id})
    if gone:
        view.pending.discard(held.package_id)
        view.gone.add(held.package_id)


def _check_removals(view: View, document: UnitResultEvent) -> None:
    """Raises CustodyError CUSTODY.EVENT_REFUSED for a removal that nobody ordered, or of something else."""
    for told in document.removed:
        held = view.packages.get(told.package_id)
        if held is None or (held.eid, held.iccid) != (document.unit.eid, told.iccid):
            raise settle.refused(f"package {told.package_id[:64]!r} belongs to another chip or profile")
        if held.package_id not in view.pending | view.gone:
            raise settle.refused(f"nobody ordered that package {held.package_id} leaves its chip")
        if told.state not in ("GONE", "PRESENT", "UNKNOWN"):
            raise settle.refused(f"a removal that ended as {told.state[:32]!r}")


def _taken(event: ReceivedEvent, document: UnitResultEvent) -> dict[str, Any]:
    return {
        "node": event.node_id,
        "seq": event.seq,
        "event": event.id,
        "attempt": document.transaction_id,
        "eid": document.unit.eid,
        "sn": document.unit.sn,
        "result": document.result,
        "sha256": sha256(event.body).hexdigest(),
    }


def _clear(plan: Plan, view: View, event: ReceivedEvent, result: Result, at: str) -> None:
    """The end-of-line gate: call a chip clean to ship once, with proof and with no package open, or say why not."""
    document = result.document
    eid = document.unit.eid
    packages = [view.packages[package_id] for package_id in view.of_chip[eid]]
    still_open = [f"{held.package_id} is {held.state}" for held in packages if held.state in OPEN_STATES]
    reason = code = ""
    order: quota.OrderRow | None = None
    if eid not in view.clean:
        reason = "the store has no eUICC data for it"
    elif document.seal is None:
        reason = "no proof that the chip is sealed"
    elif still_open:
        reason = f"package {', '.join(still_open)}"
    elif any(held.package_id in view.pending for held in packages):
        reason = "profiles are to leave its chip: it is in rework"
    elif not view.clean[eid]:
        try:
            order = view.quota.take(eid)
        except CustodyError as error:
            code, reason = error.code, error.detail
    if reason:
        why = {"code": code, "reason": reason[:MAX_TEXT]}
        plan.withheld.append({"eid": eid, "event": event.id, "node": event.node_id, **why})
    elif not view.clean[eid]:
        view.clean[eid] = True
        if order is not None:
            plan.counted.append(quota.count_row(order, eid, event.id, at))
        plan.sealed.append({"b_eid": eid, "b_at": result.ended_at, "b_event": event.id})
        plan.cleared.append(
            {
                "eid": eid,
                "sn": document.unit.sn,
                "iccids": sorted(
                    held.iccid
                    for held in packages
                    if held.state is PackageState.INSTALLED and held.package_id not in view.gone
                ),
                "seal": document.seal,
                "transaction_id": document.transaction_id,
                "event": event.id,
                "node": event.node_id,
                "head": document.head_id,
                "sealed_at": result.ended_at,
                "order": order.order_id if order else None,
                "number": order.used if order else None,
            }
        )


def _attempt_row(event: ReceivedEvent, result: Result) -> dict[str, Any]:
    document = result.document
    link = document.link or Link()
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
        "firmware": document.firmware[:MAX_NAME],
        "atr": link.atr,
        "protocol": link.protocol,
        "bit_rate": link.bit_rate,
        "block_size": link.block_size,
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


def write(connection: Connection, trail: Trail, plan: Plan, learning: Learning) -> None:
    """Write a plan with a few bulk statements; what the database refuses comes out as its own error."""
    inserts: Iterable[tuple[Table, list[dict[str, Any]]]] = (
        (event_log, plan.events),
        (unit_attempt, plan.attempts),
        (package_result, plan.results),
        (state_span, plan.spans),
        (load_time, plan.loads),
        (quota_unit, plan.counted),
        (removal, plan.removals),
        (unasked, plan.unasked),
    )
    for table, rows in inserts:
        if rows:
            connection.execute(table.insert(), rows)
    note_again(connection, plan.attempts)
    for facts in plan.taken:
        trail.note("result", **facts)
    take(connection, trail, plan.steps)
    for facts in plan.removed:
        trail.note("removed", **facts)
    if plan.sealed:
        connection.execute(_seal, plan.sealed)
    for facts in plan.cleared:
        trail.note("clean_to_ship", clears=facts["eid"], **facts)
    for facts in plan.withheld:
        trail.note("withheld", **facts)
    learn(connection, trail, plan.told, learning)
    if plan.told:
        note_lines(connection, {document.node_id: document.job_order_id for document in plan.told})
