"""`ifpp people`: Who may act at a station, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifpp.commands.options import group

people_app = group("Who may act at a station, and as what.")
PEOPLE = typer.Option(help="The file of people.")
PeopleFile = Annotated[Path, PEOPLE]
PEOPLE_FILE = Path("config/people.toml")


@people_app.command("add")
def people_add(
    name: Annotated[str, typer.Argument(help="1 to 32 of A-Z a-z 0-9 _ -")],
    role: Annotated[Literal["operator", "technician", "quality"], typer.Option(help="What the person may do.")],
    file: PeopleFile = PEOPLE_FILE,
) -> None:
    """Enter a person, or give one a new badge or role; scan the badge when asked (standard input)."""
    from ifpp.roles.people import add

    add(file, name, role)


@people_app.command("remove")
def people_remove(name: Annotated[str, typer.Argument()], file: PeopleFile = PEOPLE_FILE) -> None:
    """Take a person out."""
    from ifpp.roles.people import remove

    remove(file, name)


@people_app.command("list")
def people_list(file: PeopleFile = PEOPLE_FILE) -> None:
    """Show who is in."""
    from ifpp.roles.people import show

    show(file)
