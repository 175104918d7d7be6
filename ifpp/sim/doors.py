"""The doors through which a station reaches virtual chips: TCP slots, PC/SC readers, modems, or some of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ifpp.sim.lamps import LampServer
from ifpp.sim.modem import ModemServer
from ifpp.sim.readers import Address, ReaderServer
from ifpp.sim.slots import Slot, SlotServer


class Ports(StrEnum):
    """What kind of port the heads of a simulated station have."""

    TCP = "tcp"
    PCSC = "pcsc"
    MODEM = "modem"
    MIXED = "mixed"

    @property
    def handling_ms(self) -> float:
        """A fair time to change a unit: pcscd and modems look for a card two or three times a second only."""
        return 50.0 if self is Ports.TCP else 1000.0

    def readers(self, slots: int) -> int:
        """How many virtual PC/SC readers so many slots need."""
        return {Ports.PCSC: slots, Ports.MIXED: -(-slots // 3)}.get(self, 0)


class Door(Protocol):
    """A way in to some slots; `urls` maps slot names to port URLs once started."""

    urls: dict[str, str]

    async def start(self) -> None:
        """Serve the station's side of the slots."""

    def stop(self) -> None:
        """Leave the slots."""


@dataclass(frozen=True, slots=True)
class DoorPlan:
    """What doors a station's slots get.

    `folder` (a short path) takes sockets and terminals; `readers` are the virtual PC/SC readers by name, one for each
    slot that is to sit in one; `personality` is the kind of modem.
    """

    kind: Ports = Ports.TCP
    folder: Path = Path()
    readers: Mapping[str, Address] = field(default_factory=dict)
    personality: str = "plain"


class Doors:
    """The slots of one station with their doors."""

    def __init__(self, plan: DoorPlan, slots: Mapping[str, Slot]) -> None:
        names = list(slots)
        parts: dict[Ports, tuple[list[str], list[str], list[str]]] = {
            Ports.TCP: ([], [], names),
            Ports.PCSC: (names, [], []),
            Ports.MODEM: ([], names, []),
            Ports.MIXED: (names[0::3], names[1::3], names[2::3]),
        }
        in_reader, in_modem, plain = ({name: slots[name] for name in part} for part in parts[plan.kind])
        self._doors: list[Door] = []
        if in_reader:
            if len(plan.readers) < len(in_reader):
                raise ValueError(f"{len(in_reader)} slots need a reader each, there are {len(plan.readers)}")
            seats = dict(zip(in_reader, plan.readers, strict=False))
            addresses = {name: plan.readers[reader] for name, reader in seats.items()}
            self._doors.append(ReaderServer(in_reader, addresses, seats))
        if in_modem:
            self._doors.append(ModemServer(in_modem, plan.folder, plan.personality))
        if plain:
            self._doors.append(SlotServer(plain, None if plan.kind is Ports.TCP else plan.folder))
        self._lamps = LampServer({**in_reader, **in_modem}, plan.folder)

    async def start(self) -> dict[str, dict[str, str]]:
        """Open all doors; returns the port and lamp of every head as a station file names them."""
        await self._lamps.start()
        for door in self._doors:
            await door.start()
        urls = {name: url for door in self._doors for name, url in door.urls.items()}
        return {name: {"port": urls[name], "lamp": self._lamps.urls.get(name, "")} for name in sorted(urls)}

    def stop(self) -> None:
        """Close all doors."""
        for door in self._doors:
            door.stop()
        self._lamps.stop()


def read_readers(path: Path) -> dict[str, Address]:
    """Read the virtual readers of a file: a JSON object of reader names to [host, port]."""
    return {str(name): (str(host), int(port)) for name, (host, port) in json.loads(path.read_bytes()).items()}
