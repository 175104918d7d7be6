"""`ifpp keys`: The factory's own keys: make, list, rotate, audit, destroy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

keys_app = group("The factory's own keys: make, list, rotate, audit, destroy.")
KeysOf = Annotated[Path | None, typer.Option("--station", help="The keys of this station file, not the site's.")]
Confirm = Annotated[list[Path] | None, typer.Option(help="What a person confirmed; of two different people.")]
KeyFile = Annotated[Path, typer.Option("--key", help="This person's private key file.")]


@keys_app.command("init")
def keys_init(by: By, reason: Reason, config: Config = SITE, station: KeysOf = None) -> None:
    """Make the keys that are missing, and the record of it."""
    from ifpp.roles.keys import Place, init

    init(Place.load(config, station), by, reason)


@keys_app.command("list")
def keys_list(config: Config = SITE, station: KeysOf = None) -> None:
    """List the keys: name, kind, id, when they were made, what they may do."""
    from ifpp.roles.keys import Place, list_keys

    list_keys(Place.load(config, station))


@keys_app.command("rotate")
def keys_rotate(
    purpose: Annotated[str, typer.Argument(help="audit, report, station, chip, transport or backup.")],
    by: By,
    reason: Reason,
    confirm: Confirm = None,
    config: Config = SITE,
    station: KeysOf = None,
) -> None:
    """Make the next version of a key; old signatures stay verifiable."""
    from ifpp.roles.keys import Place, rotate

    rotate(Place.load(config, station), purpose, by, reason, confirm or [])


@keys_app.command("destroy")
def keys_destroy(
    name: Annotated[str, typer.Argument(help="An older version, such as audit.1.")],
    by: By,
    reason: Reason,
    confirm: Confirm = None,
    config: Config = SITE,
    station: KeysOf = None,
) -> None:
    """Destroy an older version of a key for good."""
    from ifpp.roles.keys import Place, destroy

    destroy(Place.load(config, station), name, by, reason, confirm or [])


@keys_app.command("confirm")
def keys_confirm(
    action: Annotated[Literal["rotate", "destroy"], typer.Argument(help="What is about to be done.")],
    name: Annotated[str, typer.Argument(help="With which key, as `rotate` and `destroy` name it.")],
    out: Annotated[Path, typer.Argument(help="New file for the confirmation.")],
    by: By,
    key: KeyFile,
    config: Config = SITE,
    station: KeysOf = None,
) -> None:
    """Confirm a rotation or destruction as one of two people; needs no PIN."""
    from ifpp.roles.keys import Place, confirm_act

    confirm_act(Place.load(config, station), action, name, by, key, out)


@keys_app.command("audit")
def keys_audit(config: Config = SITE, station: KeysOf = None) -> None:
    """Compare the keys with the plan (deploy/KEYS.md) and the ceremony records; exits with 1 on a difference."""
    from ifpp.roles.keys import Place, audit

    raise typer.Exit(audit(Place.load(config, station)))


@keys_app.command("public")
def keys_public(
    name: Annotated[str, typer.Argument(help="Such as audit.1.")],
    out: Annotated[Path, typer.Argument(help="New file, PEM.")],
    config: Config = SITE,
    station: KeysOf = None,
) -> None:
    """Write a public key, for those who check what was signed."""
    from ifpp.roles.keys import Place, export_public

    export_public(Place.load(config, station), name, out)


@keys_app.command("personal")
def keys_personal(
    file: Annotated[Path, typer.Argument(help="New file for the private key; FILE.pub gets the public.")],
) -> None:
    """Make a key of a person who confirms, or of a courier, in a file of its own."""
    from ifpp.roles.keys import personal

    personal(file)
