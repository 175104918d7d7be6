"""How large the blocks of one card on one reader may be, and what the path to it is.

255 bytes a block is the fewest commands (SGP.22 5.7.2). Removable eUICCs on fast links answer long blocks with 6601,
some cards and modems with 6700 or not at all: then smaller ones are tried, down to 64 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.errors import IfppError, WireError
from ifpp.model.ids import Eid
from ifpp.wire.apdu import StatusError
from ifpp.wire.atr import parse_atr

STEPS = (255, 240, 120, 64)
_REFUSALS = frozenset({0x6601, 0x6700})  # checksum error on the link, wrong length
_SILENCE = frozenset({"APDU.TIMEOUT", "MODEM.ERROR"})
_EIN_DIGITS = 8  # the EUM's issuer number (SGP.29)


@dataclass(frozen=True, slots=True)
class Link:
    """The path to one card: `protocol` is "T=0", "T=1" or "" (a modem does not say), `bit_rate` bit/s or None."""

    atr: bytes
    protocol: str
    bit_rate: int | None


def read_link(atr: bytes, clock_hz: int) -> Link:
    """Return what an ATR says of the link at this card clock (0: not known); nothing when there is no sound ATR."""
    try:
        said = parse_atr(atr)
    except WireError:
        return Link(atr, "", None)
    return Link(atr, f"T={said.protocol}", said.bit_rate(clock_hz))


def card_type(atr: bytes, eid: Eid) -> str:
    """Name the kind of card: its ATR, or behind a modem, which keeps the ATR to itself, its maker's number."""
    return atr.hex() or f"EUM {eid[:_EIN_DIGITS]}"


def blames_blocks(error: IfppError | None) -> bool:
    """Whether an error may mean that the block was too large for the link: 6601, 6700, or no answer in time."""
    if isinstance(error, StatusError):
        return error.sw in _REFUSALS
    return error is not None and error.code in _SILENCE


def smaller(block_size: int) -> int | None:
    """Return the next smaller block size worth trying; None at the end."""
    return next((step for step in STEPS if step < block_size), None)
