"""What every test shares: the contract on the bus, the options of tests/hardware, the end of shared processes."""

from __future__ import annotations

import pytest

from ifpp.bus.client import Connection
from ifpp.model.structs import prepare_structs
from tests import contract
from tests.real import pcscd


@pytest.fixture(autouse=True)
def _the_contract_holds(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whatever a test publishes keeps the contract, unless it is marked `breaks_the_contract`."""
    if request.node.get_closest_marker("breaks_the_contract"):
        return
    publish = Connection.publish

    async def checked(self: Connection, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        contract.check(topic, payload)
        await publish(self, topic, payload, qos=qos, retain=retain)

    monkeypatch.setattr(Connection, "publish", checked)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware", "tests on one real chip, which they end: see tests/hardware")
    group.addoption("--reader", default="", help="port URL or PC/SC reader name of the head the chip sits in")
    group.addoption("--eid", default="", help="EID of the one chip that may be used up, 32 digits")


def pytest_collection_finish() -> None:
    prepare_structs()  # as every process of ifpp does: tests decode in threads, too


def pytest_sessionfinish() -> None:
    pcscd.stop()
