"""The station's alarms: what it knows becomes alarms, people act on them, the line is told every change.

Every change is an event, stored together with the list as it stands then: the next process goes on with that list, so
that nothing acknowledged rings again. A source is "st01" or "st01/h03". Line contract 4.3 and 6.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ifpp import metrics as series
from ifpp.errors import CustodyError, IfppError, ServiceError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.alarm_acts import as_action, as_answer, check_request, tally
from ifpp.model.alarm_desk import AlarmDesk, Change, as_event, as_list
from ifpp.model.alarm_list import ALARM_KINDS
from ifpp.model.alarms import ActiveAlarm, ActiveAlarms, AlarmAnswer, AlarmCommand
from ifpp.model.clock import Clock, parse_utc, pause, utc_ms_text, uuid7
from ifpp.model.messages import Online
from ifpp.model.states import Phase
from ifpp.station.board import Board
from ifpp.station.gate import Gate
from ifpp.station.journal import Journal
from ifpp.station.life import ALARMS, Cause, Lives
from ifpp.station.records import Events, Kept

ALARM = "alarm"
"""Last topic level of the command."""
ALARM_ROW = "/alarms"
"""Where the journal keeps the list, among the lives of the heads; no head can be called so."""
NO_SUPERVISOR, LATE, REFUSED, NO_PACKAGE, STRANGER, CLOCK, READER = (
    "A-102",
    "A-104",
    "A-121",
    "A-131",
    "A-141",
    "A-151",
    "A-170",
)
_ROUND_S = 0.5
_CLOCK_S = 0.5
_PACKAGE_STREAK = 3
_NO_PACKAGE = frozenset({"BPP.NOT_FOUND", "BPP.EXHAUSTED", "EID.UNKNOWN", "BPP.NOT_CACHED"})
_STRANGE = frozenset({"EID.MISMATCH", "PIR.SIGNATURE", "PIR.MISMATCH", "PIR.READBACK", "BPP.OTHER_PRODUCT"})
_REFUSED = "ROUTE.REFUSED"

log = get_logger("station.alarms")


@dataclass(frozen=True, slots=True)
class Held:
    """A cause that stands now: what is said of it; `priority` 0 = that of the alarm's kind."""

    text: str = ""
    value: float | None = None
    limit: float | None = None
    priority: int = 0
    alarm_id: str = ""


class AlarmWatch:
    """Belongs to the event loop. `publish` says the list, retained, and raises ServiceError while nobody hears it.

    `connected`: whether the broker is there.
    """

    def __init__(
        self,
        station_id: str,
        *,
        lives: Lives,
        board: Board,
        gate: Gate,
        journal: Journal,
        metrics: Metrics,
        clock: Clock,
        connected: Callable[[], bool],
        publish: Callable[[ActiveAlarms], Awaitable[None]],
    ) -> None:
        self._station_id = station_id
        self._lives = lives
        self._board = board
        self._gate = gate
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._connected = connected
        self._publish = publish
        self._desk = AlarmDesk(clock)
        self._line: Online | None = None
        self._offset_s = 0.0
        self._without_package: set[str] = set()
        self._unstored: set[str] = set()
        self._said: dict[str, object] | None = None
        self._names: dict[str, Any] = {"node_id": station_id, "boot_id": journal.boot_id}
        self._causes: list[Cause] = []
        lives.on_cause = self._causes.append

    # ---- what the station hears ----

    def restore(self, rows: Mapping[str, bytes]) -> None:
        """Go on where the journal ended."""
        if row := rows.get(ALARM_ROW):
            self._desk = AlarmDesk(self._clock, msgspec.json.decode(row, type=dict[str, ActiveAlarm]).items())

    def note_line(self, said: Online) -> None:
        """The supervisor says that it is there, or its will that it is not; a replaced connection's will counts not."""
        if said.online or self._line is None or said.session >= self._line.session:
            self._line = said

    def note_time(self, ts: str) -> None:
        """What time it is at the supervisor: just now, for an acknowledgement is never kept."""
        if ts:
            self._offset_s = (self._clock.now() - parse_utc(ts)).total_seconds()
            self._journal.clock_ok = abs(self._offset_s) <= _CLOCK_S

    def forget_said(self) -> None:
        """A new connection: say the list again."""
        self._said = None

    # ---- rounds ----

    async def run(self, over: asyncio.Event) -> None:
        """Look, tell and publish until `over`."""
        while True:
            await self.look()
            if await pause(self._clock, _ROUND_S, over):
                return

    async def look(self) -> None:
        """Turn what is known now into alarms, store what changed, publish the list where it differs."""
        for cause in self._causes:
            if cause.by:  # who sees to the cause has seen the alarm
                self._desk.seen(cause.code, self._at(cause.head_id), cause.by)
        self._causes.clear()
        self._judge()
        if changes := self._desk.changes():
            self._keep(changes)
        await self._tell()

    def _judge(self) -> None:
        for code in ALARMS:
            rows = {head: self._lives[head].record.alarms for head in self._lives}
            self._stand(
                code,
                {
                    self._at(head): Held(one[code].text, one[code].value, one[code].limit, alarm_id=one[code].alarm_id)
                    for head, one in rows.items()
                    if code in one
                },
            )
        heads = self._board.rows.items()
        self._stand(READER, {self._at(head): Held() for head, row in heads if row.phase is Phase.RETIRED})
        self._judge_units()
        here = {self._station_id: Held()}
        gone = not self._connected() or self._line is None or not self._line.online
        self._stand(NO_SUPERVISOR, here if gone else {})
        attention = self._gate.attention
        if "OUTBOX.FULL" in attention:
            here = {self._station_id: Held("the store of events is full: no unit is taken", priority=1)}
        self._stand(LATE, here if {"OUTBOX.FULL", "OUTBOX.LATE"} & set(attention) else {})
        off = Held(f"clock differs from the supervisor's by {self._offset_s:.1f} s", round(self._offset_s, 1), _CLOCK_S)
        self._stand(CLOCK, {self._station_id: off} if abs(self._offset_s) > _CLOCK_S else {})

    def _judge_units(self) -> None:
        """Judge what became of the units since the last round, each once, in their order."""
        faults: dict[str, set[str]] = {}
        while self._board.verdicts:
            head, eid, fault = self._board.verdicts.popleft()
            faults.setdefault(head, set()).add(fault)
            if fault in _NO_PACKAGE:
                self._without_package.add(eid or f"unnamed on {head}")
            elif not fault:
                self._without_package.clear()
        for head, found in faults.items():
            strange = found & _STRANGE
            text = f"{ALARM_KINDS[STRANGER].text} ({', '.join(sorted(strange))})"
            self._desk.say(STRANGER, self._at(head), active=bool(strange), text=text)
            self._desk.say(REFUSED, self._at(head), active=_REFUSED in found)
        units = len(self._without_package)
        held = Held(f"no package for {units} different chips in a row", units, _PACKAGE_STREAK)
        self._stand(NO_PACKAGE, {self._station_id: held} if units >= _PACKAGE_STREAK else {})

    def _stand(self, code: str, held: Mapping[str, Held]) -> None:
        """Say of one code where its cause stands now: there, and nowhere else."""
        for source in self._desk.sources(code) - held.keys():
            self._desk.say(code, source, active=False)
        for source, what in held.items():
            self._say(code, source, what)

    def _say(self, code: str, source: str, what: Held) -> None:
        self._desk.say(
            code,
            source,
            active=True,
            text=what.text,
            value=what.value,
            limit=what.limit,
            priority=what.priority,
            alarm_id=what.alarm_id,
        )

    def _keep(self, changes: Iterable[Change], done: Events | None = None) -> Kept:
        """Store changes, and the list as it stands now."""
        events: Events = list(done or ())
        for change in changes:
            log.warning("alarm", code=change.alarm.kind.code, source=change.alarm.source, state=change.state)
            self._metrics.add(series.ALARM_CHANGES, node=self._station_id, state=change.state)
            events.append(("alarm", as_event(change, **self._names, clock=self._clock)))
        return self._journal.events(events, {ALARM_ROW: msgspec.json.encode(self._desk.active())})

    async def _tell(self) -> None:
        alarms = self._desk.active()
        content = as_list(alarms, self._desk.floods)
        if content == self._said:
            return
        for (priority, state), count in tally(alarms.values()).items():
            self._metrics.set(series.ALARMS, count, node=self._station_id, priority=str(priority), state=state)
        now = self._clock.now()
        document = ActiveAlarms(schema="alarms/1.0", id=uuid7(now), ts=utc_ms_text(now), **self._names, **content)
        try:
            await self._publish(document)
        except ServiceError:
            return  # said again when somebody hears it
        self._said = content

    def _at(self, head_id: str) -> str:
        return f"{self._station_id}/{head_id}"

    # ---- people ----

    async def obey(self, payload: bytes) -> AlarmAnswer:
        """Carry out `cmd/alarm` once; raises msgspec.MsgspecError for what is no command.

        Who may ask was judged before: by the window's badges, by the broker's access rules.
        """
        command = msgspec.json.decode(payload, type=AlarmCommand)
        try:
            check_request(command)
            if command.request_id in self._unstored or await asyncio.wrap_future(
                self._journal.told(command.request_id)
            ):
                return self._answer(command, "DUPLICATE", "it was done when it was asked for first")
        except IfppError as refusal:
            return self._answer(command, "REJECTED", str(refusal), refusal.code)
        verdict = self._desk.act(command, maintenance=True)
        if verdict.status != "ACCEPTED":
            return self._answer(command, verdict.status, verdict.text, verdict.code)
        changes = self._desk.changes()
        done = as_action(command, **self._names, clock=self._clock)
        kept = self._keep(changes, [("operator_action", done)])
        self._unstored.add(command.request_id)
        kept.stored.add_done_callback(lambda _stored: self._unstored.discard(command.request_id))
        try:
            stored = await asyncio.wrap_future(kept.tried)
        except CustodyError as fault:
            return self._answer(command, "ACCEPTED", f"{verdict.text}; not recorded: {fault.detail}", fault.code)
        await self._tell()
        return self._answer(command, "ACCEPTED", verdict.text + ("" if stored else "; recorded later"))

    def _answer(self, command: AlarmCommand, status: str, text: str, code: str = "") -> AlarmAnswer:
        return as_answer(command.request_id, status, text, code, **self._names, clock=self._clock)
