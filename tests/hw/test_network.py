"""Whether a profile is registered in a network: what modems say, how long they are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ifpp.errors import IfppError
from ifpp.fpa.chip import Chip
from ifpp.fpa.configure import enable
from ifpp.fpa.load import load, prepare
from ifpp.fpa.seal import delete_keys
from ifpp.fpa.steps import connect
from ifpp.hw.network import Registration, read_registration, wait_registered
from ifpp.model.recipe import Connect
from ifpp.sim.euicc import Euicc
from ifpp.sim.modem import PERSONALITIES
from tests.fpa.conftest import Case
from tests.hw.test_modem_personalities import modem
from tests.memory_port import MemoryPort

HOME, ROAMING, DENIED = Registration.HOME, Registration.ROAMING, Registration.DENIED


@pytest.mark.parametrize(
    ("answers", "stands"),
    [
        ([" 0,1"], HOME),
        ([' 2,5,"00A1","01B2C3D4",7'], ROAMING),
        ([" 0,2", " 0,1", " 0,0"], HOME),
        ([" 0,0", " 0,3"], DENIED),
        ([' 1,"00A1","01B2C3D4",7', " 0,2"], Registration.SEARCHING),  # the first came unasked
        ([" 0,9"], Registration.UNKNOWN),
        (["nonsense"], Registration.UNKNOWN),
        ([], Registration.UNKNOWN),
    ],
)
def test_the_best_of_what_a_modem_says_counts(answers: list[str], stands: Registration) -> None:
    assert read_registration(answers) is stands


class Radio:
    """A port that stands as it was told, in turn, then stays so; its time only passes while somebody rests."""

    def __init__(self, stands: Sequence[Registration]) -> None:
        self._stands = iter(stands)
        self._last = Registration.NONE
        self.time_s = 100.0

    def registration(self) -> Registration:
        self._last = next(self._stands, self._last)
        return self._last

    def now(self) -> float:
        return self.time_s

    def rest(self, time_s: float) -> None:
        self.time_s += time_s


@pytest.mark.parametrize(
    ("stands", "roaming", "ends", "after_s"),
    [
        ([HOME], True, HOME, 0.0),
        ([Registration.SEARCHING, Registration.SEARCHING, ROAMING], True, ROAMING, 1.0),
        ([ROAMING, ROAMING, HOME], False, HOME, 1.0),
        ([ROAMING], False, ROAMING, 3.0),
        ([Registration.SEARCHING, DENIED], True, DENIED, 3.0),
        ([], True, Registration.NONE, 3.0),
    ],
)
def test_it_is_asked_until_it_is_so_or_the_deadline_passes(
    stands: list[Registration], roaming: bool, ends: Registration, after_s: float
) -> None:
    radio = Radio(stands)
    found, passed_s = wait_registered(radio, 3.0, roaming=roaming, now=radio.now, rest=radio.rest)
    assert found is ends
    assert passed_s == pytest.approx(after_s)


@contextmanager
def enabled(folder: Path, case: Case, network: str) -> Iterator[Chip]:
    """A chip behind a modem, loaded, its profile enabled."""
    card = Euicc.load(case.card)
    with modem(folder, card, replace(PERSONALITIES["plain"], network=network)) as (chip, _):
        chip.open()
        prepare(chip, case.order)
        assert load(chip, case.order, case.key).fault is None
        delete_keys(chip, case.order.eid)
        enable(chip, case.order.iccid)
        yield chip


@pytest.fixture
def case(supply: list[Case]) -> Case:
    return supply[1]


def test_an_enabled_profile_is_seen_in_its_network(short_folder: Path, case: Case) -> None:
    with enabled(short_folder, case, "home") as chip:
        assert connect(chip, Connect(), "here")["network"] == "home"
        assert chip.eid() == case.order.eid, "the chip answers on"


@pytest.mark.parametrize(
    ("network", "roaming", "code"),
    [
        ("none", True, "CONNECT.NO_COVERAGE"),
        ("denied", True, "CONNECT.DENIED"),
        ("roaming", False, "CONNECT.NO_COVERAGE"),
    ],
)
def test_without_a_network_the_step_fails_at_its_deadline(
    short_folder: Path, case: Case, network: str, roaming: bool, code: str
) -> None:
    with enabled(short_folder, case, network) as chip, pytest.raises(IfppError) as caught:
        connect(chip, Connect(within_s=0.05, roaming=roaming), "here")
    assert caught.value.code == code


def test_a_card_reader_has_no_network(case: Case) -> None:
    with pytest.raises(IfppError) as caught:
        connect(Chip(MemoryPort(Euicc.load(case.card))), Connect(), "here")
    assert caught.value.code == "CONNECT.NO_MODEM"
