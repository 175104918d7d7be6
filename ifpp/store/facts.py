"""What an event adds to the tables of figures (`ifpp.store.figure_tables`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, tuple_

from ifpp.model.clock import parse_utc
from ifpp.model.messages import Link, StateChanged, UnitResultEvent
from ifpp.model.states import PackageState
from ifpp.store import settle
from ifpp.store.figure_tables import station_line, unit_again
from ifpp.store.records import MAX_SEQ, ReceivedEvent
from ifpp.store.schema import job_order, unit_attempt

_STATE = msgspec.json.Decoder(StateChanged)
_MAX_NAME = 200

_lines = (
    select(job_order.c.job_order_id, job_order.c.line)
    .where(job_order.c.job_order_id.in_(bindparam("jobs", expanding=True)))
    .distinct()
)
_known = select(station_line.c.node_id, station_line.c.line).where(
    station_line.c.node_id.in_(bindparam("nodes", expanding=True))
)

_attempted = unit_attempt.c
_again = (
    select(_attempted.operation, _attempted.unit)
    .where(tuple_(_attempted.operation, _attempted.unit).in_(bindparam("units", expanding=True)))
    .group_by(_attempted.operation, _attempted.unit)
    .having(func.count() > 1)
)
_not_noted = insert(unit_again).from_select(
    ["node_id", "seq", "operation", "unit", "ended_at"],
    select(_attempted.node_id, _attempted.seq, _attempted.operation, _attempted.unit, _attempted.ended_at)
    .join(
        unit_again,
        (unit_again.c.node_id == _attempted.node_id) & (unit_again.c.seq == _attempted.seq),
        isouter=True,
    )
    .where(
        _attempted.operation == bindparam("of_operation"),
        _attempted.unit == bindparam("of_unit"),
        unit_again.c.seq.is_(None),
    ),
)


def unix_ms(at: datetime) -> int:
    """Return whole milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def span_row(event: ReceivedEvent) -> dict[str, Any]:
    """Return the stay that a state_changed ends. Raises CustodyError CUSTODY.EVENT_REFUSED."""
    try:
        document = _STATE.decode(event.body)
        ended_ms = unix_ms(parse_utc(document.ts))
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        raise settle.refused(str(error)) from error
    numbers = (document.old_duration_ms, document.old_code, document.new_code)
    if not all(0 <= number <= MAX_SEQ for number in numbers):
        raise settle.refused("a duration or code is out of range")
    return {
        "node_id": event.node_id,
        "seq": event.seq,
        "resource": document.resource[:_MAX_NAME],
        "e10": document.old[:_MAX_NAME],
        "code": document.old_code,
        "next_e10": document.new[:_MAX_NAME],
        "next_code": document.new_code,
        "began_ms": ended_ms - document.old_duration_ms,
        "ended_ms": ended_ms,
    }


def load_rows(event: ReceivedEvent, document: UnitResultEvent, ended_at: str) -> Iterator[dict[str, Any]]:
    """Give a row for each package that was installed and measured."""
    link = link_name(document.link or Link())
    for place, profile in enumerate(document.profiles):
        measured = 0 < profile.load_ms <= MAX_SEQ and 0 < profile.bytes <= MAX_SEQ
        if profile.package_state == PackageState.INSTALLED and measured:
            yield {
                "node_id": event.node_id,
                "seq": event.seq,
                "place": place,
                "head_id": document.head_id,
                "profile_type": profile.profile_type[:_MAX_NAME],
                "firmware": document.firmware[:_MAX_NAME],
                "link": link,
                "bytes": profile.bytes,
                "load_ms": profile.load_ms,
                "ended_at": ended_at,
            }


def link_name(link: Link) -> str:
    """Name what a reader is to a load: protocol, bit/s, bytes in a block."""
    return f"{link.protocol[:20] or '?'}/{link.bit_rate or '?'}/{link.block_size or '?'}"


def note_again(connection: Connection, attempts: Sequence[Mapping[str, Any]]) -> None:
    """Note every attempt at the units among these that have more than one; call it after they were written."""
    units = sorted({(row["operation"], row["unit"]) for row in attempts if row["unit"]})
    if not units:
        return
    for operation, unit in connection.execute(_again, {"units": units}).all():
        connection.execute(_not_noted, {"of_operation": operation, "of_unit": unit})


def note_lines(connection: Connection, jobs: Mapping[str, str]) -> None:
    """Keep for which line each station works; `jobs`: its last job order."""
    lines = {row.job_order_id: row.line for row in connection.execute(_lines, {"jobs": sorted(set(jobs.values()))})}
    known = {row.node_id: row.line for row in connection.execute(_known, {"nodes": sorted(jobs)})}
    for node, job in sorted(jobs.items()):
        line = lines.get(job)
        if line is None or known.get(node) == line:
            continue
        if node in known:
            connection.execute(station_line.update().where(station_line.c.node_id == node).values(line=line))
        else:
            connection.execute(station_line.insert(), [{"node_id": node, "line": line}])
