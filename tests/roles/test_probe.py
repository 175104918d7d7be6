"""`ifpp heads list` and `ifpp heads probe` on slots and modems, in process; reads only."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ifpp.errors import SettingsError
from ifpp.roles.probe import list_heads, probe
from ifpp.sim.euicc import Euicc
from tests.fpa.conftest import Case, make_cases
from tests.hw.ports import KINDS, Rig, rig_of

__all__ = ["make_cases"]


@pytest.fixture(params=["tcp", "modem-csim"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with (
        tempfile.TemporaryDirectory(prefix="ifpp-probe-") as name,
        rig_of(KINDS[request.param], Path(name), heads=2) as made,
    ):
        yield made


@pytest.fixture
def station(rig: Rig, tmp_path: Path) -> Path:
    """A station file with two heads and a third whose reader is not there."""
    heads = [f'[heads.{name}]\nport = "{rig.url(name)}"\n' for name in ("h01", "h02")]
    heads.append('[heads.h03]\nport = "tcp://127.0.0.1:9"\n')
    path = tmp_path / "st01.toml"
    path.write_text('id = "st01"\n' + "\n".join(heads))
    return path


@pytest.fixture
def case(make_cases: Callable[..., list[Case]]) -> Case:
    return make_cases(profile_kb=(4, 6))[0]


def test_a_list_says_what_sits_where_and_why_not(
    rig: Rig, station: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.seat(Euicc.load(case.card))
    assert list_heads(station) == 1, "one of the heads cannot be reached"
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("h01")
    assert f"EID {case.order.eid}" in first
    assert "open" in first
    assert second.split() == ["h02", "empty"]
    assert third.startswith("h03")
    assert "HEAD.UNREACHABLE" in third


def test_a_probe_traces_every_command_and_leaves_the_chip_as_it_was(
    rig: Rig, station: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    chip = Euicc.load(case.card)
    before = [key.state for key in chip.nvm.keys]
    rig.seat(chip)
    assert probe("h01", station, 5.0) == 0
    out = capsys.readouterr().out
    assert f"EID {case.order.eid}" in out
    assert out.count(" STORE DATA ") >= 5
    assert " ms\n" in out
    assert re.search(rf"key {case.otk_id.hex()} \w*available", out, re.IGNORECASE), out
    assert [key.state for key in chip.nvm.keys] == before
    assert chip.nvm.profiles == []
    assert probe(rig.url(), None, 5.0) == 0, "a port's URL will do"


def test_an_empty_head_a_dead_chip_and_a_wrong_name(
    rig: Rig, station: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe("h02", station, 0.1) == 1
    assert "no chip was seated in 0.1 s" in capsys.readouterr().out
    rig.seat(None)
    assert probe("h01", station, 5.0) == 1
    assert "CONTACT." in capsys.readouterr().out
    with pytest.raises(SettingsError, match=r"no head 'h09'; it has h01, h02, h03"):
        probe("h09", station, 0.1)
