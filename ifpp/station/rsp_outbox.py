"""Delivers what heads could not: signed cancellations and notifications, once the SM-DP+ can be reached again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Protocol

from ifpp.errors import CustodyError, ServiceError
from ifpp.log import get_logger
from ifpp.model.rsp import Function, OpenSession
from ifpp.station.rsp_book import Owed, RspBook
from ifpp.wire import es9

log = get_logger("station.rsp_outbox")
_KEPT = timedelta(days=30)  # of what was delivered: a chip that is seated again in that time drops its own copy


class Caller(Protocol):
    """The client of ES9+ (`ifpp.fpa.es9.Es9Client`)."""

    async def call(self, address: str, function: Function, body: bytes) -> bytes:
        """Call one function; raises ServiceError."""


class RspOutbox:
    """Looks into the book every `pause_s`. A server that cannot be reached holds up only what is for itself.

    `leave_s`: so long a notification is left to the head whose chip it is of.
    """

    def __init__(self, book: RspBook, client: Caller, *, pause_s: float = 15.0, leave_s: float = 30.0) -> None:
        self._book = book
        self._client = client
        self._pause_s = pause_s
        self._leave = timedelta(seconds=leave_s)

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            try:
                await self.deliver()
            except CustodyError as error:  # the journal's own trouble, which it tells: nothing is lost meanwhile
                log.warning("rsp.outbox", error=error)
            await asyncio.sleep(self._pause_s)

    async def deliver(self) -> int:
        """Deliver what is owed, oldest first, as far as servers can be reached; returns how much was taken."""
        away: set[str] = set()
        taken = 0
        for session in await asyncio.wrap_future(self._book.signed_off()):
            taken += session.address not in away and await self._tell(session, away)
        for owed in await asyncio.wrap_future(self._book.owed(self._leave)):
            taken += owed.notice.address not in away and await self._deliver(owed, away)
        await asyncio.wrap_future(self._book.purge(_KEPT))
        return taken

    async def _tell(self, session: OpenSession, away: set[str]) -> bool:
        body = es9.cancel_body(session.transaction_id, session.cancelled)
        try:
            es9.parse_cancelled(await self._client.call(session.address, Function.CANCEL_SESSION, body))
        except es9.RefusedError as error:  # it no longer knows the session: there is nothing left to cancel
            log.info("rsp.cancel_refused", error=error)
        except ServiceError as error:
            log.info("rsp.server_away", address=session.address, error=error)
            away.add(session.address)
            return False
        await asyncio.to_thread(self._book.end, session)
        return True

    async def _deliver(self, owed: Owed, away: set[str]) -> bool:
        notice = owed.notice
        try:
            body = es9.notice_body(notice)
            es9.parse_notified(await self._client.call(notice.address, Function.HANDLE_NOTIFICATION, body))
        except ServiceError as error:
            if isinstance(error, es9.RefusedError) or error.code == "RSP.ANSWER":
                log.warning("rsp.notice_refused", eid=notice.eid, seq_number=notice.seq_number, error=error)
                await asyncio.wrap_future(self._book.note_refused(notice, str(error)[:500]))
            else:
                log.info("rsp.server_away", address=notice.address, error=error)
                away.add(notice.address)
            return False
        await asyncio.wrap_future(self._book.note_delivered(notice))
        return True
