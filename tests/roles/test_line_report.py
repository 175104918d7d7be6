"""`ifpp report shift|job` as people type it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ifpp.__main__ import app
from ifpp.store.factory import Factory
from tests.line.test_kpi import JOBS, T0, events
from tests.line.test_line_report import tries

runner = CliRunner()


@pytest.fixture
def site(tmp_path: Path) -> str:
    factory = Factory.open(f"sqlite:///{tmp_path}/factory.db")
    with factory.intake("job", "A", "A", T0) as intake:
        intake.add_job("L1", JOBS["A"])
    factory.take_events(events(tries(), []), T0)
    factory.close()
    file = tmp_path / "site.toml"
    file.write_text(
        'enterprise = "e"\nsite = "s"\narea = "a"\nline = "L1"\n'
        f'[store]\ndatabase = "sqlite:///{tmp_path}/factory.db"\n'
    )
    return str(file)


def ask(site: str, *words: str) -> str:
    done = runner.invoke(app, ["report", *words, "--config", site])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("subject", [("shift", "2026-03-02/day"), ("job", "A")])
def test_every_form_tells_what_ifpp_kpi_tells(site: str, tmp_path: Path, subject: tuple[str, str]) -> None:
    option = ["--shift", subject[1]] if subject[0] == "shift" else ["--job", subject[1]]
    kpi = json.loads(runner.invoke(app, ["kpi", *option, "--json", "--config", site]).stdout)
    told = json.loads(ask(site, *subject, "--json"))
    assert {key: told[key] for key in kpi} == kpi
    assert kpi["total"]["units_in"] == 480
    rows = list(csv.DictReader(ask(site, *subject, "--csv").splitlines()))
    good = [row["value"] for row in rows if (row["part"], row["figure"]) == ("total", "good")]
    assert good == [str(kpi["total"]["good"])]
    assert f"{kpi['total']['good']} good units" in ask(site, *subject, "--text")
    ask(site, *subject, "--out", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert f"{100 * kpi['total']['fpy']:.2f} %" in page


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["shift", "late"], "SHIFT.UNKNOWN"),
        (["job", "nothing"], "JOB.UNKNOWN"),
        (["shift", "--csv", "--json"], "COMMAND.INVALID"),
        (["job", "A", "--out", "/nowhere/page.html"], "COMMAND.INVALID"),
    ],
)
def test_what_cannot_be_is_said(site: str, words: list[str], code: str) -> None:
    done = runner.invoke(app, ["report", *words, "--config", site])
    assert done.exit_code != 0
    assert code in f"{done.output}{done.exception}"
