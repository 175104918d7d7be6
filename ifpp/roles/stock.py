"""`ifpp store coverage` and `ifpp store withdraw`: how far the packages go, and taking a delivery out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.line.coverage import Coverage, cover
from ifpp.line.request import job_named
from ifpp.line.reserve import choose_chips
from ifpp.model.ids import Eid
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import load_site

_SHOWN = 10


def show_coverage(site_file: Path, *, job: str, lot: str, as_json: bool) -> None:
    """Print the coverage of a job order, a lot of chips or all. Raises SupplyError JOB.UNKNOWN, LOT.UNKNOWN."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        hours = site.store.low_stock_hours
        report = cover(factory, site.line, now=datetime.now(UTC), job=job, lot=lot, low_stock_hours=hours)
    finally:
        factory.close()
    if as_json:
        _print(json.dumps(asdict(report), indent=2))
        return
    _print(f"{report.chips} chips have not left, {report.blank} of them have no package for anything")
    for one in report.products:
        _print("\n".join(_text(one)))


def reserve(site_file: Path, job: str, *, units: int, eids: Path | None, lot: str, by: str, reason: str) -> None:
    """Keep chips for a job order: those a file names, or the first covered ones. Raises SupplyError, SettingsError."""
    check_person(by, reason)
    if (eids is None) == (units == 0):
        raise SettingsError("COMMAND.INVALID", "say how many units, or name a file of EIDs", where="--units, --eids")
    listed = None if eids is None else _listed(eids)
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="desk")
    try:
        now = datetime.now(UTC)
        order = job_named(factory, site.line, job)
        chosen = listed if listed is not None else choose_chips(factory, order, units, lot=lot, now=now)
        new = factory.reserve(job, chosen, by.strip(), reason.strip(), now)
        kept = factory.reservations()[job]
    finally:
        factory.close()
    _print(f"job order {job}: {kept} chips are kept for it, {new} of them from now on")


def unreserve(site_file: Path, job: str, by: str, reason: str) -> None:
    """Keep no chip for a job order any more. Raises SettingsError COMMAND.INVALID."""
    check_person(by, reason)
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        freed = factory.unreserve(job, by.strip(), reason.strip(), datetime.now(UTC))
    finally:
        factory.close()
    _print(f"job order {job}: {freed} chips are free again")


def _listed(file: Path) -> list[str]:
    """Read EIDs, one a line."""
    try:
        lines = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("SETTINGS.MISSING", f"no text file of EIDs ({error})", where=str(file)) from error
    try:
        return [str(Eid(line)) for line in lines]
    except ValueError as error:
        raise SettingsError("COMMAND.INVALID", str(error), where=str(file)) from error


def withdraw(site_file: Path, name: str, by: str, reason: str) -> None:
    """Take a delivery out. Raises SettingsError COMMAND.INVALID, SupplyError BATCH.UNKNOWN."""
    check_person(by, reason)
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        done = factory.withdraw(name, by.strip(), reason.strip(), datetime.now(UTC))
    finally:
        factory.close()
    when = "withdrawn" if done.new else f"withdrawn since {done.at}, by {done.by}: {done.reason}"
    _print(f"delivery {done.batch} {done.name}: {when}")
    _print(f"  {done.stopped} packages are given out no more; {done.going_on} that heads had already go their way")


def _text(one: Coverage) -> Iterator[str]:
    customer = f" for {one.customer}" if one.customer else ""
    job = f"job order {one.job}: " if one.job else ""
    yield f"{job}{one.sku} in {one.region}{customer}"
    plan = f"plan {one.plan}" if one.plan else "no plan: every profile type that was delivered"
    yield f"  profiles   {', '.join(one.profiles) or 'none known'} ({plan})"
    needed = "" if one.needed is None else f" of {one.needed} still needed, {one.spare} spare"
    yield f"  covered    {one.covered}{needed}; {one.reserved} of them reserved"
    short = f"{one.short} of them without one-time keys for it; {one.missing} units lack a chip"
    if one.codes:
        yield f"  codes      {one.codes} activation codes, for any chip"
    yield f"  uncovered  {one.uncovered}, {short}"
    yield from (f"             {eid}" for eid in one.uncovered_eids[:_SHOWN])
    if one.uncovered > _SHOWN:
        yield f"             and {one.uncovered - _SHOWN} more (--json lists up to a hundred)"
    yield f"  spoiled    {one.spoiled} packages"
    last = "nothing is made" if one.hours_left is None else f"{one.hours_left:.1f} h left"
    yield f"  lasts      {last} ({one.units_an_hour:g} units in the last hour){'; LOW STOCK' if one.low else ''}"
    for row in one.orders:
        yield f"  to order   {row.packages} x {row.profile_type} from {row.smdp_oid or 'an SM-DPf that no plan names'}"


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
