"""Certificates of the line in their life: renewed and rotated while a store serves, before a real Mosquitto, expiry."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ifpp.bus.broker import free_port, mosquitto_path
from ifpp.bus.client import BrokerAddress
from ifpp.bus.visit import visit
from ifpp.errors import ServiceError, SettingsError
from ifpp.metrics import Metrics, Role
from ifpp.model.clock import SystemClock
from ifpp.roles import pki as command
from ifpp.roles.certificates import Expiry
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from ifpp.storefront.app import build_app
from ifpp.storefront.door import Door
from ifpp.storefront.server import serve
from ifpp.trust.callers import CallerRole
from ifpp.trust.expiry import endings
from ifpp.trust.site_pki import SitePki
from ifpp.trust.tls import Renewed, client_context, server_context
from tests.clock import FakeClock
from tests.store.world import request, stock


@pytest.fixture
def pki(tmp_path: Path) -> SitePki:
    return SitePki(tmp_path / "pki")


def side(pki: SitePki, kind: str, name: str, make: object = client_context) -> Renewed:
    own = pki.certificate(kind, name)
    return Renewed(make, pki.ca, own, own.with_suffix(".key"))  # type: ignore[arg-type]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Return the certificates both sides saw; raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    right = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [left, right]
    for _ in range(10):
        for one in list(waiting):
            try:
                one.do_handshake()
                waiting.remove(one)
            except ssl.SSLWantReadError:
                continue
    assert not waiting
    with suppress(ssl.SSLWantReadError):
        left.read(1)
    seen = left.getpeercert(binary_form=True), right.getpeercert(binary_form=True)
    assert seen[0]
    assert seen[1]
    return seen[0], seen[1]


def test_a_listening_side_takes_renewed_files_and_a_new_ca_and_drops_the_old(pki: SitePki, tmp_path: Path) -> None:
    pki.issue_store("127.0.0.1")
    pki.issue_caller(CallerRole.STATION, "st01")
    server = side(pki, "store", "127.0.0.1", server_context).serving()
    first = handshake(server, side(pki, "station", "st01").current())
    old = tmp_path / "old"
    shutil.copytree(pki.ca.parent, old)
    pki.issue_store("127.0.0.1")
    second = handshake(server, side(pki, "station", "st01").current())
    assert second[0] != first[0]
    pki.rotate()
    assert handshake(server, side(SitePki(pki.ca.parent), "station", "st01").current()) == second
    pki.issue_caller(CallerRole.STATION, "st01")
    third = handshake(server, side(pki, "station", "st01").current())
    assert third[1] != second[1]
    pki.issue_store("127.0.0.1")
    pki.retire()
    assert handshake(server, side(pki, "station", "st01").current())[1] == third[1]
    mixed = client_context(pki.ca, old / "station-st01.pem", old / "station-st01.key")
    with pytest.raises(ssl.SSLError):
        handshake(server, mixed)


def test_what_cannot_be_used_leaves_the_old_in_use(pki: SitePki) -> None:
    certificate, _ = pki.issue_caller(CallerRole.STATION, "st01")
    shown = side(pki, "station", "st01")
    before, content = shown.current(), certificate.read_bytes()
    certificate.write_text("under way")
    assert shown.current() is before
    certificate.unlink()
    certificate.write_bytes(content)
    assert shown.current() is not before


def test_a_request_is_signed_under_the_name_that_is_given(pki: SitePki, tmp_path: Path) -> None:
    key, request = tmp_path / "own.key", tmp_path / "own.csr"
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        [*new, "-subj", "/CN=somebody else", "-keyout", key, "-out", request], check=True, capture_output=True
    )
    command.issue(pki.ca.parent, ["station:st09"], request)
    issued = pki.certificate("station", "st09")
    key.chmod(0o600)
    client_context(pki.ca, issued, key)
    assert "station-st09" in endings(issued)[0].name
    request.write_bytes(request.read_bytes()[:-60])
    with pytest.raises(SettingsError, match=r"SETTINGS\.INVALID"):
        command.issue(pki.ca.parent, ["station:st09"], request)


def test_expiry_is_listed_measured_and_told_once_a_day(
    pki: SitePki, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(UTC)
    long, _ = pki.issue_caller(CallerRole.STATION, "st01")
    short, _ = pki.issue_caller(CallerRole.STATION, "st02", now=now - timedelta(days=720))
    assert command.show(pki.ca.parent, as_json=False) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if "SOON" in line] == [short.name]
    metrics, clock = Metrics(Role.STATION, line="L1", station="st01", node="st01"), FakeClock()
    expiry = Expiry(metrics, clock, [short, long, pki.ca.with_name("gone.pem")])
    expiry.look()
    expiry.look()
    left = {
        name: metrics.value("ifpp_certificate_expires_seconds", line="L1", node="st01", file=name)
        for name in (short.name, long.name, "gone.pem")
    }
    assert left[short.name] == (endings(short)[0].ends - clock.now()).total_seconds()
    assert left["gone.pem"] == 0.0
    assert left[long.name] > left[short.name]


@contextmanager
def mosquitto(folder: Path, pki: SitePki, port: int) -> Iterator[subprocess.Popen[bytes]]:
    own = pki.certificate("broker", "127.0.0.1")
    rows = [
        f"listener {port} 127.0.0.1",
        f"cafile {pki.ca}",
        f"certfile {own}",
        f"keyfile {own.with_suffix('.key')}",
        f"crlfile {pki.crl}",
        "require_certificate true",
        "use_identity_as_username true",
        "user root",
    ]
    (folder / "mosquitto.conf").write_text("\n".join(rows) + "\n")
    program = mosquitto_path()
    assert program is not None
    process = subprocess.Popen([program, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def reached(port: int, shown: Renewed | None) -> bool:
    address = BrokerAddress("127.0.0.1", port, timeout_s=20.0, tls=shown.current if shown else None)
    try:
        async with visit(address, "L1", []):
            return True
    except ServiceError:
        return False


@pytest.mark.needs("mosquitto")
async def test_a_real_broker_wants_certificates_and_takes_renewed_ones(pki: SitePki, tmp_path: Path) -> None:
    pki.issue_store("127.0.0.1", "broker")
    pki.issue_caller(CallerRole.STATION, "st01")
    pki.issue_caller(CallerRole.STATION, "st02")
    SitePki(tmp_path / "foreign").issue_caller(CallerRole.STATION, "st01")
    stranger = tmp_path / "foreign" / "station-st01.pem"
    port, shown = free_port(), side(pki, "station", "st01")
    with mosquitto(tmp_path, pki, port) as broker:
        while not await reached(port, shown):
            assert broker.poll() is None
            await asyncio.sleep(0.05)
        foreign = Renewed(client_context, pki.ca, stranger, stranger.with_suffix(".key"))
        assert [await reached(port, who) for who in (None, foreign)] == [False, False]
        pki.rotate()
        broker.send_signal(signal.SIGHUP)
        assert await reached(port, shown)
        pki.issue_caller(CallerRole.STATION, "st01")
        pki.issue_store("127.0.0.1", "broker")
        broker.send_signal(signal.SIGHUP)
        while not await reached(port, shown):
            assert broker.poll() is None
            await asyncio.sleep(0.05)


async def test_a_store_serves_on_while_certificates_and_ca_are_changed(pki: SitePki, tmp_path: Path) -> None:
    pki.issue_store("127.0.0.1")
    pki.issue_caller(CallerRole.STATION, "st01")
    factory = Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")
    stock(factory, 5)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    app = build_app(factory, SystemClock(), Metrics(Role.STORE), door=Door(SystemClock(), None))
    tls = side(pki, "store", "127.0.0.1", server_context).serving()
    task = asyncio.create_task(serve(app, "127.0.0.1", 0, stop=stop, ready=port.set_result, tls=tls))
    url, station = f"https://127.0.0.1:{await port}", side(pki, "station", "st01")
    served: list[bytes] = []

    async def load(number: int) -> None:
        """A claim over a new connection, and the store's certificate it met."""
        tls = station.current()
        async with StoreClient(url, timeout_s=20, tls=tls) as client:
            assert (await client.claim(request(number))).packages
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=tls)
        served.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()

    try:
        async with StoreClient(url, timeout_s=20, tls=station.current()) as open_all_along:
            await open_all_along.claim(request(1))
            await load(2)
            pki.issue_store("127.0.0.1")
            await load(3)
            pki.rotate()
            pki.issue_caller(CallerRole.STATION, "st01")
            await load(4)
            pki.issue_store("127.0.0.1")
            pki.retire()
            await load(5)
            assert (await open_all_along.claim(request(1))).packages
    finally:
        stop.set()
        await task
        factory.close()
    assert (len(set(served)), served[1] == served[2]) == (3, True)
