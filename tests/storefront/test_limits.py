"""Slow, cut off and over-large requests, and tricks in every field: a clear answer, and nothing has changed."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from ifpp.metrics import Metrics
from ifpp.model.messages import Problem
from ifpp.store.factory import Factory
from ifpp.storefront.app import MAX_BODY_BYTES
from tests.clock import FakeClock
from tests.store.world import request, states, stock
from tests.storefront.conftest import serving
from tests.storefront.test_tls import refused

HEAD = b"POST /v1/claims HTTP/1.1\r\nHost: store\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and fault code of everything that comes until the store closes."""
    async with asyncio.timeout(60):
        text = await reader.read()
    head, _, body = text.partition(b"\r\n\r\n")
    return int(head.split()[1]), msgspec.json.decode(body, type=Problem).code


async def healthy(url: str) -> bool:
    async with aiohttp.ClientSession() as session, session.get(url + "/healthz") as response:
        return response.status == 200


async def test_a_body_that_does_not_come(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifpp.storefront.app.BODY_S", 0.2)
    async with connected(url) as (reader, writer):
        writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"attempt_id"')
        assert await answer(reader) == (408, "STORE.REFUSED")
    assert await healthy(url)


async def test_a_head_that_does_not_come(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dripping(begin: bytes) -> bytes:
        async with connected(url) as (reader, writer), asyncio.timeout(60):
            writer.write(begin)
            return await reader.read()

    monkeypatch.setattr("ifpp.storefront.server.FIRST_ANSWER_S", 0.2)
    assert await dripping(b"") == b""
    assert await dripping(HEAD) == b""
    async with connected(url) as (reader, writer):  # who has had an answer may stay
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: store\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b'{"alive":true}'))
            await asyncio.sleep(0.3)


async def test_a_request_that_is_cut_off_changes_nothing(factory: Factory, url: str) -> None:
    stock(factory, 1)
    body = msgspec.json.encode(request(1, "a"))
    for length in (0, 1, len(body) // 2, len(body) - 1):
        async with connected(url) as (_, writer):
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:length])
            await writer.drain()
    assert await healthy(url)
    assert states(factory, 1) == ["AVAILABLE"]


@pytest.mark.parametrize("length", [b"Content-Length: %d" % (MAX_BODY_BYTES + 4096), b"Transfer-Encoding: chunked"])
async def test_an_over_large_body_is_not_read_to_its_end(url: str, length: bytes) -> None:
    chunk = b" " * 4096
    if length.startswith(b"Transfer"):
        chunk = b"1000\r\n" + chunk + b"\r\n"
    async with connected(url) as (reader, writer):
        writer.write(HEAD + length + b"\r\n\r\n")
        for _ in range(MAX_BODY_BYTES // 4096 + 1):
            writer.write(chunk)
        async with asyncio.timeout(60):
            assert (await reader.readline()).split()[1] == b"413"
    assert await healthy(url)


async def test_a_body_that_grows_when_it_is_unpacked(url: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/claims", data=bomb, headers=headers) as response,
    ):
        assert response.status == 413
    assert await healthy(url)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: s\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_http(url: str, metrics: Metrics, garbage: bytes) -> None:
    async with connected(url) as (reader, writer), asyncio.timeout(60):
        writer.write(garbage)
        assert await answer(reader) == (400, "STORE.REFUSED")
    assert await healthy(url)
    assert metrics.value("ifpp_store_refusals_total", operation="unknown", code="STORE.REFUSED") == 1


async def test_more_connections_than_there_is_room_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifpp.storefront.server.MAX_CONNECTIONS", 3)
    port = int(url.rsplit(":", 1)[1])
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    for _, one in held:
        one.close()
        await one.wait_closed()
    await asyncio.sleep(0.05)
    assert await healthy(url)


async def test_after_stop_nobody_new_is_taken(factory: Factory, clock: FakeClock, metrics: Metrics) -> None:
    async with serving(factory, clock, metrics) as url:
        port = int(url.rsplit(":", 1)[1])
        idle = await asyncio.open_connection("127.0.0.1", port)
    assert await idle[0].read() == b""
    idle[1].close()
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


# ---- tricks -------------------------------------------------------------------------------------------

TRICKS = [
    "' OR '1'='1",
    "'; DROP TABLE package; --",
    '" OR ""="',
    "x' UNION SELECT value FROM meta --",
    "\\'; DELETE FROM ledger; --",
    "$1; SELECT pg_sleep(10)",
    "%s%s%n",
    "../../../../etc/passwd",
    "..\\..\\factory.db",
    "/etc/passwd",
    "file:///etc/passwd",
    "%2e%2e%2f%2e%2e%2f",
    "a\x00b",
    "a\nb: c\r\n",
    "\u202eabc",
    "x" * 129,
    "",
]
FIELDS = ["attempt_id", "eid", "sku", "region", "station_id", "head_id"]


@pytest.mark.parametrize("field", FIELDS)
async def test_tricks_in_every_field_of_a_claim(
    factory: Factory, url: str, clock: FakeClock, metrics: Metrics, field: str
) -> None:
    stock(factory, 1)
    async with aiohttp.ClientSession() as session:
        for trick in TRICKS:
            body: dict[str, Any] = msgspec.to_builtins(request(1, "a")) | {field: trick}
            async with session.post(url + "/v1/claims", data=msgspec.json.encode(body)) as response:
                problem = msgspec.json.decode(await response.read(), type=Problem)
            assert (response.status, problem.code) in {
                (400, "STORE.REFUSED"),
                (404, f"{field.upper()}.UNKNOWN"),
            }, trick
            assert problem.detail
    await unchanged(factory, clock)
    counted = sum(
        metrics.value("ifpp_store_refusals_total", operation="claim", code=code)
        for code in ("STORE.REFUSED", f"{field.upper()}.UNKNOWN")
    )
    assert counted == len(TRICKS)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/claims/{}/release", {"station_id": "st01"}),
        ("/v1/claims/a/release", {"station_id": "{}"}),
        ("/v1/packages/{}/sent", {"attempt_id": "a", "station_id": "st01"}),
        ("/v1/packages/000002-0000001/sent", {"attempt_id": "{}", "station_id": "st01"}),
        ("/v1/packages/000002-0000001/sent", {"attempt_id": "a", "station_id": "{}"}),
        ("/v1/packages/{}", None),
        ("/v1/units/{}/gate", None),
    ],
)
async def test_tricks_everywhere_else(
    factory: Factory, url: str, clock: FakeClock, path: str, body: dict[str, str] | None
) -> None:
    stock(factory, 1)
    async with aiohttp.ClientSession() as session:
        for trick in filter(None, TRICKS):
            where = url + path.replace("{}", trick)
            sent = None if body is None else {name: value.replace("{}", trick) for name, value in body.items()}
            data = None if sent is None else msgspec.json.encode(sent)
            method = "GET" if body is None else "POST"
            async with session.request(method, where, data=data) as response:
                problem = msgspec.json.decode(await response.read(), type=Problem)
            assert response.status in (400, 404, 405), (trick, problem)
            assert problem.code == "STORE.REFUSED"
    await unchanged(factory, clock)


async def unchanged(factory: Factory, clock: FakeClock) -> None:
    """The books are as they were, and the audit log says that somebody tried."""
    assert states(factory, 1) == ["AVAILABLE"]
    async with asyncio.timeout(60):
        while clock.sleepers == 0:  # noqa: ASYNC110 - the sweep waits for the clock
            await asyncio.sleep(0.01)
        clock.advance(5)
        while not refused(factory):  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)
    assert {who for who, *_ in refused(factory)} == {"127.0.0.1"}
    assert factory.audit() == []
    (balance,) = factory.balance()
    assert balance.available == 1
