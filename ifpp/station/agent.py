"""The station agent: heads, pump and broker connection in one task group; one process per station."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from ifpp import __version__
from ifpp.bus import contract
from ifpp.bus.client import BrokerAddress, BusClient, Inbound
from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.errors import CustodyError, ServiceError
from ifpp.hw.port import make_port
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.alarms import ActiveAlarms, AlarmAnswer
from ifpp.model.clock import Clock, pause, utc_ms_text, uuid7
from ifpp.model.messages import (
    Ack,
    Birth,
    HeadAnswer,
    HeadBirth,
    JobState,
    Online,
    OperatorAction,
    OutboxRange,
    StationState,
)
from ifpp.recipes import RecipeBook
from ifpp.settings import People, Site, Station
from ifpp.station.alarm_watch import ALARM, AlarmWatch
from ifpp.station.board import Ahead, Board
from ifpp.station.cache import Cache
from ifpp.station.commands import NAMES, Commands
from ifpp.station.downloads import Downloads
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.floor import Floor
from ifpp.station.gate import Gate
from ifpp.station.hand_over import HandOvers
from ifpp.station.head import Head
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.station.lock import Lock
from ifpp.station.permits import Permits
from ifpp.station.prefetch import Prefetch
from ifpp.station.pump import Pump
from ifpp.station.records import OutboxRow
from ifpp.station.recovery import recover
from ifpp.station.route import Route
from ifpp.station.serials import ScannedSerials
from ifpp.station.supplier import Supplier
from ifpp.station.watch import Watch
from ifpp.station.window import FOR_SCREENS, SILENT_S, Window
from ifpp.store.client import StoreClient
from ifpp.trust.chain import TrustStore
from ifpp.trust.people import Somebody
from ifpp.trust.tls import Renewed

_SNAPSHOT_S = 1.0
_SNAPSHOT_AT_LEAST_S = 60.0
_LOOK_S = 0.25
_DRAIN_S = 10.0
log = get_logger("station.agent")


class Agent:
    """One station. `run` returns after `stopping` was set, running units came to their verdict and events left."""

    def __init__(
        self,
        site: Site,
        station: Station,
        *,
        journal: Journal,
        trust: TrustStore,
        metrics: Metrics,
        clock: Clock,
        at_edge: AtEdge = pass_by,
        tls: Renewed | None = None,
        cache: Cache | None = None,
        eids: Path | None = None,
        window: tuple[Path, People | None] | None = None,
        permits: Permits | None = None,
        downloads: Downloads | None = None,
        recipes: RecipeBook | None = None,
    ) -> None:
        """`tls`: what the station shows to store and broker. `window`: where screens look in, and who may act there.

        `permits`, `downloads`, `recipes`: see `Floor`.
        """
        self._station = station
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)
        self._jobs = Jobs(station.id)
        self._board = Board(station.id, journal.boot_id, clock)
        self._gate = Gate()
        self._lives = Lives(station.heads, station.life, clock=clock)
        self._lock = Lock(self._gate)
        self._session = 0
        self._commands = Commands(
            station.id, self._lives, self._board, journal, metrics, clock, self._lock, self._say_again
        )
        self._route = Route(self._ask_route, deadline_ms=site.mes.route_ms) if site.mes.enabled else None
        self._told_route = self._topics.reply(station.id, "route_check")
        self._asked_on = {self._topics.command(station.id, name): name for name in (*NAMES, ALARM)}
        self._watch = Watch(journal, self._gate, station.outbox, metrics, clock)
        self._pump = Pump(journal, self._send, station.outbox, clock, node_id=station.id)
        self._store = StoreClient(site.store.url, timeout_s=station.deadlines.store_s, tls=tls.current if tls else None)
        self._supplier = Supplier(self._store, cache, journal, self._gate, clock, margin_s=station.cache.margin_s)
        self._prefetch = None if cache is None else self._new_prefetch(cache, trust, eids)
        self._operator = ""
        self._hands = HandOvers(station.id, journal, clock)
        serials = ScannedSerials(self._board, clock)
        self._window = None if window is None else self._new_window(*window, serials)
        self._shown_on = {f"{self._topics.base}/{at}": at for at in FOR_SCREENS if window}
        self._downloads = downloads
        self._stopping = asyncio.Event()
        self._alarms = self._new_alarms()
        broker = BrokerAddress(site.broker.host, site.broker.port, tls=tls.current if tls and site.broker.tls else None)
        self._bus = self._new_bus(broker)
        floor = Floor(
            settings=station,
            clock=clock,
            journal=journal,
            store=self._supplier,
            trust=trust,
            jobs=self._jobs,
            board=self._board,
            gate=self._gate,
            lives=self._lives,
            metrics=metrics,
            stopping=self._stopping,
            at_edge=at_edge,
            permits=permits,
            route=self._route,
            serials=serials,
            downloads=downloads,
            recipes=recipes or RecipeBook(),
        )
        self._heads = [Head(head_id, make_port(head.port, head.lamp), floor) for head_id, head in station.heads.items()]

    def _new_prefetch(self, cache: Cache, trust: TrustStore, eids: Path | None) -> Prefetch:
        return Prefetch(
            self._supplier,
            cache,
            journal=self._journal,
            trust=trust,
            settings=self._station,
            eids=eids,
            gate=self._gate,
            metrics=self._metrics,
            clock=self._clock,
        )

    def _new_window(self, path: Path, people: People | None, serials: ScannedSerials) -> Window:
        return Window(
            path,
            people,
            self._clock,
            idle_s=self._station.window.idle_s,
            obey=self._do,
            passing=self._passed,
            scanned=serials.scan,
            serials=self._station.window.serials,
            handed=self._hands.record,
        )

    def _new_alarms(self) -> AlarmWatch:
        return AlarmWatch(
            self._station.id,
            lives=self._lives,
            board=self._board,
            gate=self._gate,
            journal=self._journal,
            metrics=self._metrics,
            clock=self._clock,
            connected=lambda: self._bus.connected,
            publish=self._publish_alarms,
        )

    def _new_bus(self, broker: BrokerAddress) -> BusClient:
        return BusClient(
            broker,
            self._topics,
            self._station.id,
            self._journal.boot_id,
            subscriptions=[
                self._topics.ack(self._station.id),
                self._topics.job,
                self._topics.birth(LINE_NODE),
                *([self._told_route] if self._route else ()),
                *self._asked_on,
                *dict.fromkeys((self._topics.online(LINE_NODE), *self._shown_on)),
            ],
            next_session=lambda: asyncio.wrap_future(self._journal.next_session()),
            on_connected=self._on_connected,
            on_message=self._on_message,
            clock=self._clock,
            metrics=self._metrics,
        )

    async def run(
        self, stop: asyncio.Event, ready: Callable[[], None], beat: Callable[[str], None] = lambda _standing: None
    ) -> None:
        """Work until `stop`; then no new unit, running ones to their verdict, events out, disconnect.

        `beat` hears every second how the station stands, and only while loop and journal answer: whatever a head does.
        Before anything else, what the last process left open is closed. Raises CustodyError JOURNAL.WRITE when the
        journal cannot be read.
        """
        loop = asyncio.get_running_loop()
        self._journal.watch(lambda fault: loop.call_soon_threadsafe(self._watch.trouble, fault))
        self._journal.on_event = partial(loop.call_soon_threadsafe, self._pump.wake)
        try:
            await recover(
                self._journal, self._station.id, self._station.heads, self._clock, material=self._route is not None
            )
            lives = await asyncio.wrap_future(self._journal.lives())
            self._lives.restore(lives)
            self._lock.restore(lives)
            self._hands.restore(lives)
            self._alarms.restore(lives)
            await self._work(stop, ready, beat)
        finally:
            self._journal.on_event = lambda: None
            self._journal.watch(lambda _fault: None)

    async def _work(self, stop: asyncio.Event, ready: Callable[[], None], beat: Callable[[str], None]) -> None:
        disconnect, quiet = asyncio.Event(), asyncio.Event()
        async with self._store, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.run(disconnect), name="bus")
            tasks.create_task(self._pump.run(quiet), name="pump")
            tasks.create_task(self._snapshots(quiet, beat), name="snapshots")
            tasks.create_task(self._alarms.run(quiet), name="alarms")
            if self._window is not None:
                tasks.create_task(self._window.run(quiet), name="window")
                tasks.create_task(self._look_in(self._window, quiet), name="look in")
            if self._prefetch is not None:
                tasks.create_task(self._prefetch.run(self._jobs, self._stopping), name="prefetch")
                tasks.create_task(self._prefetch.recall_job(self._jobs, self._stopping), name="last job")
            online = tasks.create_task(self._downloads.run(), name="online") if self._downloads else None
            heads = [tasks.create_task(head.run(), name=f"head {head.head_id}") for head in self._heads]
            ready()
            await stop.wait()
            self._stopping.set()
            await asyncio.wait(heads)
            if not await self._pump.drained(_DRAIN_S):
                log.warning("events remain in the outbox and will be sent after the next start")
            quiet.set()
            if online is not None:
                online.cancel()
            self._pump.wake()
            await self._watch.look()
            await self._publish_state()
            disconnect.set()

    async def _send(self, row: OutboxRow) -> None:
        # way of a unit, step 9
        await self._bus.publish(self._topics.event(self._station.id, row.name), row.body)

    async def _ask_route(self, document: bytes) -> None:
        await self._bus.publish(self._topics.question(self._station.id, "route_check"), document)

    async def _say_again(self) -> None:
        await self._on_connected(self._session)

    async def _on_connected(self, session: int) -> None:
        self._session = session
        await self._bus.publish(
            self._topics.birth(self._station.id), msgspec.json.encode(await self._birth(session)), retain=True
        )
        await self._publish_state()
        self._alarms.forget_said()
        self._pump.connected(yes=True)

    async def _on_message(self, message: Inbound) -> None:
        try:
            if message.topic == self._topics.ack(self._station.id):
                ack = msgspec.json.decode(message.payload, type=Ack)
                self._alarms.note_time(ack.ts)
                await self._pump.acknowledge(ack)
            elif message.topic == self._topics.job:
                self._jobs.update(msgspec.json.decode(message.payload, type=JobState))
                self._show(f"{LINE_NODE}/state/job", message.payload)
                if self._prefetch is not None:
                    await self._prefetch.note_job(message.payload)
            elif message.topic == self._told_route and self._route is not None:
                self._route.hear(message.payload)
            elif message.topic in self._asked_on:
                await self._obey(message)
            elif message.topic in self._shown_on or message.topic == self._topics.online(LINE_NODE):
                if message.topic == self._topics.online(LINE_NODE) and message.payload:
                    self._alarms.note_line(msgspec.json.decode(message.payload, type=Online))
                self._show(self._shown_on.get(message.topic, ""), message.payload)
            elif message.payload:
                epoch = msgspec.json.decode(message.payload, type=Birth).epoch
                if epoch is not None:
                    self._pump.epoch(epoch)
        except msgspec.MsgspecError as error:
            log.error("document ignored", topic=message.topic, reason=str(error))

    def _show(self, at: str, document: bytes) -> None:
        if self._window is not None and at and document:
            self._window.show(at, document)

    async def _obey(self, message: Inbound) -> None:
        if message.retained:
            return  # nobody knows how old it is
        name = self._asked_on[message.topic]
        answer = await self._do(name, message.payload)
        try:
            await self._bus.publish(self._topics.answer(self._station.id, name), msgspec.json.encode(answer))
        except ServiceError as error:
            log.warning("answer not sent", request=answer.request_id, code=error.code)

    async def _do(self, name: str, payload: bytes) -> HeadAnswer | AlarmAnswer:
        if name == ALARM:
            return await self._alarms.obey(payload)
        return await self._commands.obey(name, payload)

    async def _birth(self, session: int) -> Birth:
        now = self._clock.now()
        return Birth(
            schema="birth/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=self._station.id,
            boot_id=self._journal.boot_id,
            session=session,
            sw_version=__version__,
            model="station",
            heads={
                head_id: HeadBirth(
                    reader=head.port,
                    socket_id=head.socket_id,
                    socket_cycles=self._lives[head_id].record.cycles,
                )
                for head_id, head in self._station.heads.items()
            },
            operations=["PROFILE_LOAD"],
            contract=contract.told(),
            outbox=await self._range(),
        )

    async def _range(self) -> OutboxRange | None:
        try:
            first, following = await asyncio.wrap_future(self._journal.range())
        except CustodyError as error:
            log.warning("journal not read", code=error.code, detail=error.detail)
            return None
        return OutboxRange(first_seq=first, next_seq=following)

    @property
    def _ahead(self) -> Ahead:
        if self._prefetch is None:
            return Ahead()
        return Ahead(self._prefetch.holding.units, self._prefetch.oldest_ms, self._supplier.away_since)

    async def _snapshots(self, quiet: asyncio.Event, beat: Callable[[str], None]) -> None:
        """Publish the state on change, at most once a second, and once a minute in any case."""
        last, last_s = None, float("-inf")
        while not quiet.is_set():
            await self._watch.look()
            beat(self._standing())
            custody = self._watch.custody
            outbox, units = custody.outbox, self._ahead.units
            counts = (outbox.count, outbox.rejected, custody.held, units)
            now = (self._board.changes, self._gate.changes, counts, self._hands.last)
            if now != last or self._clock.monotonic() - last_s >= _SNAPSHOT_AT_LEAST_S:
                last, last_s = now, self._clock.monotonic()
                await self._publish_state()
            await pause(self._clock, _SNAPSHOT_S, quiet)

    def _standing(self) -> str:
        taking = f"takes no units: {self._gate.refusing}" if self._gate.refusing else "takes units"
        if self._stopping.is_set():
            taking = "finishes its units"
        return f"{self._station.id} {taking}; {self._watch.custody.outbox.count} events wait"

    def _state(self) -> StationState:
        return self._board.document(
            job_order_id=self._jobs.job_order_id,
            operator_id=self._operator,
            lock_reason=self._lock.reason,
            refusing=self._gate.refusing,
            attention=self._gate.attention,
            custody=self._watch.custody,
            ahead=self._ahead,
            hand_over=self._hands.last,
        )

    async def _look_in(self, window: Window, quiet: asyncio.Event) -> None:
        """Show the state in the window, as often as eyes can follow and only while somebody looks."""
        shown: tuple[object, ...] = ()
        shown_s = float("-inf")
        while not quiet.is_set():
            people = (self._operator, self._hands.last)
            now = (self._board.changes, self._board.moves, self._gate.changes, people, self._watch.custody)
            silent = self._clock.monotonic() - shown_s >= SILENT_S
            if (now != shown or silent) and (window.watched or not shown):
                shown, shown_s = now, self._clock.monotonic()
                window.show(f"{self._station.id}/state/station", msgspec.json.encode(self._state()))
            await pause(self._clock, _LOOK_S, quiet)

    async def _passed(self, action: str, who: Somebody) -> None:
        """Note who came to the window, or left it; the journal keeps it in its turn."""
        self._operator = who.name if action == "LOGIN" else ""
        now = self._clock.now()
        event = OperatorAction(
            schema="operator_action/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=self._station.id,
            boot_id=self._journal.boot_id,
            action=action,
            operator_id=who.name,
            target=self._station.id,
        )
        self._journal.events([("operator_action", event)])

    async def _publish_alarms(self, alarms: ActiveAlarms) -> None:
        payload = msgspec.json.encode(alarms)
        self._show(f"{self._station.id}/state/alarms", payload)
        await self._bus.publish(self._topics.alarms(self._station.id), payload, retain=True)

    async def _publish_state(self) -> None:
        state = self._state()
        try:
            await self._bus.publish(
                self._topics.station_state(self._station.id), msgspec.json.encode(state), retain=True
            )
        except ServiceError:
            return  # the next connection begins with a snapshot
