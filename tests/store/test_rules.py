"""What the database refuses by itself, whatever program talks to it."""

from __future__ import annotations

from contextlib import closing

import pytest

from ifpp.model.states import PACKAGE_TRANSITIONS, PackageState
from ifpp.store.factory import Factory
from ifpp.store.schema import package
from tests.store.raw import REFUSALS, raw
from tests.store.world import stock

S = PackageState

# A way to every state, of legal steps only.
_WAY = {
    S.AVAILABLE: (),
    S.CLAIMED: (S.CLAIMED,),
    S.SENT: (S.CLAIMED, S.SENT),
    S.INSTALLED: (S.CLAIMED, S.SENT, S.INSTALLED),
    S.FAILED: (S.CLAIMED, S.SENT, S.FAILED),
    S.UNKNOWN: (S.CLAIMED, S.SENT, S.UNKNOWN),
    S.DESTROYED: (S.DESTROYED,),
}


def step(state: PackageState, *, spent: bool = False, revision: str = "revision + 1") -> str:
    """An update that breaks no other rule than, perhaps, the one of the steps."""
    attempt = "NULL" if state in (S.AVAILABLE, S.DESTROYED) else "'raw'"
    lease = "'2030-01-01T00:00:00.000Z'" if state is S.CLAIMED else "NULL"
    truth = "true" if spent or state is S.INSTALLED else "false"
    columns = f"state = '{state}', attempt_id = {attempt}, lease_until = {lease}, spent = {truth}"
    return f"UPDATE package SET {columns}, revision = {revision}"


@pytest.fixture
def one_package(factory: Factory, url: str) -> str:
    stock(factory, 1)
    return url


@pytest.mark.parametrize("old", list(S))
def test_only_the_steps_of_the_table_are_taken(one_package: str, old: PackageState) -> None:
    with raw(one_package) as connection:
        for state in _WAY[old]:
            connection.execute(step(state))
        for new in S:
            connection.execute("SAVEPOINT one")
            if new in PACKAGE_TRANSITIONS[old]:
                connection.execute(step(new))
            else:
                with pytest.raises(REFUSALS, match="may not take this step"):
                    connection.execute(step(new))
            connection.execute("ROLLBACK TO one")


def test_a_spent_key_is_never_claimed_again(one_package: str) -> None:
    with raw(one_package) as connection:
        for state in (S.CLAIMED, S.SENT):
            connection.execute(step(state))
        connection.execute(step(S.FAILED, spent=True))
    with pytest.raises(REFUSALS, match="may not take this step"), raw(one_package) as connection:
        connection.execute(step(S.CLAIMED))


def test_every_step_counts_one(one_package: str) -> None:
    for revision in ("revision", "revision + 2", "0"):
        with pytest.raises(REFUSALS, match="may not take this step"), raw(one_package) as connection:
            connection.execute(step(S.CLAIMED, revision=revision))


def test_the_database_writes_the_ledger_of_every_step(factory: Factory, one_package: str) -> None:
    with raw(one_package) as connection:
        connection.execute(step(S.CLAIMED))
        connection.execute(step(S.SENT))
        rows = connection.execute("SELECT from_state, to_state, attempt_id FROM ledger ORDER BY entry").fetchall()
    assert rows == [("", "AVAILABLE", ""), ("AVAILABLE", "CLAIMED", "raw"), ("CLAIMED", "SENT", "raw")]
    assert factory.audit() == [
        f"package 000002-0000001: step {number} to {state} is in the ledger, but not like this in the audit log"
        for number, state in ((1, "CLAIMED"), (2, "SENT"))
    ]


def test_a_ledger_row_names_who_let_go(one_package: str) -> None:
    with raw(one_package) as connection:
        connection.execute(step(S.CLAIMED))
        connection.execute(step(S.AVAILABLE))
        (attempt,) = connection.execute("SELECT attempt_id FROM ledger ORDER BY entry DESC").fetchone()
    assert attempt == "raw"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE package SET eid = 'x'",
        "UPDATE package SET otk_id = 'x'",
        "UPDATE package SET bpp_sha256 = 'x'",
        "UPDATE package SET iccid = 'x', revision = revision + 1, state = 'CLAIMED'",
        "DELETE FROM package",
        "UPDATE ledger SET to_state = 'INSTALLED'",
        "DELETE FROM ledger",
        "INSERT INTO package_transition VALUES ('INSTALLED', 'AVAILABLE', false)",
        "DELETE FROM package_transition",
        "UPDATE package_bytes SET bpp = ''",
        "UPDATE batch_count SET packages = 0",
        "UPDATE otk SET public = ''",
        # an attempt for a free package, a lease for a sent one, a spent key that may be loaded
        "UPDATE package SET state = 'CLAIMED', attempt_id = NULL, lease_until = 'x', revision = revision + 1",
        "UPDATE package SET state = 'CLAIMED', attempt_id = 'x', lease_until = NULL, revision = revision + 1",
        "UPDATE package SET state = 'CLAIMED', attempt_id = 'x', lease_until = 'x', spent = true, revision = 1",
    ],
)
def test_identity_and_history_are_fixed(one_package: str, change: str) -> None:
    with pytest.raises(REFUSALS), raw(one_package) as connection:
        connection.execute(change)


def test_history_is_not_replaced_either(sqlite_url: str) -> None:
    """SQLite deletes on REPLACE; that must not be a way around."""
    with closing(Factory.open(sqlite_url)) as factory:
        stock(factory, 1)
    with pytest.raises(REFUSALS, match="history is neither changed nor deleted"), raw(sqlite_url) as connection:
        connection.execute("INSERT OR REPLACE INTO ledger SELECT * FROM ledger")


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("table", ["ledger", "package", "event", "package_bytes"])
def test_tables_are_not_emptied(postgres_url: str, table: str) -> None:
    with closing(Factory.open(postgres_url)) as factory:
        stock(factory, 1)
    with pytest.raises(REFUSALS, match="history is neither changed nor deleted"), raw(postgres_url) as connection:
        connection.execute(f"TRUNCATE {table} CASCADE")


def twin(**changes: str) -> str:
    """An insert of a second package like the first, but for the named columns (SQL expressions)."""
    names = [column.name for column in package.columns]
    values = [changes.get(name, name) for name in names]
    return f"INSERT INTO package ({', '.join(names)}) SELECT {', '.join(values)} FROM package"


_NEW = {
    "package_id": "'new'",
    "otk_id": "'01010101'",
    "iccid": "'new'",
    "bpp_sha256": "'new'",
    "transaction_id": "'new'",
}


@pytest.mark.parametrize("shared", ["otk_id", "iccid", "bpp_sha256", "transaction_id"])
def test_one_package_for_one_key_one_profile_one_transaction(one_package: str, shared: str) -> None:
    """A second package that shares one identity with the first is refused; a new one is not."""
    changes = {name: value for name, value in _NEW.items() if name != shared}
    with raw(one_package) as connection:
        connection.execute("INSERT INTO package_bytes SELECT 'new', bpp FROM package_bytes")
    with pytest.raises(REFUSALS, match=r"(?i)unique"), raw(one_package) as connection:
        connection.execute(twin(**changes))
    with raw(one_package) as connection:
        connection.execute(twin(**_NEW))


def test_the_same_transaction_of_another_smdp_is_another_one(one_package: str) -> None:
    changes = _NEW | {"transaction_id": "transaction_id", "smdp_oid": "'2.999.11'"}
    with raw(one_package) as connection:
        connection.execute("INSERT INTO package_bytes SELECT 'new', bpp FROM package_bytes")
        connection.execute(twin(**changes))


def test_a_package_is_born_available(one_package: str) -> None:
    born = {"state": "'INSTALLED'", "spent": "true", "attempt_id": "'x'"}
    with pytest.raises(REFUSALS, match="comes into the books AVAILABLE"), raw(one_package) as connection:
        connection.execute(twin(**_NEW, **born))


@pytest.mark.parametrize("missing", ["eid", "otk_id", "bpp_sha256"])
def test_a_package_needs_its_chip_key_and_bytes(one_package: str, missing: str) -> None:
    with raw(one_package) as connection:
        connection.execute("INSERT INTO package_bytes SELECT 'new', bpp FROM package_bytes")
    with pytest.raises(REFUSALS, match=r"(?i)foreign key"), raw(one_package) as connection:
        connection.execute(twin(**_NEW | {missing: "'absent'"}))
