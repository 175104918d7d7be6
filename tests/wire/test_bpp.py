"""Bound profile packages: shape, metadata, segments and how many APDUs they take."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.errors import WireError
from ifpp.wire.apdu import CardChannel
from ifpp.wire.bpp import MAX_PROTECTED_BYTES, apdu_floor, parse_bpp, segment_blocks
from tests.wire.build import (
    ICCID,
    POINT,
    SIGNATURE,
    TRANSACTION,
    Card,
    T0Card,
    bpp,
    der,
    metadata,
    pir,
    prepare_download,
    protected,
    secure_channel,
)
from tests.wire.vectors import KAT, kat

BLOCK_SIZES = (255, 240, 200, 128, 120, 60)

# Profile size in bytes -> STORE DATA commands of its segments for each of BLOCK_SIZES (PPK mode, host id of 8 bytes,
# transaction id of 16, metadata of 80): N = sum of ceil(segment / m).
APDUS = {
    736: (9, 10, 10, 13, 14, 24),
    11_913: (54, 65, 77, 102, 114, 213),
    12_385: (56, 68, 80, 106, 118, 221),
    30_000: (126, 155, 185, 246, 275, 518),
    64_527: (263, 327, 391, 520, 584, 1_101),
    262_144: (1_048, 1_308, 1_568, 2_090, 2_350, 4_437),
}
# Profile size -> elements 86, segments, BPP bytes.
SIZES = {
    736: (1, 7, 1_147),
    11_913: (12, 18, 12_463),
    12_385: (13, 19, 12_939),
    30_000: (30, 36, 30_775),
    64_527: (65, 71, 65_754),
    262_144: (261, 267, 265_933),
}


@pytest.mark.parametrize("mode", ["session_mode", "ppk_mode"])
def test_kat_segments(mode: str) -> None:
    """T01: segments as SGP.22 2.5.5 wants them, together the package byte for byte."""
    package = parse_bpp(kat(mode, "bpp"))
    assert [segment.hex() for segment in package.segments] == KAT[mode]["segments"]
    assert b"".join(package.segments) == package.raw == kat(mode, "bpp")
    assert package.ppk is (mode == "ppk_mode")


def test_kat_head() -> None:
    channel = parse_bpp(kat("session_mode", "bpp")).channel
    assert channel.raw == kat("bf23")
    assert channel.signed_raw + bytes.fromhex("5F4941") + kat("otk_pub") == kat("smdpSign_tbs")
    assert (channel.remote_op, channel.key_type, channel.key_length) == (1, 0x88, 16)
    assert channel.transaction_id == kat("transactionId")
    assert channel.host_id == kat("hostId")
    assert channel.smdp_otpk == kat("dp_ot_pub")
    assert channel.smdp_sign == kat("smdpSign")


def test_kat_metadata() -> None:
    stored = parse_bpp(kat("ppk_mode", "bpp")).metadata
    assert stored.iccid == KAT["iccid"]
    assert (stored.provider, stored.name, stored.profile_class) == ("TESTSP", "KAT", 2)
    assert (stored.pprs, stored.notification_addresses) == (frozenset(), ("dpf.example.com",))


def test_kat_elements_of_a_long_profile() -> None:
    """T02: full elements hold 1007 bytes of plaintext in 1020."""
    lengths = [len(protected(0x86, size)) for size in (1007, 1007, 1)]
    assert lengths == KAT["multiseg"]["seg_lengths"]
    assert max(lengths) == MAX_PROTECTED_BYTES


@pytest.mark.parametrize("upp_bytes", APDUS)
def test_apdu_counts_of_all_block_sizes(upp_bytes: int) -> None:
    """T03: the formula is what really goes out."""
    package = parse_bpp(bpp(upp_bytes))
    elements, segments, size = SIZES[upp_bytes]
    assert (len(package.segments), len(package.raw)) == (segments, size)
    assert sum(segment[:1] == b"\x86" for segment in package.segments) == elements
    for block_size, expected in zip(BLOCK_SIZES, APDUS[upp_bytes], strict=True):
        card = Card()
        channel = CardChannel(card, 1, block_size)
        for segment in package.segments:
            channel.segment(segment)
        assert len(card.apdus) == channel.apdus == expected
        assert segment_blocks(package.segments, block_size) == expected


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blocks_restart_with_every_segment(block_size: int) -> None:
    """T04 over a whole load."""
    package = parse_bpp(bpp(3000))
    card = Card()
    channel = CardChannel(card, 1, block_size)
    for segment in package.segments:
        card.apdus.clear()
        channel.segment(segment)
        count = len(card.apdus)
        assert [apdu[2:4] for apdu in card.apdus] == [
            bytes([0x91 if number == count - 1 else 0x11, number]) for number in range(count)
        ]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("ppk", [True, False])
def test_the_floor_is_what_a_t0_card_needs(block_size: int, *, ppk: bool) -> None:
    """From PrepareDownload to the result: every STORE DATA and GET RESPONSE, none more."""
    package, request = parse_bpp(bpp(12_385, ppk=ppk)), prepare_download()
    answer = der(0xBF21, der(0xA0, bytes(150)))
    card = T0Card({request: answer, package.segments[-1]: pir()})
    channel = CardChannel(card, 1, block_size)
    assert channel.command(request) == answer
    answers = [channel.segment(segment) for segment in package.segments]
    assert answers == [b""] * (len(answers) - 1) + [pir()]
    assert channel.apdus == card.count == apdu_floor(package.segments, len(request), block_size)
    assert card.commands == [request, *package.segments]


@pytest.mark.parametrize("upp_bytes", [1, 15, 16, 1006, 1007, 1008, 2014])
@pytest.mark.parametrize("piece", [1, 100, 240, 1007])
@pytest.mark.parametrize("ppk", [True, False])
def test_segments_of_foreign_binders(upp_bytes: int, piece: int, *, ppk: bool) -> None:
    """T02: smaller pieces than 1007 bytes are as good."""
    raw = bpp(upp_bytes, piece=piece, ppk=ppk)
    assert b"".join(parse_bpp(raw).segments) == raw


def test_lone_headers_name_the_length_that_follows() -> None:
    package = parse_bpp(bpp(70_000))
    header = next(segment for segment in package.segments if segment[0] == 0xA3)
    assert header[:2] == b"\xa3\x83"
    following = package.segments[package.segments.index(header) + 1 :]
    assert int.from_bytes(header[2:], "big") == sum(len(segment) for segment in following)


@settings(max_examples=60)
@given(
    upp_bytes=st.integers(1, 5000),
    piece=st.integers(16, 1007),
    ppk=st.booleans(),
    meta=st.integers(30, 110),
    mac_piece=st.integers(12, 1008),
    host_id=st.binary(min_size=1, max_size=16),
    transaction=st.binary(min_size=1, max_size=16),
    block_size=st.integers(16, 255),
)
def test_any_package_arrives_byte_for_byte(
    upp_bytes: int,
    piece: int,
    ppk: bool,
    meta: int,
    mac_piece: int,
    host_id: bytes,
    transaction: bytes,
    block_size: int,
) -> None:
    raw = bpp(
        upp_bytes,
        piece=piece,
        ppk=ppk,
        head=secure_channel(transaction, host_id),
        bf25=metadata(meta),
        mac_piece=mac_piece,
    )
    package = parse_bpp(raw)
    card = T0Card({})
    channel = CardChannel(card, 1, block_size)
    for segment in package.segments:
        channel.segment(segment)
    assert card.commands == list(package.segments)
    assert b"".join(card.commands) == raw
    assert channel.apdus == segment_blocks(package.segments, block_size)
    assert (package.channel.host_id, package.channel.transaction_id) == (host_id, transaction)


# ---- metadata ----------------------------------------------------------------------------------------


def stored(*members: bytes, iccid: bytes = ICCID) -> bytes:
    return bpp(bf25=der(0xBF25, der(0x5A, iccid), *members))


NAMES = der(0x91, b"SP"), der(0x92, b"Name")


def test_metadata_with_everything() -> None:
    addresses = der(
        0xB6,
        der(0x30, der(0x80, b"\x07\x80"), der(0x81, b"a.example")),
        der(0x30, der(0x80, b"\x04\x70"), der(0x81, b"b.example")),
    )
    icon = der(0x93, b"\x01"), der(0x94, bytes(1024))
    raw = stored(
        *NAMES,
        *icon,
        der(0x95, b"\x00"),
        addresses,
        der(0xB7, der(0x80, b"abc")),
        der(0x99, b"\x05\x60"),
        der(0x9F7B, b"\xff"),
    )
    package = parse_bpp(raw)
    assert package.metadata.profile_class == 0
    assert package.metadata.pprs == {1, 2}
    assert package.metadata.notification_addresses == ("a.example", "b.example")
    assert sum(segment[:1] == b"\x88" for segment in package.segments) == 2  # an icon needs a second 88


def test_what_the_metadata_ask_of_a_chip() -> None:
    plain = parse_bpp(stored(*NAMES)).metadata
    assert (plain.service_data, plain.iot) == (False, False)
    assert parse_bpp(stored(*NAMES, der(0xBF22, b""))).metadata.service_data
    for tag in (0x9F7B, 0x9F67, 0xBF64):
        assert parse_bpp(stored(*NAMES, der(tag, b"" if tag == 0xBF64 else b"\xff"))).metadata.iot


def test_metadata_split_anywhere_is_put_together() -> None:
    whole = parse_bpp(bpp(bf25=metadata(100))).metadata
    assert all(parse_bpp(bpp(bf25=metadata(100), mac_piece=piece)).metadata == whole for piece in range(1, 101))


@pytest.mark.parametrize("kind", [b"\x00", b"\x01", b"\x02", b"\x07"])
def test_profile_class_is_kept_as_it_is(kind: bytes) -> None:
    assert parse_bpp(stored(*NAMES, der(0x95, kind))).metadata.profile_class == kind[0]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (stored(*NAMES, iccid=bytes.fromhex("988812910000301129F3")), "the check digit of ICCID"),
        (stored(*NAMES, iccid=ICCID[:9]), "tag 5A: has 9 bytes, expected 10"),
        (stored(der(0x91, b"P" * 33), NAMES[1]), "tag 91: has 33 characters, at most 32"),
        (stored(NAMES[0], der(0x92, b"N" * 65)), "tag 92: has 65 characters, at most 64"),
        (stored(NAMES[0]), "has no member 92"),
        (stored(NAMES[0], der(0x92, b"\xff")), "tag 92: is not UTF-8"),
        (stored(*NAMES, NAMES[1]), "tag 92: stands twice in BF25"),
        (stored(*NAMES, der(0x94, b"png")), "tag 94: is an icon without its type 93"),
        (stored(*NAMES, der(0x93, b"\x01"), der(0x94, bytes(1025))), "tag 94: has 1025 bytes, expected 0 to 1024"),
        (stored(*NAMES, der(0xB6, der(0x30, der(0x80, b"\x04\xf0")))), "has no member 81"),
        (stored(*NAMES, der(0xB6, der(0x31))), "tag 31: in a row of 30 in B6"),
        (bpp(bf25=der(0xBF24)), "BPP metadata, byte 0: tag BF24: expected tag BF25"),
        (bpp(bf25=metadata() + b"\x80\x00"), "tag 80: follows BF25"),
        (bpp(bf25=metadata()[:-1]), "runs 1 bytes past the end"),
    ],
)
def test_metadata_that_does_not_hold(raw: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_bpp(raw)
    assert says in str(caught.value)
    assert caught.value.where.startswith("BPP metadata, byte")


# ---- shape -------------------------------------------------------------------------------------------

HEAD, ISDP = secure_channel(), der(0xA0, protected(0x87, 3))
META = der(0xA1, der(0x88, metadata(), bytes(8)))
KEYS = der(0xA2, protected(0x87, 57))
LOAD = der(0xA3, protected(0x86, 100))


def package(*members: bytes) -> bytes:
    return der(0xBF36, *members)


def test_the_parts_make_a_package() -> None:
    assert parse_bpp(package(HEAD, ISDP, META, KEYS, LOAD)).ppk
    assert not parse_bpp(package(HEAD, ISDP, META, LOAD)).ppk


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "BPP: is empty"),
        (package(HEAD, ISDP, META, LOAD) + b"\x00", "a zero byte stands where a tag belongs"),
        (package(HEAD, ISDP, META, LOAD) + LOAD, "tag A3: follows BF36"),
        (package(HEAD, ISDP, META, LOAD)[:-1], "runs 1 bytes past the end"),
        (HEAD, "tag BF23: expected tag BF36"),
        (package(), "has members none, expected BF23 A0 A1 A3"),
        (package(HEAD, ISDP, META), "has members BF23 A0 A1, expected BF23 A0 A1 A3"),
        (package(ISDP, HEAD, META, LOAD), "expected BF23 A0 A1 A3"),
        (package(HEAD, ISDP, META, LOAD, LOAD), "expected BF23 A0 A1 A3"),
        (package(HEAD, ISDP, KEYS, META, LOAD), "expected BF23 A0 A1 A2 A3"),
        (package(HEAD, ISDP, META, KEYS, KEYS, LOAD), "expected BF23 A0 A1 A2 A3"),
        (package(HEAD, ISDP, META, LOAD, der(0xA4)), "expected BF23 A0 A1 A3"),
        (package(HEAD, der(0xA0), META, LOAD), "tag A0: is empty"),
        (package(HEAD, ISDP, META, der(0xA2), LOAD), "tag A2: is empty"),
        (package(HEAD, ISDP, META, der(0xA3)), "tag A3: is empty"),
        (package(HEAD, der(0xA0, protected(0x86, 3)), META, LOAD), "tag 86: in a row of 87 in A0"),
        (package(HEAD, ISDP, META, der(0xA3, protected(0x86, 3), protected(0x87, 3))), "tag 87: in a row of 86 in A3"),
        (package(HEAD, ISDP, META, der(0xA3, protected(0x86, 1008))), "tag 86: has 1036 bytes in all, at most 1020"),
        (package(HEAD, der(0xA0, der(0x87, bytes(1017))), META, LOAD), "tag 87: has 1021 bytes in all, at most 1020"),
        (package(HEAD, ISDP, META, der(0xA3, der(0x86, bytes(8)))), "tag 86: has 8 bytes, expected 9 to 1020"),
    ],
)
def test_shapes_that_are_no_package(raw: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_bpp(raw)
    assert says in str(caught.value)
    assert caught.value.where.startswith("BPP")


TEMPLATE = der(0xA6, der(0x80, b"\x88"), der(0x81, b"\x10"), der(0x84, b"HOST"))
OPERATION, ORDER = der(0x82, b"\x01"), der(0x80, TRANSACTION)
KEY, SIGN = der(0x5F49, POINT), der(0x5F37, SIGNATURE)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (der(0xBF23, OPERATION, ORDER, TEMPLATE, KEY), "expected 82 80 A6 5F49 5F37"),
        (der(0xBF23, ORDER, OPERATION, TEMPLATE, KEY, SIGN), "expected 82 80 A6 5F49 5F37"),
        (der(0xBF23, OPERATION, ORDER, TEMPLATE, KEY, SIGN, SIGN), "expected 82 80 A6 5F49 5F37"),
        (der(0xBF23, OPERATION, der(0x80), TEMPLATE, KEY, SIGN), "tag 80: has 0 bytes, expected 1 to 16"),
        (der(0xBF23, OPERATION, ORDER, der(0xA6), KEY, SIGN), "tag A6: has members none, expected 80 81 84"),
        (der(0xBF23, OPERATION, ORDER, TEMPLATE, der(0x5F49, POINT[:-1]), SIGN), "tag 5F49: has 64 bytes, expected 65"),
        (der(0xBF23, OPERATION, ORDER, TEMPLATE, der(0x5F49, b"\x02" + POINT[1:]), SIGN), "not an uncompressed point"),
        (der(0xBF23, OPERATION, ORDER, TEMPLATE, KEY, der(0x5F37, b"DER")), "tag 5F37: has 3 bytes, expected 64"),
        (secure_channel(host_id=b""), "tag 84: has 0 bytes, expected 1 to 16"),
        (secure_channel(host_id=bytes(17)), "tag 84: has 17 bytes, expected 1 to 16"),
    ],
)
def test_heads_that_do_not_hold(head: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_bpp(package(head, ISDP, META, LOAD))
    assert says in str(caught.value)


def test_signed_bytes_keep_a_foreign_length_form() -> None:
    """Received bytes are cut, never written again."""
    order = der(0x80, TRANSACTION, length_octets=2)
    head = der(0xBF23, OPERATION, order, TEMPLATE, KEY, der(0x5F37, SIGNATURE, length_octets=1), length_octets=3)
    found = parse_bpp(package(head, ISDP, META, LOAD))
    assert found.channel.signed_raw == OPERATION + order + TEMPLATE + KEY
    assert found.channel.raw == head
    assert found.segments[0].endswith(head)
    assert b"".join(found.segments) == found.raw
