"""The line screen and the wall screens in a terminal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType

from ifpp.errors import IfppError
from ifpp.model.clock import Clock
from ifpp.tui.app import COLOURED, PLAIN, Canvas, StationScreen
from ifpp.tui.line_desk import LineDesk
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.line_paint import paint
from ifpp.tui.marks import Marks
from ifpp.tui.paint import Moment
from ifpp.tui.wall_paint import paint_line, paint_station
from ifpp.tui.words import Words

_PAINT_S = 0.25
_MOST_LOOKING = 4
Follow = Callable[[LineHeard], Awaitable[None]]
"""Fills what was heard until cancelled."""
Custody = Callable[[str], "list[str] | None"]
"""Return what the books know of a unit as lines, None when nothing; may block; raises IfppError."""


class LineScreen(App[None]):
    """The screen of a line, or its wall; it only looks."""

    CSS = "Screen { background: #262626; overflow: hidden; }"
    TITLE = "ifpp"
    ENABLE_COMMAND_PALETTE = False
    INLINE_PADDING = 0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
    ]

    def __init__(
        self,
        line: str,
        follow: Follow,
        custody: Custody,
        words: Words,
        marks: Marks,
        clock: Clock,
        *,
        wall: bool = False,
        colour: bool | None = None,
    ) -> None:
        super().__init__()
        self.heard = LineHeard(name=line)
        self.desk = LineDesk(self.heard, words, marks, self._look_up)
        self._follow, self._custody = follow, custody
        self._clock, self._wall = clock, wall
        coloured = "NO_COLOR" not in os.environ if colour is None else colour
        self._canvas = Canvas(COLOURED if coloured else PLAIN)
        self._following: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()

    def compose(self) -> ComposeResult:
        """One canvas over the whole terminal."""
        yield self._canvas

    def on_mount(self) -> None:
        """Begin to listen and to paint."""
        self._following = asyncio.create_task(self._listen(), name="line")
        self.set_interval(_PAINT_S, self.repaint)
        self.repaint()

    async def on_unmount(self) -> None:
        """Stop listening; a look into the books that lasts is not waited for."""
        tasks = [*self._looking, *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def repaint(self) -> None:
        """Paint what is known now."""
        now = self._clock.now()
        moment = Moment(self._clock.monotonic(), now, now.astimezone().strftime("%H:%M"))
        width, height = self.size
        if self._wall:
            rows = paint_line(self.heard, self.desk.words, self.desk.marks, moment, (width, height))
        else:
            rows = paint(self.desk, moment, width, height)
        self._canvas.show(rows)

    def action_interrupt(self) -> None:
        """Ctrl-C: whoever started the screen is to hear of it."""
        self.exit(return_code=130)

    def on_resize(self) -> None:
        """The terminal has another size."""
        self.repaint()

    def on_key(self, event: events.Key) -> None:
        """Everything a keyboard or scanner sends comes through here, in order."""
        desk, key = self.desk, event.key
        acts: dict[str, Callable[[], None]] = {
            "enter": desk.enter,
            "escape": desk.back,
            "left": desk.back,
            "right": desk.enter,
            "backspace": desk.erase,
            "up": lambda: desk.move(-1),
            "down": lambda: desk.move(1),
        }
        if key in acts:
            acts[key]()
        elif event.character is not None and event.is_printable:
            desk.type(event.character)
        else:
            desk.press(key)
        event.prevent_default().stop()
        self.repaint()

    def on_paste(self, event: events.Paste) -> None:
        """A scanner whose terminal pastes."""
        *whole, rest = event.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in whole:
            self.desk.type(line)
            self.desk.enter()
        self.desk.type(rest)
        self.repaint()

    async def _listen(self) -> None:
        try:
            await self._follow(self.heard)
        finally:
            self.heard.link(False, self._clock.monotonic())

    def _look_up(self, name: str) -> None:
        if len(self._looking) < _MOST_LOOKING:
            task = asyncio.create_task(self._find(name), name="custody")
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        else:
            self.desk.failed(name, self.desk.words("line.busy"))

    async def _find(self, name: str) -> None:
        try:
            self.desk.found(name, await asyncio.to_thread(self._custody, name))
        except IfppError as error:
            self.desk.failed(name, str(error))
        self.repaint()


class StationWall(StationScreen):
    """A station on the wall: nobody types there, so keys do nothing but leave."""

    def __init__(self, socket: Path, words: Words, marks: Marks, clock: Clock, **more: Any) -> None:
        super().__init__(socket, words, marks, clock, **more)

    def repaint(self) -> None:
        """Paint what is known now."""
        now = self._clock.now()
        moment = Moment(self._clock.monotonic(), now)
        width, height = self.size
        self._canvas.show(paint_station(self.heard, self.desk.words, self.desk.marks, moment, (width, height)))

    def on_key(self, event: events.Key) -> None:
        """Nothing."""
        event.prevent_default().stop()

    def on_paste(self, event: events.Paste) -> None:
        """Nothing."""
        event.prevent_default().stop()
