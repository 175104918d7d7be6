"""BER/DER TLV for the simulated world: write, parse, and the few content types ES10 and SAIP need.

Tags are integers as they stand on the wire (0x5A, 0xBF36, 0x5F49). Writing is always DER (minimal definite lengths).
Parsing accepts non-minimal lengths, refuses indefinite ones, and raises ValueError for everything that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """One parsed TLV: `tag`, its `value`, and `raw` = the complete TLV as received (tag, length, value)."""

    tag: int
    value: bytes
    raw: bytes

    def children(self) -> list[Node]:
        """Parse the value as a sequence of TLVs; raises ValueError."""
        return parse(self.value)

    def first(self, tag: int) -> Node | None:
        """Return the first child with this tag, or None."""
        return next((child for child in self.children() if child.tag == tag), None)

    def need(self, tag: int) -> Node:
        """Return the first child with this tag; raises ValueError when there is none."""
        found = self.first(tag)
        if found is None:
            raise ValueError(f"tag {tag:X} is missing in {self.tag:X}")
        return found


def header(tag: int, length: int) -> bytes:
    """Encode tag and minimal length octets of a value of `length` bytes."""
    return tag.to_bytes((tag.bit_length() + 7) // 8 or 1, "big") + _length(length)


def tlv(tag: int, *parts: bytes) -> bytes:
    """Encode one TLV whose value is the concatenation of `parts`."""
    value = b"".join(parts)
    return header(tag, len(value)) + value


def _length(n: int) -> bytes:
    if n < 0x80:
        return bytes((n,))
    octets = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets


def split_header(data: bytes, offset: int = 0) -> tuple[int, int, int]:
    """Read one tag and length at `offset`; return (tag, length of value, offset of value).

    The value itself may be incomplete or absent (a lone header); raises ValueError when the header is.
    """
    try:
        return _header_at(data, offset)
    except IndexError:
        raise ValueError("a TLV header is cut off") from None


def _header_at(data: bytes, start: int) -> tuple[int, int, int]:
    at = start + 1
    if data[start] & 0x1F == 0x1F:
        while data[at] & 0x80:
            at += 1
        at += 1
    if at - start > 4:
        raise ValueError("a tag of more than 4 bytes")
    tag = int.from_bytes(data[start:at], "big")
    length = data[at]
    at += 1
    if length < 0x80:
        return tag, length, at
    count = length & 0x7F
    if count == 0 or count > 4:
        raise ValueError(f"length form {length:02X} after tag {tag:X}")
    octets = data[at : at + count]
    if len(octets) < count:
        raise ValueError("a TLV header is cut off")
    return tag, int.from_bytes(octets, "big"), at + count


def parse(data: bytes) -> list[Node]:
    """Parse `data` as a sequence of TLVs without remainder; raises ValueError."""
    nodes = []
    at = 0
    while at < len(data):
        tag, length, value_at = split_header(data, at)
        end = value_at + length
        if end > len(data):
            raise ValueError(f"tag {tag:X} announces {length} bytes, {len(data) - value_at} are there")
        nodes.append(Node(tag, bytes(data[value_at:end]), bytes(data[at:end])))
        at = end
    return nodes


def parse_one(data: bytes, tag: int | None = None) -> Node:
    """Parse exactly one TLV (of this tag, if given) and nothing after it; raises ValueError."""
    nodes = parse(data)
    if len(nodes) != 1:
        raise ValueError(f"{len(nodes)} TLVs where one is expected")
    if tag is not None and nodes[0].tag != tag:
        raise ValueError(f"tag {nodes[0].tag:X} where {tag:X} is expected")
    return nodes[0]


def integer(n: int) -> bytes:
    """Return the content octets of a DER INTEGER >= 0 (128 is `00 80`)."""
    return n.to_bytes(n.bit_length() // 8 + 1, "big")


def read_integer(content: bytes) -> int:
    """Return the value of INTEGER content octets (two's complement); raises ValueError when empty."""
    if not content:
        raise ValueError("an INTEGER without content")
    return int.from_bytes(content, "big", signed=True)


def bits(numbers: Iterable[int]) -> bytes:
    """Return the content octets of a DER named BIT STRING with these bits set (bit 0 is the first; {0} is `07 80`)."""
    chosen = frozenset(numbers)
    if not chosen:
        return b"\x00"
    count = max(chosen) + 1
    size = (count + 7) // 8
    value = sum(1 << (size * 8 - 1 - bit) for bit in chosen)
    return bytes((size * 8 - count,)) + value.to_bytes(size, "big")


def read_bits(content: bytes) -> frozenset[int]:
    """Return the set bits of BIT STRING content octets; any count of unused bits is accepted; raises ValueError."""
    if not content or content[0] > 7:
        raise ValueError("a BIT STRING without a valid count of unused bits")
    body = content[1:]
    return frozenset(bit for bit in range(len(body) * 8) if body[bit // 8] >> (7 - bit % 8) & 1)


def boolean(value: bool) -> bytes:
    """Return the content octet of a DER BOOLEAN."""
    return b"\xff" if value else b"\x00"


def oid(dotted: str) -> bytes:
    """Return the content octets of an OBJECT IDENTIFIER (2.999.10 is `88 37 0A`)."""
    arcs = [int(arc) for arc in dotted.split(".")]
    return b"".join(_base128(arc) for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]))


def _base128(arc: int) -> bytes:
    septets = [arc & 0x7F]
    while arc := arc >> 7:
        septets.append(0x80 | arc & 0x7F)
    return bytes(reversed(septets))


def read_oid(content: bytes) -> str:
    """Return the dotted form of OBJECT IDENTIFIER content octets; raises ValueError when cut off."""
    if not content or content[-1] & 0x80:
        raise ValueError("an OBJECT IDENTIFIER that is cut off")
    arcs: list[int] = []
    arc = 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(number) for number in (first, arcs[0] - 40 * first, *arcs[1:]))
