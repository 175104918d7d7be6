"""What is left over, what was reported, and what was heard of it; on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from ifpp.errors import CustodyError
from ifpp.model.states import PackageState
from ifpp.store.factory import Factory
from ifpp.store.records import ReportedRow
from tests.clock import START
from tests.store.test_events import started, word
from tests.store.world import SEALED, SMDP, Node, eid, iccid, later, outcome, report_states, request, stock, take_one

S = PackageState


def test_every_open_package_is_named_with_who_has_it(factory: Factory) -> None:
    stock(factory, 5)
    take_one(factory, Node().result(1, "a1", [word(started(factory, 1, "a1"), "INSTALLED")]))
    take_one(factory, Node("st02").result(2, "a2", [word(started(factory, 2, "a2"), "UNKNOWN", number=2)]), later(3))
    factory.claim(request(3, "a3", station_id="st03", lease_s=60), later(1))
    started(factory, 4, "a4")
    rows = factory.open_packages()
    assert [(row.iccid, row.state, row.since, row.node_id, row.attempt_id, row.lease_until) for row in rows] == [
        (iccid(40), "SENT", "2026-03-01T08:00:00.000Z", "st01", "a4", None),
        (iccid(30), "CLAIMED", "2026-03-01T08:00:01.000Z", "st03", "a3", "2026-03-01T08:01:01.000Z"),
        (iccid(20), "UNKNOWN", "2026-03-01T08:00:03.000Z", "st02", "a2", None),
    ]
    assert not any(row.stranded for row in rows)
    assert (rows[0].eid, rows[0].smdp_oid) == (eid(4), SMDP)
    assert factory.oldest_open() == {
        S.SENT: "2026-03-01T08:00:00.000Z",
        S.CLAIMED: "2026-03-01T08:00:01.000Z",
        S.UNKNOWN: "2026-03-01T08:00:03.000Z",
    }


def test_without_open_packages_there_is_no_oldest(factory: Factory) -> None:
    stock(factory, 1)
    assert factory.oldest_open() == {}
    assert factory.open_packages() == []


@pytest.mark.parametrize("second", ["AVAILABLE", "FAILED"])
def test_a_package_whose_chip_is_sealed_without_it_is_stranded(factory: Factory, second: str) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    ids = [package.package_id for package in claim.packages]
    words = [outcome(1, 0, "INSTALLED", package_id=ids[0])]
    words.append(outcome(1, 1, "CLAIMED" if second == "AVAILABLE" else "FAILED", package_id=ids[1]))
    take_one(factory, Node().result(1, "a", words, clean_to_ship=True, seal=SEALED))
    (row,) = factory.open_packages()
    assert (row.iccid, row.state, row.stranded) == (iccid(11), second, True)


def test_a_unit_knows_its_words_and_its_reports(factory: Factory) -> None:
    stock(factory, 2)
    node, package_id = Node(), started(factory)
    take_one(factory, node.result(1, "a", [word(package_id, "UNKNOWN", error="CONTACT.LOST: gone")]), later(2))
    take_one(factory, node.result(1, "a", [word(package_id, "INSTALLED", pir_b64="QUJD")]), later(4))
    take_one(factory, node.result(1, "a", [word(package_id, "INSTALLED", pir_b64="QUJD")]), later(5))
    report_states(factory, "r1", [(package_id, "UNKNOWN")], later(3))
    report_states(factory, "r2", [(package_id, "INSTALLED")], later(6))
    assert factory.acknowledge_report("r2", "Anna", later(7)) == ("2026-03-01T08:00:07.000Z", "Anna")
    assert factory.acknowledge_report("r2", "Ben", later(8)) == ("2026-03-01T08:00:07.000Z", "Anna")
    unit = factory.unit(iccid(10))
    assert unit is not None
    (package,) = unit.packages
    assert [(one.state, one.reason, one.pir_bytes, one.moved, one.seq) for one in package.words] == [
        ("UNKNOWN", "CONTACT.LOST: gone", 0, True, 1),
        ("INSTALLED", "", 3, True, 2),
        ("INSTALLED", "", 3, False, 3),
    ]
    assert package.reports == (
        ReportedRow("r1", SMDP, "r1.plr.jsonl", "2026-03-01T08:00:03.000Z", "UNKNOWN", "", ""),
        ReportedRow(
            "r2",
            SMDP,
            "r2.plr.jsonl",
            "2026-03-01T08:00:06.000Z",
            "INSTALLED",
            "2026-03-01T08:00:07.000Z",
            "Anna",
        ),
    )
    assert [attempt.taken_at for attempt in unit.attempts] == [f"2026-03-01T08:00:0{s}.000Z" for s in (2, 4, 5)]
    other = factory.unit(eid(2))
    assert other is not None
    assert (other.packages[0].words, other.packages[0].reports) == ((), ())


def test_a_report_nobody_wrote_cannot_be_acknowledged(factory: Factory) -> None:
    with pytest.raises(CustodyError, match=r"REPORT\.UNKNOWN"):
        factory.acknowledge_report("r9", "Anna", START)


def test_a_report_is_booked_once(factory: Factory) -> None:
    stock(factory, 1)
    report_states(factory, "r1", [("000002-0000001", "AVAILABLE")], START)
    with pytest.raises(CustodyError):
        report_states(factory, "r1", [("000002-0000001", "AVAILABLE")], START)
    with pytest.raises(CustodyError):
        report_states(factory, "r2", [("000009-0000001", "AVAILABLE")], START)
