"""Who gets in, and what they may do: real TLS, real certificates, every refusal on record."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from ifpp.errors import ServiceError
from ifpp.metrics import Metrics
from ifpp.model.clock import SystemClock
from ifpp.model.messages import Problem
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.routes import ROUTES, Route
from ifpp.storefront.server import serve
from ifpp.trust.callers import CallerRole
from ifpp.trust.site_pki import SitePki
from ifpp.trust.tls import server_context
from tests.clock import FakeClock
from tests.store.world import eid, package_item, request, states, stock
from tests.storefront.conftest import serving_tls, shown

ALL = set(CallerRole)


async def ask(url: str, tls: ssl.SSLContext, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Return status, and the code of a Problem."""
    data = None if body is None else msgspec.json.encode(body)
    async with aiohttp.ClientSession() as session, session.request(method, url + path, data=data, ssl=tls) as response:
        answer = await response.read()
        problem = msgspec.json.decode(answer, type=Problem).code if response.status >= 400 else ""
        return response.status, problem


def refused(factory: Factory) -> list[tuple[str, str, str, int]]:
    """Who was refused what, by the audit log."""
    with factory.audit_log() as log:
        entries = [entry for page in log.pages("factory") for entry in page if entry.kind == "refused"]
    facts = [msgspec.json.decode(entry.facts) for entry in entries]
    return [(one["who"], one["operation"], one["code"], one["times"]) for one in facts]


async def test_a_station_works_with_its_certificate(factory: Factory, pki: SitePki, metrics: Metrics) -> None:
    await asyncio.to_thread(stock, factory, 1)
    async with (
        serving_tls(factory, pki, SystemClock(), metrics) as url,
        StoreClient(url, timeout_s=30, tls=shown(pki)) as client,
    ):
        claim = await client.claim(request(1, "a"))
        package = claim.packages[0]
        assert await client.package(package.bpp_sha256) == package_item(1).bpp
        await client.sent(package.package_id, "a", "st01")
        await client.release("a", "st01")
    assert states(factory, 1) == ["SENT"]
    assert refused(factory) == []


# What each route may be called by, written down a second time on purpose.
MAY = {
    "claim": {"station"},
    "release": {"station"},
    "sent": {"station"},
    "package": {"station"},
    "gate": ALL,
    "openapi": ALL,
    "health": ALL,
    "ready": ALL,
}


async def test_every_role_may_do_what_the_table_says_and_nothing_else(
    factory: Factory, pki: SitePki, metrics: Metrics
) -> None:
    await asyncio.to_thread(stock, factory, 1)
    names = {"attempt_id": "a", "package_id": "p", "sha256": "0" * 64, "eid": str(eid(1))}
    assert set(MAY) <= {route.operation for route in ROUTES}

    async def admitted(url: str, role: str, route: Route) -> bool:
        status, code = await ask(url, shown(pki, role), route.method, route.path.format(**names))
        assert (status == 403) == (code == "STORE.FORBIDDEN")
        return status != 403

    async with serving_tls(factory, pki, SystemClock(), metrics) as url:
        for route in ROUTES:
            who = {role.value for role in CallerRole if await admitted(url, role, route)}
            assert who == {role.value for role in route.roles}, route.operation
            assert who == MAY.get(route.operation, who)
        for path in ("/", "/metrics", "/v1/", "/v2/claims"):
            assert await ask(url, shown(pki), "GET", path) == (404, "STORE.REFUSED")
    assert states(factory, 1) == ["AVAILABLE"]
    assert ("planner st01", "claim", "STORE.FORBIDDEN", 1) in refused(factory)
    assert metrics.value("ifpp_store_refusals_total", operation="claim", code="STORE.FORBIDDEN") == 3


async def test_nobody_speaks_in_the_name_of_another_station(factory: Factory, pki: SitePki, metrics: Metrics) -> None:
    await asyncio.to_thread(stock, factory, 1)
    async with serving_tls(factory, pki, SystemClock(), metrics) as url:
        other = shown(pki, name="st02")
        forbidden = (403, "STORE.FORBIDDEN")
        assert await ask(url, other, "POST", "/v1/claims", request(1, "a", station_id="st01")) == forbidden
        assert states(factory, 1) == ["AVAILABLE"]
        claim = factory.claim(request(1, "a", station_id="st01"), datetime.now(UTC))
        sent = f"/v1/packages/{claim.packages[0].package_id}/sent"
        for path, body in (
            (sent, {"attempt_id": "a", "station_id": "st01"}),
            ("/v1/claims/a/release", {"station_id": "st01"}),
        ):
            assert await ask(url, other, "POST", path, body) == forbidden
        # Under its own name it does not get far either.
        moved = (409, "CUSTODY.TRANSITION")
        assert await ask(url, other, "POST", sent, {"attempt_id": "a", "station_id": "st02"}) == moved
        assert await ask(url, other, "POST", "/v1/claims/a/release", {"station_id": "st02"}) == moved
    assert states(factory, 1) == ["CLAIMED"]
    assert {(who, operation, code) for who, operation, code, _ in refused(factory)} == {
        ("station st02", operation, code)
        for operation, code in (
            ("claim", "STORE.FORBIDDEN"),
            ("sent", "STORE.FORBIDDEN"),
            ("release", "STORE.FORBIDDEN"),
            ("sent", "CUSTODY.TRANSITION"),
            ("release", "CUSTODY.TRANSITION"),
        )
    }


async def test_a_revoked_station_is_out_at_once_also_on_an_open_connection(
    factory: Factory, pki: SitePki, metrics: Metrics, tmp_path: Path
) -> None:
    """In a copy of the CA's folder, for the others' sake."""
    folder = tmp_path / "pki"
    shutil.copytree(pki.ca.parent, folder)
    own = SitePki(folder)
    async with (
        serving_tls(factory, own, SystemClock(), metrics, crl=own.crl) as url,
        StoreClient(url, timeout_s=30, tls=shown(own)) as client,
    ):
        await client.release("a", "st01")
        own.revoke(own.certificate("station", "st01"))
        with pytest.raises(ServiceError, match=r"STORE\.FORBIDDEN.* of station st01 is revoked"):
            await client.release("a", "st01")
        assert (await ask(url, shown(own, name="st02"), "GET", "/healthz"))[0] == 200
        own.crl.unlink()
        assert await ask(url, shown(own, name="st02"), "GET", "/healthz") == (403, "STORE.FORBIDDEN")
    assert refused(factory)


async def test_a_certificate_that_ends_while_connected(factory: Factory, pki: SitePki, metrics: Metrics) -> None:
    clock = FakeClock(datetime.now(UTC))
    async with (
        serving_tls(factory, pki, clock, metrics) as url,
        StoreClient(url, timeout_s=30, tls=shown(pki)) as client,
    ):
        await client.release("a", "st01")
        clock.advance(731 * 24 * 3600)
        with pytest.raises(ServiceError, match=r"STORE\.FORBIDDEN.* is valid from"):
            await client.release("a", "st01")


async def test_who_shows_nothing_or_something_foreign_does_not_get_in(
    factory: Factory, pki: SitePki, metrics: Metrics, tmp_path: Path
) -> None:
    foreign = SitePki(tmp_path / "foreign")
    foreign.issue_caller(CallerRole.STATION, "st01")
    pretender = foreign.certificate("station", "st01")
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(pki.ca)
    alien = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alien.load_verify_locations(pki.ca)
    alien.load_cert_chain(pretender, pretender.with_suffix(".key"))
    own = pki.certificate("store", "127.0.0.1")
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(pki.ca)
    store.load_cert_chain(own, own.with_suffix(".key"))
    async with serving_tls(factory, pki, SystemClock(), metrics) as url:
        for context in (bare, alien, store):
            async with StoreClient(url, timeout_s=30, tls=context) as client:
                with pytest.raises(ServiceError, match=r"STORE\.UNREACHABLE"):
                    await client.release("a", "st01")
        assert (await ask(url, shown(pki), "GET", "/readyz"))[0] == 200
    # one entry, or one for every 5 s on a slow machine
    assert {(who, operation, code) for who, operation, code, _ in refused(factory)} == {
        ("unknown", "handshake", "STORE.FORBIDDEN")
    }
    assert metrics.value("ifpp_store_refusals_total", operation="handshake", code="STORE.FORBIDDEN") >= 3


async def test_an_expired_certificate_does_not_get_in(factory: Factory, metrics: Metrics, tmp_path: Path) -> None:
    own = SitePki(tmp_path / "pki")
    own.issue_store("127.0.0.1")
    own.issue_caller(CallerRole.STATION, "st01", datetime(2020, 1, 1, tzinfo=UTC))
    async with (
        serving_tls(factory, own, SystemClock(), metrics) as url,
        StoreClient(url, timeout_s=30, tls=shown(own)) as client,
    ):
        with pytest.raises(ServiceError, match=r"STORE\.UNREACHABLE"):
            await client.release("a", "st01")
    assert refused(factory) == [("unknown", "handshake", "STORE.FORBIDDEN", 1)]


async def test_old_tls_and_no_tls_are_refused(factory: Factory, pki: SitePki, metrics: Metrics) -> None:
    old = shown(pki)
    with warnings.catch_warnings(action="ignore"):  # Python warns of this version too
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with serving_tls(factory, pki, SystemClock(), metrics) as url:
        with pytest.raises(aiohttp.ClientError):
            await ask(url, old, "GET", "/healthz")
        with pytest.raises(aiohttp.ClientError):
            await ask(url.replace("https", "http"), old, "GET", "/healthz")
        two = shown(pki)
        two.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await ask(url, two, "GET", "/healthz"))[0] == 200


async def test_a_station_gives_nothing_to_a_store_it_does_not_know(
    factory: Factory, pki: SitePki, metrics: Metrics, tmp_path: Path
) -> None:
    """One with the certificate of a station, one of another CA, one of another host."""
    foreign = SitePki(tmp_path / "foreign")
    foreign.issue_store("127.0.0.1")
    pki.certificate("store", "elsewhere.example").exists() or pki.issue_store("elsewhere.example")
    for own in (
        pki.certificate("station", "st02"),
        foreign.certificate("store", "127.0.0.1"),
        pki.certificate("store", "elsewhere.example"),
    ):
        stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        context = server_context(pki.ca, own, own.with_suffix(".key"))
        serving = serve(
            build_app(factory, SystemClock()), "127.0.0.1", 0, stop=stop, ready=port.set_result, tls=context
        )
        task = asyncio.create_task(serving)
        async with StoreClient(f"https://127.0.0.1:{await port}", timeout_s=30, tls=shown(pki)) as client:
            with pytest.raises(ServiceError, match=r"STORE\.UNREACHABLE.*certificate"):
                await client.release("a", "st01")
        stop.set()
        await task


async def test_tls_without_anybody_at_the_door_lets_nobody_in(factory: Factory, pki: SitePki) -> None:
    own = pki.certificate("store", "127.0.0.1")
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    context = server_context(pki.ca, own, own.with_suffix(".key"))
    serving = serve(build_app(factory, SystemClock()), "127.0.0.1", 0, stop=stop, ready=port.set_result, tls=context)
    task = asyncio.create_task(serving)
    url = f"https://127.0.0.1:{await port}"
    assert await ask(url, shown(pki), "GET", "/healthz") == (403, "STORE.FORBIDDEN")
    stop.set()
    await task


async def test_a_handshake_that_does_not_come_to_its_end(
    factory: Factory, pki: SitePki, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifpp.storefront.server.HANDSHAKE_S", 0.2)
    async with serving_tls(factory, pki, SystemClock(), metrics) as url:
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=5) as slow:
            slow.settimeout(5)
            assert await asyncio.to_thread(slow.recv, 1) == b""
        assert (await ask(url, shown(pki), "GET", "/healthz"))[0] == 200


async def test_a_thousand_refusals_are_one_entry(factory: Factory, pki: SitePki, metrics: Metrics) -> None:
    async with serving_tls(factory, pki, SystemClock(), metrics) as url, aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.post(url + "/v1/claims", ssl=shown(pki, "planner")) as response:
                assert response.status == 403
    entries = refused(factory)  # one, or one for every 5 s on a slow machine
    assert {entry[:3] for entry in entries} == {("planner st01", "claim", "STORE.FORBIDDEN")}
    assert sum(times for *_, times in entries) == 50
    assert len(entries) < 10
