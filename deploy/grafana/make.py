"""Write the dashboards of ifpp, from the tables below: `make dashboards`, or `python deploy/grafana/make.py FOLDER`.

Import the JSON files into Grafana (10 or newer) and choose the Prometheus that scrapes the line. A dashboard's line and
station are chosen at its head. Only what is abnormal has a colour.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

L = 'line=~"$line"'
S = 'line=~"$line", station=~"$station"'
RED, ORANGE, GREY, BLUE = "#b3261e", "#d97706", "#8a97a5", "#3b6ea5"


@dataclass(frozen=True)
class Panel:
    """One panel: kind is stat, timeseries, bargauge or table; `queries` are (legend, expression).

    `bad`: (value, colour) from which on it is abnormal; `low`: below it. Sizes in Grafana's grid of 24 columns.
    """

    title: str
    kind: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "none"
    width: int = 6
    height: int = 6
    about: str = ""
    bad: tuple[tuple[float, str], ...] = ()
    low: bool = False


def p95(series: str, labels: str, by: str) -> str:
    """The 95th percentile of a histogram over ten minutes, and 0 while nothing was measured."""
    rate = f"sum by (le, {by}) (rate({series}_bucket{{{labels}}}[10m]))"
    return f"histogram_quantile(0.95, {rate}) >= 0 or sum by ({by}) ({series}_count{{{labels}}}) * 0"


OPERATOR = [
    Panel(
        "Good units, this hour",
        "stat",
        (("", f'ifpp_kpi_units{{{L}, window="hour", count="good"}}'),),
        width=5,
        height=7,
    ),
    Panel(
        "Good units, this shift",
        "stat",
        (("", f'ifpp_kpi_units{{{L}, window="shift", count="good"}}'),),
        width=5,
        height=7,
    ),
    Panel(
        "First pass yield, this shift",
        "stat",
        (("", f'ifpp_kpi_ratio{{{L}, window="shift", ratio="fpy"}}'),),
        "percentunit",
        5,
        7,
        bad=((0.9, ORANGE), (0.8, RED)),
        low=True,
    ),
    Panel(
        "Stations online", "stat", (("", f"ifpp_stations_online{{{L}}}"),), width=4, height=7, bad=((1, RED),), low=True
    ),
    Panel(
        "Heads that need somebody",
        "stat",
        (("", f"sum(ifpp_head_quarantined{{{S}}}) + sum(ifpp_maintenance_due{{{S}}})"),),
        width=5,
        height=7,
        bad=((1, ORANGE),),
    ),
    Panel("Units an hour", "timeseries", (("{{window}}", f"ifpp_kpi_uph{{{L}}}"),), width=12, height=9),
    Panel(
        "Alarms of the line",
        "table",
        (("", f'sum by (priority, state) (ifpp_alarms{{{L}, node="_line"}})'),),
        width=6,
        height=9,
        about="By priority (1 high to 3 low) and state; UNACK_ALARM: nobody has acknowledged it.",
    ),
    Panel(
        "Alarms of heads",
        "table",
        (("", f"ifpp_head_alarm{{{S}}} == 1 or ifpp_head_alarm{{{S}}} == 0"),),
        width=6,
        height=9,
        about="1: the alarm stands (A-110 contact, A-111 fails, A-112 worn, A-113 socket due).",
    ),
    Panel("Held units", "stat", (("{{station}}", f"ifpp_held_units{{{S}}}"),), width=8, height=5, bad=((1, RED),)),
    Panel(
        "Takes units",
        "stat",
        (("{{station}}", f"ifpp_station_accepting{{{S}}}"),),
        width=8,
        height=5,
        bad=((1, RED),),
        low=True,
    ),
    Panel(
        "Events waiting",
        "stat",
        (("{{station}}", f"ifpp_outbox_depth{{{S}}}"),),
        width=8,
        height=5,
        bad=((1000, ORANGE),),
    ),
]
QUALITY = [
    Panel(
        "Yields of the shift",
        "timeseries",
        (("{{ratio}}", f'ifpp_kpi_ratio{{{L}, window="shift", ratio=~"fpy|final_yield"}}'),),
        "percentunit",
        12,
        8,
    ),
    Panel(
        "OEE of the shift and its parts",
        "timeseries",
        (("{{ratio}}", f'ifpp_kpi_ratio{{{L}, window="shift", ratio=~"oee|availability|effectiveness|quality"}}'),),
        "percentunit",
        12,
        8,
    ),
    Panel(
        "Results",
        "timeseries",
        (("{{result}}", f"sum by (result) (rate(ifpp_unit_results_total{{{S}}}[5m])) * 3600"),),
        "none",
        12,
        8,
        "Attempts an hour, by verdict, as these processes saw them.",
    ),
    Panel(
        "Faults by code, 24 h",
        "bargauge",
        (("{{code}}", f"topk(12, sum by (code) (increase(ifpp_defects_total{{{S}}}[24h])))"),),
        width=12,
        height=8,
    ),
    Panel(
        "Contact failures a seating, by head",
        "bargauge",
        (("{{station}}/{{head}}", f"ifpp_contact_failures_total{{{S}}} / (ifpp_insertions_total{{{S}}} > 0)"),),
        "percentunit",
        12,
        10,
    ),
    Panel(
        "Seconds for a kilobyte, by head",
        "bargauge",
        (("{{station}}/{{head}}", f"ifpp_head_kilobyte_seconds{{{S}}}"),),
        "s",
        12,
        10,
    ),
    Panel(
        "Load, 95 %",
        "timeseries",
        (("{{station}} {{product}}", p95("ifpp_load_seconds", S, "station, product")),),
        "s",
        12,
        8,
    ),
    Panel(
        "Insertions of the present socket",
        "bargauge",
        (("{{station}}/{{head}}", f"ifpp_socket_cycles{{{S}}}"),),
        width=12,
        height=8,
    ),
]
CUSTODY = [
    Panel("Packages by state", "bargauge", (("{{state}}", "sum by (state) (ifpp_packages)"),), width=12, height=8),
    Panel(
        "Oldest open package",
        "stat",
        (("{{state}}", "ifpp_open_package_oldest_seconds"),),
        "s",
        12,
        8,
        bad=((14400, ORANGE), (86400, RED)),
        about="CLAIMED, SENT and UNKNOWN; 0 when there is none.",
    ),
    Panel("Reports overdue", "stat", (("", f"ifpp_reports_overdue{{{L}}}"),), width=6, height=6, bad=((1, RED),)),
    Panel(
        "Audit entries not signed",
        "stat",
        (("{{chain}}", "ifpp_audit_unsigned_entries"),),
        width=10,
        height=6,
        bad=((5000, RED),),
    ),
    Panel(
        "Events put aside",
        "stat",
        (("{{station}}", f"ifpp_outbox_rejected{{{S}}}"),),
        width=8,
        height=6,
        bad=((1, RED),),
    ),
    Panel(
        "Key device answers",
        "stat",
        (("{{token}}", "min by (token) (ifpp_key_token_present)"),),
        width=6,
        height=7,
        bad=((1, RED),),
        low=True,
    ),
    Panel(
        "Key operations",
        "timeseries",
        (("{{operation}} {{result}}", "sum by (operation, result) (rate(ifpp_key_operations_total[5m]))"),),
        "ops",
        9,
        7,
    ),
    Panel(
        "Key operation, 95 %",
        "timeseries",
        (("{{operation}}", p95("ifpp_key_operation_seconds", "", "operation")),),
        "s",
        9,
        7,
    ),
    Panel(
        "Events taken",
        "timeseries",
        (("{{outcome}}", f"sum by (outcome) (rate(ifpp_events_total{{{L}}}[5m]))"),),
        "ops",
        12,
        7,
    ),
    Panel("Settling, 95 %", "timeseries", (("{{line}}", p95("ifpp_commit_seconds", L, "line")),), "s", 12, 7),
]
CAPACITY = [
    Panel("Chips with packages", "bargauge", (("{{sku}} {{region}}", "ifpp_coverage_chips"),), width=12, height=7),
    Panel(
        "Below the set hours",
        "stat",
        (("{{sku}} {{region}}", "ifpp_low_stock"),),
        width=12,
        height=7,
        bad=((1, ORANGE),),
    ),
    Panel(
        "Time of heads by E10 state",
        "timeseries",
        (("{{e10}}", f"sum by (e10) (rate(ifpp_state_seconds_total{{{S}}}[5m]))"),),
        "none",
        12,
        8,
        "How many heads are in each state: PRD productive, SBY waiting, UDT and SDT down.",
    ),
    Panel(
        "Commands to chips",
        "timeseries",
        (("{{station}}", f"sum by (station) (rate(ifpp_apdus_total{{{S}}}[5m]))"),),
        "ops",
        12,
        8,
    ),
    Panel("Claim, 95 %", "timeseries", (("{{station}}", p95("ifpp_claim_seconds", S, "station")),), "s", 8, 7),
    Panel(
        "Journal, 95 %", "timeseries", (("{{station}}", p95("ifpp_journal_commit_seconds", S, "station")),), "s", 8, 7
    ),
    Panel(
        "Store, 95 %", "timeseries", (("{{operation}}", p95("ifpp_store_request_seconds", "", "operation")),), "s", 8, 7
    ),
    Panel(
        "CPU",
        "timeseries",
        (("{{job}} {{instance}}", 'rate(process_cpu_seconds_total{job=~"ifpp-.*"}[5m])'),),
        "percentunit",
        12,
        7,
    ),
    Panel(
        "Memory",
        "timeseries",
        (("{{job}} {{instance}}", 'process_resident_memory_bytes{job=~"ifpp-.*"}'),),
        "bytes",
        12,
        7,
    ),
]
DASHBOARDS = {
    "operator": ("ifpp operator wall", OPERATOR),
    "quality": ("ifpp quality", QUALITY),
    "custody": ("ifpp custody", CUSTODY),
    "capacity": ("ifpp capacity", CAPACITY),
}
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard(uid: str, title: str, panels: list[Panel]) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    made, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        made.append(_panel(number, panel, x, y))
        x, row = x + panel.width, max(row, panel.height)
    return {
        "uid": f"ifpp-{uid}",
        "title": title,
        "tags": ["ifpp"],
        "schemaVersion": 38,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-8h", "to": "now"},
        "templating": {"list": [_source(), _variable("line", ""), _variable("station", '{line=~"$line"}')]},
        "panels": made,
    }


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"value": None, "color": GREY if panel.kind != "timeseries" else BLUE}]
    if panel.low:  # abnormal below: the worst first, then up to what is normal
        colours = [colour for _, colour in reversed(panel.bad)] + [GREY]
        values = [None, *(value for value, _ in reversed(panel.bad))]
        steps = [{"value": value, "color": colour} for value, colour in zip(values, colours, strict=True)]
    else:
        steps += [{"value": value, "color": colour} for value, colour in panel.bad]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}, "noValue": "-"},
            "overrides": [],
        },
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expr,
                "legendFormat": legend,
                "instant": panel.kind != "timeseries",
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for place, (legend, expr) in enumerate(panel.queries)
        ],
    }


def _options(panel: Panel) -> dict[str, Any]:
    last: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    if panel.kind == "stat":
        return last | {"colorMode": "value", "graphMode": "none", "textMode": "auto"}
    if panel.kind == "bargauge":
        return last | {"orientation": "horizontal", "displayMode": "basic"}
    return {}


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(name: str, within: str) -> dict[str, Any]:
    query = f"label_values(ifpp_station_accepting{within}, {name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def texts() -> dict[str, str]:
    """Return every file's name and text."""
    return {
        f"{uid}.json": json.dumps(dashboard(uid, title, panels), indent=1) + "\n"
        for uid, (title, panels) in DASHBOARDS.items()
    }


def main(folder: Path) -> None:
    """Write every dashboard."""
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
