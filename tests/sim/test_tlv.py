"""TLV writer and parser of the simulated world, against hand-written encodings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.sim.tlv import (
    bits,
    header,
    integer,
    oid,
    parse,
    parse_one,
    read_bits,
    read_integer,
    read_oid,
    split_header,
    tlv,
)


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, "bf3600"),
        (127, "bf367f"),
        (128, "bf368180"),
        (255, "bf3681ff"),
        (256, "bf36820100"),
        (65536, "bf3683010000"),
    ],
)
def test_lengths_are_minimal(length: int, head: str) -> None:
    assert header(0xBF36, length).hex() == head
    assert split_header(tlv(0xBF36, bytes(length))) == (0xBF36, length, len(head) // 2)


def test_nodes_keep_the_bytes_they_came_from() -> None:
    non_minimal = bytes.fromhex("bf2d8200055a0101" + "5a00")
    (node,) = parse(non_minimal)
    assert node.raw == non_minimal
    assert [child.raw.hex() for child in node.children()] == ["5a0101", "5a00"]
    assert node.need(0x5A).value == b"\x01"
    assert node.first(0x4F) is None
    with pytest.raises(ValueError, match="4F is missing"):
        node.need(0x4F)


@pytest.mark.parametrize(
    "broken", ["5a", "5a02ff", "bf", "bf81818100", "30800000", "5a8401", "5a85000000000100"], ids=str
)
def test_what_does_not_fit_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match=r"cut off|announces|form|tag"):
        parse(bytes.fromhex(broken))


def test_exactly_one_is_asked_for() -> None:
    with pytest.raises(ValueError, match="2 TLVs"):
        parse_one(bytes.fromhex("5a005a00"))
    with pytest.raises(ValueError, match="tag 5A"):
        parse_one(bytes.fromhex("5a00"), 0x4F)


@pytest.mark.parametrize(("number", "content"), [(0, "00"), (127, "7f"), (128, "0080"), (65535, "00ffff")])
def test_integers(number: int, content: str) -> None:
    assert integer(number).hex() == content
    assert read_integer(bytes.fromhex(content)) == number


@pytest.mark.parametrize(
    ("numbers", "content"),
    [({0}, "0780"), ({1}, "0640"), ({2}, "0520"), ({3}, "0410"), ({0, 1, 2, 3}, "04f0"), (set(), "00")],
)
def test_bit_strings(numbers: set[int], content: str) -> None:
    assert bits(numbers).hex() == content
    assert read_bits(bytes.fromhex(content)) == numbers


def test_any_count_of_unused_bits_is_accepted() -> None:
    assert read_bits(bytes.fromhex("0080")) == {0}


@pytest.mark.parametrize(("dotted", "content"), [("2.999.10", "88370a"), ("2.23.146.1.2.1.5", "67811201020105")])
def test_object_identifiers(dotted: str, content: str) -> None:
    assert oid(dotted).hex() == content
    assert read_oid(bytes.fromhex(content)) == dotted


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0x5A, 0x80, 0xA0, 0x5F49, 0xBF36]), st.binary(max_size=300))))
def test_what_is_written_parses_back(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(tlv(tag, value) for tag, value in items)
    nodes = parse(data)
    assert [(node.tag, node.value) for node in nodes] == items
    assert b"".join(node.raw for node in nodes) == data


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_parsing_anything_ends_in_nodes_or_value_error(data: bytes) -> None:
    try:
        nodes = parse(data)
    except ValueError:
        return
    assert b"".join(node.raw for node in nodes) == data
