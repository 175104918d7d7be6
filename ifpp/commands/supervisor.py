"""`ifpp supervisor`: The supervisor of one line."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

supervisor_app = group("The supervisor of one line.")


@supervisor_app.command("run")
def supervisor_run(config: Config = SITE) -> None:
    """Run the supervisor of the line."""
    from ifpp.roles.supervisor import run

    run(config)


@supervisor_app.command("parked")
def supervisor_parked(
    number: Annotated[int, typer.Argument(min=0, help="Show this one with its content; 0: list the latest.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many are listed.")] = 50,
    config: Config = SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON Lines, with their content.")] = False,
) -> None:
    """Show what came over the bus and was refused: events and other documents that broke the contract."""
    from ifpp.roles.parked import show_parked

    show_parked(config, number=number, limit=limit, as_json=as_json)
