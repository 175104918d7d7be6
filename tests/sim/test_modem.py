"""The modem emulator by itself: what stands on its line, byte by byte."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ifpp.sim.modem import ModemServer, Personality
from ifpp.sim.slots import Cut, Slot
from tests.sim.bench import new_bench

ISD_R = "A0000005591010FFFFFFFF8900000100"
CCHO = f'AT+CCHO="{ISD_R}"'
GET_EID = "80E2910006BF3E035C015A"
OK, ERROR = b"\r\nOK\r\n", b"\r\nERROR\r\n"
QUIET_S = 0.05


@dataclass
class Stand:
    """A modem with one slot, and the other end of its line."""

    slot: Slot
    server: ModemServer
    line: int

    async def say(self, command: str, *, patience_s: float = 30.0) -> bytes:
        """Send a command and return all that comes until the line is quiet."""
        os.write(self.line, command.encode() + b"\r")
        return await asyncio.to_thread(self._hear, patience_s)

    def _hear(self, patience_s: float) -> bytes:
        heard = b""
        while select.select([self.line], [], [], QUIET_S if heard else patience_s)[0]:
            heard += os.read(self.line, 4096)
        return heard

    async def ready(self) -> None:
        """No echo, reasons in numbers, the SIM powered."""
        for command in ("ATE0", "AT+CMEE=1", "AT+CFUN=0", "AT+CFUN=1"):
            assert (await self.say(command)).endswith(OK)


@asynccontextmanager
async def stand(
    folder: Path,
    personality: str | Personality = "plain",
    *,
    seated: bool = True,
    baud: int = 0,
    cut: Cut | None = None,
) -> AsyncIterator[Stand]:
    slot = Slot("h01")
    server = ModemServer({"h01": slot}, folder, personality, baud=baud)
    await server.start()
    path, _, options = server.urls["h01"].removeprefix("modem:").partition("?")
    assert options.startswith("model=emulator&quirks=/")
    line = os.open(path, os.O_RDWR | os.O_NOCTTY)
    if seated:
        slot.seat(new_bench().card, cut)
    try:
        yield Stand(slot, server, line)
    finally:
        os.close(line)
        server.stop()
        server.stop()
        await asyncio.sleep(0)


def cgla(apdu: str, handle: str = "1") -> str:
    return f'AT+CGLA={handle},{len(apdu)},"{apdu}"'


async def test_a_session_reads_a_chip(tmp_path: Path) -> None:
    async with stand(tmp_path) as s:
        assert await s.say("ATE0") == b"ATE0\r" + OK
        await s.ready()
        assert await s.say(CCHO) == b"\r\n+CCHO: 1\r\n" + OK
        assert await s.say(cgla(GET_EID)) == b'\r\n+CGLA: 4,"6115"\r\n' + OK
        answer = await s.say(cgla("00C0000015"))
        assert answer.startswith(b'\r\n+CGLA: 46,"BF3E125A10')
        assert answer.endswith(b'9000"\r\n' + OK)
        assert await s.say("AT+CCHC=1") == b"\r\n+CCHC\r\n" + OK
        assert await s.say(cgla(GET_EID)) == b"\r\n+CME ERROR: 50\r\n"
        modem = s.server.modems["h01"]
        assert modem.heard > 0
        assert modem.said > 0


async def test_raw_apdus(tmp_path: Path) -> None:
    async with stand(tmp_path, "csim-only") as s:
        await s.ready()
        assert await s.say("AT+CCHO=?") == ERROR
        assert await s.say(CCHO) == ERROR
        assert await s.say('AT+CSIM=10,"0070000001"') == b'\r\n+CSIM: 6,"019000"\r\n' + OK
        assert await s.say('AT+CSIM=12,"0070000001"') == b"\r\n+CME ERROR: 50\r\n"


async def test_errors_have_the_reason_that_was_asked_for(tmp_path: Path) -> None:
    async with stand(tmp_path, seated=False) as s:
        assert await s.say("AT+CMEE?") == b"AT+CMEE?\r\r\n+CMEE: 0\r\n" + OK
        await s.say("ATE0")
        for value, answer in ((0, b"ERROR"), (1, b"+CME ERROR: 10"), (2, b"+CME ERROR: SIM not inserted")):
            assert await s.say(f"AT+CMEE={value}") == OK
            assert await s.say("AT+CPIN?") == b"\r\n" + answer + b"\r\n"
        assert await s.say("AT+FOO") == ERROR


async def test_a_mute_chip_is_a_sim_failure_and_a_removal_is_told_once(tmp_path: Path) -> None:
    async with stand(tmp_path, cut=Cut(3, stays=True)) as s:
        await s.ready()
        assert (await s.say(CCHO)).endswith(OK)
        assert await s.say(cgla(GET_EID)) == b"\r\n+CME ERROR: 13\r\n"
        assert await s.say("AT+CPIN?") == b"\r\n+CME ERROR: 13\r\n"
        await s.ready()
        assert await s.say("AT+CPIN?") == b"\r\n+CPIN: READY\r\n" + OK
        s.slot.unseat()
        s.slot.seat(None)
        assert await s.say("AT+CPIN?") == b"\r\n+CME ERROR: 10\r\n"
        assert await s.say("AT+CPIN?") == b"\r\n+CME ERROR: 13\r\n"


@pytest.mark.parametrize(
    ("personality", "command", "answer"),
    [
        ("echoing", "AT", b"AT\rAT\r" + OK),
        (
            "chatty",
            "AT",
            b'\r\n+CREG: 1,"00A1","01B2C3D4",7\r\n' + OK + b'\r\n+QIND: "csq",21,99\r\n\r\n+CTZV: +04\r\n',
        ),
        ("bare-handle", CCHO, b"\r\n1\r\n" + OK),
        ("quoted-handle", CCHO, b'\r\n+CCHO: "1"\r\n' + OK),
        ("hex-handles", CCHO, b"\r\n000000000385a7c1\r\n" + OK),
        ("slow", "AT+CMEE?", b"\r\n+CMEE: 1\r\n" + OK),
    ],
)
async def test_personalities(tmp_path: Path, personality: str, command: str, answer: bytes) -> None:
    async with stand(tmp_path, personality) as s:
        await s.ready() if personality not in ("chatty", "echoing") else await s.say("ATE0")
        assert await s.say(command) == answer


async def test_a_modem_that_fetches(tmp_path: Path) -> None:
    async with stand(tmp_path, "fetches-61xx") as s:
        await s.ready()
        await s.say(CCHO)
        assert (await s.say(cgla(GET_EID))).startswith(b'\r\n+CGLA: 46,"BF3E125A10')


async def test_the_line_has_the_speed_asked_for(tmp_path: Path) -> None:
    async with stand(tmp_path, baud=9600) as s:
        start_s = time.monotonic()
        answer = await s.say("AT+CMEE?")
        assert answer == b"AT+CMEE?\r\r\n+CMEE: 0\r\n" + OK
        assert time.monotonic() - start_s > (len(answer) + 9) * 10 / 9600


async def test_no_such_personality(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no modem is 'polite'"):
        ModemServer({}, tmp_path, "polite")
