"""`ifpp store reserve` and `unreserve` as a person types them; what a killed import left, and `ifpp store serve`."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import SettingsError, SupplyError
from ifpp.roles.stock import reserve, show_coverage, unreserve
from ifpp.store.factory import Factory
from tests.roles.test_keeping import Place
from tests.store.test_intake_large import importer, wait_for
from tests.store.world import add_job, chip_item, eid, import_chips, refusal, request, stock

Capsys = pytest.CaptureFixture[str]
BY = {"by": "Eve", "reason": "as agreed"}
_PATIENCE_S = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def keep(place: Place, job: str, *, units: int = 0, eids: Path | None = None, by: str = "Eve") -> None:
    reserve(place.site, job, units=units, eids=eids, lot="", by=by, reason="as agreed")


def test_chips_are_kept_and_freed(place: Place, capsys: Capsys) -> None:
    with closing(Factory.open(place.url)) as factory:
        stock(factory, 3)
        add_job(factory)
        keep(place, "JO-1", units=2)
        assert capsys.readouterr().out == "job order JO-1: 2 chips are kept for it, 2 of them from now on\n"
        listed = place.folder / "eids.txt"
        listed.write_text(f"{eid(2)}\n{eid(3)}\n")
        keep(place, "JO-1", eids=listed)
        assert capsys.readouterr().out == "job order JO-1: 3 chips are kept for it, 1 of them from now on\n"
        show_coverage(place.site, job="JO-1", lot="", as_json=False)
        assert "3 of them reserved" in capsys.readouterr().out
        assert refusal(factory, request(3)).code == "BPP.RESERVED"
        unreserve(place.site, "JO-1", **BY)
        assert capsys.readouterr().out == "job order JO-1: 3 chips are free again\n"
        assert factory.reservations() == {}


def test_what_makes_no_sense_is_said(place: Place) -> None:
    with closing(Factory.open(place.url)) as factory:
        stock(factory, 1)
        add_job(factory)
    listed = place.folder / "eids.txt"
    listed.write_text("12345\n")
    for wrong in ({}, {"units": 1, "eids": listed}, {"eids": listed}, {"units": 1, "by": " "}):
        with pytest.raises(SettingsError, match=r"COMMAND\.INVALID"):
            keep(place, "JO-1", **wrong)
    with pytest.raises(SettingsError, match=r"SETTINGS\.MISSING"):
        keep(place, "JO-1", eids=place.folder / "none.txt")
    with pytest.raises(SupplyError, match=r"JOB\.UNKNOWN"):
        keep(place, "JO-9", units=1)
    with pytest.raises(SupplyError, match=r"RESERVATION\.REFUSED"):
        keep(place, "JO-1", units=2)


def test_the_commands_are_there(place: Place) -> None:
    with closing(Factory.open(place.url)) as factory:
        stock(factory, 1)
        add_job(factory)
    named = ("--by", "Eve", "--reason", "as agreed")
    assert "1 chips are kept" in place.store("reserve", "JO-1", "--units", "1", *named)
    assert "1 chips are free" in place.store("unreserve", "JO-1", *named)


def test_a_store_that_starts_finishes_what_a_killed_import_left(place: Place) -> None:
    with closing(Factory.open(place.url)) as factory:
        import_chips(factory, (chip_item(number, keys=1) for number in range(1, 1001)))
        with importer(place.url, 1, 1000) as process:
            wait_for(process, "shelving", 200)
            process.kill()
            process.wait()
        assert factory.balance() == []
        with place.serving():
            end = time.monotonic() + _PATIENCE_S
            while not factory.balance() and time.monotonic() < end:
                time.sleep(0.05)
        (row,) = factory.balance()
        assert (row.available, row.holds) == (1000, True)
        assert factory.audit() == []
