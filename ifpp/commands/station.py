"""`ifpp station`: One physical station."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

station_app = group("One physical station.")


@station_app.command("run")
def station_run(
    file: Annotated[Path, typer.Argument(help="The station file, stations/<id>.toml.")], config: Config = SITE
) -> None:
    """Run one station: its heads, its journal, its outbox."""
    from ifpp.roles.station import run

    run(config, file)


@station_app.command("resend")
def station_resend(file: Annotated[Path, typer.Argument(help="The station file, stations/<id>.toml.")]) -> None:
    """Let a stopped station send its events again, after the factory database was restored from a backup."""
    from ifpp.roles.station import resend

    resend(file)


@station_app.command("backup")
def station_backup(
    file: Annotated[Path, typer.Argument(help="The station file; the station may run.")],
    target: Annotated[Path, typer.Argument(help="The new file.")],
) -> None:
    """Copy the station's journal while it works."""
    from ifpp.roles.journals import backup

    backup(file, target)


@station_app.command("restore")
def station_restore(
    file: Annotated[Path, typer.Argument(help="The station file; the station stands still and has no journal.")],
    by: By,
    reason: Reason,
    source: Annotated[Path | None, typer.Option("--from", help="A copy of its journal; without one it is new.")] = None,
    config: Config = SITE,
) -> None:
    """Give a journal to a station that lost its own; the books say where its events go on."""
    from ifpp.roles.journals import restore

    restore(config, file, source, by, reason)


@station_app.command("prefetch")
def station_prefetch(
    file: Annotated[Path, typer.Argument(help="The station file; the station itself must stand still.")],
    sku: Annotated[str, typer.Option(help="The product, as in the job order.")],
    region: Annotated[str, typer.Option(help="Its region.")],
    customer: Annotated[str, typer.Option(help="Its customer, where the job order names one.")] = "",
    job: Annotated[str, typer.Option(help="Only for this job order.")] = "",
    eids: Annotated[Path | None, typer.Option(help="The chips that will come, one EID a line.")] = None,
    units: Annotated[int | None, typer.Option(min=1, help="At most so many chips.")] = None,
    config: Config = SITE,
) -> None:
    """Fetch, verify and keep packages, for a shift without the store; 1 when there were not enough."""
    from ifpp.roles.prefetch import prefetch
    from ifpp.station.cache import Wanted

    raise typer.Exit(prefetch(config, file, Wanted(sku, region, customer, job), eids, units))


@station_app.command("give-back")
def station_give_back(
    file: Annotated[Path, typer.Argument(help="The station file; the station itself must stand still.")],
    config: Config = SITE,
) -> None:
    """Give packages back that were fetched ahead and never used."""
    from ifpp.roles.prefetch import give_back

    raise typer.Exit(give_back(config, file))


@station_app.command("prove")
def station_prove(
    file: Annotated[Path, typer.Argument(help="The station file; with --verify the document.")],
    out: Annotated[Path, typer.Option(help="New file for the document.")] = Path("station-proof.json"),
    verify: Annotated[bool, typer.Option("--verify", help="Check a document instead.")] = False,
    key: Annotated[Path | None, typer.Option(help="With --verify: the station's public key.")] = None,
) -> None:
    """Write, signed, what a station holds, and look for secrets that must not be there; 1 when there are some."""
    from ifpp.roles import prove

    raise typer.Exit(prove.verify(file, key) if verify else prove.prove(file, out))
