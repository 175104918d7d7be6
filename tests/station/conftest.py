"""What was logged, for tests of the station."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import pytest

Logged = Callable[[str], list[Mapping[str, object]]]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Logged:
    """Return the fields of every log entry of a name, in order."""
    caplog.set_level(logging.INFO, "ifpp")

    def entries(event: str) -> list[Mapping[str, object]]:
        return [record.ifpp_fields for record in caplog.records if record.getMessage() == event]  # type: ignore[attr-defined]

    return entries
