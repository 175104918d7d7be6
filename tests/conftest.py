"""Options of the opt-in tests on real hardware (tests/hardware), and the end of what a test run shares."""

from __future__ import annotations

import pytest

from tests.real import pcscd


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware", "tests on one real chip, which they end: see tests/hardware")
    group.addoption("--reader", default="", help="port URL or PC/SC reader name of the head the chip sits in")
    group.addoption("--eid", default="", help="EID of the one chip that may be used up, 32 digits")


def pytest_sessionfinish() -> None:
    pcscd.stop()
