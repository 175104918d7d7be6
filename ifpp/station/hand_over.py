"""The hand-over of a station from one person to the next: recorded like all that people do, and remembered."""

from __future__ import annotations

import asyncio

import msgspec

from ifpp.log import get_logger
from ifpp.model.clock import Clock, utc_ms_text, uuid7
from ifpp.model.messages import HandOver, OperatorAction
from ifpp.station.commands import check_reason
from ifpp.station.journal import Journal
from ifpp.trust.people import Somebody

HAND_OVER = "HAND_OVER"
HAND_OVER_ROW = "/hand_over"
"""Where the journal keeps the last one, among the lives of the heads; no head can be called so."""
log = get_logger("station.hand_over")


class HandOvers:
    """Remembers the last hand-over, `last`; None: there was none. Belongs to the event loop."""

    def __init__(self, station_id: str, journal: Journal, clock: Clock) -> None:
        self._station_id = station_id
        self._journal = journal
        self._clock = clock
        self.last: HandOver | None = None

    def restore(self, rows: dict[str, bytes]) -> None:
        """Go on where the journal ended."""
        if row := rows.get(HAND_OVER_ROW):
            self.last = msgspec.json.decode(row, type=HandOver)

    async def record(self, goes: Somebody, comes: Somebody | None, comment: str) -> str:
        """Record who went, who came (None: nobody yet) and what was said; returns what to answer.

        Raises SettingsError OPERATOR.NO_REASON for a comment that says nothing, CustodyError when it cannot be kept.
        """
        check_reason(comment)
        now, to = self._clock.now(), comes.name if comes else ""
        done = OperatorAction(
            schema="operator_action/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=self._station_id,
            boot_id=self._journal.boot_id,
            action=HAND_OVER,
            operator_id=goes.name,
            target=to or self._station_id,
            comment=comment.strip(),
        )
        last = HandOver(at=done.ts, by=goes.name, to=to, comment=done.comment)
        kept = self._journal.events([("operator_action", done)], {HAND_OVER_ROW: msgspec.json.encode(last)})
        stored = await asyncio.wrap_future(kept.tried)
        self.last = last
        log.info("hand over", by=goes.name, to=to)
        return "handed over" if stored else "handed over; recorded later"
