"""A station and a supervisor of neighbouring versions work together, both ways at once.

Between the station's broker and the line's stands a translator: it takes away whatever the released contract does not
know, as if the sender were of that version, and adds to every object a key nobody knows yet, as if it were newer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from ifpp.bus import contract
from ifpp.bus.broker import free_port, start_demo_broker
from ifpp.model.clock import SystemClock
from ifpp.roles.accounts import take_account
from ifpp.roles.children import Child
from ifpp.roles.factory_floor import FactoryFloor
from ifpp.sim.world import JobPlan, build_world

RELEASED = sorted((Path(__file__).parents[1] / "bus" / "released").glob("*.json"))
TOMORROW = "x_tomorrow"
pytestmark = [pytest.mark.timeout(200), pytest.mark.needs("mosquitto")]


class Plant(FactoryFloor):
    """Stations have a broker of their own."""

    station_port = 0

    async def start(self, name: str) -> Child:
        if name not in self.stations:
            return await super().start(name)
        site = self.folder / "config" / "site.toml"
        other = site.with_name("station-site.toml")
        other.write_text(site.read_text().replace(f"port = {self._broker_port}\n", f"port = {self.station_port}\n"))
        return await self.children.start_ifpp(
            name, "station", "run", str(self.station_file(name)), "--config", str(other)
        )


class Translator:
    """Carries every document from one broker to the other, and back."""

    def __init__(self, released: Path) -> None:
        self._schemas = json.loads(released.read_bytes())["components"]["schemas"]
        self.carried: set[str] = set()

    @asynccontextmanager
    async def between(self, one: int, other: int) -> AsyncIterator[None]:
        async with self._client(one) as first, self._client(other) as second:
            ways = [asyncio.create_task(self._carry(*way)) for way in ((first, second), (second, first))]
            try:
                yield
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)

    def _client(self, port: int) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5)

    async def _carry(self, source: aiomqtt.Client, target: aiomqtt.Client) -> None:
        await source.subscribe("#", options=SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))
        async for message in source.messages:
            topic, payload = str(message.topic), bytes(message.payload)
            await target.publish(topic, self.changed(topic, payload), qos=1, retain=message.retain)

    def changed(self, topic: str, payload: bytes) -> bytes:
        if not payload:
            return payload
        channel = contract.channel(*topic.split("/")[-3:])
        assert channel is not None, topic
        name = channel.document.__name__
        self.carried.add(name)
        return json.dumps(self._object(self._schemas[name], json.loads(payload))).encode()

    def _object(self, schema: dict[str, Any], value: Any) -> Any:
        """What the other version would have said."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rsplit("/", 1)[-1]]
        for choice in schema.get("anyOf", ()):
            if "$ref" in choice and isinstance(value, dict):
                return self._object(choice, value)
            if choice.get("type") == "array" and isinstance(value, list):
                return self._object(choice, value)
        if isinstance(value, dict) and "properties" in schema:
            known = {
                key: self._object(schema["properties"][key], one)
                for key, one in value.items()
                if key in schema["properties"]
            }
            return known | {TOMORROW: {"any": [1]}}
        if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
            return {key: self._object(schema["additionalProperties"], one) for key, one in value.items()}
        if isinstance(value, list) and isinstance(schema.get("items"), dict):
            return [self._object(schema["items"], one) for one in value]
        return value


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
async def test_neighbouring_versions_make_units_together(released: Path, tmp_path: Path) -> None:
    units = 4
    world = build_world(tmp_path / "world", units=units, seed=3, jobs=[JobPlan("JO-1", "TRACKER", "EU", ["st01"])])
    floor, translator = (
        Plant(tmp_path, ["st01"], heads=2, apdu_ms=0, broker=None),
        Translator(released),
    )
    floor.station_port = free_port()
    theirs = await start_demo_broker(tmp_path / "other-broker", floor.station_port, SystemClock())
    try:
        ours = await floor.start_broker()
        async with translator.between(ours.port, floor.station_port):
            await floor.open(world)
            fleet = floor.fleets["st01"]
            await fleet.tell("go")
            assert await asyncio.wait_for(fleet.process.wait(), 120) == 0
            await floor.children.stop(floor.children["st01"])  # which waits for its last acknowledgement
        await floor.write_reports()
    finally:
        await floor.close()
        await theirs.stop()
    figures = take_account(tmp_path, world, ["st01"], station_cpu_s=0, block_size=255)
    assert (figures.passed, figures.clean_to_ship, figures.acked, figures.unaccounted) == (units, units, units, [])
    assert {"Birth", "JobState", "UnitResultEvent", "Ack", "StateChanged", "StationState"} <= translator.carried
