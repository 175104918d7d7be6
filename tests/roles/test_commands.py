"""The commands of the store as a person types them: what they say, what they refuse, how they exit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ifpp.sim.world import JobPlan, WorldSummary, build_world

PLAN = [JobPlan("JO-1", "TRACKER", "EU", ["st01"])]


class Site:
    """A folder with settings and a simulated world, and a way to run commands in it."""

    def __init__(self, folder: Path, world: WorldSummary) -> None:
        self.folder = folder
        self.world = world
        (folder / "trust").mkdir()
        shutil.copy(world.ci, folder / "trust" / "ci.der")
        (folder / "site.toml").write_text('enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n')

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ifpp", *arguments, "--config", str(self.folder / "site.toml")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder, check=False)

    def refused(self, *arguments: str) -> str:
        """Run a command that must fail in words; returns them."""
        done = self.run(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, build_world(tmp_path / "world", units=3, seed=5, jobs=PLAN))


def test_files_are_imported_once_and_a_second_time_changes_nothing(site: Site) -> None:
    files = [str(site.world.esed), *map(str, site.world.deliveries), *map(str, site.world.job_orders)]
    first = site.run("store", "import", *files)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("IMPORTED ") == 3
    again = site.run("store", "import", *files)
    assert again.returncode == 0
    assert again.stdout.count("ALREADY_IMPORTED") == 3


def test_a_dry_run_verifies_and_keeps_nothing(site: Site) -> None:
    dry = site.run("store", "import", "--dry-run", str(site.world.esed))
    assert dry.returncode == 0
    assert "VERIFIED" in dry.stdout
    assert "IMPORTED " in site.run("store", "import", str(site.world.esed)).stdout


def test_a_tampered_delivery_is_refused_whole_and_each_bad_item_is_named(site: Site) -> None:
    site.run("store", "import", str(site.world.esed))
    (delivery,) = site.world.deliveries
    lines = delivery.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"iccid":"89', '"iccid":"88')
    bad = site.folder / "bad.esbpp.jsonl"
    bad.write_text("".join(lines))
    words = site.refused("store", "import", str(bad))
    assert "bad.esbpp.jsonl:3" in words
    good = site.run("store", "import", str(delivery))
    assert good.returncode == 0, "nothing of the bad file may be in the way of the good one"


def test_a_delivery_before_its_chips_says_what_is_missing(site: Site) -> None:
    words = site.refused("store", "import", str(site.world.deliveries[0]))
    assert "INTAKE.UNKNOWN_EID" in words
    assert "Import the eUICC data" in words


def test_a_foreign_delivery_is_refused(site: Site, tmp_path: Path) -> None:
    foreign = build_world(tmp_path / "foreign", units=3, seed=5, jobs=PLAN)
    site.run("store", "import", str(site.world.esed))
    assert "TRUST.CHAIN" in site.refused("store", "import", str(foreign.deliveries[0]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("store", "import", "absent.jsonl"), ["SETTINGS.MISSING", "absent.jsonl"]),
        (("store", "import", "site.toml"), ["INTAKE.FORMAT", "site.toml"]),
        (("station", "run", "absent.toml"), ["SETTINGS.MISSING", "absent.toml"]),
        (("station", "run", "site.toml"), ["SETTINGS.INVALID", "site.toml"]),
    ],
)
def test_what_cannot_work_is_said(site: Site, arguments: tuple[str, ...], words: list[str]) -> None:
    message = site.refused(*arguments)
    assert all(word in message for word in words), message


def test_without_trust_roots_nothing_is_imported(site: Site) -> None:
    (site.folder / "trust" / "ci.der").unlink()
    assert "SETTINGS.MISSING" in site.refused("store", "import", str(site.world.esed))
    (site.folder / "trust" / "ci.pem").write_text("no certificate")
    assert "ci.pem" in site.refused("store", "import", str(site.world.esed))


def test_a_store_that_would_be_open_to_the_network_does_not_start(site: Site) -> None:
    with (site.folder / "site.toml").open("a") as stream:
        stream.write('[store]\nhost = "0.0.0.0"\nport = 0\n')
    assert "without TLS" in site.refused("store", "serve")


def test_a_port_in_use_is_named(site: Site) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (site.folder / "site.toml").open("a") as stream:
            stream.write(f"[store]\nport = {port}\n")
        assert str(port) in site.refused("store", "serve")
