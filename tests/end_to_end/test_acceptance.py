"""A plant's line accepted: every process real, killed and cut off; its report verified; Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ifpp.bus.broker import BrokerKind
from ifpp.trust.signer import create_key
from tests.end_to_end.test_demo import children_of_this_run
from tests.real.mosquitto import require

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.timeout(180)


def plant(folder: Path) -> Path:
    """The sample settings as a plant's, with a short lease; its database and journal are what nobody may open."""
    for name in ("config", "stations"):
        shutil.copytree(ROOT / name, folder / "plant" / name)
    site = folder / "plant" / "config" / "site.toml"
    text = site.read_text(encoding="utf-8")
    assert "# lease_s = 15.0" in text
    assert '# recipes = "recipes"' in text
    text = text.replace("# lease_s = 15.0", "lease_s = 2.0").replace("# recipes =", "recipes =")
    site.write_text(text, encoding="utf-8")
    (site.parent / "factory.db").write_text("not to be opened")
    (folder / "plant" / "stations" / "st01.journal.db").write_text("not to be opened")
    create_key(folder / "key")
    return site


def command(site: Path, *options: str) -> list[str]:
    words = [
        "acceptance",
        "--config",
        str(site),
        "--out",
        "accepted",
        "--key",
        "key",
        "--quick",
        "--recipe",
        "ifpp-enable",
    ]
    return [sys.executable, "-m", "ifpp", *words, *options]


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plants_line_is_accepted_and_the_report_verifies(tmp_path: Path) -> None:
    require(BrokerKind.MOSQUITTO)
    site = plant(tmp_path)
    before = state_of(tmp_path / "plant")
    run = subprocess.run(
        command(site, "--apdu-ms", "2", "--units", "16"),
        capture_output=True,
        text=True,
        timeout=160,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "st01, " in run.stdout
    told: dict[str, Any] = json.loads((tmp_path / "accepted" / "acceptance.json").read_bytes())
    assert (told["verdict"], told["line"]["line"], told["line"]["stations"]) == ("pass", "L1", {"st01": ["h01", "h02"]})
    assert [one["name"] for one in told["criteria"] if not one["passed"]] == []
    assert told["plan"]["recipe"].startswith("ifpp-enable 1 ")
    assert len(told["acts"]) == 6
    assert all(one["in_hand"] > 0 for one in told["acts"])
    assert told["figures"]["units"] == 16
    assert told["figures"]["passed"] == 13
    assert told["figures"]["attempts"] > 16
    assert state_of(tmp_path / "plant") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accepted", "key", "key.pub", "plant"]
    assert children_of_this_run("ifpp-acceptance-") == []
    words = ["report", "verify", "accepted/acceptance.json", "--key", "key.pub"]
    verified = subprocess.run(
        [sys.executable, "-m", "ifpp", *words], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert "nothing was changed" in verified.stdout


def test_ctrl_c_leaves_no_process_and_no_report(tmp_path: Path) -> None:
    site = plant(tmp_path)
    process = subprocess.Popen(
        command(site, "--keep", "copy"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    end = time.monotonic() + 60
    while not (tmp_path / "copy" / "logs" / "supervisor.log").exists() and time.monotonic() < end:
        time.sleep(0.02)  # broker, chips, store and supervisor are processes then
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 130, rest
    assert "Traceback" not in rest
    assert children_of_this_run(str(tmp_path)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "key", "key.pub", "plant"]
