"""The screen of a real station on a real terminal (tmux), and its plain lines: simulated chips, every process real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ifpp.roles.factory_floor import FactoryFloor
from ifpp.sim.world import JobPlan, build_world

PATIENCE_S = 120.0
STATION = "st01"


class Terminal:
    """A terminal of tmux, on a server of its own, with one program in it."""

    def __init__(self, folder: Path, words: list[str], size: tuple[int, int] = (80, 24)) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        words = [f"PYTHONPATH={Path.cwd()}", *words]
        command = "env " + shlex.join(words) + "; echo LEFT; sleep 600"
        self._run("new-session", "-d", "-s", "t", "-x", str(size[0]), "-y", str(size[1]), command)
        self._pid = int(self._run("display-message", "-p", "#{pid}"))

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
        return done.stdout

    def keys(self, *keys: str) -> None:
        self._run("send-keys", "-t", "t", *keys)

    def scan(self, text: str) -> None:
        self._run("send-keys", "-t", "t", "-l", text)
        self._run("send-keys", "-t", "t", "Enter")

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", "t")

    async def shows(self, *texts: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not all(text in self.screen for text in texts):  # noqa: ASYNC110 - a terminal tells nobody
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"never shows {texts}:\n{self.screen}")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _tmux() -> None:
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("tmux is not installed (apt-get install tmux)")


@asynccontextmanager
async def line(folder: Path, units: int) -> AsyncIterator[FactoryFloor]:
    """One station with four heads; the robot waits."""
    world = build_world(folder / "world", units=units, seed=1, jobs=[JobPlan("JO-1000", "TRACKER-EU", "EU", [STATION])])
    floor = FactoryFloor(folder, [STATION], heads=4, apdu_ms=5.0, broker=None)
    try:
        await floor.start_broker()
        await floor.open(world)
        yield floor
    finally:
        await floor.close()


@pytest.mark.needs("tmux")
@pytest.mark.timeout(400)
async def test_a_person_works_at_a_real_station(tmp_path: Path) -> None:
    async with line(tmp_path, units=6) as floor:
        words = [sys.executable, "-m", "ifpp", "tui", "--station-file", str(floor.station_file(STATION))]
        lines: list[str] = []
        plain = await asyncio.create_subprocess_exec(*words, "--plain", stdout=asyncio.subprocess.PIPE)
        assert plain.stdout is not None
        terminal = Terminal(floor.socket(STATION).parent, words)
        try:
            await terminal.shows("JO-1000", "LIVE", "FREE")
            terminal.keys("F2")
            terminal.scan("5")
            await terminal.shows("Show your badge first")
            terminal.scan(floor.badge)
            await terminal.shows("demo (technician)")
            terminal.keys("F2")
            terminal.scan("5")
            await terminal.shows("CLOSED", "Intake stopped by demo: end of shift")
            terminal.keys("F2")
            await terminal.shows("FREE", "Seat units")
            terminal.scan("2")
            terminal.keys("F3")
            terminal.scan("bent pin")
            await terminal.shows("[h02]■ BLOCKED", "In quarantine")
            terminal.keys("F3")
            terminal.scan("1")
            await terminal.shows("[h02]○ FREE")
            fleet = floor.fleets[STATION]
            await fleet.tell("go")
            await terminal.shows("✓ PASS")
            async with asyncio.timeout(PATIENCE_S):
                assert await fleet.process.wait() == 0
            await floor.children.stop(floor.children[STATION])
            await terminal.shows("STALE")
            await (await floor.start(STATION)).wait_ready()
            await terminal.shows("LIVE", "nobody logged in")
            terminal.keys("C-q")
            await terminal.shows("LEFT")
        finally:
            terminal.close()
            plain.terminate()
            lines = (await plain.stdout.read()).decode().splitlines()
            await plain.wait()
        told = [one.split(" ", 1)[1] for one in lines]
        assert "connected to st01" in told
        assert "operator: demo" in told
        assert "head h02: BLOCKED" in told
        assert any(one.startswith("head h0") and one.endswith("last verdict PASS") for one in told)
        assert "connection lost" in told
        assert len(told) < 300
        assert plain.returncode == 0


@pytest.mark.needs("tmux")
@pytest.mark.timeout(400)
async def test_the_demo_opens_the_screen_on_a_terminal_and_goes_on_without_it(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = [sys.executable, "-m", "ifpp", "demo", "--units", "12", "--stations", "1", "--apdu-ms", "20"]
    terminal = Terminal(tmp_path, [*words, "--keys", "none", "--json", str(out)])
    try:
        await terminal.shows("st01", "JO-1000", "LIVE")
        terminal.keys("C-q")
        await terminal.shows("every unit is accounted for", "LEFT")
        assert out.exists()
    finally:
        terminal.close()
