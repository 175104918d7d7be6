"""The client half: what it makes of everything a store, or something in its place, can answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from ifpp.errors import CustodyError, IfppError, ServiceError, SupplyError
from ifpp.model.messages import Problem
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from tests.clock import FakeClock
from tests.store.world import eid, package_item, request, states, stock
from tests.storefront.conftest import serving


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[StoreClient]:
    """A client of something that answers everything in one way."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with StoreClient(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=0.5) as client:
            yield client
    finally:
        await runner.cleanup()


async def fault(call: Awaitable[object], kind: type[IfppError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.code


async def test_a_unit_goes_its_way(factory: Factory) -> None:
    await asyncio.to_thread(stock, factory, 1, 2)
    async with serving(factory, FakeClock()) as url, StoreClient(url + "/", timeout_s=30) as client:
        assert await fault(client.claim(request(1, sku="X")), SupplyError) == "SKU.UNKNOWN"
        wanted = request(1, "a")
        wanted.eid = eid(1)  # an Eid is a text too
        claim = await client.claim(wanted)
        first, second = claim.packages
        assert await client.package(first.bpp_sha256) == package_item(1, 0).bpp
        await client.sent(first.package_id, "a", "st01")
        await client.sent(first.package_id, "a", "st01")
        await client.release("a", "st01")
        assert states(factory, 1) == ["SENT", "AVAILABLE"]
        assert await fault(client.sent(second.package_id, "a", "st01"), CustodyError) == "CUSTODY.TRANSITION"
        assert await fault(client.claim(request(9)), SupplyError) == "EID.UNKNOWN"
        assert await fault(client.package("0" * 64), SupplyError) == "BPP.NOT_FOUND"
        assert await fault(client.package("../../x"), ServiceError) == "STORE.REFUSED"
        assert await fault(client.claim(request(1, "a")), ServiceError) == "STORE.REFUSED"
        assert (await client.claim(request(1, "b"))).unresolved[0].package_id == first.package_id


async def test_connections_are_kept_alive() -> None:
    peers = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(status=204)

    async with answering(handler) as client:
        for _ in range(5):
            await client.release("a", "st01")
    assert len(peers) == 1


async def test_nobody_is_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with StoreClient(f"http://127.0.0.1:{unused.getsockname()[1]}", timeout_s=0.5) as client:
            assert await fault(client.claim(request(1)), ServiceError) == "STORE.UNREACHABLE"


async def test_nobody_answers() -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with answering(handler) as client:
        client._timeout = client._timeout.__class__(total=0.1)
        assert await fault(client.claim(request(1)), ServiceError) == "STORE.UNREACHABLE"


async def test_a_name_that_does_not_resolve_and_an_address_that_is_none() -> None:
    async with StoreClient("http://store.invalid:1", timeout_s=2) as client:
        assert await fault(client.package("0" * 64), ServiceError) == "STORE.UNREACHABLE"
    async with StoreClient("no address", timeout_s=1) as client:
        assert await fault(client.package("0" * 64), ServiceError) == "STORE.REFUSED"


async def test_the_line_breaks_in_the_middle_of_a_package() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "45000"})
        await response.prepare(request)
        await response.write(b"x" * 1000)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with answering(handler) as client:
        assert await fault(client.package("0" * 64), ServiceError) == "STORE.UNREACHABLE"


def saying(status: int, body: bytes) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    return handler


def problem(code: str) -> bytes:
    return msgspec.json.encode(Problem(code=code, detail="because", advice="do"))


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (502, b"<html>Bad gateway</html>", ServiceError, "STORE.UNREACHABLE"),
        (404, b"<html>Not here</html>", ServiceError, "STORE.REFUSED"),
        (302, b"", ServiceError, "STORE.REFUSED"),
        (200, b"<html>Welcome</html>", ServiceError, "STORE.REFUSED"),
        (200, b"{}", ServiceError, "STORE.REFUSED"),
        (409, problem("BPP.TAKEN"), SupplyError, "BPP.TAKEN"),
        (409, problem("UNIT.ALREADY_LOADED"), SupplyError, "UNIT.ALREADY_LOADED"),
        (409, problem("CUSTODY.TRANSITION"), CustodyError, "CUSTODY.TRANSITION"),
        (503, problem("DATABASE.UNREACHABLE"), ServiceError, "DATABASE.UNREACHABLE"),
        (500, problem("INTERNAL"), ServiceError, "INTERNAL"),
        (409, problem("BPP.FROM_A_NEWER_STORE"), ServiceError, "STORE.REFUSED"),
    ],
)
async def test_every_answer_has_its_error(status: int, body: bytes, kind: type[IfppError], code: str) -> None:
    async with answering(saying(status, body)) as client:
        assert await fault(client.claim(request(1)), kind) == code


async def test_a_package_that_is_not_the_one_asked_for() -> None:
    async with answering(saying(200, b"another package")) as client:
        assert await fault(client.package(package_item(1).bpp_sha256), ServiceError) == "STORE.REFUSED"


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifpp.store.client._MAX_ANSWER_BYTES", 1000)
    async with answering(saying(200, b"x" * 5000)) as client:
        assert await fault(client.package("0" * 64), ServiceError) == "STORE.REFUSED"
