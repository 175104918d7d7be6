"""What a real chip in a real head must do. The last test uses the chip up."""

from __future__ import annotations

import time
from collections.abc import Callable

from ifpp.fpa.chip import Chip, is_locked
from ifpp.hw.port import CardPort
from ifpp.model.ids import Eid
from tests.fpa.conftest import seal


def test_it_is_read(chip: Chip, eid: Eid) -> None:
    identity = chip.identify(chip.eid())
    assert identity.eid == eid
    assert identity.info2.free_nvm >= 0
    chip.profiles()
    chip.notifications()


def test_it_starts_cold_again_and_again(port: CardPort, eid: Eid) -> None:
    for _ in range(5):
        chip = Chip(port)
        chip.open()
        assert chip.eid() == eid
        chip.close()


def test_it_stays_seated(port: CardPort) -> None:
    assert port.wait_seated(1.0)
    assert not port.wait_removed(2.0)


def test_an_exchange_takes_less_than_a_second(chip: Chip) -> None:
    before, start_s = chip.apdus, time.monotonic()
    for _ in range(20):
        chip.eid()
    assert (time.monotonic() - start_s) / (chip.apdus - before) < 1.0


def test_it_is_sealed_for_good(chip: Chip, eid: Eid, destroys: Callable[[str], None]) -> None:
    destroys(f"{chip.status().otk_remaining} one-time keys, and its factory services, which are locked for good")
    proof = seal(chip, eid)
    assert proof.keys_remaining == 0
    assert proof.locked
    assert is_locked(chip.status())
