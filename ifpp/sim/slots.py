"""Slots for virtual eUICCs behind the tcp:// card port: many in one process, one TCP port on 127.0.0.1 each.

Frames both ways are a 2-byte big-endian length and a payload. From the station:
    1 byte    00 power off, 01 power on, 02 reset (no reply); 04 get ATR (reply: ATR, or empty: no chip, or a mute one)
    2 bytes   E0 tt wait until a chip is seated, at most tt x 100 ms (reply 01 seated, 00 not)
              E1 tt wait until the slot is empty (reply 01 empty, 00 still seated); a removal that nobody has asked
              about yet counts, so a quick robot cannot change units unnoticed
              E2 ll lamp (no reply): 0 off 1 busy 2 pass 3 fail 4 reseat 5 hold
              E3 00 what the fixture's scanner has read from the unit (reply: its serial number, or empty)
    4.. bytes an APDU (reply: response data and SW1 SW2; empty: the chip is gone or mute)
Anything else ends the connection. The newest connection to a slot is the one it serves.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Protocol

from ifpp.sim.euicc import Euicc

_EMPTY_FRAME = b"\x00\x00"
_YES, _NO = b"\x01", b"\x00"
_WAIT_SEATED, _WAIT_EMPTY, _LAMP, _LABEL = 0xE0, 0xE1, 0xE2, 0xE3
_TENTH_S = 0.1
_MIN_APDU = 4


class Lamp(IntEnum):
    """What a head shows; from PASS on it is a verdict."""

    OFF = 0
    BUSY = 1
    PASS = 2
    FAIL = 3
    RESEAT = 4
    HOLD = 5


@dataclass(frozen=True, slots=True)
class Cut:
    """A planned loss of contact at the `at`-th APDU after power-up, counted from 1.

    `executed`: the chip still executes that APDU and only its answer is lost. `stays`: only the power fails; the chip
    stays seated and works again from the next power-up on.
    """

    at: int
    executed: bool = False
    stays: bool = False


class Host(Protocol):
    """Whoever speaks for the station at a slot."""

    def seating_changed(self) -> None:
        """The robot has seated or removed a unit."""

    def chip_gone(self) -> None:
        """The chip of a pending APDU is gone."""

    def close(self) -> None:
        """Leave the slot: another host takes it."""


class Slot:
    """One socket. The robot seats and removes chips and waits for verdicts; a Host speaks for the station."""

    def __init__(self, name: str, apdu_ms: float = 0.0) -> None:
        self.name = name
        self.apdu_s = apdu_ms / 1000
        self.lamp = Lamp.OFF
        self.label = ""  # of the unit that was seated last
        self.losses = 0  # how often contact was lost over an APDU
        self.tape: list[tuple[bytes, bytes]] | None = None  # EID and command of every APDU, when wanted
        self._powered_s = self._shown_s = 0.0
        self._host: Host | None = None
        self._card: Euicc | None = None
        self._seated = False
        self._cut: Cut | None = None
        self._since_power_up = 0
        self._removal_unnoticed = False
        self._verdict: asyncio.Future[Lamp] | None = None

    # the robot's side -----------------------------------------------------------------------------------------------

    @property
    def seated(self) -> bool:
        return self._seated

    def seat(self, card: Euicc | None, cut: Cut | None = None, label: str = "") -> None:
        """Put a unit into the slot; `card` None is a unit whose chip never answers, `label` what is printed on it."""
        self._card = card
        self.label = label
        self._seated = True
        self._cut = cut
        self._since_power_up = 0
        self._powered_s = self._shown_s = 0.0
        self._verdict = asyncio.get_running_loop().create_future()
        if self._host is not None:
            self._host.seating_changed()

    def unseat(self) -> None:
        """Take the unit out; a pending APDU is answered empty at once."""
        if self._card is not None:
            self._card.power_off()
        self._card = None
        self._seated = False
        self._removal_unnoticed = True
        if self._host is not None:
            self._host.chip_gone()
            self._host.seating_changed()

    @property
    def busy_s(self) -> float:
        """Time from the first power-up of the seated unit to its verdict."""
        return self._shown_s - self._powered_s

    @property
    def cut_planned(self) -> bool:
        return self._cut is not None

    def plan(self, cut: Cut | None) -> None:
        """Lose contact over an APDU of the seated unit, counted from now (a power-up begins anew); None: do not."""
        self._cut = cut and replace(cut, at=self._since_power_up + cut.at)

    async def verdict(self) -> Lamp:
        """Wait for the first verdict lamp since the unit was seated.

        OFF when the unit was lost and the head waits for one: a station that was started anew knows nothing of it.
        """
        if self._verdict is None:
            raise RuntimeError(f"slot {self.name}: nothing was seated")
        return await asyncio.shield(self._verdict)

    # the station's side ---------------------------------------------------------------------------------------------

    def connected(self, host: Host) -> None:
        if self._host is not None:
            self._host.close()
        self._host = host

    def hang_up(self) -> None:
        """End the station's connection."""
        if self._host is not None:
            self._host.close()

    def disconnected(self, host: Host) -> None:
        if self._host is host:
            self._host = None

    def control(self, code: int) -> bytes | None:
        """Power off, on, reset: None; get ATR: the reply. Raises KeyError for any other code."""
        if code == 0x04:
            return b"" if self._card is None else self._card.atr
        power = {0x00: False, 0x01: True, 0x02: True}[code]
        self._since_power_up = 0
        if power:
            self._removal_unnoticed = False
            self._powered_s = self._powered_s or time.monotonic()
        if self._card is not None:
            self._card.reset() if power else self._card.power_off()
        return None

    def is_seated(self) -> bool:
        self._removal_unnoticed = self._removal_unnoticed and not self._seated
        return self._seated

    @property
    def subscribed(self) -> bool:
        """Whether the chip in it has an enabled profile."""
        return self._card is not None and any(profile.enabled for profile in self._card.nvm.profiles)

    def is_empty(self) -> bool:
        """Whether the slot is, or since the last question was, empty."""
        empty = not self._seated or self._removal_unnoticed
        self._removal_unnoticed = False
        return empty

    def show(self, lamp: Lamp) -> None:
        self.lamp = lamp
        lost = lamp is Lamp.OFF and not self._seated
        if (lamp >= Lamp.PASS or lost) and self._verdict is not None and not self._verdict.done():
            self._shown_s = time.monotonic()
            self._powered_s = self._powered_s or self._shown_s
            self._verdict.set_result(lamp)

    def transmit(self, apdu: bytes) -> bytes:
        """Hand one APDU to the chip; empty when there is none, or when contact is lost over it."""
        card = self._card
        if card is None:
            return b""
        self._since_power_up += 1
        if self.tape is not None:
            self.tape.append((card.chip.eid16, apdu))
        if self._cut is not None and self._since_power_up == self._cut.at:
            return self._lose_contact(card, self._cut, apdu)
        return card.process(apdu)

    @property
    def silent(self) -> bool:
        """Whether the seated chip has stopped answering: a reader waits for it in vain."""
        return self._card is not None and self._card.silent

    def _lose_contact(self, card: Euicc, cut: Cut, apdu: bytes) -> bytes:
        self._cut = None
        self.losses += 1
        if cut.executed:
            card.process(apdu)
        card.power_off()
        if not cut.stays:
            self.unseat()
        return b""


class SlotProtocol(asyncio.Protocol):
    """One station connection to a slot: frames in, replies out at arrival plus the slot's APDU time."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._pending: asyncio.TimerHandle | None = None  # an APDU's answer that has not left yet
        self._wait: tuple[int, asyncio.TimerHandle] | None = None  # E0 or E1 with its deadline

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is expected")
        stream = transport.get_extra_info("socket")
        if stream.family != socket.AF_UNIX:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self._slot.connected(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._stop_timers()
        self._slot.disconnected(self)

    def close(self) -> None:
        self._stop_timers()
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        arrived_s = self._loop.time()
        if self._buffer:
            data = self._buffer + data
        at, size = 0, len(data)
        while size - at >= 2:
            end = at + 2 + (data[at] << 8 | data[at + 1])
            if end > size:
                break
            self._frame(data[at + 2 : end], arrived_s)
            at = end
        self._buffer = data[at:]

    def seating_changed(self) -> None:
        """The robot has seated or removed a unit: it may be what the station waits for."""
        if self._wait is not None:
            kind, deadline = self._wait
            if self._holds(kind):
                deadline.cancel()
                self._wait = None
                self._reply(_YES)

    def chip_gone(self) -> None:
        """Answer the pending APDU, if there is one, like a reader whose chip was pulled."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
            self._send(_EMPTY_FRAME)

    def _frame(self, payload: bytes, arrived_s: float) -> None:
        if len(payload) >= _MIN_APDU:
            answer = self._slot.transmit(payload)
            if self._slot.silent:
                return
            frame = len(answer).to_bytes(2, "big") + answer
            if self._slot.apdu_s and answer:
                self._pending = self._loop.call_at(arrived_s + self._slot.apdu_s, self._answer, frame)
            else:
                self._send(frame)
            return
        try:
            self._control(payload)
        except (KeyError, ValueError):  # not of this protocol
            self.close()

    def _answer(self, frame: bytes) -> None:
        self._pending = None
        self._send(frame)

    def _control(self, payload: bytes) -> None:
        if len(payload) == 1:
            reply = self._slot.control(payload[0])
            if reply is not None:
                self._reply(reply)
            return
        kind, argument = payload  # ValueError unless 2 bytes
        if kind == _LAMP:
            self._slot.show(Lamp(argument))
        elif kind == _LABEL and argument == 0:
            self._reply(self._slot.label.encode())
        elif kind not in (_WAIT_SEATED, _WAIT_EMPTY):
            raise ValueError(f"control {kind:02X}")
        elif self._holds(kind):
            self._reply(_YES)
        elif argument == 0:
            self._reply(_NO)
        else:
            self._wait = kind, self._loop.call_later(argument * _TENTH_S, self._waited)

    def _waited(self) -> None:
        self._wait = None
        self._reply(_NO)

    def _holds(self, kind: int) -> bool:
        return self._slot.is_seated() if kind == _WAIT_SEATED else self._slot.is_empty()

    def _reply(self, payload: bytes) -> None:
        self._send(len(payload).to_bytes(2, "big") + payload)

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _stop_timers(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
        if self._wait is not None:
            self._wait[1].cancel()
        self._pending = self._wait = None


class SlotServer:
    """Listens for a set of slots on the loopback, with `folder` on Unix sockets in it.

    Once started, `urls` maps slot names to port URLs, `ports` to TCP ports.
    """

    def __init__(self, slots: Mapping[str, Slot], folder: Path | None = None) -> None:
        self._slots = slots
        self._folder = folder
        self._servers: list[asyncio.Server] = []
        self.ports: dict[str, int] = {}
        self.urls: dict[str, str] = {}

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for name, slot in self._slots.items():
            protocol = partial(SlotProtocol, slot)
            if self._folder is None:
                server = await loop.create_server(protocol, "127.0.0.1", 0)
                self.ports[name] = server.sockets[0].getsockname()[1]
                self.urls[name] = f"tcp://127.0.0.1:{self.ports[name]}"
            else:
                path = self._folder.resolve() / f"{name}.slot"
                server = await loop.create_unix_server(protocol, path)
                self.urls[name] = f"unix://{path}"
            self._servers.append(server)

    def stop(self) -> None:
        """Stop listening and end every connection."""
        for server in self._servers:
            server.close()
        for slot in self._slots.values():
            slot.hang_up()


class PreciseSelector(selectors.DefaultSelector):
    """epoll counts whole milliseconds; select() on the epoll descriptor itself waits by the microsecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready, _, _ = select.select([self.fileno()], [], [], timeout)
        return super().select(0) if ready else []


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are good to about 0.1 ms (asyncio's own round up to the next millisecond)."""
    return asyncio.SelectorEventLoop(PreciseSelector())
