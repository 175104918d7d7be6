"""What a job order may become: the MES's commands and the line's own steps (ISA-95 JobOrder, line contract 4.3).

Pure. A command whose effect stands already is a DUPLICATE: nothing happens. The same version with another content is
refused, whoever sent it first was right.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ifpp.model.mes import JobOrder
from ifpp.model.messages import Job

WAITING, READY, RUNNING, HELD = "WAITING", "READY", "RUNNING", "HELD"
COMPLETED, ABORTED, CANCELLED, CLOSED = "COMPLETED", "ABORTED", "CANCELLED", "CLOSED"
ENDED = frozenset({COMPLETED, ABORTED, CANCELLED, CLOSED})

# command -> status it may come in -> status after it
_STEPS: dict[str, dict[str, str]] = {
    "START": {WAITING: RUNNING, READY: RUNNING},
    "HOLD": {WAITING: HELD, READY: HELD, RUNNING: HELD},
    "RESUME": {HELD: RUNNING},
    "STOP": {READY: COMPLETED, RUNNING: COMPLETED, HELD: COMPLETED},
    "ABORT": {WAITING: CANCELLED, READY: CANCELLED, RUNNING: ABORTED, HELD: ABORTED},
    "CLOSE": {COMPLETED: CLOSED, ABORTED: CLOSED, CANCELLED: CLOSED},
}
COMMANDS = ("STORE", *_STEPS)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done: `job` is stored as it is (None: nothing changes); `code` says why it was REJECTED."""

    status: str
    dispatch_status: str
    job: Job | None = None
    code: str = ""
    text: str = ""


def decide(known: Job | None, ask: JobOrder) -> Decision:
    """Judge a command that was not seen before against the newest version of its order."""
    standing = "" if known is None else known.dispatch_status
    if ask.command not in COMMANDS:
        return _no(standing, "ORDER.COMMAND", f"{ask.command[:32]!r} is none of {', '.join(COMMANDS)}")
    if known is not None and ask.version < known.version:
        return _no(standing, "STALE_VERSION", f"version {known.version} is known")
    if known is None or ask.version > known.version:
        return _content(known, ask)
    brings = ask.command in ("STORE", "START") and not _missing(ask)
    if brings and _job(ask, standing) != known:
        return _no(standing, "ORDER.CONFLICT", f"version {known.version} is stored with another content")
    return _step(known, ask)


def completed(job: Job, good: int) -> bool:
    """Whether the line has made what a running order asks for."""
    return job.dispatch_status == RUNNING and good >= job.quantity


def _content(known: Job | None, ask: JobOrder) -> Decision:
    """A new order, or a new version of one: both bring their content with STORE or START."""
    standing = "" if known is None else known.dispatch_status
    if ask.command not in ("STORE", "START"):
        return _no(standing, "ORDER.UNKNOWN", "no such order, or no such version of it, is stored")
    if standing in ENDED:
        return _no(standing, "ORDER.ENDED", f"it is {standing}; a further order has an id of its own")
    if missing := _missing(ask):
        return _no(standing, "ORDER.CONTENT", f"{', '.join(missing)} missing")
    if ask.eids_ref is not None:
        detail = "the line fetches no lists of chips: leave eids_ref out, and keep chips by `ifpp store reserve`"
        return _no(standing, "ORDER.EIDS", detail)
    after = RUNNING if ask.command == "START" else standing or WAITING
    return Decision("ACCEPTED", after, job=_job(ask, after))


def _step(known: Job, ask: JobOrder) -> Decision:
    standing, steps = known.dispatch_status, _STEPS.get(ask.command, {})
    if ask.command == "STORE" or standing in steps.values():
        return Decision("DUPLICATE", standing, text=f"it is {standing} already")
    after = steps.get(standing)
    if after is None:
        return _no(standing, "ORDER.STATE", f"{ask.command} is not possible: it is {standing}")
    return Decision("ACCEPTED", after, job=msgspec.structs.replace(known, dispatch_status=after))


def _missing(ask: JobOrder) -> list[str]:
    return [name for name in ("product", "recipe", "quantity", "region") if not getattr(ask, name)]


def _job(ask: JobOrder, dispatch_status: str) -> Job:
    assert ask.product is not None  # noqa: S101 - looked at before, told to the type checker
    assert ask.recipe is not None  # noqa: S101 - as above
    assert ask.quantity is not None  # noqa: S101 - as above
    return Job(
        job_order_id=ask.job_order_id,
        version=ask.version,
        product=ask.product,
        region=ask.region,
        recipe=ask.recipe,
        quantity=ask.quantity,
        operation=ask.operation,
        work_order_id=ask.work_order_id,
        lot_id=ask.lot_id,
        customer=ask.customer,
        stations=ask.stations,
        dispatch_status=dispatch_status,
        priority=ask.priority,
        due_at=ask.due_at,
        route_policy=ask.route_policy,
    )


def _no(standing: str, code: str, text: str) -> Decision:
    return Decision("REJECTED", standing, code=code, text=text)
