"""`ifpp store import`, `ifpp store request` and `ifpp bundle` as a person types them, killed in the middle too."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.sim import documents
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.store.factory import Factory
from ifpp.trust.signer import create_key
from tests.store.raw import raw

PLAN = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]
UNITS = 1200


class Plant:
    """A folder with settings, and a way to run commands in it."""

    def __init__(self, folder: Path, ci: Path, name: str = "plant", peer: str = "hq") -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "trust").mkdir()
        shutil.copy(ci, folder / "trust" / "ci.der")
        create_key(folder / "courier.key")
        (folder / "site.toml").write_text(
            'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
            f'[courier]\nname = "{name}"\nkey = "courier.key"\npeers = {{ {peer} = "{peer}.pub" }}\n'
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ifpp", *arguments, "--config", str(self.folder / "site.toml")]

    def run(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it printed."""
        command = self.command(*arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'factory.db'}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    """Enough packages for an import that can be caught at work."""
    folder = tmp_path_factory.mktemp("world") / "world"
    return build_world(folder, units=UNITS, seed=5, jobs=PLAN, profile_kb=(4, 5), otks_per_chip=1)


@pytest.fixture
def plant(tmp_path: Path, world: WorldSummary) -> Plant:
    made = Plant(tmp_path / "plant", world.ci)
    made.run("store", "import", str(world.esed))
    return made


def caught(plant: Plant, file: Path, query: str) -> None:
    """Start an import, and kill it -9 as soon as the query finds a row."""
    with subprocess.Popen(plant.command("store", "import", str(file)), stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert process.poll() is None, "it was done before it was caught"
            with raw(plant.url) as connection:
                if connection.execute(query).fetchone():
                    break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("query", "outcome"),
    [
        ("SELECT 1 FROM staged WHERE place > 300", "IMPORTED "),
        ("SELECT 1 FROM package", "ALREADY_IMPORTED"),
    ],
    ids=["while it is staged", "while it goes on the shelf"],
)
def test_an_import_that_was_killed_is_started_again(
    plant: Plant, world: WorldSummary, query: str, outcome: str
) -> None:
    (delivery,) = world.deliveries
    caught(plant, delivery, query)
    with closing(Factory.open(plant.url)) as factory:
        assert factory.balance() == []
        assert len(factory.batches()) == 1
    assert plant.run("store", "import", str(delivery)).startswith(outcome)
    with closing(Factory.open(plant.url)) as factory:
        (row,) = factory.balance()
        assert (row.imported, row.available) == (UNITS, UNITS)
        assert factory.audit() == []
    with raw(plant.url) as connection:
        assert connection.execute("SELECT count(*) FROM staged").fetchone() == (0,)
    assert plant.run("store", "import", str(delivery)).startswith("ALREADY_IMPORTED")


def test_a_terminal_shows_a_bar(plant: Plant, world: WorldSummary) -> None:
    master, slave = pty.openpty()
    command = plant.command("store", "import", "--dry-run", str(world.deliveries[0]))
    with subprocess.Popen(command, stderr=slave, stdout=subprocess.PIPE, text=True) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                shown += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        assert process.stdout.read().startswith("VERIFIED")
    os.close(master)
    assert b"verify  [" in shown
    assert b"100%" in shown
    assert shown.endswith(b"\r\x1b[K")


def test_what_is_missing_is_asked_for(plant: Plant, world: WorldSummary, tmp_path: Path) -> None:
    plant.run("store", "import", str(world.job_orders[0]))
    said = plant.run("store", "request", str(tmp_path / "out"), "--job", "JO-1", "--profile", "tracker-eu")
    assert said.startswith(f"{UNITS} packages asked for, for {UNITS} chips")
    (file,) = (tmp_path / "out").iterdir()
    assert len(documents.read_request(file).items) == UNITS
    plant.run("store", "import", str(world.deliveries[0]))
    again = plant.run("store", "request", str(tmp_path / "again"), "--job", "JO-1", "--profile", "tracker-eu")
    assert f"{UNITS} chips have theirs" in again
    assert list((tmp_path / "again").iterdir()) == []


def test_files_travel_by_courier(plant: Plant, world: WorldSummary, tmp_path: Path) -> None:
    hq = Plant(tmp_path / "hq", world.ci, "hq", "plant")
    shutil.copy(hq.folder / "courier.key.pub", plant.folder / "hq.pub")
    shutil.copy(plant.folder / "courier.key.pub", hq.folder / "plant.pub")
    made = hq.run("bundle", "make", str(world.deliveries[0]), str(world.job_orders[0]), "--to", "plant")
    bundle = made.rpartition(": ")[2].strip()
    accepted = plant.run("bundle", "accept", bundle).splitlines()
    taken = plant.run("store", "import", *(line.strip() for line in accepted[1:]))
    assert taken.count("IMPORTED ") == 2
    receipt = accepted[0].rpartition(": ")[2]
    assert "bundle 1 was accepted by plant" in hq.run("bundle", "receipt", receipt)
    assert not Path(bundle).exists()
