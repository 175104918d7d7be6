"""Bound profile packages: their shape, the head that is in clear, and the segments an FPA sends (SGP.22 2.5, 5.5).

    BF36 { BF23 initialiseSecureChannel (clear, signed)
           A0 { 87+ }  configureISDP          encrypted, MACed
           A1 { 88+ }  storeMetadata BF25     MACed, in clear
           A2 { 87+ }  replaceSessionKeys     encrypted, MACed, only in PPK mode
           A3 { 86+ }  profile elements       encrypted, MACed }

A package passes through byte for byte: nothing is re-encoded, the segments are slices whose concatenation is the
package. What the ciphertext holds is the chip's business; sizes and order are checked before a package is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

from ifpp.model.chip import BoundProfilePackage, InitialiseSecureChannel, StoreMetadata
from ifpp.wire import fields
from ifpp.wire.apdu import BLOCK_BYTES
from ifpp.wire.tlv import Tlv, read_as

MAX_PROTECTED_BYTES = 1020  # one 86, 87 or 88 with tag, length and MAC: four full STORE DATA blocks
_MAC_BYTES = 8
_BPP, _CHANNEL, _METADATA = 0xBF36, 0xBF23, 0xBF25
_CONFIGURE, _STORE, _REPLACE, _LOAD = 0xA0, 0xA1, 0xA2, 0xA3
_ELEMENT = {_CONFIGURE: 0x87, _STORE: 0x88, _REPLACE: 0x87, _LOAD: 0x86}
_OPERATIONAL = 2  # profileClass DEFAULT
_SERVICE_DATA = 0xBF22  # serviceSpecificDataStoredInEuicc
_IOT = (0x9F7B, 0x9F67, 0xBF64)  # ecallIndication, fallbackAllowed, iotSpecificMetadata (SGP.32)
_MAX_PROVIDER, _MAX_NAME, _MAX_ICON_BYTES, _MAX_ADDRESS = 32, 64, 1024, 255


def parse_bpp(raw: bytes) -> BoundProfilePackage:
    """Return a package whose shape is as above, with its metadata and segments; raises WireError otherwise."""
    package = read_as(_BPP, raw, what="BPP")
    ppk = any(member.tag == _REPLACE for member in package.children())
    bodies = (_CONFIGURE, _STORE, _REPLACE, _LOAD) if ppk else (_CONFIGURE, _STORE, _LOAD)
    channel, *rows = package.exactly(_CHANNEL, *bodies)
    segments = [package.header + channel.raw]
    for row in rows:
        elements = _protected(row)
        # 87s travel inside their wrapper; the lone header of A1 and A3 tells the chip how much follows.
        if row.tag in {_CONFIGURE, _REPLACE}:
            segments.append(row.raw)
        else:
            segments += [row.header, *(element.raw for element in elements)]
    return BoundProfilePackage(
        raw=package.raw,
        channel=_secure_channel(channel),
        metadata=_metadata(rows[1]),
        segments=tuple(segments),
        ppk=ppk,
    )


def segment_blocks(segments: Iterable[bytes], block_size: int = BLOCK_BYTES) -> int:
    """Return the number of STORE DATA commands for these segments: each is a chain of its own."""
    return sum(-(-len(segment) // block_size) for segment in segments)


def apdu_floor(segments: Iterable[bytes], prepare_download_len: int, block_size: int = BLOCK_BYTES) -> int:
    """Return the least number of STORE DATA and GET RESPONSE from PrepareDownload to the installation result.

    `prepare_download_len` is the size of BF21 in bytes. On a T=0 card its answer and the result, both at most
    256 bytes, take one GET RESPONSE each; the segments before the last answer nothing.
    """
    prepare = -(-prepare_download_len // block_size) + 1
    return prepare + segment_blocks(segments, block_size) + 1


def _protected(row: Tlv) -> tuple[Tlv, ...]:
    """Return the elements of one wrapper: at least one, each with content and MAC, none over the limit."""
    elements = row.sequence_of(_ELEMENT[row.tag])
    if not elements:
        raise row.error("is empty")
    for element in elements:
        if len(element.raw) > MAX_PROTECTED_BYTES:
            raise element.error(f"has {len(element.raw)} bytes in all, at most {MAX_PROTECTED_BYTES} are allowed")
        element.sized(_MAC_BYTES + 1, MAX_PROTECTED_BYTES)
    return elements


def _secure_channel(member: Tlv) -> InitialiseSecureChannel:
    operation, transaction_id, template, key, signature = member.exactly(
        0x82, fields.TRANSACTION_ID, 0xA6, fields.PUBLIC_KEY, fields.SIGNATURE
    )
    key_type, key_length, host_id = template.exactly(0x80, 0x81, 0x84)
    return InitialiseSecureChannel(
        raw=member.raw,
        remote_op=operation.integer(),
        transaction_id=fields.transaction_id(transaction_id),
        key_type=key_type.sized(1)[0],
        key_length=key_length.sized(1)[0],
        host_id=host_id.sized(1, 16),
        smdp_otpk=fields.public_key(key),
        smdp_sign=fields.signature(signature),
        signed_raw=member.value[: -len(signature.raw)],
    )


def _metadata(row: Tlv) -> StoreMetadata:
    """Return the StoreMetadataRequest the 88s carry, continued from one to the next, each followed by its MAC."""
    return parse_metadata(b"".join(element.value[:-_MAC_BYTES] for element in row.children()), what="BPP metadata")


def parse_metadata(data: bytes, *, what: str) -> StoreMetadata:
    """Return one complete StoreMetadataRequest (BF25, SGP.22 5.5.3), which AuthenticateClient answers too."""
    request = read_as(_METADATA, data, what=what)
    kind, rules = request.first(0x95), request.first(0x99)
    _check_icon(request)
    return StoreMetadata(
        iccid=fields.iccid(request.need(fields.ICCID)),
        provider=request.need(0x91).text(_MAX_PROVIDER),
        name=request.need(0x92).text(_MAX_NAME),
        profile_class=kind.integer() if kind else _OPERATIONAL,
        pprs=rules.bits() if rules else frozenset(),
        notification_addresses=_addresses(request.first(0xB6)),
        service_data=request.first(_SERVICE_DATA) is not None,
        iot=any(request.first(tag) is not None for tag in _IOT),
    )


def _check_icon(request: Tlv) -> None:
    kind, icon = request.first(0x93), request.first(0x94)
    if icon is None:
        return
    if kind is None:
        raise icon.error("is an icon without its type 93")
    icon.sized(0, _MAX_ICON_BYTES)


def _addresses(configuration: Tlv | None) -> tuple[str, ...]:
    """Return the addresses of notificationConfigurationInfo in order, whatever their events."""
    if configuration is None:
        return ()
    return tuple(entry.need(0x81).text(_MAX_ADDRESS) for entry in configuration.sequence_of(fields.SEQUENCE))
