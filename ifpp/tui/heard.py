"""What a screen has heard of its station, how old it is, and nothing that was not said."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ifpp.model.alarms import ActiveAlarm, ActiveAlarms
from ifpp.model.kpi import Kpi
from ifpp.model.mes import JobOrders, Stock
from ifpp.model.messages import Job, JobState, Online, StationState

STALE_S = 5.0
"""A station says its state every two seconds at least: older than this, it is not true any more."""
_ALARM_STANDS = ("UNACK_ALARM", "ACK_ALARM", "RTN_UNACK")


@dataclass(slots=True)
class Heard:
    """The newest document of each kind. Times are monotonic seconds."""

    station_id: str = ""
    connected: bool = False
    station: StationState | None = None
    station_s: float = 0.0
    jobs: JobState | None = None
    orders: JobOrders | None = None
    stock: Stock | None = None
    shift: Kpi | None = None
    line_online: bool | None = None
    alarms: ActiveAlarms | None = None
    operator: str = ""
    role: str = ""
    changes: int = 0
    strange: set[str] = field(default_factory=set)

    def take(self, at: str, document: bytes | msgspec.Raw, now_s: float) -> None:
        """Take a document; what cannot be understood changes nothing, and so grows old."""
        try:
            self._take(at, document, now_s)
        except msgspec.MsgspecError:
            self.strange.add(at)
        self.changes += 1

    def _take(self, at: str, document: bytes | msgspec.Raw, now_s: float) -> None:
        node, _, name = at.partition("/")
        decode = msgspec.json.decode
        if name == "state/station":
            self.station, self.station_s, self.station_id = decode(document, type=StationState), now_s, node
        elif at == "_line/state/job":
            self.jobs = decode(document, type=JobState)
        elif at == "_line/state/job_orders":
            self.orders = decode(document, type=JobOrders)
        elif at == "_line/state/stock":
            self.stock = decode(document, type=Stock)
        elif at == "_line/kpi/shift":
            shift = decode(document, type=Kpi)
            if self.shift is None or shift.window.start >= self.shift.window.start:  # else one that ended, revised
                self.shift = shift
        elif at == "_line/state/online":
            self.line_online = decode(document, type=Online).online
        elif name == "state/alarms" and not at.startswith("_"):
            self.alarms = decode(document, type=ActiveAlarms)

    def age_s(self, now_s: float) -> float:
        """How old the station's state is."""
        return max(0.0, now_s - self.station_s)

    def stale(self, now_s: float) -> bool:
        """Whether what is shown may be wrong."""
        return self.station is None or self.age_s(now_s) > STALE_S

    @property
    def job(self) -> Job | None:
        """The job order in work here."""
        wanted = self.station.job_order_id if self.station else ""
        return next((job for job in (self.jobs.jobs if self.jobs else ()) if job.job_order_id == wanted), None)

    def standing(self) -> list[tuple[str, ActiveAlarm]]:
        """The alarms that want somebody, the most important first: by id."""
        found = [(key, one) for key, one in self._alarms().items() if one.state in _ALARM_STANDS]
        return sorted(found, key=lambda one: (one[1].state == "ACK_ALARM", one[1].priority, one[1].first_at))

    def _alarms(self) -> dict[str, ActiveAlarm]:
        return self.alarms.alarms if self.alarms else {}
