"""`ifpp check`: what it finds, what it says to do, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.bus.broker import BrokerKind, free_port
from ifpp.log import Secret
from ifpp.model.clock import SystemClock
from ifpp.roles import check as checking
from ifpp.roles import check_machine, check_site
from ifpp.roles.check import Finding, Level, Role, check, look
from ifpp.sim.pki import Pki
from ifpp.station.journal import Journal
from ifpp.store.factory import Factory
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.site_pki import SitePki
from tests.real import mosquitto

SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
STATION = 'id = "st01"\njournal = "st01.journal.db"\n[heads.h01]\nport = "tcp://127.0.0.1:{port}"\n'


class Plant:
    """An installation in a folder: config/site.toml, stations/st01.toml, a CI to trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.station = folder / "config" / "site.toml", folder / "stations" / "st01.toml"
        self.closed_port = free_port()
        for place in (self.site.parent, self.station.parent, folder / "config" / "trust"):
            place.mkdir(parents=True)
        (folder / "config" / "trust" / "ci.der").write_bytes(Pki.create().ci.der)
        self.write()

    def write(self, site: str = "", station: str = "", broker: str = "") -> None:
        """Append to both files."""
        ports = f"[broker]\nport = {free_port()}\n{broker}[store]\n"
        ports += (
            f'url = "http://127.0.0.1:{self.closed_port}"\nport = {free_port()}\ndatabase = "sqlite:///../factory.db"\n'
        )
        self.site.write_text(f"{SITE}{ports}{site}")
        self.station.write_text(f"{STATION.format(port=self.closed_port)}{station}")

    def look(self, role: Role = Role.ALL, *, running: bool = False) -> list[Finding]:
        return list(look([self.folder], role, running=running))


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path / "plant")


def of(findings: list[Finding], probe: str) -> list[Finding]:
    return [one for one in findings if one.probe == probe]


def one(findings: list[Finding], probe: str, level: Level) -> Finding:
    found = [finding for finding in findings if finding.probe == probe and finding.level is level]
    assert len(found) == 1, findings
    return found[0]


def failures(findings: list[Finding]) -> list[str]:
    return [finding.probe for finding in findings if finding.level is Level.FAILURE]


def test_a_fresh_installation_has_no_failure_and_is_left_as_it_was(plant: Plant) -> None:
    before = sorted(plant.folder.rglob("*"))
    findings = plant.look()
    assert failures(findings) == []
    assert one(findings, "database", Level.NOTE).seen.startswith("is not there yet")
    assert one(findings, "journal", Level.NOTE)
    assert one(findings, "broker", Level.WARNING).do
    assert one(findings, "store", Level.WARNING).do
    assert "out of work" in one(findings, "head", Level.WARNING).do
    assert sorted(plant.folder.rglob("*")) == before


def test_every_finding_that_is_not_fine_says_what_to_do(plant: Plant) -> None:
    findings = plant.look()
    assert [one for one in findings if one.level in (Level.WARNING, Level.FAILURE) and not one.do] == []


def test_for_machines_it_is_one_document(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([plant.folder], Role.ALL, running=False, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == checking.FORMAT
    assert told["failure"] == 0
    assert len(told["findings"]) == told["ok"] + told["note"] + told["warning"] + told["failure"]
    assert set(told["findings"][0]) == {"probe", "level", "where", "seen", "do"}


def test_for_people_it_ends_with_the_sums(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    plant.site.write_text(plant.site.read_text() + "[trust]\nrots = 'x'\n")
    assert check([plant.folder], Role.ALL, running=False, as_json=False) == 1
    text = capsys.readouterr().out
    assert f"{plant.site}:" in text
    assert 'did you mean "roots"?' in text
    assert "1 failures" in text.splitlines()[-1]


def test_what_cannot_be_read_does_not_hide_the_rest(plant: Plant) -> None:
    plant.station.write_text("id = \n")
    findings = plant.look()
    assert failures(findings) == ["settings"]
    assert of(findings, "disk.space")


def test_nothing_to_look_at_is_said(tmp_path: Path) -> None:
    assert failures(list(look([tmp_path], Role.STATION))) == ["settings", "settings"]


def test_each_process_is_asked_for_its_own_only(plant: Plant) -> None:
    assert of(plant.look(Role.STORE), "head") == of(plant.look(Role.SUPERVISOR), "journal") == []
    assert of(plant.look(Role.STATION), "database") == []
    assert of(plant.look(Role.STORE), "database")


def test_a_probe_that_falls_over_is_a_finding(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall() -> Iterator[Finding]:
        yield from (1 / 0 for _ in range(1))  # type: ignore[misc]

    monkeypatch.setattr(check_machine, "_clock", fall)
    findings = plant.look()
    assert one(findings, "clock", Level.FAILURE).seen == "ZeroDivisionError: division by zero"
    assert of(findings, "head")


# ---- this machine -------------------------------------------------------------------------------------------


def test_who_may_read_keys_and_write_settings(plant: Plant) -> None:
    keys = plant.folder / "config" / "keys.ifpp"
    keys.write_bytes(b"")
    keys.chmod(0o640)
    plant.write(site='[keys]\nprovider = "software"\n')
    plant.station.chmod(0o666)
    found = [finding for finding in of(plant.look(), "mode") if finding.level is Level.FAILURE]
    assert [(finding.where, finding.do) for finding in found] == [
        (str(keys), f"chmod 600 {keys}"),
        (str(plant.station), f"chmod go-w {plant.station}"),
    ]


def test_a_folder_that_is_missing_or_full(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.write(station="[cache]\nunits = 0\n")
    plant.station.write_text(plant.station.read_text().replace("st01.journal", "not/there"))
    assert "install -d" in one(plant.look(), "disk.folder", Level.FAILURE).do
    full = type("Usage", (), {"free": 50_000_000, "total": 10**9})
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: full)
    assert "50 MB free" in one(plant.look(), "disk.space", Level.FAILURE).seen


def test_few_open_files(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (256, 4096))
    assert "LimitNOFILE=" in one(plant.look(), "limits.files", Level.WARNING).do


def test_an_sqlite_without_strict_tables(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_machine, "sqlite_version", lambda: (3, 34, 1))
    assert one(plant.look(), "version.sqlite", Level.FAILURE).seen == "3.34.1"


def test_a_library_that_the_settings_want(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "psycopg":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(check_machine, "version", version)
    plant.site.write_text(
        plant.site.read_text().replace("sqlite:///../factory.db", "postgresql://ifpp@127.0.0.1:1/ifpp")
    )
    assert one(plant.look(Role.STORE), "version.library", Level.FAILURE).where == "psycopg"


def test_a_port_that_somebody_has(plant: Plant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        plant.write(station="[life]\nwindow = 200\n")
        plant.station.write_text(f"metrics_port = {port}\n{plant.station.read_text()}")
        assert f"sport = {port}" in one(plant.look(), "port", Level.FAILURE).do
        assert of(plant.look(running=True), "port") == []


# ---- journal and database -----------------------------------------------------------------------------------


def test_a_journal_that_is_used_or_somebody_elses(plant: Plant) -> None:
    path = plant.folder / "stations" / "st01.journal.db"
    journal = Journal.open(path, "st01", SystemClock())
    try:
        assert "--running" in one(plant.look(), "journal", Level.FAILURE).do
        assert one(plant.look(running=True), "journal", Level.OK).seen.startswith("0 events wait")
    finally:
        journal.close()
    assert one(plant.look(), "journal", Level.OK)
    plant.station.write_text(plant.station.read_text().replace('id = "st01"', 'id = "st02"'))
    assert one(plant.look(), "journal", Level.FAILURE).seen == "belongs to station st01"


@pytest.mark.parametrize(("version", "code"), [(99, "CUSTODY.SCHEMA_NEWER"), (1, "CUSTODY.SCHEMA_OLDER")])
def test_a_journal_of_another_version(plant: Plant, version: int, code: str) -> None:
    path = plant.folder / "stations" / "st01.journal.db"
    Journal.open(path, "st01", SystemClock()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'works_since'", (str(version),))
        connection.commit()
    assert one(plant.look(), "journal", Level.FAILURE).seen.startswith(code)


@pytest.mark.parametrize(("version", "code"), [(999, "CUSTODY.SCHEMA_NEWER"), (1, "CUSTODY.SCHEMA_OLDER")])
def test_a_database_of_another_version(plant: Plant, version: int, code: str) -> None:
    path = plant.folder / "factory.db"
    Factory.open(f"sqlite:///{path}").close()
    assert one(plant.look(), "database", Level.OK).seen.startswith("schema version")
    with closing(sqlite3.connect(path)) as connection:
        facts = "UPDATE meta SET value = ? WHERE key IN ('schema_version', 'works_since')"
        connection.execute(facts, (str(version),))
        connection.commit()
    assert one(plant.look(), "database", Level.FAILURE).seen.startswith(code)


# ---- certificates and keys ----------------------------------------------------------------------------------


def test_a_certificate_of_another_station(plant: Plant) -> None:
    pki = SitePki(plant.folder / "pki")
    for station in ("st01", "st02"):
        pki.issue_caller("station", station)
    closed = '[broker.tls]\nca = "../pki/ca.pem"\ncert = "../pki/station-st01.pem"\nkey = "../pki/station-st01.key"\n'
    tables = '[tls]\nca = "../pki/ca.pem"\ncert = "../pki/station-{0}.pem"\nkey = "../pki/station-{0}.key"\n'
    plant.write(broker=closed, station=tables.format("st01"))
    findings = plant.look()
    assert one(findings, "certificate.name", Level.OK)
    assert failures(findings) == []
    assert len(of(findings, "certificate")) == 2
    plant.write(broker=closed, station=tables.format("st02"))
    assert "names station st02" in one(plant.look(), "certificate.name", Level.FAILURE).seen


@pytest.mark.parametrize(("days", "level"), [(-1, Level.FAILURE), (3, Level.WARNING), (300, Level.OK)])
def test_a_certificate_that_ends(tmp_path: Path, days: int, level: Level) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - timedelta(days=9), now + timedelta(days=days)
    )
    file = tmp_path / "cert.pem"
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    assert [finding.level for finding in check_site._endings(file)] == [level]


def test_keys_are_opened_where_there_is_a_pin(plant: Plant, pin_credential: None, tmp_path: Path) -> None:
    plant.write(site='[keys]\nprovider = "software"\n')
    SoftwareKeys.create(plant.site.parent / "keys.ifpp", Secret(b"correct horse")).close()
    assert "opened" in one(plant.look(Role.SUPERVISOR), "keys", Level.OK).seen
    (tmp_path / "credentials" / "ifpp-pin").write_text("wrong\n")
    assert "KEYS.PIN" in one(plant.look(Role.SUPERVISOR), "keys", Level.FAILURE).seen


def test_keys_without_a_pin_or_a_file(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    plant.write(site='[keys]\nprovider = "software"\n')
    assert one(plant.look(Role.SUPERVISOR), "keys", Level.FAILURE).seen == "there is no such file"
    (plant.site.parent / "keys.ifpp").touch(mode=0o600)
    assert "no credential" in one(plant.look(Role.SUPERVISOR), "keys", Level.NOTE).seen


# ---- elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def store_of_yesterday() -> Iterator[int]:
    """A store whose clock is a day behind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, _timestamp: float | None = None) -> str:
            return f"{datetime.now(UTC) - timedelta(days=1):%a, %d %b %Y %T} GMT"

        log_message: Callable[..., None] = lambda *_: None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_who_vouches_for_an_smdp(plant: Plant) -> None:
    plant.write(station='[rsp]\ntls_ca = "smdp-ca.pem"\n')
    assert "no such file" in one(plant.look(), "rsp", Level.FAILURE).seen
    ca = plant.station.with_name("smdp-ca.pem")
    ca.write_text("nothing in PEM")
    assert one(plant.look(), "rsp", Level.FAILURE).do
    ca.write_bytes(Pki.create().ci.certificate.public_bytes(serialization.Encoding.PEM))
    assert one(plant.look(), "rsp", Level.OK)


def test_the_clock_of_the_store(plant: Plant, store_of_yesterday: int) -> None:
    plant.site.write_text(plant.site.read_text().replace(f":{plant.closed_port}", f":{store_of_yesterday}"))
    findings = plant.look()
    assert one(findings, "store", Level.OK)
    assert "apart" in one(findings, "clock.store", Level.WARNING).seen


@pytest.mark.needs("mosquitto")
async def test_a_broker_that_answers(plant: Plant, tmp_path: Path) -> None:
    async with mosquitto.running(tmp_path, BrokerKind.MOSQUITTO) as broker:
        plant.site.write_text(f"{SITE}[broker]\nport = {broker.port}\n")
        found = await asyncio.to_thread(plant.look)
    assert one(found, "broker", Level.OK).seen == "answers"


# ---- each process its own user -----------------------------------------------------------------------------


def test_a_process_is_not_asked_for_what_only_the_others_may_read(plant: Plant) -> None:
    """The supervisor's key and the factory database are no matter of a station, nor that key of the store."""
    plant.write(broker='[broker.tls]\nca = "ca.pem"\ncert = "line.pem"\nkey = "line.key"\n')
    plant.site.write_text(plant.site.read_text().replace("../factory.db", "/nowhere/factory.db"))
    missing = {str(plant.site.parent / "ca.pem"), "/nowhere"}
    for role in (Role.STATION, Role.STORE, Role.SUPERVISOR):
        seen = {one.where for one in plant.look(role) if one.level is Level.FAILURE} & missing
        assert seen == {Role.STATION: set(), Role.STORE: {"/nowhere"}, Role.SUPERVISOR: missing}[role]


def test_a_clock_that_may_not_be_asked_is_no_alarm(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sandboxed:
        def adjtimex(self, _buffer: object) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_args, **_more: Sandboxed())
    monkeypatch.setattr("ctypes.get_errno", lambda: 1)
    clock = one(plant.look(), "clock", Level.NOTE)
    assert "Operation not permitted" in clock.seen
