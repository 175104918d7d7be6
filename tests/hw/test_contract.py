"""What every card port owes the head above it, whatever is behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from ifpp.errors import TransportError
from ifpp.fpa.chip import Chip
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.model.states import Lamp, PackageState
from ifpp.sim.euicc import Euicc
from ifpp.sim.slots import Cut
from tests.fpa.conftest import Case
from tests.hw.ports import Rig, loaded


@pytest.fixture
def case(supply: list[Case]) -> Case:
    return supply[0]


@pytest.fixture
def chip(case: Case) -> Euicc:
    """The chip of `case` as it was personalised."""
    return Euicc.load(case.card)


@pytest.fixture
def port(rig: Rig) -> Iterator[CardPort]:
    """The opened port of an empty slot."""
    made = rig.port()
    made.open()
    assert made.wait_removed(rig.kind.patience_s)
    yield made
    made.close()


def seated(rig: Rig, port: CardPort, chip: Euicc | None, cut: Cut | None = None) -> None:
    rig.seat(chip, cut)
    assert port.wait_seated(rig.kind.patience_s)


def test_a_profile_is_loaded(rig: Rig, port: CardPort, chip: Euicc, case: Case) -> None:
    seated(rig, port, chip)
    verdict = loaded(port, case)
    assert (verdict.state, verdict.fault) == (PackageState.INSTALLED, None)
    assert len(chip.nvm.profiles) == 1


def test_an_empty_slot_is_empty_and_waiting_for_a_unit_has_an_end(port: CardPort) -> None:
    assert not port.wait_seated(0.2)
    assert port.wait_removed(0.2)
    with pytest.raises(TransportError) as caught:
        port.power_up()
    assert caught.value.code == "CONTACT.NO_ATR"


def test_a_unit_that_stays_is_not_removed(rig: Rig, port: CardPort, chip: Euicc) -> None:
    seated(rig, port, chip)
    port.power_up()
    assert not port.wait_removed(0.6)
    port.power_down()
    assert not port.wait_removed(0.6)
    assert port.wait_seated(0.0)


def test_a_removal_is_seen_and_the_next_unit_works(rig: Rig, port: CardPort, chip: Euicc, case: Case) -> None:
    seated(rig, port, chip)
    port.power_up()
    port.power_down()
    rig.unseat()
    assert port.wait_removed(rig.kind.patience_s)
    seated(rig, port, chip)
    assert loaded(port, case).state is PackageState.INSTALLED


def test_units_cannot_be_changed_unnoticed(rig: Rig, port: CardPort, chip: Euicc) -> None:
    seated(rig, port, chip)
    port.power_up()
    rig.unseat()
    rig.seat(chip)
    assert port.wait_removed(rig.kind.patience_s)
    assert port.wait_seated(rig.kind.patience_s)
    talker = Chip(port)
    talker.open()
    assert talker.eid() == chip.chip.card.eid


def test_power_up_is_a_cold_start(rig: Rig, port: CardPort, chip: Euicc) -> None:
    seated(rig, port, chip)
    for _ in range(6):  # a warm chip would run out of channels
        talker = Chip(port)
        talker.open()
        talker.eid()


def test_a_mute_chip_has_no_answer_to_reset(rig: Rig, port: CardPort) -> None:
    seated(rig, port, None)
    with pytest.raises(TransportError) as caught:
        Chip(port).open()
    assert caught.value.code == "CONTACT.NO_ATR"


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("at", [1, 4, 20])
def test_contact_lost_over_an_apdu(rig: Rig, port: CardPort, chip: Euicc, case: Case, at: int, stays: bool) -> None:
    seated(rig, port, chip, Cut(at, executed=True, stays=stays))
    try:
        fault = loaded(port, case).fault
    except TransportError as error:
        fault = error
    assert fault is not None
    assert fault.code == "CONTACT.LOST"
    rig.unseat()
    assert port.wait_removed(rig.kind.patience_s)
    seated(rig, port, Euicc.load(case.card))
    assert loaded(port, case).state is PackageState.INSTALLED


async def test_a_hung_chip_is_told_in_time_and_the_head_comes_back(
    rig: Rig, port: CardPort, chip: Euicc, case: Case
) -> None:
    owner = Owner("head", lambda: port.deadline_s)
    seated(rig, port, chip)
    talker = Chip(port, apdu_timeout_s=1.0)
    await owner.call(talker.open)
    rig.hang(30)
    with pytest.raises(TransportError) as caught:
        await owner.call(talker.eid)
    assert caught.value.code in ("APDU.TIMEOUT", "HEAD.HUNG")
    rig.unseat()
    rig.hang(0)
    for _ in range(100):
        if not owner.hung:
            break
        await asyncio.sleep(0.05)
    await owner.call(port.open)
    rig.seat(chip)
    assert await owner.call(port.wait_seated, rig.kind.patience_s)
    assert (await owner.call(loaded, port, case)).state is PackageState.INSTALLED
    owner.close()


def test_a_port_is_closed_twice_and_opened_again(rig: Rig, port: CardPort, chip: Euicc, case: Case) -> None:
    seated(rig, port, chip)
    port.power_up()
    port.close()
    port.close()
    with pytest.raises(TransportError):
        port.transmit(bytes(5), 1)
    port.open()
    assert port.wait_seated(rig.kind.patience_s)
    assert loaded(port, case).state is PackageState.INSTALLED


def test_the_lamp_shows(rig: Rig, port: CardPort) -> None:
    for lamp in Lamp:
        port.lamp(lamp)
        end_s = time.monotonic() + 2
        while (shown := rig.bench.do(lambda: rig.slot.lamp.name)) != lamp.name and time.monotonic() < end_s:
            time.sleep(0.01)
        assert shown == lamp.name
