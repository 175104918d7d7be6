"""A kept demo answers for itself: each unit, the balance, and an audit log that shows one flipped byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)


def ifpp(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ifpp", *arguments]
    environment = os.environ | {"CREDENTIALS_DIRECTORY": str(cwd / "credentials")}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("custody")
    options = ["--units", "4", "--stations", "1", "--heads", "2", "--apdu-ms", "0", "--faults", "0"]
    run = ifpp(folder, "demo", *options, "--keep", "kept")
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "kept"


def eids(kept: Path) -> list[str]:
    document = json.loads((kept / "fleet-st01.json").read_bytes())
    return [unit["eid"] for unit in document["units"]]


def test_every_unit_is_shown_and_may_leave_with_a_signature(kept: Path) -> None:
    config = ["--config", "config/site.toml"]
    for eid in eids(kept):
        gate = ifpp(kept, "unit", "gate", eid, "--json", *config)
        assert gate.returncode == 0, gate.stderr
        assert json.loads(gate.stdout)["signed"] is True
    shown = ifpp(kept, "unit", "show", eids(kept)[0], *config)
    assert shown.returncode == 0, shown.stderr
    for words in (
        "CLEAN TO SHIP",
        "the signature holds",
        "SENT       st01/",
        "INSTALLED  st01/",
        "as INSTALLED; acknowledged",
        "says: verified",
    ):
        assert words in shown.stdout, shown.stdout
    document: dict[str, Any] = json.loads(ifpp(kept, "unit", "show", eids(kept)[0], "--json", *config).stdout)
    seal = document["gate"]["proof"]["entry"]["facts"]["seal"]
    assert (seal["keys_remaining"], seal["fpa_locked"], seal["lpa_answers"]) == (0, True, True)
    assert ifpp(kept, "unit", "gate", "89049032000000000000000000000000", *config).returncode == 1


def test_the_balance_holds_and_nothing_is_left_over(kept: Path) -> None:
    done = ifpp(kept, "balance", "--config", "config/site.toml")
    assert done.returncode == 0, done.stderr
    assert "no residue" in done.stdout
    assert "the books hold" in done.stdout


def test_a_flipped_byte_in_the_audit_log_is_found_without_the_factory(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.jsonl"
    done = ifpp(kept, "audit", "export", str(out), "--config", "config/site.toml")
    assert done.returncode == 0, done.stderr
    key = ["--key", str(kept / "config" / "audit.pub")]
    before = ifpp(tmp_path, "audit", "verify", "audit.jsonl", *key)
    assert (before.returncode, "SOUND" in before.stdout) == (0, True), before.stdout + before.stderr
    content = bytearray(out.read_bytes())
    place = content.index(b'"kind":"installed"') + 9
    content[place] ^= 1
    out.write_bytes(content)
    after = ifpp(tmp_path, "audit", "verify", "audit.jsonl", *key)
    assert after.returncode == 1
    assert f"audit.jsonl:{content[:place].count(10) + 1}: entry" in after.stdout, after.stdout
