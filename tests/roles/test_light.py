"""Processes that have no factory database do not load what asks one: a station starts in half the time."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("role", ["station", "simulation", "keys", "screen"])
def test_no_database_library_is_loaded(role: str) -> None:
    told = f"import sys, ifpp.roles.{role}; print('sqlalchemy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
