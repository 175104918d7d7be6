"""The chip's walk over an unprotected profile package: one profile element (PE) after the other, from a stream.

A PE may cross the border of a protected block, so bytes are kept until the PE at hand is whole. The content is checked
as far as a chip without a file system can: order, lengths, PE headers, version, mandatory services, and the ICCID in
header and EF.ICCID (TCA eUICC Profile Package 2.3; the status codes of EUICCResponse).
"""

from __future__ import annotations

from ifpp.sim.euicc.chip import members
from ifpp.sim.tlv import Node, integer, parse, read_integer, split_header, tlv

STATUS_BAD_VALUES = 3
STATUS_REQUEST_FORMAT = 5
STATUS_TEMPLATE = 9
STATUS_FEATURE = 10
STATUS_VERSION = 31

PE_HEADER = 0xA0
PE_MF = 0xB0
PE_END = 0xAA
_PE_RFU = frozenset(range(0xAB, 0xB0))  # rfu1..rfu5 have no PE header
_PE_TAGS = frozenset(range(0xA0, 0xBF)) | {0xBF1F, 0xBF20, 0xBF21}
_MAJOR_VERSIONS = (2, 3)
_MAX_IDENTIFICATION = 32_767
# usim isim csim milenage tuak128 javacard multiple-usim multiple-isim tuak256 test-algorithm ber-tlv dfLink
# get-identity profile-a profile-b
_SERVICES = frozenset({1, 2, 3, 4, 5, 11, 13, 14, 16, 17, 18, 19, 21, 22, 23})
_TEMPLATE_ARC = bytes.fromhex("67810f0102")  # 2.23.143.1.2, the file system templates
_TEMPLATES = frozenset(range(1, 17))


class ElementError(ValueError):
    """A PE the chip refuses: PEStatus `status` at PE `identification` (errorReason 12)."""

    def __init__(self, status: int, identification: int | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.identification = identification

    def sima_response(self) -> bytes:
        """EUICCResponse: this one PEStatus, installation aborted."""
        named = b"" if self.identification is None else tlv(0x81, integer(self.identification))
        return tlv(0x30, tlv(0xA0, tlv(0x30, tlv(0x80, integer(self.status)), named)), tlv(0x81))


class IccidError(ValueError):
    """The profile's ICCID is not the metadata's (errorReason 13)."""


class ProfileWalk:
    """Feed it the decrypted pieces in order, then finish(); raises ElementError, IccidError.

    `iccid` is the nibble-swapped value of the metadata. `total` counts the bytes fed.
    """

    def __init__(self, iccid: bytes) -> None:
        self.total = 0
        self._iccid = iccid
        self._buffer = bytearray()
        self._need = 1
        self._seen: set[int] = set()
        self._first = True
        self._ended = False

    def feed(self, piece: bytes) -> None:
        self.total += len(piece)
        self._buffer += piece
        while self._buffer and len(self._buffer) >= self._need:
            if not self._take():
                return

    def finish(self) -> None:
        """Nothing more comes: the end element must have been the last, and whole."""
        if self._buffer or not self._ended:
            raise ElementError(STATUS_REQUEST_FORMAT)

    def _take(self) -> bool:
        """Check and drop the first PE of the buffer; False when it is not whole yet."""
        if self._ended:
            raise ElementError(STATUS_REQUEST_FORMAT)
        header = bytes(self._buffer[:8])
        try:
            tag, length, value_at = split_header(header)
        except ValueError:
            if len(header) == 8:
                raise ElementError(STATUS_REQUEST_FORMAT) from None
            self._need = len(header) + 1
            return False
        if tag not in _PE_TAGS or (tag == PE_HEADER) != self._first:
            raise ElementError(STATUS_REQUEST_FORMAT)
        end = value_at + length
        if len(self._buffer) < end:
            self._need = end
            return False
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._need = 1
        self._element(Node(tag, raw[value_at:], raw))
        return True

    def _element(self, element: Node) -> None:
        if self._first:
            self._first = False
            self._header(element)
            return
        if element.tag in _PE_RFU:
            return
        identification = self._identification(element.value)
        if element.tag == PE_MF:
            self._master_file(element, identification)
        self._ended = element.tag == PE_END

    def _header(self, element: Node) -> None:
        """ProfileHeader: version, mandatory services and templates, ICCID in plain BCD."""
        try:
            found = members(element.value)
            version, iccid = read_integer(found[0x80]), found[0x83]
            services = {_number(node.tag) for node in parse(found.get(0xA5, b""))}
            templates = [node.value for node in parse(found.get(0xA6, b""))]
        except (ValueError, KeyError):
            raise ElementError(STATUS_REQUEST_FORMAT) from None
        if version not in _MAJOR_VERSIONS:
            raise ElementError(STATUS_VERSION)
        if not services <= _SERVICES:
            raise ElementError(STATUS_FEATURE)
        if not all(_known_template(oid) for oid in templates):
            raise ElementError(STATUS_TEMPLATE)
        if _swapped(iccid) != self._iccid:
            raise IccidError("header")

    def _identification(self, value: bytes) -> int:
        """PEHeader: first member of the PE, its number unique in the package; the other lengths must add up."""
        try:
            tag, length, at = split_header(value)
            if tag != 0xA0:
                raise ValueError("no PE header")
            number = read_integer(members(value[at : at + length])[0x81])
            _check_lengths(value)
        except (ValueError, KeyError):
            raise ElementError(STATUS_REQUEST_FORMAT) from None
        if number in self._seen or not 0 <= number <= _MAX_IDENTIFICATION:
            raise ElementError(STATUS_REQUEST_FORMAT, max(number, 0))
        self._seen.add(number)
        return number

    def _master_file(self, element: Node, identification: int) -> None:
        """EF.ICCID of the MF template: member A4, its fillFileContent 83."""
        ef_iccid = element.first(0xA4)
        try:
            content = ef_iccid.need(0x83).value if ef_iccid else b""
        except ValueError:
            content = b""
        if len(content) != len(self._iccid):
            raise ElementError(STATUS_BAD_VALUES, identification)
        if content != self._iccid:
            raise IccidError("EF.ICCID")


def _check_lengths(value: bytes) -> None:
    at = 0
    while at < len(value):
        _, length, at = split_header(value, at)
        at += length
    if at != len(value):
        raise ValueError("lengths")


def _number(tag: int) -> int:
    """The context number of a primitive context tag of one or two bytes."""
    return tag & 0x7F if tag > 0xFF else tag & 0x1F


def _known_template(oid: bytes) -> bool:
    """A template of this chip, in any revision (a further arc)."""
    return oid.startswith(_TEMPLATE_ARC) and len(oid) > len(_TEMPLATE_ARC) and oid[len(_TEMPLATE_ARC)] in _TEMPLATES


def _swapped(value: bytes) -> bytes:
    return bytes((octet << 4 & 0xF0) | octet >> 4 for octet in value)
