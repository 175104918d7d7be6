"""`ifpp denylist` as a person types it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, SettingsError
from ifpp.roles.denylist import allow, deny, show
from ifpp.store.factory import Factory

FIRMWARE, KIND = "89049032/1.4.2", "operational"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text('enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n')
    return file


def said(site: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    show(site, as_json=False)
    return capsys.readouterr().out


def test_an_entry_is_made_and_taken_off_with_name_and_reason(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "empty" in said(site, capsys)
    deny(site, FIRMWARE, KIND, " Eve ", "hangs at the third element", known=False)
    text = said(site, capsys)
    assert f"firmware {FIRMWARE}  profile type {KIND}" in text
    assert "active: refused" in text
    assert "by Eve: hangs at the third element" in text
    allow(site, FIRMWARE, KIND, "Adam", "mended")
    assert "removed: loaded again" in said(site, capsys)
    show(site, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["by"], row["reason"], row["standing"], row["failed"]) == ("Adam", "mended", "REMOVED", 0)


@pytest.mark.parametrize(
    ("firmware", "kind", "by", "reason"),
    [
        (FIRMWARE, KIND, "", "why"),
        (FIRMWARE, KIND, "Eve", " \t"),
        (FIRMWARE, "", "Eve", "why"),
        (FIRMWARE, "x" * 65, "Eve", "why"),
        ("1.4.2", KIND, "Eve", "why"),
        (FIRMWARE, KIND, "Eve", "y" * 201),
    ],
)
def test_nothing_is_decided_without_all_of_it(site: Path, firmware: str, kind: str, by: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        deny(site, firmware, kind, by, reason, known=False)
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        allow(site, firmware, kind, by, reason)
    with closing(Factory.open(f"sqlite:///{site.parent / 'factory.db'}")) as factory:
        assert factory.denylist() == []


def test_only_what_is_there_is_activated_or_removed(site: Path) -> None:
    with pytest.raises(CustodyError, match=r"DENYLIST\.UNKNOWN"):
        deny(site, FIRMWARE, KIND, "Eve", "why", known=True)
    with pytest.raises(CustodyError, match=r"DENYLIST\.UNKNOWN"):
        allow(site, FIRMWARE, KIND, "Eve", "why")
