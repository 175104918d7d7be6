"""Virtual cards in vpcd readers: when they come and go, and what they answer, against a scripted vpcd."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ifpp.sim.euicc.card import ATR
from ifpp.sim.readers import ReaderServer
from ifpp.sim.slots import Cut, Slot
from tests.sim.bench import new_bench

OFF, ON, GET_ATR = b"\x00", b"\x01", b"\x04"
OPEN_CHANNEL = bytes.fromhex("0070000001")
PATIENCE_S = 60.0


class Vpcd:
    """The reader's end: takes one card after another and talks to it."""

    def __init__(self) -> None:
        self._cards: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._card: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def listen(self, port: int = 0) -> int:
        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            await self._cards.put((reader, writer))

        self._server = await asyncio.start_server(arrived, "127.0.0.1", port)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def inserted(self) -> None:
        self._card = await asyncio.wait_for(self._cards.get(), PATIENCE_S)

    @property
    def empty(self) -> bool:
        return self._cards.empty()

    def send(self, payload: bytes) -> None:
        assert self._card is not None
        self._card[1].write(struct.pack(">H", len(payload)) + payload)

    async def ask(self, payload: bytes) -> bytes:
        """Send a command; EOFError when the card leaves instead of answering."""
        self.send(payload)
        assert self._card is not None
        head = await asyncio.wait_for(self._card[0].readexactly(2), PATIENCE_S)
        return await self._card[0].readexactly(struct.unpack(">H", head)[0])

    async def pulled(self) -> bool:
        assert self._card is not None
        try:
            return await asyncio.wait_for(self._card[0].read(1), PATIENCE_S) == b""
        except ConnectionResetError:
            return True

    def die(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def reader(apdu_ms: float = 0.0) -> AsyncIterator[tuple[Slot, Vpcd, int]]:
    vpcd, slot = Vpcd(), Slot("h01", apdu_ms)
    port = await vpcd.listen()
    server = ReaderServer({"h01": slot}, {"h01": ("127.0.0.1", port)}, {"h01": "Reader 00 00"})
    assert server.urls == {"h01": "pcsc:Reader 00 00"}
    await server.start()
    try:
        yield slot, vpcd, port
    finally:
        server.stop()
        vpcd.die()
        await asyncio.sleep(0.02)


async def test_a_card_is_there_from_seating_to_removal() -> None:
    async with reader() as (slot, vpcd, _):
        await asyncio.sleep(0.05)
        assert vpcd.empty
        for _round in range(2):
            slot.seat(new_bench().card)
            await vpcd.inserted()
            assert await vpcd.ask(GET_ATR) == ATR
            vpcd.send(ON)
            assert (await vpcd.ask(OPEN_CHANNEL))[-2:] == b"\x90\x00"
            slot.unseat()
            assert await vpcd.pulled()


async def test_power_off_makes_the_chip_forget_its_channels() -> None:
    async with reader() as (slot, vpcd, _):
        slot.seat(new_bench().card)
        await vpcd.inserted()
        for _round in range(2):
            vpcd.send(ON)
            assert await vpcd.ask(OPEN_CHANNEL) == b"\x01\x90\x00"
            vpcd.send(OFF)


async def test_a_mute_chip_shows_an_atr_that_is_none() -> None:
    async with reader() as (slot, vpcd, _):
        slot.seat(None)
        await vpcd.inserted()
        assert await vpcd.ask(GET_ATR) == b"\xff"


async def test_a_pulled_card_answers_nothing_and_a_cut_one_a_single_byte() -> None:
    async with reader() as (slot, vpcd, _):
        slot.seat(new_bench().card, Cut(1, stays=True))
        await vpcd.inserted()
        vpcd.send(ON)
        assert await vpcd.ask(OPEN_CHANNEL) == b"\x00"
        assert await vpcd.ask(GET_ATR) == ATR
        slot.plan(Cut(1))
        vpcd.send(OPEN_CHANNEL)
        assert await vpcd.pulled()
        assert not slot.seated


async def test_a_card_waits_for_a_pcscd_that_is_started_anew() -> None:
    async with reader() as (slot, vpcd, port):
        slot.seat(new_bench().card)
        await vpcd.inserted()
        vpcd.die()
        await asyncio.sleep(0.15)
        await vpcd.listen(port)
        await vpcd.inserted()
        assert await vpcd.ask(GET_ATR) == ATR


async def test_an_answer_takes_its_time_and_none_comes_after_a_removal() -> None:
    async with reader(apdu_ms=40) as (slot, vpcd, _):
        slot.seat(new_bench().card)
        await vpcd.inserted()
        vpcd.send(ON)
        start_s = asyncio.get_running_loop().time()
        await vpcd.ask(OPEN_CHANNEL)
        assert asyncio.get_running_loop().time() - start_s >= 0.039
        vpcd.send(OPEN_CHANNEL)
        await asyncio.sleep(0.01)
        slot.unseat()
        assert await vpcd.pulled()
