"""`make install-test`: what deploy/containers/Containerfile tells an engine to do, done in fresh Debians instead."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ifpp import __version__
from tests.deploy.test_compose import instructions
from tests.real import chroot
from tests.real.chroot import Chroot

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


@dataclass
class Stage:
    """An image under way."""

    debian: Chroot
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def run(self, command: str, *, network: bool = False, mounts: tuple[Path, ...] = ()) -> str:
        words = ("sh", "-c", f"cd {self.folder} && {command}")
        done = self.debian.run(*words, network=network, mounts=mounts, **self.environment)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
        return done.stdout

    def copy(self, source: Path, target: str) -> None:
        """As COPY does: the content of a folder, a file into one."""
        place = self.debian.root / os.path.join(self.folder, target).lstrip("/")  # noqa: PTH118 - an absolute one stays
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        else:
            place = place / source.name if target.endswith(("/", ".")) else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chroot.require()
    folder = tmp_path_factory.mktemp("image")
    stages: list[Stage] = []
    for word, words in instructions():
        if word == "FROM":
            stages.append(Stage(Chroot(folder / str(len(stages)))))
            mounts = chroot.index(stages[-1].debian)
            continue
        stage = stages[-1]
        if word == "RUN":
            stage.run(words, network=True, mounts=mounts)
        elif word == "COPY":
            *sources, target = words.split()
            other = sources.pop(0) == "--from=build" if words.startswith("--") else False
            for source in sources:
                stage.copy(stages[0].debian.root / source[1:] if other else ROOT / source, target)
        elif word == "WORKDIR":
            stage.folder = words
            (stage.debian.root / words[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(words))
        else:
            stage.facts[word] = words
    yield stages[-1]
    shutil.rmtree(folder)


def test_what_is_built_runs_as_its_user(image: Stage) -> None:
    uid, _, gid = image.facts["USER"].partition(":")
    become = f"setpriv --reuid={uid} --regid={gid} --clear-groups --bounding-set=-all --no-new-privs"
    (entry,) = json.loads(image.facts["ENTRYPOINT"])
    assert image.run(f"{become} {entry} --version") == f"ifpp {__version__}\n"
    assert json.loads(image.run(f"{become} {entry} store openapi"))["openapi"].startswith("3.1")
    assert "(PostgreSQL) 15." in image.run(f"{become} pg_dump --version")
    health = shlex.split(image.facts["HEALTHCHECK"].partition("CMD ")[2].strip("[]").replace(",", " "))
    assert "usage:" in image.run(f"{become} {shlex.join(health[:3])} --help")
    assert image.run(f"{become} touch /opt/ifpp/x 2>&1 || echo refused").endswith("refused\n")
    wanted = "import psycopg, google.protobuf, pkcs11, textual_serve, zoneinfo; zoneinfo.ZoneInfo('Europe/Vienna')"
    image.run(f'{become} /opt/ifpp/bin/python3 -c "{wanted}"')
    assert image.run("ls /opt/ifpp/bin/pip 2>/dev/null || echo none") == "none\n"
    assert image.run("ls -d /src /build 2>/dev/null || echo none") == "none\n"
