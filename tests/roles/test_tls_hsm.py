"""deploy/tls-hsm.md, block by block: a station's TLS key in SoftHSM, stunnel, a store and a broker that want it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
import shutil
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from ifpp.bus.broker import free_port
from ifpp.bus.client import BrokerAddress
from ifpp.bus.visit import visit
from ifpp.errors import IfppError, ServiceError
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles import pki as command
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from tests.real.softhsm import SoftToken
from tests.roles.test_pki_broker import BASE, MARK, PATIENCE_S, Broker, heard
from tests.store.world import request, stock
from tests.storefront.conftest import serving_tls

RECIPE = (Path(__file__).parents[2] / "deploy" / "tls-hsm.md").read_text()
ENGINES = sorted(Path("/usr/lib").glob("*/engines-3/pkcs11.so"))
MISSING = [name for name in ("stunnel4", "pkcs11-tool", "openssl") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.breaks_the_contract,
    pytest.mark.needs("mosquitto"),
    pytest.mark.skipif(
        os.environ.get("CI") != "true" and bool(MISSING or not ENGINES),
        reason="stunnel4, opensc or libengine-pkcs11-openssl is not installed",
    ),
]


def run(block: str, folder: Path, facts: dict[str, str], *, typed: str = "") -> str:
    """Run a block of the recipe at a terminal of its own; what is typed is typed when a question stands there."""
    found = re.search(rf"```sh {block}\n(.*?)```", RECIPE, re.DOTALL)
    assert found, block
    setup = f"cd {shlex.quote(str(folder))}\n"
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("sh", ["sh", "-euc", setup + found[1]], os.environ | facts)  # noqa: S606 - as a person would
    said, asked = b"", False
    while piece := _read(terminal):
        said += piece
        if typed and not asked and said.rstrip().endswith(b"PIN:"):
            asked = True
            while termios.tcgetattr(terminal)[3] & termios.ECHO:
                time.sleep(0.01)  # what is typed before it has switched the echo off is thrown away
            os.write(terminal, typed.encode())
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said.decode()
    return said.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side is closed
        return b""


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftToken:
    return SoftToken(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.stop()


async def until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            assert process.poll() is None, await asyncio.to_thread(log.read_text)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


async def test_a_station_speaks_to_store_and_broker_with_a_key_in_its_token(
    tmp_path: Path, token: SoftToken, broker: Broker
) -> None:
    pki = broker.pki
    command.issue(pki.ca.parent, ["store:127.0.0.1"], None)
    pki.certificate("station", "st01").with_suffix(".key").unlink()  # the one in the token is the only one
    pin = tmp_path / "pin"
    pin.touch(0o600)
    pin.write_text(token_hex(8))
    new = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "tls",
        "--pin",
        pin.read_text(),
        "--so-pin",
        "12345678",
    ]
    await asyncio.to_thread(subprocess.run, new, check=True, capture_output=True)
    facts = {"MODULE": token.module, "TOKEN": "tls", "PIN_FILE": str(pin), "ENGINE": str(ENGINES[0])}
    facts |= {"PKI": str(pki.ca.parent), "STATION": "st01"}
    said = run("make-key", tmp_path, facts, typed=pin.read_text() + "\n")
    assert "sensitive, always sensitive, never extractable, local" in said
    run("request", tmp_path, facts)
    command.issue(pki.ca.parent, ["station:st01"], tmp_path / "st01.csr")
    await broker.start()
    factory = Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")
    stock(factory, 1)
    try:
        async with serving_tls(factory, pki, SystemClock(), Metrics(Role.STORE)) as url:
            await speak(tmp_path, facts, url.removeprefix("https://"), broker)
    finally:
        factory.close()


async def speak(folder: Path, facts: dict[str, str], store: str, broker: Broker) -> None:
    """Be the station behind stunnel."""
    here = {"STORE_PORT_HERE": free_port(), "BROKER_PORT_HERE": free_port()}
    there = {"STORE": store, "BROKER": f"127.0.0.1:{broker.port}"}
    checks = dict.fromkeys(("STORE_CHECK", "BROKER_CHECK"), "checkIP = 127.0.0.1")
    run("stunnel", folder, facts | there | checks | {name: str(port) for name, port in here.items()})
    log = folder / "stunnel.log"
    with log.open("wb") as output:
        process = subprocess.Popen(["stunnel4", "stunnel.conf"], cwd=folder, stdout=output, stderr=output)  # noqa: ASYNC220 - at once
    try:
        for port in here.values():
            await until_open(port, process, log)
        async with StoreClient(f"http://127.0.0.1:{here['STORE_PORT_HERE']}", timeout_s=PATIENCE_S) as client:
            claim = await client.claim(request(1, "a"))
            assert len(await client.package(claim.packages[0].bpp_sha256)) > 0
            with pytest.raises(IfppError, match=r"STORE\.FORBIDDEN"):
                await client.claim(request(2, "b", station_id="st02"))
        address = BrokerAddress("127.0.0.1", here["BROKER_PORT_HERE"])
        line = visit(broker.address("supervisor", "L1"), "L1", [f"{BASE}/#"])
        async with visit(address, "L1", []) as station, line as supervisor:
            await station.publish(f"{BASE}/st01/evt/x", b"x")
            await station.publish(f"{BASE}/st02/evt/x", b"x")
            await supervisor.publish(MARK, b"mark")
            assert await heard(supervisor, b"mark") == {"st01/evt/x"}
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    with pytest.raises(ServiceError, match=r"BROKER\.UNREACHABLE"):
        async with visit(address, "L1", []):
            raise AssertionError
