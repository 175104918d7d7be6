"""Reports in the books, on both databases: delivery, and the word of the SM-DPf on every item."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ifpp.errors import CustodyError, IntakeError
from ifpp.store.factory import Factory
from ifpp.store.reports import ItemVerdict, Verdict
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.world import eid, iccid, later, report_states, stock

PACKAGES = [f"000002-{number:07}" for number in range(1, 4)]
VERIFIED, NOTED, REFUSED = Verdict.VERIFIED, Verdict.NOTED, Verdict.REFUSED


def written(factory: Factory, report_id: str = "r1", packages: Iterable[str] = PACKAGES) -> None:
    report_states(factory, report_id, [(package, "AVAILABLE") for package in packages], START)


def transactions(factory: Factory) -> list[str]:
    found = [factory.unit(eid(number)) for number in (1, 2, 3)]
    return [package.transaction_id for unit in found if unit for package in unit.packages]


def words(factory: Factory, *verdicts: Verdict) -> list[ItemVerdict]:
    pairs = zip(transactions(factory), verdicts, strict=False)
    return [ItemVerdict(name, verdict, "why" if verdict is REFUSED else "") for name, verdict in pairs]


def kinds(factory: Factory) -> list[str]:
    with factory.audit_log() as log:
        return [entry.kind for entry in log.entries("factory", 0, 1000)]


@pytest.fixture(autouse=True)
def three(factory: Factory) -> None:
    stock(factory, 3)


def test_every_item_has_the_word_of_the_smdpf(factory: Factory) -> None:
    written(factory)
    factory.deliver_report("r1", "https://smdpf.example", later(1))
    factory.deliver_report("r1", "https://elsewhere.example", later(2))
    factory.answer_report("r1", lambda: "d" * 64, "k", words(factory, VERIFIED, NOTED, REFUSED), later(3))
    (row,) = factory.written_reports()
    assert (row.items, row.verified, row.noted, row.refused) == (3, 1, 1, 1)
    assert (row.delivered_to, row.delivered_at) == ("https://smdpf.example", "2026-03-01T08:00:01.000Z")
    assert (row.acknowledged_at, row.told_by) == ("2026-03-01T08:00:03.000Z", "SM-DPf 2.999.10")
    (item,) = factory.refused_items("r1")
    assert (item.package_id, item.iccid, item.reason) == (PACKAGES[2], iccid(30), "why")
    unit = factory.unit(eid(3))
    assert unit is not None
    assert [(one.verdict, one.reason) for one in unit.packages[0].reports] == [("refused", "why")]
    assert kinds(factory)[-4:] == ["report", "delivered", "answered", "acknowledged"]
    assert factory.audit() == []


def test_the_same_answer_again_changes_nothing_and_another_is_refused(factory: Factory) -> None:
    written(factory)
    said = words(factory, VERIFIED, VERIFIED, VERIFIED)
    factory.answer_report("r1", lambda: "d" * 64, "", said, later(1))
    before = factory.written_reports()
    factory.answer_report("r1", lambda: "d" * 64, "", said, later(2))
    with pytest.raises(CustodyError, match=r"REPORT\.ANSWERED"):
        factory.answer_report("r1", lambda: "e" * 64, "", words(factory, *[REFUSED] * 3), later(3))
    assert factory.written_reports() == before
    assert factory.refused_items("r1") == []


def test_a_person_may_have_said_so_before(factory: Factory) -> None:
    written(factory)
    factory.acknowledge_report("r1", "Anna", later(1))
    assert factory.written_reports()[0].verified is None
    factory.answer_report("r1", lambda: "d" * 64, "", words(factory, VERIFIED, VERIFIED, NOTED), later(2))
    (row,) = factory.written_reports()
    assert (row.told_by, row.verified, row.noted) == ("Anna", 2, 1)


@pytest.mark.parametrize("fault", ["missing", "twice", "foreign", "cut"])
def test_an_answer_that_does_not_fit_leaves_nothing(factory: Factory, fault: str) -> None:
    written(factory, packages=PACKAGES[:2])
    good = words(factory, VERIFIED, VERIFIED, VERIFIED)  # the third is of no item of this report

    def cut() -> Iterable[ItemVerdict]:
        yield good[0]
        raise IntakeError("INTAKE.TRUNCATED", "the file ends without its trailer line")

    said = {"missing": good[:1], "twice": [good[0], good[0]], "foreign": good, "cut": cut()}[fault]
    with pytest.raises((CustodyError, IntakeError)):
        factory.answer_report("r1", lambda: "d" * 64, "", said, later(1))
    (row,) = factory.written_reports()
    assert (row.answered_at, row.acknowledged_at, row.verified) == ("", "", None)
    assert kinds(factory)[-1] == "report"
    factory.answer_report("r1", lambda: "d" * 64, "", good[:2], later(2))


def test_a_report_nobody_wrote_is_not_known(factory: Factory) -> None:
    for act in (
        lambda: factory.report("r9"),
        lambda: factory.deliver_report("r9", "x", START),
        lambda: factory.answer_report("r9", lambda: "d" * 64, "", [], START),
    ):
        with pytest.raises(CustodyError, match=r"REPORT\.UNKNOWN"):
            act()


def test_what_nobody_acknowledged_is_overdue(factory: Factory) -> None:
    written(factory, "r1")
    written(factory, "r2")
    assert factory.overdue_reports(START) == []
    assert factory.overdue_reports(later(1)) == ["r1", "r2"]
    factory.acknowledge_report("r1", "Anna", later(2))
    assert factory.overdue_reports(later(1)) == ["r2"]


@pytest.mark.parametrize("table", ["report_signature", "report_delivery", "report_answer", "report_verdict"])
def test_what_was_said_is_kept(factory: Factory, url: str, table: str) -> None:
    written(factory)
    factory.deliver_report("r1", "x", later(1))
    factory.answer_report("r1", lambda: "d" * 64, "", words(factory, VERIFIED, VERIFIED, NOTED), later(2))
    with raw(url) as connection:
        connection.execute("INSERT INTO report_signature VALUES ('r1', 'k', 'x')")
    with pytest.raises(REFUSALS), raw(url) as connection:
        connection.execute(f"DELETE FROM {table}")
