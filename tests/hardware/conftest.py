"""One real chip in one real head: `pytest tests/hardware --reader "READER OR URL" --eid EID`.

Without both options everything here is skipped. Only the chip with exactly that EID is touched: any other is named and
refused after it was asked for its EID, and nothing more is sent to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from ifpp.fpa.chip import Chip
from ifpp.hw.port import CardPort, make_port
from ifpp.model.ids import Eid

SEAT_S = 20.0
THINK_S = 5.0


@pytest.fixture(scope="session")
def eid(pytestconfig: pytest.Config) -> Eid:
    """The one chip that may be used."""
    digits: str = pytestconfig.getoption("--eid")
    if not digits or not pytestconfig.getoption("--reader"):
        pytest.skip("opt-in: name a head with --reader and its chip with --eid")
    try:
        return Eid(digits)
    except ValueError as error:
        pytest.exit(f"--eid: {error}", returncode=1)


@pytest.fixture(scope="session")
def port(pytestconfig: pytest.Config, eid: Eid) -> Iterator[CardPort]:
    """The head, opened, with the right chip in it."""
    name: str = pytestconfig.getoption("--reader")
    made = make_port(name if name.startswith(("pcsc:", "modem:", "tcp:", "unix:")) else f"pcsc:{name}")
    made.open()
    try:
        if not made.wait_seated(SEAT_S):
            pytest.exit(f"nothing was seated in {name} for {SEAT_S:g} s", returncode=1)
        chip = Chip(made)
        chip.open()
        found = chip.eid()
        chip.close()
        if found != eid:
            pytest.exit(f"refused: in {name} sits EID {found}, named was {eid}; nothing was changed", returncode=1)
        yield made
    finally:
        made.close()


@pytest.fixture
def chip(port: CardPort) -> Iterator[Chip]:
    """The chip, freshly powered."""
    opened = Chip(port)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def destroys(capsys: pytest.CaptureFixture[str], eid: Eid) -> Callable[[str], None]:
    """Call it with what is about to be destroyed, before it is."""

    def say(what: str) -> None:
        with capsys.disabled():
            print(f"\nThis will destroy: EID {eid}: {what}. Ctrl-C within {THINK_S:g} s stops this.", flush=True)
            time.sleep(THINK_S)

    return say
