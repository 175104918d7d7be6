"""`ifpp audit`: The audit log: export, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

audit_app = group("The audit log: export, verify.")


@audit_app.command("export")
def audit_export(out: Annotated[Path, typer.Argument(help="New file.")], config: Config = SITE) -> None:
    """Write the audit log to a file that can be checked without the factory."""
    from ifpp.roles.audit import export

    export(config, out)


@audit_app.command("verify")
def audit_verify(
    file: Annotated[Path, typer.Argument(help="What `ifpp audit export` wrote.")],
    key: Annotated[
        list[Path] | None, typer.Option(help="Public key of the factory; trust no other. May be repeated.")
    ] = None,
    since: Annotated[Path | None, typer.Option(help="An earlier export, which FILE must continue.")] = None,
) -> None:
    """Find what was changed, cut, reordered, repeated or forked in an exported log; needs no database."""
    from ifpp.roles.audit import verify

    raise typer.Exit(verify(file, key or [], since))
