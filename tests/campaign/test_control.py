"""The hand of the campaign inside a process: its clock, and the edge it dies at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.campaign.control import Control, Handle

DIES = """
import sys
from pathlib import Path
from tests.campaign.control import Control
control = Control(Path(sys.argv[1]))
for edge in ["a", "b", "b", "b"]:
    print(edge, flush=True)
    control.at(edge)
"""


def run(control: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", DIES, control], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()


def test_a_process_dies_at_the_chosen_passing_of_an_edge(tmp_path: Path) -> None:
    handle = Handle(tmp_path / "st01.json")
    assert run(handle.path) == (0, ["a", "b", "b", "b"])
    handle.arm(7, "b", 2)
    assert not handle.died_at(7)
    assert run(handle.path) == (-9, ["a", "b", "b"])
    assert handle.died_at(7)
    assert not handle.died_at(8)
    handle.disarm()
    assert run(handle.path) == (0, ["a", "b", "b", "b"])


def test_the_clock_jumps_when_it_is_told_to(tmp_path: Path) -> None:
    handle = Handle(tmp_path / "st01.json")
    control = Control(handle.path)
    assert control.clock_s() == 0.0
    handle.set_clock(-300.0)
    assert control.clock_s() == -300.0
    handle.arm(1, "a", 1)
    assert control.clock_s() == -300.0
