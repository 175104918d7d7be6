"""`ifpp tui --line`: the screen of a line, in a process of its own that hears the broker and reads the books."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec

from ifpp.bus.client import BrokerAddress
from ifpp.bus.follow import follow
from ifpp.bus.topics import Topics
from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.roles.custody import unit_lines
from ifpp.roles.factory_access import open_factory
from ifpp.roles.runtime import broker_tls
from ifpp.roles.screen import say, tell
from ifpp.settings import Site, load_site
from ifpp.tui.line_heard import FOR_LINE_SCREENS, LineHeard
from ifpp.tui.marks import ASCII, UNICODE
from ifpp.tui.plain import PlainLine
from ifpp.tui.words import Words


def show_line(
    site_file: Path,
    *,
    language: str,
    ascii_only: bool,
    wall: bool,
    plain: bool = False,
    cert: Path | None = None,
    key: Path | None = None,
) -> int:
    """Show a line until the person leaves; `cert`, `key`: the screen's own, for a role that only hears (auditor).

    Returns the exit code; raises SettingsError.
    """
    site, clock = _with_own(load_site(site_file), cert, key), SystemClock()
    shown = broker_tls(site, site_file)
    address = BrokerAddress(site.broker.host, site.broker.port, tls=shown.current if shown else None)
    topics = Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix)

    async def listen(heard: LineHeard) -> None:
        def took(at: str, document: bytes) -> None:
            heard.take(at, document, clock.monotonic())

        def link(up: bool) -> None:
            heard.link(up, clock.monotonic())

        await follow(address, topics, FOR_LINE_SCREENS, took, link, clock)

    if plain:
        asyncio.run(tell(PlainLine(site.line, listen, Words(language), clock, say)))
        return 0
    try:
        from ifpp.tui.line_app import LineScreen
    except ModuleNotFoundError as error:
        raise SettingsError("SETTINGS.MISSING", "install ifpp[tui]", where=f"module {error.name}") from error

    def custody(name: str) -> list[str] | None:
        factory = open_factory(site, site_file, writer="desk")
        try:
            return unit_lines(factory, name)
        finally:
            factory.close()

    marks = ASCII if ascii_only else UNICODE
    app = LineScreen(site.line, listen, custody, Words(language), marks, clock, wall=wall)

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.exit)  # the terminal is put in order
        await app.run_async(mouse=False)

    asyncio.run(main())
    return app.return_code or 0


def _with_own(site: Site, cert: Path | None, key: Path | None) -> Site:
    """Return the site with the screen's own certificate in the place of the supervisor's."""
    if cert is None and key is None:
        return site
    if cert is None or key is None or site.broker.tls is None:
        where = "--cert, --key"
        raise SettingsError("COMMAND.INVALID", "both are wanted, and [broker.tls] with the CAs", where=where)
    tls = msgspec.structs.replace(site.broker.tls, cert=str(cert.resolve()), key=str(key.resolve()))
    return msgspec.structs.replace(site, broker=msgspec.structs.replace(site.broker, tls=tls))
