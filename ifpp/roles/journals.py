"""`ifpp station backup` and `restore`: the journal, copied while its station runs, and given to one that lost it."""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import CustodyError, SettingsError
from ifpp.roles.runtime import beside
from ifpp.settings import load_site, load_station
from ifpp.station.keep import copy_journal, new_journal


def backup(station_file: Path, target: Path) -> None:
    """Copy the journal of a station, which may run meanwhile, to a new file."""
    path = beside(station_file, load_station(station_file).journal)
    if not path.is_file():
        raise SettingsError("SETTINGS.MISSING", "there is no such journal", where=str(path))
    copy_journal(path, target)
    _print(f"{target}: {target.stat().st_size} bytes, whole")


def restore(site_file: Path, station_file: Path, source: Path | None, by: str, reason: str) -> None:
    """Make a journal for a station that lost its own, and name the units to be seated again.

    Raises SettingsError COMMAND.INVALID, CustodyError FILE.WRITE when there is a journal, BACKUP.BROKEN,
    CUSTODY.FOREIGN_JOURNAL, ServiceError DATABASE.UNREACHABLE.
    """
    from ifpp.roles.factory_access import open_factory
    from ifpp.roles.people import check_person

    check_person(by, reason)
    station, now = load_station(station_file), datetime.now(UTC)
    path = beside(station_file, station.journal)
    with closing(open_factory(load_site(site_file), site_file, writer="desk")) as factory:
        last = factory.nodes.last_event(station.id)
        if source is None and not last:
            detail = f"the books have nothing of {station.id}: a station without a past makes its journal itself"
            raise CustodyError("BACKUP.BROKEN", detail, where=str(path))
        new_journal(path, station.id, source, after=last, now=now)
        missing = factory.nodes.give_up(station.id, by, reason, now)
        left = [row for row in factory.open_packages() if row.node_id == station.id]
    _print(f"{path}: from {source or 'nothing'}; the next event is number {last + 1} or later")
    if missing:
        _print(f"given up, they never came: events {', '.join(map(str, missing[:20]))}{' ...' if missing[20:] else ''}")
    _print(f"{len(left)} packages are open at {station.id}" + (": seat these units again" if left else ""))
    for row in left:
        _print(f"  EID {row.eid}  {row.state} since {row.since} at {row.head_id}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
