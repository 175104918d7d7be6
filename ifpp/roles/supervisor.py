"""`ifpp supervisor run`: the supervisor of one line."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ifpp.bus import sparkplug
from ifpp.line.supervisor import run_supervisor
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles import notify
from ifpp.roles.certificates import watched
from ifpp.roles.factory_access import open_factory
from ifpp.roles.key_access import signer_for, using_keys
from ifpp.roles.runtime import broker_tls, run_until_stopped, say_ready
from ifpp.settings import Site, load_site
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import Signer


def run(site_file: Path) -> None:
    """Supervise the line of a site file until told to stop; raises IfppError when it cannot start."""
    site = load_site(site_file)
    if site.sparkplug.enabled:
        sparkplug.ready()
    metrics = Metrics(Role.SUPERVISOR, line=site.line, node="line")
    with using_keys(site.keys, site_file, metrics) as keys:
        _supervise(site, site_file, metrics, signer_for(keys, site.keys, Purpose.AUDIT))


def _supervise(site: Site, site_file: Path, metrics: Metrics, signer: Signer | None) -> None:
    clock, tls = SystemClock(), broker_tls(site, site_file)
    factory = open_factory(site, site_file, writer=f"line-{site.line}")

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(site.supervisor.metrics_port, site.supervisor.metrics_host)
        try:
            async with watched(metrics, clock, tls.files[:2] if tls else ()) as expiry:
                # Now, and not with the line in hand: one that stands by, or waits for its broker, is in order.
                notify.ready(f"waits for line {site.line}")
                await run_supervisor(
                    site,
                    factory,
                    metrics=metrics,
                    clock=clock,
                    stop=stop,
                    signer=signer,
                    broker_tls=tls.current if tls else None,
                    ending=lambda: dict(expiry.ending),
                    ready=lambda: say_ready("supervisor", metrics_port=exposition.port),
                    beat=notify.beat,
                )
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        factory.close()
