"""Removing a profile from a chip (SGP.41 A.4): the simulated eUICC judges the commands by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.errors import CardError, TransportError
from ifpp.fpa.chip import Chip
from ifpp.fpa.load import load, prepare
from ifpp.fpa.remove import remove
from ifpp.model.chip import NotificationEvent
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.world import JobPlan, build_world
from tests.fpa.conftest import Case, cases
from tests.memory_port import MemoryPort


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    jobs = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
    world = build_world(tmp_path_factory.mktemp("rework"), units=1, seed=3, jobs=jobs, profile_kb=(4, 6))
    return cases(world)[0]


@pytest.fixture
def loaded(case: Case) -> Iterator[tuple[Chip, Euicc]]:
    """A powered chip that can be reworked, with its profile and two one-time keys left."""
    port = case.port()
    port.chip.nvm.rework = True
    chip = Chip(port)
    chip.open()
    prepare(chip, case.order)
    verdict = load(chip, case.order, case.key)
    assert verdict.fault is None
    yield chip, port.chip
    chip.close()


def test_a_profile_goes_with_the_chips_signed_word(case: Case, loaded: tuple[Chip, Euicc]) -> None:
    chip, inside = loaded
    removal = remove(chip, case.order.iccid, case.key)
    assert removal.result == 0
    assert removal.notice is not None
    assert (removal.notice.iccid, removal.notice.events) == (case.order.iccid, frozenset({NotificationEvent.DELETE}))
    assert inside.nvm.profiles == []
    assert chip.status().otk_remaining == 2


def test_an_enabled_profile_is_disabled_first(case: Case, loaded: tuple[Chip, Euicc]) -> None:
    chip, inside = loaded
    inside.nvm.profiles[0].enabled = True
    assert remove(chip, case.order.iccid, case.key).result == 0
    assert inside.nvm.profiles == []


def test_once_more_it_reads_and_deletes_nothing(case: Case, loaded: tuple[Chip, Euicc]) -> None:
    chip, _ = loaded
    first = remove(chip, case.order.iccid, case.key)
    again = remove(chip, case.order.iccid, case.key)
    assert (again.result, again.notice) == (None, first.notice)


def test_a_cut_anywhere_is_made_up_for(case: Case) -> None:
    """Contact is lost after each command in turn; the next seating finds out what is true."""
    results = set()
    for cut in range(1, 100):
        port = case.port()
        port.chip.nvm.rework = True
        chip = Chip(port)
        chip.open()
        prepare(chip, case.order)
        load(chip, case.order, case.key)
        port.pull_at, port.executed = len(port.sent) + cut, True
        try:
            remove(chip, case.order.iccid, case.key)
        except TransportError:
            later = Chip(MemoryPort(port.chip))
            later.open()
            removal = remove(later, case.order.iccid, case.key)
            assert port.chip.nvm.profiles == []
            assert removal.notice is not None
            results.add(removal.result)
        else:
            break
    assert results == {0, None}


def test_a_forged_notification_is_no_evidence(case: Case, loaded: tuple[Chip, Euicc]) -> None:
    chip, inside = loaded
    remove(chip, case.order.iccid, case.key)
    kept = inside.nvm.notifications[-1]
    at = kept.raw.index(b"\x5f\x37\x40") + 3
    kept.raw = kept.raw[:at] + bytes((kept.raw[at] ^ 1,)) + kept.raw[at + 1 :]
    assert remove(chip, case.order.iccid, case.key).notice is None


def test_a_chip_that_keeps_its_profile_is_named(case: Case, loaded: tuple[Chip, Euicc], tmp_path: Path) -> None:
    chip, inside = loaded
    inside.nvm.rework = False
    with pytest.raises(CardError, match=r"EUICC\.NOT_REMOVED.*6985"):
        remove(chip, case.order.iccid, case.key)
    assert len(inside.nvm.profiles) == 1
