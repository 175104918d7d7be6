"""Whole packages through modems of every personality; what goes wrong in them is settled by reading the chip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip
from ifpp.fpa.load import Verdict, load, prepare, read_back
from ifpp.fpa.settle import settle
from ifpp.hw.modem import ModemPort
from ifpp.model.states import PackageState
from ifpp.sim.euicc import Euicc
from ifpp.sim.modem import PERSONALITIES, ModemServer, Personality
from tests.fpa.conftest import Case, seal
from tests.hw.ports import Kind, Rig, rig_of

FAULTY = ("limit-300ms", "reset-in-mid-load", "hang")


@pytest.fixture
def case(supply: list[Case]) -> Case:
    return supply[1]


@pytest.fixture
def card(case: Case) -> Euicc:
    return Euicc.load(case.card)


@contextmanager
def modem(
    folder: Path, card: Euicc, personality: Personality, *, access: str = "auto", baud: int = 0
) -> Iterator[tuple[Chip, Rig]]:
    """A chip that is seated behind a modem, and not yet opened."""
    door = Kind(lambda slots, folder: ModemServer(slots, folder, personality, baud=baud))
    with rig_of(door, folder) as rig:
        models = folder / "modems.toml"
        models.write_text(models.read_text() + f'access = "{access}"\n')
        port = rig.port()
        assert isinstance(port, ModemPort)
        rig.seat(card)
        port.open()
        try:
            assert port.wait_seated(2)
            yield Chip(port, load_apdu_timeout_s=1.0), rig
        finally:
            port.close()


def loaded(chip: Chip, case: Case) -> Verdict:
    chip.open()
    assert chip.eid() == case.order.eid
    prepare(chip, case.order)
    return load(chip, case.order, case.key)


@pytest.mark.parametrize("name", [name for name in PERSONALITIES if name not in FAULTY])
def test_a_package_is_loaded_read_back_and_sealed(name: str, short_folder: Path, card: Euicc, case: Case) -> None:
    with modem(short_folder, card, PERSONALITIES[name]) as (chip, _):
        verdict = loaded(chip, case)
        assert (verdict.state, verdict.fault) == (PackageState.INSTALLED, None)
        assert verdict.pir is not None
        read_back(chip, case.order.iccid, verdict.pir)
        assert seal(chip, case.order.eid).locked
        chip.close()
    assert len(card.nvm.profiles) == 1


@pytest.mark.parametrize(("access", "baud"), [("cgla", 3_000_000), ("csim", 3_000_000), ("csim", 0)])
def test_either_way_to_the_card_may_be_ordered(
    short_folder: Path, card: Euicc, case: Case, access: str, baud: int
) -> None:
    with modem(short_folder, card, PERSONALITIES["plain"], access=access, baud=baud) as (chip, _):
        assert loaded(chip, case).state is PackageState.INSTALLED


def test_a_modem_that_gives_up_on_the_chip_leaves_a_profile_that_only_the_chip_knows_of(
    short_folder: Path, card: Euicc, case: Case
) -> None:
    with modem(short_folder, card, PERSONALITIES["limit-300ms"]) as (chip, _):
        verdict = loaded(chip, case)
        assert verdict.state is PackageState.UNKNOWN
        assert verdict.fault is not None
        assert verdict.fault.code == "MODEM.ERROR"
        chip.open()
        settled = settle(chip, case.order, case.otk_id, case.key)
        assert (settled.state, settled.fault) == (PackageState.INSTALLED, None)
        assert len(card.nvm.profiles) == 1


def test_the_same_modem_has_no_limit_over_csim(short_folder: Path, card: Euicc, case: Case) -> None:
    with modem(short_folder, card, PERSONALITIES["limit-300ms"], access="csim") as (chip, _):
        assert loaded(chip, case).state is PackageState.INSTALLED


@pytest.mark.parametrize(
    ("personality", "code"),
    [
        (PERSONALITIES["reset-in-mid-load"], "MODEM.ERROR"),
        (replace(PERSONALITIES["hang"], hang_s=2.0), "APDU.TIMEOUT"),
        (replace(PERSONALITIES["hang"], hang_s=2.0, echo=True, chatty=True, chunk=5), "APDU.TIMEOUT"),
        (replace(PERSONALITIES["reset-in-mid-load"], handle="{number:016x}", fetches=True), "MODEM.ERROR"),
    ],
)
def test_a_load_the_modem_broke_off_is_settled_and_done_again(
    short_folder: Path, card: Euicc, case: Case, personality: Personality, code: str
) -> None:
    with modem(short_folder, card, personality) as (chip, _):
        verdict = loaded(chip, case)
        assert verdict.state is PackageState.UNKNOWN
        assert verdict.fault is not None
        assert verdict.fault.code == code
        chip.close()
        chip.open()
        settled = settle(chip, case.order, case.otk_id, case.key)
        assert (settled.state, settled.spent) == (PackageState.FAILED, False)
        assert loaded(chip, case).state is PackageState.INSTALLED
    assert len(card.nvm.profiles) == 1


def test_a_chatty_modem_tells_of_a_removal_that_nobody_asked_about(short_folder: Path, card: Euicc) -> None:
    with modem(short_folder, card, PERSONALITIES["chatty"]) as (chip, rig):
        chip.open()
        rig.unseat()
        rig.seat(card)
        assert chip.port.wait_removed(1)
        assert chip.port.wait_seated(1)


def test_a_plain_sim_is_told(short_folder: Path, card: Euicc, monkeypatch: pytest.MonkeyPatch) -> None:
    process = card.process
    monkeypatch.setattr(card, "process", lambda apdu: bytes.fromhex("6A82") if apdu[1] == 0xA4 else process(apdu))
    for name in ("plain", "csim-only"):
        with modem(short_folder, card, PERSONALITIES[name]) as (chip, _), pytest.raises(CardError) as caught:
            chip.open()
        assert caught.value.code == "EUICC.NOT_AN_EUICC"
