"""One supervisor per line: takes every event once, settles the ledger, says what is to be done and how the line stands.

A supervisor works only while it holds the line's lease. Each time a lease is won its `epoch` grows; stations that see
a new epoch send again what is not acknowledged. A second supervisor waits, away from the broker.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from ssl import SSLContext
from typing import TypeVar
from uuid import uuid4

import msgspec

from ifpp import __version__
from ifpp import metrics as series
from ifpp.bus import contract
from ifpp.bus.client import BrokerAddress, BusClient, Inbound
from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.errors import ServiceError, WireError
from ifpp.line.alarm_watch import AlarmWatch
from ifpp.line.first_article import not_open
from ifpp.line.hearing import MOST_NODES, UnheardError, read_birth, read_online
from ifpp.line.kpi_desk import KpiDesk
from ifpp.line.lease import Lease
from ifpp.line.mes_desk import MesDesk
from ifpp.line.mes_stock import StockDesk
from ifpp.line.notary import Notary
from ifpp.line.reconcile import Reconciler
from ifpp.line.report_watch import ReportWatch
from ifpp.line.route import RouteDesk
from ifpp.line.settle import USUAL, Limits, Settling, either
from ifpp.line.sparkplug import SparkplugDesk
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, parse_utc, pause, utc_ms_text, uuid7
from ifpp.model.kpi import Kpi
from ifpp.model.messages import Ack, Birth, FirstArticles, Job, JobState, LineState, Message, Online
from ifpp.model.states import OPEN_STATES, PackageState
from ifpp.settings import Site
from ifpp.store.factory import Factory
from ifpp.trust.signer import Signer

_SESSIONS_PER_EPOCH = 1 << 20  # makes session numbers grow over restarts without storing them
_BOOKS_S = 1.0
_BOOKS_SHARE = 10  # reading the books takes at most one tenth of the time
_WATCH_S = 1.0
_STOCK_S = 30.0
_ENDED = frozenset({"COMPLETED", "ABORTED", "CANCELLED", "CLOSED"})  # B2MML dispatch status

log = get_logger("line.supervisor")
T = TypeVar("T")


async def run_supervisor(
    site: Site,
    factory: Factory,
    *,
    metrics: Metrics,
    clock: Clock,
    stop: asyncio.Event,
    ready: Callable[[], None],
    signer: Signer | None = None,
    broker_tls: Callable[[], SSLContext] | None = None,
    limits: Limits = USUAL,
    ending: Callable[[], Mapping[str, float]] = dict,
    beat: Callable[[str], None] = lambda _standing: None,
) -> None:
    """Supervise the line `site.line` until `stop`; then finish the commit under way, acknowledge, and go offline.

    `ready` is called once, when the first connection to the broker stands. `metrics` has the role SUPERVISOR and the
    fixed label `line`. `signer` signs the audit log; without one nothing is signed.
    `ending`: certificate files that end soon, and in how many days. `broker_tls`: what each connection to the broker
    shows. `beat`: see `Lease`. Neither a broker nor a database that is away ends it.
    """
    owner = str(uuid4())
    notary = None if signer is None else _notary(site, factory, signer, clock, metrics)
    with ThreadPoolExecutor(1, thread_name_prefix="supervisor-db") as executor:
        lease = Lease(site, factory, executor, owner, clock, beat)
        while (epoch := await lease.win(stop)) is not None:
            log.info("line.taken", line=site.line, epoch=epoch)
            metrics.set(series.LINE_EPOCH, epoch)
            address = BrokerAddress(site.broker.host, site.broker.port, tls=broker_tls)
            parts = factory, executor, lease, address
            reign = _Reign(site, *parts, epoch, owner, metrics=metrics, clock=clock, limits=limits, ending=ending)
            await reign.run(stop, ready, notary)
            await lease.release()
            if notary is not None:
                await notary.finish()
            metrics.set(series.LINE_EPOCH, 0)
            log.info("line.left", line=site.line, epoch=epoch)


def _notary(site: Site, factory: Factory, signer: Signer, clock: Clock, metrics: Metrics) -> Notary:
    often = site.supervisor
    return Notary(
        factory,
        signer,
        clock=clock,
        metrics=metrics,
        entries=often.checkpoint_entries,
        seconds=often.checkpoint_s,
    )


class _Reign:
    """The time one epoch lasts."""

    def __init__(
        self,
        site: Site,
        factory: Factory,
        executor: Executor,
        lease: Lease,
        address: BrokerAddress,
        epoch: int,
        boot_id: str,
        *,
        metrics: Metrics,
        clock: Clock,
        limits: Limits,
        ending: Callable[[], Mapping[str, float]],
    ) -> None:
        self._site = site
        self._factory = factory
        self._lease = lease
        self._epoch = epoch
        self._boot_id = boot_id
        self._metrics = metrics
        self._clock = clock
        self._topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)
        self._over = asyncio.Event()
        self._sessions = epoch * _SESSIONS_PER_EPOCH
        self._stations: dict[str, tuple[bool, int]] = {}
        self._books: tuple[list[Job], tuple[int, int, int]] | None = None
        self._not_open: dict[str, FirstArticles] = {}
        self._said: dict[str, dict[str, object]] = {}
        self._low: set[tuple[str, str]] = set()
        self._ready: Callable[[], None] = lambda: None
        self._reports = ReportWatch(factory, clock=clock, metrics=metrics, due_h=site.reports.due_h)
        self._settling = Settling(
            lease.fenced(), executor, self._send_ack, epoch=epoch, clock=clock, metrics=metrics, limits=limits
        )
        self._mes = MesDesk(
            site.mes,
            factory,
            self._topics,
            self._publish,
            boot_id=boot_id,
            epoch=epoch,
            clock=clock,
            violation=self._settling.violation,
        )
        self._route = RouteDesk(
            factory,
            self._topics,
            self._publish,
            online=lambda: self._mes.online,
            clock=clock,
            metrics=metrics,
            violation=self._settling.violation,
        )
        self._reconciler = Reconciler(
            factory, site.line, self._route.ask, online=lambda: self._mes.online, clock=clock, metrics=metrics
        )
        self._alarms = self._new_alarms(ending)
        self._stock = StockDesk(
            factory,
            self._topics,
            self._publish,
            boot_id=boot_id,
            epoch=epoch,
            low_stock_hours=site.store.low_stock_hours,
            clock=clock,
        )
        self._figures = KpiDesk(site, factory, self._say_figures, clock=clock, metrics=metrics)
        self._bus = self._new_bus(address)
        self._sparkplug = self._new_sparkplug(address) if site.sparkplug.enabled else None

    def _new_alarms(self, ending: Callable[[], Mapping[str, float]]) -> AlarmWatch:
        return AlarmWatch(
            self._factory,
            self._topics,
            self._publish,
            boot_id=self._boot_id,
            clock=self._clock,
            metrics=self._metrics,
            stations=lambda: {node: online for node, (online, _) in self._stations.items()},
            mes_online=lambda: self._mes.online if self._site.mes.enabled else None,
            refused=lambda: self._settling.rejected + self._mes.rejected,
            overdue=lambda: self._reports.overdue,
            ending=ending,
            unanswered=self._route.unanswered,
            violation=self._settling.violation,
        )

    def _new_sparkplug(self, address: BrokerAddress) -> SparkplugDesk:
        return SparkplugDesk(
            self._site,
            self._factory,
            self._lease,
            self._topics,
            address,
            stations=lambda: {node: online for node, (online, _) in self._stations.items()},
            clock=self._clock,
            metrics=self._metrics,
            violation=self._settling.violation,
        )

    def _new_bus(self, address: BrokerAddress) -> BusClient:
        return BusClient(
            address,
            self._topics,
            LINE_NODE,
            self._boot_id,
            subscriptions=[
                self._topics.every_event,
                self._topics.every_online,
                self._topics.every_birth,
                *self._alarms.subscriptions,
                *([*self._mes.subscriptions, *self._route.subscriptions] if self._site.mes.enabled else ()),
            ],
            next_session=self._next_session,
            on_connected=self._on_connected,
            on_message=self._on_message,
            clock=self._clock,
            metrics=self._metrics,
            show_cut=True,
        )

    async def run(self, stop: asyncio.Event, ready: Callable[[], None], notary: Notary | None) -> None:
        """Serve until `stop` or until the lease is lost."""
        over, acked, disconnect = self._over, asyncio.Event(), asyncio.Event()
        self._ready = ready
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._bus.run(disconnect), name="bus")
            tasks.create_task(self._lease.keep(over), name="lease")
            tasks.create_task(self._keep_books(over), name="books")
            tasks.create_task(self._watch(over), name="watch")
            tasks.create_task(self._keep_stock(over), name="stock")
            tasks.create_task(self._figures.run(over), name="kpi")
            tasks.create_task(self._reports.run(over), name="reports")
            tasks.create_task(self._alarms.run(over), name="alarms")
            if notary is not None:
                tasks.create_task(notary.run(over), name="notary")
            if self._site.mes.enabled:
                tasks.create_task(self._mes.run(over), name="mes")
                tasks.create_task(self._route.run(over), name="route checks")
                tasks.create_task(self._reconciler.run(over), name="reconcile")
            if self._site.mes.enabled or self._sparkplug is not None:
                tasks.create_task(self._stock.run(over), name="mes stock")
            if self._sparkplug is not None:
                tasks.create_task(self._sparkplug.run(over), name="sparkplug")
            committing = tasks.create_task(self._settling.commit(over), name="commit")
            acknowledging = tasks.create_task(self._settling.acknowledge(acked), name="acknowledge")
            await either(stop, over)
            over.set()
            await committing
            acked.set()
            await acknowledging
            disconnect.set()

    # ---- to the line ----

    async def _next_session(self) -> int | None:
        if not await self._lease.renew(self._over):
            return None  # the new owner has the name on the bus
        self._sessions += 1
        return self._sessions

    async def _publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish as the owner of the line; raises ServiceError when that, or the broker, is not certain."""
        self._lease.check()
        await self._bus.publish(topic, payload, retain=retain)

    async def _on_connected(self, session: int) -> None:
        birth = self._envelope(
            Birth,
            "birth/1.0",
            session=session,
            sw_version=__version__,
            model="supervisor",
            epoch=self._epoch,
            contract=contract.told(),
        )
        await self._publish(self._topics.birth(LINE_NODE), msgspec.json.encode(birth), retain=True)
        self._mes.connected()
        self._stock.connected()
        self._alarms.connected()
        self._said.clear()  # a broker that was started anew has forgotten everything
        await self._say()
        self._ready()
        self._ready = lambda: None

    async def _send_ack(self, ack: Ack) -> None:
        await self._publish(self._topics.ack(ack.node_id), msgspec.json.encode(ack))

    async def _say(self) -> None:
        """Publish jobs and line where they differ from what was said last; nothing before the books were read."""
        if self._books is None:
            return
        jobs, (units, passed, failed) = self._books
        stations = {node: online for node, (online, _) in sorted(self._stations.items())}
        await self._retain(self._topics.job, JobState, "job/1.0", jobs=jobs, first_articles=self._not_open)
        await self._retain(
            self._topics.line_state,
            LineState,
            "line/1.0",
            stations=stations,
            units=units,
            passed=passed,
            failed=failed,
        )

    async def _say_figures(self, window: str, content: dict[str, object], /, *, keep: bool) -> bool:
        if self._bus.connected and keep:
            await self._retain(self._topics.kpi(window), Kpi, "kpi/1.0", **content)
        elif self._bus.connected:  # of a window that ended: it does not take the place of the present one
            document = self._envelope(Kpi, "kpi/1.0", epoch=self._epoch, **content)
            await self._publish(self._topics.kpi(window), msgspec.json.encode(document))
        return self._bus.connected

    async def _retain(self, topic: str, kind: Callable[..., Message], schema: str, **content: object) -> None:
        if self._said.get(topic) == content:
            return
        document = self._envelope(kind, schema, epoch=self._epoch, **content)
        await self._publish(topic, msgspec.json.encode(document), retain=True)
        self._said[topic] = content

    def _envelope(self, kind: Callable[..., T], schema: str, **fields: object) -> T:
        now = self._clock.now()
        return kind(
            schema=schema, id=uuid7(now), ts=utc_ms_text(now), node_id=LINE_NODE, boot_id=self._boot_id, **fields
        )

    # ---- from the line ----

    async def _on_message(self, message: Inbound) -> None:
        try:
            place = self._topics.parse(message.topic)
        except WireError as error:
            self._settling.violation("", "topic", error=error)
            return
        if self._site.mes.enabled and await self._route.hear(place, message.payload, retained=message.retained):
            return
        if message.cut:
            refused = UnheardError("too_big", f"{len(message.payload) + message.cut} bytes", where=place.node)
            await self._settling.refuse(place.node, place.name, message.payload, refused.reason, refused)
            return
        if await self._alarms.hear(place, message.payload, retained=message.retained):
            return
        if place.node.startswith("_"):  # our own word, or the MES's
            if self._site.mes.enabled:
                await self._mes.hear(place, message.payload, retained=message.retained)
            return
        if place.kind == "evt":
            await self._settling.receive(place.node, place.name, message.payload)
        elif not message.payload:
            self._stations.pop(place.node, None)  # decommissioned: its retained documents were taken back
            self._alarms.forget(place.node)
        else:
            await self._hear(place.node, place.name, message.payload)

    async def _hear(self, node: str, name: str, payload: bytes) -> None:
        """Note what a station says of itself."""
        try:
            if name == "online":
                said = read_online(node, payload)
                if node not in self._stations and len(self._stations) >= MOST_NODES:
                    raise UnheardError("many", f"{MOST_NODES} nodes are known already", where=node)
                self._note_online(node, said)
            else:
                birth = read_birth(node, payload)
                log.info("station.birth", station=node, session=birth.session, sw_version=birth.sw_version)
        except UnheardError as error:
            await self._settling.refuse(node, name, payload, error.reason, error)

    def _note_online(self, node: str, said: Online) -> None:
        before, session = self._stations.get(node, (False, 0))
        if not said.online and said.session < session:
            return  # the will of a connection that was replaced
        self._stations[node] = (said.online, said.session)
        if said.online != before:
            log.info("station.online" if said.online else "station.offline", station=node, session=said.session)

    # ---- books and gauges ----

    async def _keep_books(self, over: asyncio.Event) -> None:
        """Read jobs, counts and balance from the database again and again; publish what changed."""
        while True:
            began_s = self._clock.monotonic()
            try:
                await self._read_books()
                if self._bus.connected:
                    await self._say()
            except ServiceError as error:  # database or broker away: the next round says it
                log.warning("books.not_said", error=error)
            took_s = self._clock.monotonic() - began_s
            if await pause(self._clock, max(_BOOKS_S, _BOOKS_SHARE * took_s), over):
                return

    async def _read_books(self) -> None:
        jobs = await asyncio.to_thread(self._factory.jobs, self._site.line)
        self._not_open = await asyncio.to_thread(not_open, self._factory.figures, self._site.gate, jobs)
        ours = {job.job_order_id for job in jobs}
        rows = [row for row in await asyncio.to_thread(self._factory.unit_counts) if row.job_order_id in ours]
        counts = (sum(r.units for r in rows), sum(r.final_pass for r in rows), sum(r.final_fail for r in rows))
        self._books = ([job for job in jobs if job.dispatch_status not in _ENDED], counts)
        for verdict, number in zip(("units", "passed", "failed"), counts, strict=True):
            self._metrics.set(series.LINE_UNITS, number, verdict=verdict)
        for row in await asyncio.to_thread(self._factory.balance):
            for state in PackageState:
                labels = {"sku": row.sku, "region": row.region, "smdp": row.smdp_oid, "state": state}
                self._metrics.set(series.PACKAGES, getattr(row, state.lower()), **labels)
        since, now = await asyncio.to_thread(self._factory.oldest_open), self._clock.now()
        for state in OPEN_STATES:
            age_s = (now - parse_utc(since[state])).total_seconds() if state in since else 0.0
            self._metrics.set(series.OPEN_OLDEST_SECONDS, max(0.0, age_s), state=state)

    async def _keep_stock(self, over: asyncio.Event) -> None:
        """Count again and again how far the packages go; slowly, for every available one is read."""
        while True:
            began_s = self._clock.monotonic()
            try:
                levels = await asyncio.to_thread(self._factory.stock_levels, self._clock.now())
            except ServiceError as error:  # the next round says it
                log.warning("stock.not_counted", error=error)
                levels = []
            self._alarms.note_stock(levels, self._site.store.low_stock_hours)
            for level in levels:
                product = {"sku": level.sku, "region": level.region}
                low = level.low(self._site.store.low_stock_hours)
                self._metrics.set(series.COVERAGE_CHIPS, level.chips, **product)
                self._metrics.set(series.COVERAGE_HOURS, math.nan if level.hours is None else level.hours, **product)
                self._metrics.set(series.LOW_STOCK, low, **product)
                if low and (level.sku, level.region) not in self._low:
                    log.warning("stock.low", **product, chips=level.chips, hours=level.hours)
                change = self._low.add if low else self._low.discard
                change((level.sku, level.region))
            if await pause(self._clock, max(_STOCK_S, _BOOKS_SHARE * (self._clock.monotonic() - began_s)), over):
                return

    async def _watch(self, over: asyncio.Event) -> None:
        """Keep the gauges that change with time alone."""
        while True:
            self._metrics.set(series.UNACKED_OLDEST_SECONDS, self._settling.oldest_s)
            self._metrics.set(series.STATIONS_ONLINE, sum(online for online, _ in self._stations.values()))
            if await pause(self._clock, _WATCH_S, over):
                return
