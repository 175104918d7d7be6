"""Bytes go only when nobody can ask for them again; everything else about a package stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.errors import SupplyError
from ifpp.roles.keeping import purge
from ifpp.store.factory import Factory
from tests.store.raw import REFUSALS, raw
from tests.store.world import Node, eid, later, outcome, package_item, report_states, request, stock, take_one

LATE = 1000


def settle(factory: Factory, number: int, state: str) -> None:
    package = factory.claim(request(number, f"a{number}"), later(1)).packages[0]
    factory.mark_sent(package.package_id, f"a{number}", "st01", later(2))
    said = outcome(number, 0, state, spent=True, package_id=package.package_id)
    take_one(factory, Node(seq=number - 1).result(number, f"a{number}", [said]), later(3))
    report_states(factory, f"r{number}", [(package.package_id, state)], later(4))


def kept(factory: Factory, number: int) -> bool:
    item = package_item(number)
    try:
        return factory.package_bytes(item.bpp_sha256) == item.bpp
    except SupplyError as error:
        return "let go" not in error.detail


@pytest.fixture(autouse=True)
def line(factory: Factory) -> None:
    """Three packages: installed, failed, still on the shelf."""
    stock(factory, 3)
    settle(factory, 1, "INSTALLED")
    settle(factory, 2, "FAILED")
    factory.acknowledge_report("r1", "me", later(5))
    factory.acknowledge_report("r2", "me", later(5))


def test_what_is_settled_and_reported_goes(factory: Factory) -> None:
    size = sum(len(package_item(number).bpp) for number in (1, 2))
    assert list(factory.retention.purge(later(LATE), later(LATE), dry_run=True)) == [(2, size)]
    assert [kept(factory, number) for number in (1, 2, 3)] == [True, True, True]
    assert list(factory.retention.purge(later(LATE), later(LATE))) == [(2, size)]
    assert [kept(factory, number) for number in (1, 2, 3)] == [False, False, True]
    assert list(factory.retention.purge(later(LATE), later(LATE))) == []
    assert factory.audit() == []
    unit = factory.unit(eid(1))
    assert unit is not None
    assert unit.packages[0].state == "INSTALLED"
    with factory.audit_log() as log:
        assert log.entries("factory", 0, 1000)[-1].kind == "purged"


def test_what_is_too_young_stays(factory: Factory) -> None:
    assert list(factory.retention.purge(later(3), later(LATE))) == []


def test_what_no_smdpf_has_acknowledged_stays(factory: Factory) -> None:
    settle(factory, 3, "INSTALLED")
    assert [count for count, _ in factory.retention.purge(later(LATE), later(LATE))] == [2]
    assert kept(factory, 3)


@pytest.mark.parametrize("change", ["bpp = 'x'", "sha256 = 'x'"])
def test_bytes_go_whole_or_not_at_all(factory: Factory, url: str, change: str) -> None:
    with raw(url) as connection, pytest.raises(REFUSALS, match="neither changed"):
        connection.execute(f"UPDATE package_bytes SET {change}")
    assert kept(factory, 1)


def test_the_command_counts(factory: Factory, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site.toml"
    site.write_text(
        f'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n[store]\ndatabase = "{url}"\n', encoding="utf-8"
    )
    purge(site, days=1, dry_run=True)
    assert capsys.readouterr().out.startswith("2 packages, 0.0 MB, would go")
    purge(site, days=1, dry_run=False)
    assert not kept(factory, 2)
    with pytest.raises(SupplyError, match=r"UNIT\.ALREADY_LOADED"):
        factory.claim(request(1, "again"), later(LATE))
