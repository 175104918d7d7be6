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
people_app = _group("Who may act at a station, and as what.")
audit_app = _group("The audit log: export, verify.")
quota_app = _group("Signed production orders: how many units of a SKU may be sealed.")
pki_app = _group("Certificates of the site: issue, revoke, list.")
keys_app = _group("The factory's own keys: make, list, rotate, audit, destroy.")
alarm_app = _group("Alarms of the line: what stands, acting on it, how many there are.")
gate_app = _group("First articles: what a job order shows, and its release by a person.")
contract_app = _group("The line contract over MQTT: what is said on which topic.")
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
app.add_typer(people_app, name="people")
app.add_typer(audit_app, name="audit")
app.add_typer(keys_app, name="keys")
app.add_typer(quota_app, name="quota")
app.add_typer(pki_app, name="pki")
app.add_typer(gate_app, name="gate")
app.add_typer(alarm_app, name="alarm")
app.add_typer(contract_app, name="contract")
app.add_typer(sim_app, name="sim")

Config = Annotated[Path, typer.Option("--config", help="The site file.")]
By = Annotated[str, typer.Option(help="Who does it: your name goes on record.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]
ReportOut = Annotated[Path | None, typer.Option(help="File to write, instead of the standard output.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="One row a figure.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
AsText = Annotated[bool, typer.Option("--text", help="The hand-over in words.")]
Broker = Literal["auto", "mosquitto", "amqtt"]
KeysOfDemo = Literal["none", "software", "pkcs11"]
PortKind = Literal["tcp", "pcsc", "modem", "mixed"]
_SITE = Path("config/site.toml")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ifpp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001 - its callback has seen it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    pin_fd: Annotated[int | None, typer.Option(min=0, help="Read the keys' PIN from this open descriptor.")] = None,
) -> None:
    """Load operator profiles into eUICCs on the production line."""
    if pin_fd is not None:
        from ifpp.roles.pin import take_pin

        take_pin(pin_fd)


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
    keys: Annotated[KeysOfDemo, typer.Option(help="What signs: an encrypted file, SoftHSM, nothing.")] = "software",
    encrypt_deliveries: Annotated[
        bool, typer.Option("--encrypt-deliveries", help="The SM-DPf encrypts them for the transport key.")
    ] = False,
    dm_auth: Annotated[
        bool, typer.Option("--dm-auth", help="Every key deletion and lock carries a MAC of the chip key.")
    ] = False,
    screen: Annotated[bool, typer.Option(help="Show the first station's screen, on a terminal.")] = True,
    mes: Annotated[bool, typer.Option("--mes", help="A simulated MES sends the job orders and is told all.")] = False,
) -> None:
    """Run a whole line on this machine: packages bound, chips loaded, results verified and counted."""
    from ifpp.bus.broker import BrokerKind
    from ifpp.roles.demo import DemoOptions
    from ifpp.roles.demo import demo as run
    from ifpp.roles.demo_keys import KeysKind
    from ifpp.sim.doors import Ports

    kind = None if broker == "auto" else BrokerKind(broker)
    options = DemoOptions(
        units,
        stations,
        heads,
        seed,
        apdu_ms,
        faults,
        Ports(ports),
        modem,
        template,
        kind,
        json,
        keep,
        KeysKind(keys),
        encrypt_deliveries,
        dm_auth,
        screen,
        mes,
    )
    raise typer.Exit(run(options))


@app.command()
def kpi(
    shift: Annotated[str, typer.Option(help="Name of a shift (its last one), DATE/SHIFT, or current.")] = "current",
    job: Annotated[str, typer.Option(help="A job order instead of a shift.")] = "",
    config: Config = _SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every head.")] = False,
) -> None:
    """Count the line's figures from its events: yields, units an hour, OEE and its parts, what costs most."""
    from ifpp.roles.kpi import show_kpi

    show_kpi(config, shift=shift, job=job, as_json=as_json)


@app.command()
def quality(
    hours: Annotated[float, typer.Option(min=0.1, max=8760, help="How far back.")] = 24.0,
    limit: Annotated[float, typer.Option(min=0, help="Seconds per kB a load may take; 0: none.")] = 0.0,
    freeze: Annotated[bool, typer.Option("--freeze", help="Freeze the limits of the charts from this time.")] = False,
    by: Annotated[str, typer.Option(help="Who freezes them.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    config: Config = _SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Judge load times by profile type, chip firmware and reader: charts, capability, heads that differ."""
    from ifpp.roles import quality as role

    if freeze:
        role.freeze(config, hours=hours, by=by, reason=reason)
    else:
        role.show_quality(config, hours=hours, limit=limit, as_json=as_json)


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
def store_backup(
    file: Annotated[Path, typer.Argument(help="New file.")],
    config: Config = _SITE,
    seal: Annotated[
        bool | None, typer.Option("--seal/--no-seal", help="Encrypt for the backup key; by default when there is one.")
    ] = None,
) -> None:
    """Write the whole database to one file, checked, while stations work."""
    from ifpp.roles.keeping import backup

    backup(config, file, seal=seal)


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


@store_app.command("import")
def store_import(
    files: Annotated[list[Path], typer.Argument(help="eUICC data, deliveries, travellers, job or production orders.")],
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


@store_app.command("reserve")
def store_reserve(
    job: Annotated[str, typer.Argument(help="The job order.")],
    by: By,
    reason: Reason,
    config: Config = _SITE,
    units: Annotated[int, typer.Option(min=0, help="So many chips in all that have their packages, by EID.")] = 0,
    eids: Annotated[Path | None, typer.Option(help="Instead: a file of EIDs, one a line.")] = None,
    lot: Annotated[str, typer.Option(help="With --units, only chips of these eUICC data: file name or number.")] = "",
) -> None:
    """Keep chips for a job order until it ends: no other job order gets their packages."""
    from ifpp.roles.stock import reserve

    reserve(config, job, units=units, eids=eids, lot=lot, by=by, reason=reason)


@store_app.command("unreserve")
def store_unreserve(
    job: Annotated[str, typer.Argument(help="The job order.")], by: By, reason: Reason, config: Config = _SITE
) -> None:
    """Keep no chip for a job order any more."""
    from ifpp.roles.stock import unreserve

    unreserve(config, job, by, reason)


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


@station_app.command("prefetch")
def station_prefetch(
    file: Annotated[Path, typer.Argument(help="The station file; the station itself must stand still.")],
    sku: Annotated[str, typer.Option(help="The product, as in the job order.")],
    region: Annotated[str, typer.Option(help="Its region.")],
    customer: Annotated[str, typer.Option(help="Its customer, where the job order names one.")] = "",
    job: Annotated[str, typer.Option(help="Only for this job order.")] = "",
    eids: Annotated[Path | None, typer.Option(help="The chips that will come, one EID a line.")] = None,
    units: Annotated[int | None, typer.Option(min=1, help="At most so many chips.")] = None,
    config: Config = _SITE,
) -> None:
    """Fetch, verify and keep packages, for a shift without the store; 1 when there were not enough."""
    from ifpp.roles.prefetch import prefetch
    from ifpp.station.cache import Wanted

    raise typer.Exit(prefetch(config, file, Wanted(sku, region, customer, job), eids, units))


@station_app.command("give-back")
def station_give_back(
    file: Annotated[Path, typer.Argument(help="The station file; the station itself must stand still.")],
    config: Config = _SITE,
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


@report_app.command("shift")
def report_shift(
    shift: Annotated[str, typer.Argument(help="Name of a shift (its last one), DATE/SHIFT, or current.")] = "current",
    config: Config = _SITE,
    out: ReportOut = None,
    csv: AsCsv = False,
    json: AsJson = False,
    text: AsText = False,
) -> None:
    """Write what a shift came to as a page to look at or print: yield over time, what costs most, load times, stock."""
    from ifpp.roles.line_report import form_of, report

    report(config, form=form_of(csv=csv, json=json, text=text), out=out, shift=shift)


@report_app.command("job")
def report_job(
    job: Annotated[str, typer.Argument(help="Number of the job order.")],
    config: Config = _SITE,
    out: ReportOut = None,
    csv: AsCsv = False,
    json: AsJson = False,
    text: AsText = False,
) -> None:
    """Write what a job order came to so far, as `report shift` does."""
    from ifpp.roles.line_report import form_of, report

    report(config, form=form_of(csv=csv, json=json, text=text), out=out, job=job)


@supervisor_app.command("parked")
def supervisor_parked(
    number: Annotated[int, typer.Argument(min=0, help="Show this one with its content; 0: list the latest.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many are listed.")] = 50,
    config: Config = _SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON Lines, with their content.")] = False,
) -> None:
    """Show what came over the bus and was refused: events and other documents that broke the contract."""
    from ifpp.roles.parked import show_parked

    show_parked(config, number=number, limit=limit, as_json=as_json)


@report_app.command("plr")
def report_plr(out: Annotated[Path, typer.Argument(help="Folder for the reports.")], config: Config = _SITE) -> None:
    """Write the Profile Loading Report of each SM-DPf."""
    from ifpp.roles.reports import write

    write(config, out)


@report_app.command("rework")
def report_rework(
    config: Config = _SITE, json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """Count rework orders by what the units become: ordered, removed, re-provisioned, open, failed."""
    from ifpp.roles.rework import report

    report(config, as_json=json)


@report_app.command("deliver")
def report_deliver(
    folder: Annotated[Path, typer.Argument(help="Folder of the reports.")], config: Config = _SITE
) -> None:
    """Send reports that are not answered yet to the SM-DPfs of [reports.smdp], and take their acknowledgements."""
    from ifpp.roles.reports import deliver

    raise typer.Exit(deliver(config, folder))


@report_app.command("status")
def report_status(
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show how far every report has come and what was refused; 1 when one is overdue or an item refused."""
    from ifpp.roles.reports import status

    raise typer.Exit(status(config, as_json=json))


@report_app.command("acknowledge")
def report_acknowledge(
    file: Annotated[Path, typer.Argument(help="What the SM-DPf sent, *.plr-ack.jsonl.")],
    signature: Annotated[Path | None, typer.Option(help="Its signature, base64.")] = None,
    config: Config = _SITE,
) -> None:
    """Take an acknowledgement that came as a file; 1 when it refuses an item."""
    from ifpp.roles.reports import take

    raise typer.Exit(take(config, file, signature))


@report_app.command("acknowledged")
def report_acknowledged(
    report_id: Annotated[str, typer.Argument(help="Id of the report, as in its name and first line.")],
    by: Annotated[str, typer.Option(help="Who says that the SM-DPf has taken it.")],
    config: Config = _SITE,
) -> None:
    """Note that an SM-DPf has taken a report; the first note counts."""
    from ifpp.roles.reports import acknowledge

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


@unit_app.command("rework")
def unit_rework(
    eid: Annotated[str, typer.Argument(help="EID of its chip.")],
    reason: Reason,
    by: By,
    sku: Annotated[str, typer.Option(help="What it is to become; without it the unit goes into stock.")] = "",
    region: Annotated[str, typer.Option(help="For which region; with --sku.")] = "",
    config: Config = _SITE,
) -> None:
    """Order that all profiles are removed from a unit's chip; a station does it when the unit is seated next."""
    from ifpp.roles.rework import order

    order(config, eid, sku=sku, region=region, by=by, reason=reason)


@unit_app.command("genealogy")
def unit_genealogy(
    name: Annotated[str, typer.Argument(help="EID, ICCID or serial number.")], config: Config = _SITE
) -> None:
    """Print device, module, eUICC, profiles and packages of a unit as JSON, for an MES to import."""
    from ifpp.roles.genealogy import show_genealogy

    show_genealogy(config, name)


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


KeysOf = Annotated[Path | None, typer.Option("--station", help="The keys of this station file, not the site's.")]
Confirm = Annotated[list[Path] | None, typer.Option(help="What a person confirmed; of two different people.")]
KeyFile = Annotated[Path, typer.Option("--key", help="This person's private key file.")]


@keys_app.command("init")
def keys_init(by: By, reason: Reason, config: Config = _SITE, station: KeysOf = None) -> None:
    """Make the keys that are missing, and the record of it."""
    from ifpp.roles.keys import Place, init

    init(Place.load(config, station), by, reason)


@keys_app.command("list")
def keys_list(config: Config = _SITE, station: KeysOf = None) -> None:
    """List the keys: name, kind, id, when they were made, what they may do."""
    from ifpp.roles.keys import Place, list_keys

    list_keys(Place.load(config, station))


@keys_app.command("rotate")
def keys_rotate(
    purpose: Annotated[str, typer.Argument(help="audit, report, station, chip, transport or backup.")],
    by: By,
    reason: Reason,
    confirm: Confirm = None,
    config: Config = _SITE,
    station: KeysOf = None,
) -> None:
    """Make the next version of a key; old signatures stay verifiable."""
    from ifpp.roles.keys import Place, rotate

    rotate(Place.load(config, station), purpose, by, reason, confirm or [])


@keys_app.command("destroy")
def keys_destroy(
    name: Annotated[str, typer.Argument(help="An older version, such as audit.1.")],
    by: By,
    reason: Reason,
    confirm: Confirm = None,
    config: Config = _SITE,
    station: KeysOf = None,
) -> None:
    """Destroy an older version of a key for good."""
    from ifpp.roles.keys import Place, destroy

    destroy(Place.load(config, station), name, by, reason, confirm or [])


@keys_app.command("confirm")
def keys_confirm(
    action: Annotated[Literal["rotate", "destroy"], typer.Argument(help="What is about to be done.")],
    name: Annotated[str, typer.Argument(help="With which key, as `rotate` and `destroy` name it.")],
    out: Annotated[Path, typer.Argument(help="New file for the confirmation.")],
    by: By,
    key: KeyFile,
    config: Config = _SITE,
    station: KeysOf = None,
) -> None:
    """Confirm a rotation or destruction as one of two people; needs no PIN."""
    from ifpp.roles.keys import Place, confirm_act

    confirm_act(Place.load(config, station), action, name, by, key, out)


@keys_app.command("audit")
def keys_audit(config: Config = _SITE, station: KeysOf = None) -> None:
    """Compare the keys with the plan (deploy/KEYS.md) and the ceremony records; exits with 1 on a difference."""
    from ifpp.roles.keys import Place, audit

    raise typer.Exit(audit(Place.load(config, station)))


@keys_app.command("public")
def keys_public(
    name: Annotated[str, typer.Argument(help="Such as audit.1.")],
    out: Annotated[Path, typer.Argument(help="New file, PEM.")],
    config: Config = _SITE,
    station: KeysOf = None,
) -> None:
    """Write a public key, for those who check what was signed."""
    from ifpp.roles.keys import Place, export_public

    export_public(Place.load(config, station), name, out)


@keys_app.command("personal")
def keys_personal(
    file: Annotated[Path, typer.Argument(help="New file for the private key; FILE.pub gets the public.")],
) -> None:
    """Make a key of a person who confirms, or of a courier, in a file of its own."""
    from ifpp.roles.keys import personal

    personal(file)


@quota_app.command("sign")
def quota_sign(
    file: Annotated[Path, typer.Argument(help="New file, NAME.production-order.json.")],
    order: Annotated[str, typer.Option(help="Its id.")],
    sku: Annotated[str, typer.Option(help="The product.")],
    quantity: Annotated[int, typer.Option(min=1, help="So many units may be sealed under it.")],
    until: Annotated[str, typer.Option(help="When it ends, as 2026-12-31T00:00:00Z.")],
    site: Annotated[str, typer.Option(help="ENTERPRISE/SITE, as in the site file.")],
    key: Annotated[Path, typer.Option(help="Private key of the planner, from `ifpp keys personal`.")],
    start: Annotated[str, typer.Option("--from", help="When it begins; now.")] = "",
    version: Annotated[int, typer.Option(min=1, help="A higher one takes the place of a lower.")] = 1,
) -> None:
    """Sign a production order, at the planner's."""
    from ifpp.roles.quota import sign

    sign(file, order, version, site, sku, quantity, (start, until), key)


@quota_app.command("show")
def quota_show(
    config: Config = _SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show every production order and how far it is used."""
    from ifpp.roles.quota import show

    show(config, as_json=json)


@pki_app.command("issue")
def pki_issue(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA; it is made when there is none.")],
    names: Annotated[list[str], typer.Argument(help="store:HOST, broker:HOST or ROLE:NAME.")],
    csr: Annotated[
        Path | None, typer.Option(help="For one name: sign this request; its key stays where it is.")
    ] = None,
) -> None:
    """Issue certificates for the line's TLS; one that is there is renewed, with a new key."""
    from ifpp.roles.pki import issue

    issue(folder, names, csr)


@pki_app.command("revoke")
def pki_revoke(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA.")],
    names: Annotated[list[str] | None, typer.Argument(help="store:HOST, broker:HOST or ROLE:NAME.")] = None,
) -> None:
    """Revoke certificates; without a name only renew the revocation list, as is due every 90 days."""
    from ifpp.roles.pki import revoke

    revoke(folder, names or [])


@pki_app.command("rotate")
def pki_rotate(folder: Annotated[Path, typer.Argument(help="Folder of the CA.")]) -> None:
    """Make the next CA; the old one stays trusted in ca.pem until `ifpp pki retire`."""
    from ifpp.roles.pki import rotate

    rotate(folder)


@pki_app.command("retire")
def pki_retire(folder: Annotated[Path, typer.Argument(help="Folder of the CA.")]) -> None:
    """Trust the newest CA only, once every certificate is from it."""
    from ifpp.roles.pki import retire

    retire(folder)


@pki_app.command("broker")
def pki_broker(
    folder: Annotated[Path, typer.Argument(help="Folder of the CA, as on the broker's machine.")],
    names: Annotated[list[str], typer.Argument(help="Clients of this line: station:ST01, supervisor:NAME, mes:NAME.")],
    out: Annotated[Path, typer.Option(help="Folder for mosquitto.conf and acl; other lines' rights in it stay.")],
    config: Config = _SITE,
) -> None:
    """Write what Mosquitto needs: mutual TLS, and for each certificate what it may say and hear."""
    from ifpp.roles.pki import broker

    broker(folder, names, config, out)


@pki_app.command("list")
def pki_list(
    folder: Annotated[Path, typer.Argument(help="Any folder of certificates, *.pem.")],
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show certificates and when they end; 1 when one has less than 14 days."""
    from ifpp.roles.pki import show

    raise typer.Exit(show(folder, as_json=json))


Station = Annotated[str, typer.Argument(help="Id of the station.")]
HeadName = Annotated[str, typer.Argument(metavar="HEAD", help="Its head, as in the station file.")]
Wait = Annotated[float, typer.Option("--wait", min=0.1, max=600, help="Seconds to wait for the station's answer.")]


AlarmId = Annotated[str, typer.Argument(help="The alarm's id, as `ifpp alarm list` shows it.")]


@alarm_app.command("list")
def alarm_list(
    config: Config = _SITE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the document as the supervisor says it.")] = False,
) -> None:
    """List the alarms of the line, the most urgent first; exit code 1 while one rings."""
    from ifpp.roles.alarms import show

    raise typer.Exit(show(config, as_json=as_json))


@alarm_app.command("ack")
def alarm_ack(alarm: AlarmId, by: By, reason: Reason = "", config: Config = _SITE, wait: Wait = 10.0) -> None:
    """Acknowledge an alarm: it stands until its cause is gone, and rings no more."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("ACK", alarm, by, reason, wait_s=wait)))


@alarm_app.command("shelve")
def alarm_shelve(
    alarm: AlarmId,
    by: By,
    reason: Reason,
    minutes: Annotated[int, typer.Option(min=1, max=480, help="For how long.")] = 60,
    config: Config = _SITE,
    wait: Wait = 10.0,
) -> None:
    """Set an alarm aside for a while, for a reason; one of priority 1 cannot be."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("SHELVE", alarm, by, reason, minutes, wait)))


@alarm_app.command("unshelve")
def alarm_unshelve(alarm: AlarmId, by: By, reason: Reason = "", config: Config = _SITE, wait: Wait = 10.0) -> None:
    """Take an alarm from the shelf before its time."""
    from ifpp.roles.alarms import Act, act

    raise typer.Exit(act(config, Act("UNSHELVE", alarm, by, reason, wait_s=wait)))


@alarm_app.command("figures")
def alarm_figures(
    days: Annotated[float, typer.Option(min=0.01, help="Of how many days until now.")] = 1.0, config: Config = _SITE
) -> None:
    """Count alarms as ISA-18.2 does: a day, an hour, floods, the top ten, stale and chattering ones."""
    from ifpp.roles.alarms import count

    raise typer.Exit(count(config, days))


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


@app.command("metrics")
def metrics(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every Prometheus series: what it means, its labels and unit, and which process has it."""
    from ifpp.roles.series import show

    show(as_json=as_json)


Language = Literal["en", "de", "zh", "es"]


@app.command("tui")
def tui(
    station_file: Annotated[Path | None, typer.Option(help="The station, stations/<id>.toml.")] = None,
    socket: Annotated[Path | None, typer.Option(help="The station's window itself.")] = None,
    lang: Annotated[Language, typer.Option(help="Language of the screen.")] = "en",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Shapes in ASCII.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines for screen readers: what changes.")] = False,
    columns: Annotated[int, typer.Option(min=0, max=64, help="Heads in a row, as on the fixture.")] = 0,
) -> None:
    """Show a station's screen: heads, job, alarms, what to do now; badges and function keys act. F1 helps."""
    from ifpp.roles.screen import show

    show(station_file, socket, language=lang, ascii_only=ascii_only, plain=plain, columns=columns)


_PEOPLE = typer.Option(help="The file of people.")
PeopleFile = Annotated[Path, _PEOPLE]
_PEOPLE_FILE = Path("config/people.toml")


@people_app.command("add")
def people_add(
    name: Annotated[str, typer.Argument(help="1 to 32 of A-Z a-z 0-9 _ -")],
    role: Annotated[Literal["operator", "technician", "quality"], typer.Option(help="What the person may do.")],
    file: PeopleFile = _PEOPLE_FILE,
) -> None:
    """Enter a person, or give one a new badge or role; scan the badge when asked (standard input)."""
    from ifpp.roles.people import add

    add(file, name, role)


@people_app.command("remove")
def people_remove(name: Annotated[str, typer.Argument()], file: PeopleFile = _PEOPLE_FILE) -> None:
    """Take a person out."""
    from ifpp.roles.people import remove

    remove(file, name)


@people_app.command("list")
def people_list(file: PeopleFile = _PEOPLE_FILE) -> None:
    """Show who is in."""
    from ifpp.roles.people import show

    show(file)


JobName = Annotated[str, typer.Argument(help="Id of the job order.")]


@gate_app.command("show")
def gate_show(job: JobName, config: Config = _SITE) -> None:
    """Say what a job order has shown and what is missing; 0 when it is released, else 1."""
    from ifpp.roles.gate import show

    raise typer.Exit(show(config, job))


@gate_app.command("release")
def gate_release(job: JobName, by: By, reason: Reason, config: Config = _SITE) -> None:
    """Release a job order that has shown its first articles and golden units."""
    from ifpp.roles.gate import release

    release(config, job, by, reason)


@gate_app.command("changeover")
def gate_changeover(
    job: JobName,
    setup: Annotated[str, typer.Argument(help="Name of the new setup.")],
    by: By,
    reason: Reason,
    config: Config = _SITE,
) -> None:
    """Say that a job order is set up anew: it has to be shown and released again."""
    from ifpp.roles.gate import changeover

    changeover(config, job, setup, by, reason)


@contract_app.command("write")
def contract_write(folder: Annotated[Path, typer.Argument(help="Folder for the files.")]) -> None:
    """Write the contract as AsyncAPI 3 and a JSON Schema of each document."""
    from ifpp.roles.contract import write

    write(folder)


@contract_app.command("check")
def contract_check(older: Annotated[Path, typer.Argument(help="AsyncAPI document of an older ifpp.")]) -> None:
    """Say what the contract takes away from an older one; 0 when it only adds, else 1."""
    from ifpp.roles.contract import compare

    raise typer.Exit(compare(older))


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


@sim_app.command("encrypt")
def sim_encrypt(
    files: Annotated[list[Path], typer.Argument(help="Deliveries in the clear.")],
    key: Annotated[Path, typer.Option(help="The factory's public transport key, of `ifpp keys public`.")],
    out: Annotated[Path, typer.Option(help="Folder the envelopes are written to.")],
    key_name: Annotated[str, typer.Option(help="Name of that key.")] = "transport.1",
) -> None:
    """Encrypt deliveries for a factory, as an SM-DPf sends them."""
    from ifpp.roles.simulation import encrypt

    encrypt(files, out, key, key_name)


@sim_app.command("mes")
def sim_mes(
    world: Annotated[Path, typer.Argument(help="Folder of the simulated world; its job orders are sent.")],
    broker: Annotated[str, typer.Option(help="HOST:PORT of the line's broker.")],
    base: Annotated[str, typer.Option(help="Topics of the line: prefix/enterprise/site/area/line.")],
    slow: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0.0,
    absent: Annotated[str, typer.Option(help="FROM,TO: away between these seconds after the start.")] = "",
    contradictory: Annotated[bool, typer.Option("--contradictory", help="Takes back what it said.")] = False,
    malicious: Annotated[bool, typer.Option("--malicious", help="Garbage, giants, wrong types, other names.")] = False,
    refuse: Annotated[list[str] | None, typer.Option(help="EID it lets go nowhere; may be repeated.")] = None,
    route_policy: Annotated[str, typer.Option(help="Of its job orders.")] = "BLOCK",
    out: Annotated[Path, typer.Option(help="Write what it was told here.")] = Path("mes.json"),
) -> None:
    """Play the plant's MES: job orders down, route checks answered, results taken and counted."""
    from ifpp.roles.simulation import mes, span
    from ifpp.sim.mes import Character

    bad = frozenset(refuse or ())
    mes(world, broker, base, Character(slow, span(absent), contradictory, malicious, bad, route_policy), out)


@sim_app.command("smdpf")
def sim_smdpf(
    world: Annotated[Path, typer.Argument(help="Folder of the simulated world.")],
    key: Annotated[list[Path], typer.Option(help="Public key of the factory's reports; may be repeated.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens on this machine; 0: any free.")] = 0,
) -> None:
    """Take Profile Loading Reports, judge every item, and answer with a signed acknowledgement."""
    from ifpp.roles.simulation import smdpf

    smdpf(world, key, port)


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
