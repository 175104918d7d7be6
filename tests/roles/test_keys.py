"""The ceremony as people hold it: `ifpp keys` on an encrypted file and on a SoftHSM token."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.roles import keys
from ifpp.roles.demo_keys import DemoKeys, KeysKind
from ifpp.trust import ceremony
from ifpp.trust.keyring import Purpose
from ifpp.trust.signer import SoftwareSigner, VerificationKey, read_public_key
from tests.real import softhsm

SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
KINDS = [KeysKind.SOFTWARE, pytest.param(KeysKind.PKCS11, marks=pytest.mark.needs("softhsm"))]


class Desk:
    """A site with keys, and what its commands print."""

    def __init__(self, folder: Path, kind: KeysKind, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.site = folder, folder / "site.toml"
        self.keys = DemoKeys(folder, kind)
        self.keys.prepare()
        self._capsys = capsys
        self.settle()

    def settle(self, extra: str = "") -> None:
        self.site.write_text(f"{SITE}{self.keys.table}{extra}")

    @property
    def place(self) -> keys.Place:
        return keys.Place.load(self.site, None)

    def said(self) -> str:
        return self._capsys.readouterr().out

    def audit(self) -> str:
        """What the audit says, "" when it finds nothing."""
        self.said()
        status, text = keys.audit(self.place), self.said()
        assert ("AS PLANNED" in text) == (status == 0)
        return text if status else ""

    def names(self) -> list[str]:
        with self.place.provider() as provider:
            return sorted(info.name for info in provider.keys())  # noqa: SIM118 - no dict

    @contextmanager
    def two_people(self) -> Iterator[None]:
        for name in ("anna", "bert"):
            keys.personal(self.folder / name)
        self.settle('two_person = true\npeople = { anna = "anna.pub", bert = "bert.pub" }\n')
        yield

    def confirm(self, action: str, key: str, *names: str) -> list[Path]:
        files = []
        for name in names:
            files.append(self.folder / f"{name}-{action}-{key}-{len(list(self.folder.glob('*.ok')))}.ok")
            keys.confirm_act(self.place, action, key, name, self.folder / name, files[-1])
        return files


@pytest.fixture(params=KINDS)
def desk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    if request.param is KeysKind.PKCS11:
        softhsm.require()
    made = Desk(tmp_path, request.param, capsys)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(made.keys.credentials))
    return made


def test_keys_are_made_listed_and_found_as_planned(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    assert len(list((desk.folder / "ceremonies").iterdir())) == 1
    assert desk.names() == sorted(f"{purpose}.1" for purpose in Purpose)
    desk.said()
    keys.list_keys(desk.place)
    text = desk.said()
    assert desk.keys.kind in text
    assert text.count("EC P-256") == 4
    assert desk.audit() == ""
    keys.init(desk.place, "anna", "again")
    assert "nothing was done" in desk.said()
    assert len(list((desk.folder / "ceremonies").iterdir())) == 1


def test_after_a_rotation_the_new_version_signs_and_old_signatures_hold(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    keys.export_public(desk.place, "audit.1", desk.folder / "old.pub")
    with desk.place.provider() as provider:
        signature = provider.signer(Purpose.AUDIT).sign(b"said long ago")
    keys.rotate(desk.place, "audit", "anna", "its year is over", [])
    old = read_public_key(desk.folder / "old.pub")
    with desk.place.provider() as provider:
        newest = provider.signer(Purpose.AUDIT)
        now = newest.sign(b"said now")
        key = VerificationKey.from_der(newest.public)
    assert key.key_id != old.key_id
    key.verify(now, b"said now", what="now")
    old.verify(signature, b"said long ago", what="then")
    assert desk.audit() == ""
    keys.destroy(desk.place, "audit.1", "anna", "overlap is over", [])
    assert "audit.1" not in desk.names()
    old.verify(signature, b"said long ago", what="then")
    assert desk.audit() == ""


def test_what_an_old_version_wrapped_is_unwrapped_until_it_is_destroyed(desk: Desk) -> None:
    from ifpp.log import Secret

    keys.init(desk.place, "anna", "first keys")
    content = Secret(bytes(range(32)))
    with desk.place.provider() as provider:
        name, wrapped = provider.wrap(content)
    assert name == "backup.1"
    keys.rotate(desk.place, "backup", "anna", "yearly", [])
    with desk.place.provider() as provider:
        assert provider.wrap(content)[0] == "backup.2"
        assert provider.unwrap_backup(name, wrapped).reveal() == content.reveal()
    keys.destroy(desk.place, name, "anna", "no such backup is left", [])
    with desk.place.provider() as provider, pytest.raises(SettingsError, match=r"KEYS\.MISSING"):
        provider.unwrap_backup(name, wrapped)


def test_the_newest_version_and_unknown_keys_are_not_destroyed(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    with pytest.raises(CustodyError, match=r"KEYS\.NEWEST"):
        keys.destroy(desk.place, "audit.1", "anna", "by mistake", [])
    with pytest.raises(SettingsError, match="no such key"):
        keys.destroy(desk.place, "audit.7", "anna", "by mistake", [])
    with pytest.raises(SettingsError, match="COMMAND"):
        keys.rotate(desk.place, "tls", "anna", "by mistake", [])
    with pytest.raises(SettingsError, match="--by"):
        keys.rotate(desk.place, "audit", "", "by nobody", [])
    assert desk.audit() == ""


def test_the_audit_finds_a_key_nobody_made_and_one_that_is_gone(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    with desk.place.provider() as provider:
        provider.generate(Purpose.CHIP)
    assert "EXTRA      chip.2" in desk.audit()
    with desk.place.provider() as provider:
        provider.destroy("chip.2")
        provider.destroy("report.1")
    assert "MISSING    report.1" in desk.audit()


def test_two_people_must_confirm(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    with desk.two_people():
        alone = desk.confirm("rotate", "audit", "anna")
        for files in ([], alone, alone + desk.confirm("rotate", "audit", "anna")):
            with pytest.raises(VerificationError, match=r"KEYS\.UNCONFIRMED.*two people"):
                keys.rotate(desk.place, "audit", "anna", "yearly", files)
        both = alone + desk.confirm("rotate", "audit", "bert")
        with pytest.raises(VerificationError, match="something else"):
            keys.rotate(desk.place, "report", "anna", "yearly", both)
        keys.rotate(desk.place, "audit", "anna", "yearly", both)
        with pytest.raises(VerificationError, match="was used"):
            keys.rotate(desk.place, "audit", "anna", "once more", both)
        assert desk.names().count("audit.3") == 0
        assert desk.audit() == ""


def test_an_act_of_one_person_is_found_where_two_are_wanted(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    keys.rotate(desk.place, "audit", "anna", "alone", [])
    with desk.two_people():
        assert "UNCONFIRMED audit: record 2" in desk.audit()


def test_a_changed_or_missing_record_is_found(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    keys.rotate(desk.place, "audit", "anna", "yearly", [])
    first, second = sorted((desk.folder / "ceremonies").iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole.replace(b'"by":"anna"', b'"by":"bert"'))
    with pytest.raises(VerificationError, match=r"KEYS\.RECORDS.*0001"):
        keys.audit(desk.place)
    first.unlink()
    with pytest.raises(VerificationError, match=r"KEYS\.RECORDS.*does not follow"):
        keys.audit(desk.place)
    first.write_bytes(whole)
    second.unlink()
    assert "EXTRA      audit.2" in desk.audit()


def test_records_another_key_signed_do_not_pass(desk: Desk) -> None:
    """Who can write the folder, but has no PIN, can make records; they name other keys than the token has."""
    keys.init(desk.place, "anna", "first keys")
    keys.personal(desk.folder / "forger")
    forger = SoftwareSigner.load(desk.folder / "forger")
    records = desk.place.records()
    with desk.place.provider() as provider:
        found = provider.keys()
    with pytest.raises(VerificationError, match=r"KEYS\.RECORDS"):
        records.write(ceremony.Act("rotate", "audit", "bert", "forged"), found, forger, datetime.now(UTC), [])
    with pytest.raises(VerificationError, match=r"KEYS\.RECORDS"):
        keys.audit(desk.place)


@pytest.mark.parametrize("desk", [KeysKind.SOFTWARE], indirect=True)
def test_confirmations_end_after_a_day_and_belong_to_their_person(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.init(desk.place, "anna", "first keys")
    with desk.two_people():
        records, people = desk.place.records(), desk.place.people()
        act, now = ceremony.Act("rotate", "audit", "anna", "yearly"), datetime.now(UTC)
        documents = [ceremony.read_confirmation(one) for one in desk.confirm("rotate", "audit", "anna", "bert")]
        ceremony.check_confirmations(documents, act, records.head, people, now)
        for late in (timedelta(days=1, seconds=1), -timedelta(minutes=6)):
            with pytest.raises(VerificationError, match="older than a day"):
                ceremony.check_confirmations(documents, act, records.head, people, now + late)
        for change in ({"by": "bert"}, {"at": "2026-01-01T00:00:00.000Z"}, {"signature": "xx"}):
            with pytest.raises(VerificationError, match="not this person's"):
                ceremony.check_confirmations([documents[0] | change, documents[1]], act, records.head, people, now)
        with pytest.raises(VerificationError, match="nobody of"):
            ceremony.check_confirmations([documents[0] | {"by": "carl"}], act, records.head, people, now)
        with pytest.raises(SettingsError, match="not the one of bert"):
            keys.confirm_act(desk.place, "rotate", "audit", "bert", desk.folder / "anna", desk.folder / "x.ok")
        (desk.folder / "junk.ok").write_text("[]")
        with pytest.raises(VerificationError, match="no confirmation"):
            ceremony.read_confirmation(desk.folder / "junk.ok")


def test_a_wrong_pin_is_told_and_not_shown(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    (desk.keys.credentials / "ifpp-pin").write_text("87654321")
    with pytest.raises(SettingsError, match=r"KEYS\.PIN") as refused:
        keys.list_keys(desk.place)
    assert "87654321" not in str(refused.value)


def test_no_key_value_stands_in_a_record_or_on_the_screen(desk: Desk) -> None:
    keys.init(desk.place, "anna", "first keys")
    said = desk.said() + "".join(one.read_text() for one in (desk.folder / "ceremonies").iterdir())
    assert (desk.keys.credentials / "ifpp-pin").read_text() not in said
    if desk.keys.kind is KeysKind.SOFTWARE:
        from ifpp.log import Secret
        from ifpp.trust.keyfile import SoftwareKeys

        pin = Secret((desk.keys.credentials / "ifpp-pin").read_bytes())
        opened = SoftwareKeys.open(desk.folder / "keys.ifpp", pin)
        for key in opened._keys.values():
            assert key.value.reveal().hex() not in said
            if key.info().public is not None:
                assert f"{key.private().private_numbers().private_value:064x}" not in said
        opened.close()


def test_without_keys_the_commands_say_so(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    with pytest.raises(SettingsError, match=r"KEYS\.NONE"):
        keys.Place.load(tmp_path / "site.toml", None)
    (tmp_path / "site.toml").write_text(f'{SITE}[keys]\nprovider = "software"\npurposes = ["chip"]\n')
    with pytest.raises(SettingsError, match="one that signs"):
        keys.Place.load(tmp_path / "site.toml", None)


def test_a_stations_own_keys(desk: Desk) -> None:
    station = desk.folder / "st01.toml"
    table = desk.keys.table.replace('ceremonies"', 'of-st01"') + 'purposes = ["station", "chip"]\n'
    station.write_text(f'id = "st01"\n[heads.h01]\nport = "tcp://127.0.0.1:1"\n{table}')
    place = keys.Place.load(desk.site, station)
    keys.init(place, "anna", "a station's keys")
    assert desk.names() == ["chip.1", "station.1"]
    assert keys.audit(place) == 0


def test_pkcs11_without_softhsm_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SettingsError, match=r"KEYS\.NO_TOKEN.*softhsm2.*--keys software"):
        DemoKeys(tmp_path, KeysKind.PKCS11)
