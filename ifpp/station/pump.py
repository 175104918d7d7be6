"""The outbox pump: durable events leave in order, at most so many unacknowledged, again until they are acknowledged.

Only an application-level acknowledgement closes an event: a broker's PUBACK proves nothing (line contract 1.3, 4.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ifpp.errors import CustodyError, ServiceError
from ifpp.log import get_logger
from ifpp.model.clock import Clock
from ifpp.model.messages import Ack
from ifpp.settings import Outbox
from ifpp.station.journal import Journal
from ifpp.station.records import OutboxRow

_COLLECT_S = 0.05  # events that follow each other leave together: a unit makes several
log = get_logger("station.pump")
Send = Callable[[OutboxRow], Awaitable[None]]


class Pump:
    """Sends what the journal holds. All methods belong to the event loop.

    `send` publishes one event and raises ServiceError while the broker is away. `collect_s`: how long an event waits
    for company.
    """

    def __init__(
        self,
        journal: Journal,
        send: Send,
        settings: Outbox,
        clock: Clock,
        *,
        node_id: str,
        collect_s: float = _COLLECT_S,
    ) -> None:
        self._node_id = node_id
        self._journal = journal
        self._send = send
        self._settings = settings
        self._clock = clock
        self._collect_s = collect_s
        self._wake = asyncio.Event()
        self._sent: list[int] = []  # numbers sent and not acknowledged, in order
        self._sent_through = 0
        self._resend_s = settings.resend_s
        self._resend_at_s = 0.0
        self._epoch = -1
        self._connected = False

    def wake(self) -> None:
        """There is a new event in the journal."""
        self._wake.set()

    def connected(self, yes: bool) -> None:
        """The broker came back: everything unacknowledged is sent again at once; or it went."""
        self._connected = yes
        self._rewind()

    def epoch(self, epoch: int) -> None:
        """A supervisor with a new epoch may not have what the last one took: send again. An older one is not heard."""
        if epoch > self._epoch:
            self._epoch = epoch
            self._rewind()
        elif epoch < self._epoch:
            log.warning("supervisor of an older epoch", epoch=epoch, seen=self._epoch)

    async def acknowledge(self, ack: Ack) -> None:
        """Close what the supervisor committed; a wrong acknowledgement is refused and changes nothing."""
        try:
            self._check(ack)
            await asyncio.wrap_future(self._journal.acknowledge(ack.through, ack.rejected))
        except CustodyError as error:
            log.error("acknowledgement refused", code=error.code, detail=error.detail, epoch=ack.epoch)
            return
        if self._epoch < 0:
            self._epoch = ack.epoch  # the first we hear of: it took what we sent
        self.epoch(ack.epoch)
        for row in ack.rejected:
            log.error("event rejected", seq=row.seq, code=row.code, text=row.text)
        refused = {row.seq for row in ack.rejected}
        self._sent = [seq for seq in self._sent if seq > ack.through and seq not in refused]
        self._resend_s = self._settings.resend_s
        self._resend_at_s = self._clock.monotonic() + self._resend_s
        self._wake.set()

    def _check(self, ack: Ack) -> None:
        """Raises CustodyError CUSTODY.ACK_REFUSED: it is not for us, or from a supervisor that was replaced."""
        if ack.node_id != self._node_id:
            raise CustodyError("CUSTODY.ACK_REFUSED", f"it is for {ack.node_id[:40]!r}", where=self._node_id)
        if ack.epoch < self._epoch:
            detail = f"its epoch is {ack.epoch}, epoch {self._epoch} was seen"
            raise CustodyError("CUSTODY.ACK_REFUSED", detail, where=self._node_id)

    async def run(self, stopping: asyncio.Event) -> None:
        """Pump until `stopping`; a journal that cannot be read now is asked again."""
        while not stopping.is_set():
            if self._collect_s:
                await self._clock.sleep(self._collect_s)
            self._wake.clear()
            if self._connected:
                try:
                    await self._round()
                except CustodyError as error:
                    log.warning("journal not read", code=error.code, detail=error.detail)
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def drained(self, wait_s: float) -> bool:
        """Wait up to `wait_s` until nothing is unacknowledged."""
        end_s = self._clock.monotonic() + wait_s
        while await self._left():
            if self._clock.monotonic() >= end_s:
                return False
            await self._clock.sleep(0.05)
        return True

    async def _left(self) -> bool:
        try:
            return (await asyncio.wrap_future(self._journal.depth())).count > 0
        except CustodyError:
            return True  # not known

    async def _round(self) -> None:
        if self._sent and self._clock.monotonic() >= self._resend_at_s:
            log.warning("send again", unacknowledged=len(self._sent), after_s=self._resend_s)
            self._resend_s = min(2 * self._resend_s, self._settings.resend_max_s)
            self._rewind()
        room = self._settings.max_unacked - len(self._sent)
        if room <= 0:
            return
        rows = await asyncio.wrap_future(self._journal.unacked(self._sent_through, room))
        for row in rows:
            if not self._sent:
                self._resend_at_s = self._clock.monotonic() + self._resend_s
            try:
                await self._send(row)
            except ServiceError as error:
                log.warning("broker away", code=error.code, detail=error.detail)
                return
            self._sent.append(row.seq)
            self._sent_through = row.seq

    def _rewind(self) -> None:
        self._sent.clear()
        self._sent_through = 0
        self._resend_at_s = self._clock.monotonic() + self._resend_s
        self._wake.set()

    def _pause_s(self) -> float:
        if not self._sent:
            return 1.0
        return min(1.0, max(0.01, self._resend_at_s - self._clock.monotonic()))
