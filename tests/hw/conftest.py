"""Chips and ports of every kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.sim.world import JobPlan, build_world
from tests.fpa.conftest import Case, cases
from tests.hw.ports import KINDS, Rig, rig_of


@pytest.fixture(scope="session")
def supply(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """16 chips, each with an order for a small profile."""
    plan = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
    return cases(build_world(tmp_path_factory.mktemp("world"), units=16, seed=7, jobs=plan, profile_kb=(4, 6)))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ifpp-hw-") as name:
        yield Path(name)


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.needs("pcscd")] if name == "pcsc" else []) for name in KINDS]
)
def rig(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Rig]:
    """One slot behind each kind of port in turn."""
    with rig_of(KINDS[request.param], short_folder) as made:
        yield made
