"""`ifpp sim`: The simulated world: chips, their maker, an SM-DPf, a robot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifpp.commands.options import PortKind, group

sim_app = group("The simulated world: chips, their maker, an SM-DPf, a robot.")


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
    reseats: Annotated[int, typer.Option(min=0, max=100, help="How often the robot seats a unit again.")] = 3,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the slots open until standard input says end.")] = False,
) -> None:
    """Serve virtual chips on slots, in readers or in modems, and feed them with a robot."""
    from ifpp.roles.simulation import FleetOptions, fleet
    from ifpp.sim.doors import Ports

    options = FleetOptions(
        station, heads, apdu_ms, handling_ms, Ports(ports), folder, readers, modem, tape, out, reseats, stay
    )
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


@sim_app.command("smdp-plus")
def sim_smdp_plus(
    folder: Annotated[Path, typer.Argument(help="Takes ci.pem, codes.txt and, at the end, evidence.json.")],
    chips: Annotated[int, typer.Option(min=0, max=64, help="Chips without factory keys, on a slot each.")] = 1,
    orders: Annotated[int, typer.Option(min=1, max=10_000, help="Profiles, one activation code each.")] = 16,
    code: Annotated[str, typer.Option(help="Their confirmation code.", show_default="none")] = "",
    profile_bytes: Annotated[int, typer.Option(min=2_000, max=500_000, help="Size of a profile.")] = 30_000,
    apdu_ms: Annotated[float, typer.Option(min=0, help="Time a chip takes for one command.")] = 5.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens on this machine; 0: any free.")] = 0,
    world: Annotated[
        Path | None,
        typer.Option(help="A world of a line: its SM-DP+ alone, where its codes say; no other option counts."),
    ] = None,
) -> None:
    """Serve an SM-DP+ over HTTPS (SGP.22 ES9+), and chips that trust it, until told to stop."""
    from ifpp.roles.simulation import smdp_plus, smdp_plus_of
    from ifpp.sim.smdp_world import OnlineWorld

    if world is not None:
        smdp_plus_of(world, folder)
        return
    made = OnlineWorld(folder, chips=chips, orders=orders, code=code, profile_bytes=profile_bytes, apdu_ms=apdu_ms)
    smdp_plus(made, folder, port)
