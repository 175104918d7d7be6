"""Virtual readers for tests and demo: what they need, and that nothing is left of them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ifpp.errors import ServiceError, SettingsError
from ifpp.roles import virtual_readers
from ifpp.roles.virtual_readers import MAX_READERS, VirtualReaders
from tests.real import pcscd


@pytest.mark.needs("pcscd")
def test_nothing_is_left_of_them() -> None:
    pcscd.require()
    with tempfile.TemporaryDirectory(prefix="ifpp-") as name:
        with VirtualReaders(3, Path(name)) as readers:
            assert readers.socket.is_socket()
            assert readers.readers == ["ifpp virtual 01 00 00", "ifpp virtual 01 00 01", "ifpp virtual 02 00 00"]
            inside = subprocess.run(readers.command("true"), check=False)
            assert inside.returncode == 0
            pid = readers.pid
            assert Path(f"/proc/{pid}").exists()
        assert not Path(f"/proc/{pid}").exists()
        assert readers.netns not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("number", [0, MAX_READERS + 1])
def test_pcscd_takes_so_many_and_no_more(number: int, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        VirtualReaders(number, tmp_path)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "pcscd" else f"/bin/{name}")
    monkeypatch.setattr(virtual_readers, "_DRIVER", tmp_path / "none.so")
    with pytest.raises(SettingsError) as caught:
        virtual_readers.require_tools()
    assert "pcscd, vsmartcard-vpcd" in caught.value.detail


def test_without_root_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(virtual_readers, "_DRIVER", tmp_path)
    monkeypatch.setattr(virtual_readers, "_root", lambda: ["false"])
    with pytest.raises(SettingsError) as caught:
        virtual_readers.require_tools()
    assert "root" in caught.value.detail


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_command: str) -> str:
        raise ServiceError("PROCESS.DIED", "sudo: a password is required")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(virtual_readers, "_DRIVER", Path("/"))
    monkeypatch.setattr(virtual_readers, "_as_root", refused)
    with pytest.raises(SettingsError, match=r"SETTINGS\.NEEDS_ROOT.*as root, or allow sudo"):
        virtual_readers.require_tools()
