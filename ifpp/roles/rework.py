"""`ifpp unit rework` and `ifpp report rework`: units that become something else, and how many (SGP.41 A.4)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.roles.factory_access import open_factory
from ifpp.roles.people import check_person
from ifpp.settings import load_site
from ifpp.store.records import ReworkRow

_COUNTS = ("ordered", "removed", "reprovisioned", "open", "failed")
_MAX_NAME = 128


def order(site_file: Path, eid: str, *, sku: str, region: str, by: str, reason: str) -> None:
    """Order the rework of one unit. Raises SupplyError EID.UNKNOWN, CustodyError REWORK.*, SettingsError."""
    check_person(by, reason)
    if bool(sku) != bool(region) or max(len(sku), len(region)) > _MAX_NAME:
        raise SettingsError("COMMAND.INVALID", "name both or none", where="--sku, --region")
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        made = factory.rework.order(eid, sku, region, by.strip(), reason.strip(), datetime.now(UTC))
    finally:
        factory.close()
    _print(f"rework {made.rework_id}: {made.packages} profiles are to leave EID {eid}; seat the unit at a station")
    if made.sealed:
        _print("it was sealed: its chip can be emptied and never be loaded again, so it will not be clean to ship")


def report(site_file: Path, *, as_json: bool) -> None:
    """Print the counts of all rework orders by SKU and region."""
    factory = open_factory(load_site(site_file), site_file, writer="desk")
    try:
        counts = count(factory.rework.orders())
    finally:
        factory.close()
    if as_json:
        rows = [{"sku": sku, "region": region, **numbers} for (sku, region), numbers in counts.items()]
        _print(json.dumps(rows, indent=2))
        return
    _print(f"{'SKU':16} {'region':8} " + " ".join(f"{name:>13}" for name in _COUNTS))
    for (sku, region), numbers in counts.items():
        _print(f"{sku or '(stock)':16} {region:8} " + " ".join(f"{numbers[name]:13}" for name in _COUNTS))


def count(orders: Iterable[ReworkRow]) -> dict[tuple[str, str], dict[str, int]]:
    """Count orders by what the units become, "" = stock: ordered = removed + open + failed."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in orders:
        numbers = found.setdefault((row.sku, row.region), Counter())
        numbers["ordered"] += 1
        numbers["removed" if row.removed else "failed" if row.failed else "open"] += 1
        numbers["reprovisioned"] += row.removed and row.reprovisioned
    return {product: {name: numbers[name] for name in _COUNTS} for product, numbers in sorted(found.items())}


def rework_state(row: ReworkRow) -> str:
    """Say how far an order has come."""
    if not row.removed:
        return f"{row.gone} of {row.packages} removed" + (", the chip refused" if row.failed else "")
    return "re-provisioned" if row.reprovisioned else "removed"


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
