"""A report as one HTML page: nothing is loaded, nothing runs, it prints on A4, and every name is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from ifpp.line.report_data import LineReport
from ifpp.line.report_text import notes, number, seconds, share, span, standing, title
from ifpp.line.svg import Bar, Point, Range, bar_chart, control_chart, range_chart
from ifpp.model.kpi import Figures

_ROWS = 12
_HEADS = 32
STYLE = """
:root{--ink:#1f2933;--soft:#66707a;--grid:#dde1e5;--alarm:#b3261e;color-scheme:light}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 32px 40px;max-width:1040px;background:#fff;color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
header{display:flex;justify-content:space-between;align-items:end;gap:24px;
border-bottom:3px solid var(--ink);padding-bottom:14px}
h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}
h2{font-size:17px;margin:30px 0 8px}
header p{margin:4px 0 0;color:var(--soft)}
header .state{text-align:right;white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:12px;margin:20px 0 4px}
.tile{border:1px solid var(--grid);border-radius:8px;padding:10px 12px}
.tile b{display:block;font-size:24px;line-height:1.25;white-space:nowrap}
.tile span{color:var(--soft);font-size:12.5px;line-height:1.35;display:block}
ul.notes{list-style:none;margin:0;padding:0}
ul.notes li{padding:3px 0 3px 26px;position:relative;overflow-wrap:anywhere}
ul.notes li::before{content:"\\2013";position:absolute;left:8px;color:var(--soft)}
ul.notes li.act{font-weight:600}
ul.notes li.act::before{content:"!";color:#fff;background:var(--alarm);left:0;top:6px;width:18px;height:18px;
border-radius:4px;text-align:center;font-size:13px;line-height:18px}
figure{margin:0;break-inside:avoid}
figcaption{color:var(--soft);font-size:13px;margin:2px 0 6px}
svg{width:100%;height:auto;display:block;font:12px system-ui,"Segoe UI",Roboto,Arial,sans-serif}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:28px}
table{border-collapse:collapse;width:100%;font-size:13.5px;break-inside:auto}
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--grid)}
th{font-weight:600;color:var(--soft);border-bottom:1.5px solid var(--soft)}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}
tr{break-inside:avoid}
.none{color:var(--soft)}
footer{margin-top:30px;border-top:1px solid var(--grid);padding-top:8px;color:var(--soft);font-size:12.5px}
@page{size:A4;margin:14mm}
@media print{body{padding:0;font-size:12.5px;max-width:none}h2{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
@media(max-width:720px){.tiles{grid-template-columns:repeat(2,1fr)}.pair{grid-template-columns:1fr}header{display:block}}
"""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""


def as_html(report: LineReport) -> str:
    """Return the whole page."""
    name = escape(f"{title(report)}, line {report.line}")
    return (
        f"{HEAD}<title>{name}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(_body(report))
        + "\n</body></html>\n"
    )


def _body(report: LineReport) -> Iterator[str]:
    content = report.written.content
    yield (
        f"<header><div><h1>{escape(title(report))}</h1><p>{escape(span(report))}</p></div>"
        f'<div class="state"><b>Line {escape(report.line)}</b><p>{escape(standing(report))}</p></div></header>'
    )
    yield _tiles(report)
    listed = "".join(f"<li{' class=act' if note.act else ''}>{escape(note.text)}</li>" for note in notes(report))
    yield f'<h2>For the next shift</h2><ul class="notes">{listed}</ul>'
    yield _section("First pass yield over time", _yield(report), _about_yield(report))
    yield '<div class="pair"><div>' + _section("Faults, by count", _faults(report), "Attempts that did not pass.")
    yield (
        "</div><div>"
        + _section("Lost time", _losses(report), "Time of heads: faults and SEMI E10 states.")
        + "</div></div>"
    )
    yield _section("Time of a load, by head and chip firmware", _loads(report), _about_loads(report))
    yield _section("Packages in stock", _coverage(report), f"When this was made. {_ABOUT_COVERAGE}")
    for what, key in (("Station", "stations"), ("SKU", "skus"), ("Job order", "jobs")):
        if content[key]:
            yield f"<h2>By {what[0].lower() + what[1:] if what != 'SKU' else what}</h2>" + _table(what, content[key])
    made = report.local(report.made_at).strftime("%d %b %Y %H:%M")
    made = escape(f"Made {made} ({report.zone}) from the events of the line. Figures are those of ifpp kpi.")
    yield f"<footer>{made}</footer>"


def _tiles(report: LineReport) -> str:
    total, target = report.total, report.window.target
    oee = total.oee
    parts = (
        "no planned cycle"
        if oee is None or oee.oee is None
        else (f"A {share(oee.availability)} P {share(oee.effectiveness)} Q {share(oee.quality)}")
    )
    tiles = [
        (f"{total.good}", f"good units{f' of {target} wanted' if target else ''}"),
        (share(total.fpy), f"first pass yield: {total.first_pass} of {total.units_in}"),
        (share(total.final_yield), f"final yield: {total.final_pass} of {total.units_out}"),
        (number(total.uph), "good units an hour"),
        (share(None if oee is None else oee.oee), f"OEE: {parts}"),
        (share(total.retest_rate), f"retested: {total.units_retested} units, {total.recovered} recovered"),
    ]
    made = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{made}</div>'


def _section(heading: str, drawing: str, about: str) -> str:
    if not drawing:
        return f'<h2>{escape(heading)}</h2><p class="none">Nothing to show: there was none.</p>'
    return f"<h2>{escape(heading)}</h2><figure><figcaption>{escape(about)}</figcaption>{drawing}</figure>"


def _yield(report: LineReport) -> str:
    if report.total.fpy is None:
        return ""
    whole_minutes = all(piece.start[17:19] == "00" for piece in report.time)
    points = [
        Point(
            report.local(one.start).strftime("%H:%M" if whole_minutes else "%H:%M:%S"),
            one.fpy,
            one.low,
            one.high,
            one.outside,
            one.units_in,
        )
        for one in report.time
    ]
    return control_chart(points, report.total.fpy, "First pass yield over time with control limits")


def _about_yield(report: LineReport) -> str:
    outside = sum(one.outside for one in report.time)
    found = "no point is outside" if not outside else f"{outside} outside, drawn as diamonds"
    return f"Middle line: {share(report.total.fpy)}; dashed: limits of chance for the units of each point; {found}."


def _faults(report: LineReport) -> str:
    counts = list(report.written.content["top_defects"].items())[:_ROWS]
    whole = sum(report.written.content["top_defects"].values())
    bars = [Bar(code, count, f"{count} ({100 * count / whole:.0f} %)") for code, count in counts]
    return bar_chart(bars, "Faults by count", width=440) if bars else ""


def _losses(report: LineReport) -> str:
    losses = list(report.written.content["losses"].items())[:_ROWS]
    bars = [Bar(code, loss.ms / 1000, f"{seconds(loss.ms)} ({loss.count} x)") for code, loss in losses]
    return bar_chart(bars, "Lost time by cause", width=440) if bars else ""


def _loads(report: LineReport) -> str:
    slowest = sorted(report.loads, key=lambda one: (-one.ms[2], one.head))[:_HEADS]
    rows = [
        Range(
            f"{one.head}, {one.firmware}".removesuffix(", "),
            (one.ms[0] / 1000, one.ms[1] / 1000, one.ms[2] / 1000, one.ms[3] / 1000, one.ms[4] / 1000),
            f"{one.ms[2] / 1000:.2f} s, n = {one.loads}",
        )
        for one in sorted(slowest, key=lambda one: (one.head, one.firmware))
    ]
    return range_chart(rows, "s", "Time of a load by head and chip firmware") if rows else ""


def _about_loads(report: LineReport) -> str:
    shown = f" The {_HEADS} slowest of {len(report.loads)}." if len(report.loads) > _HEADS else ""
    whose = " Those of every job order in this time." if report.window.kind == "job" else ""
    return (
        f"Line: 5 % to 95 % of the loads; box: the middle half; stroke: median, with the number of loads.{whose}{shown}"
    )


_ABOUT_COVERAGE = "Chips whose packages can be loaded; the stroke is what is still to be made."


def _coverage(report: LineReport) -> str:
    bars = [
        Bar(
            f"{one.sku} {one.region}".strip(),
            one.covered,
            f"{one.covered}" + (f", lasts {one.hours_left:.1f} h" if one.hours_left is not None else ""),
            None if one.needed is None else float(one.needed),
            one.low,
        )
        for one in report.coverage
    ]
    return bar_chart(bars, "Packages in stock by product") if bars else ""


def _table(what: str, parts: Mapping[str, Figures]) -> str:
    head = "".join(f"<th>{one}</th>" for one in (what, "good", "units in", "FPY", "final yield", "retested", "OEE"))
    rows = []
    for name, one in parts.items():
        oee = None if one.oee is None else one.oee.oee
        cells = [
            name or "-",
            one.good,
            one.units_in,
            share(one.fpy),
            share(one.final_yield),
            share(one.retest_rate),
            share(oee),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
