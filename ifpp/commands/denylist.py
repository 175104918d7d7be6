"""`ifpp denylist`: Which profile type is not loaded into chips of which firmware."""

from __future__ import annotations

from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

denylist_app = group("Which profile type is not loaded into chips of which firmware.")
Firmware = Annotated[str, typer.Argument(help="Maker's number and version, as in 89049032/1.4.2.")]
ProfileType = Annotated[str, typer.Argument(help="Profile type, as in deliveries and orders.")]


@denylist_app.command("list")
def denylist_list(
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List every entry: active ones refuse, proposed ones wait for a person."""
    from ifpp.roles.denylist import show

    show(config, as_json=json)


@denylist_app.command("add")
def denylist_add(firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = SITE) -> None:
    """Refuse a profile type on a firmware from the next claim on."""
    from ifpp.roles.denylist import deny

    deny(config, firmware, profile_type, by, reason, known=False)


@denylist_app.command("activate")
def denylist_activate(
    firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = SITE
) -> None:
    """Let a proposed entry refuse."""
    from ifpp.roles.denylist import deny

    deny(config, firmware, profile_type, by, reason, known=True)


@denylist_app.command("remove")
def denylist_remove(
    firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = SITE
) -> None:
    """Take an entry off; only failures after that count again."""
    from ifpp.roles.denylist import allow

    allow(config, firmware, profile_type, by, reason)
