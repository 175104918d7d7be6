"""One node's connection to the MQTT broker: it comes back by itself, and says when it is there and when it is not.

A PUBACK proves nothing about the reader (line contract 1.3): what must arrive is acknowledged above this module, and
sent again. So sessions are clean, received messages may be dropped when too many wait, and `publish` fails at once
when there is no connection.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import aiomqtt
import msgspec

from ifpp import metrics as series
from ifpp.bus.topics import Topics
from ifpp.errors import ServiceError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause, utc_ms_text
from ifpp.model.messages import Online

MAX_PAYLOAD = 1024 * 1024
_SHOWN = 1024  # bytes of what is too big
_MAX_WAITING = 5000
_MAX_IN_FLIGHT = 1000
_FAREWELL_S = 1.0
_UNANSWERED_S = 0.01  # a CONNACK that never came leaves a socket to close, and nothing to wait for
_REFUSED = 0x80  # SUBACK return code, MQTT 3.1.1 section 3.9.3
_NODELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)  # 88 ms without, 0.4 ms with

log = get_logger("bus.client")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is; `timeout_s` bounds every single exchange with it, `tls` gives what each connection shows."""

    host: str
    port: int
    timeout_s: float = 5.0
    keepalive_s: int = 15
    retry_first_s: float = 0.2
    retry_last_s: float = 10.0
    tls: Callable[[], ssl.SSLContext] | None = None


@dataclass(frozen=True, slots=True)
class Inbound:
    """One received message; `retained` when the broker kept it from before the subscription.

    `cut`: so many bytes are missing at its end, for a node that wants to see the beginning of what is too big.
    """

    topic: str
    payload: bytes
    retained: bool
    cut: int = 0


class BusClient:
    """Keeps one node connected while `run` runs.

    Each connection: a session number from `next_session`, the will ``online: false`` with that number, all
    subscriptions, ``online: true``, then `on_connected(session)`, which publishes what the node has to say. While
    `next_session` gives None, the node does not connect.
    `on_message` gets every received message in order, one at a time; what it raises ends `run`.
    """

    def __init__(
        self,
        address: BrokerAddress,
        topics: Topics,
        node_id: str,
        boot_id: str,
        *,
        subscriptions: Sequence[str],
        next_session: Callable[[], Awaitable[int | None]],
        on_connected: Callable[[int], Awaitable[None]],
        on_message: Callable[[Inbound], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        show_cut: bool = False,
    ) -> None:
        self._show_cut = show_cut
        self._address = address
        self._topics = topics
        self._node_id = node_id
        self._boot_id = boot_id
        self._subscriptions = list(subscriptions)
        self._next_session = next_session
        self._on_connected = on_connected
        self._on_message = on_message
        self._clock = clock
        self._metrics = metrics
        self._waiting: asyncio.Queue[Inbound] = asyncio.Queue(_MAX_WAITING)
        self._connection: Connection | None = None
        metrics.set(series.BROKER_CONNECTED, 0, node=node_id)

    @property
    def connected(self) -> bool:
        """Whether `publish` has a connection to try."""
        return self._connection is not None

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Return once the broker has the message (QoS 1: its PUBACK).

        Raises ServiceError (BROKER.UNREACHABLE) when there is no connection, it is lost meanwhile, or the broker
        does not answer in time; the message may have been delivered nevertheless.
        """
        if self._connection is None:
            raise ServiceError("BROKER.UNREACHABLE", "not connected", where=self._place)
        await self._connection.publish(topic, payload, qos=qos, retain=retain)

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set, then say ``online: false`` and disconnect.

        Never raises because of the broker; what the callbacks raise comes out as an ExceptionGroup.
        """
        async with asyncio.TaskGroup() as tasks:
            delivery = tasks.create_task(self._deliver(), name="bus delivery")
            failures = 0
            while not stop.is_set():
                was_up = await self._connect_once(stop)
                failures = 0 if was_up else failures + 1
                if not stop.is_set():
                    await pause(self._clock, self._retry_after_s(failures), stop)
            delivery.cancel()

    @property
    def _place(self) -> str:
        return f"broker {self._address.host}:{self._address.port}"

    def _retry_after_s(self, failures: int) -> float:
        longest = min(self._address.retry_last_s, self._address.retry_first_s * (1 << min(failures, 16)))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - only to keep stations from returning in step

    async def _connect_once(self, stop: asyncio.Event) -> bool:
        """Connect and stay; returns at `stop` or when the connection failed: whether it had been up."""
        session = await self._next_session()
        if session is None:
            return False
        connection = Connection(self._new_client(session), self._place)
        try:
            await connection.open()
        except aiomqtt.MqttError as error:
            log.warning("broker.unreachable", place=self._place, error=error)
            return False
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(connection), name="bus reading")
                greeting = tasks.create_task(self._greet(connection, session), name="bus greeting")
                await stop.wait()
                greeting.cancel()
                reading.cancel()
        except* (aiomqtt.MqttError, ServiceError) as group:
            errors = [error.__cause__ or error for error in group.exceptions]
            log.warning("broker.lost", place=self._place, errors=errors)
        finally:
            was_up = self.connected
            self._connection = None
            self._metrics.set(series.BROKER_CONNECTED, 0, node=self._node_id)
            await connection.close(self._topics.online(self._node_id), self._online(session, online=False))
        return was_up

    async def _greet(self, connection: Connection, session: int) -> None:
        await connection.subscribe(self._subscriptions)
        await connection.publish(
            self._topics.online(self._node_id), self._online(session, online=True), qos=1, retain=True
        )
        self._connection = connection
        self._metrics.set(series.BROKER_CONNECTED, 1, node=self._node_id)
        self._metrics.add(series.BROKER_CONNECTIONS, node=self._node_id)
        log.info("broker.connected", place=self._place, session=session)
        await self._on_connected(session)

    async def _read(self, connection: Connection) -> None:
        """Move messages into the bounded queue; never waits for it, so a lost connection is seen at once."""
        async for inbound in connection.messages():
            size = len(inbound.payload)
            if size > MAX_PAYLOAD:
                self._drop("too_big", inbound.topic)
                if not self._show_cut:
                    continue
                inbound = Inbound(inbound.topic, inbound.payload[:_SHOWN], inbound.retained, size - _SHOWN)  # noqa: PLW2901
            if self._waiting.full():
                self._drop("queue_full", inbound.topic)
            else:
                self._waiting.put_nowait(inbound)

    def _drop(self, reason: str, topic: str) -> None:
        self._metrics.add(series.BROKER_DROPPED, node=self._node_id, reason=reason)
        log.debug("message.dropped", reason=reason, topic=topic)

    async def _deliver(self) -> None:
        while True:
            await self._on_message(await self._waiting.get())

    def _online(self, session: int, *, online: bool) -> bytes:
        document = Online(
            schema="online/1.0",
            node_id=self._node_id,
            online=online,
            session=session,
            boot_id=self._boot_id,
            ts=utc_ms_text(self._clock.now()),
        )
        return msgspec.json.encode(document)

    def _new_client(self, session: int) -> aiomqtt.Client:
        """A fresh client: one whose connect failed or was cancelled cannot be used again."""
        will = aiomqtt.Will(self._topics.online(self._node_id), self._online(session, online=False), qos=1, retain=True)
        client = aiomqtt.Client(
            self._address.host,
            self._address.port,
            identifier=self._topics.client_id(self._node_id),
            will=will,
            clean_session=True,
            timeout=self._address.timeout_s,
            keepalive=self._address.keepalive_s,
            max_inflight_messages=_MAX_IN_FLIGHT,
            socket_options=_NODELAY,
            tls_context=self._address.tls() if self._address.tls else None,
        )
        client.pending_calls_threshold = _MAX_IN_FLIGHT  # many publishes at once are the normal way here
        return client


class Connection:
    """One aiomqtt client from connect to disconnect; maps its errors and outlives its quirks."""

    def __init__(self, client: aiomqtt.Client, place: str) -> None:
        self._client = client
        self._place = place
        self._filters: list[str] = []
        self._lost = asyncio.Event()

    async def open(self) -> None:
        """Connect; raises aiomqtt.MqttError, leaving no socket behind."""
        connecting = asyncio.ensure_future(self._client.__aenter__())
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # A thread opens the socket and cannot be called back: see it through, then close.
            await asyncio.wait({connecting})
            await self.leave(_FAREWELL_S if connecting.exception() is None else _UNANSWERED_S)
            raise
        except aiomqtt.MqttError:
            await self.leave(_UNANSWERED_S)
            raise

    async def subscribe(self, filters: list[str]) -> None:
        """Subscribe at QoS 1; raises ServiceError when the broker grants less than all."""
        self._filters = filters
        if not filters:
            return
        granted = await self._client.subscribe([(one, 1) for one in filters])
        codes = [code if isinstance(code, int) else code.value for code in granted]
        if any(code >= _REFUSED for code in codes):
            raise ServiceError("BROKER.UNREACHABLE", "a subscription was refused", where=self._place)

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield what arrives; raises aiomqtt.MqttError when the connection is lost."""
        try:
            async for message in self._client.messages:
                if isinstance(message.payload, bytes) and self._is_ours(message):
                    yield Inbound(message.topic.value, message.payload, message.retain)
        finally:
            self._lost.set()

    def _is_ours(self, message: aiomqtt.Message) -> bool:
        # amqtt sends retained messages of other clients' subscriptions, too.
        return not message.retain or any(message.topic.matches(one) for one in self._filters)

    async def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        sending = asyncio.ensure_future(self._client.publish(topic, payload, qos, retain))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ServiceError("BROKER.UNREACHABLE", "the connection was lost", where=self._place)
            sending.result()
        except aiomqtt.MqttError as error:
            raise ServiceError("BROKER.UNREACHABLE", f"not published: {error}", where=self._place) from error
        finally:
            sending.cancel()
            lost.cancel()

    async def close(self, topic: str, farewell: bytes) -> None:
        """Publish the farewell, retained, and disconnect; a lost connection is let go. Never raises for the broker."""
        with suppress(aiomqtt.MqttError):
            await self._client.publish(topic, farewell, 1, True, timeout=_FAREWELL_S)
        await self.leave(_FAREWELL_S)

    async def leave(self, timeout_s: float) -> None:
        """Disconnect; never raises for the broker."""
        self._client.timeout = timeout_s
        with suppress(aiomqtt.MqttError):
            await self._client.__aexit__(None, None, None)
