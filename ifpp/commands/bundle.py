"""`ifpp bundle`: Courier bundles: files for parties that no network reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, Config, group

bundle_app = group("Courier bundles: files for parties that no network reaches.")


@bundle_app.command("make")
def bundle_make(
    files: Annotated[list[Path], typer.Argument(help="What the bundle holds.")],
    to: Annotated[str, typer.Option(help="Who it is for, as in courier.peers.")],
    config: Config = SITE,
) -> None:
    """Sign files and put them into one that can be carried to another party."""
    from ifpp.roles.courier import make

    make(config, to, files)


@bundle_app.command("accept")
def bundle_accept(file: Annotated[Path, typer.Argument(help="A bundle for us.")], config: Config = SITE) -> None:
    """Check signature, order, sizes and digests of a bundle, unpack it and write the receipt; imports nothing."""
    from ifpp.roles.courier import accept

    accept(config, file)


@bundle_app.command("receipt")
def bundle_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt that came back.")], config: Config = SITE
) -> None:
    """Check the receipt for a bundle of ours, and tell which have none yet."""
    from ifpp.roles.courier import receipt

    receipt(config, file)
