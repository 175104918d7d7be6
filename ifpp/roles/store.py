"""`ifpp store serve`: hand out packages."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from ssl import SSLContext

from ifpp.errors import IfppError
from ifpp.log import get_logger
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import Clock, SystemClock
from ifpp.roles import notify
from ifpp.roles.certificates import watched
from ifpp.roles.factory_access import open_factory
from ifpp.roles.runtime import beside, run_until_stopped, say_ready
from ifpp.settings import Site, load_site
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.door import Door, watch_handshakes
from ifpp.storefront.refusals import Refusals
from ifpp.storefront.server import serve as serve_http
from ifpp.trust.callers import Revocations
from ifpp.trust.tls import Renewed, server_context

log = get_logger("store")


def serve(site_file: Path) -> None:
    """Serve the store until told to stop; raises IfppError when it cannot start."""
    site = load_site(site_file)
    clock, metrics = SystemClock(), Metrics(Role.STORE, line="", node="store")
    refusals = Refusals(metrics)
    files, tls, door = _doorway(site, site_file, clock, refusals)
    factory = open_factory(site, site_file, writer="store")
    settling = threading.Thread(target=_settle, args=(factory, clock), name="intakes", daemon=True)

    async def main(stop: asyncio.Event) -> None:
        exposition = metrics.serve(site.store.metrics_port, site.store.metrics_host)
        serves = partial(notify.beat, f"serves {site.store.url}")
        app = build_app(factory, clock, metrics, door=door, refusals=refusals, beat=serves)
        try:
            async with watched(metrics, clock, files):
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

    settling.start()
    try:
        run_until_stopped(main)
    finally:
        factory.close()


def _settle(factory: Factory, clock: Clock) -> None:
    """Finish what an import that was killed has left accepted; a stop in the middle leaves the rest for the next one.

    It goes on beside the claims: a delivery of a hundred thousand packages takes minutes.
    """
    try:
        factory.settle_intakes(clock.now())
    except IfppError as error:
        log.warning("intakes.unsettled", error=error)


def _doorway(
    site: Site, site_file: Path, clock: Clock, refusals: Refusals
) -> tuple[list[Path], SSLContext | None, Door | None]:
    """Return certificate files and what callers must show; nothing without TLS, which is for this machine only."""
    if (tls := site.store.tls) is None:
        return [], None, None
    ca, cert = beside(site_file, tls.ca), beside(site_file, tls.cert)
    context = Renewed(server_context, ca, cert, beside(site_file, tls.key)).serving()
    files = [ca, cert, *([beside(site_file, tls.crl)] if tls.crl else [])]
    watch_handshakes(context, lambda reason: refusals.add("unknown", "handshake", "STORE.FORBIDDEN", reason))
    return files, context, Door(clock, Revocations(beside(site_file, tls.crl), ca) if tls.crl else None)
