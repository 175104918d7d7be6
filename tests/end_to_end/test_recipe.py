"""A whole line that makes devices by a recipe: what its figures, its books and the chips themselves say."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ifpp.sim import smdp_file
from ifpp.sim.euicc import Euicc
from tests.end_to_end.test_demo import ROOT, figures
from tests.hw.ports import KINDS, rig_of

pytestmark = pytest.mark.timeout(240)
RECIPE = ROOT / "config" / "recipes" / "iot-eim.toml"
UNITS = 6


def ifpp(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ifpp", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_a_line_makes_what_its_recipe_promises(tmp_path: Path) -> None:
    words = ("--recipe", "iot-eim", "--units", str(UNITS), "--stations", "1", "--heads", "3", "--apdu-ms", "1")
    out = figures(tmp_path, *words, "--keep", "kept")
    assert (out["passed"], out["clean_to_ship"], out["failed"]) == (UNITS, UNITS, {})
    (recipe,) = out["recipes"]
    assert (recipe["name"], recipe["version"], len(recipe["digest"])) == ("iot-eim", "1", 64)
    assert out["steps"]["enable"] == out["steps"]["eim"] == out["steps"]["read-back"] == {"PASS": UNITS}
    assert out["read_back"] == {"units": UNITS, "as_promised": UNITS, "differences": []}

    fleet = json.loads((tmp_path / "kept" / "fleet-st01.json").read_bytes())
    for unit in fleet["units"]:
        assert [(one["enabled"], one["nickname"]) for one in unit["card"]["profiles"]] == [(True, "factory")]
        assert (unit["card"]["eims"], unit["card"]["fpa_locked"]) == (["eim.example"], True)

    eid = fleet["units"][0]["eid"]
    asked = ifpp("unit", "genealogy", eid, "--config", "kept/config/site.toml", cwd=tmp_path)
    told: dict[str, Any] = json.loads(asked.stdout)["recipe"]
    assert told["digest"] == recipe["digest"]
    assert [step["step"] for step in told["steps"]][-3:] == ["lock", "read-back", "clean-to-ship"]
    assert _against(tmp_path, eid, RECIPE) == (0, "")
    other, found = _against(tmp_path, eid, RECIPE.with_name("ifpp-load.toml"))
    assert (other, found.count("\n")) == (1, 1)
    assert "is enabled" in found


def test_a_line_downloads_with_activation_codes(tmp_path: Path) -> None:
    """One unit is dead, one loses contact in mid-download and gets the profile of the same code when seated again."""
    words = ("--recipe", "rsp-factory", "--units", "8", "--stations", "1", "--heads", "4", "--faults", "2")
    out = figures(tmp_path, *words, "--apdu-ms", "1", "--keep", "kept")
    assert (out["passed"], out["clean_to_ship"], out["failed"]) == (7, 7, {"CONTACT": 1})
    assert out["steps"]["notify"] == out["steps"]["read-back"] == {"PASS": 7}
    rsp = out["rsp"]
    assert (rsp["codes"], rsp["downloads"]) == ({"free": 3, "used": 7, "tied": 0}, 7)
    assert (rsp["owed"], rsp["sessions_open"], rsp["round_trips_per_download"]) == (0, 0, 3.0)
    # the result and the enabling of each, and the result of the load that was cut off
    assert rsp["notifications_delivered"] == rsp["calls"]["handleNotification"] == 2 * 7 + 1
    assert rsp["apdus_per_download"] > out["apdus_per_unit"] > 0
    (row,) = out["mass_balance"]
    assert (row["imported"], row["installed"], row["available"], row["failed"]) == (10, 7, 3, 0)

    smdp, _ = smdp_file.load(tmp_path / "kept" / "world" / "smdp-plus")
    confirmed = {order.code for order in smdp.orders.values() if order.code}
    logs = [path.read_text() for path in (tmp_path / "kept" / "logs").iterdir()]
    assert len(confirmed) == 3
    assert not any(code in text for code in confirmed for text in logs)

    fleet = json.loads((tmp_path / "kept" / "fleet-st01.json").read_bytes())
    passed = next(unit for unit in fleet["units"] if unit["bin"] == "pass")
    assert [profile["enabled"] for profile in passed["card"]["profiles"]] == [True]
    shown = ifpp("unit", "show", passed["eid"], "--config", "kept/config/site.toml", cwd=tmp_path)
    assert "INSTALLED, used up" in shown.stdout
    assert "CLEAN TO SHIP since" in shown.stdout
    assert _against(tmp_path, passed["eid"], RECIPE.with_name("rsp-factory.toml")) == (0, "")


def _against(tmp_path: Path, eid: str, recipe: Path) -> tuple[int, str]:
    """Seat a finished unit, dump it as people do, and hold it against a recipe."""
    card = Euicc.load(tmp_path / "kept" / "world" / "cards" / f"{eid}.card.json")
    with tempfile.TemporaryDirectory(prefix="ifpp-") as folder, rig_of(KINDS["tcp"], Path(folder)) as rig:
        rig.seat(card)
        dumped = ifpp("chip", "dump", rig.url(), "--out", "unit.json", cwd=tmp_path)
        assert dumped.returncode == 0, dumped.stderr
    diff = ifpp("chip", "diff", "unit.json", str(recipe), cwd=tmp_path)
    return diff.returncode, diff.stdout
