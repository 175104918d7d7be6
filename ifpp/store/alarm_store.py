"""The line's alarms in the factory database: the list its supervisors hand on, and every change that was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, text, update

from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Message, UnitRef
from ifpp.model.states import PackageState
from ifpp.store import line_log
from ifpp.store.database import Database
from ifpp.store.figure_tables import station_line
from ifpp.store.schema import event_log, meta, package
from ifpp.store.schema import line_log as log_table
from ifpp.store.trail import Trail

_TWICE = text(
    "SELECT eid, sn FROM unit_attempt WHERE eid <> '' AND sn <> '' AND eid IN "
    "(SELECT eid FROM unit_attempt WHERE eid <> '' AND sn <> '' AND ended_at >= :since) "
    "GROUP BY eid, sn ORDER BY eid, sn"
)
_PARKED = text("SELECT number, body, at FROM parked WHERE seq > 0 ORDER BY number DESC LIMIT 500")
_OWNERS = select(package.c.iccid, package.c.eid).where(package.c.iccid.in_(bindparam("iccids", expanding=True)))


class _Loaded(msgspec.Struct):
    """What a profile of a unit_result says, as far as a stranger's document can be read."""

    iccid: str
    package_state: str


class _Seen(msgspec.Struct):
    unit: UnitRef
    profiles: list[_Loaded] = []


_SEEN = msgspec.json.Decoder(_Seen)


class AlarmStore:
    """Part of a `Factory`: methods block for one short transaction and may be called from any thread."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing

    def handed_on(self, line: str) -> str:
        """Return what the last supervisor of a line kept of its alarms, "" when there was none."""
        with self._database.read() as connection:
            return connection.execute(select(meta.c.value).where(meta.c.key == _key(line))).scalar() or ""

    def keep(self, line: str, told: Sequence[tuple[str, Message]], kept: str, now: datetime) -> None:
        """Write what is told into the line's log, and what a successor is to know, in one transaction."""
        with self._writing(now) as (connection, trail):
            for name, document in told:
                line_log.append(connection, line, name, document, trail.at)
            mine = meta.c.key == _key(line)
            if not connection.execute(update(meta).where(mine).values(value=kept)).rowcount:
                connection.execute(insert(meta), [{"key": _key(line), "value": kept}])

    def told(self, line: str, since: datetime) -> list[bytes]:
        """Return every change of an alarm of a line and its stations that was stored since then, in any order."""
        at = utc_ms_text(since)
        stations = select(station_line.c.node_id).where(station_line.c.line == line)
        events = select(event_log.c.body).where(
            event_log.c.schema.like("alarm/%"), event_log.c.node_id.in_(stations), event_log.c.taken_at >= at
        )
        own = select(log_table.c.body).where(
            log_table.c.line == line, log_table.c.name == "alarm", log_table.c.at >= at
        )
        with self._database.read() as connection:
            return [row.body for row in [*connection.execute(events), *connection.execute(own)]]

    def twice(self, since: datetime) -> dict[str, list[str]]:
        """Return the chips that worked since then and were seen in two units: EID -> serial numbers."""
        found: dict[str, list[str]] = {}
        with self._database.read() as connection:
            for row in connection.execute(_TWICE, {"since": utc_ms_text(since)}):
                found.setdefault(row.eid, []).append(row.sn)
        return {eid: units for eid, units in found.items() if len(units) > 1}

    def iccids_twice(self, since: datetime) -> dict[str, list[str]]:
        """Return the profiles that were found on two chips since then: ICCID -> EIDs.

        The ledger lets an ICCID onto one chip only (`ifpp.store.plan`); the result that says otherwise is parked.
        """
        seen: set[tuple[str, str]] = set()
        with self._database.read() as connection:
            for row in connection.execute(_PARKED):
                if row.at >= utc_ms_text(since):
                    seen.update(_installed(row.body))
            if seen:
                iccids = sorted({iccid for iccid, _ in seen})
                seen.update((row.iccid, row.eid) for row in connection.execute(_OWNERS, {"iccids": iccids}))
        found: dict[str, list[str]] = {}
        for iccid, eid in sorted(seen):
            found.setdefault(iccid, []).append(eid)
        return {iccid: eids for iccid, eids in found.items() if len(eids) > 1}


def _installed(body: bytes) -> list[tuple[str, str]]:
    """Read (ICCID, EID) of what a parked event calls installed; nothing of what is no result."""
    try:
        said = _SEEN.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    installed = [one.iccid for one in said.profiles if one.package_state == PackageState.INSTALLED]
    return [(iccid, said.unit.eid) for iccid in installed if said.unit.eid]


def _key(line: str) -> str:
    return f"alarms/{line}"
