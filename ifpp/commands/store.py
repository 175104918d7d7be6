"""`ifpp store`: The factory profile store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import SITE, By, Config, Reason, group

store_app = group("The factory profile store.")


@store_app.command("serve")
def store_serve(config: Config = SITE) -> None:
    """Hand out packages to stations."""
    from ifpp.roles.store import serve

    serve(config)


@store_app.command("migrate")
def store_migrate(config: Config = SITE) -> None:
    """Bring a database of an older ifpp to the present schema (back it up first), or make a new one on a server."""
    from ifpp.roles.keeping import migrate

    migrate(config)


@store_app.command("backup")
def store_backup(
    file: Annotated[Path, typer.Argument(help="New file.")],
    config: Config = SITE,
    seal: Annotated[
        bool | None, typer.Option("--seal/--no-seal", help="Encrypt for the backup key; by default when there is one.")
    ] = None,
) -> None:
    """Write the whole database to one file, checked, while stations work."""
    from ifpp.roles.keeping import backup

    backup(config, file, seal=seal)


@store_app.command("restore")
def store_restore(
    file: Annotated[Path, typer.Argument(help="What `ifpp store backup` wrote.")], config: Config = SITE
) -> None:
    """Make the database from a backup, where there is none; what happened after the backup is not in it."""
    from ifpp.roles.keeping import restore

    restore(config, file)


@store_app.command("openapi")
def store_openapi() -> None:
    """Print the HTTP interface as OpenAPI 3.1."""
    from ifpp.roles.keeping import openapi

    openapi()


@store_app.command("import")
def store_import(
    files: Annotated[
        list[Path],
        typer.Argument(help="eUICC data, deliveries, activation codes, travellers, job or production orders."),
    ],
    config: Config = SITE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify everything, change nothing.")] = False,
) -> None:
    """Verify files and take them into the store; of a refused file nothing is taken."""
    from ifpp.roles.intake import import_files

    import_files(config, files, dry_run=dry_run)


@store_app.command("request")
def store_request(
    folder: Annotated[Path, typer.Argument(help="Where the request is written.")],
    config: Config = SITE,
    job: Annotated[str, typer.Option(help="For this job order of the line.")] = "",
    sku: Annotated[str, typer.Option(help="Without a job order: the SKU.")] = "",
    region: Annotated[str, typer.Option(help="Without a job order: the region.")] = "",
    lot: Annotated[str, typer.Option(help="Only chips of these eUICC data: file name or number.")] = "",
    profile: Annotated[list[str] | None, typer.Option(help="Instead of the plan: a profile type; repeat.")] = None,
) -> None:
    """Write the request to the SM-DPf for the packages that are still missing."""
    from ifpp.roles.intake import write_request

    write_request(config, folder, job=job, lot=lot, sku=sku, region=region, profile_types=profile or [])


@store_app.command("coverage")
def store_coverage(
    config: Config = SITE,
    job: Annotated[str, typer.Option(help="Of this job order of the line.")] = "",
    lot: Annotated[str, typer.Option(help="Only chips of these eUICC data: file name or number.")] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show which chips have their packages, which lack some, how long they last and what to order."""
    from ifpp.roles.stock import show_coverage

    show_coverage(config, job=job, lot=lot, as_json=json)


@store_app.command("purge")
def store_purge(
    config: Config = SITE,
    days: Annotated[int, typer.Option(min=1, help="Settled, and in an acknowledged report, for so long.")] = 90,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Let go of the bytes of packages that can never be loaded again; all else about them stays."""
    from ifpp.roles.keeping import purge

    purge(config, days=days, dry_run=dry_run)


@store_app.command("reserve")
def store_reserve(
    job: Annotated[str, typer.Argument(help="The job order.")],
    by: By,
    reason: Reason,
    config: Config = SITE,
    units: Annotated[int, typer.Option(min=0, help="So many chips in all that have their packages, by EID.")] = 0,
    eids: Annotated[Path | None, typer.Option(help="Instead: a file of EIDs, one a line.")] = None,
    lot: Annotated[str, typer.Option(help="With --units, only chips of these eUICC data: file name or number.")] = "",
) -> None:
    """Keep chips for a job order until it ends: no other job order gets their packages."""
    from ifpp.roles.stock import reserve

    reserve(config, job, units=units, eids=eids, lot=lot, by=by, reason=reason)


@store_app.command("unreserve")
def store_unreserve(
    job: Annotated[str, typer.Argument(help="The job order.")], by: By, reason: Reason, config: Config = SITE
) -> None:
    """Keep no chip for a job order any more."""
    from ifpp.roles.stock import unreserve

    unreserve(config, job, by, reason)


@store_app.command("withdraw")
def store_withdraw(
    batch: Annotated[str, typer.Argument(help="The delivery: file name or number.")],
    by: By,
    reason: Reason,
    config: Config = SITE,
) -> None:
    """Give out no package of a delivery any more; what a head has claimed or sent goes its way."""
    from ifpp.roles.stock import withdraw

    withdraw(config, batch, by, reason)
