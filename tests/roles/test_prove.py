"""`ifpp station prove`: what a station holds, signed; a secret that is put there is found."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.errors import VerificationError
from ifpp.roles import prove
from ifpp.roles.pin import read_pin
from ifpp.station.history import every_value
from ifpp.trust.callers import CallerRole
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import write_public_key
from ifpp.trust.site_pki import SitePki
from tests.real.softhsm import SoftToken

STATION = """id = "st01"
[heads.h01]
port = "tcp://127.0.0.1:9101"
[tls]
ca = "pki/ca.pem"
cert = "pki/station-st01.pem"
key = "pki/station-st01.key"
[keys]
provider = "software"
file = "keys.ifpp"
purposes = ["station"]
"""


@pytest.fixture
def station(tmp_path: Path, pin_credential: None) -> Path:
    SitePki(tmp_path / "pki").issue_caller(CallerRole.STATION, "st01")
    keys = SoftwareKeys.create(tmp_path / "keys.ifpp", read_pin("ifpp-pin"))
    write_public_key(tmp_path / "station.pub", _public(keys.generate(Purpose.STATION).public))
    keys.close()
    with sqlite3.connect(tmp_path / "journal.db") as journal:
        journal.execute("CREATE TABLE t (b BLOB)")
    path = tmp_path / "st01.toml"
    path.write_text(STATION)
    return path


def _public(found: bytes | None) -> bytes:
    assert found is not None
    return found


def proof(station: Path, name: str = "proof.json") -> tuple[int, dict[str, Any]]:
    out = station.with_name(name)
    code = prove.prove(station, out)
    document: dict[str, Any] = json.loads(out.read_bytes())
    return code, document


def test_a_station_shows_what_it_holds_signed(station: Path) -> None:
    code, document = proof(station)
    said = document["statement"]
    assert (code, said["found"], said["station"]) == (0, [], "st01")
    assert [(key["name"], key["provider"]) for key in said["keys"]] == [("station.1", "software")]
    names = {Path(row["path"]).name for row in said["files"]}
    assert {"st01.toml", "journal.db", "keys.ifpp", "ca.pem", "station-st01.pem", "station-st01.key"} <= names
    assert len(said["software"]["sha256"]) == 64
    assert prove.verify(station.with_name("proof.json"), station.with_name("station.pub")) == 0


def test_a_changed_document_and_another_key_are_refused(station: Path, tmp_path: Path) -> None:
    _, document = proof(station)
    document["statement"]["station"] = "st02"
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    with pytest.raises(VerificationError, match=r"AUDIT\.SIGNATURE"):
        prove.verify(changed, None)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    der, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    write_public_key(tmp_path / "other.pub", other.public_bytes(der, spki))
    with pytest.raises(VerificationError, match=r"AUDIT\.UNKNOWN_KEY"):
        prove.verify(tmp_path / "proof.json", tmp_path / "other.pub")
    changed.write_text("{}")
    with pytest.raises(VerificationError, match=r"AUDIT\.FORMAT"):
        prove.verify(changed, None)


@pytest.mark.parametrize(
    ("encoding", "format_"),
    [
        (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8),
        (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8),
        (serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL),
    ],
)
def test_a_private_key_in_the_journal_is_found(
    station: Path, encoding: serialization.Encoding, format_: serialization.PrivateFormat
) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    canary = secret.private_bytes(encoding, format_, serialization.NoEncryption())
    with sqlite3.connect(station.with_name("journal.db")) as journal:
        journal.execute("INSERT INTO t VALUES (?)", (canary,))
    code, document = proof(station)
    assert code == 1
    assert any("private key" in one and "journal.db" in one for one in document["statement"]["found"])


def test_a_profile_in_plain_in_the_journal_is_found(station: Path) -> None:
    header = bytes.fromhex("a048800102810103820a" + "00" * 10)
    with sqlite3.connect(station.with_name("journal.db")) as journal:
        journal.execute("INSERT INTO t VALUES (?)", (header,))
    code, document = proof(station)
    assert code == 1
    assert any("profile in plain" in one for one in document["statement"]["found"])


def test_without_a_station_key_it_is_not_signed_and_says_so(station: Path, capsys: pytest.CaptureFixture[str]) -> None:
    station.write_text(STATION.replace('provider = "software"', 'provider = "none"'))
    code, document = proof(station)
    assert (code, "signature" in document) == (1, False)
    assert "NOT SIGNED" in capsys.readouterr().out


def test_a_profile_that_is_cut_by_the_pages_is_found(station: Path) -> None:
    header, path, before = bytes.fromhex("a048800102810103820a" + "00" * 10), station.with_name("journal.db"), 5000

    def put() -> int:
        """Make the database anew; return where in its file the header stands, -1 when it is cut."""
        path.unlink()
        with closing(sqlite3.connect(path, isolation_level=None)) as journal:
            journal.execute("CREATE TABLE t (b BLOB)")
            journal.execute("INSERT INTO t VALUES (?)", (bytes(before) + header + bytes(14000 - before),))
            return path.read_bytes().find(header[:10])

    before += 4096 - put() % 4096 - 4  # to the end of its page, all but four bytes
    assert put() == -1
    assert any(header in value for value in every_value(path))
    code, document = proof(station)
    assert code == 1
    assert any("profile in plain" in one for one in document["statement"]["found"])


def test_what_nobody_expects_beside_the_station_is_looked_at(station: Path) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    station.with_name("notes.txt").write_bytes(secret.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    code, document = proof(station)
    assert (code, len(document["statement"]["found"])) == (1, 1)
    assert document["statement"]["found"][0].startswith("private key in PEM in ")


def test_open_sockets_of_a_running_station_are_told(station: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(station.with_name("window")))
        local.listen()
        with closing(sqlite3.connect(station.with_name("journal.db"))) as journal:
            assert journal.execute("SELECT count(*) FROM t").fetchone() == (0,)
            said = proof(station)[1]["statement"]["sockets"]
        port = listening.getsockname()[1]
    assert {f"tcp listens local port {port}", f"unix {station.with_name('window')}"} <= set(said)


def test_the_code_that_could_decrypt_is_named(station: Path) -> None:
    reached = proof(station)[1]["statement"]["software"]["cryptography_reached_by"]
    assert {"ifpp.trust.chain", "ifpp.trust.signer"} <= set(reached)
    assert not [name for name in reached if name.startswith(("ifpp.station", "ifpp.fpa", "ifpp.wire", "ifpp.sim"))]


@pytest.mark.needs("softhsm")
def test_a_token_signs_it(station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = SoftToken(tmp_path / "hsm", monkeypatch)
    keys = token.open()
    write_public_key(tmp_path / "token.pub", _public(keys.generate(Purpose.STATION).public))
    keys.close()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "ifpp-pin").touch(0o600)
    (tmp_path / "ifpp-pin").write_bytes(token.pin.reveal())
    own = f'provider = "pkcs11"\nmodule = "{token.module}"\ntoken = "{token.label}"'
    station.write_text(STATION.replace('provider = "software"\nfile = "keys.ifpp"', own))
    code, document = proof(station)
    (key,) = document["statement"]["keys"]
    assert (code, key["provider"], "extractable" in key["attributes"]) == (0, "pkcs11", False)
    assert prove.verify(station.with_name("proof.json"), tmp_path / "token.pub") == 0
