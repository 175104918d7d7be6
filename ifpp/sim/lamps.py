"""Lamps of virtual heads whose reader or modem has none: a Unix socket per slot that hears the frame `00 02 E2 nn`.

`nn` as in ifpp.sim.slots: 0 off 1 busy 2 pass 3 fail 4 reseat 5 hold. Anything else ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ifpp.sim.slots import Lamp, Slot

_SHOW = b"\x00\x02\xe2"
_FRAME_BYTES = 4


class LampServer:
    """Shows on a slot what its head says; `urls` maps slot names to `unix:///path` once started.

    A path may have 100 characters or so: `folder` should be a short one.
    """

    def __init__(self, slots: Mapping[str, Slot], folder: Path) -> None:
        self._slots = slots
        self._folder = folder
        self._servers: list[asyncio.Server] = []
        self._lines: set[asyncio.Transport] = set()
        self.urls: dict[str, str] = {}

    async def start(self) -> None:
        """Listen in `folder`, which is made when it is missing; raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        for name, slot in self._slots.items():
            path = self._folder.resolve() / f"{name}.lamp"
            self._servers.append(await loop.create_unix_server(partial(_LampProtocol, slot, self._lines), path))
            self.urls[name] = f"unix://{path}"

    def stop(self) -> None:
        """Stop listening and end every connection."""
        for server in self._servers:
            server.close()
        for line in self._lines:
            line.close()


class _LampProtocol(asyncio.Protocol):
    """One connection of a head."""

    def __init__(self, slot: Slot, lines: set[asyncio.Transport]) -> None:
        self._slot = slot
        self._lines = lines
        self._line: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is expected")
        self._line = transport
        self._lines.add(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._line is not None:
            self._lines.discard(self._line)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _FRAME_BYTES and self._line is not None:
            frame, self._buffer = self._buffer[:_FRAME_BYTES], self._buffer[_FRAME_BYTES:]
            if frame[:3] != _SHOW or frame[3] > max(Lamp):
                self._line.close()
                return
            self._slot.show(Lamp(frame[3]))
