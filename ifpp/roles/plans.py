"""`ifpp plan`: which profiles a product gets, and why a chip would get just these."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import load_site
from ifpp.store.factory import Factory
from ifpp.store.plans import Plan, Planned
from ifpp.store.selection import Product, Selection

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_PROFILE = re.compile(r"([^\x00-\x1f\x7f@]{1,64})(?:@([0-9]+(?:\.[0-9]+)+))?")
_MAX_PROFILES = 16


def change(
    site_file: Path,
    product: Product,
    profiles: Sequence[str],
    *,
    none: bool,
    from_at: str,
    until_at: str,
    by: str,
    reason: str,
) -> None:
    """Add a version to a plan; `none` ends it. Raises SettingsError COMMAND.INVALID."""
    check_person(by, reason)
    _check_product(product)
    if none == bool(profiles):
        raise SettingsError("COMMAND.INVALID", "name the profiles in order, or --none", where="--profile")
    planned = [_planned(text) for text in profiles]
    if len({one.profile_type for one in planned}) < len(planned) or len(planned) > _MAX_PROFILES:
        detail = f"at most {_MAX_PROFILES} profile types, each once"
        raise SettingsError("COMMAND.INVALID", detail, where="--profile")
    now = datetime.now(UTC)
    start = _time(from_at, "--from") or now
    end = _time(until_at, "--until")
    if utc_ms_text(start) < utc_ms_text(now) or (end is not None and end <= start):
        raise SettingsError("COMMAND.INVALID", "a plan begins now or later, and ends after that", where="--from")
    key = product.sku, product.region, product.customer
    with _factory(site_file) as factory:
        plan = factory.change_plan(key, planned, (start, end), by.strip(), reason.strip(), now)
    _print("\n".join(_text(plan)))


def show_all(site_file: Path, *, as_json: bool) -> None:
    """Print every plan that holds now or will."""
    now = utc_ms_text(datetime.now(UTC))
    with _factory(site_file) as factory:
        plans = [plan for plan in factory.plan_history() if plan.until_at is None or plan.until_at > now]
    _show(plans, as_json=as_json, empty="there are no plans: everything delivered for SKU and region is loaded")


def show_history(site_file: Path, product: Product, *, as_json: bool) -> None:
    """Print every version of one plan, newest first."""
    with _factory(site_file) as factory:
        plans = [plan for plan in factory.plan_history() if (plan.sku, plan.region) == (product.sku, product.region)]
    if product.customer:
        plans = [plan for plan in plans if plan.customer == product.customer]
    _show(plans, as_json=as_json, empty=f"there never was a plan for {product.words}")


def test(site_file: Path, eid: str, product: Product, *, as_json: bool) -> int:
    """Explain what a chip would get now; return 0 when it would get all, 1 when it lacks something or has nothing."""
    _check_product(product)
    with _factory(site_file) as factory:
        plan, selection = factory.try_plan(eid, product, datetime.now(UTC))
    if as_json:
        _print(json.dumps(_facts(eid, product, plan, selection), indent=2))
    else:
        _print("\n".join(_explained(eid, product, plan, selection)))
    return 0 if selection.granted and not selection.missing else 1


@contextmanager
def _factory(site_file: Path) -> Iterator[Factory]:
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        yield factory
    finally:
        factory.close()


def _check_product(product: Product) -> None:
    for name, text in (("SKU", product.sku), ("REGION", product.region), ("--customer", product.customer or "any")):
        if not _NAME.fullmatch(text):
            raise SettingsError("COMMAND.INVALID", "write 1 to 128 printable characters", where=name)


def _planned(text: str) -> Planned:
    found = _PROFILE.fullmatch(text)
    if found is None:
        detail = "a profile is written TYPE or TYPE@SM-DPF-OID, as operational or operational@2.999.10"
        raise SettingsError("COMMAND.INVALID", detail, where=text[:64])
    return Planned(found[1], found[2] or "")


def _time(text: str, where: str) -> datetime | None:
    try:
        return parse_utc(text) if text else None
    except ValueError as error:
        raise SettingsError("COMMAND.INVALID", "a time is written 2026-03-01T06:00:00Z", where=where) from error


def _show(plans: Sequence[Plan], *, as_json: bool, empty: str) -> None:
    if as_json:
        _print(json.dumps([_plan_facts(plan) for plan in plans], indent=2))
    else:
        _print("\n".join(line for plan in plans for line in _text(plan)) if plans else empty)


def _plan_facts(plan: Plan) -> dict[str, object]:
    facts = {name: getattr(plan, name) for name in plan.__slots__}
    return facts | {"profiles": [{"profile_type": one.profile_type, "smdp_oid": one.smdp_oid} for one in plan.profiles]}


def _text(plan: Plan) -> Iterator[str]:
    until = f" until {plan.until_at}" if plan.until_at else ""
    yield f"{plan.name}: from {plan.from_at}{until}"
    yield f"  {' then '.join(map(str, plan.profiles)) or 'no plan any more: everything delivered is loaded'}"
    yield f"  {plan.at}, by {plan.by}: {plan.reason}"


def _facts(eid: str, product: Product, plan: Plan | None, selection: Selection) -> dict[str, object]:
    def named(row: object) -> dict[str, object]:
        names = ("package_id", "iccid", "profile_type", "sku", "region", "smdp_oid", "state", "expires_at")
        return {name: getattr(row, name) for name in names}

    return {
        "eid": eid,
        **asdict(product),
        "plan": None if plan is None else _plan_facts(plan),
        "loaded": [named(row) for row in selection.granted],
        "missing": [str(one) for one in selection.missing],
        "refused": [named(row) | {"why": why} for row, why in selection.refused],
        "kept_for": selection.kept_for,
    }


def _explained(eid: str, product: Product, plan: Plan | None, selection: Selection) -> Iterator[str]:
    yield f"EID {eid} as {product.words}"
    if plan is None:
        yield "no plan holds: every package for SKU and region that can be loaded is"
    else:
        yield from _text(plan)
    if selection.kept_for:
        yield f"kept for job order {selection.kept_for}: for any other one, nothing (BPP.RESERVED)"
    for place, row in enumerate(selection.granted, start=1):
        source = f"from SM-DPf {row.smdp_oid}, package {row.package_id}"
        yield f"load {place}: {row.profile_type}, ICCID {row.iccid}, {source}"
    if not selection.granted:
        yield "nothing would be loaded"
    for one in selection.missing:
        yield f"missing: {one}"
    for row, why in selection.refused:
        yield f"not: {row.profile_type}, ICCID {row.iccid}, package {row.package_id}: {why}"


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
