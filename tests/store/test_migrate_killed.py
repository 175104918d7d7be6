"""`ifpp store migrate` killed in the middle of a step: the version before it stands, and the next run finishes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.store.factory import Factory
from ifpp.store.migrate import migrate
from ifpp.store.steps import FIRST_VERSION, SCHEMA_VERSION, STEPS
from tests.store.raw import raw
from tests.store.test_migrate import old_postgres, old_sqlite
from tests.store.world import later

# Everything of the step is written and nothing is committed when it stops.
MIGRATE = """
import sys, threading
from ifpp.store import migrate as module
from tests.store.world import later
set_fact = module.set_fact
def stop(connection, key, value):
    set_fact(connection, key, value)
    if (key, value) == ("schema_version", sys.argv[2]):
        print("in the middle", flush=True)
        threading.Event().wait()
module.set_fact = stop
module.migrate(sys.argv[1], later(10))
"""


@pytest.mark.parametrize("version", [FIRST_VERSION + 1, SCHEMA_VERSION])
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgresql"))])
def test_the_next_run_finishes(database: str, version: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    postgres = database == "postgres"
    url = old_postgres(request.getfixturevalue("postgres_server")) if postgres else old_sqlite(tmp_path)
    command = [sys.executable, "-c", MIGRATE, url, str(version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    with raw(url) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    assert found == (str(version - 1),)
    assert migrate(url, later(11)) == [step for step in STEPS if step.version >= version]
    with closing(Factory.open(url)) as factory, factory.audit_log() as log:
        assert factory.audit() == []
        told = [entry.at for entry in log.entries("upkeep", 0, 100) if entry.kind == "schema"]
        assert len(told) == len(STEPS)
