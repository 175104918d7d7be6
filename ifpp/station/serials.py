"""Where a station learns which unit it has before it: the serial number of the device, not of the chip in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ifpp.errors import SettingsError, SupplyError
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.model.clock import Clock
from ifpp.model.states import Phase
from ifpp.station.board import Board

SCAN_HOLDS_S = 120.0
"""A unit that was scanned and not seated for so long is another one by then."""
_LONGEST = 64


class Serials(Protocol):
    """A source of serial numbers; an MES that announces units is another one."""

    async def seated(self, head_id: str, port: CardPort, owner: Owner) -> str:
        """Return the serial number of the unit that was just seated in a head, "" when nobody has read it.

        Calls of the port go through its owner. Raises TransportError when the head itself is broken.
        """


class FixtureSerials:
    """The scanner of the fixture, behind the head's own port."""

    async def seated(self, head_id: str, port: CardPort, owner: Owner) -> str:  # noqa: ARG002 - the port knows its head
        return await owner.call(port.label)


@dataclass(slots=True)
class ScannedSerials:
    """What people scan before they seat a unit, beside what the fixture reads; belongs to the event loop.

    A scan is for one free head and one unit: the next one that is seated there. Where fixture and person disagree, the
    unit stops.
    """

    board: Board
    clock: Clock
    fixture: Serials = field(default_factory=FixtureSerials)
    _waiting: dict[str, tuple[str, float]] = field(default_factory=dict)

    def scan(self, head_id: str, sn: str) -> str:
        """Note the serial number of the unit that is seated next in a head; raises SettingsError UNIT.SCAN."""
        sn = sn.strip()
        if not sn or len(sn) > _LONGEST or not sn.isprintable():
            raise _refused("nothing that names a unit was read")
        if head_id not in self.board.rows:
            raise _refused("no head is chosen for it")
        if self.board.rows[head_id].phase != Phase.EMPTY:
            raise _refused(f"head {head_id} is not free")
        for other, row in self.board.rows.items():
            if row.sn == sn:
                raise _refused(f"{sn[-6:]} is in head {other}")
            if other != head_id and self._valid(other) == sn:
                raise _refused(f"{sn[-6:]} was scanned for head {other}")
        if self._valid(head_id) == sn:
            raise _refused(f"{sn[-6:]} was scanned already")
        self._waiting[head_id] = (sn, self.clock.monotonic())
        return f"unit {sn[-6:]} goes into head {head_id}"

    async def seated(self, head_id: str, port: CardPort, owner: Owner) -> str:
        said = self._valid(head_id)
        self._waiting.pop(head_id, None)
        read = await self.fixture.seated(head_id, port, owner)
        if said and read and said != read:
            raise SupplyError("UNIT.TRAVELLER", f"a person scanned {said}, the label says {read}", where=head_id)
        return read or said

    def _valid(self, head_id: str) -> str:
        sn, at_s = self._waiting.get(head_id, ("", 0.0))
        return sn if self.clock.monotonic() - at_s <= SCAN_HOLDS_S else ""


def _refused(why: str) -> SettingsError:
    return SettingsError("UNIT.SCAN", why, where="scan")
