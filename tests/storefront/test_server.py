"""Where the store may listen, and how it stops."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import msgspec
import pytest

from ifpp.errors import SettingsError
from ifpp.model.messages import Claim, ClaimRequest
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.server import serve
from tests.clock import FakeClock
from tests.store.world import request, states, stock
from tests.storefront.conftest import serving


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "store.example"])  # noqa: S104
async def test_no_plain_http_beyond_this_machine(factory: Factory, clock: FakeClock, host: str) -> None:
    app = build_app(factory, clock)
    with pytest.raises(SettingsError, match="without TLS"):
        await serve(app, host, 0, stop=asyncio.Event(), ready=lambda _: pytest.fail("it must not listen"))


async def test_an_address_in_use(factory: Factory, clock: FakeClock) -> None:
    async with serving(factory, clock) as url:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(SettingsError, match="cannot listen"):
            await serve(build_app(factory, clock), "127.0.0.1", port, stop=asyncio.Event(), ready=lambda _: None)


async def test_stopping_lets_the_claim_under_way_finish(
    factory: Factory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is in the database when stop comes: its answer still goes out."""
    stock(factory, 1)
    entered, may_go = threading.Event(), threading.Event()
    claim = factory.claim

    def slow(wanted: ClaimRequest, now: object) -> Claim:
        entered.set()
        assert may_go.wait(10)
        return claim(wanted, clock.now())

    monkeypatch.setattr(factory, "claim", slow)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(
        serve(build_app(factory, clock), "localhost", 0, stop=stop, ready=port.set_result), name="store"
    )
    url = f"http://localhost:{await port}/v1/claims"
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(url, data=msgspec.json.encode(request(1, "a"))), name="asking")
        await asyncio.to_thread(entered.wait, 10)
        stop.set()
        await asyncio.sleep(0)
        may_go.set()
        response = await asking
        assert response.status == 200
        response.release()
    await server
    assert states(factory, 1) == ["CLAIMED"]
