"""The command line. Each command imports its role only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ifpp import __version__
from ifpp.errors import IfppError, IntakeError


def _group(about: str) -> typer.Typer:
    """A command group in plain text: rich would cost half a second a call."""
    return typer.Typer(
        help=about, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


app = _group("Line controller for In-Factory Profile Provisioning of eSIMs (GSMA SGP.41).")
store_app = _group("The factory profile store.")
station_app = _group("One physical station.")
supervisor_app = _group("The supervisor of one line.")
report_app = _group("Reports to people and to the SM-DPf.")
unit_app = _group("One unit: where it stands, whether it may leave.")
audit_app = _group("The audit log: sign, export, verify.")
sim_app = _group("The simulated world: chips, their maker, an SM-DPf, a robot.")
app.add_typer(store_app, name="store")
app.add_typer(station_app, name="station")
app.add_typer(supervisor_app, name="supervisor")
app.add_typer(report_app, name="report")
app.add_typer(unit_app, name="unit")
app.add_typer(audit_app, name="audit")
app.add_typer(sim_app, name="sim")

Config = Annotated[Path, typer.Option("--config", help="The site file.")]
Broker = Literal["auto", "mosquitto", "amqtt"]
_SITE = Path("config/site.toml")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ifpp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Load operator profiles into eUICCs on the production line."""


@app.command()
def demo(
    units: Annotated[int, typer.Option(min=1, max=100_000, help="Devices to make.")] = 32,
    stations: Annotated[int, typer.Option(min=1, max=16, help="Stations of the line.")] = 2,
    heads: Annotated[int, typer.Option(min=1, max=64, help="Heads of each station.")] = 4,
    seed: Annotated[int, typer.Option(help="Chooses chips, profiles and faults; keys are always fresh.")] = 1,
    apdu_ms: Annotated[float, typer.Option(min=0, max=1000, help="Time a chip takes for one command.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, help="Faulty units among them.")] = 0,
    template: Annotated[Path | None, typer.Option(help="A SAIP profile (DER) instead of generated ones.")] = None,
    broker: Annotated[Broker, typer.Option(help="Which broker; auto takes Mosquitto if it is there.")] = "auto",
    json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the run in this new folder.")] = None,
) -> None:
    """Run a whole line on this machine: packages bound, chips loaded, results verified and counted."""
    from ifpp.bus.broker import BrokerKind
    from ifpp.roles.demo import DemoOptions
    from ifpp.roles.demo import demo as run

    kind = None if broker == "auto" else BrokerKind(broker)
    options = DemoOptions(units, stations, heads, seed, apdu_ms, faults, template, kind, json, keep)
    raise typer.Exit(run(options))


@store_app.command("serve")
def store_serve(config: Config = _SITE) -> None:
    """Hand out packages to stations."""
    from ifpp.roles.store import serve

    serve(config)


@store_app.command("import")
def store_import(
    files: Annotated[list[Path], typer.Argument(help="eUICC data, deliveries and job orders, in this order.")],
    config: Config = _SITE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify everything, change nothing.")] = False,
) -> None:
    """Verify files and take them into the store; of a refused file nothing is taken."""
    from ifpp.roles.store import import_files

    import_files(config, files, dry_run=dry_run)


@station_app.command("run")
def station_run(
    file: Annotated[Path, typer.Argument(help="The station file, stations/<id>.toml.")], config: Config = _SITE
) -> None:
    """Run one station: its heads, its journal, its outbox."""
    from ifpp.roles.station import run

    run(config, file)


@supervisor_app.command("run")
def supervisor_run(config: Config = _SITE) -> None:
    """Run the supervisor of the line."""
    from ifpp.roles.supervisor import run

    run(config)


@report_app.command("plr")
def report_plr(out: Annotated[Path, typer.Argument(help="Folder for the reports.")], config: Config = _SITE) -> None:
    """Write the Profile Loading Report of each SM-DPf."""
    from ifpp.roles.store import write_reports

    write_reports(config, out)


@report_app.command("acknowledged")
def report_acknowledged(
    report_id: Annotated[str, typer.Argument(help="Id of the report, as in its name and first line.")],
    by: Annotated[str, typer.Option(help="Who says that the SM-DPf has taken it.")],
    config: Config = _SITE,
) -> None:
    """Note that an SM-DPf has taken a report; the first note counts."""
    from ifpp.roles.store import acknowledge

    acknowledge(config, report_id, by)


@unit_app.command("show")
def unit_show(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")],
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show where a unit and each of its packages stands, with every step."""
    from ifpp.roles.custody import show_unit

    show_unit(config, name, as_json=json)


@unit_app.command("gate")
def unit_gate(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")],
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines, with the signed entry.")] = False,
) -> None:
    """Ask whether a unit may leave; exits with 0 when it is clean to ship, else with 1 and the reason."""
    from ifpp.roles.custody import show_gate

    raise typer.Exit(show_gate(config, name, as_json=json))


@app.command()
def balance(
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Prove the mass balance per SKU, region and SM-DPf, and name every package still open; 1 when it does not hold."""
    from ifpp.roles.custody import show_balance

    raise typer.Exit(show_balance(config, as_json=json))


@audit_app.command("key")
def audit_key(
    file: Annotated[Path, typer.Argument(help="New file for the private key; FILE.pub gets the public.")],
) -> None:
    """Make a key that signs the audit log (settings: supervisor.signing_key)."""
    from ifpp.roles.audit import make_key

    make_key(file)


@audit_app.command("export")
def audit_export(out: Annotated[Path, typer.Argument(help="New file.")], config: Config = _SITE) -> None:
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


@sim_app.command("fleet")
def sim_fleet(
    world: Annotated[Path, typer.Argument(help="Folder of the simulated world.")],
    station: Annotated[list[str], typer.Option(help="Serve the slots of this station; may be repeated.")],
    heads: Annotated[int, typer.Option(min=1, max=64, help="Slots of each station.")] = 4,
    apdu_ms: Annotated[float, typer.Option(min=0, help="Time a chip takes for one command.")] = 5.0,
    handling_ms: Annotated[float, typer.Option(min=0, help="Time the robot takes to change a unit.")] = 50.0,
    out: Annotated[Path, typer.Option(help="Write what became of every unit here.")] = Path("fleet.json"),
) -> None:
    """Serve virtual chips on tcp:// slots and feed them with a robot."""
    from ifpp.roles.simulation import fleet

    fleet(world, station, heads, apdu_ms, handling_ms, out)


def main() -> None:
    """Run the command line; an error speaks in one line (several for a refused batch) and exits with 1."""
    try:
        app()
    except IfppError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        if isinstance(error, IntakeError):
            for item in error.items:
                print(f"  {item}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
