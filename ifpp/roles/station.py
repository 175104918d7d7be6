"""`ifpp station run`: one physical station; `resend`: its events once more."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.fpa.es9 import Es9Client
from ifpp.hw.pcsc import use_socket
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import Clock, SystemClock
from ifpp.recipes import RecipeBook, load_recipes
from ifpp.roles import notify
from ifpp.roles.certificates import watched
from ifpp.roles.key_access import open_keys
from ifpp.roles.runtime import beside, load_trust, run_until_stopped, say_ready
from ifpp.settings import People, Site, Station, load_people, load_site, load_station
from ifpp.station.agent import Agent
from ifpp.station.cache import Cache
from ifpp.station.downloads import Downloads
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.journal import Journal
from ifpp.station.permits import Permits
from ifpp.station.rsp_book import RspBook
from ifpp.trust.keyring import KeyProvider, Purpose
from ifpp.trust.tls import Renewed, client_context, outward_context

# A head's thread needs the interpreter for microseconds after every answer of its chip. Python would let another thread
# compute for 5 ms before that, which is as long as a whole command.
_SWITCH_S = 0.0002


def run(site_file: Path, station_file: Path, at_edge: AtEdge = pass_by) -> None:
    """Run one station until it is told to stop; raises IfppError when it cannot start.

    `at_edge` is called at every named instant of a unit's way (see `ifpp.station.edges`).
    """
    site, station = load_site(site_file), load_station(station_file)
    use_socket(station.pcsc.socket)
    tls = own_tls(site, station, station_file)
    trust, clock = load_trust(site, site_file), SystemClock()
    metrics = Metrics(Role.STATION, line=site.line, station=station.id, node=station.id)
    keys = open_keys(station.keys, station_file)
    permits = _permits(station, keys, station_file)
    recipes = load_recipes(beside(site_file, site.recipes)) if site.recipes else RecipeBook()
    outward = outward_context(beside(station_file, station.rsp.tls_ca) if station.rsp.tls_ca else None)
    journal = Journal.open(beside(station_file, station.journal), station.id, clock)

    cache = _cache(station, station_file, clock)
    window = _window(station, station_file)
    sys.setswitchinterval(_SWITCH_S)

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(station.metrics_port, station.metrics_host)
        agent = Agent(
            site,
            station,
            journal=journal,
            trust=trust,
            metrics=metrics,
            clock=clock,
            at_edge=at_edge,
            tls=tls,
            cache=cache,
            eids=beside(station_file, station.cache.eids) if station.cache.eids else None,
            window=window,
            permits=permits,
            downloads=Downloads(
                Es9Client(outward, timeout_s=station.rsp.timeout_s),
                RspBook(journal, clock),
                trust,
                clock,
                station.rsp.attempts,
            ),
            recipes=recipes,
        )

        def ready() -> None:
            say_ready("station", station=station.id, metrics_port=exposition.port)

        try:
            async with watched(metrics, clock, tls.files[:2] if tls else ()):
                await agent.run(stop, ready, notify.beat)
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        journal.close()
        if permits is not None:
            permits.close()
        if keys is not None:
            keys.close()
        if cache is not None:
            cache.close()


def resend(station_file: Path) -> None:
    """Let a stopped station send again every event it still has; raises CustodyError CUSTODY.JOURNAL_IN_USE."""
    station = load_station(station_file)
    path = beside(station_file, station.journal)
    if not path.is_file():
        raise SettingsError("SETTINGS.MISSING", "there is no such journal", where=str(path))
    journal = Journal.open(path, station.id, SystemClock())
    try:
        count = journal.take_back_acks().result()
    finally:
        journal.close()
    sys.stdout.write(f"{count} events will be sent again when the station runs\n")


def _permits(station: Station, keys: KeyProvider | None, station_file: Path) -> Permits | None:
    """Return where chips get the device maker's word from; raises SettingsError KEYS.MISSING when there is no key."""
    if not station.recipe.dm_auth:
        return None
    if keys is None or Purpose.CHIP not in station.keys.purposes:
        raise SettingsError("KEYS.MISSING", "recipe.dm_auth wants a chip key in [keys]", where=str(station_file))
    return Permits(keys.authorise, timeout_s=2 * station.keys.timeout_s, heads=len(station.heads))


def _cache(station: Station, station_file: Path, clock: Clock) -> Cache | None:
    """Open what is kept ahead, where something is or shall be. Raises CustodyError CACHE.*."""
    path = beside(station_file, station.cache.file)
    return Cache.open(path, station.id, clock) if station.cache.units or path.exists() else None


def _window(station: Station, station_file: Path) -> tuple[Path, People | None] | None:
    """Return where screens look in, and who may act there; None where nobody does. Raises SettingsError."""
    if not station.window.socket:
        return None
    people = load_people(beside(station_file, station.window.people)) if station.window.people else None
    return beside(station_file, station.window.socket), people


def own_tls(site: Site, station: Station, station_file: Path) -> Renewed | None:
    """Return how the station shows itself to store and broker; None where neither has TLS. Raises SettingsError."""
    if not site.store.url.startswith("https:") and site.broker.tls is None:
        return None
    if station.tls is None:
        detail = "store or broker speak TLS, this station has no certificate: set [tls] ca, cert, key"
        raise SettingsError("SETTINGS.MISSING", detail, where=str(station_file))
    ca, cert, key = (beside(station_file, name) for name in (station.tls.ca, station.tls.cert, station.tls.key))
    return Renewed(client_context, ca, cert, key)
