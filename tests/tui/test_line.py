"""The line screen: every key, what it hears, what is old, odd documents; and the walls."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from ifpp.errors import ServiceError
from ifpp.model.clock import SystemClock
from ifpp.tui import line_view
from ifpp.tui.heard import Heard
from ifpp.tui.line_app import LineScreen, StationWall
from ifpp.tui.line_desk import LineDesk
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.line_paint import paint
from ifpp.tui.marks import ASCII, UNICODE, Level
from ifpp.tui.paint import Moment, text
from ifpp.tui.plain import PlainLine
from ifpp.tui.wall_paint import paint_line, paint_station
from ifpp.tui.words import LANGUAGES, Words
from tests.tui import pictures
from tests.tui.line_pictures import CUSTODY, line_documents, nothing
from tests.tui.screens import Still

NOW = Moment(1.0, Still().now(), "08:16")


def heard(*, trouble: bool = True, stations: int = 3) -> LineHeard:
    found = LineHeard(name="L1")
    found.link(True, 0.0)
    for at, document in line_documents(trouble=trouble, stations=stations).items():
        found.take(at, document, 1.0)
    return found


def desk(found: LineHeard, looked: list[str] | None = None) -> LineDesk:
    return LineDesk(found, Words(), UNICODE, (looked if looked is not None else []).append)


def shown(one: LineDesk, size: tuple[int, int] = (80, 24)) -> str:
    return "\n".join(text(paint(one, NOW, *size)))


def count(found: LineHeard, at_s: float, passed: int) -> None:
    found.counted.append((at_s, passed))


# ---- what was heard -----------------------------------------------------------------------------------


def test_what_cannot_be_understood_changes_nothing_and_what_is_taken_back_is_gone() -> None:
    found = heard(trouble=False)
    before = found.stations["st01"]
    found.take("st01/state/station", b"{broken", 2.0)
    assert found.stations["st01"] is before
    assert found.strange == {"st01/state/station"}
    found.take("st01/state/station", b"", 2.0)
    found.take("st01/state/online", b"", 2.0)
    assert found.names == ["st02", "st03"]


def test_throughput_is_counted_by_the_minute_and_a_new_supervisor_takes_nothing_away() -> None:
    found = LineHeard()
    for at_s, passed in ((0.0, 100), (30.0, 104), (90.0, 110), (100.0, 2), (119.0, 5)):
        count(found, at_s, passed)
    assert found.per_minute(119.0)[-2:] == [4, 9]
    assert found.per_minute(119.0)[0] is None


# ---- what is said -------------------------------------------------------------------------------------


def test_the_banner_says_the_most_urgent_thing() -> None:
    found, words = heard(), Words()
    assert line_view.banner(found, 1.0, words).what.startswith("A-140")
    found.alarms = None
    assert line_view.banner(found, 1.0, words).where == "st03"
    found.online["st03"] = True
    assert "JO-1042" in line_view.banner(found, 1.0, words).what
    found.stock = None
    assert line_view.banner(found, 1.0, words).level is Level.NORMAL
    found.online["_line"] = False
    assert line_view.banner(found, 1.0, words).level is Level.HIGH
    found.link(False, 1.0)
    assert "42 s" in line_view.banner(found, 43.0, words).what


def test_old_figures_are_marked_as_old() -> None:
    one = desk(heard())
    assert "LIVE" in shown(one)
    one.heard.link(False, 0.0)
    assert "STALE" in shown(one)
    levels = {span.level for row in paint(one, NOW, 80, 24)[4:8] for span in row}
    assert levels == {Level.DIM, Level.NORMAL} or levels == {Level.DIM}


def test_alarms_nobody_told_are_not_said_to_be_none() -> None:
    one = desk(heard(trouble=False))
    assert "alarms 0" in shown(one)
    one.heard.alarms = None
    assert "alarms -" in shown(one)


def test_a_station_that_is_away_shows_its_last_word_as_such() -> None:
    one = desk(heard())
    one.station, one.place = "st03", "station"
    assert "is away: this is its last word" in shown(one)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("marks", [UNICODE, ASCII])
@pytest.mark.parametrize("size", [(80, 24), (20, 5), (40, 10), (1, 1), (200, 60)])
def test_every_place_fits_every_terminal_in_every_language(language: str, marks: object, size: tuple[int, int]) -> None:
    from rich.cells import cell_len

    one = LineDesk(heard(stations=40), Words(language), marks, lambda _: None)  # type: ignore[arg-type]
    one.station, one.head, one.custody = "st01", "h03", CUSTODY
    for page in ("", "help", "alarms", "hand"):
        for place in ("line", "station", "head", "unit"):
            one.page, one.place = page, place
            rows = text(paint(one, NOW, *size))
            assert len(rows) == size[1]
            assert all(cell_len(row) <= size[0] for row in rows)


TOLD = "carol to anna: h07 waits for a socket"


def test_plain_lines_say_what_changes_and_nothing_twice() -> None:
    said: list[str] = []
    one = PlainLine("L1", lambda _: asyncio.sleep(0), Words(), SystemClock(), lambda line: said.append(line[9:]))
    one.look()
    assert [line.split(" - ")[0] for line in said] == ["now: No connection to the broker yet"]
    one._heard = found = heard()
    one.look()
    assert "station st01: LOST, job JO-1042, heads out of work 2" in said
    assert "station st03: AWAY, job -, heads out of work 0" in said
    assert "alarm A-140 st01/h03, NEW: the same EID or ICCID in two units" in said
    assert any(line.startswith("done 1290 of 5000, first pass yield 98.3 %") for line in said)
    told = len(said)
    one.look()
    assert len(said) == told
    assert found.alarms is not None
    del found.alarms.alarms["a2"]
    one.look()
    one.look()
    assert said[told:] == ["an alarm has gone, 2 stand"]
    found.link(False, SystemClock().monotonic())
    one.look()
    assert said[-2:] == ["connection lost", "now: STALE - L1 - Check broker and network; do not trust this screen."]


def test_the_hand_over_says_what_the_next_shift_must_know() -> None:
    said = "\n".join(line_view.hand_over(heard(), Words()))
    for one in ("1290 of 5000", "st03", "st01/h02, st01/h07", "on hold: 1", "JO-1042", "A-140", "shelved A-151", TOLD):
        assert one in said


# ---- what a person does -------------------------------------------------------------------------------


def test_enter_goes_down_to_the_custody_of_a_unit_and_escape_up_again() -> None:
    looked: list[str] = []
    one = desk(heard(), looked)
    one.enter()
    assert (one.place, one.station) == ("station", "st01")
    for _ in range(3):
        one.move(1)
    one.enter()
    assert (one.place, one.head) == ("head", "h03")
    one.enter()
    assert looked == [pictures.eid(3)]
    assert "Looking into the books" in shown(one)
    one.found("another", ["wrong"])
    one.found(pictures.eid(3), CUSTODY)
    assert "CLAIMED -> SENT" in shown(one, (120, 30))
    for place in ("head", "station", "line", "line"):
        one.back()
        assert one.place == place


def test_a_head_without_a_unit_has_no_custody() -> None:
    one = desk(heard())
    one.station, one.head, one.place = "st01", "h01", "head"
    one.enter()
    assert one.place == "head"
    assert "no unit is seated" in one.message


def test_a_scan_looks_a_unit_up_and_a_station_s_name_opens_it() -> None:
    looked: list[str] = []
    one = desk(heard(), looked)
    one.type("SN0\x1b0007")
    one.erase()
    one.type("7")
    one.enter()
    assert looked == ["SN00007"]
    one.found("SN00007", None)
    assert "No unit SN00007" in shown(one)
    one.type("st02")
    one.enter()
    assert (one.place, one.station) == ("station", "st02")
    one.type("9" * 65)
    one.enter()
    assert len(looked) == 1


def test_books_that_cannot_be_read_are_said_to_be() -> None:
    one = desk(heard())
    one.type("SN1")
    one.enter()
    one.failed("SN1", "database away")
    assert "database away" in shown(one)


def test_long_text_is_turned_over_and_ends() -> None:
    one = desk(heard())
    one.place, one.custody = "unit", [f"line {number}" for number in range(60)]
    assert "44 more below" in shown(one)
    for _ in range(9):
        one.press("pagedown")
        shown(one)
    assert "line 59" in shown(one)
    one.press("pageup")
    assert "line 59" not in shown(one)


# ---- the screens themselves ---------------------------------------------------------------------------


async def test_every_key_acts_on_the_screen() -> None:
    asked, answered = threading.Event(), threading.Event()

    def custody(_: str) -> list[str]:
        asked.set()
        answered.wait(60)
        return CUSTODY

    screen = LineScreen("L1", nothing, custody, Words(), UNICODE, SystemClock(), colour=True)
    screen.heard.link(True, 0.0)
    for at, document in line_documents(trouble=True).items():
        screen.heard.take(at, document, 1.0)
    async with screen.run_test(size=(80, 24)) as pilot:
        for key, page in (("f1", "help"), ("f8", "alarms"), ("f9", "hand"), ("escape", "")):
            await pilot.press(key)
            assert screen.desk.page == page
        await pilot.press("down", "down", "up", "right")
        assert (screen.desk.place, screen.desk.station) == ("station", "st01")
        await pilot.press("left", *"SN00003", "backspace", "3", "enter")
        assert await asyncio.to_thread(asked.wait, 60)
        assert screen.desk.custody != CUSTODY  # the screen goes on while the books are read
        await pilot.press("f1")
        await pilot.press("f1")
        answered.set()
        await asyncio.gather(*screen._looking)
        assert screen.desk.custody == CUSTODY
        await pilot.press("ctrl+q")
    assert screen.return_code == 0


async def test_books_that_are_away_do_not_end_the_screen() -> None:
    def custody(_: str) -> list[str]:
        raise ServiceError("STORE.UNREACHABLE", "gone", where="here")

    screen = LineScreen("L1", nothing, custody, Words(), UNICODE, SystemClock())
    async with screen.run_test() as pilot:
        await pilot.press(*"SN1", "enter")
        await asyncio.gather(*screen._looking)
        assert "gone" in (screen.desk.custody or [""])[0]


async def test_keys_do_nothing_on_a_wall_but_leave() -> None:
    wall = StationWall(Path("/nowhere"), Words(), UNICODE, SystemClock())
    async with wall.run_test(size=(55, 15)) as pilot:
        await pilot.press("f2", "x", "enter", "down")
        assert (wall.desk.typed, wall.desk.question, wall.desk.head) == ("", None, "")
        await pilot.press("ctrl+q")
    assert wall.return_code == 0


@pytest.mark.parametrize("size", [(55, 15), (20, 5), (1, 1), (120, 40)])
@pytest.mark.parametrize("count", [1, 4, 8, 16, 64])
def test_a_wall_shows_whole_words_and_never_too_much(size: tuple[int, int], count: int) -> None:
    found = Heard()
    for at, document in pictures.told(station=pictures.station(pictures.heads(count)), orders=pictures.ORDERS).items():
        found.take(at, document, 1.0)
    rows = text(paint_station(found, Words(), UNICODE, NOW, size))
    assert len(rows) == size[1]
    assert all(len(row) <= size[0] for row in rows)
    if size == (55, 15) and count <= 16:
        assert "".join(rows).count("LOAD") == count - (1 if count < 4 else 2)


def test_a_wall_says_unknown_when_it_does_not_know() -> None:
    found = Heard()
    for at, document in pictures.normal().items():
        found.take(at, document, -60.0)
    assert "LOAD" not in "".join(text(paint_station(found, Words(), UNICODE, NOW, (55, 15))))
    line = heard(trouble=False)
    line.link(False, 0.0)
    said = "".join(text(paint_line(line, Words(), UNICODE, NOW, (55, 15))))
    assert "WORKS" not in said
    assert "UNKNOWN" in said
