"""`ifpp plan`: Profile plans: what the units of a SKU and region get, in which order."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

plan_app = group("Profile plans: what the units of a SKU and region get, in which order.")
Sku = Annotated[str, typer.Argument(help="The SKU, as in job orders and deliveries.")]
Region = Annotated[str, typer.Argument(help="The region, as in job orders and deliveries.")]
Customer = Annotated[str, typer.Option(help="Only for units of this customer: goes before the general plan.")]


@plan_app.command("set")
def plan_set(
    sku: Sku,
    region: Region,
    by: By,
    reason: Reason,
    profile: Annotated[list[str] | None, typer.Option(help="TYPE or TYPE@SM-DPF-OID; repeat, in order.")] = None,
    none: Annotated[bool, typer.Option("--none", help="End the plan: everything delivered is loaded.")] = False,
    customer: Customer = "",
    start: Annotated[str, typer.Option("--from", help="When it begins, as 2026-03-01T06:00:00Z; now.")] = "",
    until: Annotated[str, typer.Option(help="When it ends; then the version before it holds again.")] = "",
    config: Config = SITE,
) -> None:
    """Say which profiles units get, in order; a new version, the old ones stay on record."""
    from ifpp.roles.plans import change
    from ifpp.store.selection import Product

    product = Product(sku, region, customer)
    change(config, product, profile or [], none=none, from_at=start, until_at=until, by=by, reason=reason)


@plan_app.command("list")
def plan_list(
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List every plan that holds now or will."""
    from ifpp.roles.plans import show_all

    show_all(config, as_json=json)


@plan_app.command("show")
def plan_show(
    sku: Sku,
    region: Region,
    customer: Customer = "",
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every version of a plan, who made it and why."""
    from ifpp.roles.plans import show_history
    from ifpp.store.selection import Product

    show_history(config, Product(sku, region, customer), as_json=json)


@plan_app.command("test")
def plan_test(
    eid: Annotated[str, typer.Argument(help="The chip.")],
    sku: Annotated[str, typer.Option(help="As the job order would say.")],
    region: Annotated[str, typer.Option(help="As the job order would say.")],
    customer: Annotated[str, typer.Option(help="As the job order would say.")] = "",
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Explain what a chip would get and why every other package is not; 1 when it lacks something. Changes nothing."""
    from ifpp.roles.plans import test
    from ifpp.store.selection import Product

    raise typer.Exit(test(config, eid, Product(sku, region, customer), as_json=json))
