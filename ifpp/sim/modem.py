"""Cellular modems for virtual eUICCs: one pseudo-terminal per slot that answers AT commands (3GPP TS 27.007).

    AT, ATE0, ATE1, AT+CMEE, AT+CFUN=0|1 (the SIM's power), AT+CPIN?, AT+CCHO, AT+CGLA, AT+CCHC, AT+CSIM, AT+X=?
    AT+CEREG?, AT+CGREG?, AT+CREG?: how the profile that was enabled at the last AT+CFUN=1 stands in the network

Answers are `<CR><LF>line<CR><LF>`. A personality says how a modem differs from a good one, or what goes wrong in it:
every second load, from the first on, meets the fault of `reset-in-mid-load` and `hang`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import tty
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ifpp.sim.slots import Slot

_MODEL = "emulator"
_MODELS = f"[models.{_MODEL}]\nready_s = 1.0\n"
_TEXTS = {10: "SIM not inserted", 13: "SIM failure", 50: "Incorrect parameters"}
_NO_SIM, _SIM_FAILURE, _BAD_PARAMETERS = _TEXTS
_CHATTER = ('+CREG: 1,"00A1","01B2C3D4",7', "RING", '+QIND: "csq",21,99', "+CTZV: +04")
_STORE_DATA, _GET_RESPONSE = 0xE2, 0xC0
_BPP_TAG = b"\xbf\x36"
_FAULT_AT = 10  # this STORE DATA of a load
_SESSIONS = 19
_FIRST_HEX_HANDLE = 0x385A7C0


@dataclass(frozen=True, slots=True)
class Personality:
    """How a modem behaves.

    `echo`: repeats every command, twice, whatever ATE says; `chatty`: unsolicited lines between all others; `handle`:
    how +CCHO names a session; `csim_only`: knows no other way to the card; `fetches`: does GET RESPONSE itself;
    `chunk`, `think_s`: bytes come in such pieces, answers after such a time; `work_s`: the chip takes that much longer
    for its result; `limit_s`: +CGLA gives up on a chip that takes longer; `fault`: "reset" or "hang"; `hang_s`: for how
    long a hanging modem says nothing; then it answers, late. `network`: "home", "roaming", "denied" or "none".
    """

    echo: bool = False
    chatty: bool = False
    handle: str = "+CCHO: {number}"
    csim_only: bool = False
    fetches: bool = False
    chunk: int = 0
    think_s: float = 0.0
    work_s: float = 0.0
    limit_s: float = float("inf")
    fault: str = ""
    hang_s: float = 3.0
    network: str = "home"


_NO_NETWORK = 0
_NETWORKS = {"home": 1, "none": 2, "denied": 3, "roaming": 5}
PERSONALITIES = {
    "plain": Personality(),
    "echoing": Personality(echo=True),
    "chatty": Personality(chatty=True),
    "bare-handle": Personality(handle="{number}"),
    "quoted-handle": Personality(handle='+CCHO: "{number}"'),
    "hex-handles": Personality(handle="{number:016x}"),
    "csim-only": Personality(csim_only=True),
    "fetches-61xx": Personality(fetches=True),
    "slow": Personality(chunk=7, think_s=0.002),
    "limit-300ms": Personality(work_s=0.4, limit_s=0.3),
    "reset-in-mid-load": Personality(fault="reset"),
    "hang": Personality(fault="hang"),
    "no-coverage": Personality(network="none"),
    "denied": Personality(network="denied"),
}


class RefusedError(Exception):
    """The modem answers +CME ERROR `number`, or ERROR for 0."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        super().__init__(number)


class ModemServer:
    """A modem for every slot; `urls` maps slot names to port URLs, `modems` to the modems, once started.

    `folder` (a short path) gets a link to every terminal and a file with the modems' model. `baud`: bit/s of the line,
    0 as fast as it goes.
    """

    def __init__(
        self, slots: Mapping[str, Slot], folder: Path, personality: str | Personality = "plain", *, baud: int = 0
    ) -> None:
        if isinstance(personality, str):
            if personality not in PERSONALITIES:
                raise ValueError(f"no modem is {personality!r}, there are {', '.join(PERSONALITIES)}")
            personality = PERSONALITIES[personality]
        self._folder = folder
        self.modems = {name: VirtualModem(slot, personality, baud) for name, slot in slots.items()}
        self.urls: dict[str, str] = {}

    async def start(self) -> None:
        """Open the terminals; raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._folder.resolve()
        models = folder / "modems.toml"
        models.write_text(_MODELS, encoding="utf-8")
        for name, modem in self.modems.items():
            link = folder / f"{name}.tty"
            link.unlink(missing_ok=True)
            link.symlink_to(await modem.start())
            self.urls[name] = f"modem:{link}?model={_MODEL}&quirks={quote(str(models))}"

    def stop(self) -> None:
        """Close the terminals and leave the slots."""
        for modem in self.modems.values():
            modem.close()


class VirtualModem(asyncio.Protocol):
    """One modem with one slot for a SIM; the slot's host. `heard` and `said` count the bytes of its line."""

    def __init__(self, slot: Slot, personality: Personality, baud: int) -> None:
        self._slot = slot
        self._is = personality
        self._byte_s = 10 / baud if baud else 0.0
        self._terminal = -1
        self._in: asyncio.BaseTransport | None = None
        self._out: asyncio.WriteTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._buffer = b""
        self._commands: asyncio.Queue[str] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._sessions: dict[str, int] = {}  # handle -> logical channel
        self._opened = 0
        self._powered = True
        self._subscribed = False  # a profile was enabled when the SIM was powered
        self._mute = False  # the SIM fell silent and was not reset since
        self._echo = True
        self._reasons = 0
        self._block = 0  # of the load that is running, 0 for none
        self._loads = 0
        self.heard = 0
        self.said = 0
        self._handlers: list[tuple[re.Pattern[str], Callable[..., Awaitable[list[str]]]]] = [
            (re.compile(r"AT(?:E([01]))?"), self._set_echo),
            (re.compile(r"AT\+CMEE(?:\?|=([012]))"), self._set_reasons),
            (re.compile(r"AT\+CFUN=([01])"), self._set_power),
            (re.compile(r"AT\+CPIN\?"), self._pin),
            (re.compile(r"AT\+(CEREG|CGREG|CREG)\?"), self._network),
            (re.compile(r'AT\+CSIM=(\d+),"?([0-9A-Fa-f]+)"?'), self._csim),
            (re.compile(r"AT\+CSIM=\?"), self._test),
        ]
        if not personality.csim_only:
            self._handlers += [
                (re.compile(r"AT\+(?:CCHO|CGLA|CCHC)=\?"), self._test),
                (re.compile(r'AT\+CCHO="?([0-9A-Fa-f]+)"?'), self._open_session),
                (re.compile(r'AT\+CGLA=([0-9a-f]+),(\d+),"?([0-9A-Fa-f]+)"?'), self._cgla),
                (re.compile(r"AT\+CCHC=([0-9a-f]+)"), self._close_session),
            ]

    async def start(self) -> str:
        """Open a terminal and return its path."""
        ours, self._terminal = pty.openpty()  # kept open: the modem stays while nobody talks to it
        tty.setraw(self._terminal)
        loop = asyncio.get_running_loop()
        self._out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(ours), "wb", 0))
        self._in, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(ours, "rb", 0))
        self._task = asyncio.create_task(self._run(), name=f"modem {self._slot.name}")
        self._slot.connected(self)
        return os.ttyname(self._terminal)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
            for transport in (self._in, self._out):
                if transport is not None:
                    transport.close()
            os.close(self._terminal)
            self._slot.disconnected(self)

    # the slot's host ------------------------------------------------------------------------------------------------

    def seating_changed(self) -> None:
        self._sessions.clear()
        self._block = 0
        if self._is.chatty and self._out is not None and not self._slot.seated:
            self._out.write(b"\r\n+CPIN: NOT INSERTED\r\n")

    def chip_gone(self) -> None:
        self._gone.set()

    # the line -------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)
        *commands, self._buffer = (self._buffer + data).split(b"\r")
        for command in commands:
            self._commands.put_nowait(command.decode("latin-1").strip())

    async def _run(self) -> None:
        while True:
            command = await self._commands.get()
            await asyncio.sleep(self._is.think_s + self._byte_s * (len(command) + 1))
            if self._echo or self._is.echo:
                await self._say(f"{command}\r" * (2 if self._is.echo else 1))
            try:
                lines = await self._answer(command)
            except _RestartError:
                continue
            await self._tell(lines)

    async def _answer(self, command: str) -> list[str]:
        for pattern, handler in self._handlers:
            if match := pattern.fullmatch(command):
                try:
                    return [*await handler(*match.groups()), "OK"]
                except RefusedError as refused:
                    return [self._reason(refused.number)]
        return ["ERROR"]

    def _reason(self, number: int) -> str:
        if not self._reasons or not number:
            return "ERROR"
        return f"+CME ERROR: {number if self._reasons == 1 else _TEXTS[number]}"

    async def _tell(self, lines: list[str]) -> None:
        if self._is.chatty:
            before = [(urc, line) for urc, line in zip(_CHATTER, lines, strict=False)]
            lines = [line for pair in before for line in pair] + list(_CHATTER[2:])
        await self._say("".join(f"\r\n{line}\r\n" for line in lines))

    async def _say(self, text: str) -> None:
        data = text.encode("latin-1")
        self.said += len(data)
        chunk = self._is.chunk or (16 if self._byte_s else len(data))
        for at in range(0, len(data), chunk):
            piece = data[at : at + chunk]
            if self._out is not None:
                self._out.write(piece)
            if chunk < len(data):
                await asyncio.sleep(self._byte_s * len(piece))

    # the modem ------------------------------------------------------------------------------------------------------

    async def _set_echo(self, value: str | None) -> list[str]:
        self._echo = self._echo if value is None else value == "1"
        return []

    async def _set_reasons(self, value: str | None) -> list[str]:
        if value is None:
            return [f"+CMEE: {self._reasons}"]
        self._reasons = int(value)
        return []

    async def _set_power(self, value: str) -> list[str]:
        self._powered, self._mute = value == "1", False
        self._sessions.clear()
        self._block = 0
        self._slot.control(int(value))
        self._subscribed = value == "1" and self._slot.subscribed
        return []

    async def _network(self, name: str) -> list[str]:
        stands = _NETWORKS[self._is.network] if self._powered and self._subscribed else _NO_NETWORK
        return [f"+{name}: 0,{stands}"]

    async def _pin(self) -> list[str]:
        if not self._powered:
            raise RefusedError(_SIM_FAILURE)
        if self._slot.is_empty():
            raise RefusedError(_NO_SIM)
        if self._mute or not self._slot.control(4):
            raise RefusedError(_SIM_FAILURE)
        return ["+CPIN: READY"]

    async def _test(self) -> list[str]:
        return []

    async def _open_session(self, aid: str) -> list[str]:
        answer = await self._exchange(bytes.fromhex("0070000001"))
        if len(answer) != 3 or answer[1:] != b"\x90\x00":
            raise RefusedError(_SIM_FAILURE)
        channel = answer[0]
        name = bytes.fromhex(aid)
        answer = await self._exchange(_on(channel, bytes((0x00, 0xA4, 0x04, 0x00, len(name))) + name))
        if answer[-2:-1] not in (b"\x90", b"\x61"):
            await self._exchange(bytes((0x00, 0x70, 0x80, channel)))
            raise RefusedError(_SIM_FAILURE)
        number = 1 + self._opened % _SESSIONS
        self._opened += 1
        if "016x" in self._is.handle:
            number += _FIRST_HEX_HANDLE
        handle = self._is.handle.format(number=number)
        self._sessions[re.sub(r'\+CCHO: |"', "", handle)] = channel
        return [handle]

    async def _close_session(self, handle: str) -> list[str]:
        channel = self._sessions.pop(handle, None)
        if channel is None:
            raise RefusedError(_BAD_PARAMETERS)
        await self._exchange(bytes((0x00, 0x70, 0x80, channel)))
        return ["+CCHC"]

    async def _cgla(self, handle: str, length: str, text: str) -> list[str]:
        if handle not in self._sessions:
            raise RefusedError(_BAD_PARAMETERS)
        apdu = _on(self._sessions[handle], _apdu(length, text))
        return [_card_line("+CGLA", await self._carry(apdu, self._is.limit_s))]

    async def _csim(self, length: str, text: str) -> list[str]:
        return [_card_line("+CSIM", await self._carry(_apdu(length, text), float("inf")))]

    async def _carry(self, apdu: bytes, limit_s: float) -> bytes:
        """One APDU of the station's, with what the modem does on its own."""
        if apdu[1] == _STORE_DATA and (self._block or apdu[5:7] == _BPP_TAG):
            self._loads += not self._block
            self._block += 1
            if self._block == _FAULT_AT and self._loads % 2:
                await self._fail()
        answer = await self._exchange(apdu)
        if self._block and answer[-2:-1] == b"\x61":
            await self._sign(limit_s)
        while self._is.fetches and answer[-2:-1] == b"\x61":
            rest = await self._exchange(bytes((apdu[0] & 0x7F, _GET_RESPONSE, 0, 0, answer[-1])))
            answer = answer[:-2] + rest
        return answer

    async def _sign(self, limit_s: float) -> None:
        """Let the chip take its time for the result, which ends the load."""
        self._block = 0
        gone = await self._gone_within(min(self._is.work_s, limit_s))
        if gone or self._is.work_s > limit_s:
            raise RefusedError(_NO_SIM if gone else 0)

    async def _fail(self) -> None:
        """What the personality has go wrong in a load."""
        if self._is.fault == "hang":
            await asyncio.sleep(self._is.hang_s)
        elif self._is.fault == "reset":
            for code in (0, 1):
                await self._set_power(str(code))
            self._echo, self._reasons = True, 0
            await self._say("\r\nRDY\r\n")
            raise _RestartError

    async def _exchange(self, apdu: bytes) -> bytes:
        """Hand an APDU to the card; RefusedError when it is gone or mute."""
        answer = self._slot.transmit(apdu) if self._powered else b""
        self._mute = not answer
        if not answer or await self._gone_within(self._slot.apdu_s):
            raise RefusedError(_SIM_FAILURE if self._slot.seated else _NO_SIM)
        return answer

    async def _gone_within(self, time_s: float) -> bool:
        """Wait; True at once when the card is taken out meanwhile."""
        self._gone.clear()
        if not time_s:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), time_s)
        return self._gone.is_set()


class _RestartError(Exception):
    """The modem starts anew: the command under way is never answered."""


def _on(channel: int, apdu: bytes) -> bytes:
    """Set the logical channel in the class byte (ISO 7816-4 5.4.1)."""
    cla = apdu[0] | channel if channel < 4 else apdu[0] & 0x80 | 0x40 | channel - 4
    return bytes((cla,)) + apdu[1:]


def _apdu(length: str, text: str) -> bytes:
    """Read an APDU; its length counts hex digits."""
    if int(length) != len(text) or len(text) % 2 or len(text) < 8:
        raise RefusedError(_BAD_PARAMETERS)
    return bytes.fromhex(text)


def _card_line(prefix: str, answer: bytes) -> str:
    return f'{prefix}: {2 * len(answer)},"{answer.hex().upper()}"'
