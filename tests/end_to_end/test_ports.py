"""The whole line through real readers and modems: every process real, chips behind pcscd and behind AT commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.test_demo import demo, figures
from tests.real import pcscd

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize(("kind", "heads", "units"), [("pcsc", 6, 8), ("mixed", 6, 8)])
def test_a_line_through_a_real_pcscd(tmp_path: Path, kind: str, heads: int, units: int) -> None:
    pcscd.require()
    out = figures(
        tmp_path, "--ports", kind, "--stations", "1", "--heads", str(heads), "--units", str(units), "--faults", "2"
    )
    assert out["units"] == out["acked"] - (out["attempts"] - out["units"]) == units
    assert out["passed"] == out["clean_to_ship"] >= units - 2


@pytest.mark.parametrize("personality", ["csim-only", "reset-in-mid-load"])
def test_a_line_of_modems(tmp_path: Path, personality: str) -> None:
    options = ["--ports", "modem", "--modem", personality, "--stations", "1", "--heads", "2", "--units", "2"]
    run = demo(*options, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed         2, clean to ship 2" in run.stdout
    assert ("attempts       2," in run.stdout) == (personality != "reset-in-mid-load")
    assert "every unit is accounted for" in run.stdout


def test_an_unknown_personality_is_named(tmp_path: Path) -> None:
    run = demo("--ports", "modem", "--modem", "grumpy", "--units", "2", "--heads", "1", cwd=tmp_path)
    assert run.returncode == 1
    assert "grumpy" in run.stderr
    assert "reset-in-mid-load" in run.stderr
