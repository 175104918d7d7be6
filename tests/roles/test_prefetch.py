"""`ifpp station prefetch` and `give-back` as a person types them, with a store that runs and one that does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ifpp.bus.broker import free_port
from ifpp.sim.world import build_world
from tests.roles.test_commands import PLAN, Site

WANTED = ["--sku", "TRACKER", "--region", "EU"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path, build_world(tmp_path / "world", units=3, seed=5, jobs=PLAN))
    port = free_port()
    with (tmp_path / "site.toml").open("a") as settings:
        settings.write(f'[store]\nurl = "http://127.0.0.1:{port}"\nport = {port}\n')
    (tmp_path / "st01.toml").write_text('id = "st01"\n[heads.h01]\nport = "tcp://127.0.0.1:1"\n')
    files = [made.world.esed, *made.world.deliveries, *made.world.job_orders]
    done = made.run("store", "import", *map(str, files))
    assert done.returncode == 0, done.stderr
    return made


@contextmanager
def store(site: Site) -> Iterator[None]:
    command = [sys.executable, "-m", "ifpp", "store", "serve", "--config", str(site.folder / "site.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert '"ready": true' in process.stdout.readline()
            yield
        finally:
            process.terminate()


def test_packages_are_kept_and_given_back(site: Site) -> None:
    station = str(site.folder / "st01.toml")
    with store(site):
        first = site.run("station", "prefetch", station, *WANTED, "--units", "2")
        assert first.returncode == 0, first.stderr
        assert "kept now: 2 chips; in all: 2" in first.stdout
        listed = site.folder / "reel.txt"
        listed.write_text("\n".join(unit.eid for unit in site.world.units) + "\n")
        rest = site.run("station", "prefetch", station, *WANTED, "--eids", str(listed))
        assert rest.returncode == 0, rest.stderr
        assert "kept now: 1 chips; in all: 3" in rest.stdout
        none_left = site.run("station", "prefetch", station, *WANTED, "--units", "1")
        assert none_left.returncode == 1
        assert "   3 " in site.run("balance").stdout
        back = site.run("station", "give-back", station)
        assert (back.returncode, "given back: 3 chips; still kept: 0" in back.stdout) == (0, True), back.stderr


def test_what_cannot_be_done_is_said(site: Site) -> None:
    station = str(site.folder / "st01.toml")
    assert "COMMAND.INVALID" in site.refused("station", "prefetch", station, *WANTED)
    assert "STORE.UNREACHABLE" in site.refused("station", "prefetch", station, *WANTED, "--units", "1")
    (site.folder / "cache.db").write_bytes(b"no database" * 1000)
    assert "CACHE.CORRUPT" in site.refused("station", "give-back", station)
