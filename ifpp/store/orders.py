"""Job orders as the MES commands them: each command once, the newest version of an order as it stands now.

What an order is made of stands in `job_order`, a row a version; its dispatch status is part of the newest row. What was
commanded stands in `order_word`, by the MES's request id: the same request is answered alike, however often it comes.
When an order has ended, `order_end` waits a moment for the units in hand; then the MES gets its response, once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec
from sqlalchemy import Connection, bindparam, case, func, insert, select, update

from ifpp.model.clock import parse_utc, utc_ms_text, uuid7
from ifpp.model.mes import JobOrder, JobResponse, MaterialActual
from ifpp.model.messages import Job
from ifpp.model.orders import CLOSED, COMPLETED, ENDED, Decision, completed, decide
from ifpp.model.states import PackageState
from ifpp.store import books, line_log
from ifpp.store.plans import in_force
from ifpp.store.reservations import newest_job, read_job
from ifpp.store.schema import (
    batch,
    batch_total,
    job_order,
    order_end,
    order_word,
    package,
    package_result,
    unit_attempt,
)
from ifpp.store.trail import Trail

_MES = "MES"
_LINE = "the line"
_word = select(order_word).where(order_word.c.request_id == bindparam("request_id"))
_lock = select(job_order.c.version).where(job_order.c.job_order_id == bindparam("job_order_id")).with_for_update()


@dataclass(frozen=True, slots=True)
class OrderWord:
    """What was answered to a command: ACCEPTED, REJECTED with a `code`, or DUPLICATE."""

    status: str
    dispatch_status: str
    code: str = ""
    text: str = ""


def command(connection: Connection, trail: Trail, line: str, ask: JobOrder) -> OrderWord:
    """Carry out one command of the MES for a line; the answer stands when the transaction does.

    A request id that came before with the same content is a DUPLICATE; with another content it is REJECTED.
    """
    digest = sha256(msgspec.json.encode(ask)).hexdigest()
    before = connection.execute(_word, {"request_id": ask.request_id}).one_or_none()
    if before is not None:
        if before.sha256 != digest:
            return OrderWord("REJECTED", "", "ORDER.REQUEST", "this request_id was used for another command")
        status = before.status if before.status == "REJECTED" else "DUPLICATE"
        return OrderWord(status, before.dispatch_status, before.code, before.text)
    known = _newest(connection, line, ask.job_order_id)
    if isinstance(known, str):
        return OrderWord("REJECTED", "", "ORDER.OTHER_LINE", f"this order is with line {known}")
    decision = decide(known, ask)
    if decision.job is not None and (other := _planned_otherwise(connection, ask, trail.at)):
        decision = Decision("REJECTED", known.dispatch_status if known else "", code="ORDER.PROFILES", text=other)
    if decision.job is not None:
        _store(connection, trail, line, known, decision.job, digest)
        _note(trail, line, decision.job, ask.command, _MES, ask.reason)
    word = {"request_id": ask.request_id, "job_order_id": ask.job_order_id, "version": ask.version}
    answer = {"command": ask.command, "sha256": digest, "at": trail.at} | _answer(decision)
    connection.execute(insert(order_word), [word | answer])
    return OrderWord(**_answer(decision))


def _planned_otherwise(connection: Connection, ask: JobOrder, at: str) -> str:
    """Say what the plan gives a unit where an order names other profiles; "" when it names none or none is planned."""
    if not ask.profile_types or ask.product is None:
        return ""
    plan = in_force(connection, ask.product.part_number, ask.region, ask.customer, at)
    if plan is None:
        return ""
    wanted = Counter({one.type: one.per_unit for one in ask.profile_types})
    planned = Counter(one.profile_type for one in plan.profiles)
    if wanted == planned:
        return ""
    return "the plan says " + ", ".join(f"{count} x {name}" for name, count in sorted(planned.items()))


def finish(connection: Connection, trail: Trail, line: str, job_order_id: str, good: int) -> Job | None:
    """Complete a running order of which so many units are good; return it as it stands then, None when it is not."""
    known = _newest(connection, line, job_order_id)
    if known is None or isinstance(known, str) or not completed(known, good):
        return None
    ended = msgspec.structs.replace(known, dispatch_status=COMPLETED)
    _store(connection, trail, line, known, ended, "")
    _note(trail, line, ended, "COMPLETE", _LINE, f"{good} good units")
    return ended


def respond(connection: Connection, trail: Trail, line: str, boot_id: str, now: datetime, grace_s: float) -> list[str]:
    """Write the response of every order that ended `grace_s` ago and has none; return their ids.

    What it counts stands before it in the log: the events of stations are taken in first.
    """
    due = select(order_end.c.job_order_id, order_end.c.at).where(
        order_end.c.line == line,
        order_end.c.responded_at == "",
        order_end.c.at <= utc_ms_text(now - timedelta(seconds=grace_s)),
    )
    ended = connection.execute(due.order_by(order_end.c.at, order_end.c.job_order_id)).all()
    while ended and line_log.collect(connection, line, boot_id, trail.at):
        pass
    for job_order_id, at in ended:
        body = connection.execute(newest_job, {"job_order_id": job_order_id}).scalar_one()
        response = _response(connection, read_job(body), boot_id, at, now)
        line_log.append(connection, line, "job_response", response, trail.at)
        mine = order_end.c.job_order_id == job_order_id
        connection.execute(update(order_end).where(mine).values(responded_at=trail.at))
    return [job_order_id for job_order_id, _ in ended]


def _response(connection: Connection, job: Job, boot_id: str, ended_at: str, now: datetime) -> JobResponse:
    counts = next((c for c in books.unit_counts(connection) if c.job_order_id == job.job_order_id), None)
    first, last = connection.execute(
        select(func.min(unit_attempt.c.started_at), func.max(unit_attempt.c.ended_at)).where(
            unit_attempt.c.job_order_id == job.job_order_id
        )
    ).one()
    units_in, good = (counts.units, counts.final_pass) if counts else (0, 0)
    state = COMPLETED if job.dispatch_status == CLOSED else job.dispatch_status
    return JobResponse(
        schema="job_response/1.0",
        id=uuid7(now),
        ts=utc_ms_text(now),
        node_id=line_log.LINE_NODE,
        boot_id=boot_id,
        job_order_id=job.job_order_id,
        version=job.version,
        job_state=state,
        quantity=job.quantity,
        units_in=units_in,
        good=good,
        failed=units_in - good,
        attempts=counts.attempts if counts else 0,
        first_pass=counts.first_pass if counts else 0,
        started_at=first or "",
        ended_at=max(filter(None, (last, ended_at)), key=parse_utc),
        work_order_id=job.work_order_id,
        product=job.product,
        materials=_materials(connection, job.job_order_id),
    )


def _materials(connection: Connection, job_order_id: str) -> tuple[MaterialActual, ...]:
    """What became of the packages of one order: installed, or spent without a profile."""
    installed, failed = PackageState.INSTALLED, PackageState.FAILED
    touched = (
        select(package.c.profile_type, package.c.package_id, package.c.state, package.c.spent)
        .join(package_result, package_result.c.package_id == package.c.package_id)
        .join(
            unit_attempt,
            (unit_attempt.c.node_id == package_result.c.node_id) & (unit_attempt.c.seq == package_result.c.seq),
        )
        .where(unit_attempt.c.job_order_id == job_order_id)
        .distinct()
        .subquery()
    )
    t = touched.c
    rows = connection.execute(
        select(
            t.profile_type,
            func.sum(case((t.state == installed, 1), else_=0)),
            func.sum(case(((t.state == failed) & t.spent, 1), else_=0)),
        )
        .group_by(t.profile_type)
        .order_by(t.profile_type)
    )
    return tuple(MaterialActual(profile_type=kind, consumed=used, spoiled=lost) for kind, used, lost in rows)


def _newest(connection: Connection, line: str, job_order_id: str) -> Job | str | None:
    """Return the newest version, locked; the name of the line that has it when that is another one."""
    connection.execute(_lock, {"job_order_id": job_order_id})
    owner = select(job_order.c.line).where(job_order.c.job_order_id == job_order_id).limit(1)
    holder = connection.execute(owner).scalar()
    if holder is None:
        return None
    if holder != line:
        return str(holder)
    body = connection.execute(newest_job, {"job_order_id": job_order_id}).scalar_one()
    return read_job(body)


def _store(connection: Connection, trail: Trail, line: str, known: Job | None, job: Job, digest: str) -> None:
    body = msgspec.json.encode(job)
    if job.dispatch_status in ENDED and (known is None or known.dispatch_status not in ENDED):
        end = {"job_order_id": job.job_order_id, "line": line, "at": trail.at, "responded_at": ""}
        connection.execute(insert(order_end), [end])
    key = (job_order.c.job_order_id == job.job_order_id, job_order.c.version == job.version)
    if known is not None and known.version == job.version:
        connection.execute(update(job_order).where(*key).values(body=body))
        return
    row = {"kind": "order", "name": f"{job.job_order_id}-{job.version}", "sha256": digest, "imported_at": trail.at}
    number = connection.execute(insert(batch).returning(batch.c.number), [row]).scalar_one()
    total = {"batch": number, "chips": 0, "packages": 0, "jobs": 1, "travellers": 0}
    connection.execute(insert(batch_total), [total])
    order = {"job_order_id": job.job_order_id, "version": job.version, "batch": number, "line": line, "body": body}
    connection.execute(insert(job_order), [order])


def _note(trail: Trail, line: str, job: Job, command: str, by: str, reason: str) -> None:
    trail.note(
        "order",
        job=job.job_order_id,
        version=job.version,
        line=line,
        command=command,
        dispatch_status=job.dispatch_status,
        by=by,
        reason=reason,
    )


def _answer(decision: Decision) -> dict[str, str]:
    return {
        "status": decision.status,
        "dispatch_status": decision.dispatch_status,
        "code": decision.code,
        "text": decision.text,
    }
