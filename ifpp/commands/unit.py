"""`ifpp unit`: One unit: where it stands, whether it may leave."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

unit_app = group("One unit: where it stands, whether it may leave.")


@unit_app.command("show")
def unit_show(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")],
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show where a unit and each of its packages stands, with every step."""
    from ifpp.roles.custody import show_unit

    show_unit(config, name, as_json=json)


@unit_app.command("rework")
def unit_rework(
    eid: Annotated[str, typer.Argument(help="EID of its chip.")],
    reason: Reason,
    by: By,
    sku: Annotated[str, typer.Option(help="What it is to become; without it the unit goes into stock.")] = "",
    region: Annotated[str, typer.Option(help="For which region; with --sku.")] = "",
    config: Config = SITE,
) -> None:
    """Order that all profiles are removed from a unit's chip; a station does it when the unit is seated next."""
    from ifpp.roles.rework import order

    order(config, eid, sku=sku, region=region, by=by, reason=reason)


@unit_app.command("ask-again")
def unit_ask_again(
    eid: Annotated[str, typer.Argument(help="EID of its chip.")], reason: Reason, by: By, config: Config = SITE
) -> None:
    """Have the MES asked again about a unit it refused after it was worked on: its new answer counts."""
    from ifpp.roles.custody import ask_again

    ask_again(config, eid, by=by, reason=reason)


@unit_app.command("genealogy")
def unit_genealogy(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")], config: Config = SITE
) -> None:
    """Print device, module, eUICC, profiles and packages of a unit as JSON, for an MES to import."""
    from ifpp.roles.genealogy import show_genealogy

    show_genealogy(config, name)


@unit_app.command("gate")
def unit_gate(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")],
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines, with the signed entry.")] = False,
) -> None:
    """Ask whether a unit may leave; exits with 0 when it is clean to ship, else with 1 and the reason."""
    from ifpp.roles.custody import show_gate

    raise typer.Exit(show_gate(config, name, as_json=json))
