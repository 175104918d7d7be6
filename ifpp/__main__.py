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
heads_app = _group("Programming heads: what sits in them, a technician's look, their life.")
supervisor_app = _group("The supervisor of one line.")
report_app = _group("Reports to people and to the SM-DPf.")
bundle_app = _group("Courier bundles: files for parties that no network reaches.")
unit_app = _group("One unit: where it stands, whether it may leave.")
plan_app = _group("Profile plans: what the units of a SKU and region get, in which order.")
denylist_app = _group("Which profile type is not loaded into chips of which firmware.")
audit_app = _group("The audit log: sign, export, verify.")
sim_app = _group("The simulated world: chips, their maker, an SM-DPf, a robot.")
app.add_typer(store_app, name="store")
app.add_typer(station_app, name="station")
app.add_typer(heads_app, name="heads")
app.add_typer(supervisor_app, name="supervisor")
app.add_typer(report_app, name="report")
app.add_typer(bundle_app, name="bundle")
app.add_typer(unit_app, name="unit")
app.add_typer(plan_app, name="plan")
app.add_typer(denylist_app, name="denylist")
app.add_typer(audit_app, name="audit")
app.add_typer(sim_app, name="sim")

Config = Annotated[Path, typer.Option("--config", help="The site file.")]
By = Annotated[str, typer.Option(help="Who does it: your name goes on record.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]
Broker = Literal["auto", "mosquitto", "amqtt"]
PortKind = Literal["tcp", "pcsc", "modem", "mixed"]
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
    ports: Annotated[PortKind, typer.Option(help="How heads reach chips; pcsc and mixed need root or sudo.")] = "tcp",
    modem: Annotated[str, typer.Option(help="Personality of simulated modems.")] = "plain",
    template: Annotated[Path | None, typer.Option(help="A SAIP profile (DER) instead of generated ones.")] = None,
    broker: Annotated[Broker, typer.Option(help="Which broker; auto takes Mosquitto if it is there.")] = "auto",
    json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep all files of the run in this new folder.")] = None,
) -> None:
    """Run a whole line on this machine: packages bound, chips loaded, results verified and counted."""
    from ifpp.bus.broker import BrokerKind
    from ifpp.roles.demo import DemoOptions
    from ifpp.roles.demo import demo as run
    from ifpp.sim.doors import Ports

    kind = None if broker == "auto" else BrokerKind(broker)
    options = DemoOptions(
        units, stations, heads, seed, apdu_ms, faults, Ports(ports), modem, template, kind, json, keep
    )
    raise typer.Exit(run(options))


@store_app.command("serve")
def store_serve(config: Config = _SITE) -> None:
    """Hand out packages to stations."""
    from ifpp.roles.store import serve

    serve(config)


@store_app.command("migrate")
def store_migrate(config: Config = _SITE) -> None:
    """Bring a database that an older ifpp made to the present schema; make a backup first."""
    from ifpp.roles.keeping import migrate

    migrate(config)


@store_app.command("backup")
def store_backup(file: Annotated[Path, typer.Argument(help="New file.")], config: Config = _SITE) -> None:
    """Write the whole database to one file, checked, while stations work."""
    from ifpp.roles.keeping import backup

    backup(config, file)


@store_app.command("restore")
def store_restore(
    file: Annotated[Path, typer.Argument(help="What `ifpp store backup` wrote.")], config: Config = _SITE
) -> None:
    """Make the database from a backup, where there is none; what happened after the backup is not in it."""
    from ifpp.roles.keeping import restore

    restore(config, file)


@store_app.command("openapi")
def store_openapi() -> None:
    """Print the HTTP interface as OpenAPI 3.1."""
    from ifpp.roles.keeping import openapi

    openapi()


@store_app.command("pki")
def store_pki(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA; it is made when there is none.")],
    names: Annotated[list[str] | None, typer.Argument(help="store:<host> or <role>:<name>.")] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke their certificates instead.")] = False,
) -> None:
    """Issue TLS certificates for a trial, to the store and its callers, and renew the revocation list."""
    from ifpp.roles.keeping import pki

    pki(folder, names or [], revoke=revoke)


@store_app.command("import")
def store_import(
    files: Annotated[list[Path], typer.Argument(help="eUICC data, deliveries and job orders, in this order.")],
    config: Config = _SITE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify everything, change nothing.")] = False,
) -> None:
    """Verify files and take them into the store; of a refused file nothing is taken."""
    from ifpp.roles.intake import import_files

    import_files(config, files, dry_run=dry_run)


@store_app.command("request")
def store_request(
    folder: Annotated[Path, typer.Argument(help="Where the request is written.")],
    config: Config = _SITE,
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
    config: Config = _SITE,
    job: Annotated[str, typer.Option(help="Of this job order of the line.")] = "",
    lot: Annotated[str, typer.Option(help="Only chips of these eUICC data: file name or number.")] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show which chips have their packages, which lack some, how long they last and what to order."""
    from ifpp.roles.stock import show_coverage

    show_coverage(config, job=job, lot=lot, as_json=json)


@store_app.command("withdraw")
def store_withdraw(
    batch: Annotated[str, typer.Argument(help="The delivery: file name or number.")],
    by: By,
    reason: Reason,
    config: Config = _SITE,
) -> None:
    """Give out no package of a delivery any more; what a head has claimed or sent goes its way."""
    from ifpp.roles.stock import withdraw

    withdraw(config, batch, by, reason)


@station_app.command("run")
def station_run(
    file: Annotated[Path, typer.Argument(help="The station file, stations/<id>.toml.")], config: Config = _SITE
) -> None:
    """Run one station: its heads, its journal, its outbox."""
    from ifpp.roles.station import run

    run(config, file)


@station_app.command("resend")
def station_resend(file: Annotated[Path, typer.Argument(help="The station file, stations/<id>.toml.")]) -> None:
    """Let a stopped station send its events again, after the factory database was restored from a backup."""
    from ifpp.roles.station import resend

    resend(file)


@heads_app.command("list")
def heads_list(
    station: Annotated[
        Path | None, typer.Option(help="The heads of this station file instead of every reader there is.")
    ] = None,
) -> None:
    """List readers and modems with what sits in them; reads only."""
    from ifpp.roles.probe import list_heads

    raise typer.Exit(list_heads(station))


@heads_app.command("probe")
def heads_probe(
    name: Annotated[str, typer.Argument(help="A head of the station file, a reader's name, or a port's URL.")],
    station: Annotated[Path | None, typer.Option(help="The station file.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="How long to wait for a chip.")] = 30.0,
) -> None:
    """Look at one head: every command with its time, what the chip says; reads only, touches no stock."""
    from ifpp.roles.probe import probe

    raise typer.Exit(probe(name, station, wait_s))


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


@bundle_app.command("make")
def bundle_make(
    files: Annotated[list[Path], typer.Argument(help="What the bundle holds.")],
    to: Annotated[str, typer.Option(help="Who it is for, as in courier.peers.")],
    config: Config = _SITE,
) -> None:
    """Sign files and put them into one that can be carried to another party."""
    from ifpp.roles.courier import make

    make(config, to, files)


@bundle_app.command("accept")
def bundle_accept(file: Annotated[Path, typer.Argument(help="A bundle for us.")], config: Config = _SITE) -> None:
    """Check signature, order, sizes and digests of a bundle, unpack it and write the receipt; imports nothing."""
    from ifpp.roles.courier import accept

    accept(config, file)


@bundle_app.command("receipt")
def bundle_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt that came back.")], config: Config = _SITE
) -> None:
    """Check the receipt for a bundle of ours, and tell which have none yet."""
    from ifpp.roles.courier import receipt

    receipt(config, file)


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


Sku = Annotated[str, typer.Argument(help="The SKU, as in job orders and deliveries.")]
Region = Annotated[str, typer.Argument(help="The region, as in job orders and deliveries.")]
Customer = Annotated[str, typer.Option(help="Only for units of this customer: goes before the general plan.")]


@plan_app.command("set")
def plan_set(
    sku: Sku,
    region: Region,
    by: By,
    reason: Reason,
    profile: Annotated[list[str] | None, typer.Option(help="TYPE or TYPE@SM-DPF-OID; repeat, in order.")] = None,
    none: Annotated[bool, typer.Option("--none", help="End the plan: everything delivered is loaded.")] = False,
    customer: Customer = "",
    start: Annotated[str, typer.Option("--from", help="When it begins, as 2026-03-01T06:00:00Z; now.")] = "",
    until: Annotated[str, typer.Option(help="When it ends; then the version before it holds again.")] = "",
    config: Config = _SITE,
) -> None:
    """Say which profiles units get, in order; a new version, the old ones stay on record."""
    from ifpp.roles.plans import change
    from ifpp.store.selection import Product

    product = Product(sku, region, customer)
    change(config, product, profile or [], none=none, from_at=start, until_at=until, by=by, reason=reason)


@plan_app.command("list")
def plan_list(
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List every plan that holds now or will."""
    from ifpp.roles.plans import show_all

    show_all(config, as_json=json)


@plan_app.command("show")
def plan_show(
    sku: Sku,
    region: Region,
    customer: Customer = "",
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every version of a plan, who made it and why."""
    from ifpp.roles.plans import show_history
    from ifpp.store.selection import Product

    show_history(config, Product(sku, region, customer), as_json=json)


@plan_app.command("test")
def plan_test(
    eid: Annotated[str, typer.Argument(help="The chip.")],
    sku: Annotated[str, typer.Option(help="As the job order would say.")],
    region: Annotated[str, typer.Option(help="As the job order would say.")],
    customer: Annotated[str, typer.Option(help="As the job order would say.")] = "",
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Explain what a chip would get and why every other package is not; 1 when it lacks something. Changes nothing."""
    from ifpp.roles.plans import test
    from ifpp.store.selection import Product

    raise typer.Exit(test(config, eid, Product(sku, region, customer), as_json=json))


Firmware = Annotated[str, typer.Argument(help="Maker's number and version, as in 89049032/1.4.2.")]
ProfileType = Annotated[str, typer.Argument(help="Profile type, as in deliveries and orders.")]


@denylist_app.command("list")
def denylist_list(
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List every entry: active ones refuse, proposed ones wait for a person."""
    from ifpp.roles.denylist import show

    show(config, as_json=json)


@denylist_app.command("add")
def denylist_add(firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = _SITE) -> None:
    """Refuse a profile type on a firmware from the next claim on."""
    from ifpp.roles.denylist import deny

    deny(config, firmware, profile_type, by, reason, known=False)


@denylist_app.command("activate")
def denylist_activate(
    firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = _SITE
) -> None:
    """Let a proposed entry refuse."""
    from ifpp.roles.denylist import deny

    deny(config, firmware, profile_type, by, reason, known=True)


@denylist_app.command("remove")
def denylist_remove(
    firmware: Firmware, profile_type: ProfileType, by: By, reason: Reason, config: Config = _SITE
) -> None:
    """Take an entry off; only failures after that count again."""
    from ifpp.roles.denylist import allow

    allow(config, firmware, profile_type, by, reason)


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


Station = Annotated[str, typer.Argument(help="Id of the station.")]
HeadName = Annotated[str, typer.Argument(metavar="HEAD", help="Its head, as in the station file.")]
Wait = Annotated[float, typer.Option("--wait", min=0.1, max=600, help="Seconds to wait for the station's answer.")]


@heads_app.command("quarantine")
def heads_quarantine(
    station: Station, head: HeadName, by: By, reason: Reason, config: Config = _SITE, wait: Wait = 10.0
) -> None:
    """Take a head out of work; a seated unit is finished first."""
    from ifpp.roles.heads import Act, quarantine

    raise typer.Exit(quarantine(config, Act(station, head, by, reason, wait)))


@heads_app.command("release")
def heads_release(
    station: Station, head: HeadName, by: By, reason: Reason, config: Config = _SITE, wait: Wait = 10.0
) -> None:
    """Let a head work again that was in quarantine; nothing is held against it any more."""
    from ifpp.roles.heads import Act, release

    raise typer.Exit(release(config, Act(station, head, by, reason, wait)))


@heads_app.command("socket")
def heads_socket(station: Station, head: HeadName, by: By, config: Config = _SITE, wait: Wait = 10.0) -> None:
    """Say that a head has a new socket: its insertions count from 0. A quarantine stays until `release`."""
    from ifpp.roles.heads import Act, new_socket

    raise typer.Exit(new_socket(config, Act(station, head, by, wait_s=wait)))


@sim_app.command("fleet")
def sim_fleet(
    world: Annotated[Path, typer.Argument(help="Folder of the simulated world.")],
    station: Annotated[list[str], typer.Option(help="Serve the slots of this station; may be repeated.")],
    heads: Annotated[int, typer.Option(min=1, max=64, help="Slots of each station.")] = 4,
    apdu_ms: Annotated[float, typer.Option(min=0, help="Time a chip takes for one command.")] = 5.0,
    handling_ms: Annotated[
        float | None, typer.Option(min=0, help="Time the robot takes to change a unit.", show_default="what fits")
    ] = None,
    ports: Annotated[PortKind, typer.Option(help="The doors of the slots.")] = "tcp",
    folder: Annotated[Path, typer.Option(help="Takes sockets and terminals of slots that have some.")] = Path(),
    readers: Annotated[Path | None, typer.Option(help="The virtual readers: {name: [host, port]}.")] = None,
    modem: Annotated[str, typer.Option(help="Personality of simulated modems.")] = "plain",
    tape: Annotated[Path | None, typer.Option(help="Write every APDU the chips received here.")] = None,
    out: Annotated[Path, typer.Option(help="Write what became of every unit here.")] = Path("fleet.json"),
) -> None:
    """Serve virtual chips on slots, in readers or in modems, and feed them with a robot."""
    from ifpp.roles.simulation import FleetOptions, fleet
    from ifpp.sim.doors import Ports

    options = FleetOptions(station, heads, apdu_ms, handling_ms, Ports(ports), folder, readers, modem, tape, out)
    fleet(world, options)


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
