"""The line's alarms: its own and its stations' in one list; people act on them; a successor goes on with the list.

The line's own (station or MES offline, stock, events refused, ...) live at a desk here. The stations' live at theirs:
their retained lists are shown beside, hidden where an alarm of the line explains them, and what people do to one is
passed on to its station. Every change of an own alarm is in the line's log, in one transaction with what a successor
must know, so that nothing rings twice. Line contract 4.3 and 6.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from ifpp import metrics as series
from ifpp.bus.topics import LINE_NODE, MES_NODE, Place, Topics
from ifpp.errors import IfppError, ServiceError
from ifpp.line.load_watch import LoadWatch
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.alarm_acts import as_action, as_answer, check_request, tally
from ifpp.model.alarm_desk import ACKED, RTN_UNACK, SUPPRESSED, UNACK, AlarmDesk, Flood, as_event, as_list
from ifpp.model.alarm_list import ALARM_KINDS
from ifpp.model.alarms import ActiveAlarm, ActiveAlarms, AlarmAnswer, AlarmCommand
from ifpp.model.clock import Clock, pause, utc_ms_text, uuid7
from ifpp.model.messages import Message
from ifpp.store.factory import Factory
from ifpp.store.stock import StockLevel

OFFLINE, NO_MES, SLOW, NO_ANSWER, AGAINST_ROUTE, LOW, NONE_LEFT, TWICE, REFUSED, REPORT_LATE, ENDS_SOON = (
    "A-101",
    "A-103",
    "A-114",
    "A-120",
    "A-122",
    "A-130",
    "A-131",
    "A-140",
    "A-150",
    "A-160",
    "A-161",
)
_ROUND_S = 0.5
_SETTLED_S = 5.0  # after a take-over, what was not heard or counted yet is not taken for gone
_REFUSED_S = 60.0  # how long refused events are a matter for somebody
_TWICE_S = 60.0
_UNANSWERED = 3  # route checks in a minute
_TWICE_SINCE = timedelta(hours=1)
_AGAINST_ROUTE_SINCE = timedelta(hours=8)  # then it is known to a shift; the gate keeps the unit however long
_AGAINST_ROUTE_S = 5.0
_DONE = 200  # requests remembered
_MOST_STATIONS = 1000
_LONGEST = 1 << 20

log = get_logger("line.alarms")
Publish = Callable[[str, bytes, bool], Awaitable[None]]


class Kept(msgspec.Struct, kw_only=True):
    """What a successor must know."""

    alarms: dict[str, ActiveAlarm] = {}
    done: list[str] = []


class AlarmWatch:
    """Belongs to the event loop of one supervisor, for one epoch.

    `publish(topic, payload, retain)` raises ServiceError while nobody hears it. `stations` says who is online,
    `mes_online` whether the MES is (None: unknown), `refused` how many events were, `overdue` which reports are late,
    `ending` which certificate files end soon, and in how many days, `unanswered` how many route checks of the last
    minute had no answer.
    """

    def __init__(
        self,
        factory: Factory,
        topics: Topics,
        publish: Publish,
        *,
        boot_id: str,
        clock: Clock,
        metrics: Metrics,
        stations: Callable[[], Mapping[str, bool]],
        mes_online: Callable[[], bool | None],
        refused: Callable[[], int],
        overdue: Callable[[], list[str]],
        ending: Callable[[], Mapping[str, float]] = dict,
        unanswered: Callable[[], int] = int,
        violation: Callable[..., None],
    ) -> None:
        self._factory = factory
        self._topics = topics
        self._publish = publish
        self._names: dict[str, Any] = {"node_id": LINE_NODE, "boot_id": boot_id}
        self._clock = clock
        self._metrics = metrics
        self._stations = stations
        self._mes_online = mes_online
        self._refused = refused
        self._overdue = overdue
        self._ending = ending
        self._unanswered = unanswered
        self._violation = violation
        self._desk = AlarmDesk(clock)
        self._floods = Flood()
        self._lists: dict[str, dict[str, ActiveAlarm]] = {}
        self._asked: dict[str, str] = {}
        self._done: deque[str] = deque(maxlen=_DONE)
        self._owed: list[tuple[str, Message]] = []
        self._said: dict[str, object] | None = None
        self._ready = False
        self._began_s = clock.monotonic()
        self._refusals, self._refused_s = 0, -math.inf
        self._looked_twice_s = self._looked_back_s = -math.inf
        self._loads = LoadWatch(factory, topics.line, clock)
        self._counted: dict[tuple[str, str], int] = {}
        self._writing = asyncio.Lock()

    @property
    def subscriptions(self) -> list[str]:
        """Where stations and people speak of alarms."""
        base = self._topics.base
        return [f"{base}/+/state/alarms", f"{base}/+/cmd_rsp/alarm", self._topics.command(LINE_NODE, "alarm")]

    def connected(self) -> None:
        """A new connection: what is retained is said again."""
        self._said = None

    # ---- what is heard ----

    async def hear(self, place: Place, payload: bytes, *, retained: bool) -> bool:
        """Take one document; False when it is not about alarms."""
        what = (place.kind, place.name)
        if what not in (("state", "alarms"), ("cmd_rsp", "alarm"), ("cmd", "alarm")):
            return False
        try:
            if len(payload) > _LONGEST:
                raise msgspec.ValidationError(f"{len(payload)} bytes are too many")
            if place.node == LINE_NODE and place.kind == "cmd":
                if not retained:  # nobody knows how old a retained one is
                    await self._obey(msgspec.json.decode(payload, type=AlarmCommand))
            elif not place.node.startswith("_") and place.kind == "state":
                self._note_list(place.node, payload, retained=retained)
            elif not place.node.startswith("_") and place.kind == "cmd_rsp":
                await self._pass_back(place.node, msgspec.json.decode(payload, type=AlarmAnswer))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._violation("alarm", "schema", node_id=place.node, error=error)
        return True

    def note_stock(self, levels: Iterable[StockLevel], low_hours: float) -> None:
        """Say how far the packages go: none left, less than the set hours, or enough."""
        for level in levels:
            at = f"{LINE_NODE}/{level.sku}-{level.region}"
            empty, hours = level.chips == 0 and level.units_an_hour > 0, level.hours
            self._desk.say(NONE_LEFT, at, active=empty, value=level.chips)
            text = f"packages for less than {low_hours:g} h"
            self._desk.say(LOW, at, active=level.low(low_hours) and not empty, text=text, value=hours, limit=low_hours)

    def forget(self, station: str) -> None:
        """A station was decommissioned: its alarms go with it."""
        self._lists.pop(station, None)
        self._desk.say(OFFLINE, station, active=False)

    def _note_list(self, station: str, payload: bytes, *, retained: bool) -> None:
        if not payload:
            self._lists.pop(station, None)
            return
        said = msgspec.json.decode(payload, type=ActiveAlarms)
        if station not in self._lists and len(self._lists) >= _MOST_STATIONS:
            raise msgspec.ValidationError("more stations than a line has")
        before = self._lists.get(station, {})
        self._lists[station] = said.alarms
        for alarm_id, alarm in said.alarms.items():
            known = before.get(alarm_id)
            rings = alarm.state == UNACK and (known is None or known.state == RTN_UNACK)
            if rings and not retained and not self._desk.hides(alarm.code, alarm.source):
                self._floods.ring(self._clock.monotonic(), alarm_id)

    # ---- rounds ----

    async def run(self, over: asyncio.Event) -> None:
        """Take over what the last supervisor kept; then look, keep and publish until `over`."""
        while True:
            try:
                if not self._ready:
                    await self._take_over()
                await self._look_twice()
                await self._look_back()
                await self._loads.look()
                self._judge()
                await self._keep()
                await self._tell()
            except ServiceError as error:  # database or broker away: the next round does it
                log.debug("alarms.not_told", error=error)
            if await pause(self._clock, _ROUND_S, over):
                return

    async def _take_over(self) -> None:
        text = await asyncio.to_thread(self._factory.alarms.handed_on, self._topics.line)
        kept = msgspec.json.decode(text, type=Kept) if text else Kept()
        self._desk = AlarmDesk(self._clock, kept.alarms.items())
        self._done.extend(kept.done)
        self._ready = True

    async def _look_twice(self) -> None:
        """Look for chips that were seen in two units, and profiles that were found in two chips."""
        if self._clock.monotonic() - self._looked_twice_s < _TWICE_S:
            return
        since = self._clock.now() - _TWICE_SINCE
        twice = await asyncio.to_thread(self._factory.alarms.twice, since)
        iccids = await asyncio.to_thread(self._factory.alarms.iccids_twice, since)
        self._looked_twice_s = self._clock.monotonic()
        held = {f"{LINE_NODE}/{eid}": f"EID in units {', '.join(units[:5])}" for eid, units in twice.items()}
        held |= {f"{LINE_NODE}/{iccid}": f"ICCID in chips {', '.join(eids[:5])}" for iccid, eids in iccids.items()}
        self._stand(TWICE, held)

    async def _look_back(self) -> None:
        """Look for units the MES refused when it was asked afterwards."""
        if self._clock.monotonic() - self._looked_back_s < _AGAINST_ROUTE_S:
            return
        since = self._clock.now() - _AGAINST_ROUTE_SINCE
        refused = await asyncio.to_thread(self._factory.unasked.refused, self._topics.line, since)
        self._looked_back_s = self._clock.monotonic()
        said = "the MES, asked afterwards, refuses it"
        self._stand(AGAINST_ROUTE, {f"{LINE_NODE}/{eid}": f"{said}: {words}" for eid, words in refused.items()})

    def _judge(self) -> None:
        for station, online in self._stations().items():
            self._desk.say(OFFLINE, station, active=not online)
        if (mes := self._mes_online()) is not None:
            self._desk.say(NO_MES, MES_NODE, active=not mes)
        silent = self._unanswered()
        self._stand(SLOW, self._loads.calls)
        self._desk.say(NO_ANSWER, MES_NODE, active=silent > _UNANSWERED, value=float(silent), limit=float(_UNANSWERED))
        now_s = self._clock.monotonic()
        if (refusals := self._refused()) > self._refusals:
            self._refusals, self._refused_s = refusals, now_s
        self._desk.say(REFUSED, LINE_NODE, active=now_s - self._refused_s < _REFUSED_S, value=float(refusals))
        if now_s - self._began_s >= _SETTLED_S:
            late = self._overdue()
            text = f"Profile Loading Report not delivered in time: {', '.join(late[:3])}"
            self._stand(REPORT_LATE, {LINE_NODE: text} if late else {})
            ends = self._ending()
            self._stand(ENDS_SOON, {f"{LINE_NODE}/{name}": f"ends in {days:.1f} days" for name, days in ends.items()})

    def _stand(self, code: str, held: Mapping[str, str]) -> None:
        """Say of one code where its cause stands now: there, and nowhere else."""
        for source in self._desk.sources(code) - held.keys():
            self._desk.say(code, source, active=False)
        for source, text in held.items():
            self._desk.say(code, source, active=True, text=text)

    async def _keep(self) -> None:
        """Write every change into the line's log, with what a successor must know; raises ServiceError."""
        async with self._writing:
            for change in self._desk.changes():
                one = change.alarm
                log.warning("alarm", code=one.kind.code, source=one.source, state=change.state)
                self._metrics.add(series.ALARM_CHANGES, node=LINE_NODE, state=change.state)
                if change.state == UNACK and change.old_state in ("NORMAL", RTN_UNACK):
                    self._floods.ring(self._clock.monotonic(), one.alarm_id)
                self._owed.append(("alarm", as_event(change, **self._names, clock=self._clock)))
            if not self._owed:
                return
            owed, now = list(self._owed), self._clock.now()
            kept = msgspec.json.encode(Kept(alarms=self._desk.active(), done=list(self._done))).decode()
            await asyncio.to_thread(self._factory.alarms.keep, self._topics.line, owed, kept, now)
            del self._owed[: len(owed)]

    async def _tell(self) -> None:
        """Publish the alarms of line and stations where they differ from what was said; raises ServiceError."""
        self._floods.judge(self._clock.monotonic())
        alarms = self._all()
        content = as_list(alarms, self._floods)
        if content == self._said:
            return
        for (priority, state), count in tally(alarms.values()).items():
            self._metrics.set(series.ALARMS, count, node=LINE_NODE, priority=str(priority), state=state)
        self._count_standing(alarms.values())
        self._metrics.set(series.ALARM_FLOOD, self._floods.on)
        now = self._clock.now()
        document = ActiveAlarms(schema="alarms/1.0", id=uuid7(now), ts=utc_ms_text(now), **self._names, **content)
        await self._publish(self._topics.alarms(LINE_NODE), msgspec.json.encode(document), True)
        self._said = content

    def _count_standing(self, alarms: Iterable[ActiveAlarm]) -> None:
        """Show how many stand by code and priority; a station may say any code and priority, the labels stay few."""
        counts = Counter(
            (one.code if one.code in ALARM_KINDS else "other", str(min(max(one.priority, 1), 3)))
            for one in alarms
            if one.state in (UNACK, ACKED)
        )
        self._counted = dict.fromkeys(self._counted, 0) | counts
        for (code, priority), number in self._counted.items():
            self._metrics.set(series.ALARM_STANDING, number, code=code, priority=priority)

    def _all(self) -> dict[str, ActiveAlarm]:
        """Every alarm, the most urgent first; of a station that the line's own alarm explains: suppressed."""
        found = dict(self._desk.active())
        for alarms in self._lists.values():
            for alarm_id, alarm in alarms.items():
                found[alarm_id] = self._as_seen_here(alarm)
        return dict(sorted(found.items(), key=lambda one: (one[1].priority, one[1].first_at, one[0])))

    def _as_seen_here(self, alarm: ActiveAlarm) -> ActiveAlarm:
        if alarm.state in (UNACK, ACKED, RTN_UNACK) and self._desk.hides(alarm.code, alarm.source):
            return msgspec.structs.replace(alarm, state=SUPPRESSED, beneath=alarm.state)
        return alarm

    # ---- people ----

    async def _obey(self, command: AlarmCommand) -> None:
        try:
            check_request(command)
            station = next((node for node, alarms in self._lists.items() if command.alarm_id in alarms), "")
            if station:
                await self._pass_on(station, command)
                return
            await self._answer(command.request_id, *await self._act(command))
        except IfppError as refusal:
            await self._answer(command.request_id, "REJECTED", str(refusal), refusal.code)

    async def _act(self, command: AlarmCommand) -> tuple[str, str, str]:
        if command.request_id in self._done:
            return "DUPLICATE", "it was done when it was asked for first", ""
        verdict = self._desk.act(command, maintenance=True)  # the broker's rules say who may ask
        if verdict.status == "ACCEPTED":
            self._done.append(command.request_id)
            self._owed.append(("operator_action", as_action(command, **self._names, clock=self._clock)))
            try:
                await self._keep()
            except ServiceError as error:  # done; the next round writes it
                log.warning("alarm.act_not_kept", request=command.request_id, error=error)
        return verdict.status, verdict.text, verdict.code

    async def _pass_on(self, station: str, command: AlarmCommand) -> None:
        if not self._stations().get(station, False):
            raise ServiceError("STATION.SILENT", "it is offline", where=station)
        while len(self._asked) >= _DONE:
            self._asked.pop(next(iter(self._asked)))
        self._asked[command.request_id] = station
        await self._publish(self._topics.command(station, "alarm"), msgspec.json.encode(command), False)

    async def _pass_back(self, station: str, answer: AlarmAnswer) -> None:
        if self._asked.get(answer.request_id) == station:
            del self._asked[answer.request_id]
            await self._answer(answer.request_id, answer.status, answer.text, answer.code)

    async def _answer(self, request_id: str, status: str, text: str, code: str = "") -> None:
        answer = as_answer(request_id, status, text, code, **self._names, clock=self._clock)
        try:
            await self._publish(self._topics.answer(LINE_NODE, "alarm"), msgspec.json.encode(answer), False)
        except ServiceError as error:  # asked again, it is a duplicate
            log.warning("answer.not_sent", request=request_id, error=error)
