"""`ifpp heads list` and `ifpp heads probe`: what sits where, and the technician's look at one head.

Both only read: no package is asked for, nothing is written to a chip, no claim is made. A head that a running station
holds says so.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ifpp.errors import IfppError, SettingsError
from ifpp.fpa.chip import Chip, has_services
from ifpp.hw.owner import Owner
from ifpp.hw.pcsc import reader_names, use_socket
from ifpp.hw.port import CardPort, make_port
from ifpp.model.chip import FpaState, OtkState, number_name, version_text
from ifpp.model.ids import Eid
from ifpp.settings import Station, load_station
from ifpp.wire.apdu import Exchange

_LOOK_S = 1.0
T = TypeVar("T")
_COMMANDS = {
    0xE2: "STORE DATA",
    0xC0: "GET RESPONSE",
    0xA4: "SELECT",
    0x70: "MANAGE CHANNEL",
    0xAA: "TERMINAL CAPABILITY",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A head by the name people use and the URL of its port."""

    name: str
    url: str
    block_size: int = 255


def list_heads(station_file: Path | None) -> int:
    """Print each head of a station, or each reader and serial device there is; 1 when one of them cannot be reached."""
    if station_file is not None:
        places = _of_station(load_station(station_file))
    else:
        places = _readers()
        _show_serial_devices()
    faults = asyncio.run(_look_at_all(places))
    if not places:
        _say("no PC/SC reader is connected")
    return 1 if faults else 0


def probe(name: str, station_file: Path | None, wait_s: float) -> int:
    """Read the chip in one head and print every command with its time; 1 when the head or the chip fails.

    `name`: a head of the station file, the URL of a port, or the name of a PC/SC reader.
    """
    place = find_place(name, station_file)
    _say(f"{place.name}: {place.url}")
    try:
        asyncio.run(owned(place, lambda port: _probe(port, place, wait_s)))
    except IfppError as error:
        _say(f"  {error}")
        return 1
    return 0


# ---- which heads ------------------------------------------------------------------------------------------------


def _of_station(station: Station) -> list[Place]:
    use_socket(station.pcsc.socket)
    return [Place(head_id, head.port, head.block_size) for head_id, head in station.heads.items()]


def _readers() -> list[Place]:
    try:
        return [Place(name, f"pcsc:{name}") for name in reader_names()]
    except IfppError as error:
        _say(f"PC/SC readers: {error}")
        return []


def _show_serial_devices() -> None:
    """A serial device is named and not spoken to: it may be anything."""
    from ifpp.hw.modem import serial_devices

    for device in serial_devices():
        _say(f"{device:24} serial device; is it a modem? ifpp heads probe modem:{device}")


def find_place(name: str, station_file: Path | None) -> Place:
    """Return a head of the station file, or the port of a URL or a reader's name; raises SettingsError."""
    places = [] if station_file is None else _of_station(load_station(station_file))
    for place in places:
        if place.name == name:
            return place
    if station_file is not None:
        there = ", ".join(place.name for place in places)
        detail = f"the station has no head {name!r}; it has {there}"
        raise SettingsError("COMMAND.INVALID", detail, where=str(station_file))
    return Place(name, name if ":" in name and not name.startswith("pcsc:") else f"pcsc:{name.removeprefix('pcsc:')}")


# ---- one look ---------------------------------------------------------------------------------------------------


async def _look_at_all(places: list[Place]) -> int:
    """Look at all heads at once; returns how many cannot be reached."""
    looks = await asyncio.gather(*(_look(place) for place in places))
    for place, (text, _) in zip(places, looks, strict=True):
        _say(f"{place.name:24} {text}")
    return sum(not reached for _, reached in looks)


async def _look(place: Place) -> tuple[str, bool]:
    try:
        return await owned(place, _summary), True
    except IfppError as error:
        return str(error), error.code.partition(".")[0] not in ("HEAD", "MODEM", "SETTINGS")


async def owned(place: Place, look: Callable[[CardPort], T]) -> T:
    """Run a look on a thread of its own with the port open."""
    port, owner = make_port(place.url), Owner(place.name)

    def run() -> T:
        port.open()
        try:
            return look(port)
        finally:
            port.close()

    try:
        return await owner.call(run)
    finally:
        owner.close()


def _summary(port: CardPort) -> str:
    """Say in one line what sits in a head."""
    if not port.wait_seated(_LOOK_S):
        return "empty"
    chip = Chip(port)
    try:
        chip.open()
        identity = chip.identify(chip.eid(), factory=False)
    finally:
        chip.close()
    status = identity.status
    return (
        f"EID {identity.eid}, factory services {number_name(FpaState, status.state).lower()}, "
        f"{status.otk_remaining} one-time keys, {identity.info2.free_nvm} bytes free"
    )


def _probe(port: CardPort, place: Place, wait_s: float) -> str:
    _say(f"  waiting up to {wait_s:g} s for a chip")
    if not port.wait_seated(wait_s):
        raise SettingsError("COMMAND.INVALID", f"no chip was seated in {wait_s:g} s", where=place.name)
    chip = Chip(port, block_size=place.block_size, trace=_trace)
    try:
        chip.open()
        _say(f"  ATR {chip.atr.hex() or 'not told by a modem'}")
        _contents(chip, chip.eid())
    finally:
        chip.close()
    return ""


def _contents(chip: Chip, eid: Eid) -> None:
    """Read and print all a technician may want to know of a chip."""
    _say(f"  EID {eid}")
    identity = chip.identify(eid, factory=False)
    info2, status = identity.info2, identity.status
    _say(
        f"  SGP.22 version {version_text(info2.svn)}, firmware {version_text(info2.firmware)}, "
        f"profile version {version_text(info2.profile_version)}, {info2.free_nvm} bytes free"
    )
    _say(f"  trusts CI keys {', '.join(key.hex() for key in info2.ci_pkids_verification) or 'none'}")
    _say(f"  factory services {number_name(FpaState, status.state)}, {status.otk_remaining} one-time keys left")
    for key in chip.keys().keys if has_services(status) else ():
        _say(f"    key {key.otk_id.hex()} {number_name(OtkState, key.state)}")
    for profile in chip.profiles():
        state = "enabled" if profile.state else "disabled"
        _say(f"    profile ICCID {profile.iccid or 'malformed'} {state} {profile.name!r} of {profile.provider!r}")
    for entry in chip.notifications():
        _say(f"    notification {entry.seq_number} ICCID {entry.iccid or '-'}")


def _trace(exchange: Exchange) -> None:
    """Print one command without what it carries."""
    name = _COMMANDS.get(exchange.ins, f"INS {exchange.ins:02X}")
    head = f"{exchange.cla:02X}{exchange.ins:02X}{exchange.p1:02X}{exchange.p2:02X}"
    _say(
        f"  > {head} {name:19} {exchange.lc:3} bytes out {exchange.answer_bytes:3} in  "
        f"{exchange.sw:04X} {exchange.duration_ms:8.1f} ms"
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
