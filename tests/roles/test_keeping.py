"""Serving, keeping and moving the store, as a person types it."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import SettingsError
from ifpp.roles.pki import issue
from ifpp.roles.station import run as run_station
from ifpp.roles.store import serve
from ifpp.store.factory import Factory
from ifpp.trust.tls import client_context
from tests.store.test_migrate import old_sqlite
from tests.store.world import stock

SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
TLS = """
[store]
host = "0.0.0.0"
port = 0
[store.tls]
ca = "pki/ca.pem"
cert = "pki/store-127.0.0.1.pem"
key = "pki/store-127.0.0.1.key"
crl = "pki/crl.pem"
"""


class Place:
    """A folder with a site file, where commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site.toml"
        self.site.write_text(SITE)
        self.url = f"sqlite:///{folder / 'factory.db'}"

    def run(self, *words: str, fails: bool = False) -> str:
        """Run a command; return what it said, on stderr when it must fail."""
        command = [sys.executable, "-m", "ifpp", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder, check=False)
        assert done.returncode == int(fails), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    def store(self, *words: str, fails: bool = False) -> str:
        return self.run("store", *words, "--config", str(self.site), fails=fails)

    @contextmanager
    def serving(self) -> Iterator[dict[str, Any]]:
        """A running store; gives what it says when it is ready, and ends it as a service manager does."""
        command = [sys.executable, "-m", "ifpp", "store", "serve", "--config", str(self.site)]
        with (
            (self.folder / "log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                yield json.loads(process.stdout.readline())
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0, (self.folder / "log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def get(port: int, path: str, tls: ssl.SSLContext) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", timeout=10, context=tls) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_store_with_certificates_from_nothing(place: Place) -> None:
    said = place.run("pki", "issue", "pki", "store:127.0.0.1", "station:st01", "planner:anna")
    assert said.count("issued") == 3
    assert place.folder.joinpath("pki/planner-anna.key").stat().st_mode & 0o777 == 0o600
    place.site.write_text(SITE + TLS)
    issued = place.folder / "pki"

    def shows(name: str) -> ssl.SSLContext:
        return client_context(issued / "ca.pem", issued / f"{name}.pem", issued / f"{name}.key")

    with place.serving() as facts:
        port = facts["port"]
        assert get(port, "/healthz", shows("station-st01"))[0] == 200
        status, description = get(port, "/v1/openapi.json", shows("planner-anna"))
        assert status == 200
        assert json.loads(description) == json.loads(place.run("store", "openapi"))
        absent = f"/v1/packages/{'0' * 64}"
        assert [get(port, absent, shows(name))[0] for name in ("station-st01", "planner-anna")] == [404, 403]
        place.run("pki", "revoke", "pki", "station:st01")
        status, problem = get(port, "/healthz", shows("station-st01"))
        assert (status, json.loads(problem)["code"]) == (403, "STORE.FORBIDDEN")
        with urllib.request.urlopen(f"http://127.0.0.1:{facts['metrics_port']}/metrics", timeout=10) as answer:
            assert 'ifpp_store_refusals_total{code="STORE.FORBIDDEN",operation="health"} 1.0' in answer.read().decode()
    with closing(Factory.open(place.url)) as factory, factory.audit_log() as log:
        entries = [entry.facts.decode() for page in log.pages("store") for entry in page if entry.kind == "refused"]
    assert len(entries) == 2
    assert "planner anna may not do this" in entries[0]
    assert "of station st01 is revoked" in entries[1]
    assert "refused" in (place.folder / "log").read_text()


@pytest.mark.parametrize("missing", ["ca.pem", "store-127.0.0.1.key", "crl.pem"])
def test_a_store_whose_files_are_missing_does_not_start(place: Place, missing: str) -> None:
    issue(place.folder / "pki", ["store:127.0.0.1"], None)
    place.site.write_text(SITE + TLS)
    (place.folder / "pki" / missing).unlink()
    with pytest.raises(SettingsError, match=rf"SETTINGS\.MISSING: .*{missing}"):
        serve(place.site)
    assert not (place.folder / "factory.db").exists()


def test_a_store_for_everybody_without_tls_does_not_start(place: Place) -> None:
    place.site.write_text(SITE + TLS.partition("[store.tls]")[0])
    assert "without TLS" in place.store("serve", fails=True)


def test_a_station_without_certificate_does_not_start(place: Place) -> None:
    place.site.write_text(SITE + '[store]\nurl = "https://127.0.0.1:1"\n')
    station = place.folder / "st01.toml"
    station.write_text('id = "st01"\n[heads.h01]\nport = "tcp://127.0.0.1:1"\n')
    with pytest.raises(SettingsError, match=r"SETTINGS\.MISSING: .*st01\.toml: .*\[tls\]"):
        run_station(place.site, station)


@pytest.mark.parametrize("name", ["station", "root:x", "store:", "station:a b", "station:../x", "store:a/b", ":"])
def test_certificates_for_nobody_are_not_issued(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        issue(tmp_path / "pki", [name], None)
    assert not (tmp_path / "pki").exists()


def test_a_database_is_kept_and_brought_back(place: Place) -> None:
    with closing(Factory.open(place.url)) as factory:
        stock(factory, 2)
        factory_id = factory.factory_id
    assert "sha256" in place.store("backup", "one.backup")
    (place.folder / "factory.db").unlink()
    assert factory_id in place.store("restore", "one.backup")
    with closing(Factory.open(place.url)) as factory:
        assert factory.audit() == []
        assert factory.balance()[0].available == 2


def test_an_old_database_says_what_to_do_and_it_works(place: Place) -> None:
    old_sqlite(place.folder)
    place.site.write_text(SITE + '[store]\ndatabase = "sqlite:///old.db"\n')
    said = place.run("balance", "--config", str(place.site), fails=True)
    assert "ifpp store backup" in said
    assert "ifpp store migrate" in said
    place.store("backup", "before")
    assert "schema 3: " in place.store("migrate")
    place.run("balance", "--config", str(place.site))
