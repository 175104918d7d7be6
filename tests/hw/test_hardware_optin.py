"""The opt-in hardware tests themselves: they run on the named chip, and on no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.sim.euicc import Euicc
from ifpp.sim.fleet import card_contents
from tests.fpa.conftest import Case
from tests.hw.ports import KINDS, Rig, rig_of
from tests.real import pcscd

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rig(short_folder: Path) -> Iterator[Rig]:
    with rig_of(KINDS["unix"], short_folder) as made:
        yield made


def run(*options: str) -> subprocess.CompletedProcess[str]:
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "tests/hardware", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # all others cost seconds
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment, check=False)


def seated(rig: Rig, case: Case) -> tuple[Euicc, list[str]]:
    """Seat the chip of `case`; returns it, and the option that names its head."""
    chip = Euicc.load(case.card)
    rig.seat(chip)
    return chip, ["--reader", rig.url()]


def test_the_named_chip_is_used_up_and_that_is_said_before(rig: Rig, supply: list[Case]) -> None:
    case = supply[0]
    chip, options = seated(rig, case)
    keys = card_contents(chip)["keys_left"]
    done = run(*options, "--eid", case.order.eid)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"This will destroy: EID {case.order.eid}: {keys} one-time keys" in done.stdout
    assert (card_contents(chip)["keys_left"], card_contents(chip)["fpa_locked"]) == (0, True)


def test_any_other_chip_is_refused_and_left_as_it_is(rig: Rig, supply: list[Case]) -> None:
    chip, options = seated(rig, supply[0])
    before = card_contents(chip)
    done = run(*options, "--eid", supply[1].order.eid)
    assert done.returncode == 1
    assert f"refused: in {options[1]} sits EID {supply[0].order.eid}" in done.stdout + done.stderr
    assert card_contents(chip) == before


@pytest.mark.needs("pcscd")
def test_a_pc_sc_reader_is_named_as_it_is_listed() -> None:
    readers = pcscd.running()
    done = run("--reader", "No such reader", "--eid", "89049032003593177379503752504973")
    assert done.returncode == 1
    assert (
        f"HEAD.NO_READER: pcsc:No such reader: there is no such reader; there are: {readers.readers[0]}" in done.stdout
    )


@pytest.mark.parametrize("options", [[], ["--reader", "any"]])
def test_without_both_options_nothing_is_touched(options: list[str]) -> None:
    done = run(*options)
    assert done.returncode == 0, done.stdout
    assert "passed" not in done.stdout
    assert "opt-in" in done.stdout
