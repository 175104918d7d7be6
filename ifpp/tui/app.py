"""The station screen in a terminal: one canvas, painted at most four times a second, keys at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ifpp.model.clock import Clock
from ifpp.tui.desk import Desk
from ifpp.tui.heard import Heard
from ifpp.tui.link import Link, Said
from ifpp.tui.marks import Level, Marks, Row
from ifpp.tui.paint import Moment, paint
from ifpp.tui.words import Words

_PAINT_S = 0.25
_STEPS = {"left": -1, "right": 1, "up": -1, "down": 1}
_GREY, _INK = "#262626", "#c4c4c4"
COLOURED = {
    Level.NORMAL: Style(color=_INK, bgcolor=_GREY),
    Level.DIM: Style(color="#9a9a9a", bgcolor=_GREY),
    Level.GOOD: Style(color="#ffffff", bgcolor=_GREY, bold=True),
    Level.LOW: Style(color="#000000", bgcolor="#ff9d3c"),
    Level.MEDIUM: Style(color="#000000", bgcolor="#ffdf3c", bold=True),
    Level.HIGH: Style(color="#ffffff", bgcolor="#c00000", bold=True),
}
PLAIN = {
    Level.NORMAL: Style(),
    Level.DIM: Style(),
    Level.GOOD: Style(bold=True),
    Level.LOW: Style(underline=True),
    Level.MEDIUM: Style(reverse=True),
    Level.HIGH: Style(reverse=True, bold=True),
}
"""Without colour: shape, word, and inverse video for what is urgent."""


class Canvas(Widget):
    """Shows rows; only those that changed are drawn again."""

    DEFAULT_CSS = "Canvas { width: 100%; height: 100%; background: #262626; }"

    def __init__(self, styles: dict[Level, Style]) -> None:
        super().__init__()
        self._styles = styles
        self._rows: list[Row] = []

    def show(self, rows: list[Row]) -> None:
        """Draw these rows."""
        before, self._rows = self._rows, rows
        width = self.size.width
        changed = [y for y, row in enumerate(rows) if y >= len(before) or row != before[y]]
        if changed:
            self.refresh(*(Region(0, y, width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        """One row as the terminal gets it."""
        normal = self._styles[Level.NORMAL]
        row = self._rows[y] if y < len(self._rows) else []
        strip = Strip([Segment(span.text, self._styles[span.level]) for span in row if span.text])
        return strip.adjust_cell_length(self.size.width, normal)


class StationScreen(App[None]):
    """One station's screen; it knows what comes through `socket`. `columns`: heads in a row of the fixture, 0 = any."""

    CSS = "Screen { background: #262626; overflow: hidden; }"
    TITLE = "ifpp"
    ENABLE_COMMAND_PALETTE = False
    INLINE_PADDING = 0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
    ]

    def __init__(
        self, socket: Path, words: Words, marks: Marks, clock: Clock, *, columns: int = 0, colour: bool | None = None
    ) -> None:
        super().__init__()
        self.heard = Heard()
        self.link = Link(socket, self._said, self._lost)
        self.desk = Desk(self.heard, words, marks, self.link.ask)
        self._clock = clock
        self._columns = columns
        coloured = "NO_COLOR" not in os.environ if colour is None else colour
        self._canvas = Canvas(COLOURED if coloured else PLAIN)
        self._reading: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        """One canvas over the whole terminal."""
        yield self._canvas

    def on_mount(self) -> None:
        """Begin to listen and to paint."""
        self._reading = asyncio.create_task(self.link.run(), name="link")
        self.set_interval(_PAINT_S, self.repaint)
        self.repaint()

    async def on_unmount(self) -> None:
        """Stop listening."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    def repaint(self) -> None:
        """Paint what is known now."""
        now = self._clock.now()
        moment = Moment(self._clock.monotonic(), now, now.astimezone().strftime("%H:%M"))
        size = self.size
        self._canvas.show(paint(self.desk, moment, size.width, size.height, self._columns))

    def action_interrupt(self) -> None:
        """Ctrl-C: whoever started the screen is to hear of it."""
        self.exit(return_code=130)

    def on_resize(self) -> None:
        """The terminal has another size."""
        self.repaint()

    def on_key(self, event: events.Key) -> None:
        """Everything a keyboard or scanner sends comes through here, in order."""
        desk, key = self.desk, event.key
        if key == "enter":
            desk.enter(self._clock.monotonic())
        elif key == "backspace":
            desk.erase()
        elif key in _STEPS:
            desk.move(_STEPS[key] * (self._row_step() if key in ("up", "down") else 1))
        elif event.character is not None and event.is_printable:
            desk.type(event.character)
        else:
            desk.press(key, self._clock.now().astimezone().strftime("%H:%M"))
        event.prevent_default().stop()
        self.repaint()

    def on_paste(self, event: events.Paste) -> None:
        """A scanner whose terminal pastes."""
        *whole, rest = event.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in whole:
            self.desk.type(line)
            self.desk.enter(self._clock.monotonic())
        self.desk.type(rest)
        self.repaint()

    def _row_step(self) -> int:
        count = len(self.heard.station.heads) if self.heard.station else 1
        return self._columns or max(1, -(-count // max(1, round(count**0.5))))

    def _said(self, said: Said) -> None:
        self.heard.connected = True
        if said.at:
            self.heard.take(said.at, said.document, self._clock.monotonic())
        else:
            self.desk.answered(said)

    def _lost(self) -> None:
        self.desk.lost()
