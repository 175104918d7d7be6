"""Text and rows in the cells of a terminal: fitted, cut, filled up; and the banner every screen has."""

from __future__ import annotations

import textwrap

from rich.cells import cell_len, chop_cells, set_cell_size

from ifpp.tui.marks import Marks, Row, Span, printable
from ifpp.tui.view import Banner


def banner_rows(said: Banner, marks: Marks, width: int) -> list[Row]:
    """Return a banner as two rows: what and where, what to do."""
    mark = marks.of(said.level)
    where = f" {marks_dash(marks)} {said.where}" if said.where else ""
    room = width - 3 - cell_len(where)
    what = fit(said.what, max(0, min(room, cell_len(said.what))), marks)
    first = set_cell_size(f" {mark} {what}{where}", width)
    second = set_cell_size(f" {marks.todo} {fit(said.todo, width - 4, marks)}", width)
    return [[Span(first, said.level)], [Span(second, said.level)]]


def marks_dash(marks: Marks) -> str:
    """The sign between what and where."""
    return "-" if marks.minus == "-" else "–"


def fit(said: str, width: int, marks: Marks) -> str:
    """Return text of exactly `width` cells; what does not fit is seen to be cut."""
    if width <= 0:
        return ""
    if cell_len(said) <= width:
        return set_cell_size(said, width)
    return set_cell_size(set_cell_size(said, width - 1) + marks.cut, width)


def wrapped(said: str, width: int, indent: str = "") -> list[str]:
    """Return text as lines of at most `width` cells, all but the first behind `indent`; wide cells are cut anywhere."""
    if cell_len(said) == len(said):
        return textwrap.wrap(said, width, subsequent_indent=indent)
    first, *rest = chop_cells(said, max(1, width - len(indent))) or [""]
    return [first.rstrip(), *(f"{indent}{chunk.strip()}" for chunk in rest)]


def cut(row: Row, width: int) -> Row:
    """Return a row of at most `width` cells that moves no cursor."""
    left, kept = width, []
    for one in row:
        span = one if one.text.isprintable() else Span(printable(one.text), one.level)
        if (cells := cell_len(span.text)) > left:
            span = Span(set_cell_size(span.text, left), span.level)
            cells = left
        kept.append(span)
        left -= cells
    return kept


def whole(row: Row, width: int) -> Row:
    """Return the spans that have room; a figure that is cut would be another figure."""
    kept: Row = []
    for span in row:
        if (width := width - cell_len(span.text)) < 0:
            break
        kept.append(span)
    return kept


def fill(rows: list[Row], height: int) -> list[Row]:
    """Return exactly `height` rows."""
    return [*rows[:height], *([] for _ in range(height - len(rows)))]
