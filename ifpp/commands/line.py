"""`ifpp demo` and what looks at the line as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ifpp.commands.options import SITE, Config, PortKind, group

line_app = group("The line as a whole.")
Broker = Literal["auto", "mosquitto", "amqtt"]
KeysOfDemo = Literal["none", "software", "pkcs11"]
Language = Literal["en", "de", "zh", "es"]


@line_app.command()
def demo(
    units: Annotated[int, typer.Option(min=1, max=100_000, help="Devices to make.")] = 32,
    stations: Annotated[int, typer.Option(min=1, max=16, help="Stations of the line.")] = 2,
    heads: Annotated[int, typer.Option(min=1, max=64, help="Heads of each station.")] = 4,
    seed: Annotated[int, typer.Option(help="Chooses chips, profiles and faults; keys are always fresh.")] = 1,
    apdu_ms: Annotated[float, typer.Option(min=0, max=1000, help="Time a chip takes for one command.")] = 5.0,
    faults: Annotated[int, typer.Option(min=0, help="Faulty units among them.")] = 0,
    ports: Annotated[PortKind, typer.Option(help="How heads reach chips; pcsc and mixed need root or sudo.")] = "tcp",
    modem: Annotated[str, typer.Option(help="Personality of simulated modems.")] = "plain",
    template: Annotated[
        list[Path] | None, typer.Option(help="A SAIP profile (DER) instead of generated ones; several: in turn.")
    ] = None,
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
    recipe: Annotated[str, typer.Option(help="What is done to each chip: a file, or a name in config/recipes.")] = "",
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
        template or (),
        kind,
        json,
        keep,
        KeysKind(keys),
        encrypt_deliveries,
        dm_auth,
        screen,
        mes,
        recipe,
    )
    raise typer.Exit(run(options))


@line_app.command()
def kpi(
    shift: Annotated[str, typer.Option(help="Name of a shift (its last one), DATE/SHIFT, or current.")] = "current",
    job: Annotated[str, typer.Option(help="A job order instead of a shift.")] = "",
    config: Config = SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every head.")] = False,
) -> None:
    """Count the line's figures from its events: yields, units an hour, OEE and its parts, what costs most."""
    from ifpp.roles.kpi import show_kpi

    show_kpi(config, shift=shift, job=job, as_json=as_json)


@line_app.command()
def capacity(
    target: Annotated[str, typer.Option(help="Good units an hour that are wanted, as 1200/h.")] = "",
    takt: Annotated[str, typer.Option(help="Or the time for each, as 3.0s.")] = "",
    since: Annotated[str, typer.Option(help="Measured since: 90min, 8h, 2d, or a moment; else the last day.")] = "",
    shift: Annotated[str, typer.Option(help="Measured in a shift: its name, DATE/SHIFT, or current.")] = "",
    job: Annotated[str, typer.Option(help="Measured on a job order.")] = "",
    recipe: Annotated[str, typer.Option(help="Only units of this recipe.")] = "",
    availability: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Share of time heads are not down.", show_default="measured")
    ] = None,
    station_heads: Annotated[int, typer.Option(min=0, max=64, help="Heads of a station; 0: as the largest has.")] = 0,
    config: Config = SITE,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a head's time goes to, how many heads and stations a target takes, what to mend or buy next."""
    from ifpp.roles.capacity import capacity as work_out

    work_out(
        config,
        target=target,
        takt=takt,
        since=since,
        shift=shift,
        job=job,
        recipe=recipe,
        availability=availability,
        heads_per_station=station_heads,
        as_json=as_json,
    )


@line_app.command()
def acceptance(
    out: Annotated[Path, typer.Option(help="New folder for the report: JSON, page, a signature of each.")],
    station_files: Annotated[
        list[Path] | None, typer.Argument(help="The stations; else all in ../stations of the site file.")
    ] = None,
    config: Config = SITE,
    key: Annotated[Path | None, typer.Option(help="Signs the report, instead of the plant's report key.")] = None,
    recipe: Annotated[str, typer.Option(help="The one of the plant's recipes to make units with.")] = "",
    database: Annotated[str, typer.Option(help="URL of an empty database for the copy; else SQLite.")] = "",
    units: Annotated[int, typer.Option(min=0, max=100_000, help="Units to make; 0: as many as it takes.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses chips, faults and the station that is killed.")] = 1,
    apdu_ms: Annotated[float, typer.Option(min=0, max=1000, help="Time a chip takes for one command.")] = 5.0,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the units.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep the copy of the line in this new folder.")] = None,
) -> None:
    """Try a copy of this line on simulated chips that fail, with kills and a power cut; 1 when it is not accepted."""
    from ifpp.roles.acceptance import AcceptanceOptions, accept

    options = AcceptanceOptions(out, seed, units, apdu_ms, quick, database, recipe, key, keep)
    raise typer.Exit(accept(config, station_files or [], options))


@line_app.command()
def quality(
    hours: Annotated[float, typer.Option(min=0.1, max=8760, help="How far back.")] = 24.0,
    limit: Annotated[float, typer.Option(min=0, help="Seconds per kB a load may take; 0: none.")] = 0.0,
    freeze: Annotated[bool, typer.Option("--freeze", help="Freeze the limits of the charts from this time.")] = False,
    by: Annotated[str, typer.Option(help="Who freezes them.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    config: Config = SITE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Judge load times by profile type, chip firmware and reader: charts, capability, heads that differ."""
    from ifpp.roles import quality as role

    if freeze:
        role.freeze(config, hours=hours, by=by, reason=reason)
    else:
        role.show_quality(config, hours=hours, limit=limit, as_json=as_json)


@line_app.command()
def balance(
    config: Config = SITE,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Prove the mass balance per SKU, region and SM-DPf, and name every package still open; 1 when it does not hold."""
    from ifpp.roles.custody import show_balance

    raise typer.Exit(show_balance(config, as_json=json))


@line_app.command("metrics")
def metrics(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every Prometheus series: what it means, its labels and unit, and which process has it."""
    from ifpp.roles.series import show

    show(as_json=as_json)


@line_app.command("tui")
def tui(
    station_file: Annotated[Path | None, typer.Option(help="The station, stations/<id>.toml.")] = None,
    socket: Annotated[Path | None, typer.Option(help="The station's window itself.")] = None,
    lang: Annotated[Language, typer.Option(help="Language of the screen.")] = "en",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Shapes in ASCII.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines for screen readers: what changes.")] = False,
    columns: Annotated[int, typer.Option(min=0, max=64, help="Heads in a row, as on the fixture.")] = 0,
    line: Annotated[bool, typer.Option("--line", help="The whole line; it only looks.")] = False,
    wall: Annotated[bool, typer.Option("--wall", help="For people two metres away: 15 rows of 55 cells.")] = False,
    cert: Annotated[Path | None, typer.Option(help="With --line: the screen's own certificate (auditor).")] = None,
    key: Annotated[Path | None, typer.Option(help="With --line: its key.")] = None,
    config: Config = SITE,
) -> None:
    """Show a station's screen: heads, job, alarms, what to do now; badges and function keys act. F1 helps."""
    if line:
        from ifpp.roles.line_screen import show_line

        raise typer.Exit(
            show_line(config, language=lang, ascii_only=ascii_only, wall=wall, plain=plain, cert=cert, key=key)
        )
    from ifpp.roles.screen import show

    show(station_file, socket, language=lang, ascii_only=ascii_only, plain=plain, columns=columns, wall=wall)


@line_app.command("tui-serve")
def tui_serve(
    people: Annotated[Path, typer.Option(help="Who may look: the file of people; a badge logs in.")],
    station_file: Annotated[Path | None, typer.Option(help="The station to show; without it the line.")] = None,
    wall: Annotated[bool, typer.Option("--wall", help="Wall mode.")] = False,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8443,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM) browsers are shown.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    screen_cert: Annotated[Path | None, typer.Option(help="What the line's screens show the broker (auditor).")] = None,
    screen_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    idle: Annotated[
        float, typer.Option(min=10, help="Seconds without a key until somebody is logged out; an open wall never is.")
    ] = 900.0,
    lang: Annotated[Language, typer.Option(help="Language of the screen.")] = "en",
    config: Config = SITE,
) -> None:
    """Show a screen in browsers: log in with a badge; pages need nothing from outside the plant."""
    from ifpp.roles.web import Door, serve

    place = ["--line", "--config", str(config)] if station_file is None else ["--station-file", str(station_file)]
    own = {"--cert": screen_cert, "--key": screen_key}
    shown = [word for name, path in own.items() if path is not None for word in (name, str(path))]
    screen = [*place, *shown, "--lang", lang, *(["--wall"] if wall else [])]
    serve(screen, Door(host, port, cert, key, people, idle, lang, wall))
