"""BER-TLV as eUICCs speak it: a bounded reader that keeps the received bytes, and a DER writer.

Whatever arrives, the reader ends quickly and raises nothing but WireError: at most MAX_BYTES of input, MAX_MEMBERS
objects in one level, MAX_DEPTH levels, tags of 1 to 3 bytes, lengths of 1 to 5 bytes. Lengths need not be minimal
(signatures cover the bytes as they came, so `raw` is always a slice of the input); the indefinite form is refused.

Sources: ITU-T X.690 (BER, DER), ISO/IEC 7816-4 (tags), SGP.22 5.7 (how RSP uses them).
"""

from __future__ import annotations

from ifpp.errors import WireError

MAX_BYTES = 4 * 1024 * 1024
MAX_MEMBERS = 10_000
MAX_DEPTH = 16
_MAX_TAG_BYTES = 3
_MAX_LENGTH_BYTES = 4
_MAX_INTEGER_BYTES = 8
_MAX_BITS_BYTES = 32
_MAX_OID_BYTES = 32


class Tlv:
    """One data object cut out of received bytes.

    `tag` is the number as on the wire (0xBF36), `raw` the complete object as received, `value` its content and
    `offset` the place of `raw` in the outermost input. Members are read on demand and only once.
    """

    __slots__ = ("_depth", "_header", "_members", "_what", "offset", "raw", "tag")

    def __init__(self, tag: int, raw: bytes, header: int, *, offset: int, depth: int, what: str) -> None:
        self.tag = tag
        self.raw = raw
        self.offset = offset
        self._header = header
        self._depth = depth
        self._what = what
        self._members: tuple[Tlv, ...] | None = None

    def __repr__(self) -> str:
        return f"<Tlv {self.tag:02X}, {len(self.raw)} bytes, byte {self.offset} of {self._what}>"

    @property
    def value(self) -> bytes:
        return self.raw[self._header :]

    @property
    def header(self) -> bytes:
        """Tag and length octets as received."""
        return self.raw[: self._header]

    def error(self, detail: str) -> WireError:
        """Return (not raise) the error that says what is wrong with this object, and where it stands."""
        return WireError(f"tag {self.tag:02X}: {detail}", where=f"{self._what}, byte {self.offset}")

    # ---- members ---------------------------------------------------------------------------------

    def children(self) -> tuple[Tlv, ...]:
        """Return the members in order; raises WireError when the content is not a row of data objects."""
        if self._members is None:
            if self._depth >= MAX_DEPTH:
                raise self.error(f"nested deeper than {MAX_DEPTH} levels")
            self._members = _parse(self.raw, self._header, base=self.offset, depth=self._depth + 1, what=self._what)
        return self._members

    def first(self, tag: int) -> Tlv | None:
        """Return the member with this tag, None when absent; twice is an error, or two readers could differ."""
        found = [member for member in self.children() if member.tag == tag]
        if len(found) > 1:
            raise found[1].error(f"stands twice in {self.tag:02X}")
        return found[0] if found else None

    def need(self, tag: int) -> Tlv:
        """Return the one member with this tag; raises WireError when it is absent or stands twice."""
        member = self.first(tag)
        if member is None:
            raise self.error(f"has no member {tag:02X}")
        return member

    def exactly(self, *tags: int) -> tuple[Tlv, ...]:
        """Return the members, which must be these in this order and no others."""
        members = self.children()
        if tuple(member.tag for member in members) != tags:
            raise self.error(f"has members {_names(members)}, expected {' '.join(f'{tag:02X}' for tag in tags)}")
        return members

    def sequence_of(self, tag: int) -> tuple[Tlv, ...]:
        """Return the members, which must all carry this tag (possibly none)."""
        members = self.children()
        for member in members:
            if member.tag != tag:
                raise member.error(f"in a row of {tag:02X} in {self.tag:02X}")
        return members

    # ---- primitive contents ----------------------------------------------------------------------

    def sized(self, least: int, most: int | None = None) -> bytes:
        """Return the content, which must have `least` to `most` bytes (without `most`: exactly `least`)."""
        size = len(self.raw) - self._header
        if not least <= size <= (least if most is None else most):
            expected = str(least) if most is None else f"{least} to {most}"
            raise self.error(f"has {size} bytes, expected {expected}")
        return self.value

    def integer(self) -> int:
        """Return a non-negative INTEGER of at most 8 bytes; superfluous leading zeros are accepted."""
        content = self.sized(1, _MAX_INTEGER_BYTES)
        if content[0] & 0x80:
            raise self.error("is a negative number (a sign byte 00 is missing?)")
        return int.from_bytes(content, "big")

    def boolean(self) -> bool:
        """Return a BOOLEAN; any value but 00 is true (cards send 01 and FF)."""
        return self.sized(1) != b"\x00"

    def bits(self) -> frozenset[int]:
        """Return the numbers of the set bits of a named BIT STRING; trailing zero bits and bytes do not matter."""
        content = self.sized(1, _MAX_BITS_BYTES)
        unused, octets = content[0], content[1:]
        if unused > 7:
            raise self.error(f"claims {unused} unused bits")
        count = len(octets) * 8 - unused
        return frozenset(bit for bit in range(count) if octets[bit // 8] & 0x80 >> bit % 8)

    def text(self, most: int) -> str:
        """Return a UTF8String of at most `most` characters."""
        try:
            text = self.value.decode()
        except UnicodeDecodeError as error:
            raise self.error(f"is not UTF-8 ({error.reason})") from None
        if len(text) > most:
            raise self.error(f"has {len(text)} characters, at most {most} are allowed")
        return text

    def oid(self) -> str:
        """Return an OBJECT IDENTIFIER in dotted form, 2.999.10."""
        content = self.sized(1, _MAX_OID_BYTES)
        arcs, arc = [], 0
        for position, octet in enumerate(content):
            if octet == 0x80 and (position == 0 or not content[position - 1] & 0x80):
                raise self.error("an arc of the object identifier starts with 80")
            arc = arc << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(arc)
                arc = 0
        if content[-1] & 0x80:
            raise self.error("the object identifier breaks off")
        root = min(arcs[0] // 40, 2)
        return ".".join(str(number) for number in (root, arcs[0] - 40 * root, *arcs[1:]))


def read(data: bytes, *, what: str) -> Tlv:
    """Return the one data object that `data` is; `what` names the input in errors. Trailing bytes are refused."""
    objects = read_many(data, what=what)
    if len(objects) != 1:
        if not objects:
            raise WireError("is empty", where=what)
        raise objects[1].error(f"follows {objects[0].tag:02X} where the data should end")
    return objects[0]


def read_as(tag: int, data: bytes, *, what: str) -> Tlv:
    """Return the one data object that `data` is, which must carry `tag`."""
    found = read(data, what=what)
    if found.tag != tag:
        raise found.error(f"expected tag {tag:02X}")
    return found


def read_many(data: bytes, *, what: str) -> tuple[Tlv, ...]:
    """Return the data objects whose concatenation `data` is (possibly none)."""
    if len(data) > MAX_BYTES:
        raise WireError(f"has {len(data)} bytes, at most {MAX_BYTES} are read", where=what)
    return _parse(data, 0, base=0, depth=1, what=what)


def write(tag: int, *parts: bytes) -> bytes:
    """Return one data object in DER: the tag as on the wire, the minimal length, the concatenated parts."""
    value = b"".join(parts)
    size = len(value)
    if size < 0x80:
        length = bytes((size,))
    else:
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes((0x80 | len(octets),)) + octets
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + length + value


def integer(number: int) -> bytes:
    """Return the DER content of a non-negative INTEGER, with its sign byte where needed (128 is 00 80)."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def boolean(value: bool) -> bytes:
    """Return the DER content of a BOOLEAN."""
    return b"\xff" if value else b"\x00"


def bit_string(bits: frozenset[int]) -> bytes:
    """Return the DER content of a named BIT STRING: no trailing zero bits, first the number of unused bits."""
    if not bits:
        return b"\x00"
    count = max(bits) + 1
    unused = -count % 8
    number = sum(1 << count - 1 - bit for bit in bits) << unused
    return bytes((unused,)) + number.to_bytes((count + unused) // 8, "big")


def _names(members: tuple[Tlv, ...]) -> str:
    shown = " ".join(f"{member.tag:02X}" for member in members[:8])
    return f"{shown} ... ({len(members)} in all)" if len(members) > 8 else shown or "none"


def _parse(data: bytes, at: int, *, base: int, depth: int, what: str) -> tuple[Tlv, ...]:
    """Cut data[at:] into data objects; `base` is the place of data[0] in the outermost input."""
    found: list[Tlv] = []
    while at < len(data):
        if len(found) == MAX_MEMBERS:
            raise WireError(f"more than {MAX_MEMBERS} data objects in a row", where=f"{what}, byte {base + at}")
        try:
            tag, value_at, end = _read_header(data, at)
        except _HeaderError as error:
            raise WireError(str(error), where=f"{what}, byte {base + at}") from None
        found.append(Tlv(tag, data[at:end], value_at - at, offset=base + at, depth=depth, what=what))
        at = end
    return tuple(found)


class _HeaderError(Exception):
    """What is wrong with a tag or length; becomes a WireError with its place."""


def _read_header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return (tag, where the value starts, where it ends) of the data object at `at`."""
    tag, position = _read_tag(data, at)
    if position == len(data):
        raise _HeaderError(f"tag {tag:02X}: the data end before its length")
    size = data[position]
    position += 1
    if size >= 0x80:
        count = size & 0x7F
        if not 1 <= count <= _MAX_LENGTH_BYTES:
            raise _HeaderError(f"tag {tag:02X}: length {size:02X} (indefinite or too long) is not allowed")
        if position + count > len(data):
            raise _HeaderError(f"tag {tag:02X}: the data end inside its length")
        size = int.from_bytes(data[position : position + count], "big")
        position += count
    if position + size > len(data):
        raise _HeaderError(f"tag {tag:02X}: its length {size} runs {position + size - len(data)} bytes past the end")
    return tag, position, position + size


def _read_tag(data: bytes, at: int) -> tuple[int, int]:
    """Return (tag, where the length starts)."""
    tag, position = data[at], at + 1
    if tag == 0:
        raise _HeaderError("a zero byte stands where a tag belongs")
    if tag & 0x1F != 0x1F:
        return tag, position
    while position - at < _MAX_TAG_BYTES:
        if position == len(data):
            raise _HeaderError(f"tag {tag:02X}: the data end inside the tag")
        octet = data[position]
        tag, position = tag << 8 | octet, position + 1
        if not octet & 0x80:
            return tag, position
    raise _HeaderError(f"tag {tag:02X}: longer than {_MAX_TAG_BYTES} bytes")
