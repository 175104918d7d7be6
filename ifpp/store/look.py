"""A look at the factory database from outside: nothing is made, nothing is brought up to date."""

from __future__ import annotations

from contextlib import closing

from ifpp.errors import CustodyError
from ifpp.store.database import Database
from ifpp.store.rules import read_facts, wrong_version
from ifpp.store.steps import SCHEMA_VERSION

_WAIT_S = 5.0


def look_at_database(url: str) -> tuple[str, str]:
    """Return its name without a password, and what was seen.

    Raises CustodyError CUSTODY.SCHEMA_NEWER or CUSTODY.SCHEMA_OLDER when this ifpp would refuse it, SettingsError for
    somebody else's database, ServiceError DATABASE.UNREACHABLE.
    """
    with closing(Database(url, _WAIT_S)) as database:
        database.need()
        with database.read() as connection:
            facts = read_facts(connection)
        if not facts.works_since <= SCHEMA_VERSION <= facts.version:
            raise wrong_version(facts.version, database.name)
        if facts.version == SCHEMA_VERSION and facts.behind is not None:
            detail = f"an ifpp that knows schema {facts.behind} worked with it"
            raise CustodyError("CUSTODY.SCHEMA_OLDER", detail, where=database.name)
        known = "" if facts.version == SCHEMA_VERSION else ", newer than this ifpp, which may work with it"
        return database.name, f"schema version {facts.version}{known}"
