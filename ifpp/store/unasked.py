"""Units that were worked on while the MES had no answer (route policy ALLOW_AND_RECONCILE); what it says afterwards.

A row comes with the result that says so, in its transaction, and stays open until the MES has answered: whatever ends
in between, the question is asked again. What the MES said stands in the audit log, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Table,
    Text,
    bindparam,
    select,
    text,
    tuple_,
    update,
)

from ifpp.errors import CustodyError
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import UnitResultEvent
from ifpp.store.database import Database
from ifpp.store.records import AskedLaterRow, ReceivedEvent
from ifpp.store.schema import event_log, job_order, metadata, unit_attempt
from ifpp.store.trail import Trail

REFUSED = "FAIL"
_MAX_TEXT = 256

# `result`: "" = not answered yet, else that of the route check, with its code and text.
unasked = Table(
    "unasked",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("job_order_id", Text, nullable=False),
    Column("eid", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("answered_at", Text, nullable=False),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_unasked_eid", "eid"),
)
IS_OPEN, IS_REFUSED = text("result = ''"), text(f"result = '{REFUSED}'")
Index("ix_unasked_open", unasked.c.node_id, unasked.c.seq, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
Index("ix_unasked_refused", unasked.c.answered_at, sqlite_where=IS_REFUSED, postgresql_where=IS_REFUSED)

_u = unasked.c
_ours = _u.job_order_id.in_(select(job_order.c.job_order_id).where(job_order.c.line == bindparam("line")))
_open = (
    select(_u.node_id, _u.seq, event_log.c.body)
    .join(event_log, (event_log.c.node_id == _u.node_id) & (event_log.c.seq == _u.seq))
    .where(IS_OPEN, _ours, tuple_(_u.node_id, _u.seq) > tuple_(bindparam("node"), bindparam("seq")))
    .order_by(_u.node_id, _u.seq)
    .limit(bindparam("limit"))
)
_refused = select(_u.eid, _u.code, _u.text).where(IS_REFUSED, _ours, _u.answered_at >= bindparam("since"))
_of_unit = (
    select(
        _u.node_id,
        unit_attempt.c.head_id,
        unit_attempt.c.operation,
        _u.job_order_id,
        unit_attempt.c.ended_at,
        _u.result,
        _u.code,
        _u.text,
        _u.answered_at,
    )
    .join(unit_attempt, (unit_attempt.c.node_id == _u.node_id) & (unit_attempt.c.seq == _u.seq))
    .where(_u.eid == bindparam("eid"))
    .order_by(unit_attempt.c.ended_at, _u.node_id, _u.seq)
)


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A result nobody allowed yet, by the number of its event; `body` is the unit_result."""

    node_id: str
    seq: int
    body: bytes


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """What the MES says of it."""

    node_id: str
    seq: int
    result: str
    code: str
    text: str


def row_of(event: ReceivedEvent, document: UnitResultEvent) -> dict[str, Any] | None:
    """Return the row a result adds; None for one whose unit was allowed, refused or not to be asked for."""
    note = document.route_check
    if note is None or (note.source, note.result) != ("OFF", "SKIPPED"):
        return None
    names = {"node_id": event.node_id, "seq": event.seq, "job_order_id": document.job_order_id}
    return names | {"eid": document.unit.eid, "result": "", "code": "", "text": "", "answered_at": ""}


def of_unit(connection: Connection, eid: str) -> list[AskedLaterRow]:
    """Return what was asked, or is to be asked, of a unit afterwards, in the order it was worked on."""
    return [AskedLaterRow(*row) for row in connection.execute(_of_unit, {"eid": eid})] if eid else []


def refusal(connection: Connection, eid: str) -> str:
    """Say why the MES refused a unit afterwards; "" when it did not."""
    said = [row for row in of_unit(connection, eid) if row.result == REFUSED]
    return "; ".join(f"{row.operation} at {row.ended_at}: {row.words}" for row in said)


class UnaskedStore:
    """Part of a `Factory`: methods block for one short transaction and may be called from any thread."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing

    def questions(self, line: str, after: tuple[str, int], limit: int) -> list[OpenQuestion]:
        """Return open questions of a line behind (node, seq), in this order."""
        values = {"line": line, "node": after[0], "seq": after[1], "limit": limit}
        with self._database.read() as connection:
            return [OpenQuestion(*row) for row in connection.execute(_open, values)]

    def answer(self, answers: Sequence[LateAnswer], now: datetime) -> None:
        """Keep what the MES says; the first answer to a question counts."""
        with self._writing(now) as (connection, trail):
            for one in answers:
                mine = (_u.node_id == one.node_id, _u.seq == one.seq, IS_OPEN)
                said = {"result": one.result, "code": one.code[:_MAX_TEXT], "text": one.text[:_MAX_TEXT]}
                if connection.execute(update(unasked).where(*mine).values(**said, answered_at=trail.at)).rowcount:
                    trail.note("asked_later", node=one.node_id, seq=one.seq, **said)

    def refused(self, line: str, since: datetime) -> dict[str, str]:
        """Return the units of a line that were refused since then: EID -> the MES's words."""
        values = {"line": line, "since": utc_ms_text(since)}
        with self._database.read() as connection:
            rows = connection.execute(_refused, values).all()
        return {row.eid: ": ".join(filter(None, (row.code, row.text))) or "no reason given" for row in rows}

    def ask_again(self, eid: str, by: str, reason: str, now: datetime) -> int:
        """Open the questions of a unit that were refused: the MES was corrected; return how many.

        Raises CustodyError UNIT.UNKNOWN when none was.
        """
        with self._writing(now) as (connection, trail):
            mine = update(unasked).where(_u.eid == eid, IS_REFUSED)
            number = connection.execute(mine.values(result="", code="", text="", answered_at="")).rowcount
            if not number:
                raise CustodyError("UNIT.UNKNOWN", "the MES refused no unit with this EID afterwards", where=eid[:64])
            trail.note("ask_again", eid=eid, by=by, reason=reason)
        return number
