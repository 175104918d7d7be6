"""`ifpp alarm list|ack|shelve|unshelve|figures`: what stands on the line, acting on it, and how good the alarms are."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from ifpp.bus.client import BrokerAddress
from ifpp.bus.topics import Topics
from ifpp.bus.visit import act_on_alarm, alarms_of
from ifpp.line.alarm_figures import AlarmFigures, figures, read
from ifpp.model.alarm_acts import check_request
from ifpp.model.alarms import ActiveAlarms, AlarmCommand
from ifpp.model.clock import SystemClock
from ifpp.roles.runtime import broker_tls
from ifpp.settings import load_site
from ifpp.store.factory import Factory

_MARKS = {1: "■1", 2: "▲2", 3: "●3"}


@dataclass(frozen=True, slots=True)
class Act:
    """What a person does to an alarm: ACK, SHELVE, UNSHELVE, OUT_OF_SERVICE or IN_SERVICE."""

    action: str
    alarm_id: str
    by: str
    reason: str = ""
    minutes: int = 0
    wait_s: float = 10.0


def show(site_file: Path, *, as_json: bool) -> int:
    """Print the alarms of the line; returns 1 while one of them rings. Raises ServiceError."""
    topics, address = _where(site_file)
    heard, document = asyncio.run(alarms_of(address, topics))
    if as_json:
        sys.stdout.write(f"{document.decode()}\n")
    else:
        sys.stdout.write(_listed(heard))
    return int(heard.horn)


def act(site_file: Path, what: Act) -> int:
    """Ask the supervisor, which passes on what belongs to a station; 1 when it is refused. Raises IfppError."""
    command = AlarmCommand(
        schema="alarm/1.0",
        request_id=str(uuid4()),
        alarm_id=what.alarm_id,
        action=what.action,
        operator_id=what.by,
        reason=what.reason,
        minutes=what.minutes,
    )
    check_request(command)
    topics, address = _where(site_file)
    answer = asyncio.run(act_on_alarm(address, topics, command, what.wait_s))
    sys.stdout.write(f"{what.action} {what.alarm_id}: {answer.text}\n")
    return int(answer.status == "REJECTED")


def count(site_file: Path, days: float) -> int:
    """Print the performance figures of the last days. Raises IfppError."""
    site, now = load_site(site_file), SystemClock().now()
    start = now - timedelta(days=days)
    factory = Factory.open(site.store.database)
    try:
        told = factory.alarms.told(site.line, start)
    finally:
        factory.close()
    sys.stdout.write(_counted(figures(read(told), start, now)))
    return 0


def _where(site_file: Path) -> tuple[Topics, BrokerAddress]:
    site = load_site(site_file)
    shown = broker_tls(site, site_file)
    address = BrokerAddress(site.broker.host, site.broker.port, tls=shown.current if shown else None)
    return Topics(site.enterprise, site.site, site.area, site.line, site.broker.prefix), address


def _listed(heard: ActiveAlarms) -> str:
    rows = [
        f"{_MARKS.get(one.priority, '?')} {one.code} {one.state:<14} {one.text} - {one.source} - {one.action}\n"
        f"   {alarm_id} since {one.first_at}"
        + (f", {one.count} times" if one.count > 1 else "")
        + (f", {one.operator_id}" if one.operator_id else "")
        + (f" until {one.shelved_until}" if one.shelved_until else "")
        + (f": {one.reason}" if one.reason else "")
        + "\n"
        for alarm_id, one in heard.alarms.items()
    ]
    total = f"{len(rows)} alarms, {heard.shelved} shelved, {heard.suppressed} suppressed\n"
    first = [heard.alarms[key] for key in heard.first_out if key in heard.alarms]
    names = ", ".join(f"{one.code} {one.source}" for one in first)
    return "".join(rows) + (f"FLOOD, came first: {names}\n" if heard.flood else "") + total


def _counted(found: AlarmFigures) -> str:
    def names(pairs: list[tuple[str, str]]) -> str:
        return ", ".join(f"{code} {source}" for code, source in pairs) or "none"

    lines = [
        f"rings          {found.rings} ({found.per_day:.1f} a day, {found.per_hour:.2f} an hour; 150 and 6 are good)",
        "priorities     " + (", ".join(f"{key}: {value}" for key, value in found.by_priority.items()) or "none"),
        f"floods         {found.flood_periods} of {found.periods} periods of 10 min ({found.flood_share:.2%}; 1 %)",
        f"top ten        {found.top_share:.1%} of the rings",
        *(f"  {rings:6} {code} {source}" for (code, source), rings in found.top),
        f"stale          {names(found.stale)}",
        f"chattering     {names(found.chattering)}",
    ]
    return "\n".join(lines) + "\n"
