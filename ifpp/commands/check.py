"""`ifpp check`: what is wrong with an installation, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifpp.commands.options import group

check_app = group("What is wrong with an installation, and what to do.")
Process = Literal["station", "store", "supervisor"]


@check_app.command("check")
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Site and station files, or a folder with them; else the present one.")
    ] = None,
    process: Annotated[Process | None, typer.Option("--for", help="Only what this process needs.")] = None,
    running: Annotated[bool, typer.Option("--running", help="The line runs: what it holds is no fault.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at settings, machine, keys, certificates, database, broker, store and heads; 1 when a start would fail."""
    from ifpp.roles.check import Role
    from ifpp.roles.check import check as look

    found = paths or [Path()]
    raise typer.Exit(look(found, Role(process or "all"), running=running, as_json=as_json))
