"""What a station's word about a package does to the ledger: pure rules, no database.

The chip's word that a profile is installed, or that its key is spent, is final and true whoever brings it and however
late. "Not spent" and "unknown" are true only of the last time somebody had the chip: they move a package only for the
attempt that sent it, or for the one that was told last to read it from the chip (`holder`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ifpp.errors import CustodyError
from ifpp.model.ids import Iccid
from ifpp.model.messages import ProfileResult
from ifpp.model.states import PackageState

S = PackageState


class Told(Enum):
    """What one ProfileResult says of its package."""

    INSTALLED = auto()
    SPENT = auto()  # failed, and the one-time key is gone
    USABLE = auto()  # failed, the byte-identical package may be loaded again
    UNKNOWN = auto()  # sent, no result
    UNTOUCHED = auto()  # claimed and never sent


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a package stands in the ledger."""

    state: PackageState
    spent: bool


_TOLD = {
    S.INSTALLED: Told.INSTALLED,
    S.UNKNOWN: Told.UNKNOWN,
    S.SENT: Told.UNKNOWN,  # the cycle ended while the package was under way
    S.AVAILABLE: Told.UNTOUCHED,
    S.CLAIMED: Told.UNTOUCHED,
}

_END = {Told.INSTALLED: S.INSTALLED, Told.SPENT: S.FAILED, Told.USABLE: S.FAILED, Told.UNKNOWN: S.UNKNOWN}

# The steps a package has to make up for when the station sent it and the ledger does not know yet.
_MADE_UP = {S.AVAILABLE: (S.CLAIMED, S.SENT), S.CLAIMED: (S.SENT,), S.FAILED: (S.CLAIMED, S.SENT)}


def told(result: ProfileResult) -> Told:
    """Read the word of a station; raises CustodyError CUSTODY.EVENT_REFUSED on one that no station may say."""
    if result.package_state == S.FAILED:
        return Told.SPENT if result.key_consumed else Told.USABLE
    try:
        return _TOLD[PackageState(result.package_state)]
    except (ValueError, KeyError):
        raise refused(
            f"package {result.package_id[:64]}: a station cannot settle it as {result.package_state[:32]!r}"
        ) from None


def path(now: Standing, word: Told, *, holder: bool) -> tuple[PackageState, ...]:
    """Return the steps the package takes, in order; empty when the word is late, repeated or about nothing.

    Raises CustodyError CUSTODY.EVENT_REFUSED when word and ledger cannot both be true.
    """
    if now.spent or now.state in (S.INSTALLED, S.DESTROYED):
        _contradiction(now, word)
        return ()
    moves = {
        Told.INSTALLED: True,
        Told.SPENT: True,
        Told.USABLE: holder and now.state is not S.FAILED,
        # To call a package UNKNOWN that the ledger takes for unsent is safe: it costs one reading of the chip.
        Told.UNKNOWN: now.state in (S.AVAILABLE, S.CLAIMED) or (holder and now.state is S.SENT),
        Told.UNTOUCHED: holder and now.state is S.CLAIMED,
    }
    if not moves[word]:
        return ()
    if word is Told.UNTOUCHED:
        return (S.AVAILABLE,)
    return (*_MADE_UP.get(now.state, ()), _END[word])


def goes_back(now: PackageState, word: Told, states: tuple[PackageState, ...], *, tied: bool) -> bool:
    """Whether an activation code is anybody's again: it failed, and its SM-DP+ cannot have tied it to the chip.

    What was ever UNKNOWN, or sent before, may have been tied then: it stays with its chip.
    """
    return word is Told.USABLE and bool(states) and not tied and now is not S.UNKNOWN


def check_iccid(word: Told, iccid: str) -> None:
    """Raises CustodyError CUSTODY.EVENT_REFUSED for an activation code that is installed and brought no ICCID."""
    if word is Told.INSTALLED:
        try:
            Iccid(iccid)
        except ValueError as error:
            raise refused(f"installed from an activation code, but as {iccid[:32]!r}") from error


def _contradiction(now: Standing, word: Told) -> None:
    """One key gives one profile: a failure and an installation cannot both have spent it."""
    if word is Told.INSTALLED and now.state is not S.INSTALLED:
        raise refused(f"said to be installed, but the ledger has it {now.state}")
    if word is Told.SPENT and now.state is S.INSTALLED:
        raise refused("said to have failed for good, but the ledger has it INSTALLED")


def refused(detail: str) -> CustodyError:
    """Return the error that parks an event."""
    return CustodyError("CUSTODY.EVENT_REFUSED", detail)
