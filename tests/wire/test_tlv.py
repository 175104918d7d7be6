"""TLV reader and writer: exact bytes, bounds, errors that say what and where."""

from __future__ import annotations

import pytest

from ifpp.errors import WireError
from ifpp.wire.tlv import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_MEMBERS,
    bit_string,
    boolean,
    integer,
    read,
    read_as,
    read_many,
    write,
)
from tests.wire.build import der


def member(tag: int, content: str) -> bytes:
    return der(0xA0, der(tag, bytes.fromhex(content)))


@pytest.mark.parametrize(
    ("raw", "tag", "value"),
    [
        ("8000", 0x80, ""),
        ("5A01FF", 0x5A, "FF"),
        ("5F3702AABB", 0x5F37, "AABB"),
        ("BF360101", 0xBF36, "01"),
        ("9F814201AA", 0x9F8142, "AA"),
        ("80810100", 0x80, "00"),
        ("8082000100", 0x80, "00"),
        ("808300000100", 0x80, "00"),
        ("80840000000100", 0x80, "00"),
    ],
)
def test_reads_every_form_of_tag_and_length(raw: str, tag: int, value: str) -> None:
    tlv = read(bytes.fromhex(raw), what="test")
    assert (tlv.tag, tlv.value.hex().upper(), tlv.raw.hex().upper()) == (tag, value, raw)
    assert tlv.header + tlv.value == tlv.raw


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("", "test: is empty"),
        ("80", "test, byte 0: tag 80: the data end before its length"),
        ("BF", "test, byte 0: tag BF: the data end inside the tag"),
        ("BFFF", "test, byte 0: tag BFFF: the data end inside the tag"),
        ("BFFFFFFF0100", "tag BFFFFF: longer than 3 bytes"),
        ("8080010000", "length 80 (indefinite or too long)"),
        ("80850000000001AA", "length 85 (indefinite or too long)"),
        ("80FF", "length FF (indefinite or too long)"),
        ("808201", "the data end inside its length"),
        ("800501020304", "its length 5 runs 1 bytes past the end"),
        ("8084FFFFFFFF", "its length 4294967295 runs 4294967295 bytes past the end"),
        ("0000", "a zero byte stands where a tag belongs"),
        ("80010081", "test, byte 3: tag 81: the data end before its length"),
        ("8001008100", "test, byte 3: tag 81: follows 80 where the data should end"),
    ],
)
def test_refuses_with_the_place_of_the_fault(raw: str, says: str) -> None:
    with pytest.raises(WireError) as caught:
        read(bytes.fromhex(raw), what="test")
    assert says in str(caught.value)
    assert caught.value.code == "WIRE.MALFORMED"


def test_names_the_byte_of_a_fault_deep_inside() -> None:
    raw = der(0xBF37, der(0xA0, der(0x80, b"\x01"), b"\x81\x05\x00"))
    with pytest.raises(WireError, match=r"nested, byte 8: tag 81: its length 5 runs 4 bytes past the end"):
        read(raw, what="nested").children()[0].children()


def test_a_member_cannot_reach_beyond_its_parent() -> None:
    raw = bytes.fromhex("A003800500" + "0000000000")
    parent = read_many(raw[:5], what="test")[0]
    with pytest.raises(WireError, match="runs 4 bytes past the end"):
        parent.children()


def test_members_are_found_by_tag_and_a_second_one_is_an_error() -> None:
    tlv = read(bytes.fromhex("A009800101810102800103"), what="test")
    assert tlv.need(0x81).value == b"\x02"
    assert tlv.first(0x82) is None
    with pytest.raises(WireError, match=r"byte 8: tag 80: stands twice in A0"):
        tlv.first(0x80)
    with pytest.raises(WireError, match=r"tag A0: has no member 82"):
        tlv.need(0x82)


def test_exactly_and_sequence_of_refuse_other_members() -> None:
    tlv = read(bytes.fromhex("A006800101810102"), what="test")
    assert [found.tag for found in tlv.exactly(0x80, 0x81)] == [0x80, 0x81]
    with pytest.raises(WireError, match="has members 80 81, expected 81 80"):
        tlv.exactly(0x81, 0x80)
    with pytest.raises(WireError, match="tag 81: in a row of 80 in A0"):
        tlv.sequence_of(0x80)
    crowd = read(der(0xA0, *[b"\x80\x00"] * 20), what="test")
    with pytest.raises(WireError, match=r"80 80 80 80 80 80 80 80 \.\.\. \(20 in all\), expected 80"):
        crowd.exactly(0x80)


def test_read_as_wants_its_tag() -> None:
    assert read_as(0xBF2E, b"\xbf\x2e\x00", what="test").tag == 0xBF2E
    with pytest.raises(WireError, match="tag BF2E: expected tag BF30"):
        read_as(0xBF30, b"\xbf\x2e\x00", what="test")


def test_bounds_depth_members_and_size() -> None:
    deep = b""
    for _ in range(MAX_DEPTH + 1):
        deep = der(0xA0, deep)
    tlv = read(deep, what="deep")
    for _ in range(MAX_DEPTH - 1):
        (tlv,) = tlv.children()
    with pytest.raises(WireError, match=f"nested deeper than {MAX_DEPTH} levels"):
        tlv.children()
    assert len(read_many(b"\x80\x00" * MAX_MEMBERS, what="row")) == MAX_MEMBERS
    with pytest.raises(WireError, match=f"row, byte {2 * MAX_MEMBERS}: more than {MAX_MEMBERS} data objects"):
        read_many(b"\x80\x00" * (MAX_MEMBERS + 1), what="row")
    with pytest.raises(WireError, match=f"has {MAX_BYTES + 1} bytes"):
        read_many(bytes(MAX_BYTES + 1), what="huge")


@pytest.mark.parametrize(
    ("number", "content"),
    [(0, "00"), (1, "01"), (127, "7F"), (128, "0080"), (255, "00FF"), (256, "0100"), (32768, "008000")],
)
def test_integer_has_its_sign_byte(number: int, content: str) -> None:
    """T23: values from 128 on need a leading 00."""
    assert integer(number).hex().upper() == content
    assert read(member(0x80, content), what="test").need(0x80).integer() == number


def test_integer_tolerates_leading_zeros_and_refuses_the_rest() -> None:
    assert read(member(0x80, "0000000000000001"), what="test").need(0x80).integer() == 1
    with pytest.raises(WireError, match="is a negative number"):
        read(member(0x80, "80"), what="test").need(0x80).integer()
    with pytest.raises(WireError, match="has 0 bytes, expected 1 to 8"):
        read(member(0x80, ""), what="test").need(0x80).integer()
    with pytest.raises(WireError, match="has 9 bytes, expected 1 to 8"):
        read(member(0x80, "00" * 9), what="test").need(0x80).integer()


@pytest.mark.parametrize(
    ("content", "bits"),
    [
        ("0780", {0}),
        ("0080", {0}),
        ("0380", {0}),
        ("0640", {1}),
        ("0520", {2}),
        ("0410", {3}),
        ("04F0", {0, 1, 2, 3}),
        ("0398", {0, 3, 4}),
        ("0780C0", {0, 8}),
        ("07C0", {0}),
        ("00", set()),
        ("07", set()),
        ("008000000000", {0}),
    ],
)
def test_bit_strings_with_any_unused_bit_count(content: str, bits: set[int]) -> None:
    """T23: 00 80 means the same as 07 80; bits declared unused do not count."""
    assert read(member(0x81, content), what="test").need(0x81).bits() == bits


@pytest.mark.parametrize("content", ["", "08", "0880", "00" * 33])
def test_bit_strings_that_are_none(content: str) -> None:
    with pytest.raises(WireError, match="tag 81"):
        read(member(0x81, content), what="test").need(0x81).bits()


@pytest.mark.parametrize(
    ("bits", "content"), [((), "00"), ((0,), "0780"), ((1,), "0640"), ((0, 1, 2, 3), "04F0"), ((0, 8), "078080")]
)
def test_bit_strings_are_written_in_der(bits: tuple[int, ...], content: str) -> None:
    assert bit_string(frozenset(bits)).hex().upper() == content


def test_booleans() -> None:
    """T23: true is FF in DER and 01 from some cards."""
    assert (boolean(value=True), boolean(value=False)) == (b"\xff", b"\x00")
    assert [read(member(0x01, octet), what="test").need(0x01).boolean() for octet in ("00", "01", "FF")] == [
        False,
        True,
        True,
    ]
    with pytest.raises(WireError, match="has 2 bytes, expected 1"):
        read(member(0x01, "0000"), what="test").need(0x01).boolean()


def test_text_counts_characters() -> None:
    tlv = read(der(0x91, "Grüße".encode()), what="test")
    assert tlv.text(5) == "Grüße"
    with pytest.raises(WireError, match="has 5 characters, at most 4"):
        tlv.text(4)
    with pytest.raises(WireError, match="is not UTF-8"):
        read(b"\x91\x01\xff", what="test").text(5)


@pytest.mark.parametrize(
    ("content", "dotted"),
    [
        ("88370A", "2.999.10"),
        ("67811201020105", "2.23.146.1.2.1.5"),
        ("550405", "2.5.4.5"),
        ("2A8648CE3D0201", "1.2.840.10045.2.1"),
        ("00", "0.0"),
        ("27", "0.39"),
        ("28", "1.0"),
        ("50", "2.0"),
        ("55818000", "2.5.16384"),
        ("818000", "2.16304"),
        ("4F", "1.39"),
    ],
)
def test_object_identifiers(content: str, dotted: str) -> None:
    assert read(der(0x06, bytes.fromhex(content)), what="test").oid() == dotted


@pytest.mark.parametrize("content", ["", "80", "8001", "2A80", "2A8001", "678001", "2A86", "01" * 33])
def test_object_identifiers_that_are_none(content: str) -> None:
    with pytest.raises(WireError, match="tag 06"):
        read(der(0x06, bytes.fromhex(content)), what="test").oid()


@pytest.mark.parametrize(
    ("count", "length"), [(0, "00"), (127, "7F"), (128, "8180"), (255, "81FF"), (256, "820100"), (65536, "83010000")]
)
def test_lengths_are_written_minimal(count: int, length: str) -> None:
    raw = write(0xBF36, bytes(count // 2), bytes(count - count // 2))
    assert raw.hex().upper().startswith("BF36" + length)
    assert read(raw, what="test").value == bytes(count)


def test_repr_shows_no_content() -> None:
    assert repr(read(der(0xA0, der(0x80, b"secret")), what="test").need(0x80)) == "<Tlv 80, 8 bytes, byte 2 of test>"
