"""A report as words for the next shift, and as rows for a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from ifpp.line.report_data import LineReport
from ifpp.model.kpi import Figures

_PARTS = ("stations", "heads", "skus", "jobs", "operations")


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence of the hand-over; `act`: somebody has to do something."""

    text: str
    act: bool = False


def share(value: float | None) -> str:
    """Write a ratio as `ifpp kpi` does."""
    return "-" if value is None else f"{100 * value:.2f} %"


def number(value: float | None, unit: str = "") -> str:
    """Write a figure as `ifpp kpi` does."""
    return "-" if value is None else f"{value:.1f}{unit}"


def seconds(ms: float) -> str:
    """Write a time by its size: 12.3 s, 4 min, 1 h 05 min."""
    whole = round(ms / 1000)
    if whole < 120:
        return f"{ms / 1000:.1f} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def title(report: LineReport) -> str:
    """Return what it is about, in words."""
    what = "Job order" if report.window.kind == "job" else "Shift"
    return f"{what} {report.name}"


def span(report: LineReport) -> str:
    """Return from when to when, on the wall's clock."""
    start, end = (
        report.local(report.written.content["window"].start),
        report.local(report.written.content["window"].end),
    )
    form = "%d %b %Y %H:%M" if report.window.kind == "shift" else "%d %b %Y %H:%M:%S"
    last = end.strftime(form[-5:] if start.date() == end.date() and report.window.kind == "shift" else form)
    return f"{start.strftime(form)} to {last} ({report.zone})"


def standing(report: LineReport) -> str:
    """Return whether the figures can still change."""
    if report.written.content["complete"]:
        return f"complete, revision {report.written.revision}"
    return "not complete: figures may change" if report.written.revision else "still open: figures will change"


def notes(report: LineReport) -> list[Note]:
    """Return what the next shift should know, what wants somebody first."""
    return sorted(_notes(report), key=lambda note: not note.act)


def _notes(report: LineReport) -> Iterator[Note]:
    total, content = report.total, report.written.content
    if total.attempts + total.unidentified == 0:
        yield Note("No unit was worked on.")
    else:
        wanted = f" of {report.window.target} wanted" if report.window.target else ""
        yield Note(f"{total.good} good units{wanted}, {number(total.uph)} an hour.")
        yield Note(f"First pass yield {share(total.fpy)}: {total.first_pass} of {total.units_in}.")
        if total.units_out > total.final_pass:
            yield Note(f"{total.units_out - total.final_pass} units ended without a pass.")
    for one in (one for one in report.time if one.outside):
        side = "below" if (one.fpy or 0) < (one.low or 0) else "above"
        at = report.local(one.start).strftime("%H:%M:%S").removesuffix(":00")
        yield Note(f"Yield {side} its limits from {at} on: {share(one.fpy)} of {one.units_in}.", act=side == "below")
    for code, count in list(content["top_defects"].items())[:1]:
        yield Note(f"Most frequent fault: {code}, {count} time{'' if count == 1 else 's'}.")
    for code, loss in list(content["losses"].items())[:1]:
        yield Note(f"Most time lost to {code}: {seconds(loss.ms)} of the heads.")
    for head, times in sorted(report.slow_heads.items()):
        yield Note(f"Head {head} takes {times:.2f} times as long as the others: look at its contact.", act=True)
    if report.open_packages:
        yield Note(f"{report.open_packages} packages wait for a chip's own answer: see ifpp balance.", act=True)
    for product in (one for one in report.coverage if one.low):
        hours = number(product.hours_left, " h")
        yield Note(f"Packages for {product.sku} {product.region} last {hours}: tell the planner.", act=True)
    if not content["complete"]:
        yield Note("Figures may still change: not every event has come.")


def as_text(report: LineReport) -> str:
    """Return the hand-over as lines."""
    head = [f"{title(report)}, line {report.line}", span(report), standing(report), ""]
    return "\n".join([*head, *(f"{'!' if note.act else '-'} {note.text}" for note in notes(report))]) + "\n"


def as_csv(report: LineReport) -> str:
    """Return one row a figure: what it is of, whose, its name, its value. Spreadsheets run nothing of it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["part", "name", "figure", "value"])
    for row in _rows(report):
        writer.writerow([_harmless(one) for one in row])
    return out.getvalue()


def _rows(report: LineReport) -> Iterator[tuple[str, str, str, object]]:
    content = report.written.content
    yield from _figures("total", report.name, report.total)
    for part in _PARTS:
        for name, one in content[part].items():
            yield from _figures(part, name, one)
    for piece in report.time:
        for figure in ("units_in", "first_pass", "fpy", "low", "high"):
            yield "time", piece.start, figure, getattr(piece, figure)
    for code, count in content["top_defects"].items():
        yield "top_defects", code, "count", count
    for code, loss in content["losses"].items():
        yield "losses", code, "count", loss.count
        yield "losses", code, "ms", loss.ms
    for load in report.loads:
        name = f"{load.head} {load.firmware}".strip()
        yield "loads", name, "loads", load.loads
        for percent, ms in zip((5, 25, 50, 75, 95), load.ms, strict=True):
            yield "loads", name, f"ms_p{percent}", ms
    for product in report.coverage:
        for figure in ("needed", "covered", "uncovered", "missing", "hours_left"):
            yield "coverage", f"{product.sku} {product.region}".strip(), figure, getattr(product, figure)


def _figures(part: str, name: str, figures: Figures) -> Iterator[tuple[str, str, str, object]]:
    plain = msgspec.to_builtins(figures)
    nested = {f"oee.{key}": value for key, value in plain.pop("oee", {}).items()}
    nested |= {f"state_ms.{key}": value for key, value in plain.pop("state_ms", {}).items()}
    for figure, value in (plain | nested).items():
        yield part, name, figure, value


def _harmless(value: object) -> object:
    """A cell that a spreadsheet would take for a formula gets a quote before it."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
