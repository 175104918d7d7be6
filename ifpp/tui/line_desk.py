"""Where a person is on the line screen: line, station, head, unit; knows no terminal, changes nothing on the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ifpp.tui.line_heard import LineHeard
from ifpp.tui.marks import Level, Marks
from ifpp.tui.words import Words

_LONGEST_SCAN = 64
_PAGES = {"f1": "help", "f8": "alarms", "f9": "hand"}
_SCREENFUL = 10
Lookup = Callable[[str], None]
"""Have a unit's custody looked up by EID, ICCID or serial number; `LineDesk.found` takes what comes."""


@dataclass(slots=True)
class LineDesk:
    """The state of one line screen. `place`: line, station, head or unit."""

    heard: LineHeard
    words: Words
    marks: Marks
    lookup: Lookup
    place: str = "line"
    station: str = ""
    head: str = ""
    unit: str = ""
    custody: list[str] | None = None
    page: str = ""
    top: int = 0
    typed: str = ""
    message: str = ""
    message_level: Level = Level.NORMAL
    _way: list[str] = field(default_factory=list)

    def type(self, characters: str) -> None:
        """Take characters; what no scan has is left out."""
        self.typed += "".join(one for one in characters if one.isprintable())

    def erase(self) -> None:
        """Take the last character back."""
        self.typed = self.typed[:-1]

    def enter(self) -> None:
        """Look for what was typed or scanned; with nothing typed, go down to what is chosen."""
        text, self.typed = self.typed.strip(), ""
        self._say("")
        if text:
            self._scanned(text)
        elif self.page:
            self._open("")
        elif self.place == "line" and self._chosen(self.heard.names, self.station):
            self._go("station")
        elif self.place == "station" and self._chosen(self.heads, self.head):
            self._go("head")
        elif self.place == "head":
            self._down_to_unit()

    def back(self) -> None:
        """Leave what was typed, the page, the unit, the head, the station: one at a time."""
        self._say("")
        if self.typed:
            self.typed = ""
        elif self.page:
            self._open("")
        elif self._way:
            self.place, self.top = self._way.pop(), 0

    def press(self, key: str) -> None:
        """Show or close a page, turn one over; keys without a meaning do nothing."""
        if key in _PAGES:
            self._open("" if self.page == _PAGES[key] else _PAGES[key])
        elif key in ("pagedown", "pageup"):
            self.top = max(0, self.top + (_SCREENFUL if key == "pagedown" else -_SCREENFUL))

    def move(self, step: int) -> None:
        """Choose the next or the last station or head; in text, go on by a line."""
        if self.page or self.place in ("unit", "head"):
            self.top = max(0, self.top + step)
        elif self.place == "line":
            self.station = _next(self.heard.names, self.station, step)
        else:
            self.head = _next(self.heads, self.head, step)

    def found(self, name: str, lines: list[str] | None) -> None:
        """Take a unit's custody, None when the books know none; one that nobody waits for any more is let go."""
        if name != self.unit:
            return
        self.custody = lines if lines is not None else [self.words("line.no_unit", unit=name)]

    def failed(self, name: str, why: str) -> None:
        """The books cannot be read now."""
        if name == self.unit:
            self.custody = [self.words("line.no_books", why=why)]

    @property
    def heads(self) -> list[str]:
        """The heads of the chosen station."""
        state = self.heard.stations.get(self.station)
        return list(state.heads) if state else []

    def _chosen(self, among: list[str], one: str) -> bool:
        """Whether something can be gone down to; the first where nothing was chosen."""
        if among and one not in among:
            self.move(1)
        return bool(among)

    def _down_to_unit(self) -> None:
        state = self.heard.stations.get(self.station)
        head = state.heads.get(self.head) if state else None
        if head is None or not (head.eid or head.sn):
            self._say(self.words("line.no_seated", head=self.head), Level.LOW)
        else:
            self._look_up(head.eid or head.sn)

    def _scanned(self, text: str) -> None:
        if len(text) > _LONGEST_SCAN:
            self._say(self.words("scan.long"), Level.LOW)
        elif text in self.heard.names:
            self.station, self.place, self._way, self.page, self.top = text, "station", ["line"], "", 0
        else:
            self._look_up(text)

    def _look_up(self, name: str) -> None:
        self.unit, self.custody, self.page = name, None, ""
        if self.place == "unit":
            self.top = 0
        else:
            self._go("unit")
        self.lookup(name)

    def _go(self, place: str) -> None:
        self._way.append(self.place)
        self.place, self.top = place, 0

    def _open(self, page: str) -> None:
        self.page, self.top = page, 0

    def _say(self, text: str, level: Level = Level.NORMAL) -> None:
        self.message, self.message_level = text, level


def _next(among: list[str], one: str, step: int) -> str:
    if not among:
        return ""
    at = among.index(one) if one in among else -1 if step > 0 else len(among)
    return among[min(max(0, at + step), len(among) - 1)]
