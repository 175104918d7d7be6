"""Fixtures of the line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.line.world import GatedFactory


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[GatedFactory]:
    made = GatedFactory.at(tmp_path)
    yield made
    made.gate.set()
    made.close()
