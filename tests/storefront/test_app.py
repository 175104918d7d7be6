"""The store over real HTTP on the loopback."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from ifpp.errors import FAULTS
from ifpp.metrics import Metrics
from ifpp.model.messages import Problem, UnitGate
from ifpp.store.factory import Factory
from ifpp.storefront.app import _WRITERS, MAX_BODY_BYTES, SWEEP_S, _Store
from ifpp.storefront.refusals import Refusals
from tests.clock import FakeClock
from tests.store.world import Node, eid, outcome, package_item, request, states, stock, take_one


async def ask(url: str, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
    async with aiohttp.ClientSession() as session, session.request(method, url + path, data=data) as response:
        return response.status, await response.read()


async def problem(url: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = await ask(url, method, path, body)
    document = msgspec.json.decode(answer, type=Problem)
    assert document.advice == FAULTS[document.code].advice
    return status, document.code


async def test_health_and_readiness(factory: Factory, url: str) -> None:
    assert (await ask(url, "GET", "/healthz"))[0] == 200
    status, body = await ask(url, "GET", "/readyz")
    assert (status, msgspec.json.decode(body)["factory_id"]) == (200, factory.factory_id)


async def test_a_store_without_database_is_alive_but_not_ready(
    factory: Factory, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    factory.close()
    (tmp_path / "factory.db").rename(tmp_path / "moved.db")
    (tmp_path / "factory.db").mkdir()
    assert (await ask(url, "GET", "/healthz"))[0] == 200
    assert await problem(url, "GET", "/readyz") == (503, "DATABASE.UNREACHABLE")


async def test_a_unit_goes_its_way(factory: Factory, url: str) -> None:
    stock(factory, 1)
    status, body = await ask(url, "POST", "/v1/claims", request(1, "a"))
    package = msgspec.json.decode(body)["packages"][0]
    assert status == 200
    assert await ask(url, "GET", f"/v1/packages/{package['bpp_sha256']}") == (200, package_item(1).bpp)
    notice = {"attempt_id": "a", "station_id": "st01"}
    assert await ask(url, "POST", f"/v1/packages/{package['package_id']}/sent", notice) == (204, b"")
    assert states(factory, 1) == ["SENT"]
    assert await ask(url, "POST", "/v1/claims/a/release", {"station_id": "st01"}) == (204, b"")
    assert states(factory, 1) == ["SENT"]


async def test_every_refusal_is_a_problem_with_its_code(factory: Factory, url: str) -> None:
    stock(factory, 2)
    absent = "0" * 64
    notice = {"attempt_id": "a", "station_id": "st01"}
    assert await problem(url, "POST", "/v1/claims", request(9)) == (404, "EID.UNKNOWN")
    assert await problem(url, "POST", "/v1/claims", request(1, sku="X")) == (404, "SKU.UNKNOWN")
    assert await problem(url, "POST", "/v1/claims", request(1, region="X")) == (404, "REGION.UNKNOWN")
    assert await problem(url, "GET", f"/v1/packages/{absent}") == (404, "BPP.NOT_FOUND")
    assert await problem(url, "POST", "/v1/packages/x/sent", notice) == (404, "BPP.NOT_FOUND")
    factory.claim(request(1, "b"), FakeClock().now())
    assert await problem(url, "POST", "/v1/claims", request(1, head_id="h02")) == (409, "BPP.TAKEN")
    assert await problem(url, "POST", "/v1/packages/000002-0000001/sent", notice) == (409, "CUSTODY.TRANSITION")
    assert await problem(url, "POST", "/v1/claims", request(2, "b")) == (409, "STORE.REFUSED")
    word = outcome(1, 0, "INSTALLED", package_id="000002-0000001")
    take_one(factory, Node().result(1, "b", [word]))
    assert await problem(url, "POST", "/v1/claims", request(1)) == (409, "UNIT.ALREADY_LOADED")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/v1/packages/xyz", None, 404),
        ("GET", "/v1/packages/../../etc/passwd", None, 404),
        ("POST", "/v1/packages/%00/sent", b"{}", 404),
        ("GET", "/v1/claims", None, 405),
        ("POST", "/v1/claims", b"", 400),
        ("POST", "/v1/claims", b"{", 400),
        ("POST", "/v1/claims", b"\xff\xfe", 400),
        ("POST", "/v1/claims", b"[" * 10_000, 400),
        ("POST", "/v1/claims", b"{}", 400),
        ("POST", "/v1/claims", {"attempt_id": "a", "station_id": "s", "extra": 1}, 400),
        ("POST", "/v1/claims/a/release", {"station_id": 5}, 400),
        ("POST", "/v1/packages/x/sent", {"station_id": "st01"}, 400),
        ("POST", "/v1/claims", b'"' + b"x" * MAX_BODY_BYTES + b'"', 413),
    ],
)
async def test_what_is_no_request_is_a_problem_too(url: str, method: str, path: str, body: Any, status: int) -> None:
    assert await problem(url, method, path, body) == (status, "STORE.REFUSED")


async def test_nonsense_inside_a_request_is_refused(factory: Factory, url: str) -> None:
    stock(factory, 1)
    assert await problem(url, "POST", "/v1/claims", request(1, sku="a\x00b")) == (400, "STORE.REFUSED")
    assert await problem(url, "POST", "/v1/claims", request(1, lease_s=-5)) == (400, "STORE.REFUSED")


async def test_a_locked_database_is_reported_and_recovers(factory: Factory, url: str, tmp_path: Path) -> None:
    stock(factory, 1)
    with closing(sqlite3.connect(tmp_path / "factory.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await problem(url, "POST", "/v1/claims", request(1, "a")) == (503, "DATABASE.UNREACHABLE")
        assert (await ask(url, "GET", f"/v1/packages/{package_item(1).bpp_sha256}"))[0] == 200
        other.execute("ROLLBACK")
    assert (await ask(url, "POST", "/v1/claims", request(1, "a")))[0] == 200


async def test_a_fault_in_one_request_does_not_take_the_store_away(
    factory: Factory, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(factory, 1)

    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(factory, "claim", broken)
        assert await problem(url, "POST", "/v1/claims", request(1, "a")) == (500, "INTERNAL")
    assert (await ask(url, "POST", "/v1/claims", request(1, "a")))[0] == 200


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def test_expired_leases_are_swept(factory: Factory, clock: FakeClock, url: str) -> None:
    stock(factory, 1)
    await ask(url, "POST", "/v1/claims", request(1, "a", lease_s=8))
    for _ in range(2):
        await until(lambda: clock.sleepers == 1)
        assert states(factory, 1) == ["CLAIMED"]
        clock.advance(SWEEP_S)
    await until(lambda: states(factory, 1) == ["AVAILABLE"])


async def test_a_refusal_is_kept_when_the_store_stops_before_it_is_written(
    factory: Factory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals, gate = Refusals(None), threading.Event()
    store = _Store(factory, clock, None, None, refusals, lambda: None)

    def fill() -> None:
        for _ in range(_WRITERS):
            store._writer.submit(gate.wait)

    monkeypatch.setattr(factory, "ping", fill)
    refusals.add("somebody", "claim", "STORE.FORBIDDEN", "no station")
    running = store.running(web.Application())
    await anext(running)
    await until(lambda: not refusals._open)  # taken; what writes it waits behind others
    stopping = asyncio.create_task(anext(running, None), name="stopping")
    await asyncio.sleep(0.05)
    gate.set()
    await stopping
    with factory.audit_log() as log:
        kinds = [entry.kind for page in log.pages("factory") for entry in page]
    assert kinds.count("refused") == 1


async def test_a_sweep_that_fails_is_tried_again(factory: Factory, clock: FakeClock, url: str, tmp_path: Path) -> None:
    stock(factory, 1)
    await ask(url, "POST", "/v1/claims", request(1, "a", lease_s=1))
    await until(lambda: clock.sleepers == 1)
    with closing(sqlite3.connect(tmp_path / "factory.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        clock.advance(SWEEP_S)
        await asyncio.sleep(0)
        await until(lambda: clock.sleepers == 1)
        assert states(factory, 1) == ["CLAIMED"]
        other.execute("ROLLBACK")
    clock.advance(SWEEP_S)
    await until(lambda: states(factory, 1) == ["AVAILABLE"])


async def test_answers_are_measured(factory: Factory, metrics: Metrics, url: str) -> None:
    stock(factory, 1)
    await ask(url, "POST", "/v1/claims", request(1))
    await ask(url, "POST", "/v1/claims", request(9))
    await ask(url, "GET", "/nothing")
    for operation, status in (("claim", "200"), ("claim", "404"), ("unknown", "404")):
        count = metrics.value("ifpp_store_request_seconds_count", operation=operation, status=status)
        assert (operation, status, count) == (operation, status, 1.0)


async def test_the_gate_answers_the_mes(factory: Factory, url: str) -> None:
    stock(factory, 1)
    path = f"/v1/units/{eid(1)}/gate"
    status, body = await ask(url, "GET", path)
    before = msgspec.json.decode(body, type=UnitGate)
    assert (status, before.clean_to_ship, before.code) == (200, False, "GATE.NOT_SEALED")
    factory.claim(request(1, "a"), FakeClock().now())
    take_one(factory, Node().result(1, "a", [outcome(1, 0, "INSTALLED", package_id="000002-0000001")]))
    status, body = await ask(url, "GET", path)
    after = msgspec.json.decode(body, type=UnitGate)
    assert (status, after.clean_to_ship, after.signed) == (200, True, False)
    assert after.proof is not None
    assert after.proof.entry["facts"]["eid"] == eid(1)
    assert await problem(url, "GET", f"/v1/units/{eid(9)}/gate") == (404, "EID.UNKNOWN")
    assert await problem(url, "GET", "/v1/units/xyz/gate") == (404, "STORE.REFUSED")
