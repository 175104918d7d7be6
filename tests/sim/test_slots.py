"""The tcp:// card port of the virtual slots: frames, waiting, lamps, timing, and every way of losing contact."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ifpp.sim.euicc.card import ATR, BlockLimit
from ifpp.sim.slots import Cut, Lamp, PreciseSelector, Slot, SlotServer, precise_loop
from tests.sim.bench import Bench, SlotClient, Terminal, installed, new_bench, outcome, results, segments

ON, OFF, RESET, GET_ATR = b"\x01", b"\x00", b"\x02", b"\x04"
SEATED_10, EMPTY_10 = b"\xe0\x64", b"\xe1\x64"
ASK_SEATED, ASK_EMPTY = b"\xe0\x00", b"\xe1\x00"
OPEN_CHANNEL = bytes.fromhex("0070000001")


def block(size: int) -> bytes:
    """A first STORE DATA block on channel 1."""
    return bytes((0x81, 0xE2, 0x11, 0x00, size)) + bytes(size)


@dataclass
class Stand:
    """A listening slot, a client on it, and a thread for the client's blocking calls."""

    slot: Slot
    client: SlotClient
    port: int

    async def do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.wait_for(asyncio.to_thread(call, *arguments), 60)

    async def ask(self, payload: bytes) -> bytes:
        reply: bytes = await self.do(self.client.ask, payload)
        return reply

    async def told(self, payload: bytes) -> None:
        """Send what has no reply, and wait until the slot has taken it."""
        await self.do(self.client.send, payload)
        await self.ask(GET_ATR)


@asynccontextmanager
async def stand(apdu_ms: float = 0.0) -> AsyncIterator[Stand]:
    slot = Slot("h01", apdu_ms)
    server = SlotServer({"h01": slot})
    await server.start()
    client = await asyncio.to_thread(SlotClient, server.ports["h01"])
    try:
        yield Stand(slot, client, server.ports["h01"])
    finally:
        client.close()
        server.stop()
        await asyncio.sleep(0)


async def test_an_empty_slot_has_neither_atr_nor_answers() -> None:
    async with stand() as s:
        assert await s.ask(GET_ATR) == b""
        assert await s.ask(OPEN_CHANNEL) == b""
        assert await s.ask(ASK_SEATED) == b"\x00"
        assert await s.ask(ASK_EMPTY) == b"\x01"


async def test_a_chip_answers_once_it_has_power() -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        await s.told(OFF)
        assert await s.ask(OPEN_CHANNEL) == b""
        await s.told(ON)
        assert await s.ask(GET_ATR) == ATR
        assert await s.ask(OPEN_CHANNEL) == bytes.fromhex("019000")
        await s.told(RESET)
        assert await s.ask(OPEN_CHANNEL) == bytes.fromhex("019000"), "a reset closes all channels"


@pytest.mark.parametrize("sw", [0x6700, 0x6601])
async def test_a_block_above_the_limit_is_refused(sw: int) -> None:
    async with stand() as s:
        card = new_bench().card
        card.limit = BlockLimit(100, sw)
        s.slot.seat(card)
        await s.told(ON)
        await s.ask(OPEN_CHANNEL)
        Terminal(card, channel=1).select()
        assert await s.ask(block(101)) == sw.to_bytes(2, "big")
        assert await s.ask(block(100)) == b"\x90\x00"


async def test_a_chip_that_loses_step_is_silent_until_it_is_powered_anew() -> None:
    async with stand() as s:
        card = new_bench().card
        card.limit = BlockLimit(100, 0)
        s.slot.seat(card)
        await s.told(ON)
        await s.ask(OPEN_CHANNEL)
        Terminal(card, channel=1).select()
        s.client.send(block(101))
        s.client.send(OPEN_CHANNEL)
        assert await s.ask(GET_ATR) == ATR, "neither of the two was answered"
        await s.told(ON)
        assert await s.ask(OPEN_CHANNEL) == bytes.fromhex("019000")


async def test_waiting_for_a_chip_ends_when_it_is_seated() -> None:
    async with stand() as s:
        waiting = asyncio.create_task(s.ask(SEATED_10))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        s.slot.seat(new_bench().card)
        assert await waiting == b"\x01"
        waiting = asyncio.create_task(s.ask(EMPTY_10))
        await asyncio.sleep(0.02)
        s.slot.unseat()
        assert await waiting == b"\x01"


async def test_waiting_ends_at_its_deadline() -> None:
    async with stand() as s:
        start = time.monotonic()
        assert await s.ask(b"\xe0\x01") == b"\x00"
        assert time.monotonic() - start > 0.09


async def test_a_quick_change_of_units_does_not_go_unnoticed() -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        assert await s.ask(ASK_SEATED) == b"\x01"
        s.slot.unseat()
        s.slot.seat(new_bench().card)
        assert await s.ask(ASK_EMPTY) == b"\x01"
        assert await s.ask(ASK_EMPTY) == b"\x00", "a removal counts once"
        assert await s.ask(ASK_SEATED) == b"\x01"


@pytest.mark.parametrize("lamp", [Lamp.PASS, Lamp.FAIL, Lamp.RESEAT, Lamp.HOLD])
async def test_the_first_verdict_lamp_is_the_verdict(lamp: Lamp) -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        await s.told(bytes((0xE2, Lamp.BUSY)))
        verdict = asyncio.create_task(s.slot.verdict())
        await asyncio.sleep(0)
        assert not verdict.done()
        await s.told(bytes((0xE2, lamp)))
        await s.told(bytes((0xE2, Lamp.OFF)))
        assert await verdict is lamp
        assert s.slot.lamp is Lamp.OFF


async def test_a_lamp_of_the_unit_before_is_no_verdict() -> None:
    async with stand() as s:
        await s.told(bytes((0xE2, Lamp.PASS)))
        s.slot.seat(new_bench().card)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(s.slot.verdict(), 0.02)


async def test_a_pulled_chip_answers_the_pending_apdu_empty() -> None:
    async with stand(apdu_ms=5_000) as s:
        s.slot.seat(new_bench().card)
        await s.told(ON)
        pending = asyncio.create_task(s.ask(OPEN_CHANNEL))
        await asyncio.sleep(0.05)
        assert not pending.done()
        s.slot.unseat()
        assert await pending == b""
        assert await s.ask(ASK_EMPTY) == b"\x01"


def test_no_answer_leaves_before_the_chip_is_done() -> None:
    apdu_s = 0.0034

    async def measure() -> list[float]:
        async with stand(1000 * apdu_s) as s:
            s.slot.seat(new_bench().card)
            await s.told(ON)

            def run() -> list[float]:
                taken = []
                for _ in range(20):
                    start = time.perf_counter()
                    s.client.ask(bytes.fromhex("0070800300"))
                    taken.append(time.perf_counter() - start)
                return taken

            found: list[float] = await s.do(run)
            return found

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        assert min(runner.run(measure())) > apdu_s - 0.0001


def test_precise_timers_are_not_rounded_to_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def wait(*words: Any) -> tuple[list[int], list[int], list[int]]:
        asked.append(words[3])
        return [], [], []

    monkeypatch.setattr(select, "select", wait)
    with PreciseSelector() as selector:
        assert selector.select(0.0034) == []
    assert asked == [0.0034]


async def test_frames_may_come_in_pieces_or_together() -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        raw = b"\x00\x01" + ON + b"\x00\x01" + GET_ATR + b"\x00\x05" + OPEN_CHANNEL

        def run() -> tuple[bytes, bytes]:
            for at in range(len(raw)):
                s.client._socket.sendall(raw[at : at + 1])
            return s.client.receive(), s.client.receive()

        assert await s.do(run) == (ATR, bytes.fromhex("019000"))
        await s.do(s.client._socket.sendall, raw)
        assert await s.do(lambda: (s.client.receive(), s.client.receive())) == (ATR, bytes.fromhex("019000"))


async def test_the_fixture_reads_the_label_of_the_seated_unit() -> None:
    async with stand() as s:
        assert await s.ask(b"\xe3\x00") == b""
        s.slot.seat(new_bench().card, label="SN1")
        assert await s.ask(b"\xe3\x00") == b"SN1"


@pytest.mark.parametrize("junk", ["", "03", "e3ff", "e209", "010203"])
async def test_what_is_not_of_the_protocol_ends_the_connection(junk: str) -> None:
    async with stand() as s:
        with pytest.raises(ConnectionError):
            await s.ask(bytes.fromhex(junk))


async def test_a_new_connection_takes_the_slot_over() -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        newer = await s.do(SlotClient, s.port)
        assert await s.do(newer.ask, ASK_SEATED) == b"\x01"
        with pytest.raises(ConnectionError):
            await s.ask(ASK_SEATED)
        newer.close()


async def lose_contact(s: Stand, bench: Bench, cut: Cut) -> None:
    """Provision until contact is lost."""
    recipe = bench.recipe()
    s.slot.seat(bench.card, cut)

    def run() -> tuple[bytes, int]:
        s.client.send(ON)
        terminal = Terminal(s.client)
        terminal.ask(recipe.prepare())
        return terminal.load(recipe.bpp())

    assert await s.do(run) == (b"", 0)


async def recover(s: Stand) -> tuple[list[bytes], list[bytes]]:
    """Power up and read what the chip kept: (results, profiles)."""

    def run() -> tuple[list[bytes], list[bytes]]:
        s.client.send(ON)
        terminal = Terminal(s.client)
        return results(terminal), installed(terminal)

    found: tuple[list[bytes], list[bytes]] = await s.do(run)
    return found


async def test_contact_lost_for_one_seating() -> None:
    bench = new_bench()
    async with stand() as s:
        await lose_contact(s, bench, Cut(at=12))
        assert await s.ask(ASK_SEATED) == b"\x00"
        assert await s.ask(GET_ATR) == b""
        s.slot.seat(bench.card)
        kept, profiles = await recover(s)
        assert [outcome(pir) for pir in kept] == [(5, 11)]
        assert profiles == []


async def test_contact_can_be_lost_from_now_on() -> None:
    async with stand() as s:
        s.slot.seat(new_bench().card)
        await s.told(ON)
        for _ in range(3):
            assert await s.ask(OPEN_CHANNEL)
        s.slot.plan(Cut(at=2, stays=True))
        assert s.slot.cut_planned
        assert await s.ask(OPEN_CHANNEL)
        assert await s.ask(OPEN_CHANNEL) == b""
        assert (s.slot.losses, s.slot.cut_planned, s.slot.seated) == (1, False, True)
        s.slot.plan(Cut(at=1))
        s.slot.plan(None)
        await s.told(ON)
        assert await s.ask(OPEN_CHANNEL)


async def test_power_dip_in_the_same_seating() -> None:
    bench = new_bench()
    async with stand() as s:
        await lose_contact(s, bench, Cut(at=12, stays=True))
        assert await s.ask(ASK_SEATED) == b"\x01"
        assert await s.ask(OPEN_CHANNEL) == b"", "mute until the next power-up"
        kept, _ = await recover(s)
        assert [outcome(pir) for pir in kept] == [(5, 11)]


async def test_an_answer_lost_after_the_chip_has_executed_the_last_command() -> None:
    """The host cannot tell, the chip can: the profile is installed."""
    bench = new_bench()
    recipe = bench.recipe()
    probe = Terminal(bench.card)
    last = 2 + len(list(probe.blocks(recipe.prepare()))) + 1
    last += sum(len(list(probe.blocks(segment))) for segment in segments(recipe.bpp()))
    async with stand() as s:
        await lose_contact(s, bench, Cut(at=last, executed=True))
        s.slot.seat(bench.card)
        kept, profiles = await recover(s)
        assert len(kept) == 1
        assert len(profiles) == 1
