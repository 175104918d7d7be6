"""Every custody event is an entry of the audit chain, in the transaction of the fact; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import msgspec
import pytest

from ifpp.errors import CustodyError, IntakeError, SupplyError
from ifpp.store.factory import Factory
from ifpp.store.records import AuditEntry, SignedCheckpoint
from ifpp.wire.audit import GENESIS, link
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.test_events import changed, started, word
from tests.store.world import (
    Node,
    chip_item,
    eid,
    iccid,
    import_chips,
    import_packages,
    later,
    outcome,
    package_item,
    report_states,
    request,
    states,
    stock,
    take_one,
)

P1 = "000002-0000001"


def log_of(factory: Factory, chain_id: str = "factory") -> list[AuditEntry]:
    with factory.audit_log() as log:
        return [entry for page in log.pages(chain_id) for entry in page]


def facts_of(entry: AuditEntry) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.json.decode(entry.facts)
    return facts


def new_kinds(factory: Factory, act: Callable[[], object]) -> list[str]:
    """The kinds of the entries that an act adds."""
    before = len(log_of(factory))
    act()
    return [entry.kind for entry in log_of(factory)[before:]]


def test_a_unit_leaves_a_chain_from_its_import_to_its_clearance(factory: Factory) -> None:
    stock(factory, 1)
    package_id = started(factory)
    event = Node().result(1, "a", [word(package_id, "INSTALLED")])
    take_one(factory, event, later(9))
    entries = log_of(factory)
    assert [entry.kind for entry in entries] == [
        "opened",
        "import",
        "available",
        "import",
        "claimed",
        "sent",
        "result",
        "installed",
        "clean_to_ship",
    ]
    digest = GENESIS
    for number, entry in enumerate(entries, 1):
        digest = link(digest, entry.canonical())
        assert (entry.number, entry.hash, entry.chain_id) == (number, digest, "factory")
    facts = [facts_of(entry) for entry in entries]
    assert facts[0] == {"factory_id": factory.factory_id}
    assert (facts[2]["eid"], facts[2]["iccid"], facts[2]["package"], facts[2]["revision"]) == (eid(1), iccid(10), P1, 0)
    assert facts[4] == {"package": P1, "revision": 1, "node": "st01", "head": "h01", "attempt": "a"}
    assert facts[6]["event"] == facts[7]["event"] == event.id
    assert facts[8] == {
        "eid": eid(1),
        "sn": "SN1",
        "iccids": [iccid(10)],
        "seal": {"keys_deleted": 1, "keys_remaining": 0, "fpa_locked": True, "lpa_answers": True},
        "transaction_id": "a",
        "event": event.id,
        "node": "st01",
        "head": "h01",
        "sealed_at": "2026-03-01T08:00:06.000Z",
    }
    assert [entry.cleared_eid for entry in entries if entry.cleared_eid] == [eid(1)]
    assert factory.audit() == []


def test_what_is_no_custody_event_leaves_no_entry(factory: Factory) -> None:
    stock(factory, 1)
    attempt = request(1, "a")
    factory.claim(attempt, START)
    assert new_kinds(factory, lambda: factory.claim(attempt, START)) == []
    assert new_kinds(factory, lambda: factory.expire_leases(START)) == []
    assert new_kinds(factory, lambda: factory.mark_sent(P1, "a", "st01", START)) == ["sent"]
    assert new_kinds(factory, lambda: factory.mark_sent(P1, "a", "st01", START)) == []
    event = Node().result(1, "a", [word(P1, "INSTALLED")])
    take_one(factory, event)
    assert new_kinds(factory, lambda: take_one(factory, event)) == []


def test_releases_leases_and_readings_are_entries(factory: Factory) -> None:
    stock(factory, 1)
    factory.claim(request(1, "a"), START)
    assert new_kinds(factory, lambda: factory.release("a", "st01", START)) == ["available", "release"]
    assert new_kinds(factory, lambda: factory.release("a", "st01", START)) == []
    assert new_kinds(factory, lambda: factory.release("never", "st01", START)) == ["release"]
    factory.claim(request(1, "b", lease_s=1), START)
    assert new_kinds(factory, lambda: factory.expire_leases(later(2))) == ["available"]
    started(factory, attempt_id="c")
    assert new_kinds(factory, lambda: factory.claim(request(1, "d", station_id="st02"), START)) == ["reading"]
    assert facts_of(log_of(factory)[-1])["packages"] == [P1]


def test_a_refused_event_is_an_entry(factory: Factory) -> None:
    stock(factory, 1)
    event = changed(Node().result(1, "a", [word(started(factory), "INSTALLED")]), result=5)
    assert new_kinds(factory, lambda: take_one(factory, event)) == ["parked"]
    facts = facts_of(log_of(factory)[-1])
    assert (facts["node"], facts["seq"], facts["code"]) == ("st01", 1, "CUSTODY.EVENT_REFUSED")
    assert new_kinds(factory, lambda: factory.park("st01", b"noise", "no envelope", START)) == ["parked"]
    assert new_kinds(factory, lambda: factory.park("st01", b"noise", "no envelope", START)) == []


def test_a_line_taken_and_left_is_an_entry_a_renewal_is_none(factory: Factory) -> None:
    assert new_kinds(factory, lambda: factory.acquire_line("L1", "me", 10, START)) == ["opened", "line"]
    assert new_kinds(factory, lambda: factory.acquire_line("L1", "me", 10, later(5))) == []
    with pytest.raises(CustodyError):
        factory.acquire_line("L1", "you", 10, later(6))
    assert new_kinds(factory, lambda: factory.release_line("L1", "me", later(7))) == ["line"]
    assert new_kinds(factory, lambda: factory.release_line("L1", "me", later(8))) == []
    assert new_kinds(factory, lambda: factory.acquire_line("L1", "you", 10, later(9))) == ["line"]
    assert facts_of(log_of(factory)[-1]) == {"line": "L1", "owner": "you", "epoch": 2}


def test_what_is_rolled_back_was_never_noted(factory: Factory) -> None:
    import_chips(factory, [chip_item(1)])
    before = log_of(factory)
    with pytest.raises(IntakeError):
        import_packages(factory, [package_item(1), package_item(2)])
    with pytest.raises(SupplyError):
        factory.claim(request(1), START)
    assert log_of(factory) == before
    assert factory.audit() == []


def test_an_event_the_database_refuses_leaves_only_its_parking(factory: Factory, url: str) -> None:
    """Its steps were planned and noted in the same group as good ones, then undone."""
    stock(factory, 3)
    with raw(url) as connection:
        if url.startswith("sqlite"):
            connection.execute(
                "CREATE TRIGGER house BEFORE INSERT ON unit_attempt WHEN NEW.sn = 'SN2' "
                "BEGIN SELECT RAISE(ABORT, 'not in this house'); END"
            )
        else:
            connection.execute("ALTER TABLE unit_attempt ADD CONSTRAINT house CHECK (sn <> 'SN2')")
    node = Node()
    events = [
        node.result(number, f"a{number}", [word(started(factory, number, f"a{number}"), "INSTALLED", number=number)])
        for number in (1, 2, 3)
    ]
    kinds = new_kinds(factory, lambda: factory.take_events(events, START))
    assert sorted(kinds) == ["clean_to_ship"] * 2 + ["installed"] * 2 + ["parked"] + ["result"] * 2
    assert states(factory, 2) == ["SENT"]
    assert factory.audit() == []


def test_a_chain_goes_on_after_a_restart(url: str) -> None:
    for attempt in ("a", "b"):
        with closing(Factory.open(url, writer="store")) as factory:
            if attempt == "a":
                stock(factory, 1)
            factory.claim(request(1, attempt), START)
            numbers = [entry.number for entry in log_of(factory, "store")]
            assert numbers == list(range(1, len(numbers) + 1))
            assert factory.audit() == []


def test_each_writer_has_its_chain(url: str) -> None:
    with closing(Factory.open(url, writer="intake")) as one, closing(Factory.open(url, writer="store")) as two:
        stock(one, 1)
        two.claim(request(1), START)
        assert [entry.kind for entry in log_of(two, "store")] == ["opened", "claimed"]
        with two.audit_log() as log:
            assert [(head.chain_id, head.number) for head in log.heads()] == [("intake", 4), ("store", 2)]
        assert two.audit() == []


def test_processes_that_write_one_chain_at_once_make_no_fork(url: str) -> None:
    writers, each = 4, 20
    factories = [Factory.open(url) for _ in range(writers)]
    try:
        stock(factories[0], writers * each)

        def work(place: int) -> None:
            for number in range(place * each + 1, (place + 1) * each + 1):
                factories[place].claim(request(number), START)

        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(work, range(writers)))
        assert len(log_of(factories[0])) == 1 + 2 + 2 * writers * each
        assert factories[0].audit() == []
    finally:
        for factory in factories:
            factory.close()


# ---- tampering --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_entry SET kind = 'sent' WHERE number = 3",
        "DELETE FROM audit_entry WHERE number = 5",
        "UPDATE audit_chain SET number = number - 1",
        "UPDATE audit_chain SET hash = hash",
        "DELETE FROM audit_chain",
        "DELETE FROM audit_key",
        "UPDATE audit_checkpoint SET number = 1",
        "UPDATE report SET file = 'x'",
        "DELETE FROM report_ack",
    ],
)
def test_the_log_only_grows(factory: Factory, url: str, change: str) -> None:
    stock(factory, 1)
    _sign_last(factory)
    report_states(factory, "r", [(P1, "AVAILABLE")], START)
    factory.acknowledge_report("r", "me", START)
    with pytest.raises(REFUSALS), raw(url) as connection:
        connection.execute(change)


def _sign_last(factory: Factory) -> None:
    factory.add_audit_key("1" * 64, b"public", START)
    with factory.audit_log() as log:
        (head,) = log.heads()
    factory.add_checkpoints([SignedCheckpoint(head.chain_id, head.number, head.hash, "now", "1" * 64, b"s" * 64)])


def switch_rules_off(connection: Any, url: str) -> None:
    """What somebody with all rights does first."""
    if url.startswith("sqlite"):
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
    else:
        for table in ("audit_entry", "audit_chain", "audit_key", "audit_checkpoint", "ledger", "package", "chip"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE audit_entry SET at = 'x' WHERE number = 5", ["entry 5 does not follow", "step 1 to CLAIMED"]),
        ("UPDATE audit_entry SET kind = 'sent' WHERE number = 5", ["entry 5 does not follow", "step 1 to SENT"]),
        ("DELETE FROM audit_entry WHERE number = 4", ["entry 5 does not follow entry 3"]),
        ("DELETE FROM audit_entry WHERE number = 6", ["ends with entry 5, should end with 6"]),
        ("UPDATE audit_chain SET number = 5", ["ends with entry 6, should end with 5"]),
        ("UPDATE ledger SET node_id = 'st02' WHERE revision = 1", ["not like this in the audit log"]),
        ("DELETE FROM ledger WHERE revision = 2", ["not like this in the ledger"]),
    ],
)
def test_the_recount_finds_what_somebody_with_all_rights_changed(
    factory: Factory, url: str, change: str, words: list[str]
) -> None:
    stock(factory, 1)
    started(factory)
    assert factory.audit() == []
    with raw(url) as connection:
        switch_rules_off(connection, url)
        connection.execute(change)
    found = "\n".join(factory.audit())
    assert all(word in found for word in words), found


def test_a_step_that_is_told_twice_is_found(factory: Factory, url: str) -> None:
    stock(factory, 1)
    started(factory)
    entry = log_of(factory)[-1]
    with closing(Factory.open(url, writer="forger")) as forger, forger._writing(START) as (_, trail):
        trail.note(entry.kind, **facts_of(entry))
    assert [line for line in factory.audit() if "more than once" in line]


def test_many_differences_are_counted_not_listed(factory: Factory, url: str) -> None:
    stock(factory, 15)
    with raw(url) as connection:
        switch_rules_off(connection, url)
        connection.execute("UPDATE ledger SET node_id = 'x'")
    found = [line for line in factory.audit() if "audit log" in line]
    assert len(found) == 22
    assert any(line.startswith("and 5 more") for line in found)


# ---- signatures -------------------------------------------------------------------------------------


def test_an_entry_keeps_its_first_signature_and_a_key_is_made_known_once(factory: Factory) -> None:
    stock(factory, 1)
    assert new_kinds(factory, lambda: factory.add_audit_key("1" * 64, b"public", START)) == ["key"]
    assert new_kinds(factory, lambda: factory.add_audit_key("1" * 64, b"public", START)) == []
    one = SignedCheckpoint("factory", 3, b"h" * 32, "now", "1" * 64, b"first")
    other = SignedCheckpoint("factory", 3, b"h" * 32, "later", "1" * 64, b"second")
    factory.add_checkpoints([one])
    factory.add_checkpoints([other])
    with factory.audit_log() as log:
        assert log.checkpoints("factory", 2, 3) == [one]
        assert log.checkpoints("factory", 0, 2) == log.checkpoints("factory", 3, 9) == []
        assert log.last_checkpoint("factory") == one
        assert log.last_checkpoint("other") is None
        assert log.keys() == {"1" * 64: b"public"}


def test_only_what_is_in_the_chain_can_be_signed_and_only_by_a_known_key(factory: Factory) -> None:
    stock(factory, 1)
    with pytest.raises(CustodyError):
        factory.add_checkpoints([SignedCheckpoint("factory", 3, b"h" * 32, "now", "2" * 64, b"s")])
    factory.add_audit_key("1" * 64, b"public", START)
    with pytest.raises(CustodyError):
        factory.add_checkpoints([SignedCheckpoint("factory", 99, b"h" * 32, "now", "1" * 64, b"s")])


def test_a_package_that_installs_two_profiles_lists_both(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    first, second = (package.package_id for package in claim.packages)
    words = [outcome(1, 0, "INSTALLED", package_id=first), outcome(1, 1, "INSTALLED", package_id=second)]
    take_one(factory, Node().result(1, "a", words))
    assert facts_of(log_of(factory)[-1])["iccids"] == [iccid(10), iccid(11)]
