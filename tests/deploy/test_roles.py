"""deploy/postgresql on a real server: each role can do what its process does, and not what it does not do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from ifpp.errors import CustodyError, IfppError
from ifpp.line.first_article import CHANGEOVER
from ifpp.roles import demo_mes
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.world import JobPlan, build_world
from ifpp.store import migrate as migrations
from ifpp.store.factory import Factory
from ifpp.store.loads import Frozen
from ifpp.store.migrate import migrate
from ifpp.store.plans import Planned
from ifpp.store.releases import Release
from ifpp.store.schema import metadata
from ifpp.store.steps import SCHEMA_VERSION
from ifpp.wire.production_order import ProductionOrder
from tests.clock import START
from tests.real import postgres
from tests.real.postgres import Postgres
from tests.store.test_codes import code_item, import_codes, word
from tests.store.world import (
    Node,
    add_job,
    later,
    outcome,
    package_item,
    report_states,
    request,
    states,
    stock,
    take_one,
)

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.timeout(240)]
FOLDER = Path(__file__).parents[2] / "deploy" / "postgresql"
RUNNING = ("ifpp_store", "ifpp_supervisor", "ifpp_desk", "ifpp_read")
SITE = 'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n[store]\ndatabase = "{}"\n'
UNITS = 4


class Place:
    """A database with its roles, as the files make it: first the roles, then the tables, then who may do what."""

    def __init__(self, server: Postgres, folder: Path) -> None:
        self.owned = server.own_database()
        self.site = folder / "site.toml"
        self.site.write_text(SITE.format(self.url("")))
        self.psql("ifpp", "roles.sql")
        self.made = self.ifpp("ifpp_owner", "store", "migrate")
        self.psql("ifpp_owner", "grants.sql")

    def url(self, role: str) -> str:
        """Where it is; without a role the environment must say who asks."""
        return self.owned.replace("ifpp@", f"{role}@" if role else "")

    def factory(self, role: str, writer: str = "factory") -> Factory:
        return Factory.open(self.url(role), writer=writer)

    def psql(self, role: str, file: str, **environment: str) -> None:
        command = ["psql", "-q", "-X", "-d", self.url(role), "-v", "ON_ERROR_STOP=1", "-f", str(FOLDER / file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert (done.returncode, done.stderr) == (0, "")

    def ifpp(self, role: str, *words: str) -> str:
        """Run a command of ifpp as a role; return what it said."""
        command = [sys.executable, "-m", "ifpp", *words, "--config", str(self.site)]
        env = {**os.environ, "PGUSER": role}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rows(self, role: str, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(role)) as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.running() as running:
        yield running


@pytest.fixture(scope="module")
def place(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(server, tmp_path_factory.mktemp("roles"))


def test_the_owner_makes_the_tables_of_an_empty_database_once(place: Place) -> None:
    assert place.made == "a new database\n"
    assert place.ifpp("ifpp_owner", "store", "migrate") == "the database has the present schema\n"
    owners = place.rows("ifpp", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == [("ifpp_owner",)]


def test_every_table_has_who_writes_it_and_nobody_may_do_more(place: Place) -> None:
    """A table that is new needs its lines in grants.sql."""
    place.psql("ifpp", "roles.sql")  # once more changes nothing
    place.psql("ifpp_owner", "grants.sql")
    found = place.rows(
        "ifpp",
        "SELECT table_name, privilege_type, grantee FROM information_schema.table_privileges "
        "WHERE table_schema = 'public' AND grantee <> 'ifpp_owner'",
    )
    assert {name for name, right, _ in found if right == "INSERT"} == set(metadata.tables) - {"package_transition"}
    assert {name for name, right, _ in found if right == "SELECT"} == set(metadata.tables)
    assert {right for _, right, _ in found} == {"SELECT", "INSERT", "DELETE"}  # changes are granted by column
    deletes = {(name, who) for name, right, who in found if right == "DELETE"}
    kept = {("meta", role) for role in RUNNING[:3]}
    assert deletes - kept == {(name, "ifpp_desk") for name in ("staged", "package_bytes", "reservation")}
    assert {right for _, right, who in found if who == "ifpp_read"} == {"SELECT"}
    assert not [who for _, _, who in found if who not in RUNNING]


# ---- each does its work -------------------------------------------------------------------------------


class Floor(FactoryFloor):
    """A line whose processes are who grants.sql thinks they are; whoever has no role reaches no database."""

    mes = True
    roles = {  # noqa: RUF012 - never changed
        STORE: "ifpp_store",
        SUPERVISOR: "ifpp_supervisor",
        "import": "ifpp_desk",
        "report": "ifpp_desk",
        "deliver": "ifpp_desk",
    }
    place: Place

    @property
    def database(self) -> str:
        return self.place.url("")

    def command(self, name: str) -> list[str]:
        return ["env", f"PGUSER={self.roles.get(name, 'ifpp_nobody')}", *super().command(name)]


async def test_a_line_works_under_its_roles(server: Postgres, tmp_path: Path) -> None:
    Floor.place = place = Place(server, tmp_path)
    world = build_world(tmp_path / "world", units=UNITS, seed=5, jobs=[JobPlan("JO-1", "TRACKER", "EU", ["st01"])])
    floor = Floor(tmp_path, ["st01"], heads=2, apdu_ms=1, broker=None)
    try:
        await floor.start_broker()
        await floor.open(world)
        await demo_mes.begin(floor, world)
        await floor.fleets["st01"].tell("go")
        assert await asyncio.wait_for(floor.fleets["st01"].process.wait(), 120) == 0
        await floor.settled()
        await floor.deliver_reports(world, await floor.write_reports())
    finally:
        await floor.close()
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
    assert "permission denied" not in logs
    place.site = tmp_path / "config" / "site.toml"
    with closing(place.factory("ifpp_read")) as factory:
        assert [(row.installed, row.holds) for row in factory.balance()] == [(UNITS, True)]
        assert factory.audit() == []
        assert factory.line_log_state("L1").last > 0
        with factory.audit_log() as log:
            assert {head.chain_id for head in log.heads()} >= {"store", "line-L1", "intake", "report"}
            assert log.last_checkpoint("line-L1") is not None
    assert "100" in place.ifpp("ifpp_read", "report", "shift", "current", "--text")
    place.ifpp("ifpp_read", "balance")
    copy = tmp_path / "factory.backup"
    place.ifpp("ifpp_owner", "store", "backup", str(copy), "--no-seal")
    assert copy.stat().st_size > 0


def test_people_at_a_desk_do_their_work(place: Place) -> None:
    with closing(place.factory("ifpp_desk", "desk")) as desk:
        stock(desk, 4)
        add_job(desk)
        with closing(place.factory("ifpp_store", "store")) as store:
            claim = store.claim(request(2, "given-back"), START)
            store.release(claim.attempt_id, "st01", later(1))
            assert store.expire_leases(later(2)) == 0
        assert states(desk, 2) == ["AVAILABLE"]
        _load_one(place)
        item = package_item(1)
        desk.change_plan(("TRACKER", "US", ""), [Planned("x", "")], (START, None), "Ann", "why", START)
        desk.reserve("JO-1", [str(package_item(3).eid)], "Ann", "why", START)
        desk.unreserve("JO-1", "Ann", "why", START)
        desk.rework.order(str(item.eid), "", "", "Ann", "why", later(10))
        desk.deny("fw", "type", "Ann", "why", START, known=False)
        desk.allow("fw", "type", "Ann", "why", later(1))
        desk.figures.release_job(Release("JO-1", "tray", CHANGEOVER, "", "Ann", "new tray"), START)
        limits = Frozen("type/fw", 1.0, 0.1, 20, "2026-01-01", "2026-01-02", 0)
        desk.figures.freeze_limits("L1", limits, "Ann", "why", START)
        order = ProductionOrder(
            order_id="PO-1", version=1, site="e/s", sku="X", quantity=5, from_at="2026-01-01T00:00:00.000Z",
            until_at="2027-01-01T00:00:00.000Z",
        )  # fmt: skip
        assert desk.add_production_order(order, "key", b"document", START)
        (package,) = (row for row in desk.unit(str(item.eid)).packages)  # type: ignore[union-attr]
        report_states(desk, "r1", [(package.package_id, "INSTALLED")], later(20))
        desk.acknowledge_report("r1", "Ann", later(21))
        assert [count for count, _ in desk.retention.purge(later(9000), later(9000))] == [1]
        desk.withdraw("order.esbpp.jsonl", "Ann", "why", later(30))
        assert desk.audit() == []


def _load_one(place: Place) -> None:
    """Chip 1, by store and supervisor."""
    with closing(place.factory("ifpp_store", "store")) as store:
        claim = store.claim(request(1, "a1"), START)
        store.mark_sent(claim.packages[0].package_id, "a1", "st01", START)
        assert store.package_bytes(claim.packages[0].bpp_sha256) == package_item(1).bpp
    with closing(place.factory("ifpp_supervisor", "line-L1")) as supervisor:
        said = outcome(1, 0, "INSTALLED", package_id=claim.packages[0].package_id)
        assert take_one(supervisor, Node().result(1, "a1", [said])).rejected == ()


def test_an_activation_code_goes_its_way(place: Place) -> None:
    with closing(place.factory("ifpp_desk", "desk")) as desk:
        import_codes(desk, code_item(1, sku="ONLINE"))
    with closing(place.factory("ifpp_store", "store")) as store:
        claim = store.claim(request(50, "c1", sku="ONLINE"), START)
        store.mark_sent(claim.packages[0].package_id, "c1", "st01", START)
    with closing(place.factory("ifpp_supervisor", "line-L1")) as supervisor:
        said = word(claim, "INSTALLED", 50)
        assert take_one(supervisor, Node("st02").result(50, "c1", [said])).rejected == ()
        assert supervisor.stock_levels(START)[-1].codes == 0
        assert all(row.holds for row in supervisor.balance())
    with closing(place.factory("ifpp_desk", "desk")) as desk:
        desk.withdraw("codes.jsonl", "Ann", "why", START)


def test_an_import_that_was_killed_is_finished_by_an_import(place: Place) -> None:
    """The store would do it at its start; here it may not write what packages are made of, and goes on."""
    with psycopg.connect(place.url("ifpp_desk")) as connection:  # what a killed import has left
        connection.execute("INSERT INTO staged VALUES ('digest', 0, '', NULL)")
    with closing(place.factory("ifpp_store", "store")) as store, pytest.raises(IfppError, match="permission denied"):
        store.settle_intakes(START)
    with closing(place.factory("ifpp_desk", "desk")) as desk:
        desk.settle_intakes(START)
    assert place.rows("ifpp_desk", "SELECT * FROM staged") == []


# ---- and no more --------------------------------------------------------------------------------------

_REFUSALS = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
KEPT = ("audit_entry", "audit_chain", "ledger", "event", "package_result", "package", "chip")
CHANGES = (
    "audit_entry SET kind",
    "ledger SET detail",
    "event SET schema",
    "otk SET otk_id",
    "batch SET name",
    "package SET eid",
    "report SET sha256",
)
REFUSED = [
    *((role, f"UPDATE {change} = ''") for role in RUNNING for change in CHANGES),
    *((role, f"DELETE FROM {table}") for role in RUNNING for table in KEPT),
    *((role, f"TRUNCATE {table}") for role in RUNNING for table in ("package", "staged")),
    *((role, "CREATE TABLE mine (one text)") for role in RUNNING),
    *((role, "ALTER TABLE package DISABLE TRIGGER ALL") for role in RUNNING),
    *((role, "DROP TABLE audit_entry") for role in RUNNING),
    *((role, "INSERT INTO package_transition VALUES ('FAILED', 'AVAILABLE', false)") for role in RUNNING),
    *((role, "INSERT INTO meta VALUES ('works_since', '1')") for role in RUNNING),
    *((role, "CREATE TEMPORARY TABLE mine (one text)") for role in RUNNING if role != "ifpp_desk"),
    ("ifpp_store", "UPDATE chip SET clean_to_ship_at = '2026'"),
    ("ifpp_store", "INSERT INTO code (code_id) VALUES ('x')"),
    ("ifpp_store", "UPDATE code SET matching_id = 'x'"),
    ("ifpp_store", "UPDATE package SET iccid = 'x'"),
    ("ifpp_store", "INSERT INTO event (id) VALUES ('x')"),
    ("ifpp_store", "INSERT INTO audit_checkpoint (chain_id) VALUES ('x')"),
    ("ifpp_store", "DELETE FROM package_bytes"),
    ("ifpp_supervisor", "SELECT bpp FROM package_bytes"),
    ("ifpp_supervisor", "SELECT matching_id FROM code"),
    ("ifpp_supervisor", "UPDATE code SET ties = 1"),
    ("ifpp_supervisor", "INSERT INTO package (package_id) VALUES ('x')"),
    ("ifpp_supervisor", "INSERT INTO claim (attempt_id) VALUES ('x')"),
    ("ifpp_supervisor", "INSERT INTO withdrawal (batch) VALUES (1)"),
    ("ifpp_desk", "INSERT INTO event (id) VALUES ('x')"),
    ("ifpp_desk", "UPDATE chip SET clean_to_ship_at = '2026'"),
    ("ifpp_desk", "INSERT INTO claim (attempt_id) VALUES ('x')"),
    ("ifpp_read", "SELECT bpp FROM package_bytes"),
    ("ifpp_read", "SELECT confirmation_code FROM code"),
    ("ifpp_read", "SET transaction_read_only = off; INSERT INTO audit_entry (kind) VALUES ('x')"),
]  # fmt: skip


@pytest.mark.parametrize("role", RUNNING)
def test_what_nobody_needs_is_refused(place: Place, role: str) -> None:
    wanted = [statement for who, statement in REFUSED if who == role]
    assert len(wanted) > 20
    for statement in wanted:
        with closing(psycopg.connect(place.url(role))) as connection, pytest.raises(_REFUSALS):
            connection.execute(statement.encode())


@pytest.mark.parametrize("role", RUNNING[:3])
def test_what_the_database_says_of_itself_is_the_owners(place: Place, role: str) -> None:
    before = place.rows("ifpp_owner", "SELECT key, value FROM meta ORDER BY key")
    with psycopg.connect(place.url(role)) as connection:
        assert connection.execute("DELETE FROM meta WHERE key IN ('schema_version', 'factory_id')").rowcount == 0
    assert place.rows(role, "SELECT key, value FROM meta ORDER BY key") == before


def test_the_owner_may_not_change_history_either(place: Place) -> None:
    for statement in (b"DELETE FROM package", b"TRUNCATE package CASCADE", b"DELETE FROM audit_chain"):
        with closing(psycopg.connect(place.url("ifpp_owner"))) as owner, pytest.raises(psycopg.errors.CheckViolation):
            owner.execute(statement)


def test_whoever_has_no_role_sees_nothing(place: Place) -> None:
    with psycopg.connect(place.url("ifpp"), autocommit=True) as connection:
        connection.execute("CREATE ROLE ifpp_stranger LOGIN")
        try:
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(place.url("ifpp_stranger"))
        finally:
            connection.execute("DROP ROLE ifpp_stranger")


def test_passwords_come_from_files(place: Place, tmp_path: Path) -> None:
    names = ("owner", "store", "supervisor", "desk", "read")
    for name in names:
        (tmp_path / f"{name}.password").write_text(f"{name}-'secret\n")
    place.psql("ifpp", "passwords.sql", IFPP_SECRETS=str(tmp_path))
    kept = place.rows("ifpp", "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'ifpp\\_%'")
    assert {str(name) for name, _ in kept} >= {f"ifpp_{name}" for name in names}
    hashes = [str(password) for name, password in kept if str(name)[5:] in names]
    assert len(set(hashes)) == len(names)
    assert all(one.startswith("SCRAM-SHA-256$") for one in hashes)


# ---- migrate under roles ------------------------------------------------------------------------------


def test_it_is_migrated_when_no_other_role_works_with_it(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(server, tmp_path)
    monkeypatch.setattr(migrations, "_OTHERS_LEAVE_S", 0.2)
    with psycopg.connect(place.url("ifpp_owner")) as connection:  # so that there is something to do
        connection.execute("INSERT INTO meta VALUES ('behind', %s)", [str(SCHEMA_VERSION)])
    owned = place.url("ifpp_owner")
    for role in RUNNING[:3]:
        with psycopg.connect(place.url(role)), pytest.raises(CustodyError, match=r"DATABASE\.IN_USE"):
            migrate(owned, START)
    with psycopg.connect(place.url("ifpp_read")), psycopg.connect(place.url("ifpp")):  # who only looks may stay
        assert migrate(owned, START) == []
    place.psql("ifpp_owner", "grants.sql")
    with closing(place.factory("ifpp_store")) as store:
        store.ping()


def test_an_ifpp_that_was_rolled_back_leaves_its_mark(server: Postgres, tmp_path: Path) -> None:
    """The database is one step ahead and allows the version before."""
    place = Place(server, tmp_path)
    with psycopg.connect(place.url("ifpp_owner")) as connection:
        connection.execute("UPDATE meta SET value = %s WHERE key = 'schema_version'", [str(SCHEMA_VERSION + 1)])
    for role in RUNNING[:3]:
        with closing(place.factory(role)) as factory:
            factory.ping()
        assert place.rows(role, "SELECT value FROM meta WHERE key = 'behind'") == [(str(SCHEMA_VERSION),)]
        with psycopg.connect(place.url(role)) as connection:
            connection.execute("DELETE FROM meta WHERE key = 'behind'")
