"""`ifpp sim`: virtual chips with the robot that feeds them, and the SM-DPf that takes reports, each as a process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ifpp.errors import SettingsError
from ifpp.roles.runtime import run_until_stopped, say_ready
from ifpp.sim.doors import DoorPlan, Ports, read_readers
from ifpp.sim.envelope import encrypt_file
from ifpp.sim.esbpp import ReportDoor
from ifpp.sim.fleet import serve_fleet
from ifpp.sim.mes import Character, Mes, play
from ifpp.sim.robot import RESEATS

if TYPE_CHECKING:  # a fleet starts without an HTTP server
    from ifpp.sim.smdp_world import OnlineWorld


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What the command line asks for; `handling_ms` None takes what fits the ports."""

    stations: list[str]
    heads: int
    apdu_ms: float
    handling_ms: float | None
    ports: Ports
    folder: Path
    readers: Path | None
    modem: str
    tape: Path | None
    out: Path
    reseats: int = RESEATS
    stay: bool = False


def fleet(world: Path, options: FleetOptions) -> None:
    """Serve the slots of some stations until their units are done; raises SettingsError for what cannot be."""
    if not (world / "world.json").is_file():
        raise SettingsError("SETTINGS.MISSING", "there is no world.json in it", where=str(world))
    try:
        readers = {} if options.readers is None else read_readers(options.readers)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError("SETTINGS.INVALID", f"no list of readers ({error})", where=str(options.readers)) from error
    handling_ms = options.ports.handling_ms if options.handling_ms is None else options.handling_ms
    try:
        serve_fleet(
            world,
            options.stations,
            slots=options.heads,
            apdu_ms=options.apdu_ms,
            handling_ms=handling_ms,
            out_path=options.out,
            doors=DoorPlan(options.ports, options.folder, readers, options.modem),
            tape_path=options.tape,
            reseats=options.reseats,
            stay=options.stay,
        )
    except ValueError as error:
        raise SettingsError("COMMAND.INVALID", str(error), where="--ports, --readers or --modem") from error


def encrypt(files: list[Path], out: Path, key: Path, key_name: str) -> None:
    """Encrypt deliveries as the SM-DPf sends them; raises SettingsError for what cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in files:
            encrypt_file(path, out / f"{path.name}.envelope", key.read_bytes(), key_name)
    except (OSError, ValueError) as error:
        raise SettingsError("COMMAND.INVALID", f"cannot be encrypted ({error})", where=str(key)) from error


def mes(world: Path, broker: str, base: str, character: Character, out: Path) -> None:
    """Be the MES of one line until told to stop; `broker` is HOST:PORT. Raises SettingsError for what cannot be."""
    host, _, port = broker.rpartition(":")
    orders = sorted((world / "jobs").glob("*.job.json"))
    try:
        player = Mes(host, int(port), base, orders, character)
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError("COMMAND.INVALID", f"it cannot begin ({error})", where=str(world)) from error
    play(player, out)


def span(text: str) -> tuple[float, float] | None:
    """Read "FROM,TO" in seconds, "" is never; raises SettingsError."""
    try:
        start, end = map(float, text.split(",")) if text else (0.0, 0.0)
    except ValueError as error:
        raise SettingsError("COMMAND.INVALID", "give FROM,TO in seconds", where="--absent") from error
    return (start, end) if end > start >= 0 else None


def smdpf(world: Path, keys: list[Path], port: int) -> None:
    """Take Profile Loading Reports until told to stop; raises SettingsError for what cannot be."""
    try:
        door = ReportDoor(world / "smdpf", [path.read_bytes() for path in keys], port=port)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError("COMMAND.INVALID", f"it cannot open ({error})", where=str(world)) from error

    async def main(stop: asyncio.Event) -> None:
        door.start()
        say_ready("smdpf", port=door.port, url=door.url)
        await stop.wait()
        door.stop()

    run_until_stopped(main)


def smdp_plus(world: OnlineWorld, folder: Path, port: int) -> None:
    """Serve an SM-DP+ and its chips until told to stop; raises SettingsError for what cannot be."""

    async def main(stop: asyncio.Event) -> None:
        try:
            address = await world.start(port)
        except OSError as error:
            raise SettingsError("COMMAND.INVALID", f"it cannot begin ({error})", where=str(folder)) from error
        say_ready("smdp-plus", address=address, slots=world.urls)
        try:
            await stop.wait()
        finally:
            await world.stop()

    run_until_stopped(main)


def smdp_plus_of(world: Path, folder: Path) -> None:
    """Serve the SM-DP+ of a line's world until told to stop; raises SettingsError for what cannot be.

    At the end `evidence.json` in `folder` has what was issued and what came back.
    """
    from ifpp.sim import smdp_file
    from ifpp.sim.smdp_server import SmdpServer

    try:
        smdp, tls = smdp_file.load(world / "smdp-plus")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingsError("COMMAND.INVALID", f"it has no SM-DP+ ({error})", where=str(world)) from error
    server, number = SmdpServer(smdp, tls), int(smdp.address.rpartition(":")[2])

    async def main(stop: asyncio.Event) -> None:
        try:
            address = await server.start(number)
        except OSError as error:
            raise SettingsError("COMMAND.INVALID", f"it cannot begin ({error})", where=smdp.address) from error
        say_ready("smdp-plus", address=address)
        try:
            await stop.wait()
        finally:
            await server.stop()
            smdp.write_evidence(folder / "evidence.json")

    run_until_stopped(main)
