"""The site of deploy/compose.yml without a container engine, from nothing to healthy: `python -m ... FOLDER`.

Runs as root in namespaces of its own (network, mounts, processes), so that ports, names and paths are those of the
containers. Each service gets what the compose file gives it: its user and no rights beyond it, its mounts, its secrets,
a root file system it cannot write. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import psycopg
import yaml

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

    def may_write(self, path: str) -> bool:
        """Whether the store could make a file."""
        words = self.command("store", ["python3", "-c", f"open({path!r}, 'w')"], entry=False)
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

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
        values |= {"CREDENTIALS_DIRECTORY": "/run/secrets", "LD_LIBRARY_PATH": "/opt/python/lib"}
        values |= facts.get("environment", {})
        become += [f"{name}={value}" for name, value in values.items()]
        lines = [*self._mounts(facts), "cd /etc/ifpp", f"exec {shlex.join([*become, *words])}"]
        return ["unshare", "--mount", "sh", "-euc", "\n".join(lines)]

    def _mounts(self, facts: dict[str, Any]) -> list[str]:
        lines = [f"mount -t tmpfs tmpfs {place}" for place in ("/run", "/srv", "/etc/ifpp")]
        for volume in facts["volumes"]:
            source, _, target = volume.removesuffix(":ro").rpartition(":")
            source = source.replace("${IFPP_SITE:-./site}", str(self._site))
            lines += _bind((DEPLOY / source).resolve(), target, writable=not volume.endswith(":ro"))
        for secret in facts.get("secrets", []):
            grant = {"source": secret, "target": secret} if isinstance(secret, str) else secret
            target = str(Path("/run/secrets") / grant["target"])  # an absolute one stays what it is
            lines += _bind(self._site / "secrets" / grant["source"], target, writable=False)
        lines += [f"mount -o remount,bind,ro {place}" for place in ("/", "/etc/ifpp")]
        return [*lines, "mount -t tmpfs tmpfs /tmp"]


def _bind(source: Path, target: str, *, writable: bool) -> list[str]:
    """Make the place, and mount there what is to be seen."""
    parent = target if source.is_dir() else str(Path(target).parent)
    lines = [f"mkdir -p {parent}"]
    if not source.is_dir():
        lines.append(f"[ -e {target} ] || touch {target}")
    lines.append(f"mount --bind {shlex.quote(str(source))} {target}")
    return lines if writable else [*lines, f"mount -o remount,bind,ro {target}"]


def run(*words: str | Path, **environment: str) -> str:
    """Run a program to its good end; return what it said."""
    env = {**os.environ, **environment}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=env, timeout=100)
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return done.stdout


def recipe() -> list[list[str]]:
    """What deploy/site.md tells to do for a site to come up, line by line."""
    text = (DEPLOY / "site.md").read_text().split("```sh\n")[1].split("```")[0]
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def main(folder: Path) -> dict[str, Any]:
    """Follow the recipe; return what was seen."""
    run("ip", "link", "set", "lo", "up")
    site = folder / "site"
    containers = Containers(folder, site)
    with postgres.running(listen="127.0.0.1") as server:
        address = server.own_database("ifpp")
        containers.share()
        said = [follow(words, containers, site, address) for words in recipe()]
        try:
            seen = look(containers, site)
        finally:
            codes = containers.stop()
    return {**seen, "said": "".join(said), "codes": codes}


def follow(words: list[str], containers: Containers, site: Path, address: str) -> str:
    """Do what one line of the recipe says; the engine's own work is left out."""
    if words[:2] == ["sh", "containers/prepare.sh"]:
        return run("sh", DEPLOY / "containers" / "prepare.sh", site)
    if words[:4] == ["docker", "compose", "run", "--rm"]:
        return containers.run(*words[4:])
    if words[:4] == ["docker", "compose", "up", "-d"]:
        if words[4:] == ["postgres"]:  # what its image does with the files of /docker-entrypoint-initdb.d
            for file in ("roles.sql", "passwords.sql"):
                command = ["psql", "-q", "-X", "-d", address, "-v", "ON_ERROR_STOP=1", "-f"]
                run(*command, DEPLOY / "postgresql" / file, IFPP_SECRETS=str(site / "secrets"))
        else:
            for service in ("broker", "store", "supervisor"):
                containers.start(service)
            for service in ("store", "supervisor"):
                containers.wait(service)
    return ""


def look(containers: Containers, site: Path) -> dict[str, Any]:
    """See how it runs, and that people reach it."""
    wanted = ("Uid", "Gid", "Groups", "CapBnd", "CapEff", "NoNewPrivs")
    status = {name: containers.status(name) for name in ("broker", "store", "supervisor")}
    containers.run("look", "balance")
    containers.run("owner", "store", "backup", "/srv/exchange/factory.backup", "--no-seal")
    backup = site / "exchange" / "factory.backup"
    places = [
        one for one in ("/x", "/etc/ifpp/x", "/etc/ifpp/config/x", "/var/lib/ifpp/x") if containers.may_write(one)
    ]
    return {
        "status": {name: {key: facts[key] for key in wanted} for name, facts in status.items()},
        "backup": backup.stat().st_size,
        "writable": [place for place in places if containers.may_write(place)],
        "stranger": _stranger(),
        "logs": {name: containers.log(name) for name in status},
    }


def _stranger() -> str:
    """What the database says to a wrong password."""
    try:
        psycopg.connect("postgresql://ifpp_store:wrong@127.0.0.1/ifpp").close()
    except psycopg.OperationalError as error:
        return str(error)
    return "let in"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
