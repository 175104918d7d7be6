"""A store that serves on the loopback, and its real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ifpp.metrics import Metrics, Role
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.server import serve
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


@pytest.fixture
async def url(factory: Factory, clock: FakeClock, metrics: Metrics) -> AsyncIterator[str]:
    async with serving(factory, clock, metrics) as where:
        yield where
