"""The line screen as rows of text, for a terminal of any size; pure, so that every state can be looked at in a test."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len

from ifpp.tui.cells import banner_rows, cut, fill, fit, marks_dash, whole, wrapped
from ifpp.tui.line_desk import LineDesk
from ifpp.tui.line_view import (
    LOW_HOURS,
    UNKNOWN,
    alarm_levels,
    banner,
    done,
    hand_over,
    pareto,
    percent,
    sparkline,
    station_row,
)
from ifpp.tui.marks import LEVEL_OF_PRIORITY, Level, Row, Span
from ifpp.tui.paint import Moment
from ifpp.tui.view import alarm_words, head_state, local, verdict

_SMALLEST = (40, 10)
_FRAME = 7
_SPARK = 30
_BAR = 12
_COLUMNS = (
    ("line.col_station", 10), ("line.col_state", 12), ("line.col_job", 12), ("line.col_good", 7), ("line.col_fpy", 9),
    ("line.col_uph", 6), ("line.col_busy", 8), ("line.col_out", 5),
)  # fmt: skip


def paint(desk: LineDesk, moment: Moment, width: int, height: int) -> list[Row]:
    """Return `height` rows of at most `width` cells."""
    width, height = max(1, width), max(1, height)
    said = banner(desk.heard, moment.now_s, desk.words)
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        rows = _small(desk, moment, width, height)
    else:
        frame = [_title(desk, moment, width), _figures(desk, width), *banner_rows(said, desk.marks, width)]
        body = _body(desk, moment, width, height - _FRAME)
        rows = [*frame, *fill(body, height - _FRAME), _message(desk, width), _scan(desk, width), _keys(desk, width)]
    return [cut(row, width) for row in fill(rows, height)]


def _small(desk: LineDesk, moment: Moment, width: int, height: int) -> list[Row]:
    """What must be done, wrapped; then the stations that want somebody."""
    marks, said = desk.marks, banner(desk.heard, moment.now_s, desk.words)
    line = (
        f"{marks.of(said.level).strip()} {said.what} {marks_dash(marks)} {said.where} {marks.todo} {said.todo}".strip()
    )
    rows: list[Row] = [[Span(fit(one, width, marks), said.level)] for one in wrapped(line, width)]
    for name in desk.heard.names:
        one = station_row(desk.heard, name, desk.words, marks)
        if one.level not in (Level.NORMAL, Level.GOOD):
            rows.append([Span(fit(f"{one.name} {one.mark} {one.word}", width, marks), one.level)])
    return rows[:height]


# ---- frame --------------------------------------------------------------------------------------------


def _title(desk: LineDesk, moment: Moment, width: int) -> Row:
    heard, words = desk.heard, desk.words
    where = [heard.name or UNKNOWN]
    if desk.place in ("station", "head"):
        where.append(desk.station)
    if desk.place == "head":
        where.append(desk.head)
    if desk.place == "unit":
        where.append(words("line.unit", unit=desk.unit))
    here = sum(not heard.away(name) for name in heard.names)
    left = f" {' / '.join(where)}  {words('line.here', here=here, all=len(heard.names))}"
    if not heard.connected:
        live, level = words("line.stale"), Level.HIGH
    elif heard.line_away:
        live, level = words("top.line_away"), Level.HIGH
    else:
        live, level = words("top.live"), Level.NORMAL
    right = f" {moment.clock} "
    state = f" {live.strip()} "
    return [Span(fit(left, width - cell_len(right) - cell_len(state), desk.marks)), Span(right), Span(state, level)]


def _figures(desk: LineDesk, width: int) -> Row:
    heard, words, marks = desk.heard, desk.words, desk.marks
    good, wanted = done(heard)
    shift = heard.shift
    parts = [
        Span(f" {words('figure.done')} {f'{good}/{wanted}' if heard.orders else UNKNOWN} "),
        Span(f" {words('figure.fpy')} {percent(shift.fpy if shift else None)} "),
        Span(f" {words('line.final')} {percent(shift.final_yield if shift else None)} "),
        Span(f" {words('line.uph')} {UNKNOWN if shift is None or shift.uph is None else f'{shift.uph:.0f}'} "),
    ]
    levels = [Span(f" {marks.of(level)}{count} ", level) for level, count in alarm_levels(heard).items() if count]
    parts += [Span(f" {words('figure.alarms')} "), *(levels or [Span(f"{UNKNOWN if heard.alarms is None else 0} ")])]
    if heard.alarms is not None and heard.alarms.shelved:
        parts.append(Span(f" {words('figure.shelved')} {heard.alarms.shelved} "))
    parts.append(Span(f" {words('line.oee')} {percent(shift.oee.oee if shift and shift.oee else None)} "))
    if _old(desk):
        parts = [Span(part.text, Level.DIM) for part in parts]
    return whole(parts, width)


def _old(desk: LineDesk) -> bool:
    """Whether the line's own figures stand still."""
    return not desk.heard.connected or desk.heard.line_away


def _message(desk: LineDesk, width: int) -> Row:
    return [Span(fit(f" {desk.message}" if desk.message else "", width, desk.marks), desk.message_level)]


def _scan(desk: LineDesk, width: int) -> Row:
    shown = desk.typed or desk.words("line.ready")
    return [Span(" > "), Span(fit(shown, width - 3, desk.marks), Level.NORMAL if desk.typed else Level.DIM)]


def _keys(desk: LineDesk, width: int) -> Row:
    arrows = "^v" if desk.marks.minus == "-" else "↑↓"
    keys = [("F1", "key.help"), ("F8", "key.alarms"), ("F9", "line.key_hand"), (arrows, "line.key_choose"),
            ("Enter", "line.key_down"), ("Esc", "line.key_back"), ("^Q", "key.quit")]  # fmt: skip
    return whole([Span(f" {key} {desk.words(name)} ", Level.DIM) for key, name in keys], width)


# ---- body ---------------------------------------------------------------------------------------------


def _body(desk: LineDesk, moment: Moment, width: int, height: int) -> list[Row]:
    pages: dict[str, Callable[[], list[Row]]] = {
        "help": lambda: _text(desk, desk.words("line.help").strip().splitlines(), width, height),
        "alarms": lambda: _scrolled(desk, _alarms(desk), height),
        "hand": lambda: _text(desk, hand_over(desk.heard, desk.words), width, height),
    }
    places: dict[str, Callable[[], list[Row]]] = {
        "line": lambda: _line(desk, moment, width, height),
        "station": lambda: _station(desk, width, height),
        "head": lambda: _text(desk, _head(desk), width, height),
        "unit": lambda: _text(desk, desk.custody or [desk.words("line.looking")], width, height),
    }
    return pages[desk.page]() if desk.page else places[desk.place]()


def _text(desk: LineDesk, lines: list[str], width: int, height: int) -> list[Row]:
    """Show lines, wrapped under their own indent."""
    rows: list[Row] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 1)
        shown = wrapped(f" {line}", width - 1, f"{indent}  ") or [""]
        level = Level.GOOD if desk.page == "hand" and not rows else Level.NORMAL
        rows += [[Span(one if one.startswith(" ") else f" {one}", level)] for one in shown]
    return _scrolled(desk, rows, height)


def _scrolled(desk: LineDesk, rows: list[Row], height: int) -> list[Row]:
    """Show what fits from the chosen line on, and say how much is below."""
    if len(rows) <= height:
        desk.top = 0
        return rows
    desk.top = min(desk.top, len(rows) - height + 1)
    left = len(rows) - desk.top - (height - 1)
    more = desk.words("line.more", count=left) if left > 0 else desk.words("line.end")
    return [*rows[desk.top : desk.top + height - 1], [Span(f" {more}", Level.DIM)]]


def _line(desk: LineDesk, moment: Moment, width: int, height: int) -> list[Row]:
    """Stations; below them throughput, and defects beside coverage as far as there is room."""
    rows = _stations(desk, height)
    if (room := height - len(rows)) >= 3:
        rows += [[], _throughput(desk, moment, width)]
        room -= 2
    if room >= 3:
        left, right = _defects(desk, room - 1), _coverage(desk, room - 1)
        half = width // 2
        rows.append([])
        for number in range(max(len(left), len(right))):
            one = left[number] if number < len(left) else []
            pad = half - sum(cell_len(span.text) for span in one)
            other = right[number] if number < len(right) else []
            rows.append([*cut(one, half), Span(" " * max(0, pad)), *cut(other, width - half)])
    return rows


def _stations(desk: LineDesk, height: int) -> list[Row]:
    words, heard = desk.words, desk.heard
    names = heard.names
    if not names:
        return [[Span(f" {words('line.nobody')}", Level.DIM)]]
    head = "".join(fit(words(name), room, desk.marks) for name, room in _COLUMNS)
    rows: list[Row] = [[Span(f"  {head}", Level.DIM)]]
    most = max(1, height - 1 - (6 if height > 12 else 0))
    first = _window(names, desk.station, most)
    for name in names[first : first + most]:
        rows.append(_station_line(desk, name))
    if len(names) > most:
        rows[-1] = [Span(f"  {words('line.more', count=len(names) - most + 1)}", Level.DIM)]
    return rows


def _station_line(desk: LineDesk, name: str) -> Row:
    one = station_row(desk.heard, name, desk.words, desk.marks)
    stale = not desk.heard.connected
    normal = Level.DIM if stale else Level.NORMAL
    cells = (one.name, f"{one.mark} {one.word}", one.job, one.good, one.fpy, one.uph, one.busy, str(one.out or "-"))
    shown = [fit(text, room - 1, desk.marks) for text, (_, room) in zip(cells, _COLUMNS, strict=True)]
    state, rest = shown[1], "".join(f" {cell}" for cell in shown[2:])
    chosen = name == desk.station
    name_level = Level.GOOD if chosen and not stale else normal
    return [
        Span(f" {'>' if chosen else ' '}"), Span(f"{shown[0]} ", name_level),
        Span(state, Level.DIM if stale else one.level), Span(rest, normal),
    ]  # fmt: skip


def _window(names: list[str], chosen: str, most: int) -> int:
    """Return the first name to show so that the chosen one is seen."""
    at = names.index(chosen) if chosen in names else 0
    return max(0, min(at - most // 2, len(names) - most))


def _throughput(desk: LineDesk, moment: Moment, width: int) -> Row:
    counts = desk.heard.per_minute(moment.now_s)
    known = [one for one in counts[-_SPARK:] if one is not None]
    title = f" {desk.words('line.throughput')} "
    room = max(0, min(_SPARK, width - cell_len(title) - 24))
    said = desk.words("line.throughput_now", now=known[-2] if len(known) > 1 else UNKNOWN, most=max(known, default=0))
    return [Span(title, Level.DIM), Span(sparkline(counts, room, desk.marks)), Span(f"  {said}", Level.DIM)]


def _defects(desk: LineDesk, most: int) -> list[Row]:
    words, marks = desk.words, desk.marks
    rows: list[Row] = [[Span(f" {words('line.pareto')}", Level.DIM)]]
    found = pareto(desk.heard, most - 1)
    for code, count, share in found:
        bar = marks.full * max(1, round(share * _BAR))
        rows.append([Span(f" {fit(code, 18, marks)} {bar}{' ' * (_BAR - len(bar))} {count:>4}")])
    return rows if found else [*rows, [Span(f" {words('hand.none')}")]]


def _coverage(desk: LineDesk, most: int) -> list[Row]:
    words, marks = desk.words, desk.marks
    rows: list[Row] = [[Span(f" {words('line.coverage')}", Level.DIM)]]
    jobs = desk.heard.stock.jobs if desk.heard.stock else {}
    for name, one in list(jobs.items())[: most - 1]:
        share = min(1.0, one.covered / one.expected_units) if one.expected_units else 1.0
        full = round(share * _BAR)
        left = words("figure.units", units=one.covered) if one.hours_left is None else ""
        left = left or words("figure.hours", hours=f"{one.hours_left:.1f}")
        low = one.hours_left is not None and one.hours_left < LOW_HOURS
        level = Level.DIM if _old(desk) else Level.LOW if low else Level.NORMAL
        bar = f"{marks.full * full}{marks.rest * (_BAR - full)}"
        rows.append([Span(f" {fit(name, 12, marks)} {bar} "), Span(f"{left}", level)])
    return rows if jobs else [*rows, [Span(f" {words('hand.none')}")]]


def _station(desk: LineDesk, width: int, height: int) -> list[Row]:
    """The heads of one station, one a line."""
    words, marks, state = desk.words, desk.marks, desk.heard.stations.get(desk.station)
    if state is None:
        return [[Span(f" {words('line.no_word', station=desk.station)}", Level.MEDIUM)]]
    stale = not desk.heard.connected or desk.heard.away(desk.station)
    rows: list[Row] = []
    names = list(state.heads)
    most = max(1, height - 2)
    for name in names[(first := _window(names, desk.head, most)) : first + most]:
        head = state.heads[name]
        mark, word, level = head_state(head, words, marks)
        last = " ".join(verdict(head, words, marks)[:2]) if head.last else UNKNOWN
        chosen = ">" if name == desk.head else " "
        unit = head.sn or head.eid[-8:] or UNKNOWN
        rest = (
            f" {fit(last, 11, marks)} {fit(unit, 12, marks)} {head.ok:>6} {head.ng:>5} {head.cycles:>7}  {head.reason}"
        )
        normal = Level.DIM if stale else Level.GOOD if name == desk.head else Level.NORMAL
        rows.append([
            Span(f" {chosen}{fit(name, 6, marks)}", normal),
            Span(fit(f"{mark} {word}", 12, marks), Level.DIM if stale else level),
            Span(fit(rest, max(0, width - 20), marks), Level.DIM if stale else Level.NORMAL),
        ])  # fmt: skip
    if stale:
        rows.insert(0, [Span(f" {words('line.station_stale', station=desk.station)}", Level.HIGH)])
    title = fit(words("line.heads_title"), width - 2, marks)
    return [[Span(f"  {title}", Level.DIM)], *rows]


def _head(desk: LineDesk) -> list[str]:
    """All a station says of one head."""
    words, state = desk.words, desk.heard.stations.get(desk.station)
    head = state.heads.get(desk.head) if state else None
    if head is None:
        return [words("line.no_word", station=f"{desk.station}/{desk.head}")]
    mark, word, _ = head_state(head, words, desk.marks)
    none, contacts = words("hand.none"), head.contact_units
    lines = [
        words("line.head_state", mark=mark, state=word, since=local(head.since, "%H:%M:%S")),
        words("line.head_unit", eid=head.eid or none, sn=head.sn or none),
        *([words("line.head_load", loaded=head.loaded, total=head.to_load)] if head.to_load else []),
        words("line.head_last", last=head.last or UNKNOWN, fault=head.fault or none),
        words("line.head_counts", ok=head.ok, ng=head.ng, cycles=head.cycles),
        *([words("line.head_contact", bad=head.contact_failures, units=contacts)] if contacts else []),
        words("line.head_blocked", reason=head.reason or none),
        words("line.head_alarms", alarms=" ".join(head.alarms) or none),
    ]
    if desk.heard.away(desk.station) or not desk.heard.connected:
        lines.insert(0, words("line.station_stale", station=desk.station))
    return lines


def _alarms(desk: LineDesk) -> list[Row]:
    words, marks = desk.words, desk.marks
    standing = desk.heard.standing()
    if not standing:
        return [[Span(f" {words('alarms.none')}")]]
    rows: list[Row] = [[Span(f" {words('alarms.title')}", Level.GOOD)]]
    for _, one in standing:
        level = LEVEL_OF_PRIORITY.get(one.priority, Level.MEDIUM)
        what, todo = alarm_words(one, words)
        said = words(
            "alarms.row", mark=marks.of(level), priority=one.priority, code=one.code, source=one.source,
            state=words.of("alarmstate", one.state, one.state), at=local(one.first_at),
        )  # fmt: skip
        rows.append([Span(f" {said} ", level if one.state == "UNACK_ALARM" else Level.NORMAL), Span(f" {what}")])
        rows.append([Span(f"     {marks.todo} {todo}")])
    return rows
