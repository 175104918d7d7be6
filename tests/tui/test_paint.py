"""The station screen as text: every size, every state; what is shown is true, and urgent things are seen first."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import msgspec
import pytest
from rich.cells import cell_len

from ifpp.model.messages import HeadState
from ifpp.tui.desk import Desk
from ifpp.tui.heard import Heard
from ifpp.tui.marks import ASCII, UNICODE, Level, Marks, Row
from ifpp.tui.paint import Moment, paint, text
from ifpp.tui.view import banner
from ifpp.tui.words import LANGUAGES, Words
from tests.tui import pictures

NOW = datetime(2026, 11, 22, 8, 16, tzinfo=UTC)
SIZES = [(1, 1), (5, 2), (20, 5), (29, 40), (30, 9), (60, 15), (80, 24), (100, 30), (250, 70)]


def desk_of(documents: dict[str, bytes], marks: Marks = UNICODE, language: str = "en") -> Desk:
    heard = Heard(connected=True)
    for at, document in documents.items():
        heard.take(at, document, 0.0)
    assert not heard.strange
    return Desk(heard, Words(language), marks, lambda *_a, **_k: True)


def painted(desk: Desk, width: int = 80, height: int = 24, now_s: float = 1.0, columns: int = 0) -> list[Row]:
    return paint(desk, Moment(now_s, NOW, "09:16"), width, height, columns)


def shown(desk: Desk, width: int = 80, height: int = 24, now_s: float = 1.0) -> str:
    return "\n".join(text(painted(desk, width, height, now_s)))


PICTURES = {"nothing": {}, "normal": pictures.normal(), "alarm": pictures.alarmed(), "crowded": pictures.crowded()}


@pytest.mark.parametrize(("name", "language"), list(product(PICTURES, LANGUAGES)))
def test_no_size_breaks_the_screen_and_nothing_stands_outside(name: str, language: str) -> None:
    for (width, height), page in product(SIZES, ("", "help", "alarms", "hand")):
        desk = desk_of(PICTURES[name], language=language)
        desk.overlay = page
        rows = text(painted(desk, width, height))
        assert len(rows) == height
        assert max(map(cell_len, rows)) <= width


@pytest.mark.parametrize("name", PICTURES)
def test_ascii_is_ascii(name: str) -> None:
    for now_s in (1.0, 60.0):
        assert shown(desk_of(PICTURES[name], ASCII), now_s=now_s).isascii()


def test_a_head_shows_number_state_progress_and_its_last_verdict() -> None:
    said = shown(desk_of(pictures.normal()))
    assert "h01 ○ FREE" in said
    assert "✓ PASS" in said
    assert "h05 ▶ LOAD 0%" in said
    assert "h02 ▶ LOAD 31%" in said


def test_all_64_heads_have_a_place_on_80_by_24() -> None:
    said = shown(desk_of(pictures.crowded()))
    assert all(f"{number:02}" in said for number in range(1, 65))


def test_more_heads_than_room_are_counted_and_those_that_want_somebody_are_named() -> None:
    states = pictures.heads(64) | {"h33": pictures.head("RETIRED")}
    said = shown(desk_of(pictures.told(station=pictures.station(states))), 40, 12)
    assert "64: " in said
    assert "h33 ✖ LOST" in said


def test_heads_stand_as_on_the_fixture() -> None:
    desk = desk_of(pictures.normal())
    rows = text(painted(desk, columns=2))
    assert [row.count(" h0") for row in rows if " h0" in row] == [2, 2, 2, 2]


def test_the_chosen_head_is_seen() -> None:
    desk = desk_of(pictures.normal())
    desk.head = "h03"
    assert "[h03]" in shown(desk)


def test_figures_of_the_job() -> None:
    first, second = text(painted(desk_of(pictures.normal())))[:2]
    assert "JO-1042" in first
    assert "LIVE" in first
    assert "done 1290/5000" in second
    assert "FPY 98.3 %" in second
    assert "stock 11.9 h" in second
    assert "pace +31" in second


def test_what_nobody_said_is_not_made_up() -> None:
    second = text(painted(desk_of(pictures.told(station=pictures.station()))))[1]
    assert "done -/-" in second
    assert "FPY -" in second


@pytest.mark.parametrize("age_s", [5.1, 90.0, 4000.0])
def test_old_data_are_marked_and_nothing_in_them_looks_live(age_s: float) -> None:
    rows = painted(desk_of(pictures.alarmed()), now_s=age_s)
    said = text(rows)
    assert "STALE" in said[0]
    assert "LIVE" not in said[0]
    assert "No word from the station" in said[2]
    levels = {span.level for row in rows[4:20] for span in row if span.text.strip()}
    assert levels <= {Level.DIM, Level.NORMAL}


def test_a_station_that_says_something_unreadable_grows_old() -> None:
    heard = Heard()
    heard.take("st01/state/station", msgspec.json.encode(pictures.station()), 0.0)
    heard.take("st01/state/station", b'{"heads": 5}', 10.0)
    assert heard.strange == {"st01/state/station"}
    assert heard.stale(10.0)


# ---- the banner: the one thing that is most urgent ----------------------------------------------------

URGENT: list[tuple[str, dict[str, HeadState], dict[str, object]]] = [
    ("Verdict not stored yet", {"h01": pictures.head("NOT_STORED")}, {}),
    ("Reader lost", {"h01": pictures.head("RETIRED")}, {}),
    ("It is not known", {"h01": pictures.head("VERDICT", "ERROR", lamp="HOLD")}, {}),
    ("Contact lost", {"h01": pictures.head("VERDICT", "ERROR", lamp="RESEAT")}, {}),
    ("In quarantine: bent pin", {"h01": pictures.head("QUARANTINED", reason="bent pin", blocked=True)}, {}),
    ("Unit failed (EUICC.NO_MEMORY)", {"h01": pictures.head("VERDICT", "FAIL", fault="EUICC.NO_MEMORY")}, {}),
    ("2 units on hold", {}, {"held": {pictures.eid(1): "x", pictures.eid(2): "y"}, "held_units": 2}),
    ("OUTBOX.LATE", {}, {"attention": {"OUTBOX.LATE": "Call IT."}}),
    ("Intake stopped by Anna", {}, {"locked": True, "lock_reason": "Anna: lunch", "refusing": "STATION.LOCKED"}),
    ("State POLISHING", {"h01": pictures.head("POLISHING")}, {}),
    ("Socket at the end", {"h01": pictures.head("EMPTY", maintenance_due=True)}, {}),
]


@pytest.mark.parametrize("at", range(len(URGENT)))
def test_the_banner_shows_the_most_urgent_thing_and_what_to_do(at: int) -> None:
    """Each of them before all that follow."""
    states, more = pictures.heads(), dict[str, object]()
    for number, (_, heads, rest) in enumerate(URGENT[at:]):
        states |= {f"h{number + 10}": state for state in heads.values()}
        more |= rest
    heard = desk_of(pictures.told(station=pictures.station(states, **more))).heard
    said = banner(heard, 1.0, Words())
    assert said.what.startswith(URGENT[at][0])
    assert said.todo or "POLISHING" in said.what


def test_a_station_that_takes_no_units_says_so_before_anything_else() -> None:
    state = pictures.station(
        {"h01": pictures.head("RETIRED")}, refusing="JOURNAL.WRITE", attention={"JOURNAL.WRITE": "Make room."}
    )
    said = banner(desk_of(pictures.told(station=state)).heard, 1.0, Words())
    assert (said.level, said.what, said.todo) == (Level.HIGH, "No new units (JOURNAL.WRITE)", "Make room.")


def test_without_trouble_the_banner_says_what_the_work_is() -> None:
    free = banner(desk_of(pictures.normal()).heard, 1.0, Words())
    busy = pictures.station({"h01": pictures.head("LOADING")})
    none = pictures.station(job_order_id="")
    assert (free.level, free.todo) == (Level.NORMAL, "Seat units in free heads.")
    assert banner(desk_of(pictures.told(station=busy)).heard, 1.0, Words()).todo == "Nothing: all heads work."
    assert banner(desk_of(pictures.told(station=none)).heard, 1.0, Words()).what == "No job order"


def test_normal_work_has_no_colour() -> None:
    levels = {span.level for row in painted(desk_of(pictures.normal())) for span in row}
    assert levels <= {Level.NORMAL, Level.DIM, Level.GOOD}
