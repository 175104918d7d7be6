"""Activation codes as a file of an operator, and what they cover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import IntakeError
from ifpp.line.coverage import cover
from ifpp.line.intake import IntakeOutcome, IntakeReport, import_file
from ifpp.line.report import write_reports
from ifpp.sim.documents import write_codes
from ifpp.store.factory import Factory
from ifpp.trust.chain import TrustStore
from tests.clock import START
from tests.store.test_codes import send, tell, word
from tests.store.world import REGION, SKU, Node, add_job, later, request

PLAIN = {"profile_type": "operational-0", "sku": SKU, "region": REGION}
GOOD = PLAIN | {"activation_code": "LPA:1$SMDP.example.com$MATCH-SECRET-1"}
ASKS = PLAIN | {"activation_code": "1$smdp.example.com$MATCH-SECRET-2$2.999.5$1", "confirmation_code": "4711"}


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as opened:
        yield opened


def take_in(factory: Factory, folder: Path, *codes: dict[str, Any], dry_run: bool = False) -> IntakeReport:
    path = folder / "operator.codes.jsonl"
    write_codes(path, codes)
    return import_file(path, factory, TrustStore([]), now=START, line="L1", dry_run=dry_run)


def test_a_file_is_taken_in_once(factory: Factory, tmp_path: Path) -> None:
    assert take_in(factory, tmp_path, GOOD, ASKS, dry_run=True).outcome is IntakeOutcome.VERIFIED
    assert factory.balance() == []
    report = take_in(factory, tmp_path, GOOD, ASKS)
    assert (report.kind, report.items, report.outcome) == ("codes", 2, IntakeOutcome.IMPORTED)
    path = tmp_path / "operator.codes.jsonl"
    again = import_file(path, factory, TrustStore([]), now=START, line="L1")
    assert (again.items, again.outcome) == (2, IntakeOutcome.ALREADY_IMPORTED)
    with pytest.raises(IntakeError, match=r"INTAKE\.DUPLICATE"):  # the same code in another file
        take_in(factory, tmp_path, GOOD)
    codes = [factory.claim(request(number), START).packages[0] for number in (1, 2)]
    assert [(one.activation_code, one.confirmation_code) for one in codes] == [
        ("1$smdp.example.com$MATCH-SECRET-1", ""),
        (ASKS["activation_code"], "4711"),
    ]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"activation_code": "1$smdp.example.com$"}, "INTAKE.FORMAT"),
        ({"activation_code": "1$https://smdp$SECRET"}, "INTAKE.FORMAT"),
        ({"activation_code": "2$smdp.example.com$SECRET"}, "INTAKE.FORMAT"),
        ({"confirmation_code": "4711"}, "INTAKE.FORMAT"),
        ({"activation_code": "1$smdp.example.com$SECRET$$1"}, "INTAKE.FORMAT"),
        ({"sku": ""}, "INTAKE.FORMAT"),
        ({"expires_at": "2020-01-01T00:00:00.000Z"}, "BPP.EXPIRED"),
        (GOOD, "INTAKE.DUPLICATE"),
    ],
)
def test_one_bad_code_refuses_the_file(factory: Factory, tmp_path: Path, bad: dict[str, Any], code: str) -> None:
    other = PLAIN | {"activation_code": "1$smdp.example.com$MATCH-SECRET-3"}
    with pytest.raises(IntakeError) as caught:
        take_in(factory, tmp_path, GOOD, other | bad)
    (item,) = caught.value.items
    assert (item.code, item.where.startswith("operator.codes.jsonl:3")) == (code, True)
    assert "SECRET" not in str(caught.value) + str(item)
    assert factory.balance() == []


def test_codes_cover_units_whatever_chip_comes(factory: Factory, tmp_path: Path) -> None:
    take_in(factory, tmp_path, GOOD, ASKS)
    add_job(factory, quantity=3)
    (one,) = cover(factory, "L1", now=START, job="JO-1", low_stock_hours=8).products
    assert (one.needed, one.covered, one.codes, one.missing, one.spare, one.uncovered) == (3, 0, 2, 1, 0, 0)
    claim = factory.claim(request(1), START)
    send(factory, claim)
    assert tell(factory, Node(), 1, claim, word(claim, "INSTALLED", 3)) == ()
    (one,) = cover(factory, "L1", now=later(60), job="JO-1", low_stock_hours=8).products
    assert (one.needed, one.codes, one.missing, one.units_an_hour, one.hours_left, one.low) == (2, 1, 1, 1.0, 1.0, True)
    assert write_reports(factory, tmp_path / "reports", start=START, end=later(900), now=later(900)) == []
