"""`ifpp heads`: Programming heads: what sits in them, a technician's look, their life."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, Wait, group

heads_app = group("Programming heads: what sits in them, a technician's look, their life.")
Station = Annotated[str, typer.Argument(help="Id of the station.")]
HeadName = Annotated[str, typer.Argument(metavar="HEAD", help="Its head, as in the station file.")]


@heads_app.command("list")
def heads_list(
    station: Annotated[
        Path | None, typer.Option(help="The heads of this station file instead of every reader there is.")
    ] = None,
) -> None:
    """List readers and modems with what sits in them; reads only."""
    from ifpp.roles.probe import list_heads

    raise typer.Exit(list_heads(station))


@heads_app.command("probe")
def heads_probe(
    name: Annotated[str, typer.Argument(help="A head of the station file, a reader's name, or a port's URL.")],
    station: Annotated[Path | None, typer.Option(help="The station file.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for a chip.")] = 30.0,
) -> None:
    """Look at one head: every command with its time, what the chip says; reads only, touches no stock."""
    from ifpp.roles.probe import probe

    raise typer.Exit(probe(name, station, wait_s))


@heads_app.command("quarantine")
def heads_quarantine(
    station: Station, head: HeadName, by: By, reason: Reason, config: Config = SITE, wait: Wait = 10.0
) -> None:
    """Take a head out of work; a seated unit is finished first."""
    from ifpp.roles.heads import Act, quarantine

    raise typer.Exit(quarantine(config, Act(station, head, by, reason, wait)))


@heads_app.command("release")
def heads_release(
    station: Station, head: HeadName, by: By, reason: Reason, config: Config = SITE, wait: Wait = 10.0
) -> None:
    """Let a head work again that was in quarantine; nothing is held against it any more."""
    from ifpp.roles.heads import Act, release

    raise typer.Exit(release(config, Act(station, head, by, reason, wait)))


@heads_app.command("socket")
def heads_socket(station: Station, head: HeadName, by: By, config: Config = SITE, wait: Wait = 10.0) -> None:
    """Say that a head has a new socket: its insertions count from 0. A quarantine stays until `release`."""
    from ifpp.roles.heads import Act, new_socket

    raise typer.Exit(new_socket(config, Act(station, head, by, wait_s=wait)))
