"""`ifpp supervisor run`: the supervisor of one line."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ifpp.line.supervisor import run_supervisor
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import load_signer, open_factory, run_until_stopped, say_ready
from ifpp.settings import load_site


def run(site_file: Path) -> None:
    """Supervise the line of a site file until told to stop; raises IfppError when it cannot start."""
    site = load_site(site_file)
    metrics = Metrics(Role.SUPERVISOR, line=site.line)
    signer = load_signer(site, site_file)
    factory = open_factory(site, site_file, writer=f"line-{site.line}")

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(site.supervisor.metrics_port)
        try:
            await run_supervisor(
                site,
                factory,
                metrics=metrics,
                clock=SystemClock(),
                stop=stop,
                signer=signer,
                ready=lambda: say_ready("supervisor", metrics_port=exposition.port),
            )
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        factory.close()
