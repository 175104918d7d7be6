"""The station screen as rows of text, for a terminal of any size; pure, so that every state can be looked at in a test.

From 30 x 9 on: title, figures, banner (two rows), heads as on the fixture, message, scan line, keys. Smaller: what a
person must do, how many heads are in which state, the scan line.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from string import ascii_letters

from rich.cells import cell_len, set_cell_size

from ifpp.tui import hand_over
from ifpp.tui.cells import banner_rows, cut, fill, fit, marks_dash, whole, wrapped
from ifpp.tui.desk import Desk
from ifpp.tui.heard import Heard
from ifpp.tui.marks import LEVEL_OF_PRIORITY, Level, Marks, Row, Span
from ifpp.tui.view import (
    Banner,
    Tile,
    age_text,
    alarm_counts,
    alarm_words,
    banner,
    first_pass,
    local,
    pace,
    progress,
    stock,
    tile,
)

_SMALLEST = (30, 9)
_FRAME_ROWS = 7
_WIDEST_TILE, _NARROWEST_TILE = 24, 9
_TALLEST_TILE = 4
_ROOMY_TILE = 16


@dataclass(frozen=True, slots=True)
class Moment:
    """When the screen is painted: monotonic seconds, UTC, and the clock on the wall as text."""

    now_s: float
    utc: datetime
    clock: str = ""


def paint(desk: Desk, moment: Moment, width: int, height: int, columns: int = 0) -> list[Row]:
    """Return `height` rows of at most `width` cells; `columns`: heads in a row of the fixture, 0 = nearly square."""
    width, height = max(1, width), max(1, height)
    said = banner(desk.heard, moment.now_s, desk.words)
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        rows = _small(desk, said, width, height)
    else:
        frame = [_title(desk, moment, width), _figures(desk, moment, width), *banner_rows(said, desk.marks, width)]
        body = _overlay(desk, width, height - _FRAME_ROWS) or _grid(desk, moment, width, height - _FRAME_ROWS, columns)
        foot = [_message(desk, width), _scan(desk, width), _keys(desk, width)]
        rows = [*frame, *fill(body, height - _FRAME_ROWS), *foot]
    return [cut(row, width) for row in fill(rows, height)]


def text(rows: list[Row]) -> list[str]:
    """Return the rows without their levels."""
    return ["".join(span.text for span in row) for row in rows]


# ---- parts --------------------------------------------------------------------------------------------


def _title(desk: Desk, moment: Moment, width: int) -> Row:
    heard, words = desk.heard, desk.words
    job = heard.job
    name = heard.station.job_order_id if heard.station else ""
    left = f" {heard.station_id or '-'}  {words('top.job', job=name) if name else words('top.no_job')}"
    if job is not None:
        left += f"  {job.product.part_number} {job.region}"
    who = f"{heard.operator} ({heard.role})" if heard.operator else words("top.nobody")
    stale = heard.stale(moment.now_s)
    age = age_text(heard.age_s(moment.now_s)) if heard.station else ""
    live = words("top.stale", age=age) if stale else words("top.live")
    if not stale and heard.line_online is False:
        live = words("top.line_away")
    level = Level.HIGH if stale else Level.LOW if heard.line_online is False else Level.NORMAL
    state = f" {live.strip()} "
    right = f" {who}  {moment.clock} "
    room = width - cell_len(right) - cell_len(state)
    return [Span(fit(left, room, desk.marks)), Span(right), Span(state, level)]


def _figures(desk: Desk, moment: Moment, width: int) -> Row:
    heard, words, marks = desk.heard, desk.words, desk.marks
    done, target = progress(heard)
    counts = alarm_counts(heard)
    parts = [
        Span(f" {words('figure.done')} {done}/{target} "),
        Span(f" {words('figure.pace')} {pace(heard, moment.utc, marks)} "),
        Span(f" {words('figure.fpy')} {first_pass(heard)} "),
        Span(f" {words('figure.stock')} {stock(heard, words)} "),
    ]
    alarms = [Span(f" {marks.of(level)}{count} ", level) for level, count in counts.items() if count]
    parts += [Span(f" {words('figure.alarms')} "), *(alarms or [Span("0 ")])]
    if heard.alarms is not None and heard.alarms.shelved:
        parts.append(Span(f" {words('figure.shelved')} {heard.alarms.shelved} "))
    if heard.station is not None and heard.station.outbox_depth:
        parts.append(Span(f" {words('figure.waiting')} {heard.station.outbox_depth} "))
    if heard.stale(moment.now_s):
        parts = [Span(part.text, Level.DIM) for part in parts]
    return whole(parts, width)


def _message(desk: Desk, width: int) -> Row:
    marks = desk.marks
    if desk.question is not None:
        return [Span(fit(f" {desk.question.what}", width, marks), Level.MEDIUM)]
    return [Span(fit(f" {desk.message}" if desk.message else "", width, marks), desk.message_level)]


def _scan(desk: Desk, width: int) -> Row:
    """The line everything is typed into; a badge must not be read over a shoulder."""
    words, marks = desk.words, desk.marks
    question, hidden = desk.question, marks.typed * min(len(desk.typed), 40)
    if question is not None:
        numbered = "  ".join(f"{number} {one}" for number, one in enumerate(question.choice, 1))
        choice = question.hint or numbered or "YES"
        what = words("scan.what", choice=choice)
        shown = (hidden if question.secret else desk.typed) or (what if cell_len(what) <= width - 3 else choice)
    else:
        shown = hidden or words("scan.ready")
    return [Span(" > "), Span(fit(shown, width - 3, marks), Level.NORMAL if desk.typed else Level.DIM)]


def _keys(desk: Desk, width: int) -> Row:
    heard, words = desk.heard, desk.words
    locked = heard.station is not None and heard.station.locked
    head = heard.station.heads.get(desk.head) if heard.station else None
    blocked = head is not None and (head.phase == "QUARANTINED" or bool(head.reason))
    keys = [
        ("F1", "help"),
        ("F2", "start" if locked else "stop"),
        ("F3", "release" if blocked else "block"),
        ("F4", "socket"),
        ("F5", "retry"),
        ("F6", "ack"),
        ("F7", "shelve"),
        ("F8", "alarms"),
        ("F9", "leave"),
        ("^Q", "quit"),
    ]
    return whole([Span(f"{key} {words(f'key.{name}')} ", Level.DIM) for key, name in keys], width)


def _small(desk: Desk, said: Banner, width: int, height: int) -> list[Row]:
    """What a person must do, wrapped; how many heads are in which state; the scan line."""
    marks = desk.marks
    where = f"{marks_dash(marks)} {said.where} " if said.where else ""
    line = f"{marks.of(said.level).strip()} {said.what} {where}{marks.todo} {said.todo}".strip()
    lines = wrapped(line, width)
    foot = [_scan(desk, width)] if height > 1 else []
    if desk.question is not None or desk.message:
        foot.insert(0, _message(desk, width))
    counts = [[Span(fit(_counted(desk), width, marks))]] if height - len(foot) > 1 else []
    room = max(1, height - len(foot) - len(counts))
    return [*([Span(set_cell_size(one, width), said.level)] for one in lines[:room]), *counts, *foot]


def _counted(desk: Desk) -> str:
    heads = desk.heard.station.heads.items() if desk.heard.station else ()
    counts = Counter(tile(head, state, desk.words, desk.marks).word for head, state in heads)
    return f"{sum(counts.values())}: " + " ".join(f"{count} {word}" for word, count in counts.most_common())


# ---- heads --------------------------------------------------------------------------------------------


def _grid(desk: Desk, moment: Moment, width: int, height: int, columns: int) -> list[Row]:
    heard = desk.heard
    if heard.station is None or not heard.station.heads or height < 1:
        return []
    tiles = [tile(head, state, desk.words, desk.marks) for head, state in heard.station.heads.items()]
    across = _across(len(tiles), width, height, columns)
    down = math.ceil(len(tiles) / across)
    if down > height or width // across < _NARROWEST_TILE:
        return _crowded(desk, tiles, width, height)
    tall = min(_TALLEST_TILE, height // down)
    wide = min(_WIDEST_TILE, width // across)
    stale = heard.stale(moment.now_s)
    rows: list[Row] = []
    for begin in range(0, len(tiles), across):
        drawn = [_tile(one, desk, wide, tall, stale) for one in tiles[begin : begin + across]]
        rows += [[span for part in parts for span in part] for parts in zip(*drawn, strict=True)]
    return rows


def _across(count: int, width: int, height: int, columns: int) -> int:
    """Heads in a row: as on the fixture where that is told and fits, else rows that are full and nearly square."""
    most, root = max(1, width // _NARROWEST_TILE), math.ceil(math.sqrt(count))
    full = [across for across in range(root, 2 * root + 1) if count % across == 0]
    wanted = columns or next(iter(full), root)
    if math.ceil(count / min(wanted, most)) > height:
        wanted = math.ceil(count / height)
    return max(1, min(wanted, most, count))


def _crowded(desk: Desk, tiles: list[Tile], width: int, height: int) -> list[Row]:
    """More heads than room: those that want somebody one by one, the others by number; none is left out."""
    wanting = [one for one in tiles if one.level not in (Level.NORMAL, Level.GOOD, Level.DIM)]
    rows: list[Row] = [[Span(fit(f" {_counted(desk)}", width, desk.marks))]]
    for one in wanting[: height - 1]:
        rows.append([Span(fit(f" {one.head_id} {one.mark} {one.word}", width, desk.marks), one.level)])
    return rows


def _tile(one: Tile, desk: Desk, wide: int, tall: int, stale: bool) -> list[Row]:
    """One head in `tall` rows of `wide` cells: state; progress or last verdict; unit."""
    room = wide - 1
    level = Level.DIM if stale else one.level
    chosen = one.head_id == desk.head
    share = "" if one.share is None else f" {one.share:.0%}"
    if wide < _ROOMY_TILE:
        number, said = (
            f"{'>' if chosen else ' '}{one.head_id.lstrip(ascii_letters) or one.head_id}",
            one.mark + one.word,
        )
    else:
        number, said = f"[{one.head_id}]" if chosen else f" {one.head_id} ", f"{one.mark} {one.word}{share}"
    name = Span(number, Level.DIM if stale else Level.GOOD if chosen else Level.NORMAL)
    state = fit(said, room - cell_len(number), desk.marks)
    rows: list[Row] = [[name, Span(state, level), Span(" ")]]
    if tall > 1:
        rows.append([*_second(one, desk.marks, room, level, stale), Span(" ")])
    if tall > 2:
        unit = f" {desk.marks.stop} {desk.words('state.QUARANTINED')}" if _going_out(one, desk) else f" {one.unit}"
        rows.append([Span(fit(unit, wide, desk.marks), Level.DIM)])
    rows += [[Span(" " * wide)] for _ in range(tall - len(rows))]
    return rows


def _going_out(one: Tile, desk: Desk) -> bool:
    """Blocked, and still busy with its last unit."""
    return one.blocked and one.word not in (desk.words("state.QUARANTINED"), desk.words("state.REFUSING"))


def _second(one: Tile, marks: Marks, room: int, level: Level, stale: bool) -> Row:
    if one.share is not None:
        width = room - 1
        full = round(one.share * width)
        return [Span(" "), Span(marks.full * full + marks.rest * (width - full), level)]
    return [Span(fit(f" {one.last}", room, marks), Level.DIM if stale else one.last_level)]


# ---- pages --------------------------------------------------------------------------------------------


def _overlay(desk: Desk, width: int, height: int) -> list[Row]:
    pages: dict[str, Callable[[], list[Row]]] = {
        "help": lambda: [[Span(f" {line}")] for line in desk.words("help.text").strip().splitlines()],
        "alarms": lambda: _alarms(desk, desk.heard),
        "hand": lambda: _hand(desk, width, height),
    }
    rows = pages[desk.overlay]() if desk.overlay else []
    if desk.overlay == "alarms" and len(rows) > height:
        shown = (height - 2) // 2  # a title and a last line; two lines an alarm
        first = max(0, min(desk.alarm, len(desk.heard.standing()) - shown))
        rest = len(desk.heard.standing()) - shown
        rows = [rows[0], *rows[1 + 2 * first :][: 2 * shown], [Span(f" {desk.words('alarms.more', count=rest)}")]]
    return rows


def _hand(desk: Desk, width: int, height: int) -> list[Row]:
    """The page of the shift; what has no room is counted."""
    said = hand_over.page(desk.heard, desk.opened, desk.words)
    lines = [one for line in said for one in wrapped(line, width - 2, "    ")]
    if len(lines) > height:
        lines = [*lines[: height - 1], desk.words("alarms.more", count=len(lines) - height + 1)]
    return [[Span(f" {line}", Level.NORMAL if number else Level.GOOD)] for number, line in enumerate(lines)]


def _alarms(desk: Desk, heard: Heard) -> list[Row]:
    words, marks = desk.words, desk.marks
    standing = heard.standing()
    if not standing:
        return [[Span(f" {words('alarms.none')}")]]
    rows: list[Row] = [[Span(f" {words('alarms.title')}", Level.GOOD)]]
    for number, (_, one) in enumerate(standing):
        level = LEVEL_OF_PRIORITY.get(one.priority, Level.MEDIUM)
        what, todo = alarm_words(one, words)
        at = local(one.first_at)
        line = words(
            "alarms.row", mark=marks.of(level), priority=one.priority, code=one.code, source=one.source,
            state=words.of("alarmstate", one.state, one.state), at=at,
        )  # fmt: skip
        chosen = ">" if number == desk.alarm else " "
        rows.append([Span(f"{chosen}{line} ", level if one.state == "UNACK_ALARM" else Level.NORMAL), Span(f" {what}")])
        rows.append([Span(f"     {marks.todo} {todo}")])
    return rows
