"""Identifiers with check digits: EID (SGP.29) and ICCID (ITU-T E.118), and their byte forms (SGP.22)."""

from __future__ import annotations

import re


def luhn_digit(payload: str) -> str:
    """Return the Luhn check digit for a string of decimal digits (ITU-T E.118)."""
    total = 0
    for position, char in enumerate(reversed(payload)):
        digit = int(char)
        if position % 2 == 0:
            digit *= 2
            digit -= 9 if digit > 9 else 0
        total += digit
    return str(-total % 10)


def eid_check_digits(first30: str) -> str:
    """Return the two check digits for the first 30 digits of an EID (SGP.29, ISO 7064 MOD 97-10)."""
    return f"{98 - int(first30 + '00') % 97:02d}"


def swap_nibbles(digits: str) -> bytes:
    """Pack decimal digits low nibble first, filler F for an odd count (the form of EF.ICCID and tag 5A)."""
    padded = digits + "F" * (len(digits) % 2)
    return bytes.fromhex("".join(padded[i + 1] + padded[i] for i in range(0, len(padded), 2)))


class Eid(str):
    """A 32-digit eUICC identifier whose check digits hold (SGP.29). A string: leading zeros are kept."""

    __slots__ = ()

    def __new__(cls, digits: str) -> Eid:
        if not re.fullmatch(r"[0-9]{32}", digits):
            raise ValueError(f"an EID has 32 decimal digits, not {digits[:40]!r}")
        if int(digits) % 97 != 1:
            raise ValueError(f"the check digits of EID {digits} do not hold")
        return super().__new__(cls, digits)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Eid:
        """Make an Eid from its 16-byte form (high nibble first, as in tag 5A of BF3E)."""
        return cls(packed.hex())

    @property
    def packed(self) -> bytes:
        """16 bytes, high nibble first."""
        return bytes.fromhex(self)


class Iccid(str):
    """A profile identifier of 19 or 20 digits whose Luhn digit holds (ITU-T E.118)."""

    __slots__ = ()

    def __new__(cls, digits: str) -> Iccid:
        if not re.fullmatch(r"[0-9]{19,20}", digits):
            raise ValueError(f"an ICCID has 19 or 20 decimal digits, not {digits[:40]!r}")
        if luhn_digit(digits[:-1]) != digits[-1]:
            raise ValueError(f"the check digit of ICCID {digits} does not hold")
        return super().__new__(cls, digits)

    @classmethod
    def from_swapped(cls, packed: bytes) -> Iccid:
        """Make an Iccid from the 10 nibble-swapped bytes of tag 5A; raises ValueError."""
        text = "".join(f"{byte & 0xF:x}{byte >> 4:x}" for byte in packed)
        return cls(text.removesuffix("f"))

    @property
    def swapped(self) -> bytes:
        """10 bytes as in tag 5A and EF.ICCID."""
        return swap_nibbles(self)

    @property
    def plain(self) -> bytes:
        """10 bytes as in the SAIP profile header (tag 83): not swapped, filler F last."""
        return bytes.fromhex(self + "F" * (len(self) % 2))
