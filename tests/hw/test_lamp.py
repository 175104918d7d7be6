"""The lamp of a head whose reader has none: what it hears, and what happens when it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ifpp.errors import SettingsError, TransportError
from ifpp.hw.lamp import LampLine
from ifpp.hw.port import make_port
from ifpp.model.states import Lamp
from ifpp.sim.lamps import LampServer
from ifpp.sim.slots import Slot


async def shown(slot: Slot, lamp: Lamp) -> None:
    async with asyncio.timeout(60):
        while slot.lamp.name != lamp.name:  # noqa: ASYNC110 - the slot has no event for every lamp
            await asyncio.sleep(0.005)


async def test_a_lamp_shows_and_comes_back_after_a_restart(short_folder: Path) -> None:
    slot = Slot("h01")
    server = LampServer({"h01": slot}, short_folder)
    await server.start()
    line = LampLine(server.urls["h01"])
    for lamp in (Lamp.BUSY, Lamp.PASS):
        await asyncio.to_thread(line.show, lamp)
        await shown(slot, lamp)
    server.stop()
    await asyncio.sleep(0.02)
    with pytest.raises(TransportError) as caught:
        await asyncio.to_thread(line.show, Lamp.OFF)
    assert caught.value.code == "HEAD.LAMP"
    again = LampServer({"h01": slot}, short_folder)
    await again.start()
    await asyncio.to_thread(line.show, Lamp.HOLD)
    await shown(slot, Lamp.HOLD)
    line.close()
    again.stop()


async def test_a_lamp_hangs_up_on_anything_else(short_folder: Path) -> None:
    slot = Slot("h01")
    server = LampServer({"h01": slot}, short_folder)
    await server.start()
    for bad in (b"\x00\x02\xe2\x09", b"\x00\x02\xe0\x01", b"GET "):
        reader, writer = await asyncio.open_unix_connection(server.urls["h01"].removeprefix("unix://"))
        writer.write(bad)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
    assert slot.lamp == 0
    server.stop()


def test_no_lamp_is_no_work() -> None:
    line = LampLine("")
    line.show(Lamp.PASS)
    line.close()


@pytest.mark.parametrize("url", ["unix://relative", "tcp://host", "lamp"])
def test_a_bad_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError):
        LampLine(url)


def test_a_slot_has_its_own_lamp() -> None:
    with pytest.raises(SettingsError):
        make_port("tcp://127.0.0.1:1", "unix:///lamp")
