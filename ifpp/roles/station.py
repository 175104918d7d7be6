"""`ifpp station run`: one physical station."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import beside, load_trust, run_until_stopped, say_ready
from ifpp.settings import load_site, load_station
from ifpp.station.agent import Agent
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.journal import Journal

# A head's thread needs the interpreter for microseconds after every answer of its chip. Python would let another thread
# compute for 5 ms before that, which is as long as a whole command.
_SWITCH_S = 0.0002


def run(site_file: Path, station_file: Path, at_edge: AtEdge = pass_by) -> None:
    """Run one station until it is told to stop; raises IfppError when it cannot start.

    `at_edge` is called at every named instant of a unit's way (see `ifpp.station.edges`).
    """
    site, station = load_site(site_file), load_station(station_file)
    trust, clock = load_trust(site, site_file), SystemClock()
    metrics = Metrics(Role.STATION, line=site.line, station=station.id)
    journal = Journal.open(beside(station_file, station.journal), station.id, clock)

    sys.setswitchinterval(_SWITCH_S)

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(station.metrics_port)
        agent = Agent(site, station, journal=journal, trust=trust, metrics=metrics, clock=clock, at_edge=at_edge)
        try:
            await agent.run(stop, lambda: say_ready("station", station=station.id, metrics_port=exposition.port))
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        journal.close()
