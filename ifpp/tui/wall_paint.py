"""Wall mode: a station or the line for people two metres away, about 15 rows of 55 cells on a whole monitor.

In order: what needs somebody now, which heads or stations, done and pace, yield, alarms. No decimals, no clock, at
most seven numbers (line contract 6.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_letters

from rich.cells import cell_len

from ifpp.tui import line_view
from ifpp.tui.cells import cut, fill, fit, marks_dash
from ifpp.tui.heard import Heard
from ifpp.tui.line_heard import LineHeard
from ifpp.tui.marks import Level, Marks, Row, Span
from ifpp.tui.paint import Moment
from ifpp.tui.view import Banner, alarm_counts, banner, pace, progress, tile
from ifpp.tui.words import Words

_DIGITS = {
    "0": ("█▀█", "█ █", "▀▀▀"), "1": (" █ ", " █ ", " ▀ "), "2": ("▀▀█", "█▀▀", "▀▀▀"), "3": ("▀▀█", " ▀█", "▀▀▀"),
    "4": ("█ █", "▀▀█", "  ▀"), "5": ("█▀▀", "▀▀█", "▀▀▀"), "6": ("█▀▀", "█▀█", "▀▀▀"), "7": ("▀▀█", "  █", "  ▀"),
    "8": ("█▀█", "█▀█", "▀▀▀"), "9": ("█▀█", "▀▀█", "▀▀▀"),
}  # fmt: skip
_DIGIT_ROWS = 3
_NARROWEST = 9
Cell = tuple[str, str, str, Level]
"""One head or station: number or name, shape, word, urgency."""


def paint_station(heard: Heard, words: Words, marks: Marks, moment: Moment, size: tuple[int, int]) -> list[Row]:
    """Return the rows of a station's wall screen; `size`: width, height."""
    states = heard.station.heads.items() if heard.station else ()
    stale = heard.stale(moment.now_s)
    cells: list[Cell] = []
    for head, state in states:
        one = tile(head, state, words, marks)
        mark, word = (marks.unknown, words("wall.unknown")) if stale else (one.mark, one.word)
        cells.append((head.lstrip(ascii_letters).lstrip("0") or head, mark, word, Level.DIM if stale else one.level))
    done, target = progress(heard)
    own = heard.shift.stations.get(heard.station_id) if heard.shift else None
    figures = _figures(words, done, target, own.fpy if own else None, pace(heard, moment.utc, marks))
    return _paint(
        banner(heard, moment.now_s, words), cells, figures, alarm_counts(heard), marks, words, size, stale=stale
    )


def paint_line(heard: LineHeard, words: Words, marks: Marks, moment: Moment, size: tuple[int, int]) -> list[Row]:
    """Return the rows of the line's wall screen; `size`: width, height."""
    stale = not heard.connected
    cells: list[Cell] = []
    for name in heard.names:
        one = line_view.station_row(heard, name, words, marks)
        mark, word = (marks.unknown, words("wall.unknown")) if stale else (one.mark, one.word)
        cells.append((name, mark, word, Level.DIM if stale else one.level))
    good, wanted = line_view.done(heard)
    fpy = heard.shift.fpy if heard.shift else None
    figures = _figures(words, str(good) if heard.orders else "-", str(wanted) if heard.orders else "-", fpy, "")
    said = line_view.banner(heard, moment.now_s, words)
    counts = line_view.alarm_levels(heard)
    return _paint(said, cells, figures, counts, marks, words, size, stale=stale or heard.line_away)


def _figures(words: Words, done: str, target: str, fpy: float | None, ahead: str) -> list[str]:
    share = "-" if fpy is None else f"{math.floor(fpy * 100)} %"
    figures = [f"{words('figure.done')} {done}/{target}", f"{words('figure.fpy')} {share}"]
    return [*figures, f"{words('figure.pace')} {ahead}"] if ahead not in ("", "-") else figures


def _paint(
    said: Banner,
    cells: Sequence[Cell],
    figures: list[str],
    counts: dict[Level, int],
    marks: Marks,
    words: Words,
    size: tuple[int, int],
    *,
    stale: bool,
) -> list[Row]:
    width, height = max(1, size[0]), max(1, size[1])
    top = _said(said, marks, width, height)
    foot = _foot(figures, counts, marks, words, width, stale) if height > len(top) + 2 else []
    room = height - len(top) - len(foot)
    rows = [*top, *fill(_grid(cells, marks, width, room), max(0, room)), *foot]
    return [cut(row, width) for row in fill(rows, height)]


def _said(said: Banner, marks: Marks, width: int, height: int) -> list[Row]:
    """The banner, wrapped: what and where, then what to do."""
    mark = marks.of(said.level).strip()
    where = f" {marks_dash(marks)} {said.where}" if said.where else ""
    lines = [*_wrapped(f"{mark} {said.what}{where}".strip(), width - 2, 2)]
    lines += _wrapped(f"{marks.todo} {said.todo}", width - 2, 2) if said.todo else []
    rows: list[Row] = [[Span(fit(f" {line}", width, marks), said.level)] for line in lines[: max(1, height // 3)]]
    return [*rows, []] if height > 9 else rows


def _wrapped(text: str, width: int, most: int) -> list[str]:
    """Break text into lines of so many cells, at blanks where it has some."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    kept, rest = lines[: most - 1], " ".join(lines[most - 1 :])
    return [*kept, rest] if rest else kept


def _foot(
    figures: list[str], counts: dict[Level, int], marks: Marks, words: Words, width: int, stale: bool
) -> list[Row]:
    level = Level.DIM if stale else Level.GOOD
    shown = "   ".join(figures)
    first: Row = [Span(fit(f" {shown}", width, marks), level)]
    alarms = [Span(f" {marks.of(one)}{count} ", Level.DIM if stale else one) for one, count in counts.items() if count]
    return [first, [Span(f" {words('figure.alarms')} "), *(alarms or [Span("0")])]]


def _grid(cells: Sequence[Cell], marks: Marks, width: int, height: int) -> list[Row]:
    if not cells or height < 1:
        return []
    longest = max(cell_len(word) for _, _, word, _ in cells)
    across = _across(len(cells), width, height, max(_NARROWEST, min(longest + 4, width)))
    down = math.ceil(len(cells) / across)
    if down > height or width // across < _NARROWEST:
        return _wanting(cells, marks, width, height)
    wide, high = width // across, min(_DIGIT_ROWS + 1, height // down)
    digits = max(len(name) * 4 if name.isdigit() and marks.minus != "-" else width for name, *_ in cells)
    big = high >= _DIGIT_ROWS and digits + longest + 4 <= wide
    rows: list[Row] = []
    for first in range(0, len(cells), across):
        drawn = [_cell(one, marks, wide, high, big=big) for one in cells[first : first + across]]
        rows += [[span for part in parts for span in part] for parts in zip(*drawn, strict=True)]
    return rows


def _across(count: int, width: int, height: int, narrowest: int) -> int:
    """As many in a row as leave each the tallest tile and its whole word; full rows before others."""
    most = max(1, width // narrowest)
    fits = [one for one in range(1, min(most, count) + 1) if math.ceil(count / one) <= height]
    tallest = max((min(_DIGIT_ROWS + 1, height // math.ceil(count / one)) for one in fits), default=0)
    good = [one for one in fits if min(_DIGIT_ROWS + 1, height // math.ceil(count / one)) == tallest]
    return next((one for one in good if count % one == 0), good[0] if good else most)


def _wanting(cells: Sequence[Cell], marks: Marks, width: int, height: int) -> list[Row]:
    """More than can be read: those that want somebody."""
    order = (Level.HIGH, Level.MEDIUM, Level.LOW)
    found = sorted((one for one in cells if one[3] in order), key=lambda one: order.index(one[3]))
    return [[Span(fit(f" {name} {mark} {word}", width, marks), level)] for name, mark, word, level in found[:height]]


def _cell(one: Cell, marks: Marks, wide: int, high: int, *, big: bool) -> list[Row]:
    name, mark, word, level = one
    if big:
        drawn = [" " + " ".join(_DIGITS[digit][row] for digit in name) + " " for row in range(_DIGIT_ROWS)]
        room = wide - len(drawn[0]) - 1
        beside = [fit(f" {mark}", room, marks), fit(f" {word}", room, marks), " " * room]
        rows: list[Row] = [
            [Span(digit), Span(side, level), Span(" ")] for digit, side in zip(drawn, beside, strict=True)
        ]
    elif high >= 2:
        rows = [[Span(fit(f" {name}", wide, marks))], [Span(fit(f" {mark} {word}", wide - 1, marks), level), Span(" ")]]
    else:
        rows = [[Span(f" {name} "), Span(fit(f"{mark}{word}", wide - cell_len(name) - 3, marks), level), Span(" ")]]
    return [*rows[:high], *([Span(" " * wide)] for _ in range(high - len(rows)))]
