"""A Sparkplug edge node's connection: its own client identifier, its own will, a clean session (3.0.0, chapter 5.4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiomqtt

from ifpp.bus.client import MAX_PAYLOAD, BrokerAddress, Connection, Inbound
from ifpp.errors import ServiceError

_FAREWELL_S = 1.0


class EdgeConnection:
    """What an edge node does with its connection; everything raises ServiceError BROKER.UNREACHABLE once it is lost."""

    def __init__(self, connection: Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe at QoS 1 to all of them."""
        try:
            await self._connection.subscribe(list(filters))
        except aiomqtt.MqttError as error:
            raise self._lost(error) from error

    async def publish(self, topic: str, payload: bytes) -> None:
        """Hand a message over at QoS 0, not retained, as Sparkplug has it for all but the will."""
        await self._connection.publish(topic, payload, qos=0, retain=False)

    async def messages(self) -> AsyncIterator[Inbound]:
        """Yield what arrives; what is longer than a node reads is left out."""
        try:
            async for inbound in self._connection.messages():
                if len(inbound.payload) <= MAX_PAYLOAD:
                    yield inbound
        except aiomqtt.MqttError as error:
            raise self._lost(error) from error

    def _lost(self, error: aiomqtt.MqttError) -> ServiceError:
        return ServiceError("BROKER.UNREACHABLE", f"the connection was lost: {error}", where=self._place)


@asynccontextmanager
async def edge_connection(
    address: BrokerAddress, client_id: str, will: tuple[str, bytes]
) -> AsyncIterator[EdgeConnection]:
    """Be connected for the block, then disconnect, which takes the will back.

    `will`: topic and payload of the node's death, QoS 1, not retained. Raises ServiceError BROKER.UNREACHABLE.
    """
    place = f"broker {address.host}:{address.port}"
    client = aiomqtt.Client(
        address.host,
        address.port,
        identifier=client_id,
        will=aiomqtt.Will(*will, qos=1, retain=False),
        clean_session=True,
        timeout=address.timeout_s,
        keepalive=address.keepalive_s,
        tls_context=address.tls() if address.tls else None,
    )
    connection = Connection(client, place)
    try:
        await connection.open()
    except aiomqtt.MqttError as error:
        raise ServiceError("BROKER.UNREACHABLE", f"no connection ({error})", where=place) from error
    try:
        yield EdgeConnection(connection, place)
    finally:
        await connection.leave(_FAREWELL_S)
