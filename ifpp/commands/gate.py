"""`ifpp gate`: First articles: what a job order shows, and its release by a person."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

gate_app = group("First articles: what a job order shows, and its release by a person.")
JobName = Annotated[str, typer.Argument(help="Id of the job order.")]


@gate_app.command("show")
def gate_show(job: JobName, config: Config = SITE) -> None:
    """Say what a job order has shown and what is missing; 0 when it is released, else 1."""
    from ifpp.roles.gate import show

    raise typer.Exit(show(config, job))


@gate_app.command("release")
def gate_release(job: JobName, by: By, reason: Reason, config: Config = SITE) -> None:
    """Release a job order that has shown its first articles and golden units."""
    from ifpp.roles.gate import release

    release(config, job, by, reason)


@gate_app.command("changeover")
def gate_changeover(
    job: JobName,
    setup: Annotated[str, typer.Argument(help="Name of the new setup.")],
    by: By,
    reason: Reason,
    config: Config = SITE,
) -> None:
    """Say that a job order is set up anew: it has to be shown and released again."""
    from ifpp.roles.gate import changeover

    changeover(config, job, setup, by, reason)
