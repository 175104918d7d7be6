"""A store that serves on the loopback, and its real client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ifpp.metrics import Metrics, Role
from ifpp.model.clock import Clock
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.door import Door, watch_handshakes
from ifpp.storefront.refusals import Refusals
from ifpp.storefront.server import serve
from ifpp.trust.callers import CallerRole, Revocations
from ifpp.trust.site_pki import SitePki
from ifpp.trust.tls import client_context, server_context
from tests.clock import FakeClock


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    opened = Factory.open(f"sqlite:///{tmp_path / 'factory.db'}", busy_timeout_s=0.2)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Role.STORE)


@asynccontextmanager
async def serving(factory: Factory, clock: FakeClock, metrics: Metrics | None = None) -> AsyncIterator[str]:
    """A running store; gives its URL."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    app = build_app(factory, clock, metrics)
    task = asyncio.create_task(serve(app, "127.0.0.1", 0, stop=stop, ready=port.set_result), name="store")
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        stop.set()
        await task


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SitePki:
    """A CA that has issued the store's certificate and one for each kind of caller."""
    authority = SitePki(tmp_path_factory.mktemp("pki"))
    authority.issue_store("127.0.0.1")
    for role in CallerRole:
        authority.issue_caller(role, "st01")
    authority.issue_caller(CallerRole.STATION, "st02")
    return authority


def shown(pki: SitePki, role: str = "station", name: str = "st01") -> ssl.SSLContext:
    """What a caller with this certificate shows."""
    certificate = pki.certificate(role, name)
    return client_context(pki.ca, certificate, certificate.with_suffix(".key"))


@asynccontextmanager
async def serving_tls(
    factory: Factory, pki: SitePki, clock: Clock, metrics: Metrics, crl: Path | None = None
) -> AsyncIterator[str]:
    """A running store that wants certificates, put together as `ifpp store serve` does; gives its URL."""
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    refusals = Refusals(metrics)
    own = pki.certificate("store", "127.0.0.1")
    context = server_context(pki.ca, own, own.with_suffix(".key"))
    watch_handshakes(context, lambda reason: refusals.add("unknown", "handshake", "STORE.FORBIDDEN", reason))
    door = Door(clock, None if crl is None else Revocations(crl, pki.ca))
    app = build_app(factory, clock, metrics, door=door, refusals=refusals)
    serving = serve(app, "127.0.0.1", 0, stop=stop, ready=port.set_result, tls=context)
    task = asyncio.create_task(serving, name="store")
    try:
        yield f"https://127.0.0.1:{await port}"
    finally:
        stop.set()
        await task


@pytest.fixture
async def url(factory: Factory, clock: FakeClock, metrics: Metrics) -> AsyncIterator[str]:
    async with serving(factory, clock, metrics) as where:
        yield where
