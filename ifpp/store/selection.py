"""Which packages of a chip are loaded, in which order, and why every other one is not: pure rules over rows.

Rows are those of `package` with `withdrawn` beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row

from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.messages import CACHE_HEAD
from ifpp.model.states import PackageState
from ifpp.store.plans import Plan, Planned

S = PackageState
_Package = Row[Any]

CLOCK_SLACK = timedelta(minutes=1)
_THERE = (S.INSTALLED, S.SENT, S.UNKNOWN)  # on the chip, or perhaps: not to be loaded a second time


@dataclass(frozen=True, slots=True)
class Product:
    """What a unit is to become, as its job order says."""

    sku: str
    region: str
    customer: str = ""

    @property
    def words(self) -> str:
        """How people call it."""
        return f"{self.sku} in {self.region}" + (f" for {self.customer}" if self.customer else "")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is loaded, in order; `missing` of the plan: then nothing is. `refused`: every other package, with why.

    `kept_for`: the job order the chip is reserved for, "" = none; a claim for another one gets nothing.
    """

    granted: tuple[_Package, ...]
    missing: tuple[Planned, ...]
    refused: tuple[tuple[_Package, str], ...]
    kept_for: str = ""


def choose(
    packages: Sequence[_Package], plan: Plan | None, product: Product, holder: tuple[str, str], at: str
) -> Selection:
    """Choose among all packages of a chip for a head (station id, head id); without plan all that can be loaded."""
    refused: list[tuple[_Package, str]] = []
    loadable: list[_Package] = []
    ours = [row for row in packages if (row.sku, row.region) == (product.sku, product.region)]
    for row in packages:
        why = f"is for {row.sku} in {row.region}" if row not in ours else why_not(row, holder, at)
        if why:
            refused.append((row, why))
        else:
            loadable.append(row)
    if plan is None:
        return Selection(tuple(loadable), (), tuple(refused))
    granted, missing = _by_plan(plan, ours, loadable)
    for row in loadable:
        if row not in granted:
            refused.append((row, _beside(plan, row)))
        elif missing:
            refused.append((row, f"the chip lacks {', '.join(map(str, missing))}: all or nothing"))
    return Selection(() if missing else tuple(granted), tuple(missing), tuple(refused))


def why_not(row: _Package, holder: tuple[str, str], at: str) -> str:
    """Say why a package cannot be loaded by a head; "" when it can."""
    state = S(row.state)
    if state in (S.SENT, S.UNKNOWN):
        return f"{state} since {row.changed_at}: the chip must be read first"
    if state in (S.INSTALLED, S.DESTROYED) or row.spent:
        return _over(row, state)
    if row.withdrawn:
        return "its delivery was withdrawn"
    if expired(row, at):
        return f"expired at {row.expires_at}"
    if taken(row, holder, at):
        return f"claimed by {row.node_id} {row.head_id} until {row.lease_until}"
    return ""


def _over(row: _Package, state: PackageState) -> str:
    if row.leaving:
        return "its profile left the chip again" if row.gone else "its profile is to leave the chip"
    return f"{state} since {row.changed_at}" + (", and its key is spent" if state is S.FAILED else "")


def expired(row: _Package, at: str) -> bool:
    """Whether its date has passed."""
    return row.expires_at is not None and row.expires_at <= at


def taken(row: _Package, holder: tuple[str, str], at: str) -> bool:
    """Whether another head works with this package; a head that starts anew gives up what it held before.

    What a station has claimed ahead is there for every head of it, and for no other station.
    """
    ours = row.node_id == holder[0] and row.head_id in (holder[1], CACHE_HEAD)
    return row.state == S.CLAIMED and lease_runs(row, at) and not ours


def ahead(row: _Package) -> bool:
    """Whether a station claimed this package ahead and may load it without asking again."""
    return bool(row.state == S.CLAIMED and row.head_id == CACHE_HEAD)


def lease_runs(row: _Package, at: str) -> bool:
    """A lease given in the future was given by a clock that was wrong: its end says nothing.

    But never of one given ahead: its station may be out of reach and loading the package.
    """
    return bool(row.lease_until > at and (ahead(row) or row.changed_at <= soon(at)))


def soon(at: str) -> str:
    """The latest time a right clock may show at this moment."""
    return utc_ms_text(parse_utc(at) + CLOCK_SLACK)


def _by_plan(plan: Plan, ours: list[_Package], loadable: list[_Package]) -> tuple[list[_Package], list[Planned]]:
    """Take for each profile the package that expires first, unless the chip has it or may have it."""
    granted: list[_Package] = []
    missing: list[Planned] = []
    for planned in plan.profiles:
        if any(row.state in _THERE and not row.leaving and planned.fits(row) for row in ours):
            continue
        fitting = [row for row in loadable if planned.fits(row)]
        if fitting:
            granted.append(min(fitting, key=lambda row: (row.expires_at is None, row.expires_at or "", row.package_id)))
        else:
            missing.append(planned)
    return granted, missing


def _beside(plan: Plan, row: _Package) -> str:
    planned = next((one for one in plan.profiles if one.profile_type == row.profile_type), None)
    if planned is None:
        return f"profile type {row.profile_type} is not in the plan {plan.name}"
    if not planned.fits(row):
        return f"comes from SM-DPf {row.smdp_oid}; the plan {plan.name} wants {planned.smdp_oid}"
    return "another package of its profile type is on the chip, is being settled or is loaded first"
