"""`ifpp plan`, `ifpp store coverage` and `ifpp store withdraw` as a person types them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import SettingsError, SupplyError
from ifpp.roles.plans import change, show_all, show_history
from ifpp.roles.plans import test as explain
from ifpp.roles.stock import show_coverage, withdraw
from ifpp.store.factory import Factory
from ifpp.store.selection import Product
from tests.clock import START
from tests.store.world import REGION, SKU, SMDP, eid, iccid, job, stock

OURS = Product(SKU, REGION)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A factory with three chips of two packages each, and a job order for five."""
    file = tmp_path / "site.toml"
    file.write_text('enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n')
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as factory:
        stock(factory, 3, packages_each=2)
        with factory.intake("job", "one.job.json", "one", START) as intake:
            intake.add_job("L1", job(quantity=5))
    return file


def set_plan(
    site: Path,
    *profiles: str,
    none: bool = False,
    start: str = "",
    until: str = "",
    by: str = "Eve",
    reason: str = "as sold",
    product: Product = OURS,
) -> None:
    change(site, product, profiles, none=none, from_at=start, until_at=until, by=by, reason=reason)


def test_a_plan_is_set_listed_shown_and_ended(site: Path, capsys: Capsys) -> None:
    show_all(site, as_json=False)
    assert "there are no plans" in capsys.readouterr().out
    set_plan(site, "operational-1", f"operational-0@{SMDP}", by=" Eve ")
    set_plan(site, "summer", start="2126-06-01T00:00:00Z", until="2126-09-01T00:00:00Z", by="Adam")
    capsys.readouterr()
    show_all(site, as_json=False)
    out = capsys.readouterr().out
    assert f"{SKU}/{REGION} version 1: from" in out
    assert f"  operational-1 then operational-0@{SMDP}\n" in out
    assert "by Eve: as sold" in out
    assert "version 2: from 2126-06-01T00:00:00.000Z until 2126-09-01T00:00:00.000Z" in out
    set_plan(site, none=True)
    capsys.readouterr()
    show_history(site, OURS, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["by"], len(row["profiles"])) for row in rows] == [
        (3, "Eve", 0),
        (2, "Adam", 1),
        (1, "Eve", 2),
    ]
    show_history(site, Product(SKU, "US"), as_json=False)
    assert "there never was a plan" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": ""},
        {"reason": " \t"},
        {"reason": "x" * 201},
        {"none": True},
        {"start": "tomorrow"},
        {"start": "2001-01-01T00:00:00Z"},
        {"until": "2001-01-01T00:00:00Z"},
        {"product": Product("", REGION)},
        {"product": Product(SKU, "E\x00U")},
        {"product": Product(SKU, REGION, "x" * 129)},
    ],
    ids=str,
)
def test_nothing_is_planned_without_all_of_it(site: Path, wrong: dict[str, object], capsys: Capsys) -> None:
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        set_plan(site, "operational-0", **wrong)  # type: ignore[arg-type]
    show_all(site, as_json=True)
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    "profiles",
    [[], ["a", "a"], ["a", "a@2.999.1"], ["a@2.999;DROP"], ["@2.999.1"], ["x" * 65], [str(n) for n in range(17)]],
    ids=str,
)
def test_profiles_are_named_once_and_rightly(site: Path, profiles: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
        set_plan(site, *profiles)


def test_a_test_explains_the_choice_and_every_refusal(site: Path, capsys: Capsys) -> None:
    set_plan(site, "operational-1")
    capsys.readouterr()
    assert explain(site, str(eid(1)), OURS, as_json=False) == 0
    out = capsys.readouterr().out
    assert f"load 1: operational-1, ICCID {iccid(11)}, from SM-DPf {SMDP}" in out
    assert f"not: operational-0, ICCID {iccid(10)}" in out
    assert f"profile type operational-0 is not in the plan {SKU}/{REGION} version 1" in out
    assert explain(site, str(eid(1)), Product(SKU, "US"), as_json=False) == 1
    assert f"is for {SKU} in {REGION}" in capsys.readouterr().out
    set_plan(site, "operational-1", "operational-7", reason="new", product=Product(SKU, REGION, "acme"))
    capsys.readouterr()
    assert explain(site, str(eid(1)), Product(SKU, REGION, "acme"), as_json=True) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["plan"]["customer"], facts["loaded"], facts["missing"]) == ("acme", [], ["operational-7"])
    assert [row["why"] for row in facts["refused"] if row["profile_type"] == "operational-1"] == [
        "the chip lacks operational-7: all or nothing"
    ]
    with pytest.raises(SupplyError, match=r"EID\.UNKNOWN"):
        explain(site, "' OR 1=1 --", OURS, as_json=False)


def test_a_test_names_the_job_a_chip_is_kept_for(site: Path, capsys: Capsys) -> None:
    with closing(Factory.open(f"sqlite:///{site.parent / 'factory.db'}")) as factory:
        factory.reserve("JO-1", [str(eid(1))], "Eve", "promised", START)
    assert explain(site, str(eid(1)), OURS, as_json=False) == 0
    assert "kept for job order JO-1: for any other one, nothing" in capsys.readouterr().out
    explain(site, str(eid(2)), OURS, as_json=True)
    assert json.loads(capsys.readouterr().out)["kept_for"] == ""


def test_coverage_of_a_job_and_of_a_withdrawn_delivery(site: Path, capsys: Capsys) -> None:
    show_coverage(site, job="JO-1", lot="", as_json=False)
    out = capsys.readouterr().out
    assert f"job order JO-1: {SKU} in {REGION}" in out
    assert "covered    3 of 5 still needed, 0 spare" in out
    assert "2 units lack a chip" in out
    withdraw(site, "2", "Eve", "wrong region")
    assert "6 packages are given out no more; 0 that heads had" in capsys.readouterr().out
    withdraw(site, "2", "Adam", "again")
    assert "by Eve: wrong region" in capsys.readouterr().out
    show_coverage(site, job="", lot="", as_json=True)
    report = json.loads(capsys.readouterr().out)
    (one,) = report["products"]
    assert (report["chips"], one["covered"], one["uncovered"], one["spoiled"]) == (3, 0, 3, 6)
    assert one["uncovered_eids"] == [str(eid(number)) for number in (1, 2, 3)]
    show_coverage(site, job="", lot="", as_json=False)
    assert str(eid(2)) in capsys.readouterr().out


def test_a_withdrawal_needs_name_reason_and_delivery(site: Path) -> None:
    for by, reason in (("", "why"), ("Eve", "")):
        with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
            withdraw(site, "2", by, reason)
    with pytest.raises(SupplyError, match=r"BATCH\.UNKNOWN"):
        withdraw(site, "9", "Eve", "why")
