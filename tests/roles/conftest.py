"""What tests of roles share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def pin_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PIN as systemd hands it over."""
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "ifpp-pin").write_text("correct horse\n")
    (folder / "ifpp-pin").chmod(0o600)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
