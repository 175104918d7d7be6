"""Plots of reports, drawn here as SVG without scripts: print, screen and mail show the same.

Grey is normal; what leaves its limits has a colour, another shape and its value as a word. Every text is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

_WIDTH = 900
_INK, _SOFT, _GRID, _BAR, _ALARM = "#1f2933", "#66707a", "#dde1e5", "#8a97a5", "#b3261e"
_ROW = 24

Scale = Callable[[float], float]
"""From a value to its place on the paper."""


@dataclass(frozen=True, slots=True)
class Point:
    """One stretch of time: `value`, `low` and `high` are ratios, None where nothing was made. `weight` units."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    outside: bool
    weight: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart; `mark` draws a line across, as a target. `alarm`: it wants somebody."""

    label: str
    value: float
    text: str
    mark: float | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """One row of a range chart: 5th, 25th, 50th, 75th and 95th percentile."""

    label: str
    percentiles: tuple[float, float, float, float, float]
    text: str


def control_chart(points: Sequence[Point], centre: float, title: str) -> str:
    """Draw ratios over time with the centre line and the limits of each point."""
    left, right, top, height = 52, 14, 16, 180
    floor_ratio = _floor([one.value for one in points] + [one.low for one in points] + [centre])
    step = (_WIDTH - left - right) / max(1, len(points))

    def x(place: float) -> float:
        return left + step * place

    def y(value: float) -> float:
        return top + height * (1 - (value - floor_ratio) / (1 - floor_ratio))

    parts = []
    span = 1 - floor_ratio
    grid = 0.05 if span <= 0.25 else 0.1 if span <= 0.5 else 0.25
    for number in range(int(span / grid + 1e-6) + 1):
        value = 1 - number * grid
        parts.append(_line(left, y(value), _WIDTH - right, y(value), _GRID))
        parts.append(_text(left - 8, y(value) + 4, f"{100 * value:.0f} %", "end"))
    parts += [_line(left, y(centre), _WIDTH - right, y(centre), _SOFT), _limits(points, x, y)]
    known = [(x(place + 0.5), y(one.value), one) for place, one in enumerate(points) if one.value is not None]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in known)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{_INK}" stroke-width="1.5"/>')
    parts += [_dot(a, b, one) for a, b, one in known]
    every = max(1, -(-len(points) // 12))
    parts += [
        _text(x(place), top + height + 18, one.label, "middle")
        for place, one in enumerate(points)
        if place % every == 0
    ]
    return _svg(top + height + 28, title, parts)


def bar_chart(bars: Sequence[Bar], title: str, *, width: int = _WIDTH, label_width: int = 150) -> str:
    """Draw rows with bars, the value as a word behind each."""
    most = max([*(one.value for one in bars), *(one.mark or 0 for one in bars), 0]) or 1.0
    room = width - label_width - 150
    parts = []
    for place, one in enumerate(bars):
        y, length = 4 + place * _ROW, room * one.value / most
        parts += [
            _text(label_width - 10, y + 15, _short(one.label, label_width // 7), "end"),
            _box(label_width, y + 3, length, 16, _ALARM if one.alarm else _BAR),
        ]
        at = length
        if one.mark is not None:
            at = max(length, room * one.mark / most)
            across = label_width + room * one.mark / most
            parts.append(_line(across, y, across, y + 22, _INK, 2))
        parts.append(_text(label_width + at + 8, y + 15, one.text, "start", _ALARM if one.alarm else _INK))
    return _svg(8 + len(bars) * _ROW, title, parts, width)


def range_chart(ranges: Sequence[Range], unit: str, title: str, *, label_width: int = 260) -> str:
    """Draw rows from the 5th to the 95th percentile, the middle half as a box, the median as a stroke."""
    most = _round_up(max([one.percentiles[4] for one in ranges] or [0]))
    room, end = _WIDTH - label_width - 120, 8 + len(ranges) * _ROW
    parts = []
    for number in range(5):
        x = label_width + room * number / 4
        parts += [
            _line(x, 4, x, end, _GRID),
            _text(x, end + 16, f"{most * number / 4:.3g}{f' {unit}' if number == 4 else ''}", "middle"),
        ]
    for place, one in enumerate(ranges):
        y = 4 + place * _ROW + 11
        p5, p25, p50, p75, p95 = (label_width + room * value / most for value in one.percentiles)
        parts += [
            _text(label_width - 10, y + 4, _short(one.label, label_width // 7), "end"),
            _line(p5, y, p95, y, _SOFT, 1.5),
            _box(p25, y - 6, p75 - p25, 12, _BAR),
            _line(p50, y - 9, p50, y + 9, _INK, 2.5),
            _text(label_width + room + 12, y + 4, one.text, "start"),
        ]
    return _svg(end + 26, title, parts)


def _round_up(most: float) -> float:
    """Return the end of an axis of four round steps."""
    if most <= 0:
        return 4.0
    power = 10.0 ** floor(log10(most / 4))
    return float(next(4 * step * power for step in (1, 2, 2.5, 5, 10) if 4 * step * power >= most))


def _floor(values: Sequence[float | None]) -> float:
    lowest = min(one for one in values if one is not None)
    return max(0.0, min(0.9, floor((lowest - 0.15 * (1 - lowest)) * 20) / 20))


def _limits(points: Sequence[Point], x: Scale, y: Scale) -> str:
    parts = []
    for place, one in enumerate(points):
        for limit in (one.low, one.high):
            if limit is not None:
                parts.append(_line(x(place), y(limit), x(place + 1), y(limit), _SOFT, 1, "4 3"))
    return "".join(parts)


def _dot(x: float, y: float, one: Point) -> str:
    about = f"<title>{escape(one.label)}: {100 * (one.value or 0):.1f} % of {one.weight}</title>"
    if not one.outside:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_INK}">{about}</circle>'
    corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
    value = _text(x, y + 21, f"{100 * (one.value or 0):.1f} %", "middle", _ALARM)
    return f'<polygon points="{corners}" fill="{_ALARM}">{about}</polygon>{value}'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _svg(height: float, title: str, parts: Sequence[str], width: int = _WIDTH) -> str:
    about = f'viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {about}>{"".join(parts)}</svg>'
