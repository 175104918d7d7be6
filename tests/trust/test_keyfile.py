"""The encrypted file of keys: what it tells without its PIN, and what it does when it was touched."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.errors import CustodyError, SettingsError
from ifpp.log import Secret
from ifpp.trust.keyfile import SoftwareKeys, public_from_point
from ifpp.trust.keyring import Purpose

PIN = Secret(b"correct horse")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.ifpp"
    keys = SoftwareKeys.create(path, PIN)
    for purpose in (Purpose.AUDIT, Purpose.CHIP):
        keys.generate(purpose)
    return path


def test_what_was_made_is_there_again_and_only_its_owner_may_read_it(file: Path) -> None:
    keys = SoftwareKeys.open(file, PIN)
    assert sorted(info.name for info in keys.keys()) == ["audit.1", "chip.1"]  # noqa: SIM118 - no dict
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert all(key.value.reveal().hex() not in text for key in keys._keys.values())
    assert set(json.loads(text)) == {"format", "salt", "nonce", "sealed"}


def test_a_file_that_others_may_read_is_not_opened(file: Path) -> None:
    file.chmod(0o640)
    with pytest.raises(SettingsError, match=r"SIGNER\.EXPOSED.*0640"):
        SoftwareKeys.open(file, PIN)


@pytest.mark.parametrize("pin", [b"", b"correct hors", b"correct horse\n", b"\xff\0"])
def test_a_wrong_pin_opens_nothing(file: Path, pin: bytes) -> None:
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: ") as caught:
        SoftwareKeys.open(file, Secret(pin))
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize("field", ["salt", "nonce", "sealed"])
def test_a_changed_file_opens_nothing_and_shows_nothing(file: Path, field: str) -> None:
    document = json.loads(file.read_text())
    value = bytearray.fromhex(document[field])
    value[-1] ^= 1
    file.write_text(json.dumps(document | {field: value.hex()}))
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: .*the file was changed") as caught:
        SoftwareKeys.open(file, PIN)
    assert document["sealed"] not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_no_file_of_keys(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
        SoftwareKeys.open(file, PIN)


@pytest.mark.parametrize(
    "content", ["null", "[]", "[" * 50_000, '{"format": "ifpp.keys/2"}', '{"format": "ifpp.keys/1", "salt": 3}']
)
def test_another_file_is_no_file_of_keys(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
        SoftwareKeys.open(file, PIN)


def test_no_file_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN"):
        SoftwareKeys.open(tmp_path / "keys.ifpp", PIN)


def test_a_file_is_never_made_over_another(file: Path) -> None:
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        SoftwareKeys.create(file, PIN)
    assert SoftwareKeys.open(file, PIN).signer(Purpose.AUDIT)


def test_a_change_that_cannot_be_written_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    keys = SoftwareKeys.open(file, PIN)
    with pytest.raises(CustodyError, match=r"FILE\.WRITE.*No space"):
        keys.generate(Purpose.REPORT)
    with pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
        keys.signer(Purpose.REPORT)
    monkeypatch.undo()
    assert file.read_bytes() == before
    SoftwareKeys.open(file, PIN).generate(Purpose.REPORT)  # what was left in part is no hindrance


def test_two_who_change_the_file_lose_nothing(file: Path) -> None:
    one, other = SoftwareKeys.open(file, PIN), SoftwareKeys.open(file, PIN)
    threads = [threading.Thread(target=keys.generate, args=[Purpose.REPORT]) for keys in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(info.name for info in SoftwareKeys.open(file, PIN).keys())  # noqa: SIM118 - no dict
    assert names == ["audit.1", "chip.1", "report.1", "report.2"]


def test_a_point_is_read_bare_and_wrapped_whatever_its_first_byte() -> None:
    made = (ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(20_000))
    key = next(one for one in made if one.public_numbers().x >> 248 == 0x41)
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert point[:2] == b"\x04\x41"
    assert public_from_point(point, where="bare") == der
    assert public_from_point(b"\x04\x41" + point, where="wrapped") == der
