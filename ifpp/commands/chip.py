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


@chip_app.command("download")
def chip_download(
    port: Annotated[str, typer.Argument(help="A port's URL, a reader's name, or a head of --station.")],
    code: Annotated[str, typer.Argument(help="The activation code, as 1$ADDRESS$MATCHING-ID.")],
    ci: Annotated[list[Path], typer.Option(help="A CI certificate that is trusted, PEM or DER; may be repeated.")],
    journal: Annotated[Path, typer.Option(help="Keeps sessions and results; the same one for every download here.")],
    tls_ca: Annotated[Path | None, typer.Option(help="CAs of SM-DP+ in PEM.", show_default="this machine's")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Ask for the confirmation code.")] = False,
    station: Annotated[Path | None, typer.Option(help="The station file.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for a chip.")] = 30.0,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="How long the SM-DP+ may take for one answer.")] = 30.0,
) -> None:
    """Fetch the profile of an activation code from its SM-DP+ and load it: SGP.22, for chips without factory keys."""
    from ifpp.roles.online import Wishes, download_profile

    confirmation = typer.prompt("Confirmation code", hide_input=True, err=True) if confirm else ""
    wishes = Wishes(
        head=port,
        code=code,
        ci=ci,
        journal=journal,
        tls_ca=tls_ca,
        station_file=station,
        confirmation_code=confirmation,
        wait_s=wait_s,
        timeout_s=timeout_s,
    )
    raise typer.Exit(download_profile(wishes))
