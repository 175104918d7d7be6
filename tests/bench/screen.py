"""The station screen beside its station: processor and memory with 64 heads at two updates a second, key to screen.

The screen is a process on a pseudo-terminal of 160 x 48; its station is a window in this process.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import msgspec

from ifpp.model.clock import SystemClock
from ifpp.station.window import Window
from ifpp.trust.people import Somebody
from tests.tui import pictures

_SECONDS = 15.0
_KEYS = 60
_CPU_SHARE, _MEMORY_MB, _KEY_S = 0.25, 150.0, 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def run() -> int:
    return asyncio.run(_measure())


async def _obey(_name: str, _document: bytes) -> msgspec.Struct:
    raise AssertionError("nobody asks")


async def _passing(_action: str, _who: Somebody) -> None:
    return


async def _measure() -> int:
    with tempfile.TemporaryDirectory(prefix="ifpp-") as folder:
        socket, over = Path(folder) / "s.sock", asyncio.Event()
        window = Window(socket, None, SystemClock(), idle_s=900.0, obey=_obey, passing=_passing)
        serving = asyncio.create_task(window.run(over))
        for at, document in pictures.crowded().items():
            window.show(at, document)
        telling = asyncio.create_task(_tell(window))
        terminal = _Terminal(socket)
        try:
            await asyncio.to_thread(terminal.wait_for, b"LOAD", 30.0)
            await asyncio.sleep(3.0)
            cpu_s, began, terminal.drawn = terminal.cpu_s(), time.monotonic(), 0
            await asyncio.sleep(_SECONDS)
            share = (terminal.cpu_s() - cpu_s) / (time.monotonic() - began)
            drawn = terminal.drawn / _SECONDS / 1000
            delays = [await asyncio.to_thread(terminal.key, number) for number in range(_KEYS)]
            memory = terminal.memory_mb()
        finally:
            terminal.close()
            while window.watched:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            telling.cancel()
            over.set()
            await asyncio.wait([serving, telling])
    key_s = sorted(delays)[int(len(delays) * 0.95) - 1]
    sys.stdout.write(f"processor      {share:6.1%} of a core  (wanted: {_CPU_SHARE:.0%}); {drawn:.1f} kB/s drawn\n")
    sys.stdout.write(f"memory         {memory:6.1f} MB         (wanted: {_MEMORY_MB:.0f} MB)\n")
    sys.stdout.write(f"key to screen  {key_s * 1000:6.1f} ms p95     (wanted: {_KEY_S * 1000:.0f} ms)\n")
    return int(share > _CPU_SHARE) + int(memory > _MEMORY_MB) + int(key_s > _KEY_S)


async def _tell(window: Window) -> None:
    """64 heads move on, twice a second."""
    number = 0
    while True:
        number += 1
        heads = {
            name: msgspec.structs.replace(head, loaded=(head.loaded + 700 * number) % pictures.TO_LOAD)
            for name, head in pictures.heads(64).items()
        }
        window.show("st01/state/station", msgspec.json.encode(pictures.station(heads)))
        await asyncio.sleep(0.5)


class _Terminal:
    """The screen's process on a pseudo-terminal; a thread reads what it draws."""

    def __init__(self, socket: Path) -> None:
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execv(sys.executable, [sys.executable, "-m", "ifpp", "tui", "--socket", str(socket)])  # noqa: S606
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 48, 160, 0, 0))
        self._drawn, self._more, self.drawn = b"", threading.Condition(), 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                drawn = os.read(self._file, 65536)
            except OSError:
                return
            with self._more:
                self._drawn = (self._drawn + drawn)[-262144:]
                self.drawn += len(drawn)
                self._more.notify_all()

    def wait_for(self, text: bytes, within_s: float) -> None:
        with self._more:
            if not self._more.wait_for(lambda: text in self._drawn, within_s):
                raise TimeoutError(f"the screen never shows {text!r}: {self._drawn[-300:]!r}")

    def key(self, number: int) -> float:
        """Choose a head by its number, as typed; return the seconds until it is shown as chosen."""
        head = number % 60 + 2
        os.write(self._file, f"{head}".encode())
        time.sleep(0.15)
        with self._more:
            self._drawn = b""
        began = time.monotonic()
        os.write(self._file, b"\r")
        self.wait_for(f"[h{head:02}]".encode(), 10.0)
        return time.monotonic() - began

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def memory_mb(self) -> float:
        line = next(one for one in Path(f"/proc/{self.pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def close(self) -> None:
        os.kill(self.pid, 15)
        os.waitpid(self.pid, 0)
        os.close(self._file)
