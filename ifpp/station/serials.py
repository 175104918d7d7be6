"""Where a station learns which unit it has before it: the serial number of the device, not of the chip in it."""

from __future__ import annotations

from typing import Protocol

from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort


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
