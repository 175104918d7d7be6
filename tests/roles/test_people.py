"""The file of people: hashes, roles, and nothing half-written."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ifpp.errors import SettingsError
from ifpp.roles.people import add, remove, show
from ifpp.settings import load_people
from ifpp.trust.people import recognise


def scan(monkeypatch: pytest.MonkeyPatch, badge: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(badge + "\n"))


def test_a_badge_is_known_again_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "people.toml"
    for name, role, badge in (
        ("anna", "operator", "A-1111"),
        ("bob", "quality", "B-2222"),
        ("anna", "technician", "A-3"),
    ):
        scan(monkeypatch, badge + "xyz")
        add(file, name, role)  # type: ignore[arg-type]  # a loop of literals
    assert recognise(load_people(file), "A-3xyz").role == "technician"
    with pytest.raises(SettingsError, match=r"OPERATOR\.BADGE"):
        recognise(load_people(file), "A-1111xyz")
    assert "A-3xyz" not in file.read_text() + capsys.readouterr().out
    remove(file, "anna")
    show(file)
    assert capsys.readouterr().out.split() == ["anna:", "removed", "bob", "quality"]


def test_what_is_wrong_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "people.toml"
    scan(monkeypatch, "A-1111")
    add(file, "anna", "operator")
    before = file.read_bytes()
    for name, badge in (("bob", "A-1111"), ("bob", "x"), ("b b", "B-2222"), ("bob", "")):
        scan(monkeypatch, badge)
        with pytest.raises(SettingsError):
            add(file, name, "operator")
    with pytest.raises(SettingsError, match=r"OPERATOR\.UNNAMED"):
        remove(file, "nobody")
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
