"""`ifpp station run`: one physical station; `resend`: its events once more."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from ssl import SSLContext

from ifpp.errors import SettingsError
from ifpp.hw.pcsc import use_socket
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import beside, load_trust, run_until_stopped, say_ready
from ifpp.settings import Site, Station, load_site, load_station
from ifpp.station.agent import Agent
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.journal import Journal
from ifpp.trust.tls import client_context

# A head's thread needs the interpreter for microseconds after every answer of its chip. Python would let another thread
# compute for 5 ms before that, which is as long as a whole command.
_SWITCH_S = 0.0002


def run(site_file: Path, station_file: Path, at_edge: AtEdge = pass_by) -> None:
    """Run one station until it is told to stop; raises IfppError when it cannot start.

    `at_edge` is called at every named instant of a unit's way (see `ifpp.station.edges`).
    """
    site, station = load_site(site_file), load_station(station_file)
    use_socket(station.pcsc.socket)
    store_tls = _store_tls(site, station, station_file)
    trust, clock = load_trust(site, site_file), SystemClock()
    metrics = Metrics(Role.STATION, line=site.line, station=station.id)
    journal = Journal.open(beside(station_file, station.journal), station.id, clock)

    sys.setswitchinterval(_SWITCH_S)

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(station.metrics_port)
        agent = Agent(
            site,
            station,
            journal=journal,
            trust=trust,
            metrics=metrics,
            clock=clock,
            at_edge=at_edge,
            store_tls=store_tls,
        )
        try:
            await agent.run(stop, lambda: say_ready("station", station=station.id, metrics_port=exposition.port))
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        journal.close()


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


def _store_tls(site: Site, station: Station, station_file: Path) -> SSLContext | None:
    """Return how the station shows itself to the store; None for a store without TLS. Raises SettingsError."""
    if not site.store.url.startswith("https:"):
        return None
    if station.tls is None:
        detail = "the store is at https://, this station has no certificate: set [tls] ca, cert, key"
        raise SettingsError("SETTINGS.MISSING", detail, where=str(station_file))
    return client_context(*(beside(station_file, name) for name in (station.tls.ca, station.tls.cert, station.tls.key)))
