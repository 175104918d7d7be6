"""What a line screen has heard over the bus: the retained documents of the line and of each of its stations."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from ifpp.model.alarms import ActiveAlarm, ActiveAlarms
from ifpp.model.kpi import Kpi
from ifpp.model.mes import JobOrders, Stock
from ifpp.model.messages import JobState, LineState, Online, StationState

LINE = "_line"
FOR_LINE_SCREENS = (
    "+/state/station", "+/state/online", "_line/state/line", "_line/state/job", "_line/state/job_orders",
    "_line/state/stock", "_line/state/alarms", "_line/kpi/shift",
)  # fmt: skip
"""What a line screen subscribes to, below the line's own topic."""
MINUTES = 60
_ALARM_STANDS = ("UNACK_ALARM", "ACK_ALARM", "RTN_UNACK")


@dataclass(slots=True)
class LineHeard:
    """The newest document of each kind. Times are monotonic seconds; `counted`: (time, passed) once a minute or so.

    The broker keeps the documents, and says of a node that went away that it did: what is shown is old when there is no
    connection to the broker, or when the node that said it is not online.
    """

    name: str = ""
    connected: bool = False
    since_s: float = 0.0
    stations: dict[str, StationState] = field(default_factory=dict)
    online: dict[str, bool] = field(default_factory=dict)
    line: LineState | None = None
    jobs: JobState | None = None
    orders: JobOrders | None = None
    stock: Stock | None = None
    shift: Kpi | None = None
    alarms: ActiveAlarms | None = None
    counted: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64 * MINUTES))
    strange: set[str] = field(default_factory=set)

    def link(self, up: bool, now_s: float) -> None:
        """The broker is there, or is not any more."""
        if up != self.connected:
            self.connected, self.since_s = up, now_s

    def take(self, at: str, document: bytes, now_s: float) -> None:
        """Take a document from `node/class/name`; what cannot be understood changes nothing. Empty: taken back."""
        node, _, name = at.partition("/")
        if not document:
            if name == "state/station":
                self.stations.pop(node, None)
            elif name == "state/online":
                self.online.pop(node, None)
            return
        try:
            self._take(node, name, document, now_s)
        except msgspec.MsgspecError:
            self.strange.add(at)

    def _take(self, node: str, name: str, document: bytes, now_s: float) -> None:
        decode = msgspec.json.decode
        if name == "state/station":
            self.stations[node] = decode(document, type=StationState)
        elif name == "state/online":
            self.online[node] = decode(document, type=Online).online
        elif node != LINE:
            return
        elif name == "state/line":
            self.line = decode(document, type=LineState)
            self.counted.append((now_s, self.line.passed))
        elif name == "state/job":
            self.jobs = decode(document, type=JobState)
        elif name == "state/job_orders":
            self.orders = decode(document, type=JobOrders)
        elif name == "state/stock":
            self.stock = decode(document, type=Stock)
        elif name == "state/alarms":
            self.alarms = decode(document, type=ActiveAlarms)
        elif name == "kpi/shift":
            shift = decode(document, type=Kpi)
            if self.shift is None or shift.window.start >= self.shift.window.start:  # else one that ended, revised
                self.shift = shift

    @property
    def names(self) -> list[str]:
        """Every station that anybody spoke of, in order."""
        spoken = {*self.stations, *self.online, *(self.line.stations if self.line else ())}
        return sorted(spoken - {LINE, "_mes"})

    def away(self, station: str) -> bool:
        """Whether a station is not there."""
        return not self.online.get(station, False)

    @property
    def line_away(self) -> bool:
        """Whether no supervisor is there: the line's figures stand still."""
        return not self.online.get(LINE, False)

    def standing(self) -> list[tuple[str, ActiveAlarm]]:
        """The alarms that want somebody, the most important first: by id."""
        found = [(key, one) for key, one in (self.alarms.alarms if self.alarms else {}).items()]
        found = [one for one in found if one[1].state in _ALARM_STANDS]
        return sorted(found, key=lambda one: (one[1].state == "ACK_ALARM", one[1].priority, one[1].first_at))

    def per_minute(self, now_s: float) -> list[int | None]:
        """Units passed in each of the last minutes, oldest first; None: this screen did not look then."""
        found: list[int | None] = [None] * MINUTES
        for (before_s, before), (at_s, passed) in pairwise(self.counted):
            for minute in (self._minute(before_s, now_s), self._minute(at_s, now_s)):
                if minute is not None:
                    found[minute] = found[minute] or 0
            if (minute := self._minute(at_s, now_s)) is not None:
                found[minute] = (found[minute] or 0) + max(0, passed - before)  # fewer: another supervisor counts anew
        return found

    @staticmethod
    def _minute(at_s: float, now_s: float) -> int | None:
        minute = MINUTES - 1 - int((now_s - at_s) // 60)
        return minute if 0 <= minute < MINUTES else None
