"""StoreMetadataRequest (BF25) as the chip reads it: limits, profile class, policy rules (SGP.22 5.5.3)."""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.sim.euicc.chip import INSTALL, members
from ifpp.sim.euicc.nvm import ANY_OPERATOR
from ifpp.sim.tlv import parse, parse_one, read_bits, read_integer

OPERATIONAL = 2
_CLASSES = frozenset({0, 1, OPERATIONAL})
PPR1, PPR2 = 1, 2
_MAX_LENGTH = {0x91: 32, 0x92: 64, 0x94: 1024}
_KNOWN = frozenset({0x5A, 0x91, 0x92, 0x93, 0x94, 0x95, 0xB6, 0xB7, 0x99, 0xBF22, 0xBF23, 0x9F7B, 0x9F67, 0xBF64})


class ClassError(ValueError):
    """A profile class this chip does not know (errorReason 6)."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The members the chip acts on. `addresses` are (events, FQDN) in the order received."""

    raw: bytes
    iccid: bytes
    profile_class: int
    pprs: frozenset[int]
    owner: bytes
    addresses: tuple[tuple[frozenset[int], str], ...]

    @property
    def result_address(self) -> str:
        """Where the installation result goes: the first entry with the install bit (FPX/1 10.6)."""
        return next(iter(self.recipients(INSTALL)), "")

    def recipients(self, event: int) -> list[str]:
        """All addresses that want to hear of this event."""
        return [address for events, address in self.addresses if event in events]


def read_metadata(raw: bytes) -> Metadata:
    """Parse and check one complete BF25; raises ValueError (incorrectInputValues) or ClassError."""
    found = members(parse_one(raw, 0xBF25).value)
    if not found.keys() <= _KNOWN or not found.keys() >= {0x5A, 0x91, 0x92}:
        raise ValueError("members of StoreMetadata")
    for tag, limit in _MAX_LENGTH.items():
        if len(found.get(tag, b"")) > limit:
            raise ValueError(f"{tag:02X} is too long")
    found[0x91].decode()
    found[0x92].decode()
    _check_icon(found)
    profile_class = read_integer(found.get(0x95, bytes((OPERATIONAL,))))
    if profile_class not in _CLASSES:
        raise ClassError(str(profile_class))
    pprs = read_bits(found.get(0x99, b"\x00"))
    owner = _owner(found.get(0xB7, b""))
    if pprs and not owner:
        raise ValueError("policy rules without an owner")
    return Metadata(raw, _iccid(found[0x5A]), profile_class, pprs, owner, _addresses(found.get(0xB6, b"")))


def rat_allows(rat: bytes, pprs: frozenset[int], owner: bytes) -> bool:
    """Say whether the RulesAuthorisationTable lets this operator set these rules; bit 0 only asks for updates."""
    permitted: set[int] = set()
    for rule in parse(rat):
        row = members(rule.value)
        operators = [members(operator.value)[0x80] for operator in parse(row[0xA1])]
        if any(_same_operator(operator, owner) for operator in operators):
            permitted |= read_bits(row[0x80])
    return pprs - {0} <= permitted


def _same_operator(pattern: bytes, owner: bytes) -> bool:
    """Compare two mccMnc nibble by nibble; E in the table stands for any digit."""
    return pattern == ANY_OPERATOR or all(p in ("e", o) for p, o in zip(pattern.hex(), owner.hex(), strict=True))


def _check_icon(found: dict[int, bytes]) -> None:
    if (0x93 in found) != (0x94 in found):
        raise ValueError("icon and icon type come together")
    if 0x93 in found and read_integer(found[0x93]) not in (0, 1):
        raise ValueError("icon type")


def _iccid(value: bytes) -> bytes:
    """Check for 10 bytes of swapped digits, the filler F only at the end."""
    digits = "".join(pair[::-1] for pair in (f"{octet:02x}" for octet in value))
    if len(value) != 10 or not digits.rstrip("f").isdecimal() or len(digits.rstrip("f")) < 18:
        raise ValueError("ICCID")
    return value


def _owner(value: bytes) -> bytes:
    if not value:
        return b""
    owner = members(value).get(0x80, b"")
    if len(owner) != 3:
        raise ValueError("profile owner")
    return owner


def _addresses(value: bytes) -> tuple[tuple[frozenset[int], str], ...]:
    found = []
    for entry in parse(value):
        row = members(entry.value)
        if entry.tag != 0x30 or not row.keys() >= {0x80, 0x81}:
            raise ValueError("notification configuration")
        found.append((read_bits(row[0x80]), row[0x81].decode()))
    return tuple(found)
