"""`ifpp quota`: signed production orders, how many units of a SKU may be sealed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import ifpp.wire.production_order as wire
from ifpp.errors import CustodyError, SettingsError
from ifpp.line.intake import IntakeOutcome
from ifpp.line.quota import check_order, take_order
from ifpp.model.clock import utc_ms_text
from ifpp.roles.factory_access import open_factory
from ifpp.roles.runtime import beside
from ifpp.settings import Site, load_site
from ifpp.store.factory import Factory
from ifpp.trust.signer import SoftwareSigner, read_public_key


def sign(
    file: Path, order_id: str, version: int, site: str, sku: str, quantity: int, times: tuple[str, str], key: Path
) -> None:
    """Write a signed order to a new file; raises SettingsError, CustodyError FILE.WRITE, IntakeError QUOTA.FORMAT."""
    begin, end = times
    order = wire.ProductionOrder(
        order_id=order_id,
        version=version,
        site=site,
        sku=sku,
        quantity=quantity,
        from_at=begin or utc_ms_text(datetime.now(UTC)),
        until_at=end,
    )
    signer = SoftwareSigner.load(key)
    content = wire.write_order(order, signer.key_id, signer.sign(order.message()))
    wire.read_order(content, str(file))
    try:
        with file.open("xb") as stream:
            stream.write(content)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(file)) from error
    _print(f"{file}: {quantity} units of {sku} until {end}, key {signer.key_id}")


def is_order(path: Path) -> bool:
    """Whether a file that comes in is a production order, by its name."""
    return path.name.endswith(".production-order.json")


def take_file(factory: Factory, site: Site, site_file: Path, path: Path, *, dry_run: bool) -> str:
    """Take an order in, or only check it; return what became of it, in words. Raises IntakeError QUOTA.*."""
    keys = [read_public_key(beside(site_file, name)) for name in site.quota.keys.values()]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be opened ({error.strerror})", where=str(path)) from error
    here, now = f"{site.enterprise}/{site.site}", datetime.now(UTC)
    if dry_run:
        order, what = check_order(content, keys, site=here, now=now, where=path.name)[0], IntakeOutcome.VERIFIED
    else:
        order, new = take_order(factory, content, keys, site=here, now=now, where=path.name)
        what = IntakeOutcome.IMPORTED if new else IntakeOutcome.ALREADY_IMPORTED
    return f"{what:17} {'order':6} {order.quantity:7} units  {path}"


def show(site_file: Path, *, as_json: bool) -> None:
    """Print every order and how far it is used."""
    site = load_site(site_file)
    factory = open_factory(site, site_file, writer="intake")
    try:
        orders = factory.production_orders()
    finally:
        factory.close()
    if as_json:
        _print(json.dumps([asdict(order) for order in orders], indent=2))
        return
    now = utc_ms_text(datetime.now(UTC))
    for order in orders:
        state = "in force" if order.holds(now) else "not in force"
        left = max(0, order.quantity - order.used)
        _print(
            f"{order.order_id:16} v{order.version:<3} {order.sku:20} {order.used:8} of {order.quantity:8} sealed, "
            f"{left} left, {state}, {order.from_at} to {order.until_at}"
        )
    if not orders:
        rule = "no unit is clean to ship" if site.quota.required else "no SKU is limited"
        _print(f"no production order: {rule}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
