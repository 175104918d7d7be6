"""The way to a station's window: its documents in, a person's wishes out; it connects again whenever it must.

A screen never waits for the station and the station never for a screen: what cannot be sent at once is not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

_LONGEST_LINE = 8 * 1024 * 1024
_AGAIN_S = (0.2, 2.0)
_MOST_UNSENT = 64 * 1024


class Said(msgspec.Struct, kw_only=True):
    """One line from the station: a document `at` its place, or the answer to `ask`."""

    at: str = ""
    document: msgspec.Raw = msgspec.Raw(b"null")
    ask: str = ""
    status: str = ""
    text: str = ""
    code: str = ""
    operator: str = ""
    role: str = ""
    unit: str = ""
    head_id: str = ""


class Link:
    """Keeps a connection to the socket at `path`; `said` gets each line, `lost` each end. Belongs to the event loop."""

    def __init__(self, path: Path, said: Callable[[Said], None], lost: Callable[[], None]) -> None:
        self._path = path
        self._said = said
        self._lost = lost
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Read until cancelled."""
        wait_s = _AGAIN_S[0]
        while True:
            try:
                if await self._read():
                    wait_s = _AGAIN_S[0]
            except (OSError, ValueError):  # ValueError: a line without an end
                pass
            finally:
                self._close()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _AGAIN_S[1])

    async def _read(self) -> bool:
        """Read one connection to its end; returns whether anything was said."""
        reader, self._writer = await asyncio.open_unix_connection(self._path, limit=_LONGEST_LINE)
        heard = False
        while line := await reader.readline():
            with contextlib.suppress(msgspec.MsgspecError):  # a line that is none, from a newer station
                self._said(msgspec.json.decode(line, type=Said))
            heard = True
        return heard

    def ask(self, ask: str, **more: Any) -> bool:
        """Send a wish; False when nobody takes it now."""
        writer = self._writer
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > _MOST_UNSENT:
            return False
        writer.write(msgspec.json.encode({"ask": ask, **more}) + b"\n")
        return True

    def _close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.transport.abort()
            self._lost()
