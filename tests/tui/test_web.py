"""Screens in a browser: who gets in, who does not, and the real thing in a real Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from ifpp.errors import SettingsError
from ifpp.roles import web
from ifpp.roles.people import write_people
from ifpp.roles.web import Door, serve
from ifpp.settings import People, Person
from ifpp.trust.people import badge_hash, new_salt
from ifpp.tui.web import Screens, Sessions
from ifpp.tui.words import Words
from tests.tui.browser import PATIENCE_S, Page, browser

SALT = new_salt()
BADGE = "B-2222"
PEOPLE = People(SALT, {"bob": Person(role="operator", badge=badge_hash(BADGE, SALT))})
QUITS = "import sys; print('__GANGLION__', flush=True)\nwhile b'quit' not in sys.stdin.buffer.read1(4096): pass"
ECHO = [sys.executable, "-c", QUITS]


class Hand:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@asynccontextmanager
async def served(clock: Hand, idle_s: float = 60.0, *, wall: bool = False) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    sessions = Sessions(lambda: PEOPLE, clock, idle_s)  # type: ignore[arg-type]
    screens = Screens(ECHO, sessions, Words(), secure=False, wall=wall)
    async with TestClient(TestServer(screens.app())) as client:
        yield client


def origin(client: TestClient) -> dict[str, str]:  # type: ignore[type-arg]
    return {"Origin": f"http://{client.host}:{client.port}"}


async def log_in(client: TestClient, badge: str, headers: dict[str, str] | None = None) -> int:  # type: ignore[type-arg]
    page = await (await client.get("/login")).text()
    token = page.split('name="token" value="')[1].split('"')[0]
    form = {"badge": badge, "token": token}
    answer = await client.post("/login", data=form, headers=headers or origin(client), allow_redirects=False)
    return answer.status


async def test_who_is_not_logged_in_sees_the_form_alone() -> None:
    async with served(Hand()) as client:
        answer = await client.get("/", allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/login")
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/ws", headers=origin(client))
        assert refused.value.status == 401


async def test_a_badge_opens_a_session_that_scripts_and_other_sites_cannot_use() -> None:
    async with served(Hand()) as client:
        assert await log_in(client, BADGE) == 303
        cookie = next(one for one in client.session.cookie_jar if one.key == "ifpp_session")
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"
        page = await client.get("/")
        assert page.status == 200
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert "//" not in (await page.text()).replace("ws://", "")  # nothing from elsewhere
        for headers in ({}, {"Origin": "http://evil.example"}):
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect("/ws", headers=headers)
            assert refused.value.status == 403
        async with client.ws_connect("/ws", headers=origin(client)) as socket:
            await socket.send_json(["ping", "x"])
            assert await socket.receive_json() == ["pong", "x"]


async def test_a_form_of_another_site_logs_nobody_in() -> None:
    async with served(Hand()) as client:
        assert await log_in(client, BADGE, {"Origin": "http://evil.example"}) == 403
        answer = await client.post("/login", data={"badge": BADGE, "token": "guess"}, headers=origin(client))
        assert answer.status == 403


async def test_wrong_badges_are_refused_and_after_some_right_ones_too_for_a_while() -> None:
    clock = Hand()
    async with served(clock) as client:
        assert [await log_in(client, f"wrong-{number}") for number in range(5)] == [401] * 5
        assert await log_in(client, BADGE) == 429
        clock.now_s += 61.0
        assert await log_in(client, BADGE) == 303


async def test_a_session_ends_when_nobody_presses_a_key() -> None:
    clock = Hand()
    async with served(clock) as client:
        assert await log_in(client, BADGE) == 303
        async with client.ws_connect("/ws", headers=origin(client)) as socket:
            clock.now_s += 50.0
            await socket.send_json(["stdin", "a"])
            await socket.send_json(["ping", "x"])
            await socket.receive_json()
            clock.now_s += 50.0
            assert (await client.get("/", allow_redirects=False)).status == 200
            clock.now_s += 11.0
            assert (await client.get("/", allow_redirects=False)).status == 303
            assert (await socket.receive(timeout=PATIENCE_S)).data in (1000, None)


async def test_a_wall_stays_open_though_nobody_presses_a_key() -> None:
    clock = Hand()
    async with served(clock, wall=True) as client:
        assert await log_in(client, BADGE) == 303
        async with client.ws_connect("/ws", headers=origin(client)) as socket:
            clock.now_s += 100_000.0
            assert (await client.get("/", allow_redirects=False)).status == 200
            await socket.send_json(["ping", "x"])
            assert await socket.receive_json() == ["pong", "x"]
        clock.now_s += 59.0
        assert (await client.get("/", allow_redirects=False)).status == 200
        clock.now_s += 2.0
        assert (await client.get("/", allow_redirects=False)).status == 303


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    cert, key = tls_files(tmp_path)
    context = web.tls(Door("127.0.0.1", 0, cert, key, tmp_path / "people.toml", 60.0, "en"))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        first = await shown_at(port)
        assert first == ssl.PEM_cert_to_DER_cert(cert.read_text())
        key.write_text("half written")
        assert await shown_at(port) == first
        tls_files(tmp_path)
        assert await shown_at(port) == ssl.PEM_cert_to_DER_cert(cert.read_text()) != first


async def shown_at(port: int) -> bytes:
    """Return the certificate a browser is shown."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anybody)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_who_leaves_is_out_and_so_are_the_screens() -> None:
    async with served(Hand()) as client:
        assert await log_in(client, BADGE) == 303
        async with client.ws_connect("/ws", headers=origin(client)) as socket:
            await client.post("/logout", headers=origin(client), allow_redirects=False)
            assert (await socket.receive(timeout=PATIENCE_S)).data in (1000, None)
        assert (await client.get("/", allow_redirects=False)).status == 303


@pytest.mark.parametrize("message", ["{", "[]", '["resize", {}]', '["resize", 1]', '["stdin"]', "7"])
async def test_what_is_no_message_ends_the_screen_and_nothing_else(message: str) -> None:
    async with served(Hand()) as client:
        assert await log_in(client, BADGE) == 303
        async with client.ws_connect("/ws", headers=origin(client)) as socket:
            await socket.send_str(message)
            assert (await socket.receive(timeout=PATIENCE_S)).data in (1000, None)
        assert (await client.get("/")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "plant.example"])  # noqa: S104 - refused
def test_beyond_this_machine_only_with_tls(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--cert"):
        serve([], Door(host, 0, None, None, tmp_path / "people.toml", 60.0, "en"))


# ---- the real thing -----------------------------------------------------------------------------------


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium (apt-get install chromium)")
    return found


def tls_files(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "web.pem", folder / "web.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += [
        "-keyout",
        str(key),
        "-out",
        str(cert),
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE_S)
    return cert, key


@pytest.mark.needs("chromium")
async def test_a_person_looks_at_the_line_in_a_browser(tmp_path: Path, chromium: str) -> None:
    people, site = tmp_path / "people.toml", tmp_path / "site.toml"
    write_people(people, PEOPLE)
    site.write_text('enterprise="E"\nsite="S"\narea="A"\nline="L7"\n[broker]\nhost="127.0.0.1"\nport=1\n')
    cert, key = tls_files(tmp_path)
    words = [sys.executable, "-m", "ifpp", "tui-serve", "--people", str(people), "--config", str(site), "--port", "0"]
    words += ["--cert", str(cert), "--key", str(key)]
    server = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        port = json.loads(await asyncio.wait_for(server.stdout.readline(), PATIENCE_S))["port"]
        url = f"https://127.0.0.1:{port}"
        async with browser(chromium, tmp_path / "profile") as page:
            await page.call("Page.navigate", url=f"{url}/")
            await page.until("location.pathname == '/login' && !!document.querySelector('#badge')")
            await type_badge(page, "nobody's")
            await page.until("!!document.querySelector('.wrong')")
            assert not page.frames
            async with ClientSession() as session:
                with pytest.raises(WSServerHandshakeError) as refused:
                    await session.ws_connect(f"{url}/ws", ssl=False, headers={"Origin": url})
                assert refused.value.status == 401
            await type_badge(page, BADGE)
            await page.shows("No connection to the broker yet")
            await page.until("document.body.classList.contains('-first-byte')")
            before = await page.picture()
            await page.js("document.querySelector('textarea').focus()")
            await page.key("F1", 112)
            await page.shows("looks at the whole line")
            await page.js("new Promise(done => setTimeout(done, 300))")  # until it is drawn
            after = await page.picture()
            (tmp_path / "before.png").write_bytes(before)
            (tmp_path / "after.png").write_bytes(after)
            assert before != after
            await page.js("document.querySelector('.over form').submit()")
            await page.until("location.pathname == '/login'")
            assert {one.split("/")[2] for one in page.asked if "://" in one} == {f"127.0.0.1:{port}"}
    finally:
        server.terminate()
        await server.wait()


async def type_badge(page: Page, badge: str) -> None:
    script = f"document.querySelector('#badge').value = {json.dumps(badge)}; document.querySelector('form').submit()"
    await page.js(script)
