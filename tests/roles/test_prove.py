"""`ifpp station prove`: what a station holds, signed; a secret that is put there is found."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.errors import VerificationError
from ifpp.roles import prove
from ifpp.roles.pin import read_pin
from ifpp.trust.callers import CallerRole
from ifpp.trust.keyfile import SoftwareKeys
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import write_public_key
from ifpp.trust.site_pki import SitePki

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
