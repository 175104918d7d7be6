"""What SCADA sees of a line, from its retained documents: metrics of the line (the node) and of its stations (devices).

A metric's last word is the key of the line contract it comes from; what no document says is null. Serial numbers, EIDs
and ICCIDs are not shown: Sparkplug values are a view, never the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from ifpp import __version__
from ifpp.bus.sparkplug import DataType, Metric, Value, unix_ms
from ifpp.bus.topics import LINE_NODE, Place, Topics
from ifpp.line.hearing import MOST_NODES
from ifpp.model.alarm_desk import ACKED, RTN_UNACK, SHELVED, SUPPRESSED, UNACK
from ifpp.model.alarms import ActiveAlarms
from ifpp.model.kpi import Kpi
from ifpp.model.mes import Stock
from ifpp.model.messages import HeadState, Job, JobState, LineState, Message, StationState

_STANDING = frozenset({UNACK, ACKED, RTN_UNACK})
_PRIORITIES = {1: "high", 2: "medium", 3: "low"}
_LONGEST_TEXT = 256
_MOST_HEADS = 256
_HEAD = re.compile(r"[A-Za-z0-9_-]{1,32}")
_WINDOWS = ("hour", "shift", "job")
_I32, _I64, _REAL, _BOOL, _TEXT, _TIME = DataType
_JOB = {"job_order_id": _TEXT, "work_order_id": _TEXT, "dispatch_status": _TEXT, "quantity": _I64, "region": _TEXT}
_UNITS = {"units": _I64, "passed": _I64, "failed": _I64}
_STOCK = {
    "expected_units": _I64,
    "covered": _I64,
    "uncovered": _I64,
    "spare": _I64,
    "coverage_ratio": _REAL,
    "hours_left": _REAL,
}
_FIGURES = {
    "complete": _BOOL,
    "units_in": _I64,
    "first_pass": _I64,
    "good": _I64,
    "attempts": _I64,
    "fpy": _REAL,
    "fpy_product": _REAL,
    "final_yield": _REAL,
    "retest_rate": _REAL,
    "uph": _REAL,
    "takt_s": _REAL,
}
_OEE = {"oee": _REAL, "availability": _REAL, "effectiveness": _REAL, "quality": _REAL}
_STATION = {
    "e10": _TEXT,
    "e10_code": _I32,
    "phase": _TEXT,
    "job_order_id": _TEXT,
    "locked": _BOOL,
    "refusing": _TEXT,
    "outbox_depth": _I64,
    "outbox_rejected": _I64,
    "held_units": _I64,
    "cached_units": _I64,
}
_HEAD_KEYS = {
    "e10": _TEXT,
    "code": _I32,
    "phase": _TEXT,
    "last": _TEXT,
    "ok": _I64,
    "ng": _I64,
    "blocked": _BOOL,
    "cycles": _I64,
    "maintenance_due": _BOOL,
}
_DOCUMENTS: dict[str, type[Message]] = {"line": LineState, "job": JobState, "alarms": ActiveAlarms, "stock": Stock}
T = TypeVar("T", bound=Message)


@dataclass(frozen=True, slots=True)
class View:
    """The metrics of the node, and of each device that is alive."""

    node: list[Metric]
    devices: dict[str, list[Metric]]


@dataclass(slots=True)
class LineViews:
    """The last of each document that the line and its stations keep on the bus."""

    line: dict[str, Message] = field(default_factory=dict)
    kpi: dict[str, Kpi] = field(default_factory=dict)
    stations: dict[str, StationState] = field(default_factory=dict)

    def hear(self, place: Place, payload: bytes) -> None:
        """Keep one document, or forget it when it was taken back; raises msgspec.MsgspecError."""
        if place.kind == "kpi":
            self._hear_figures(place, payload)
        elif place.node == LINE_NODE and place.name in _DOCUMENTS:
            _keep(self.line, place.name, _read(place, payload, _DOCUMENTS[place.name]))
        elif place.name == "station" and (place.node in self.stations or len(self.stations) < MOST_NODES):
            _keep(self.stations, place.node, _read(place, payload, StationState))

    def _hear_figures(self, place: Place, payload: bytes) -> None:
        """The last document of a window that has ended comes on the same topic; it is not that of now."""
        said, known = _read(place, payload, Kpi), self.kpi.get(place.name)
        ended = said is not None and said.revision > 0 and place.name != "job"
        if place.name in _WINDOWS and not (
            ended and said is not None and known is not None and said.window.start < known.window.start
        ):
            _keep(self.kpi, place.name, said)

    def view(self, stations: Mapping[str, bool], now_ms: int) -> View:
        """Return everything as it stands; a station is there while it is online and has said how it is."""
        alive = {name: self.stations[name] for name, online in sorted(stations.items()) if online and self._has(name)}
        units = self._line(LineState)
        node = [
            Metric("Properties/software", _TEXT, f"ifpp {__version__}", now_ms),
            Metric("Stations/known", _I32, len(stations), now_ms),
            Metric("Stations/online", _I32, sum(stations.values()), now_ms),
            *_rows("Units", _UNITS, units, _at(units, now_ms)),
            *self._job_rows(now_ms),
            *self._alarm_rows(now_ms),
            *(row for window in _WINDOWS for row in _figure_rows(window, self.kpi.get(window), now_ms)),
        ]
        return View(node, {name: self._device(name, state, now_ms) for name, state in alive.items()})

    def _has(self, station: str) -> bool:
        return station in self.stations

    def _line(self, kind: type[T]) -> T | None:
        return next((one for one in self.line.values() if isinstance(one, kind)), None)

    def _job(self) -> Job | None:
        """The job order worked on last, else the one a station would begin with."""
        said, figures = self._line(JobState), self.kpi.get("job")
        jobs = [] if said is None else said.jobs
        last = "" if figures is None else figures.window.job_order_id
        first = sorted(jobs, key=lambda job: (job.job_order_id != last, -job.priority, job.due_at or "~"))
        return first[0] if first else None

    def _job_rows(self, now_ms: int) -> list[Metric]:
        said, stock, figures, job = self._line(JobState), self._line(Stock), self.kpi.get("job"), self._job()
        at_ms, ours = _at(said, now_ms), job.job_order_id if job else None
        made = figures if figures is not None and figures.window.job_order_id == ours else None
        stock_of = None if stock is None or ours is None else stock.jobs.get(ours)
        return [
            *_rows("Job", _JOB, job, at_ms),
            Metric("Job/part_number", _TEXT, _text(job.product.part_number if job else ""), at_ms),
            Metric("Job/due_at", _TIME, unix_ms(job.due_at) if job else None, at_ms),
            Metric("Job/good", _I64, None if made is None else made.good, _at(made, now_ms)),
            *_rows("Coverage", _STOCK, stock_of, _at(stock, now_ms)),
        ]

    def _alarm_rows(self, now_ms: int) -> list[Metric]:
        said = self._line(ActiveAlarms)
        at_ms = _at(said, now_ms)
        if said is None:
            values: dict[str, tuple[DataType, Value]] = dict.fromkeys(_ALARM_COUNTS, (_I32, None))
            values |= {"flood": (_BOOL, None), "horn": (_BOOL, None), "first": (_TEXT, None)}
        else:
            alarms = list(said.alarms.values())
            standing = [one for one in alarms if one.state in _STANDING]
            states = [one.state for one in alarms]
            counts = [
                len(standing),
                *(sum(one.priority == priority for one in standing) for priority in _PRIORITIES),
                sum(state in (UNACK, RTN_UNACK) for state in states),
                states.count(SHELVED),
                states.count(SUPPRESSED),
            ]
            values = {name: (_I32, count) for name, count in zip(_ALARM_COUNTS, counts, strict=True)}
            first = next((f"{one.code} {one.source}: {one.text} - {one.action}" for one in standing), "")
            values |= {"flood": (_BOOL, said.flood), "horn": (_BOOL, said.horn), "first": (_TEXT, _text(first))}
        return [Metric(f"Alarms/{name}", kind, value, at_ms) for name, (kind, value) in values.items()]

    def _device(self, station: str, state: StationState, now_ms: int) -> list[Metric]:
        at_ms, alarms = _at(state, now_ms), self._line(ActiveAlarms)
        standing = None if alarms is None else [one for one in alarms.alarms.values() if one.state in _STANDING]
        ours = None if standing is None else [one for one in standing if one.source.partition("/")[0] == station]
        return [
            *_rows("", _STATION, state, at_ms),
            Metric("store_away", _BOOL, bool(state.store_away_since), at_ms),
            Metric("Alarms/active", _I32, None if ours is None else len(ours), _at(alarms, now_ms)),
            *(row for head, one in _heads(state) for row in _rows(f"Heads/{head}", _HEAD_KEYS, one, at_ms)),
        ]


_ALARM_COUNTS = ("active", *_PRIORITIES.values(), "unacknowledged", "shelved", "suppressed")


def _heads(state: StationState) -> Iterable[tuple[str, HeadState]]:
    named = [(head, one) for head, one in sorted(state.heads.items()) if _HEAD.fullmatch(head)]
    return named[:_MOST_HEADS]


def _figure_rows(window: str, said: Kpi | None, now_ms: int) -> list[Metric]:
    at_ms, prefix = _at(said, now_ms), f"KPI/{window.capitalize()}"
    about = None if said is None else said.window
    return [
        Metric(f"{prefix}/window", _TEXT, _text(about.shift_id or about.job_order_id) if about else None, at_ms),
        Metric(f"{prefix}/from", _TIME, unix_ms(about.start) if about else None, at_ms),
        *_rows(prefix, _FIGURES, said, at_ms),
        *_rows(prefix, _OEE, None if said is None else said.oee, at_ms),
    ]


def _rows(prefix: str, keys: Mapping[str, DataType], said: object | None, at_ms: int) -> list[Metric]:
    """A metric for each key of a document; without the document all are null."""
    found = []
    for key, kind in keys.items():
        value: Value = None if said is None else getattr(said, key)
        name = f"{prefix}/{key}" if prefix else key
        found.append(Metric(name, kind, _text(value) if isinstance(value, str) else value, at_ms))
    return found


def _text(value: str) -> str | None:
    return value[:_LONGEST_TEXT] or None


def _at(said: Message | None, now_ms: int) -> int:
    at_ms = None if said is None else unix_ms(said.ts)
    return now_ms if at_ms is None else at_ms


def _read(place: Place, payload: bytes, kind: type[T]) -> T | None:
    if not payload:
        return None
    said = msgspec.json.decode(payload, type=kind)
    if said.node_id != place.node:
        raise msgspec.ValidationError(f"the document names node {said.node_id[:60]!r}")
    return said


_K = TypeVar("_K")


def _keep(documents: dict[str, _K], name: str, said: _K | None) -> None:
    if said is None:
        documents.pop(name, None)
    else:
        documents[name] = said


def filters(topics: Topics) -> list[str]:
    """Where those documents stand."""
    return [
        topics.station_state("+"),
        *(f"{topics.base}/{LINE_NODE}/state/{name}" for name in _DOCUMENTS),
        *(topics.kpi(window) for window in _WINDOWS),
    ]
