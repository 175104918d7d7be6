"""Profiles (SAIP / TCA interoperable profile packages): personalise a template, hand out one profile after another.

A profile package is a row of profile elements (PE). Personalising means: ICCID in the header PE (tag 83, plain BCD) and
in EF.ICCID of PE-MF (nibble-swapped), IMSI in EF.IMSI of every USIM, Ki and OPc in every akaParameter that has its own.
It walks the TLV structure of any template, so lengths stay right and equal bytes elsewhere stay as they are.
The third place of the ICCID is the metadata (BF25), which the binder makes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ifpp.sim.tlv import Node, parse, tlv

PE_HEADER = 0xA0
PE_AKA = 0xA4
PE_MF = 0xB0
PE_USIM = 0xB3
_FILE_OFFSET = 0x82
_FILE_CONTENT = 0x83
_EF_ICCID = (0xA4,)
_EF_IMSI = (0xA3,)
_ALGO_PARAMETER = (0xA1, 0xA1)
_KI, _OPC = 0x82, 0x83

Edit = Callable[[Node], bytes]


@dataclass(frozen=True, slots=True)
class NaaKeys:
    """Subscriber keys of one network access application, 16 bytes each."""

    ki: bytes = field(repr=False)
    opc: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> NaaKeys:
        """Draw new keys from the operating system."""
        return cls(secrets.token_bytes(16), secrets.token_bytes(16))


@dataclass(frozen=True, slots=True)
class Profile:
    """One unprotected profile with its identity: exists once, for one chip."""

    profile_type: str
    provider: str
    iccid: str
    imsi: str
    mcc_mnc: bytes  # 3 bytes as in TS 24.008
    upp: bytes = field(repr=False)


class ProfileStock:
    """An operator's order: profiles of one type with running ICCID and IMSI and random keys, made when taken.

    `templates` are used in turn (variants of one product, for instance of different size).
    `iccid_prefix` leaves at least 6 of 18 digits for the serial, `imsi_prefix` is MCC and MNC.
    """

    def __init__(
        self,
        profile_type: str,
        templates: Sequence[bytes],
        *,
        provider: str,
        iccid_prefix: str,
        imsi_prefix: str,
        first_serial: int,
    ) -> None:
        self.profile_type = profile_type
        self._templates = tuple(templates)
        self._provider = provider
        self._iccid_prefix = iccid_prefix
        self._imsi_prefix = imsi_prefix
        self._serial = first_serial
        self._taken = 0

    def take(self) -> Profile:
        """Make the next profile."""
        serial = self._serial + self._taken
        template = self._templates[self._taken % len(self._templates)]
        self._taken += 1
        iccid = with_luhn(_fill(self._iccid_prefix, serial, 18))
        imsi = _fill(self._imsi_prefix, serial, 15)
        upp = personalise(template, iccid, imsi, NaaKeys.fresh())
        return Profile(self.profile_type, self._provider, iccid, imsi, mcc_mnc(self._imsi_prefix), upp)


def personalise(template: bytes, iccid: str, imsi: str | None = None, keys: NaaKeys | None = None) -> bytes:
    """Make one profile out of a template; `iccid` has 19 or 20 digits, `imsi` 6 to 15.

    Raises ValueError when the template has no header, no PE-MF or no EF.ICCID.
    """
    upp = set_ef_iccid(set_header_iccid(template, iccid), iccid)
    if imsi is not None:
        upp = set_imsi(upp, imsi)
    return upp if keys is None else set_keys(upp, keys)


def set_header_iccid(upp: bytes, iccid: str) -> bytes:
    """Put the ICCID into the header PE: 10 bytes plain BCD, filler F last; raises ValueError if there is no place."""
    value = bytes.fromhex(_padded(iccid))
    return _edit_elements(upp, PE_HEADER, (0x83,), lambda node: tlv(node.tag, value), required=True)


def set_ef_iccid(upp: bytes, iccid: str) -> bytes:
    """Put the ICCID into EF.ICCID: 10 bytes nibble-swapped; raises ValueError if there is no such file."""
    value = iccid_swapped(iccid)
    return _edit_elements(upp, PE_MF, _EF_ICCID, lambda node: _with_content(node, value), required=True)


def set_imsi(upp: bytes, imsi: str) -> bytes:
    """Put the IMSI into EF.IMSI of every USIM that has the file (TS 31.102 4.2.2)."""
    value = imsi_content(imsi)
    return _edit_elements(upp, PE_USIM, _EF_IMSI, lambda node: _with_content(node, value))


def set_keys(upp: bytes, keys: NaaKeys) -> bytes:
    """Put Ki and OPc into every akaParameter that carries its own (mappings to another one stay)."""
    values = {_KI: keys.ki, _OPC: keys.opc}

    def edit(node: Node) -> bytes:
        parts = [tlv(part.tag, values[part.tag]) if part.tag in values else part.raw for part in node.children()]
        return tlv(node.tag, *parts)

    return _edit_elements(upp, PE_AKA, _ALGO_PARAMETER, edit)


def imsi_content(imsi: str) -> bytes:
    """Return the 9 bytes of EF.IMSI: length, parity nibble with the first digit, the rest nibble-swapped."""
    digits = ("9" if len(imsi) % 2 else "1") + imsi
    packed = swapped(digits + "F" * (len(digits) % 2))
    return (bytes((len(packed),)) + packed).ljust(9, b"\xff")


def mcc_mnc(digits: str) -> bytes:
    """Return the 3 bytes of a PLMN of 5 or 6 digits (TS 24.008: 001/01 is `00 F1 10`)."""
    mcc, mnc = digits[:3], digits[3:].ljust(3, "F")
    return swapped(mcc[:2] + mcc[2] + mnc[2] + mnc[:2])


def swapped(digits: str) -> bytes:
    """Pack an even number of hex digits, low nibble first."""
    return bytes.fromhex("".join(digits[at + 1] + digits[at] for at in range(0, len(digits), 2)))


def with_luhn(payload: str) -> str:
    """Append the Luhn digit (ITU-T E.118) to a string of digits."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in payload[::-2])
    return f"{payload}{-(doubled + sum(int(digit) for digit in payload[-2::-2])) % 10}"


def iccid_swapped(iccid: str) -> bytes:
    """Return the 10 bytes of EF.ICCID and tag 5A."""
    return swapped(_padded(iccid))


def _padded(iccid: str) -> str:
    return iccid.ljust(20, "F")


def _fill(prefix: str, serial: int, length: int) -> str:
    room = length - len(prefix)
    return f"{prefix}{serial % 10**room:0{room}d}"


def _with_content(file: Node, content: bytes) -> bytes:
    """Rebuild a File (SEQUENCE OF descriptor, offset, content) so that it holds exactly `content`."""
    kept = [part.raw for part in file.children() if part.tag not in {_FILE_OFFSET, _FILE_CONTENT}]
    return tlv(file.tag, *kept, tlv(_FILE_CONTENT, content))


def _edit_elements(upp: bytes, tag: int, path: Sequence[int], edit: Edit, *, required: bool = False) -> bytes:
    """Apply `edit` to the node at `path` in every profile element of this tag; all other bytes stay."""
    parts = []
    found = False
    for element in parse(upp):
        hit = element.tag == tag and _has(element, path)
        parts.append(_edited(element, path, edit) if hit else element.raw)
        found = found or hit
    if required and not found:
        raise ValueError(f"the template has no profile element {tag:X} with {'/'.join(f'{step:X}' for step in path)}")
    return b"".join(parts)


def _has(node: Node, path: Sequence[int]) -> bool:
    if not path:
        return True
    child = node.first(path[0])
    return child is not None and _has(child, path[1:])


def _edited(node: Node, path: Sequence[int], edit: Edit) -> bytes:
    """Rebuild `node` with its first descendant along `path` replaced; the path exists."""
    if not path:
        return edit(node)
    children = node.children()
    at = next(index for index, child in enumerate(children) if child.tag == path[0])
    parts = [child.raw for child in children]
    parts[at] = _edited(children[at], path[1:], edit)
    return tlv(node.tag, *parts)
