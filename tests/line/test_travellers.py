"""Travellers as a file of the MES."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import IntakeError
from ifpp.line.intake import IntakeOutcome, IntakeReport, import_file
from ifpp.sim.documents import write_travellers
from ifpp.store.factory import Factory
from ifpp.trust.chain import TrustStore
from tests.clock import START
from tests.store.world import SKU, eid, refusal, request, stock


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as opened:
        stock(opened, 2)
        yield opened


def take_in(factory: Factory, folder: Path, *units: dict[str, Any], dry_run: bool = False) -> IntakeReport:
    path = folder / "units.traveller.jsonl"
    write_travellers(path, units)
    return import_file(path, factory, TrustStore([]), now=START, line="L1", dry_run=dry_run)


GOOD = {"sn": "SN1", "sku": SKU, "eid": str(eid(1)), "job_order_id": "JO-1"}


def test_a_file_is_taken_in_once(factory: Factory, tmp_path: Path) -> None:
    plain = {"sn": "SN2", "sku": "OTHER"}
    assert take_in(factory, tmp_path, GOOD, plain, dry_run=True).outcome is IntakeOutcome.VERIFIED
    assert factory.claim(request(1, "a"), START).sn == ""
    report = take_in(factory, tmp_path, GOOD, plain)
    assert (report.kind, report.items, report.outcome) == ("traveller", 2, IntakeOutcome.IMPORTED)
    path = tmp_path / "units.traveller.jsonl"
    again = import_file(path, factory, TrustStore([]), now=START, line="L1")
    assert (again.items, again.outcome) == (2, IntakeOutcome.ALREADY_IMPORTED)
    assert factory.claim(request(1, "a"), START).sn == "SN1"
    assert refusal(factory, request(2, sn="SN2")).code == "UNIT.TRAVELLER"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"eid": str(eid(9))}, "INTAKE.UNKNOWN_EID"),
        ({"eid": "1" * 32}, "INTAKE.BAD_ID"),
        ({"sn": ""}, "INTAKE.FORMAT"),
        ({"sku": "x" * 129}, "INTAKE.FORMAT"),
        ({"sn": "SN\n1"}, "INTAKE.FORMAT"),
    ],
)
def test_one_bad_unit_refuses_the_file(factory: Factory, tmp_path: Path, bad: dict[str, Any], code: str) -> None:
    with pytest.raises(IntakeError) as caught:
        take_in(factory, tmp_path, GOOD, GOOD | {"sn": "SN2"} | bad)
    (item,) = caught.value.items
    assert (item.code, item.where.startswith("units.traveller.jsonl:3")) == (code, True)
    assert factory.claim(request(1), START).sn == ""
