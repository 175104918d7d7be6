"""`ifpp kpi`, `ifpp quality` and `ifpp gate` as a person types them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, IfppError, SettingsError, SupplyError
from ifpp.roles import gate, kpi, quality
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from tests.line.world import JOB, eid_of, unit_result

NOW = datetime.now(UTC)
GATE = "[gate]\nfirst_articles = 2\n"
Capsys = pytest.CaptureFixture[str]


def line(folder: Path, more: str = "", failed: int = 1, good: int = 3) -> Path:
    """A site whose line made some units in the last minutes, one shift a day."""
    file = folder / "site.toml"
    calendar = '[calendar]\n[[calendar.shifts]]\nname = "all"\nstart = "00:00"\nend = "00:00"\n'
    file.write_text('enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n' + calendar + more)
    with closing(Factory.open(f"sqlite:///{folder / 'factory.db'}")) as factory:
        with factory.intake("job", "one", "one", NOW) as intake:
            intake.add_job("L1", JOB)
        told = []
        for number in range(1, failed + good + 1):
            result = "FAIL" if number <= failed else "PASS"
            body = unit_result("st01", number, str(eid_of(number)), result=result)
            told.append(ReceivedEvent.parse("st01", body))
        factory.take_events(told, NOW)
    return file


def test_figures_of_a_shift_and_of_a_job_order(tmp_path: Path, capsys: Capsys) -> None:
    site = line(tmp_path)
    kpi.show_kpi(site, shift="current", job="", as_json=True)
    shift = json.loads(capsys.readouterr().out)
    kpi.show_kpi(site, shift="", job="JO-1", as_json=True)
    job = json.loads(capsys.readouterr().out)
    for found in (shift, job):
        total = found["total"]
        assert (total["units_in"], total["first_pass"], total["good"], total["fpy"]) == (4, 3, 3, 0.75)
        assert found["heads"]["st01/h01"]["good"] == 3
    kpi.show_kpi(site, shift="all", job="", as_json=False)
    assert "FPY             75.00 % (3 of 4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shift", "job", "error", "code"),
    [("night", "", SettingsError, "SHIFT.UNKNOWN"), ("", "JO-9", SupplyError, "JOB.UNKNOWN")],
)
def test_what_is_not_known_is_said(tmp_path: Path, shift: str, job: str, error: type[IfppError], code: str) -> None:
    site = line(tmp_path)
    with pytest.raises(error) as caught:
        kpi.show_kpi(site, shift=shift, job=job, as_json=False)
    assert caught.value.code == code


def test_nothing_is_held_back_where_no_gate_is_set(tmp_path: Path, capsys: Capsys) -> None:
    assert gate.show(line(tmp_path), "JO-1") == 0
    assert "job order JO-1: no gate set" in capsys.readouterr().out


def test_a_job_order_is_released_and_closed_again_by_a_changeover(tmp_path: Path, capsys: Capsys) -> None:
    site = line(tmp_path, GATE)
    assert gate.show(site, "JO-1") == 1
    gate.release(site, "JO-1", "Anna", "looked at both")
    assert gate.show(site, "JO-1") == 0
    assert "released by Anna" in capsys.readouterr().out
    gate.changeover(site, "JO-1", "tray B", "Anna", "new tray")
    assert gate.show(site, "JO-1") == 1
    out = capsys.readouterr().out
    assert "changeover tray B: not released" in out


def test_what_was_not_shown_is_not_released(tmp_path: Path, capsys: Capsys) -> None:
    site = line(tmp_path, GATE, good=1)
    with pytest.raises(CustodyError) as caught:
        gate.release(site, "JO-1", "Anna", "in a hurry")
    assert caught.value.code == "GATE.NOT_SHOWN"
    assert gate.show(site, "JO-1") == 1
    assert "missing: st01: 1 more units in a row" in capsys.readouterr().out


def test_limits_are_frozen_by_name_from_enough_loads(tmp_path: Path, capsys: Capsys) -> None:
    site = line(tmp_path, failed=0, good=0)
    quality.show_quality(site, hours=1, limit=0.0, as_json=False)
    assert "no package was installed" in capsys.readouterr().out
    with pytest.raises(SettingsError) as caught:
        quality.freeze(site, hours=1, by="Anna", reason="first lot")
    assert caught.value.code == "COMMAND.INVALID"
    units = [(number, str(eid_of(number % 90))) for number in range(1, 126)]
    told = [ReceivedEvent.parse("st01", unit_result("st01", number, eid)) for number, eid in units]
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as factory:
        factory.take_events(told, NOW)
    with closing(sqlite3.connect(tmp_path / "factory.db")) as connection, connection:
        connection.execute(
            "INSERT INTO load_time SELECT node_id, seq, 0, head_id, 'T', 'fw', 'T=0', 1000, 1000 + 37 * seq % 50, "
            "ended_at FROM unit_attempt"
        )
    quality.freeze(site, hours=1, by="Anna", reason="first lot")
    assert "limits 1, from 25 subgroups" in capsys.readouterr().out
    quality.show_quality(site, hours=1, limit=5.0, as_json=True)
    (chart,) = json.loads(capsys.readouterr().out)
    assert (chart["n"], chart["subgroups"], chart["limits_version"]) == (125, 25, 1)
