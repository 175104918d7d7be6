"""The demo's screen: that of its first station, on the terminal the demo was started in."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ifpp.roles.screen import CTRL_C

_SMALLEST = (60, 20)
_STOP_S = 5.0
_FIRST_LOOK_S = 2.0


class DemoScreen:
    """A screen process while the line works. Who leaves it sees the demo's lines again; Ctrl-C ends both."""

    def __init__(self, process: asyncio.subprocess.Process | None) -> None:
        self._process = process

    @classmethod
    async def open(cls, command: Sequence[str], station_file: Path) -> DemoScreen:
        """Show the station where somebody can see it: on a terminal that is large enough."""
        size = shutil.get_terminal_size((0, 0))
        seen = sys.stdin.isatty() and sys.stdout.isatty() and find_spec("textual") is not None
        if not seen or size.columns < _SMALLEST[0] or size.lines < _SMALLEST[1]:
            return cls(None)
        process = await asyncio.create_subprocess_exec(*command, "tui", "--station-file", str(station_file))
        await asyncio.sleep(_FIRST_LOOK_S)  # the robots begin when somebody can see it
        return cls(process)

    @property
    def shown(self) -> bool:
        """Whether the terminal is the screen's."""
        return self._process is not None and self._process.returncode is None

    @property
    def interrupted(self) -> bool:
        """Whether somebody pressed Ctrl-C on it."""
        return self._process is not None and self._process.returncode == CTRL_C

    async def close(self) -> None:
        """Give the terminal back."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
