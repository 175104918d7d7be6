"""Virtual eUICCs in virtual PC/SC readers: a seated slot is the card of one vpcd reader, which listens on a TCP port.

The connection is the card: made when a unit is seated, ended when it is taken out, made anew while the unit stays, for
pcscd may be started anew. Frames both ways are a 2-byte big-endian length and a payload. From vpcd: 00 power off,
01 power on, 02 reset (no reply); 04 get ATR; longer: an APDU.
Nothing is answered by an empty frame: vpcd takes an empty ATR for an empty reader and waits for ever after an empty
answer. A unit whose chip is mute shows an ATR that is none; a seated chip that loses power over an APDU answers a
single byte, as readers deliver a torn answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

from ifpp.sim.slots import Slot

Address = tuple[str, int]

_GET_ATR = b"\x04"
_MUTE_ATR = b"\xff"
_TORN = b"\x00"
_CONTROL_BYTES = 1
_AGAIN_S = 0.05


class ReaderServer:
    """Seats slots in readers; `addresses` names the vpcd host and port of every slot, `readers` its PC/SC name.

    `urls` maps slot names to port URLs, `pcsc:READER NAME`.
    """

    def __init__(self, slots: Mapping[str, Slot], addresses: Mapping[str, Address], readers: Mapping[str, str]) -> None:
        self._seats = [_Seat(slot, addresses[name]) for name, slot in slots.items()]
        self._tasks: list[asyncio.Task[None]] = []
        self.urls = {name: f"pcsc:{readers[name]}" for name in slots}

    async def start(self) -> None:
        """Take the station's side of every slot."""
        for seat in self._seats:
            seat.slot.connected(seat)
            self._tasks.append(asyncio.create_task(seat.run(), name=f"seat {seat.slot.name}"))

    def stop(self) -> None:
        """Take every card out of its reader and leave the slots."""
        for task in self._tasks:
            task.cancel()
        for seat in self._seats:
            seat.close()


class _Seat:
    """One slot and its reader; hears of the robot as the slot's host."""

    def __init__(self, slot: Slot, address: Address) -> None:
        self.slot = slot
        self._address = address
        self._seated = asyncio.Event()
        self._card: _Card | None = None

    async def run(self) -> None:
        """Keep a card in the reader for as long as one is seated in the slot."""
        loop = asyncio.get_running_loop()
        while True:
            await self._seated.wait()
            card = self._card = _Card(self.slot)
            with contextlib.suppress(OSError):  # pcscd does not run just now
                # mypy infers no lambda with a default
                await loop.create_connection(lambda card=card: card, *self._address)  # type: ignore[misc]
                await card.taken_out.wait()
            self.slot.control(0)
            await asyncio.sleep(_AGAIN_S)

    def seating_changed(self) -> None:
        if self.slot.seated:
            self._seated.set()
        else:
            self._seated.clear()
            self.chip_gone()

    def chip_gone(self) -> None:
        if self._card is not None:
            self._card.take_out()

    def close(self) -> None:
        self._seated.clear()
        self.chip_gone()
        self.slot.disconnected(self)


class _Card(asyncio.Protocol):
    """One connection to vpcd: commands in, replies out at arrival plus the slot's APDU time."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Transport | None = None
        self._buffer = b""
        self._pending: asyncio.TimerHandle | None = None
        self._out = False
        self.taken_out = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is expected")
        self._reader = transport
        self._stream: socket.socket = transport.get_extra_info("socket")
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._acknowledge_quickly()
        if self._out:
            transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._reader = None
        self.taken_out.set()

    def take_out(self) -> None:
        self._out = True
        if self._reader is not None:
            self._reader.abort()

    def data_received(self, data: bytes) -> None:
        # Some vpcd write length and body apart: without this every APDU waits 40 ms for a delayed acknowledgement.
        self._acknowledge_quickly()
        arrived_s = self._loop.time()
        buffer = self._buffer + data if self._buffer else data
        while len(buffer) >= 2 and len(buffer) >= (end := 2 + (buffer[0] << 8 | buffer[1])):
            payload, buffer = buffer[2:end], buffer[end:]
            self._frame(payload, arrived_s)
        self._buffer = buffer

    def _acknowledge_quickly(self) -> None:
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _frame(self, payload: bytes, arrived_s: float) -> None:
        if payload == _GET_ATR:
            self._reply(self._slot.control(payload[0]) or _MUTE_ATR)
        elif len(payload) > _CONTROL_BYTES:
            answer = self._slot.transmit(payload)
            if not answer:
                self._reply(_TORN)
            elif self._slot.apdu_s:
                self._pending = self._loop.call_at(arrived_s + self._slot.apdu_s, self._reply, answer)
            else:
                self._reply(answer)
        elif payload:
            self._slot.control(payload[0])

    def _reply(self, payload: bytes) -> None:
        if self._reader is not None:
            self._reader.write(len(payload).to_bytes(2, "big") + payload)
