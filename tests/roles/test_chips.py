"""`ifpp chip dump` and `ifpp chip diff`: reads only; identities aside; against another chip and against a promise."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import SettingsError, VerificationError
from ifpp.fpa.chip import Chip
from ifpp.fpa.load import load, prepare
from ifpp.fpa.steps import Steps, eim_data
from ifpp.model.clock import SystemClock
from ifpp.model.recipe import IFPP_LOAD, Eim, Load, Nickname, Recipe
from ifpp.recipes import load_recipe
from ifpp.roles import check_site
from ifpp.roles.chips import broken, redacted, show_diff, write_dump
from ifpp.roles.recipes import show
from ifpp.settings import Site
from ifpp.sim.euicc import Euicc
from ifpp.sim.eum import Make
from ifpp.trust.eim import check_eim
from tests.fpa.conftest import Case, make_cases
from tests.fpa.test_steps import CA, certificate, pem
from tests.hw.ports import KINDS, Rig, rig_of

__all__ = ["make_cases"]
Dumped = Callable[..., dict[str, Any]]
SHIPPED = Path(__file__).parent.parent.parent / "config" / "recipes"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with (
        tempfile.TemporaryDirectory(prefix="ifpp-chip-") as name,
        rig_of(KINDS["tcp"], Path(name), heads=1) as made,
    ):
        yield made


@pytest.fixture
def chips(make_cases: Callable[..., list[Case]]) -> list[Case]:
    return make_cases(2, profile_kb=(4, 5), make=Make(iot=True, tre="integrated", tre_product="SOC-7"))


@pytest.fixture
def dumped(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Dumped:
    def read(card: Euicc, name: str = "", *, redact: bool = False) -> dict[str, Any]:
        rig.seat(card)
        try:
            write_dump(rig.url("h01"), None, tmp_path / name if name else None, redact=redact, wait_s=2)
        finally:
            rig.seat(None)
        text = (tmp_path / name).read_text() if name else capsys.readouterr().out
        document: dict[str, Any] = json.loads(text)
        return document

    return read


def test_a_dump_says_everything_and_changes_nothing(dumped: Dumped, chips: list[Case]) -> None:
    card = Euicc.load(chips[0].card)
    before = card.nvm.to_document()
    told = dumped(card)
    assert card.nvm.to_document() == before
    assert told["eid"] == chips[0].order.eid
    assert (told["info2"]["kind"], told["info2"]["tre"], told["info2"]["tre_product"]) == (
        "iot",
        ["integrated(1)"],
        "SOC-7",
    )
    assert told["factory_services"]["keys_remaining"] == len(told["one_time_keys"]) == 3
    assert told["profiles"] == told["notifications"] == []
    assert told["eims"] is None, "no chip tells them while one-time keys remain"
    assert set(told["unanswered"]) == {"eims"}
    assert told["assistant_answers"] is False


def test_redacted_it_has_no_identity(dumped: Dumped, chips: list[Case]) -> None:
    card = Euicc.load(chips[0].card)
    text = json.dumps(dumped(card, redact=True))
    keys = [key.otk_id.hex() for key in card.chip.card.one_time_keys]
    assert not [secret for secret in (chips[0].order.eid, *keys) if secret in text]
    assert '"eid-1"' in text
    assert '"key-3"' in text


def test_the_same_identity_has_the_same_number() -> None:
    rows = [{"iccid": "b"}, {"iccid": "a"}, {"iccid": "b", "eid": None}]
    assert redacted({"profiles": rows})["profiles"] == [
        {"iccid": "iccid-1"},
        {"iccid": "iccid-2"},
        {"iccid": "iccid-1", "eid": None},
    ]


def test_two_chips_of_a_lot_differ_in_nothing_but_what_was_done(
    dumped: Dumped, chips: list[Case], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (Euicc.load(case.card) for case in chips)
    dumped(one, "a.json")
    dumped(other, "b.json")
    assert show_diff(tmp_path / "a.json", tmp_path / "b.json") == 0
    other.nvm.locked = True
    dumped(other, "b.json")
    assert show_diff(tmp_path / "a.json", tmp_path / "b.json") == 1
    lines = capsys.readouterr().out.splitlines()
    assert 'factory_services.state: "open(1)" / "locked(0)"' in lines
    assert any(line.startswith("unanswered.one_time_keys: - / ") for line in lines)


def test_a_chip_is_held_against_the_promise_of_a_recipe(dumped: Dumped, chips: list[Case], tmp_path: Path) -> None:
    recipe, case = load_recipe(SHIPPED / "iot-eim.toml"), chips[0]
    port = case.port()
    chip = Chip(port)
    chip.open()
    fresh = dumped(Euicc.load(case.card))
    assert len(list(broken(fresh, recipe))) == 4, "keys, lock, assistant, eIM; there is no profile to speak of"
    prepare(chip, case.order)
    assert load(chip, case.order, case.key).fault is None
    (eim,) = recipe.all(Eim)
    data = eim_data(eim, check_eim(eim, SystemClock().now()))
    steps = Steps(chip, case.order.eid, recipe, {case.order.iccid: ""}, data)
    for step in recipe.steps[4:-1]:
        steps.perform(step)
    for redact in (False, True):
        assert list(broken(dumped(port.chip, redact=redact), recipe)) == []
    assert list(broken(dumped(port.chip), IFPP_LOAD)) == [f"ICCID {case.order.iccid} is enabled"]
    renamed = Recipe("r", "1", (*IFPP_LOAD.steps, Nickname("other")))
    assert len(list(broken(dumped(port.chip), renamed))) == 2
    steps_of_two = (Load(("a", "b")) if isinstance(step, Load) else step for step in IFPP_LOAD.steps)
    two = Recipe("r", "1", tuple(steps_of_two))
    assert "profile b is not there" in list(broken(dumped(port.chip), two))
    dumped(port.chip, "a.json")
    assert show_diff(tmp_path / "a.json", SHIPPED / "iot-eim.toml") == 0


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "other/1.0"}'])
def test_what_is_no_dump_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(SettingsError):
        show_diff(path, path)


def test_an_empty_head_and_a_file_that_cannot_be_written_are_told(rig: Rig, tmp_path: Path, chips: list[Case]) -> None:
    with pytest.raises(SettingsError, match="no chip was seated"):
        write_dump(rig.url("h01"), None, None, redact=False, wait_s=0)
    rig.seat(Euicc.load(chips[0].card))
    with pytest.raises(SettingsError) as caught:
        write_dump(rig.url("h01"), None, tmp_path / "no" / "a.json", redact=False, wait_s=2)
    assert caught.value.code == "FILE.WRITE"


def test_a_recipe_is_shown_step_by_step_with_its_promise(capsys: pytest.CaptureFixture[str]) -> None:
    show([SHIPPED, SHIPPED / "iot-eim.toml"])
    text = capsys.readouterr().out
    assert text.count("iot-eim 1  ") == 2
    assert "EUICC.POLICY (PRODUCT)" in text
    assert (
        "promises: each profile enabled, called 'factory'; eIM eim.example; no one-time key; factory services" in text
    )


def test_a_recipe_whose_certificate_has_ended_is_not_shown_as_sound(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    past = certificate("eim.example", days=-800)
    (tmp_path / "eim.pem").write_text(past)
    (tmp_path / "eim-ca.pem").write_text(pem(CA))
    with pytest.raises(VerificationError, match="is valid from"):
        show([tmp_path])


def test_a_check_of_the_installation_reads_the_recipes(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "recipes")
    site = Site("acme", "north", "hall1", "L1", recipes="recipes")
    (finding,) = check_site._recipes(site, tmp_path / "site.toml")
    assert "iot-eim 1" in finding.seen
    (tmp_path / "recipes" / "bad.toml").write_text("name = 1")
    with pytest.raises(SettingsError, match=r"bad\.toml"):
        list(check_site._recipes(site, tmp_path / "site.toml"))
