"""`ifpp chip`: One chip: all it tells, and what it differs in from another or from a recipe's promise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import group

chip_app = group("One chip: all it tells, and what it differs in from another or from a recipe's promise.")


@chip_app.command("dump")
def chip_dump(
    port: Annotated[str, typer.Argument(help="A port's URL, a reader's name, or a head of --station.")],
    redact: Annotated[bool, typer.Option("--redact", help="Numbers instead of EID, ICCIDs and key ids.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of printing it.")] = None,
    station: Annotated[Path | None, typer.Option(help="The station file.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for a chip.")] = 30.0,
) -> None:
    """Write everything a chip tells as JSON; reads only, touches no stock."""
    from ifpp.roles.chips import write_dump

    write_dump(port, station, out, redact=redact, wait_s=wait_s)


@chip_app.command("diff")
def chip_diff(
    one: Annotated[Path, typer.Argument(help="A file of `ifpp chip dump`.")],
    other: Annotated[Path, typer.Argument(help="Another one, or a recipe (*.toml).")],
) -> None:
    """Name what two chips differ in, identities aside, or what a chip lacks of a recipe's promise; 1 when it is any."""
    from ifpp.roles.chips import show_diff

    raise typer.Exit(show_diff(one, other))
