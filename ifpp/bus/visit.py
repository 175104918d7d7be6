"""A short stay on the bus: a person tells one station something and hears its answer. No session, no will, no trace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import uuid4

import aiomqtt
import msgspec

from ifpp.bus.client import BrokerAddress, Connection, Inbound
from ifpp.bus.topics import LINE_NODE, Topics
from ifpp.errors import ServiceError, SettingsError
from ifpp.model.alarms import ActiveAlarms, AlarmAnswer, AlarmCommand
from ifpp.model.messages import Birth, HeadAnswer, HeadCommand, Online

# What goes wrong on a visit is raised; the library would also say it on stderr.
_UNHEARD = logging.getLogger("ifpp.bus.visit.library")
_UNHEARD.addHandler(logging.NullHandler())
_UNHEARD.propagate = False
_FAREWELL_S = 1.0
_RETAINED_S = 2.0  # what the broker has kept comes at once
T = TypeVar("T", Birth, Online, HeadAnswer, ActiveAlarms, AlarmAnswer)


async def tell(
    address: BrokerAddress, topics: Topics, station: str, name: str, command: HeadCommand, wait_s: float
) -> HeadAnswer:
    """Have a station carry out a command on one of its heads; returns its answer.

    Raises ServiceError BROKER.UNREACHABLE, STATION.UNKNOWN, STATION.SILENT (offline, or no answer in `wait_s`), and
    SettingsError HEAD.UNKNOWN.
    """
    answers = topics.answer(station, name)
    async with visit(address, topics.line, [topics.birth(station), topics.online(station), answers]) as here:
        await _meet(here, topics, station, command.head_id)
        await here.publish(topics.command(station, name), msgspec.json.encode(command))
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        while (left_s := end_s - loop.time()) > 0:
            inbound = await here.hear(left_s)
            if inbound is None or inbound.topic != answers:
                continue
            answer = _decoded(inbound, HeadAnswer)
            if answer is not None and answer.request_id == command.request_id:
                return answer
    raise ServiceError("STATION.SILENT", f"no answer in {wait_s:g} s; it may act on it later", where=station)


async def alarms_of(address: BrokerAddress, topics: Topics) -> tuple[ActiveAlarms, bytes]:
    """Return the alarms of the line, and the document as it was said.

    Raises ServiceError BROKER.UNREACHABLE, STATION.UNKNOWN (no supervisor has told any).
    """
    async with visit(address, topics.line, [topics.alarms(LINE_NODE)]) as here:
        inbound = await here.hear(_RETAINED_S)
        found = None if inbound is None else _decoded(inbound, ActiveAlarms)
    if inbound is None or found is None:
        raise ServiceError("STATION.UNKNOWN", "its supervisor has told no alarms", where=LINE_NODE)
    return found, inbound.payload


async def act_on_alarm(address: BrokerAddress, topics: Topics, command: AlarmCommand, wait_s: float) -> AlarmAnswer:
    """Have the supervisor, or through it a station, carry out a person's act; raises ServiceError as `tell`."""
    answers = topics.answer(LINE_NODE, "alarm")
    async with visit(address, topics.line, [answers]) as here:
        await here.publish(topics.command(LINE_NODE, "alarm"), msgspec.json.encode(command))
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        while (left_s := end_s - loop.time()) > 0:
            inbound = await here.hear(left_s)
            answer = None if inbound is None else _decoded(inbound, AlarmAnswer)
            if answer is not None and answer.request_id == command.request_id:
                return answer
    raise ServiceError("STATION.SILENT", f"no answer in {wait_s:g} s; it may act on it later", where=LINE_NODE)


async def _meet(here: Visit, topics: Topics, station: str, head_id: str) -> None:
    """Read what the station said of itself, which the broker keeps; refuse one that is unknown or offline."""
    birth: Birth | None = None
    online: Online | None = None
    while birth is None or online is None:
        inbound = await here.hear(_RETAINED_S)
        if inbound is None:
            raise ServiceError("STATION.UNKNOWN", "nothing is known of it", where=station)
        if inbound.topic == topics.birth(station):
            birth = _decoded(inbound, Birth)
        elif inbound.topic == topics.online(station):
            online = _decoded(inbound, Online)
    if head_id not in birth.heads:
        raise SettingsError("HEAD.UNKNOWN", f"{station} has {', '.join(birth.heads)}", where=head_id)
    if not online.online:
        raise ServiceError("STATION.SILENT", "it is offline", where=station)


def _decoded(inbound: Inbound, kind: type[T]) -> T | None:
    """None for an empty document: the station was taken back. Raises ServiceError."""
    try:
        return msgspec.json.decode(inbound.payload, type=kind) if inbound.payload else None
    except msgspec.MsgspecError as error:
        raise ServiceError("STATION.SILENT", f"what it says cannot be read: {error}", where=inbound.topic) from error


class Visit:
    """The visitor's side of a connection."""

    def __init__(self, connection: Connection, heard: asyncio.Queue[Inbound | None], place: str) -> None:
        self._connection = connection
        self._heard = heard
        self._place = place

    async def publish(self, topic: str, payload: bytes) -> None:
        """Return once the broker has the message; raises ServiceError BROKER.UNREACHABLE."""
        await self._connection.publish(topic, payload, qos=1, retain=False)

    async def hear(self, timeout_s: float) -> Inbound | None:
        """Return the next message, None when there is none in time; raises ServiceError BROKER.UNREACHABLE."""
        try:
            async with asyncio.timeout(timeout_s):
                inbound = await self._heard.get()
        except TimeoutError:
            return None
        if inbound is None:
            raise ServiceError("BROKER.UNREACHABLE", "the connection was lost", where=self._place)
        return inbound


@asynccontextmanager
async def visit(address: BrokerAddress, line: str, subscriptions: Sequence[str]) -> AsyncIterator[Visit]:
    """Be connected and subscribed for the block; raises ServiceError BROKER.UNREACHABLE."""
    place = f"broker {address.host}:{address.port}"
    client = aiomqtt.Client(
        address.host,
        address.port,
        identifier=f"ifpp-{line}-visit-{uuid4().hex[:12]}",
        clean_session=True,
        timeout=address.timeout_s,
        keepalive=address.keepalive_s,
        tls_context=address.tls() if address.tls else None,
        logger=_UNHEARD,
    )
    connection, heard = Connection(client, place), asyncio.Queue[Inbound | None]()
    try:
        await connection.open()
    except aiomqtt.MqttError as error:
        raise ServiceError("BROKER.UNREACHABLE", f"no connection ({error})", where=place) from error
    listening = asyncio.create_task(_listen(connection, heard), name="visit")
    try:
        await connection.subscribe(list(subscriptions))
        yield Visit(connection, heard, place)
    except aiomqtt.MqttError as error:
        raise ServiceError("BROKER.UNREACHABLE", str(error), where=place) from error
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await connection.leave(_FAREWELL_S)


async def _listen(connection: Connection, heard: asyncio.Queue[Inbound | None]) -> None:
    try:
        async for inbound in connection.messages():
            heard.put_nowait(inbound)
    except aiomqtt.MqttError:
        heard.put_nowait(None)
