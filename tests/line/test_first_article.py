"""What a job order shows before a person releases it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ifpp.errors import CustodyError
from ifpp.line.first_article import CHANGEOVER, RELEASE, check_release, not_open, standing
from ifpp.model.messages import FirstArticles
from ifpp.settings import Gate
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from ifpp.store.releases import Article, Release
from tests.clock import START
from tests.line.world import JOB, eid_of, unit_result

GATE = Gate(first_articles=2, golden_units=("GOLD",))


def made(*units: str, at: int = 0, station: str = "st01") -> list[Article]:
    """Attempts in order; a unit with "!" failed."""
    return [
        Article(station, "h01", unit.rstrip("!"), "", "FAIL" if unit.endswith("!") else "PASS", f"{at + number:03d}")
        for number, unit in enumerate(units)
    ]


def decided(decision: str, at: str, setup: str = "") -> Release:
    return Release("J", setup, decision, "", "anna", "seen", at)


def test_units_in_a_row_and_golden_units_are_wanted_of_each_station() -> None:
    found = standing("J", GATE, made("a", "GOLD", "b") + made("c", station="st02"), [])
    assert found.missing == ("st02: 1 more units in a row", "st02: golden unit GOLD")
    assert not found.is_open
    with pytest.raises(CustodyError) as caught:
        check_release(found)
    assert caught.value.code == "GATE.NOT_SHOWN"


@pytest.mark.parametrize(
    ("units", "missing"),
    [
        (("a", "b", "GOLD"), ()),
        (("a", "a", "GOLD"), ("st01: 1 more units in a row",)),
        (("a", "b", "c!", "GOLD"), ("st01: 2 more units in a row",)),
        (("a", "b", "GOLD", "GOLD!"), ("st01: golden unit GOLD",)),
        (("a", "GOLD!", "b", "GOLD"), ()),
    ],
)
def test_what_counts(units: tuple[str, ...], missing: tuple[str, ...]) -> None:
    assert standing("J", GATE, made(*units), []).missing == missing


def test_a_changeover_closes_the_gate_until_the_next_release() -> None:
    articles = made("a", "b", "GOLD")
    decisions = [decided(RELEASE, "003")]
    assert standing("J", GATE, articles, decisions).released == "anna"
    decisions.append(decided(CHANGEOVER, "010", "tray B"))
    closed = standing("J", GATE, articles, decisions, ["st01"])
    assert (closed.is_open, closed.setup, len(closed.missing)) == (False, "tray B", 2)
    again = standing("J", GATE, articles + made("c", "d", "GOLD", at=11), decisions)
    assert again.missing == ()
    check_release(again)
    assert standing("J", GATE, articles, [*decisions, decided(RELEASE, "020")]).is_open


def test_without_a_unit_nothing_is_shown_and_without_a_gate_nothing_is_missing() -> None:
    assert standing("J", GATE, [], []).missing == ("no station has made a unit of it",)
    assert standing("J", Gate(), [], []).missing == ()


def test_stations_hear_how_much_they_may_still_make(tmp_path: Path) -> None:
    with closing(Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")) as factory:
        with factory.intake("job", "JO-1", "JO-1", START) as intake:
            intake.add_job("L1", JOB)
        assert not_open(factory.figures, Gate(), [JOB]) == {}
        gate = Gate(first_articles=2)
        assert not_open(factory.figures, gate, [JOB])["JO-1"] == FirstArticles(wanted=2)
        for number, result in ((1, "FAIL"), (2, "PASS")):
            told = unit_result("st01", number, str(eid_of(number)), result=result)
            factory.take_events([ReceivedEvent.parse("st01", told)], START)
        heard = not_open(factory.figures, gate, [JOB])["JO-1"]
        assert (heard.left, heard.made) == ({"st01": 1}, {"st01": 2})
        factory.figures.release_job(Release("JO-1", "", RELEASE, "", "anna", "seen"), START)
        assert not_open(factory.figures, gate, [JOB]) == {}
        factory.figures.release_job(Release("JO-1", "tray B", CHANGEOVER, "", "anna", "new tray"), START)
        assert "JO-1" in not_open(factory.figures, gate, [JOB])
        held = msgspec.structs.replace(JOB, dispatch_status="HELD")
        assert not_open(factory.figures, gate, [held]) == {}


def test_without_a_gate_a_job_order_is_open() -> None:
    assert standing("J", Gate(), [], []).is_open
    assert not standing("J", GATE, [], []).is_open
