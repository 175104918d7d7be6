"""What a station keeps of online downloads, in its journal: sessions under way, and notifications owed to SM-DP+.

Implements `Custody` and `Outbox` of `ifpp.fpa.rsp` for the threads of heads: what a call changes is on the disk when it
returns, together with whatever else the journal writes at that moment. `owed` and `signed_off` are the loop's, which
delivers what heads could not (`rsp_outbox`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from ifpp.model.clock import Clock, utc_ms_text
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import Notice, OpenSession, SessionStep
from ifpp.station.journal import Journal
from ifpp.wire.tlv import read_many

T = TypeVar("T")
_KEEP = "INSERT OR REPLACE INTO rsp_session VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OWED_OF = """
SELECT * FROM rsp_notice WHERE eid = ? AND delivered_at IS NULL AND refused IS NULL ORDER BY seq_number
"""
_OWED = """
SELECT * FROM rsp_notice WHERE delivered_at IS NULL AND refused IS NULL AND kept_at <= ? ORDER BY id LIMIT ?
"""


class Connection(Protocol):
    """The connection of the journal."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A notification no server has taken yet, by its number in the book."""

    number: int
    notice: Notice


class RspBook:
    """The book of one station; its methods raise CustodyError JOURNAL.WRITE when the journal cannot be written."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock

    # ---- sessions ---------------------------------------------------------------------------------

    def left_open(self, eid: Eid) -> OpenSession | None:
        """Return the session of this chip whose outcome nobody has taken over."""
        found = self._read("SELECT * FROM rsp_session WHERE eid = ?", (str(eid),), _session).result()
        return found[0] if found else None

    def signed_off(self) -> Future[list[OpenSession]]:
        """Return the sessions whose chips have ended them and whose SM-DP+ may not know."""
        return self._read("SELECT * FROM rsp_session WHERE step = 'CANCELLED' ORDER BY kept_at", (), _session)

    def keep(self, session: OpenSession) -> None:
        """Keep how far the session has come, in place of what was kept of it."""
        self._write(_KEEP, self._row(session))

    def end(self, session: OpenSession) -> None:
        """Forget the session, unless the chip has begun another since."""
        sql = "DELETE FROM rsp_session WHERE eid = ? AND transaction_id = ?"
        self._write(sql, (str(session.eid), session.transaction_id))

    def settle(self, session: OpenSession, notice: Notice) -> None:
        """The session has ended with a result of the chip, which is owed from now on: both or neither."""
        owing = self._owing(notice)
        row = self._row(replace(session, step=SessionStep.SETTLED, result=notice.raw))

        def change(connection: Connection) -> None:
            connection.execute(*owing)
            connection.execute(_KEEP, row)

        self._journal.write(change).result()

    def taken(self, eid: Eid, package_id: str) -> None:
        """The outcome is in the books: what was kept of the session has done its work."""
        self._write(
            "DELETE FROM rsp_session WHERE eid = ? AND package_id = ? AND step = 'SETTLED'", (str(eid), package_id)
        )

    # ---- notifications ----------------------------------------------------------------------------

    def owe(self, found: Sequence[Notice]) -> None:
        """Keep notifications; those that are kept already do not change."""
        kept = [self._owing(notice) for notice in found]

        def change(connection: Connection) -> None:
            for statement in kept:
                connection.execute(*statement)

        self._journal.write(change).result()

    def owed_of(self, eid: Eid) -> tuple[Notice, ...]:
        """Return what no server has taken yet of one chip, in the order it came about."""
        return tuple(owed.notice for owed in self._read(_OWED_OF, (str(eid),), _owed).result())

    def owed(self, older_than: timedelta, limit: int = 1000) -> Future[list[Owed]]:
        """Return what has waited that long, in the order it came about; the heads see to the younger ones."""
        before = utc_ms_text(self._clock.now() - older_than)
        return self._read(_OWED, (before, limit), _owed)

    def delivered(self, notice: Notice) -> None:
        """Its server has it: the chip may forget it."""
        self.note_delivered(notice).result()

    def note_delivered(self, notice: Notice) -> Future[None]:
        """As `delivered`, for the loop."""
        return self._mark("delivered_at", utc_ms_text(self._clock.now()), notice)

    def note_refused(self, notice: Notice, why: str) -> Future[None]:
        """Its server does not want it: it stays here for people to look at, and stands in nobody's way."""
        return self._mark("refused", why, notice)

    def delivered_of(self, eid: Eid) -> tuple[int, ...]:
        """Return the sequence numbers of what servers have and this chip may still keep."""
        query = "SELECT seq_number FROM rsp_notice WHERE eid = ? AND delivered_at IS NOT NULL ORDER BY seq_number"
        return tuple(self._read(query, (str(eid),), lambda row: int(row[0])).result())

    def forgotten(self, eid: Eid, seq_number: int) -> None:
        """Neither chip nor station need it any more."""
        self._write("DELETE FROM rsp_notice WHERE eid = ? AND seq_number = ?", (str(eid), seq_number))

    def purge(self, older_than: timedelta) -> Future[int]:
        """Delete what was delivered that long ago, of chips that were not seated again; returns how many."""
        before = utc_ms_text(self._clock.now() - older_than)

        def change(connection: Connection) -> int:
            return int(connection.execute("DELETE FROM rsp_notice WHERE delivered_at <= ?", (before,)).rowcount)

        return self._journal.write(change)

    # ---- inside -----------------------------------------------------------------------------------

    def _row(self, session: OpenSession) -> tuple[object, ...]:
        return (
            str(session.eid),
            session.package_id,
            session.address,
            session.transaction_id,
            session.smdp_oid,
            session.step.value,
            None if session.iccid is None else str(session.iccid),
            b"".join(session.certificates),
            session.cancelled,
            session.result,
            utc_ms_text(self._clock.now()),
        )

    def _owing(self, notice: Notice) -> tuple[str, tuple[object, ...]]:
        return (
            "INSERT OR IGNORE INTO rsp_notice (eid, seq_number, address, raw, kept_at) VALUES (?, ?, ?, ?, ?)",
            (str(notice.eid), notice.seq_number, notice.address, notice.raw, utc_ms_text(self._clock.now())),
        )

    def _mark(self, column: str, value: str, notice: Notice) -> Future[None]:
        statement = f"UPDATE rsp_notice SET {column} = ? WHERE eid = ? AND seq_number = ?"  # noqa: S608 - our own names

        def change(connection: Connection) -> None:
            connection.execute(statement, (value, str(notice.eid), notice.seq_number))

        return self._journal.write(change)

    def _write(self, sql: str, parameters: tuple[object, ...]) -> None:
        def change(connection: Connection) -> None:
            connection.execute(sql, parameters)

        self._journal.write(change).result()

    def _read(self, sql: str, parameters: tuple[object, ...], made: Callable[[Any], T]) -> Future[list[T]]:
        def look(connection: Connection) -> list[T]:
            return [made(row) for row in connection.execute(sql, parameters).fetchall()]

        return self._journal.read(look)


def _session(row: Any) -> OpenSession:
    eid, package_id, address, transaction_id, smdp_oid, step, iccid, certificates, cancelled, result, _ = row
    return OpenSession(
        eid=Eid(eid),
        package_id=package_id,
        address=address,
        transaction_id=transaction_id,
        smdp_oid=smdp_oid,
        step=SessionStep(step),
        iccid=None if iccid is None else Iccid(iccid),
        certificates=tuple(each.raw for each in read_many(certificates, what="kept certificates")),
        cancelled=cancelled,
        result=result,
    )


def _owed(row: Any) -> Owed:
    number, eid, seq_number, address, raw = row[:5]
    return Owed(number, Notice(Eid(eid), seq_number, address, raw))
