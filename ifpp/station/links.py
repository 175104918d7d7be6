"""What a head learns of its link: how large the blocks of a card type may be on this reader, kept in the journal."""

from __future__ import annotations

import asyncio

from ifpp.errors import IfppError
from ifpp.fpa.chip import Chip
from ifpp.fpa.link import blames_blocks, card_type, read_link, smaller
from ifpp.log import get_logger
from ifpp.model import messages
from ifpp.model.ids import Eid
from ifpp.settings import Head
from ifpp.station.journal import Journal

log = get_logger("station.links")


class Links:
    """The link between one head's port and the card that sits in it; `settings.block_size` is the upper limit."""

    def __init__(self, chip: Chip, journal: Journal, settings: Head) -> None:
        self._chip = chip
        self._journal = journal
        self._settings = settings
        self._card = ""
        self._begun = settings.block_size

    async def recall(self, eid: Eid) -> int:
        """Return the block size to begin with: what this card type was last loaded with here, else the limit."""
        self._card = card_type(self._chip.atr, eid)
        known = await asyncio.wrap_future(self._journal.block_size(self._card, self._settings.port))
        return min(known or self._settings.block_size, self._settings.block_size)

    def begin(self, block_size: int) -> None:
        """Use blocks of this size for the seated card."""
        self._chip.block_size = block_size
        self._begun = self._chip.block_size

    def told(self) -> messages.Link:
        """Return the link as it stands, for the unit's record."""
        said = read_link(self._chip.atr, self._settings.clock_hz)
        return messages.Link(
            atr=said.atr.hex(), protocol=said.protocol, bit_rate=said.bit_rate, block_size=self._chip.block_size
        )

    def prepared(self) -> None:
        """The chip took PrepareDownload: remember the blocks it took when they had to be made smaller."""
        if self._chip.block_size < self._begun:
            self._learn(self._chip.block_size)

    def loaded(self, fault: IfppError | None) -> None:
        """A load has ended. One that the blocks may have broken is not repeated here; the next one has smaller ones."""
        less = smaller(self._chip.block_size) if blames_blocks(fault) else None
        if less is not None:
            self._learn(less)

    def _learn(self, block_size: int) -> None:
        self._begun = block_size
        log.warning("smaller blocks", card=self._card, port=self._settings.port, block_size=block_size)
        self._journal.learn_block_size(self._card, self._settings.port, block_size)
