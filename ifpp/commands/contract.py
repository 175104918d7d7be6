"""`ifpp contract`: The line contract over MQTT: what is said on which topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import group

contract_app = group("The line contract over MQTT: what is said on which topic.")


@contract_app.command("write")
def contract_write(folder: Annotated[Path, typer.Argument(help="Folder for the files.")]) -> None:
    """Write the contract as AsyncAPI 3 and a JSON Schema of each document."""
    from ifpp.roles.contract import write

    write(folder)


@contract_app.command("check")
def contract_check(older: Annotated[Path, typer.Argument(help="AsyncAPI document of an older ifpp.")]) -> None:
    """Say what the contract takes away from an older one; 0 when it only adds, else 1."""
    from ifpp.roles.contract import compare

    raise typer.Exit(compare(older))
