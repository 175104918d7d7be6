"""The line as a Sparkplug B edge node, for SCADA to look at: read-only, off by default ([sparkplug]).

One edge node a line, spoken for by the supervisor that holds the lease, over a connection of its own, whose will is the
node's death. All supervisors of a line have one client identifier there and draw `bdSeq` from one row of the database:
an old owner's connection ends where the new one's begins, and its death, whenever it comes, names a past number.
Nothing that is heard here changes the line: a rebirth is asked for, everything else is refused and counted.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from ifpp import metrics as series
from ifpp.bus.client import BrokerAddress, Inbound
from ifpp.bus.edge import EdgeConnection, edge_connection
from ifpp.bus.sparkplug import NAMESPACE, REBIRTH, EdgeTopics, decode, state_topic
from ifpp.bus.topics import Topics
from ifpp.errors import ServiceError, WireError
from ifpp.line.lease import Lease
from ifpp.line.sparkplug_node import EdgeNode
from ifpp.line.sparkplug_view import LineViews, filters
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause
from ifpp.settings import Site, Sparkplug
from ifpp.store.factory import Factory

_CLIENT = "_sparkplug"  # no station can be called so
_REBIRTH_S = 5.0  # several hosts that miss something ask at once, and again: one rebirth answers all
_LONGEST_COMMAND = 64 * 1024

log = get_logger("line.sparkplug")


class HostState(msgspec.Struct):
    """What a primary host application says of itself on `spBv1.0/STATE/<host>`; `timestamp` in Unix milliseconds."""

    online: bool
    timestamp: int


class HostWatch:
    """Whether the primary host is there, on one connection; without one to wait for, it always is."""

    def __init__(self, *, wanted: bool) -> None:
        self.online = not wanted
        self._said_ms: float = -math.inf

    def hear(self, payload: bytes) -> None:
        """Take what it says, unless it said something later before; raises msgspec.MsgspecError."""
        said = msgspec.json.decode(payload, type=HostState)
        if said.timestamp >= self._said_ms:
            self.online, self._said_ms = said.online, said.timestamp


class SparkplugDesk:
    """Belongs to the event loop of one supervisor, for one epoch. `stations` says who is online."""

    def __init__(
        self,
        site: Site,
        factory: Factory,
        lease: Lease,
        topics: Topics,
        address: BrokerAddress,
        *,
        stations: Callable[[], Mapping[str, bool]],
        clock: Clock,
        metrics: Metrics,
        violation: Callable[..., None],
    ) -> None:
        self._settings: Sparkplug = site.sparkplug
        self._factory = factory
        self._lease = lease
        self._topics = topics
        self._edge = EdgeTopics(f"{site.site}-{site.area}", site.line)
        self._address = address
        self._stations = stations
        self._clock = clock
        self._metrics = metrics
        self._violation = violation
        self._views = LineViews()
        self._host = HostWatch(wanted=True)
        self._asked = False
        self._born_s = -math.inf
        self._wake = asyncio.Event()
        metrics.set(series.SPARKPLUG_BORN, 0)

    async def run(self, over: asyncio.Event) -> None:
        """Be the edge node until `over`; a broker, database or host that is away only delays it."""
        failures = 0
        while not over.is_set():
            failures = 0 if await self._session(over) else failures + 1
            if over.is_set():
                return
            longest = min(self._address.retry_last_s, self._address.retry_first_s * (1 << min(failures, 16)))
            await pause(self._clock, longest * random.uniform(0.5, 1.0), over)  # noqa: S311 - not in step with others

    async def _session(self, over: asyncio.Event) -> bool:
        """Connect and stay until `over`, or until connection or host are lost; returns whether it was born."""
        number = await self._next_number(over)
        if number is None:
            return False
        node = EdgeNode(self._edge, number, self._settings.deadband)
        self._host, self._asked = HostWatch(wanted=bool(self._settings.host)), False
        client_id = self._topics.client_id(_CLIENT)
        try:
            async with edge_connection(self._address, client_id, node.death(self._now_ms())) as connection:
                try:
                    await self._serve(connection, node, over)
                finally:
                    self._metrics.set(series.SPARKPLUG_BORN, 0)
                    if node.born:  # a DISCONNECT takes the will back; on a lost connection the broker says it
                        with suppress(ServiceError):
                            await connection.publish(*node.death(self._now_ms()))
        except* ServiceError as group:
            log.warning("sparkplug.lost", bd_seq=number, errors=list(group.exceptions))
        return node.born

    async def _next_number(self, over: asyncio.Event) -> int | None:
        """Return the number of the next connection; None while the line, or the database, is not ours to use."""
        try:
            if not await self._lease.renew(over):
                return None
            return await asyncio.to_thread(self._factory.edge_numbers.next, self._topics.line, self._clock.now())
        except ServiceError as error:
            log.warning("sparkplug.no_number", error=error)
            return None

    async def _serve(self, connection: EdgeConnection, node: EdgeNode, over: asyncio.Event) -> None:
        host = [state_topic(self._settings.host)] if self._settings.host else []
        commands = [self._edge.node("NCMD"), self._edge.device("DCMD", "+")]
        await connection.subscribe([*commands, *host, *filters(self._topics)])
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(self._hear(connection), name="sparkplug hearing")
            while not await self._pause(over):
                if self._host.online:
                    await self._say(connection, node)
                elif node.born:
                    log.info("sparkplug.host_offline", host=self._settings.host)
                    break  # dies, and waits for the host on the next connection
            hearing.cancel()

    async def _say(self, connection: EdgeConnection, node: EdgeNode) -> None:
        """Tell what has changed, or everything: at first, and when asked, which is not done twice in a few seconds."""
        self._lease.check()
        now_ms, now_s = self._now_ms(), self._clock.monotonic()
        view = self._views.view(self._stations(), now_ms)
        if node.born and self._asked and now_s - self._born_s < _REBIRTH_S:
            return  # data would only widen what the host has missed
        birth = self._asked or not node.born
        for topic, payload in node.birth(view, now_ms) if birth else node.changes(view, now_ms):
            await connection.publish(topic, payload)
        if birth:
            self._asked, self._born_s = False, now_s
            self._metrics.set(series.SPARKPLUG_BORN, 1)

    # ---- what is heard ----

    async def _hear(self, connection: EdgeConnection) -> None:
        async for inbound in connection.messages():
            if inbound.topic.startswith(f"{NAMESPACE}/STATE/"):
                self._hear_host(inbound)
            elif inbound.topic.startswith(f"{NAMESPACE}/"):
                self._hear_command(inbound)
            else:
                self._hear_line(inbound)

    def _hear_host(self, inbound: Inbound) -> None:
        try:
            self._host.hear(inbound.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._refuse("state", error)
        if not self._host.online:
            self._wake.set()

    def _hear_command(self, inbound: Inbound) -> None:
        if inbound.retained:
            return self._refuse("retained", "nobody knows how old it is")
        if len(inbound.payload) > _LONGEST_COMMAND:
            return self._refuse("too_big", f"{len(inbound.payload)} bytes")
        try:
            written = decode(inbound.payload)
        except WireError as error:
            return self._refuse("payload", error)
        for name, value in written:
            if inbound.topic == self._edge.node("NCMD") and name == REBIRTH and value is True:
                self._asked = True
                self._wake.set()
            else:
                self._refuse("write", f"{name[:60]!r} of {inbound.topic[:200]!r}")
        return None

    def _hear_line(self, inbound: Inbound) -> None:
        try:
            place = self._topics.parse(inbound.topic)
            self._views.hear(place, inbound.payload)
        except (WireError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._violation("station", "schema", error=error)

    def _refuse(self, reason: str, why: object) -> None:
        self._metrics.add(series.SPARKPLUG_REFUSED, reason=reason)
        log.debug("sparkplug.refused", reason=reason, why=str(why))

    # ---- time ----

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    async def _pause(self, over: asyncio.Event) -> bool:
        """Wait for the next scan, or until something is urgent; returns whether it is over."""
        waits: set[asyncio.Future[object]] = {
            asyncio.ensure_future(over.wait()),
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._clock.sleep(self._settings.scan_s)),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._wake.clear()
        return over.is_set()
