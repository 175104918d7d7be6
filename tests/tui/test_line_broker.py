"""The line's screens at a real Mosquitto that lets in nobody without a certificate: an auditor's is enough."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession, CookieJar

from ifpp.bus.visit import visit
from ifpp.errors import SettingsError
from ifpp.model.messages import Online
from ifpp.roles.line_screen import show_line
from ifpp.roles.people import write_people
from tests.roles.test_pki_broker import BASE, Broker, broker
from tests.tui import pictures
from tests.tui.test_web import BADGE, PEOPLE

__all__ = ["broker"]

PATIENCE_S = 60.0


def tui(*words: str) -> list[str]:
    return [sys.executable, "-m", "ifpp", *words]


async def until_says(process: Process, text: str) -> None:
    assert process.stdout is not None
    seen = b""
    async with asyncio.timeout(PATIENCE_S):
        while text.encode() not in seen:
            line = await process.stdout.readline()
            assert line, seen.decode()
            seen += line


@pytest.mark.needs("mosquitto")
async def test_line_screens_show_their_own_certificate_to_the_broker(broker: Broker, tmp_path: Path) -> None:
    auditor = broker.pki.certificate("auditor", "anna")
    site, people = str(broker.site), tmp_path / "people.toml"
    write_people(people, PEOPLE)
    supervisor = broker.pki.certificate("supervisor", "L1")
    for unused in (supervisor, supervisor.with_suffix(".key")):  # a screen's machine has none
        unused.rename(unused.with_suffix(".away"))
    shown = ("--cert", str(auditor), "--key", str(auditor.with_suffix(".key")))
    plain = await asyncio.create_subprocess_exec(
        *tui("tui", "--line", "--plain", "--config", site, *shown), stdout=PIPE
    )
    try:
        await until_says(plain, "connected to L1")
        here = Online(schema="online/1.0", node_id="st01", online=True, session=1, boot_id="b", ts=pictures.AT)
        async with visit(broker.address("station", "st01"), "L1", []) as station:
            await station.publish(f"{BASE}/st01/state/online", msgspec.json.encode(here))
            await station.publish(f"{BASE}/st01/state/station", msgspec.json.encode(pictures.troubled()))
            await until_says(plain, "station st01: LOST, job JO-1042, heads out of work 2")
    finally:
        plain.terminate()
        await plain.wait()
    assert plain.returncode == 0

    own = ("--screen-cert", str(auditor), "--screen-key", str(auditor.with_suffix(".key")))
    words = tui("tui-serve", "--people", str(people), "--config", site, "--port", "0", *own)
    server = await asyncio.create_subprocess_exec(*words, stdout=PIPE)
    assert server.stdout is not None
    try:
        port = json.loads(await asyncio.wait_for(server.stdout.readline(), PATIENCE_S))["port"]
        assert "No supervisor" in await in_browser(f"http://127.0.0.1:{port}", "No supervisor")
    finally:
        server.terminate()
        await server.wait()


async def in_browser(url: str, text: str) -> str:
    """Log in and return what the screen has sent up to `text`."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session, asyncio.timeout(PATIENCE_S):
        page = await (await session.get(f"{url}/login")).text()
        form = {"badge": BADGE, "token": page.split('name="token" value="')[1].split('"')[0]}
        await session.post(f"{url}/login", data=form, headers={"Origin": url})
        async with session.ws_connect(f"{url}/ws?width=80&height=24", headers={"Origin": url}) as socket:
            seen = ""
            async for message in socket:
                seen += message.data.decode() if isinstance(message.data, bytes) else str(message.data)
                if text in seen:
                    break
    return seen


@pytest.mark.parametrize(
    ("cert", "key"), [(Path("a.pem"), None), (None, Path("a.key")), (Path("a.pem"), Path("a.key"))]
)
def test_a_certificate_needs_its_key_and_a_broker_with_tls(tmp_path: Path, cert: Path | None, key: Path | None) -> None:
    site = tmp_path / "site.toml"
    site.write_text('enterprise="E"\nsite="S"\narea="A"\nline="L7"\n')
    with pytest.raises(SettingsError, match="--cert, --key"):
        show_line(site, language="en", ascii_only=False, wall=False, plain=True, cert=cert, key=key)
