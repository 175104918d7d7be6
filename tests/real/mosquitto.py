"""Real brokers for tests: Mosquitto, and amqtt as the demo starts it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ifpp.bus.broker import BrokerKind, DemoBroker, free_port, mosquitto_path, start_demo_broker
from ifpp.model.clock import SystemClock

both_brokers = pytest.mark.parametrize("kind", list(BrokerKind))


def require(kind: BrokerKind) -> None:
    """Skip a test whose broker is not installed; with CI=true fail instead."""
    if kind is BrokerKind.MOSQUITTO and mosquitto_path() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mosquitto is not installed, and CI must not skip it")
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")


@asynccontextmanager
async def running(
    folder: Path, kind: BrokerKind = BrokerKind.MOSQUITTO, *, port: int = 0, persistence: bool = False
) -> AsyncIterator[DemoBroker]:
    """A broker that is there for the block; `port` 0 takes a free one."""
    require(kind)
    broker = await start_demo_broker(
        folder / f"broker-{kind}", port or free_port(), SystemClock(), kind=kind, persistence=persistence
    )
    try:
        yield broker
    finally:
        await broker.stop()
