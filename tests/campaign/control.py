"""How the campaign reaches into a process it started: one small file for each, read whenever it was replaced.

    {"clock_s": seconds its clock is wrong by, "die": [arming number, edge, how many times passed] or null}

The process says at which arming it died in `<file>.died`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path


class Control:
    """The side of the process: where its clock stands, and the edge it dies at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._died = path.with_suffix(".died")
        self._stamp = (0, 0)
        self._clock_s = 0.0
        self._armed = 0
        self._edge = ""
        self._left = 0

    def clock_s(self) -> float:
        """How many seconds this process's time of day is wrong by."""
        self._look()
        return self._clock_s

    def at(self, edge: str) -> None:
        """Pass a named edge; dies here, as by `kill -9`, when told so."""
        self._look()
        if edge != self._edge:
            return
        self._left -= 1
        if self._left <= 0:
            self._died.write_text(str(self._armed))
            os.kill(os.getpid(), signal.SIGKILL)
            sys.exit("a killed process goes on")

    def _look(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns)  # the time alone moves in steps of milliseconds
            if stamp == self._stamp:
                return
            told = json.loads(self._path.read_text())
        except FileNotFoundError:
            return
        self._stamp, self._clock_s = stamp, told["clock_s"]
        number, edge, times = told["die"] or (0, "", 0)
        if number != self._armed:
            self._armed, self._left = number, times
        self._edge = edge


class Handle:
    """The side of the campaign."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._died = path.with_suffix(".died")
        self._clock_s = 0.0
        self._die: tuple[int, str, int] | None = None

    def set_clock(self, wrong_by_s: float) -> None:
        """Let the process's clock jump."""
        self._clock_s = wrong_by_s
        self._tell()

    def arm(self, number: int, edge: str, times: int) -> None:
        """Let the process die when it passes an edge for the `times`-th time from now; `number` grows."""
        self._die = (number, edge, times)
        self._tell()

    def disarm(self) -> None:
        """Let it live."""
        self._die = None
        self._tell()

    def died_at(self, number: int) -> bool:
        """Whether the process died at the edge of this arming."""
        return self._died.exists() and self._died.read_text() == str(number)

    def _tell(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"clock_s": self._clock_s, "die": self._die}))
        new.rename(self.path)
