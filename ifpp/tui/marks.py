"""How urgent something is, and the shapes that say so without colour; in Unicode and in ASCII."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """ISA-101: what is normal is grey; HIGH, MEDIUM and LOW are the three priorities of alarms."""

    NORMAL = "normal"
    DIM = "dim"
    GOOD = "good"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


LEVEL_OF_PRIORITY = {1: Level.HIGH, 2: Level.MEDIUM, 3: Level.LOW}


@dataclass(frozen=True, slots=True)
class Marks:
    """One shape for each kind of state."""

    free: str = "○"
    work: str = "▶"
    good: str = "✓"
    bad: str = "✗"
    again: str = "↻"
    wait: str = "▲"
    stop: str = "■"
    lost: str = "✖"
    low: str = "●"
    unknown: str = "?"
    todo: str = "→"
    full: str = "█"
    rest: str = "░"
    minus: str = "\N{MINUS SIGN}"
    typed: str = "•"
    cut: str = "…"

    def of(self, level: Level) -> str:
        """The shape of an alarm's priority."""
        return {Level.HIGH: self.stop, Level.MEDIUM: self.wait, Level.LOW: self.low}.get(level, " ")


UNICODE = Marks()
ASCII = Marks(
    free="o",
    work=">",
    good="+",
    bad="x",
    again="@",
    wait="!",
    stop="#",
    lost="X",
    low="*",
    unknown="?",
    todo="->",
    full="=",
    rest=".",
    minus="-",
    typed="*",
    cut="~",
)


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one level of urgency."""

    text: str
    level: Level = Level.NORMAL


Row = list[Span]


def printable(text: str) -> str:
    """Return text that moves no cursor and rings no bell, whatever a station, chip or person put into it."""
    return "".join(one if one.isprintable() else "?" for one in text)
