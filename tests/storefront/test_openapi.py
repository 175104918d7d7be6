"""The description of the interface, and Schemathesis holding the running store against it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings

from ifpp.model.clock import SystemClock
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.openapi import describe
from ifpp.storefront.routes import ROUTES, Route
from ifpp.storefront.server import serve
from tests.store.world import stock

EXAMPLES = 20
GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
WAYS = [
    pytest.param(route, mode, id=f"{route.operation}-{mode.value}")
    for route in ROUTES
    for mode in (GOOD, BAD)
    if mode is GOOD or route.takes or route.parameters  # else there is nothing to get wrong
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Factory, str]]:
    """A running store with some stock, in a thread; its factory and its URL."""
    factory = Factory.open(f"sqlite:///{tmp_path_factory.mktemp('store') / 'factory.db'}")
    stock(factory, 3)
    loop, stop, ports = asyncio.new_event_loop(), asyncio.Event(), []
    listening = threading.Event()

    def ready(port: int) -> None:
        ports.append(port)
        listening.set()

    serving = serve(build_app(factory, SystemClock()), "127.0.0.1", 0, stop=stop, ready=ready)
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,))
    thread.start()
    assert listening.wait(10)
    yield factory, f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    factory.close()


@pytest.mark.parametrize(("route", "mode"), WAYS)
def test_the_store_keeps_to_its_description(
    store: tuple[Factory, str], route: Route, mode: schemathesis.GenerationMode
) -> None:
    """Requests as described and requests that are not: each is answered as the description says."""
    schema = schemathesis.openapi.from_url(store[1] + "/v1/openapi.json")
    operation = schema[route.path][route.method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: schemathesis.Case[Any]) -> None:
        if isinstance(case.body, dict):  # 900.0 is an integer to JSON Schema, and not to us
            assume(not isinstance(case.body.get("lease_s"), float))
        case.call_and_validate(timeout=10)

    ask()


def test_nothing_of_that_moved_the_books(store: tuple[Factory, str]) -> None:
    """Runs after the test above, in the same process."""
    factory, _ = store
    assert factory.audit() == []
    (balance,) = factory.balance()
    assert (balance.imported, balance.available) == (3, 3)


def test_every_route_is_described(store: tuple[Factory, str]) -> None:
    document = describe()
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), path): operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert {(route.method, route.path) for route in ROUTES} == described.keys()
    for route in ROUTES:
        operation = described[route.method, route.path]
        assert operation["x-roles"] == sorted(route.roles)
        assert ("requestBody" in operation) == (route.takes is not None)
    claim = document["components"]["schemas"]["ClaimRequest"]
    assert claim["additionalProperties"] is False
    assert set(claim["required"]) == {"attempt_id", "eid", "sku", "region", "station_id", "head_id"}
    assert json.loads(json.dumps(document)) == document


def test_references_lead_somewhere() -> None:
    text = json.dumps(describe())
    names = set(describe()["components"]["schemas"])
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= names
    assert "Problem" in referred
