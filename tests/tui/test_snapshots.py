"""Every screen and state, cell by cell as it was when somebody looked at it and found it good (`make screens`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from textual.app import App

from tests.tui.screens import PICTURES


@pytest.fixture(autouse=True)
def _in_one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", PICTURES)
def test_the_screen_looks_as_it_did(name: str, snap_compare: Callable[..., bool]) -> None:
    screen: App[None] = PICTURES[name].screen()
    assert snap_compare(screen, terminal_size=PICTURES[name].size)
