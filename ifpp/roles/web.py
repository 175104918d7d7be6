"""`ifpp tui-serve`: screens in browsers, behind TLS and a login."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import run_until_stopped, say_ready
from ifpp.settings import load_people
from ifpp.trust.tls import Renewed
from ifpp.tui.words import Words


@dataclass(frozen=True, slots=True)
class Door:
    """Where browsers come in. Without `cert` and `key` only from this machine; on a `wall` nobody presses keys."""

    host: str
    port: int
    cert: Path | None
    key: Path | None
    people: Path
    idle_s: float
    language: str
    wall: bool = False


def serve(screen: Sequence[str], door: Door) -> None:
    """Serve `ifpp tui` with the words `screen` until told to stop; raises SettingsError."""
    try:
        from aiohttp import web

        from ifpp.tui.web import Screens, Sessions
    except ModuleNotFoundError as error:
        raise SettingsError("SETTINGS.MISSING", "install ifpp[tui,web]", where=f"module {error.name}") from error

    shown = tls(door)
    load_people(door.people)  # told now, not at the first login

    async def main(stop: asyncio.Event) -> None:
        sessions = Sessions(lambda: load_people(door.people), SystemClock(), door.idle_s)
        command = [sys.executable, "-m", "ifpp", "tui", *screen]
        screens = Screens(command, sessions, Words(door.language), secure=shown is not None, wall=door.wall)
        runner = web.AppRunner(screens.app(), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, door.host, door.port, ssl_context=shown)
            try:
                await site.start()
            except OSError as error:
                where = f"{door.host}:{door.port}"
                raise SettingsError("SETTINGS.INVALID", f"cannot listen ({error})", where=where) from error
            say_ready("web", port=runner.addresses[0][1])
            await stop.wait()
        finally:
            await runner.cleanup()

    run_until_stopped(main)


def tls(door: Door) -> ssl.SSLContext | None:
    """Return what browsers are shown, read again when the files change; None: no TLS. Raises SettingsError."""
    if door.cert is None or door.key is None:
        try:
            here = ip_address(door.host).is_loopback
        except ValueError:
            here = door.host == "localhost"
        if not here or door.cert is not None or door.key is not None:
            raise SettingsError("COMMAND.INVALID", "beyond this machine only with --cert and --key", where=door.host)
        return None
    return Renewed(_context, door.cert, door.cert, door.key).serving()


def _context(_ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError("SETTINGS.INVALID", f"no certificate with its key ({error})", where=str(cert)) from error
    return context
