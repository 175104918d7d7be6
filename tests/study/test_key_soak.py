"""The soak of `make soak` works; here for as long as one turn takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.softhsm import SoftToken
from tests.study.key_soak import soak


@pytest.mark.needs("softhsm")
def test_every_thread_has_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SoftToken(tmp_path, monkeypatch).open()
    assert soak(keys, threads=16, seconds=0.0) == 16 * 4
    keys.close()
