"""Figures and records read from the books; on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections import defaultdict

from ifpp.model.messages import UnitRef
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent, UnitCounts
from tests.clock import START
from tests.store.raw import raw
from tests.store.world import (
    SMDP,
    Node,
    eid,
    iccid,
    later,
    outcome,
    request,
    results,
    stock,
    take_one,
)

RESULTS = ("PASS", "FAIL", "ERROR", "ABORTED", "SKIPPED")


def by_brute_force(attempts: list[tuple[str, int, int, str]]) -> list[UnitCounts]:
    """Count units of (job, unit, attempt, result) the slow way (line contract 5.1)."""
    jobs: dict[str, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for job_order_id, unit, attempt, result in attempts:
        if result != "SKIPPED":
            jobs[job_order_id][unit].append((attempt, result))
    counts = []
    for job_order_id, units in sorted(jobs.items()):
        ordered = [[result for _, result in sorted(tries)] for tries in units.values()]
        counts.append(
            UnitCounts(
                job_order_id=job_order_id,
                operation="PROFILE_LOAD",
                units=len(ordered),
                attempts=sum(len(tries) for tries in ordered),
                first_pass=sum(tries[0] == "PASS" for tries in ordered),
                first_error=sum(tries[0] == "ERROR" for tries in ordered),
                final_pass=sum(tries[-1] == "PASS" for tries in ordered),
                final_fail=sum(tries[-1] == "FAIL" for tries in ordered),
                retested=sum(len(tries) > 1 for tries in ordered),
                recovered=sum(len(tries) > 1 and tries[-1] == "PASS" for tries in ordered),
            )
        )
    return counts


def test_unit_figures_do_not_depend_on_order_or_repetition(factory: Factory) -> None:
    chance = random.Random(20260301)
    node = Node()
    attempts: list[tuple[str, int, int, str]] = []
    events: list[ReceivedEvent] = []
    for unit in range(1, 120):
        job_order_id = chance.choice(["JO-1", "JO-2"])
        for attempt in range(1, chance.choice([1, 1, 1, 2, 3]) + 1):
            result = chance.choice(RESULTS)
            attempts.append((job_order_id, unit, attempt, result))
            events.append(
                node.result(unit, f"{unit}-{attempt}", job_order_id=job_order_id, attempt=attempt, result=result)
            )
    events += chance.sample(events, len(events) // 5)
    chance.shuffle(events)
    for start in range(0, len(events), 50):
        factory.take_events(events[start : start + 50], START)
    assert factory.unit_counts() == by_brute_force(attempts)


def test_a_unit_counts_by_serial_number_else_by_eid(factory: Factory) -> None:
    node = Node()
    for unit in (
        UnitRef(sn="A", eid=str(eid(1))),
        UnitRef(sn="A", eid=str(eid(2))),
        UnitRef(eid=str(eid(3))),
        UnitRef(),
    ):
        take_one(factory, node.result(1, "a", unit=unit))
    assert [(row.units, row.attempts) for row in factory.unit_counts()] == [(2, 3)]
    assert factory.attempts_without_eid() == 1


def test_a_unit_is_found_by_eid_iccid_and_serial_number(factory: Factory) -> None:
    stock(factory, 2)
    claim = factory.claim(request(1, "a"), START)
    event = Node().result(1, "a", [outcome(1, 0, "INSTALLED", package_id=claim.packages[0].package_id)])
    take_one(factory, event)
    found = [factory.unit(name) for name in (eid(1), iccid(10), "SN1")]
    assert found[0] == found[1] == found[2]
    unit = found[0]
    assert unit is not None
    assert (unit.eid, unit.sns, unit.packages[0].state) == (eid(1), ("SN1",), "INSTALLED")
    assert [attempt.event_id for attempt in unit.attempts] == [event.id]
    assert factory.unit("nobody") is None
    waiting = factory.unit(eid(2))
    assert waiting is not None
    assert (waiting.attempts, waiting.packages[0].state) == ((), "AVAILABLE")


def test_a_unit_without_chip_is_found_by_its_serial_number(factory: Factory) -> None:
    take_one(factory, Node().result(1, "a", unit=UnitRef(sn="DEAD")))
    unit = factory.unit("DEAD")
    assert unit is not None
    assert (unit.eid, unit.sns, unit.packages, len(unit.attempts)) == ("", ("DEAD",), (), 1)


def test_the_latest_attempts_come_first(factory: Factory) -> None:
    node = Node()
    for number in range(1, 6):
        take_one(factory, node.result(number, f"a{number}"))
    assert [row.sn for row in factory.units(limit=3)] == ["SN5", "SN4", "SN3"]


def test_a_report_has_the_latest_result_of_each_package(factory: Factory) -> None:
    stock(factory, 2)
    node = Node()
    for at_s, attempt_id, state in ((1, "a", "FAILED"), (20, "b", "INSTALLED")):
        claim = factory.claim(request(1, attempt_id), START)
        package_id = claim.packages[0].package_id
        factory.mark_sent(package_id, attempt_id, "st01", START)
        take_one(factory, node.result(1, attempt_id, [outcome(1, 0, state, package_id=package_id)]), later(at_s))
    assert results(factory, SMDP, START, later(10)) == []
    (row,) = results(factory, SMDP, later(10), later(30))
    assert (row.state, row.spent, row.taken_at) == ("INSTALLED", True, "2026-03-01T08:00:20.000Z")
    assert results(factory, "2.999.11", START, later(30)) == []


def test_the_audit_finds_what_was_tampered_with(factory: Factory, url: str) -> None:
    """Somebody with full rights switched the rules off; the books still give it away."""
    stock(factory, 3)
    assert factory.audit() == []
    with raw(url) as connection:
        if url.startswith("sqlite"):
            for trigger in ("package_step", "package_entry", "ledger_undeleted", "ledger_unchanged"):
                connection.execute(f"DROP TRIGGER {trigger}")
        else:
            for table in ("package", "ledger"):
                connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        connection.execute(
            "UPDATE package SET state = 'INSTALLED', spent = true, attempt_id = 'x' WHERE package_id = '000002-0000001'"
        )
        connection.execute("DELETE FROM ledger WHERE package_id = '000002-0000002'")
        connection.execute("UPDATE ledger SET from_state = 'SENT' WHERE package_id = '000002-0000003'")
    found = [line for line in factory.audit() if "audit log" not in line]
    assert len(found) == 3
    for number, sentence in enumerate(("does not join", "0 ledger rows", "does not join"), 1):
        assert any(f"000002-000000{number}" in line and sentence in line for line in found)


def test_the_audit_weighs_deliveries_against_states(factory: Factory, url: str) -> None:
    stock(factory, 2)
    with raw(url) as connection:
        if url.startswith("sqlite"):
            connection.execute("DROP TRIGGER batch_count_unchanged")
        else:
            connection.execute("ALTER TABLE batch_count DISABLE TRIGGER USER")
        connection.execute("UPDATE batch_count SET packages = 3")
    assert [row.holds for row in factory.balance()] == [False]
    assert [line for line in factory.audit() if "3 imported" in line]
