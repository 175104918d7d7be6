"""The end of a load, one way or the other: the signed ProfileInstallationResult and what it does to chip and key.

Everything here happens between two APDUs: profile, result and state of the one-time key change together or not at all.
"""

from __future__ import annotations

from ifpp.sim.euicc.chip import INSTALL, ONLINE, Chip
from ifpp.sim.euicc.metadata import Metadata
from ifpp.sim.euicc.nvm import KeyState, LoadMark, Profile
from ifpp.sim.tlv import integer, oid, tlv

# bppCommandId (SGP.22 2.5.6)
(
    INITIALISE_SECURE_CHANNEL,
    CONFIGURE_ISDP,
    STORE_METADATA,
    STORE_METADATA2,
    REPLACE_SESSION_KEYS,
    LOAD_PROFILE_ELEMENTS,
) = range(6)

# errorReason
INCORRECT_INPUT_VALUES = 1
INVALID_SIGNATURE = 2
INVALID_TRANSACTION_ID = 3
UNSUPPORTED_CRT_VALUES = 4
UNSUPPORTED_REMOTE_OPERATION = 5
UNSUPPORTED_PROFILE_CLASS = 6
STRUCTURE_ERROR = 7
SECURITY_ERROR = 8
ICCID_EXISTS = 9
INSUFFICIENT_MEMORY = 10
INTERRUPTION = 11
PE_PROCESSING = 12
DATA_MISMATCH = 13
PPR_NOT_ALLOWED = 15
# these leave the key usable for the byte-identical package (FPX/1 10.7)
TEMPORARY = frozenset({INSUFFICIENT_MEMORY, INTERRUPTION})

_ALL_ELEMENTS_OK = bytes.fromhex("3007a0053003800100")


class LoadError(Exception):
    """The load ends here with this (bppCommandId, errorReason)."""

    def __init__(self, command: int, reason: int, sima_response: bytes = b"") -> None:
        super().__init__(f"({command}, {reason})")
        self.command = command
        self.reason = reason
        self.sima_response = sima_response


def refuse(chip: Chip, mark: LoadMark, error: LoadError) -> bytes:
    """Store and return the result of a failed load; a permanent error spends the key."""
    sima = tlv(0x82, error.sima_response) if error.sima_response else b""
    outcome = tlv(0xA1, tlv(0x80, integer(error.command)), tlv(0x81, integer(error.reason)), sima)
    if error.reason not in TEMPORARY:
        chip.spend(mark.slot)
    elif mark.slot == ONLINE:
        chip.end_session()
    return _finish(chip, mark, outcome)


def install(chip: Chip, mark: LoadMark, metadata: Metadata, profile: Profile) -> bytes:
    """Install the profile, disabled; store and return the result, and tell the other addresses of the metadata."""
    chip.nvm.profiles.append(profile)
    chip.spend(mark.slot)
    raw = _finish(chip, mark, tlv(0xA0, tlv(0x4F, profile.aid), tlv(0x04, _ALL_ELEMENTS_OK)))
    others = [address for address in metadata.recipients(INSTALL) if address != mark.address]
    chip.notify(INSTALL, others, metadata.iccid)
    return raw


def resolve_interruption(chip: Chip) -> None:
    """After power or channel loss: a load that had begun ends as (last command, interruption)."""
    mark = chip.nvm.load
    if mark is not None:
        refuse(chip, mark, LoadError(mark.command, INTERRUPTION))


def accept(chip: Chip, mark: LoadMark, bf23_sha256: bytes) -> None:
    """BF23 holds: from now on only this package may be loaded with the key; under `strict` the key is spent."""
    reservation = chip.reservation_of(mark.slot)
    if chip.nvm.strict and mark.slot != ONLINE:
        chip.spend(mark.slot, KeyState.CONSUMED)
    elif reservation is not None:
        reservation.bf23_sha256 = bf23_sha256
    chip.nvm.load = mark


def _finish(chip: Chip, mark: LoadMark, outcome: bytes) -> bytes:
    metadata = chip.notification_metadata(INSTALL, mark.address, mark.iccid)
    data = tlv(
        0xBF27,
        tlv(0x80, mark.transaction_id),
        metadata,
        tlv(0x06, oid(mark.smdp_oid)),
        tlv(0xA2, outcome),
    )
    raw = tlv(0xBF37, data, chip.sign(data))
    chip.keep(INSTALL, metadata, raw)
    chip.nvm.load = None
    return raw
