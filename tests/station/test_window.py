"""The local socket of a station: what screens see, what they may do, and that none of them can harm it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.errors import SettingsError
from ifpp.model.clock import SystemClock
from ifpp.settings import People, Person
from ifpp.station import window as window_module
from ifpp.station.window import Window
from ifpp.trust.people import Somebody, badge_hash, new_salt

SALT = new_salt()
PEOPLE = People(
    SALT,
    {
        "anna": Person(role="operator", badge=badge_hash("A-1111", SALT)),
        "bob": Person(role="technician", badge=badge_hash("B-2222", SALT)),
    },
)
PATIENCE_S = 60.0


class Done(msgspec.Struct):
    status: str
    text: str


class Station:
    """What stands behind the window: remembers who came and what was asked."""

    def __init__(self, path: Path, people: People | None = PEOPLE, idle_s: float = 900.0) -> None:
        self.passed: list[tuple[str, str]] = []
        self.obeyed: list[tuple[str, dict[str, Any]]] = []
        self.window = Window(path, people, SystemClock(), idle_s=idle_s, obey=self._obey, passing=self._pass)

    async def _obey(self, name: str, document: bytes) -> Done:
        self.obeyed.append((name, json.loads(document)))
        return Done("ACCEPTED", "done")

    async def _pass(self, action: str, who: Somebody) -> None:
        self.passed.append((action, who.name))


class Screen:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            found: dict[str, Any] = json.loads(await self._reader.readline())
        return found

    async def ask(self, ask: str, **more: object) -> dict[str, Any]:
        self.writer.write(json.dumps({"ask": ask, **more}).encode() + b"\n")
        return await self.next()

    async def gone(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._reader.read(65536):
                    pass
            except ConnectionError:
                return True
        return True


@asynccontextmanager
async def served(station: Station) -> AsyncIterator[None]:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(station.window.run(over))
        async with asyncio.timeout(PATIENCE_S):
            while not station.window.open:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.005)
        try:
            yield
        finally:
            over.set()


@asynccontextmanager
async def screen(path: Path) -> AsyncIterator[Screen]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Screen(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "st01.sock"


async def test_a_screen_sees_what_is_and_then_what_changes(path: Path) -> None:
    station = Station(path)
    station.window.show("st01/state/station", b'{"n":1}')
    async with served(station), screen(path) as one:
        assert await one.next() == {"at": "st01/state/station", "document": {"n": 1}}
        station.window.show("st01/state/station", b'{"n":2}')
        assert (await one.next())["document"] == {"n": 2}
    assert not path.exists()  # noqa: ASYNC240 - a test may wait for a disk


async def test_a_slow_screen_gets_the_newest_and_holds_up_nobody(path: Path) -> None:
    station = Station(path)
    async with served(station), screen(path) as slow, screen(path) as quick:
        big = b"x" * 20_000
        for n in range(500):  # 10 MB: more than a socket takes
            station.window.show("st01/state/station", b'{"n":%d,"fill":"%b"}' % (n, big))
            if n % 50 == 0:
                await quick.next()
            await asyncio.sleep(0)
        seen: list[int] = []
        while not seen or seen[-1] != 499:
            seen.append((await slow.next())["document"]["n"])
        assert seen == sorted(set(seen))
        assert len(seen) < 500


async def test_acting_needs_a_badge_and_the_right_role(path: Path) -> None:
    station = Station(path)
    block = {"action": "BLOCK", "head_id": "h01", "request_id": "r", "schema": "s", "operator_id": "forged"}
    async with served(station), screen(path) as one:
        assert (await one.ask("block_head", document=block))["code"] == "OPERATOR.BADGE"
        assert (await one.ask("login", badge="wrong-badge"))["code"] == "OPERATOR.BADGE"
        assert (await one.ask("login", badge=""))["code"] == "OPERATOR.BADGE"
        assert (await one.ask("login", badge="A-1111\r"))["role"] == "operator"
        assert (await one.ask("block_head", document=block))["status"] == "ACCEPTED"
        assert (await one.ask("change_socket", document={"head_id": "h01"}))["code"] == "OPERATOR.NOT_ALLOWED"
        assert (await one.ask("set_clock", document={}))["code"] == "COMMAND.INVALID"
        assert (await one.ask("login", badge="B-2222"))["operator"] == "bob"
        assert (await one.ask("change_socket", document={"head_id": "h01"}))["status"] == "ACCEPTED"
        assert (await one.ask("logout"))["status"] == "ACCEPTED"
        assert (await one.ask("block_head", document=block))["code"] == "OPERATOR.BADGE"
    assert [(name, document["operator_id"]) for name, document in station.obeyed] == [
        ("block_head", "anna"),
        ("change_socket", "bob"),
    ]
    assert station.passed == [("LOGIN", "anna"), ("LOGOUT", "anna"), ("LOGIN", "bob"), ("LOGOUT", "bob")]


async def test_who_goes_away_is_logged_out(path: Path) -> None:
    station = Station(path)
    async with served(station):
        async with screen(path) as one:
            await one.ask("login", badge="A-1111")
        async with asyncio.timeout(PATIENCE_S):
            while len(station.passed) < 2:  # noqa: ASYNC110 - the connection's end is seen by its own task
                await asyncio.sleep(0.005)
    assert station.passed == [("LOGIN", "anna"), ("LOGOUT", "anna")]


async def test_who_does_nothing_is_logged_out_and_goes_on_looking(path: Path) -> None:
    station = Station(path, idle_s=0.05)
    async with served(station), screen(path) as one:
        await one.ask("login", badge="A-1111")
        assert (await one.next())["ask"] == "logout"
        station.window.show("st01/state/station", b"{}")
        assert (await one.next())["document"] == {}
        assert (await one.ask("lock", document={}))["code"] == "OPERATOR.BADGE"


async def test_without_people_screens_only_look(path: Path) -> None:
    async with served(Station(path, people=None)), screen(path) as one:
        assert (await one.ask("login", badge="A-1111"))["code"] == "OPERATOR.BADGE"


@pytest.mark.parametrize(
    "nonsense", [b"{}\n", b"\xff\x00\n", b"[1,2]\n", b'{"ask":7}\n', b'{"ask":"x","document":3}\n']
)
async def test_nonsense_is_answered_and_the_screen_stays(path: Path, nonsense: bytes) -> None:
    async with served(Station(path)), screen(path) as one:
        one.writer.write(nonsense)
        assert (await one.next())["code"] == "COMMAND.INVALID"
        assert (await one.ask("login", badge="A-1111"))["status"] == "ACCEPTED"


async def test_a_line_without_an_end_costs_its_screen_only(path: Path) -> None:
    station = Station(path)
    async with served(station), screen(path) as bad, screen(path) as good:
        bad.writer.write(b"x" * 200_000)
        assert await bad.gone()
        station.window.show("st01/state/station", b"{}")
        assert (await good.next())["document"] == {}


async def test_more_screens_than_a_station_has_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "_MOST_SCREENS", 1)
    station = Station(path)
    station.window.show("st01/state/station", b"{}")
    async with served(station), screen(path) as first:
        await first.next()
        async with screen(path) as second:
            assert await second.gone()


async def test_what_a_dead_process_left_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(Station(path)), screen(path):
        with pytest.raises(SettingsError, match=r"WINDOW\.PATH"):
            await Station(path).window.run(asyncio.Event())
        async with screen(path) as still:
            assert (await still.ask("logout"))["status"] == "ACCEPTED"


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"WINDOW\.PATH"):
        await Station(tmp_path / "no" / "st01.sock").window.run(asyncio.Event())
