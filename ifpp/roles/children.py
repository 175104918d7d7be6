"""The processes a demo starts: each says when it is ready, logs to its own file, and never outlives the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifpp.errors import ServiceError

_READY_S = 60.0
_STOP_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Child:
    """One started process. `facts` is what its ready line said."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.facts: dict[str, Any] = {}

    async def wait_ready(self) -> None:
        """Wait for the ready line; raises ServiceError PROCESS.DIED with the end of the log."""
        assert self.process.stdout is not None  # noqa: S101 - started with a pipe
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), _READY_S)
        except TimeoutError:
            raise self.death(f"{self.name} was not ready in {_READY_S:g} s") from None
        if not line:
            await self.process.wait()
            raise self.death(f"{self.name} ended with {self.process.returncode} before it was ready")
        self.facts = json.loads(line)

    def death(self, what: str) -> ServiceError:
        """Describe an end nobody asked for, with the last lines of the log."""
        tail = self.log.read_text(errors="replace").splitlines()[-5:]
        return ServiceError(
            "PROCESS.DIED", f"{what}; its log ends: {' | '.join(tail) or '(empty)'}", where=str(self.log)
        )

    async def line(self) -> str:
        """Read the next line the process says; "" when it ends instead."""
        assert self.process.stdout is not None  # noqa: S101 - started with a pipe
        return (await self.process.stdout.readline()).decode()

    async def tell(self, line: str) -> None:
        """Write one line to the process."""
        assert self.process.stdin is not None  # noqa: S101 - started with a pipe
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    def cpu_s(self) -> float:
        """Processor time the process used so far, user and system, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    async def stop(self) -> int:
        """End the process: SIGTERM, and SIGKILL when that is not heard. Returns its exit status."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), _STOP_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        return self.process.returncode or 0


class Children:
    """Starts processes and stops them in reverse order; one that is started again takes the place of the last.

    `command` gives the words that start ifpp itself for a process of some name, `environment` what every one finds in
    its environment; None = ours.
    """

    def __init__(
        self, logs: Path, command: Callable[[str], Sequence[str]], environment: Mapping[str, str] | None = None
    ) -> None:
        self._logs = logs
        self._environment = environment
        self._command = command
        self._started: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    async def start(self, name: str, *command: str) -> Child:
        """Start a command in a session of its own, so that Ctrl-C reaches the demo alone."""
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        log = self._logs / f"{name}.log"
        with log.open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                *guard,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
                env=self._environment,
            )
        child = Child(name, process, log)
        self._started.append(child)
        return child

    async def start_ifpp(self, name: str, *arguments: str) -> Child:
        """Start a command of ifpp itself."""
        return await self.start(name, *self._command(name), *arguments)

    def __getitem__(self, name: str) -> Child:
        """The process last started under a name; raises KeyError."""
        found = next((child for child in reversed(self._started) if child.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    async def stop(self, *children: Child) -> None:
        """Stop these together."""
        await asyncio.gather(*(child.stop() for child in children))

    async def stop_all(self) -> None:
        """Stop everything that still runs, newest first."""
        for child in reversed(self._started):
            await child.stop()

    def dead(self) -> list[Child]:
        """Processes that ended."""
        return [child for child in self._started if child.process.returncode is not None]
