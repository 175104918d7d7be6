"""Fields that several RSP structures share, read strictly: sizes and check digits hold or it is a WireError."""

from __future__ import annotations

from ifpp.model.ids import Eid, Iccid
from ifpp.wire.tlv import Tlv

TRANSACTION_ID = 0x80
EID = ICCID = 0x5A
AID = 0x4F
SIGNATURE = 0x5F37
PUBLIC_KEY = 0x5F49
SEQUENCE = 0x30
OCTETS = 0x04
OID = 0x06
UTF8 = 0x0C


def transaction_id(member: Tlv) -> bytes:
    """Return a transactionId: 1 to 16 bytes (SGP.22 5.7.5)."""
    return member.sized(1, 16)


def eid(member: Tlv) -> Eid:
    """Return an EID from its 16 bytes; wrong check digits are an error (SGP.29)."""
    content = member.sized(16)
    try:
        return Eid.from_bytes(content)
    except ValueError as error:
        raise member.error(str(error)) from None


def iccid(member: Tlv) -> Iccid:
    """Return an ICCID from its 10 nibble-swapped bytes; a wrong check digit is an error (ITU-T E.118)."""
    content = member.sized(10)
    try:
        return Iccid.from_swapped(content)
    except ValueError as error:
        raise member.error(str(error)) from None


def public_key(member: Tlv) -> bytes:
    """Return an uncompressed point 04 X Y on a 256-bit curve: 65 bytes (BSI TR-03111)."""
    point = member.sized(65)
    if point[0] != 0x04:
        raise member.error(f"is not an uncompressed point (starts with {point[0]:02X})")
    return point


def signature(member: Tlv) -> bytes:
    """Return an ECDSA signature as raw r||s: 64 bytes (BSI TR-03111 plain format)."""
    return member.sized(64)
