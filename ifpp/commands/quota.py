"""`ifpp quota`: Signed production orders: how many units of a SKU may be sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

quota_app = group("Signed production orders: how many units of a SKU may be sealed.")


@quota_app.command("sign")
def quota_sign(
    file: Annotated[Path, typer.Argument(help="New file, NAME.production-order.json.")],
    order: Annotated[str, typer.Option(help="Its id.")],
    sku: Annotated[str, typer.Option(help="The product.")],
    quantity: Annotated[int, typer.Option(min=1, help="So many units may be sealed under it.")],
    until: Annotated[str, typer.Option(help="When it ends, as 2026-12-31T00:00:00Z.")],
    site: Annotated[str, typer.Option(help="ENTERPRISE/SITE, as in the site file.")],
    key: Annotated[Path, typer.Option(help="Private key of the planner, from `ifpp keys personal`.")],
    start: Annotated[str, typer.Option("--from", help="When it begins; now.")] = "",
    version: Annotated[int, typer.Option(min=1, help="A higher one takes the place of a lower.")] = 1,
) -> None:
    """Sign a production order, at the planner's."""
    from ifpp.roles.quota import sign

    sign(file, order, version, site, sku, quantity, (start, until), key)


@quota_app.command("show")
def quota_show(
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every production order and how far it is used."""
    from ifpp.roles.quota import show

    show(config, as_json=json)
