"""A short campaign over the real line: nothing is lost, doubled, wrongly resolved or stuck."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ifpp.bus.broker import BrokerKind
from tests.real.mosquitto import require

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(210)
@pytest.mark.parametrize(("recipe", "kills", "units"), [("", 10, 30), ("rsp-factory", 6, 20)])
def test_a_few_faults_do_no_harm(tmp_path: Path, recipe: str, kills: int, units: int) -> None:
    require(BrokerKind.MOSQUITTO)
    command = [sys.executable, "-m", "tests.campaign", "--kills", str(kills), "--seed", "11", "--units", str(units)]
    command += ["--minutes", "3", "--apdu-ms", "5", "--json", str(tmp_path / "c.json"), "--recipe", recipe]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads((tmp_path / "c.json").read_bytes())
    assert {name: outcome[name] for name in ("lost", "doubled", "unresolved_wrongly", "stuck")} == {
        "lost": 0,
        "doubled": 0,
        "unresolved_wrongly": 0,
        "stuck": 0,
    }
    assert outcome["faults"] == sum(outcome["kills"].values()) == kills
    assert outcome["passed"] >= 0.9 * units  # one in ten is made faulty
    assert outcome["events"] >= outcome["attempts"] >= units
