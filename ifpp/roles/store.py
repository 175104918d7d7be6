"""`ifpp store serve`: hand out packages; `ifpp report`: what the SM-DPf is told, and whether it heard."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext

from ifpp.line.report import write_reports as write_loading_reports
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import Clock, SystemClock
from ifpp.roles.runtime import beside, open_factory, run_until_stopped, say_ready
from ifpp.settings import Site, load_site
from ifpp.storefront.app import build_app
from ifpp.storefront.door import Door, watch_handshakes
from ifpp.storefront.refusals import Refusals
from ifpp.storefront.server import serve as serve_http
from ifpp.trust.callers import Revocations
from ifpp.trust.tls import server_context

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def serve(site_file: Path) -> None:
    """Serve the store until told to stop; raises IfppError when it cannot start."""
    site = load_site(site_file)
    clock, metrics = SystemClock(), Metrics(Role.STORE)
    refusals = Refusals(metrics)
    tls, door = _doorway(site, site_file, clock, refusals)
    factory = open_factory(site, site_file, writer="store")

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(site.store.metrics_port)
        app = build_app(factory, clock, metrics, door=door, refusals=refusals)
        try:
            await serve_http(
                app,
                site.store.host,
                site.store.port,
                stop=stop,
                ready=lambda port: say_ready("store", port=port, metrics_port=exposition.port),
                tls=tls,
            )
        finally:
            exposition.close()

    try:
        run_until_stopped(main)
    finally:
        factory.close()


def _doorway(site: Site, site_file: Path, clock: Clock, refusals: Refusals) -> tuple[SSLContext | None, Door | None]:
    """Return what callers must show; nothing without TLS, which is for this machine only."""
    if (tls := site.store.tls) is None:
        return None, None
    ca = beside(site_file, tls.ca)
    context = server_context(ca, beside(site_file, tls.cert), beside(site_file, tls.key))
    watch_handshakes(context, lambda reason: refusals.add("unknown", "handshake", "STORE.FORBIDDEN", reason))
    return context, Door(clock, Revocations(beside(site_file, tls.crl), ca) if tls.crl else None)


def write_reports(site_file: Path, folder: Path) -> None:
    """Write a Profile Loading Report for each SM-DPf over everything taken so far."""
    factory = open_factory(load_site(site_file), site_file, writer="report")
    try:
        now = datetime.now(UTC)
        for report in write_loading_reports(factory, folder, start=_EVER, end=now, now=now):
            _print(f"{report.items:7} items, {report.outstanding} outstanding  {report.path}")
    finally:
        factory.close()


def acknowledge(site_file: Path, report_id: str, told_by: str) -> None:
    """Keep that an SM-DPf has taken a report; raises CustodyError REPORT.UNKNOWN."""
    factory = open_factory(load_site(site_file), site_file, writer="report")
    try:
        at, first = factory.acknowledge_report(report_id, told_by, datetime.now(UTC))
    finally:
        factory.close()
    _print(f"report {report_id}: taken by its SM-DPf, as {first} said at {at}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
