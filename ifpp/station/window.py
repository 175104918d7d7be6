"""The station's window: screens on this machine look in and act through a local socket, and cannot harm the station.

One JSON document a line, both ways. Out: `{"at": "st01/state/station", "document": {...}}`, the documents of MQTT under
their topic's last three levels; of each only the newest, however slow the reader. In: `{"ask": ..., "document": ...}`;
the answer has the `ask` beside it. A badge opens a session on its connection; rights follow from the person's role, and
what was done is told as an `operator_action` event like everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from ifpp.errors import IfppError, SettingsError
from ifpp.log import get_logger
from ifpp.model.clock import Clock
from ifpp.settings import People
from ifpp.trust.people import Somebody, recognise

_LONGEST_LINE = 64 * 1024
_MOST_SCREENS = 16
_SLOWEST_S = 30.0
_UNREAD_ANSWERS = 100
_OPERATOR = frozenset({"operator", "technician", "quality"})
_SPECIALIST = frozenset({"technician", "quality"})
FOR_SCREENS = ("_line/kpi/shift", "_line/state/job_orders", "_line/state/stock", "_line/state/online")
"""What a station hears of its line for the sake of its screens alone."""
SILENT_S = 2.0
"""The station's state is said again after this time at the latest: a screen that hears nothing knows that it is old."""
RIGHTS: dict[tuple[str, str], frozenset[str]] = {
    ("block_head", "BLOCK"): _OPERATOR,
    ("block_head", "UNBLOCK"): _SPECIALIST,
    ("change_socket", ""): frozenset({"technician"}),
    ("lock", ""): _OPERATOR,
    ("unlock", ""): _OPERATOR,
    ("scan_unit", ""): _OPERATOR,
    ("hand_over", ""): _OPERATOR,
    ("alarm", "ACK"): _OPERATOR,
    ("alarm", "SHELVE"): _SPECIALIST,
    ("alarm", "UNSHELVE"): _SPECIALIST,
    ("alarm", "OUT_OF_SERVICE"): frozenset({"technician"}),
    ("alarm", "IN_SERVICE"): frozenset({"technician"}),
}
"""Who may do what: (command, action) -> roles. What is not here, nobody may."""

log = get_logger("station.window")
Obey = Callable[[str, bytes], Awaitable[msgspec.Struct]]
Passing = Callable[[str, Somebody], Awaitable[None]]
Scanned = Callable[[str, str], str]
Handed = Callable[[Somebody, Somebody | None, str], Awaitable[str]]


class Asked(msgspec.Struct, kw_only=True):
    """What a screen asks: `login` with a `badge`, `logout`, or a command of the line contract with its document.

    A `badge` that has the form of a serial number is the unit that is seated next in `head_id`: `scan_unit`. With
    `hand_over` goes the `badge` of who comes ("": nobody yet), and as `reason` in its document what that one must know.
    """

    ask: str
    badge: str = ""
    head_id: str = ""
    document: dict[str, Any] = {}


class Answered(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Answer to `ask`; `document` is the command's own answer where it got as far."""

    ask: str
    status: str
    text: str
    code: str = ""
    operator: str = ""
    role: str = ""
    unit: str = ""
    head_id: str = ""
    document: Any = None


class Window:
    """Serves screens until the block ends; all methods belong to the event loop.

    `obey` carries out a command and returns its answer document, `passing` notes LOGIN and LOGOUT of a person. Without
    `people` screens only look. `scanned` notes the unit that is seated next in a head, where scans have the form
    `serials` ("": none has); `handed` that one person hands over to another. `open`: whether screens can come.
    """

    def __init__(
        self,
        path: Path,
        people: People | None,
        clock: Clock,
        *,
        idle_s: float,
        obey: Obey,
        passing: Passing,
        scanned: Scanned | None = None,
        serials: str = "",
        handed: Handed | None = None,
    ) -> None:
        self._path = path
        self._people = people
        self._clock = clock
        self._idle_s = idle_s
        self._obey = obey
        self._passing = passing
        self._scanned = scanned
        self._handed = handed
        self._serials = re.compile(serials) if serials else None
        self._said: dict[str, bytes] = {}
        self._screens: set[_Screen] = set()
        self.open = False

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._screens)

    def show(self, at: str, document: bytes) -> None:
        """Put the newest document of one place into the window: JSON in UTF-8."""
        line = b'{"at":%b,"document":%b}\n' % (msgspec.json.encode(at), document)
        self._said[at] = line
        for screen in self._screens:
            screen.put(at, line)

    async def run(self, over: asyncio.Event) -> None:
        """Serve until `over`; raises SettingsError WINDOW.PATH when the socket cannot be made."""
        server = await self._listen()
        self.open = True
        try:
            await over.wait()
        finally:
            self.open = False
            server.close()
            for screen in list(self._screens):
                screen.end()
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        try:
            await self._clear()
            server = await asyncio.start_unix_server(self._meet, self._path, limit=_LONGEST_LINE)
            self._path.chmod(0o660)
        except (OSError, ValueError) as error:
            raise SettingsError("WINDOW.PATH", f"no socket can be made ({error})", where=str(self._path)) from error
        return server

    async def _clear(self) -> None:
        """Take away what a process that died left behind; never the socket of one that lives."""
        if not self._path.is_socket():
            return
        try:
            _, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            self._path.unlink(missing_ok=True)
            return
        writer.close()
        raise SettingsError("WINDOW.PATH", "another process serves it", where=str(self._path))

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        screen = _Screen(writer)
        if len(self._screens) >= _MOST_SCREENS:
            log.warning("window.full", screens=len(self._screens))
            writer.close()
            return
        self._screens.add(screen)
        for at, line in self._said.items():
            screen.put(at, line)
        showing = asyncio.create_task(screen.show(), name="window screen")
        try:
            await self._hear(screen, reader)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:  # ValueError: a line without an end
            log.info("window.closed", error=error)
        finally:
            self._screens.discard(screen)
            showing.cancel()
            await asyncio.wait([showing])
            screen.end()
            await self._leave(screen)

    async def _hear(self, screen: _Screen, reader: asyncio.StreamReader) -> None:
        while line := await self._next_line(screen, reader):
            try:
                asked = msgspec.json.decode(line, type=Asked)
            except msgspec.MsgspecError as error:
                screen.answer(Answered(ask="", status="REJECTED", text=str(error), code="COMMAND.INVALID"))
                continue
            try:
                screen.answer(await self._do(screen, asked))
            except msgspec.MsgspecError as error:
                screen.answer(Answered(ask=asked.ask, status="REJECTED", text=str(error), code="COMMAND.INVALID"))
            except IfppError as refusal:
                log.warning("window.refused", ask=asked.ask[:40], by=screen.who and screen.who.name, code=refusal.code)
                screen.answer(Answered(ask=asked.ask, status="REJECTED", text=str(refusal), code=refusal.code))

    async def _next_line(self, screen: _Screen, reader: asyncio.StreamReader) -> bytes:
        """Wait for a line; who does nothing for too long is logged out and may go on looking."""
        while True:
            reading = asyncio.ensure_future(reader.readline())
            done, _ = await asyncio.wait({reading}, timeout=None if screen.who is None else self._idle_s)
            if done:
                return reading.result()
            reading.cancel()
            await self._leave(screen)
            screen.answer(Answered(ask="logout", status="ACCEPTED", text="logged out: nothing was done for a while"))

    async def _do(self, screen: _Screen, asked: Asked) -> Answered:
        if asked.ask == "login":
            if self._scanned is not None and self._serials and self._serials.fullmatch(asked.badge.strip()):
                return self._unit(screen, asked, self._scanned)
            return await self._login(screen, asked.badge)
        if asked.ask == "logout":
            await self._leave(screen)
            return Answered(ask="logout", status="ACCEPTED", text="logged out")
        who = self._entitled(screen, asked)
        if asked.ask == "hand_over" and self._handed is not None:
            return await self._hand_over(screen, asked, who, self._handed)
        document = asked.document | {"operator_id": who.name}
        done = await self._obey(asked.ask, msgspec.json.encode(document))
        reply = msgspec.to_builtins(done)
        return Answered(
            ask=asked.ask,
            status=reply["status"],
            text=reply["text"],
            code=reply.get("code", ""),
            operator=who.name,
            role=who.role,
            document=reply,
        )

    def _unit(self, screen: _Screen, asked: Asked, scanned: Scanned) -> Answered:
        who = self._entitled(screen, Asked(ask="scan_unit"))
        text = scanned(asked.head_id, asked.badge)
        return Answered(
            ask="scan_unit",
            status="ACCEPTED",
            text=text,
            operator=who.name,
            role=who.role,
            unit=asked.badge.strip(),
            head_id=asked.head_id,
        )

    async def _hand_over(self, screen: _Screen, asked: Asked, goes: Somebody, handed: Handed) -> Answered:
        """Who is logged in goes, who has the badge comes; nobody's badge gets into the books as a comment."""
        comes = await self._recognised(asked.badge) if asked.badge else None
        if comes is not None and comes.name == goes.name:
            raise SettingsError("OPERATOR.BADGE", "somebody else has to come", where=asked.ask)
        comment = str(asked.document.get("reason", ""))
        with contextlib.suppress(SettingsError):
            await self._recognised(comment)
            comment = ""
        text = await handed(goes, comes, comment)
        await self._become(screen, comes)
        name, role = (comes.name, comes.role) if comes else ("", "")
        return Answered(ask=asked.ask, status="ACCEPTED", text=text, operator=name, role=role)

    async def _recognised(self, badge: str) -> Somebody:
        if self._people is None:
            raise SettingsError("OPERATOR.BADGE", "this station knows nobody: [window] people is not set")
        return await asyncio.to_thread(recognise, self._people, badge)

    async def _become(self, screen: _Screen, who: Somebody | None) -> None:
        """Somebody else stands at the screen, or nobody."""
        if screen.who != who:
            await self._leave(screen)
            screen.who = who
            if who is not None:
                await self._passing("LOGIN", who)

    async def _login(self, screen: _Screen, badge: str) -> Answered:
        who = await self._recognised(badge)
        await self._become(screen, who)
        return Answered(
            ask="login", status="ACCEPTED", text=f"{who.name}, {who.role}", operator=who.name, role=who.role
        )

    async def _leave(self, screen: _Screen) -> None:
        if screen.who is not None:
            who, screen.who = screen.who, None
            await self._passing("LOGOUT", who)

    def _entitled(self, screen: _Screen, asked: Asked) -> Somebody:
        if screen.who is None:
            raise SettingsError("OPERATOR.BADGE", "show your badge first", where=asked.ask[:40])
        roles = RIGHTS.get((asked.ask, str(asked.document.get("action", ""))))
        if roles is None:
            raise SettingsError("COMMAND.INVALID", "no such command", where=asked.ask[:40])
        if screen.who.role not in roles:
            detail = f"{screen.who.name} is {screen.who.role}; this is for {' or '.join(sorted(roles))}"
            raise SettingsError("OPERATOR.NOT_ALLOWED", detail, where=asked.ask)
        return screen.who


class _Screen:
    """One connected screen: of every place the newest document waits, of answers each."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.who: Somebody | None = None
        self._writer = writer
        self._waiting: dict[str, bytes] = {}
        self._answers: list[bytes] = []
        self._new = asyncio.Event()

    def put(self, at: str, line: bytes) -> None:
        self._waiting[at] = line
        self._new.set()

    def answer(self, answered: Answered) -> None:
        self._answers.append(msgspec.json.encode(answered) + b"\n")
        self._new.set()
        if len(self._answers) > _UNREAD_ANSWERS:
            self.end()  # it asks and asks, and does not listen

    async def show(self) -> None:
        """Write until cancelled; a screen that takes nothing for long is let go."""
        with contextlib.suppress(OSError, TimeoutError):
            while True:
                await self._new.wait()
                self._new.clear()
                lines = [*self._answers, *self._waiting.values()]
                self._answers.clear()
                self._waiting.clear()
                self._writer.writelines(lines)
                async with asyncio.timeout(_SLOWEST_S):
                    await self._writer.drain()
        self._writer.transport.abort()

    def end(self) -> None:
        self._writer.transport.abort()
