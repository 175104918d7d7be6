"""`ifpp recipe`: Recipes: what is done to each chip, and what it is in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import group

recipe_app = group("Recipes: what is done to each chip, and what it is in the end.")


@recipe_app.command("show")
def recipe_show(paths: Annotated[list[Path], typer.Argument(help="Recipe files, or folders of them.")]) -> None:
    """Check recipes and show each step with its evidence, its own faults and what may be repeated, and the promise."""
    from ifpp.roles.recipes import show

    show(paths)
