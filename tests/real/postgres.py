"""A real PostgreSQL server for tests: its own cluster in a temporary folder, reached over a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

_SERIAL = count(1)


class Postgres:
    """A running server. Tests only: without `sync` it survives being killed but no power cut."""

    def __init__(self, programs: Path, folder: Path, user: str | None, *, sync: bool, listen: str) -> None:
        self._sync = sync
        self._listen = listen
        self._programs = programs
        self._folder = folder
        self._user = user
        self._data = folder / "data"

    def start(self) -> None:
        sync = "on" if self._sync else "off"
        places = f"-c listen_addresses={self._listen} -c unix_socket_directories={self._folder}"
        options = f"{places} -c max_connections=60 -c fsync={sync}"
        self._run("pg_ctl", "start", "-w", "-s", "-D", self._data, "-l", self._folder / "log", "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop; `immediate` is what a crash looks like."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", self._data)

    def initialise(self) -> None:
        rights = ("--auth-local=trust", "--auth-host=scram-sha-256")
        self._run("initdb", "--no-sync", *rights, "-U", "ifpp", "-E", "UTF8", "--locale=C", "-D", self._data)

    def new_database(self) -> str:
        """Return the URL of an empty database: a schema of its own, which costs less time and disk than a database."""
        name = f"factory{next(_SERIAL)}"
        with psycopg.connect(host=str(self._folder), user="ifpp", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"postgresql://ifpp@/postgres?host={self._folder}&options=-csearch_path%3D{name}"

    def own_database(self, name: str = "") -> str:
        """Return the URL of an empty database that shares nothing with others."""
        name = name or f"factory{next(_SERIAL)}"
        with psycopg.connect(host=str(self._folder), user="ifpp", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://ifpp@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(  # pg_ctl leaves the server with our pipes: give it none
            command,
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            log = self._folder / "log"
            raise AssertionError(f"{program} failed: {log.read_text()[-2000:] if log.exists() else 'no log'}")


def programs() -> Path:
    """Return the folder of the newest server, or skip (with CI=true: fail)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).resolve().parent
    if os.environ.get("CI") == "true":
        pytest.fail("PostgreSQL is not installed, and CI must not skip it")
    pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")


@contextmanager
def running(*, sync: bool = False, listen: str = "") -> Iterator[Postgres]:
    """A server that is there for the block; at an address it wants passwords, at its socket none."""
    where = programs()
    user = None
    with tempfile.TemporaryDirectory(prefix="ifpp-pg-") as name:
        folder = Path(name)
        if os.geteuid() == 0:  # the server refuses to run as root
            user = "postgres" if _exists("postgres") else "nobody"
            shutil.chown(folder, user)
        server = Postgres(where, folder, user, sync=sync, listen=listen)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
