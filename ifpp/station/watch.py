"""What the station keeps an eye on: the outbox and its room, held units, whether the journal can be written; and age.

Outbox rules of line contract 4.3: at four fifths of its room, or with an event older than 15 minutes, people are told;
full, it lets no unit in until acknowledgements make room. Delivered events are kept for `keep_days`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ifpp import metrics as series
from ifpp.errors import CustodyError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, parse_utc, utc_ms_text
from ifpp.settings import Outbox
from ifpp.station.board import Custody
from ifpp.station.gate import Gate
from ifpp.station.journal import Journal

_LATE_SHARE = 0.8
_LATE_S = 15 * 60
_PURGE_EVERY_S = 3600.0
_PURGE_AT_ONCE = 1000
log = get_logger("station.watch")


class Watch:
    """Looks when it is asked to; belongs to the event loop."""

    def __init__(self, journal: Journal, gate: Gate, settings: Outbox, metrics: Metrics, clock: Clock) -> None:
        self._journal = journal
        self._gate = gate
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._purge_at_s = clock.monotonic()
        self.custody = Custody()

    def trouble(self, fault: CustodyError | None) -> None:
        """The journal cannot be written, or (None) can again."""
        if fault is None:
            self._gate.clear("JOURNAL.WRITE")
        else:
            self._gate.note(fault.code, f"{fault.where}: {fault.detail}", shuts=True)

    async def look(self) -> None:
        """Read the journal, judge it, open or shut the gate; a journal that cannot be read leaves all as it was."""
        try:
            outbox = await asyncio.wrap_future(self._journal.depth())
            held = await asyncio.wrap_future(self._journal.held())
        except CustodyError as error:
            log.warning("journal not read", code=error.code, detail=error.detail)
            return
        oldest_s = 0.0
        if outbox.oldest_at:
            oldest_s = max(0.0, (self._clock.now() - parse_utc(outbox.oldest_at)).total_seconds())
        self.custody = Custody(outbox, round(oldest_s * 1000), held)
        self._judge(outbox.count, oldest_s)
        self._measure()
        if self._clock.monotonic() >= self._purge_at_s:
            await self._purge()

    def _judge(self, count: int, oldest_s: float) -> None:
        room = self._settings.capacity
        detail = f"{count} events of at most {room} wait, the oldest for {oldest_s:.0f} s"
        if count >= room:
            self._gate.note("OUTBOX.FULL", detail, shuts=True)
        else:
            self._gate.clear("OUTBOX.FULL")
        if count >= _LATE_SHARE * room or oldest_s > _LATE_S:
            self._gate.note("OUTBOX.LATE", detail, shuts=False)
        else:
            self._gate.clear("OUTBOX.LATE")

    def _measure(self) -> None:
        metrics, custody, attention = self._metrics, self.custody, self._gate.attention
        metrics.set(series.OUTBOX_DEPTH, custody.outbox.count)
        metrics.set(series.OUTBOX_OLDEST_SECONDS, custody.oldest_ms / 1000)
        metrics.set(series.OUTBOX_REJECTED, custody.outbox.rejected)
        metrics.set(series.OUTBOX_ALARM, 2 if "OUTBOX.FULL" in attention else int("OUTBOX.LATE" in attention))
        metrics.set(series.HELD_UNITS, len(custody.held))
        metrics.set(series.ACCEPTING, not self._gate.refusing)

    async def _purge(self) -> None:
        """Remove what was delivered long ago, a part at a time so that units need not wait."""
        before = utc_ms_text(self._clock.now() - timedelta(days=self._settings.keep_days))
        self._purge_at_s = self._clock.monotonic() + _PURGE_EVERY_S
        removed = 0
        try:
            while part := await asyncio.wrap_future(self._journal.purge(before, _PURGE_AT_ONCE)):
                removed += part
        except CustodyError as error:
            log.warning("delivered events not removed", code=error.code, detail=error.detail)
        if removed:
            log.info("delivered events removed", events=removed, before=before)
