"""The site of deploy/compose.yml without a container engine, from nothing to healthy: `python -m ... FOLDER`.

Runs as root in namespaces of its own (network, mounts, processes), so that ports, names and paths are those of the
containers. Each service gets what the compose file gives it: its user and no rights beyond it, its mounts, its secrets,
a root file system it cannot write. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import yaml  # type: ignore[import-untyped]

from tests.real import postgres

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PYTHON = "/opt/python/bin/python3"
HOSTS = "127.0.0.1 localhost postgres broker store supervisor store.ifpp.internal broker.ifpp.internal\n"
PATIENCE_S = 60.0


class Containers:
    """The services of the compose file, each started in mounts of its own."""

    def __init__(self, folder: Path, site: Path) -> None:
        self._compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
        self._site = site
        self._layers = folder / "layers"
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = folder

    def share(self) -> None:
        """Lay the folders that containers have over those of this machine, for this namespace alone."""
        etc, var, opt = (self._layers / name for name in ("etc", "var", "opt"))
        for path in (etc / "ifpp", var / "ifpp", opt / "python", opt / "tree", opt / "libraries", opt / "ifpp"):
            path.mkdir(parents=True)
        (self._layers / "opt/exchange").mkdir()
        (etc / "hosts").write_text(HOSTS)
        shutil.copy(DEPLOY / "containers" / "ready.py", opt / "ifpp")
        for layer, place in ((etc, "/etc"), (var, "/var/lib"), (opt, "/opt")):
            run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={layer}:{place}", place)
        libraries = sysconfig.get_path("purelib")
        for source, place in ((sys.base_prefix, "python"), (ROOT, "tree"), (libraries, "libraries")):
            run("mount", "--bind", source, f"/opt/{place}")

    def run(self, service: str, *words: str) -> str:
        """Do what `docker compose run --rm SERVICE WORDS` does; return what was said."""
        return run(*self.command(service, list(words) or self._command(service)))

    def start(self, service: str) -> None:
        with (self._logs / f"{service}.log").open("wb") as log:
            words = self.command(service, self._command(service))
            self._started[service] = subprocess.Popen(words, stdout=log, stderr=log)

    def healthy(self, service: str) -> bool:
        """Run its health check once."""
        test = [word.replace("$$", "$") for word in self._compose["services"][service]["healthcheck"]["test"][1:]]
        words = self.command(service, test, entry=False)
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def status(self, service: str) -> dict[str, str]:
        """What the kernel says of its process."""
        lines = Path(f"/proc/{self._started[service].pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def log(self, service: str) -> str:
        return (self._logs / f"{service}.log").read_text()

    def wait(self, service: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.healthy(service):
            alive = self._started[service].poll() is None
            assert alive and time.monotonic() < end, f"{service} is not healthy: {self.log(service)}"  # noqa: PT018
            time.sleep(0.2)

    def stop(self) -> dict[str, int]:
        """End all as an engine does, the newest first; return their exit codes."""
        codes = {}
        for service, process in reversed(self._started.items()):
            process.terminate()
            codes[service] = process.wait(30)
        return codes

    def _command(self, service: str) -> list[str]:
        return list(self._compose["services"][service].get("command", []))

    def command(self, service: str, words: list[str], *, entry: bool = True) -> list[str]:
        """Return what runs `words` as the service would: mounts first, then its user, last the program."""
        facts = self._compose["services"][service]
        if entry and facts["image"].startswith("ifpp:"):
            words = [*facts.get("entrypoint", ["ifpp"]), *words]
        start = {"ifpp": [PYTHON, "-m", "ifpp"], "python3": [PYTHON]}
        words = [*start.get(words[0], [words[0]]), *words[1:]]
        uid, _, gid = facts.get("user", "10001:10001").partition(":")
        kept = "".join(f",+{name.lower()}" for name in facts.get("cap_add", []))
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
        become += [f"--bounding-set=-all{kept}", "--inh-caps=-all", "env", "-i"]
        values = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/opt/tree:/opt/libraries"}
        values |= {"CREDENTIALS_DIRECTORY": "/run/secrets", "PYTHONDONTWRITEBYTECODE": "1"}
        values |= facts.get("environment", {})
        become += [f"{name}={value}" for name, value in values.items()]
        lines = [*self._mounts(facts), "cd /etc/ifpp", f"exec {shlex.join([*become, *words])}"]
        return ["unshare", "--mount", "sh", "-euc", "\n".join(lines)]

    def _mounts(self, facts: dict[str, Any]) -> list[str]:
        lines = ["mount -t tmpfs tmpfs /run", "mkdir /run/secrets"]
        lines += ["mount -t tmpfs tmpfs /etc/ifpp", "mount -t tmpfs tmpfs /var/lib/ifpp"]
        for volume in facts["volumes"]:
            lines += self._mount(*volume.replace("${IFPP_SITE:-./site}", str(self._site)).rsplit(":", 2))
        for secret in facts.get("secrets", []):
            grant = {"source": secret, "target": secret} if isinstance(secret, str) else secret
            target = os.path.join("/run/secrets", grant["target"])  # noqa: PTH118 - absolute ones stay
            lines += self._mount(str(self._site / "secrets" / grant["source"]), target, "ro")
        return [*lines, "mount -o remount,bind,ro /", "mount -o remount,ro /etc/ifpp"]

    def _mount(self, source: str, target: str, mode: str = "rw") -> list[str]:
        if mode not in ("ro", "rw"):  # the last part is the target itself
            source, target, mode = f"{source}:{target}".rpartition(":")[0], mode, "rw"
        path = (DEPLOY / source).resolve()
        if target == "/exchange":
            target = "/opt/exchange"
        if target.startswith("/sql"):
            return [f"mount --bind {path} /mnt"]
        make = f"mkdir -p {target}" if path.is_dir() else f"mkdir -p {Path(target).parent} && touch {target}"
        exists = f"[ -e {target} ] || {{ {make}; }}"
        bind = f"mount --bind {shlex.quote(str(path))} {target}"
        return [exists, bind, *([f"mount -o remount,bind,ro {target}"] if mode == "ro" else [])]
