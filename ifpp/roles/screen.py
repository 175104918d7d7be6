"""`ifpp tui`: the screen of one station, in a process of its own; it may die, freeze or come back at any time."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import beside
from ifpp.settings import load_station
from ifpp.tui.marks import ASCII, UNICODE
from ifpp.tui.plain import PlainLine, PlainScreen
from ifpp.tui.words import Words

CTRL_C = 130


def show(
    station_file: Path | None,
    socket: Path | None,
    *,
    language: str,
    ascii_only: bool,
    plain: bool,
    columns: int = 0,
    wall: bool = False,
) -> int:
    """Show a station until the person leaves; returns the exit code. Raises SettingsError when nobody says which."""
    path, columns = _where(station_file, socket, columns)
    words = Words(language)
    if plain:
        asyncio.run(tell(PlainScreen(path, words, SystemClock(), say)))
        return 0
    try:
        from ifpp.tui.app import StationScreen
        from ifpp.tui.line_app import StationWall
    except ModuleNotFoundError as error:
        raise SettingsError("SETTINGS.MISSING", "install ifpp[tui]", where=f"module {error.name}") from error

    kind = StationWall if wall else StationScreen
    app = kind(path, words, ASCII if ascii_only else UNICODE, SystemClock(), columns=columns)

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.exit)  # the terminal is put in order
        await app.run_async(mouse=False)

    asyncio.run(main())
    return app.return_code or 0


async def tell(screen: PlainScreen | PlainLine) -> None:
    """Tell lines until a signal says to leave."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - inside asyncio.run
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await screen.run()
    except asyncio.CancelledError:
        return


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _where(station_file: Path | None, socket: Path | None, columns: int) -> tuple[Path, int]:
    if socket is not None:
        return socket, columns
    if station_file is None:
        raise SettingsError("COMMAND.INVALID", "say which station: --station-file or --socket", where="ifpp tui")
    station = load_station(station_file)
    if not station.window.socket:
        raise SettingsError("SETTINGS.MISSING", "[window] socket is not set", where=str(station_file))
    return beside(station_file, station.window.socket), columns or station.window.columns
