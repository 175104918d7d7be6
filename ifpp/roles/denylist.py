"""`ifpp denylist`: see and edit which profile type is not loaded into chips of which firmware."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import load_site
from ifpp.store.denylist import MAX_NAME, DeniedRow, Standing
from ifpp.store.factory import Factory

_FIRMWARE = re.compile(r"[0-9]{8}/[0-9]{1,3}(\.[0-9]{1,3}){2}")
_MEANS = {
    Standing.PROPOSED: "proposed: refuses nothing until somebody activates it",
    Standing.ACTIVE: "active: refused in pre-flight",
    Standing.REMOVED: "removed: loaded again",
}


def show(site_file: Path, *, as_json: bool) -> None:
    """Print every entry."""
    with _factory(site_file) as factory:
        rows = factory.denylist()
    if as_json:
        _print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        _print("\n".join(_text(row)))
    if not rows:
        _print("the denylist is empty")


def deny(site_file: Path, firmware: str, profile_type: str, by: str, reason: str, *, known: bool) -> None:
    """Refuse a profile type on a firmware. Raises SettingsError COMMAND.INVALID, CustodyError DENYLIST.UNKNOWN."""
    _check(firmware, profile_type, by, reason)
    with _factory(site_file) as factory:
        factory.deny(firmware, profile_type, by.strip(), reason.strip(), datetime.now(UTC), known=known)
    _print(f"{profile_type} is not loaded into firmware {firmware} any more, from the next claim on")


def allow(site_file: Path, firmware: str, profile_type: str, by: str, reason: str) -> None:
    """Take an entry off. Raises SettingsError COMMAND.INVALID, CustodyError DENYLIST.UNKNOWN."""
    _check(firmware, profile_type, by, reason)
    with _factory(site_file) as factory:
        factory.allow(firmware, profile_type, by.strip(), reason.strip(), datetime.now(UTC))
    _print(f"{profile_type} is loaded into firmware {firmware} again, from the next claim on")


@contextmanager
def _factory(site_file: Path) -> Iterator[Factory]:
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        yield factory
    finally:
        factory.close()


def _check(firmware: str, profile_type: str, by: str, reason: str) -> None:
    if not _FIRMWARE.fullmatch(firmware):
        raise SettingsError("COMMAND.INVALID", "firmware is written as 89049032/1.4.2", where=firmware[:MAX_NAME])
    if not 0 < len(profile_type.strip()) <= MAX_NAME:
        raise SettingsError("COMMAND.INVALID", f"a profile type has 1 to {MAX_NAME} characters", where="PROFILE_TYPE")
    check_person(by, reason)


def _text(row: DeniedRow) -> Iterator[str]:
    yield f"firmware {row.firmware}  profile type {row.profile_type}"
    yield f"  {_MEANS[Standing(row.standing)]}; since {row.changed_at}, by {row.by}: {row.reason}"
    success = "some chip took it" if row.succeeded else "no chip ever took it"
    yield f"  it failed on {row.failed} chips; {success}"


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
