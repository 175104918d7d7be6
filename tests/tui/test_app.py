"""The screen in a terminal against a real window: every key, scanners, reconnection, stale data, odd terminals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.events import Paste
from textual.pilot import Pilot

from ifpp.model.clock import SystemClock
from ifpp.settings import People, Person
from ifpp.station.window import Window
from ifpp.trust.people import Somebody, badge_hash, new_salt
from ifpp.tui.app import Canvas, StationScreen
from ifpp.tui.marks import UNICODE
from ifpp.tui.words import Words
from tests.tui import pictures

SALT = new_salt()
PEOPLE = People(
    SALT,
    {
        "bob": Person(role="technician", badge=badge_hash("B-2222", SALT)),
        "anna": Person(role="operator", badge=badge_hash("A-1111", SALT)),
    },
)
PATIENCE_S = 60.0
COMMANDS: dict[tuple[str, str | None], tuple[str, dict[str, Any]]] = {
    ("f2", "5"): ("lock", {"reason": "end of shift"}),
    ("f3", "bent pin"): ("block_head", {"head_id": "h09", "action": "BLOCK", "reason": "bent pin"}),
    ("f4", "yes"): ("change_socket", {"head_id": "h09"}),
    ("f6", None): ("alarm", {"alarm_id": "a1", "action": "ACK"}),
    ("f7", "1"): ("alarm", {"alarm_id": "a1", "action": "SHELVE", "minutes": 60, "reason": "contact"}),
}


class Done(msgspec.Struct):
    status: str
    text: str


class Station:
    """A window, and what was asked through it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.obeyed: list[tuple[str, dict[str, Any]]] = []
        self.passed: list[tuple[str, str]] = []
        self.over = asyncio.Event()
        self.handed: list[tuple[str, str, str]] = []
        self.window = Window(
            path, PEOPLE, SystemClock(), idle_s=900.0, obey=self._obey, passing=self._pass, handed=self._hand
        )

    async def _obey(self, name: str, document: bytes) -> Done:
        self.obeyed.append((name, json.loads(document)))
        return Done("ACCEPTED", "done")

    async def _pass(self, action: str, who: Somebody) -> None:
        self.passed.append((action, who.name))

    async def _hand(self, goes: Somebody, comes: Somebody | None, comment: str) -> str:
        self.handed.append((goes.name, comes.name if comes else "", comment))
        return "handed over"

    def show(self, documents: dict[str, bytes]) -> None:
        for at, document in documents.items():
            self.window.show(at, document)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Station]:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.window.run(over))
            await until(lambda: self.window.open)
            try:
                yield self
            finally:
                over.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - a screen tells nobody
            await asyncio.sleep(0.01)


def screen_of(path: Path, **more: Any) -> StationScreen:
    return StationScreen(path, Words(), UNICODE, SystemClock(), **more)


@asynccontextmanager
async def shown(
    station: Station, documents: dict[str, bytes], size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[StationScreen, Pilot[None]]]:
    async with station.open():
        station.show(documents)
        screen = screen_of(station.path)
        async with screen.run_test(size=size) as pilot:
            await until(lambda: screen.heard.station is not None)
            screen.repaint()
            yield screen, pilot


def lines(screen: StationScreen) -> list[str]:
    canvas = screen.query_one(Canvas)
    return [canvas.render_line(y).text for y in range(screen.size.height)]


async def type_in(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*text, "enter")


async def log_in(screen: StationScreen, pilot: Pilot[None]) -> None:
    await type_in(pilot, "B-2222")
    await until(lambda: screen.heard.operator == "bob")


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path / "st01.sock")


async def test_a_screen_shows_its_station(station: Station) -> None:
    async with shown(station, pictures.normal()) as (screen, _):
        said = lines(screen)
        assert "JO-1042" in said[0]
        assert "LIVE" in said[0]
        assert any("h01 ○ FREE" in line for line in said)


@pytest.mark.parametrize("key", COMMANDS)
async def test_every_key_that_acts(station: Station, key: tuple[str, str | None]) -> None:
    async with shown(station, pictures.alarmed()) as (screen, pilot):
        await log_in(screen, pilot)
        await type_in(pilot, "9")
        await pilot.press(key[0])
        if key[1] is not None:
            await type_in(pilot, key[1])
        await until(lambda: bool(station.obeyed))
        name, document = station.obeyed[0]
        for known in ("schema", "request_id"):
            document.pop(known)
        assert (name, document) == (COMMANDS[key][0], {**COMMANDS[key][1], "operator_id": "bob"})
        await until(lambda: screen.desk.message.endswith("done"))


@pytest.mark.parametrize(
    ("key", "answer", "asked"),
    [
        ("f2", None, ("unlock", {})),
        ("f3", "cleaned", ("block_head", {"head_id": "h02", "action": "UNBLOCK", "reason": "cleaned"})),
    ],
    ids=["start", "release"],
)
async def test_keys_that_bring_back_to_work(
    station: Station, key: str, answer: str | None, asked: tuple[str, dict[str, str]]
) -> None:
    state = pictures.station({"h01": pictures.head(), "h02": pictures.head("QUARANTINED", reason="bent")}, locked=True)
    async with shown(station, pictures.told(station=state)) as (screen, pilot):
        await log_in(screen, pilot)
        await type_in(pilot, "2")
        await pilot.press(key)
        if answer is not None:
            await type_in(pilot, answer)
        await until(lambda: bool(station.obeyed))
        name, document = station.obeyed[0]
        assert (name, {**document, **asked[1]}) == (asked[0], document)
        assert document["operator_id"] == "bob"
        await until(lambda: screen.desk.message.endswith("done"))


async def test_keys_that_only_show(station: Station) -> None:
    async with shown(station, pictures.alarmed()) as (screen, pilot):
        await pilot.press("f1")
        assert any("Esc: leave what was begun" in line for line in lines(screen))
        await pilot.press("f8")
        assert any("A-110" in line for line in lines(screen)[5:])
        await pilot.press("down")
        assert screen.desk.alarm == 1
        await pilot.press("escape", "right")
        assert screen.desk.head == "h01"
        await pilot.press("down")
        assert screen.desk.head == "h05"
        await pilot.press("f5")
        assert "seat it again" in screen.desk.message
        await pilot.press("a", "b", "backspace")
        assert screen.desk.typed == "a"


async def test_hand_over_from_one_badge_to_the_next(station: Station) -> None:
    async with shown(station, pictures.normal()) as (screen, pilot):
        await pilot.press("f9")
        assert any("Hand-over of st01" in line for line in lines(screen))
        await pilot.press("f9")
        await log_in(screen, pilot)
        await pilot.press("f9")
        await type_in(pilot, "A-1111")
        assert not any("A-1111" in line for line in lines(screen))
        await type_in(pilot, "h02 is dirty")
        await until(lambda: screen.heard.operator == "anna")
        assert station.handed == [("bob", "anna", "h02 is dirty")]
        assert station.passed == [("LOGIN", "bob"), ("LOGOUT", "bob"), ("LOGIN", "anna")]

        await pilot.press("f9", "f9")
        await type_in(pilot, "A-1111")
        await type_in(pilot, "1")
        await until(
            lambda: "somebody else has to come" in screen.desk.message or "OPERATOR.BADGE" in screen.desk.message
        )
        await pilot.press("f9", "f9")
        await type_in(pilot, "0")
        await until(lambda: screen.heard.operator == "")
        assert len(station.handed) == 1


async def test_a_scanner_that_types_without_a_pause_loses_nothing(station: Station) -> None:
    code = "".join(chr(33 + number % 94) for number in range(250))
    async with shown(station, pictures.normal()) as (screen, pilot):
        await pilot.press(*code)
        assert screen.desk.typed == code
        await pilot.press("escape")
        screen.post_message(Paste(f"SN00002\n{code}"))
        await until(lambda: screen.desk.typed == code)
        assert screen.desk.head == "h02"


async def test_a_wrong_badge_does_nothing(station: Station) -> None:
    async with shown(station, pictures.normal()) as (screen, pilot):
        await type_in(pilot, "B-9999")
        await until(lambda: "OPERATOR.BADGE" in screen.desk.message)
        assert "9999" not in "\n".join(lines(screen))
        await pilot.press("f6")
        assert not station.obeyed


async def test_it_comes_back_with_the_station_and_says_so_meanwhile(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifpp.tui.heard.STALE_S", 0.3)
    screen = screen_of(station.path)
    async with screen.run_test(size=(80, 24)) as pilot:
        screen.repaint()
        assert "No connection to the station yet" in lines(screen)[2]
        async with station.open():
            station.show(pictures.normal())
            await until(lambda: screen.heard.station is not None)
            await log_in(screen, pilot)
        await until(lambda: not screen.heard.connected)
        assert screen.heard.operator == ""
        await until(lambda: "STALE" in lines(screen)[0])
        assert "No word from the station" in lines(screen)[2]
        again = Station(station.path)
        async with again.open():
            again.show(pictures.normal())
            await until(lambda: screen.heard.connected and "LIVE" in lines(screen)[0])


async def test_a_station_that_stands_still_is_stale_though_connected(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifpp.tui.heard.STALE_S", 0.3)
    async with shown(station, pictures.normal()) as (screen, pilot):
        await until(lambda: "STALE" in lines(screen)[0])
        assert screen.heard.connected
        await pilot.press("f1")
        assert any("Esc: leave" in line for line in lines(screen)), "the screen itself goes on"


async def test_many_updates_are_painted_few_times(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[None] = []
    paint = StationScreen.repaint

    def counted(self: StationScreen) -> None:
        painted.append(None)
        paint(self)

    monkeypatch.setattr(StationScreen, "repaint", counted)
    async with shown(station, pictures.crowded()) as (screen, _):
        before, updates = len(painted), 200
        changes = screen.heard.changes
        for _ in range(updates):
            station.show(pictures.crowded())
            await asyncio.sleep(0)
        await until(lambda: screen.heard.changes > changes)
        assert len(painted) - before < updates / 4


async def test_a_resize_storm_and_tiny_terminals(station: Station) -> None:
    async with shown(station, pictures.alarmed()) as (screen, pilot):
        for width, height in [(20, 5), (1, 1), (200, 60), (79, 9), (20, 5)] * 3:
            await pilot.resize_terminal(width, height)
        await until(lambda: screen.size == (20, 5))
        await until(lambda: lines(screen)[0].startswith("■ A-140") and lines(screen)[-1].startswith(" > Scan"))
        await type_in(pilot, "B-2222")
        await until(lambda: screen.heard.operator == "bob")


async def test_ctrl_q_leaves_and_ctrl_c_tells_who_started_it(station: Station) -> None:
    async with shown(station, pictures.normal()) as (screen, pilot):
        await pilot.press("ctrl+q")
        assert screen.return_code == 0
    async with shown(Station(station.path), pictures.normal()) as (screen, pilot):
        await pilot.press("ctrl+c")
        assert screen.return_code == 130


async def test_what_the_station_says_is_no_markup(station: Station) -> None:
    state = pictures.station(
        {"h01": pictures.head("QUARANTINED", reason="[red]x[/] \x1b[31m [@click=quit]", blocked=True)}
    )
    async with shown(station, pictures.told(station=state)) as (screen, _):
        said = "\n".join(lines(screen))
        assert "[red]x[/]" in said
        assert "\x1b" not in said
