"""The PIN: from a credential or a descriptor, refused where there is none, and shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ifpp.errors import SettingsError
from ifpp.roles import pin


@pytest.fixture(autouse=True)
def no_pin_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(pin, "_DESCRIPTOR", [])


def hand_over(content: bytes) -> int:
    """Return the reading end of a pipe that holds this content."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return reading


def credential(folder: Path, content: str, mode: int = 0o600) -> None:
    file = folder / "ifpp-pin"
    file.write_text(content)
    file.chmod(mode)


def test_a_pin_comes_through_a_descriptor_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credential(tmp_path, "of the folder")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    descriptor = hand_over(b"1234567\n")
    pin.take_pin(descriptor)
    found = pin.read_pin("ifpp-pin")
    assert found.reveal() == b"1234567"
    assert "1234567" not in repr(found)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_pin_comes_as_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    credential(tmp_path, "1234567", mode=0o440)  # systemd's access list shows as the group's right
    assert pin.read_pin("ifpp-pin").reveal() == b"1234567"


def test_without_a_pin_there_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"KEYS\.PIN.*--pin-fd"):
        pin.read_pin("ifpp-pin")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: .*ifpp-pin: cannot be read"):
        pin.read_pin("ifpp-pin")


@pytest.mark.parametrize(("content", "mode"), [("", 0o600), ("\n", 0o600), ("1" * 300, 0o600), ("1234", 0o604)])
def test_a_pin_that_is_none_or_open_to_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, mode: int
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    credential(tmp_path, content, mode)
    with pytest.raises(SettingsError, match=r"KEYS\.PIN") as refused:
        pin.read_pin("ifpp-pin")
    assert not content.strip() or content not in str(refused.value)


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    descriptor = hand_over(b"")
    os.close(descriptor)
    with pytest.raises(SettingsError, match=r"KEYS\.PIN: --pin-fd"):
        pin.take_pin(descriptor)
