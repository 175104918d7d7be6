"""What commands of several groups ask for in the same words, and how a group is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Config = Annotated[Path, typer.Option("--config", help="The site file.")]
By = Annotated[str, typer.Option(help="Who does it: your name goes on record.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]
PortKind = Literal["tcp", "pcsc", "modem", "mixed"]
SITE = Path("config/site.toml")
Wait = Annotated[float, typer.Option("--wait", min=0.1, max=600, help="Seconds to wait for the station's answer.")]


def group(about: str) -> typer.Typer:
    """A command group in plain text: rich would cost half a second a call."""
    return typer.Typer(
        help=about, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
