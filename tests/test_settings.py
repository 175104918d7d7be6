"""Settings: good files become values, bad ones say what, where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.errors import SettingsError
from ifpp.settings import load_site, load_station

SITE = 'enterprise = "acme"\nsite = "north"\narea = "hall1"\nline = "L1"\n'
STATION = 'id = "st01"\n[heads.h01]\nport = "tcp://127.0.0.1:9101"\n'
ROOT = Path(__file__).parent.parent


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.toml"
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, SITE))
    assert site.broker.port == 1883
    assert load_station(written(tmp_path, STATION)).heads["h01"].block_size == 255


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (SITE + "[broker]\nhots = 'x'\n", 6, ["hots", 'did you mean "host"']),
        (SITE + "[broker]\nport = 70000\n", 6, ["65535"]),
        (SITE + "[store.tls]\nca = 'a'\ncert = 'c'\nkey = 'k'\ncrll = 'x'\n", 9, ["crll", 'did you mean "crl"']),
        (SITE.replace('"L1"', '"L 1"'), 4, ["line"]),
        ('enterprise = "acme"\n', 0, ["site"]),
        ("enterprise = \n", 0, ["not TOML"]),
    ],
)
def test_a_bad_site_file_names_file_line_and_key(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_site(written(tmp_path, text))
    message = str(caught.value)
    assert "SETTINGS.INVALID" in message
    assert (f"file.toml:{line}:" if line else "file.toml:") in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (STATION + "blocksize = 255\n", ["blocksize", 'did you mean "block_size"']),
        ('id = "st01"\nheads = {}\n', ["at least one head"]),
        (STATION + '[recipe]\nreport_path = "nowhere"\n', ["report_path"]),
        (STATION + "block_size = 5\n", ["block_size", "6"]),
        (STATION + '[heads.h02]\nport = "tcp://127.0.0.1:9101"\n', ["heads.h02", "same port as head h01"]),
        (STATION + '[pcsc]\nsocked = "/run/x"\n', ["socked", 'did you mean "socket"']),
        (STATION + '[recipe]\nsvn = "2.6"\n', ["svn"]),
        (STATION + "[life]\ncontact_streak = -1\n", ["contact_streak"]),
        (STATION + "[life]\nwindow = 5\n", ["window"]),
        (STATION + "[life]\nconfidence = 1.0\n", ["confidence"]),
        (STATION + '[recipe]\nprofile_version = "2.256.0"\n', ["profile_version"]),
    ],
)
def test_a_bad_station_file_says_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_station(written(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_file_has_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_site(tmp_path / "absent.toml")
    assert caught.value.code == "SETTINGS.MISSING"


def test_the_shipped_examples_load() -> None:
    assert load_site(ROOT / "config" / "site.toml").line
    stations = [load_station(path) for path in (ROOT / "stations").glob("*.toml")]
    assert stations


def test_keys_are_none_unless_named_and_never_hold_a_pin(tmp_path: Path) -> None:
    head = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
    file = tmp_path / "site.toml"
    file.write_text(head)
    assert load_site(file).keys.provider == "none"
    file.write_text(f'{head}[keys]\nprovider = "pkcs11"\nmodule = "/m.so"\ntoken = "t"\npurposes = ["audit"]\n')
    keys = load_site(file).keys
    assert (keys.provider, keys.purposes, keys.pin_credential) == ("pkcs11", ("audit",), "ifpp-pin")
    for wrong in ('pin = "1234"', 'provider = "tpm"', 'purposes = ["tls"]', 'pin_credential = "../pin"'):
        file.write_text(f"{head}[keys]\n{wrong}\n")
        with pytest.raises(SettingsError, match=r"SETTINGS\.INVALID"):
            load_site(file)


@pytest.mark.parametrize("url", ["postgresql://ifpp:hush@db/ifpp", "postgresql:///ifpp?host=db&password=hush"])
def test_a_password_is_no_setting(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="pgpass") as caught:
        load_site(written(tmp_path, f'{SITE}[store]\ndatabase = "{url}"\n'))
    assert "hush" not in str(caught.value)
    assert caught.value.where.endswith(":5")


def test_a_key_is_no_setting(tmp_path: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nhush\n"
    with pytest.raises(SettingsError, match="name the file") as caught:
        load_site(written(tmp_path, f'{SITE}[courier]\nkey = """\n{pem}"""\n'))
    assert "hush" not in str(caught.value)
    assert caught.value.where.endswith(":7")
