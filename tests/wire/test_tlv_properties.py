"""TLV properties over generated trees and over noise."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ifpp.errors import WireError
from ifpp.wire.tlv import Tlv, read, read_many, write
from tests.wire.build import der


@dataclass(frozen=True)
class Node:
    """A data object to be: content or members, and how many length octets it is written with (0 = minimal)."""

    tag: int
    content: bytes
    members: tuple[Node, ...]
    length_octets: int

    def encode(self) -> bytes:
        inside = self.content + b"".join(member.encode() for member in self.members)
        octets = self.length_octets if not self.length_octets or len(inside) < 256**self.length_octets else 0
        return der(self.tag, inside, length_octets=octets)

    def plain(self) -> Node:
        return Node(self.tag, self.content, tuple(member.plain() for member in self.members), 0)

    def written(self) -> bytes:
        return write(self.tag, self.content, *(member.written() for member in self.members))


short_tags = st.integers(1, 0xFF).filter(lambda tag: tag & 0x1F != 0x1F)
long_tags = st.builds(
    lambda first, second: (first | 0x1F) << 8 | second, st.sampled_from(range(0x1F, 0x100, 0x20)), st.integers(0, 0x7F)
)
tags = short_tags | long_tags | st.builds(lambda tag, last: (tag | 0x80) << 8 | last, long_tags, st.integers(0, 0x7F))
leaves = st.builds(Node, tags, st.binary(max_size=300), st.just(()), st.integers(0, 4))
nodes = st.recursive(
    leaves,
    lambda inner: st.builds(
        Node, tags, st.just(b""), st.lists(inner, min_size=1, max_size=4).map(tuple), st.integers(0, 4)
    ),
    max_leaves=12,
)


def same(tlv: Tlv, node: Node) -> bool:
    if tlv.tag != node.tag or tlv.raw != node.encode():
        return False
    if not node.members:
        return tlv.value == node.content
    members = tlv.children()
    return (
        b"".join(member.raw for member in members) == tlv.value
        and len(members) == len(node.members)
        and all(same(member, inner) for member, inner in zip(members, node.members, strict=True))
    )


@given(nodes)
def test_a_written_tree_is_read_back_with_every_raw_slice(node: Node) -> None:
    assert same(read(node.encode(), what="tree"), node)


@given(nodes)
def test_the_writer_agrees_with_another_encoder(node: Node) -> None:
    assert node.written() == node.plain().encode()


@given(st.lists(nodes, max_size=5))
def test_slices_of_a_row_concatenate_to_the_input(row: list[Node]) -> None:
    data = b"".join(node.encode() for node in row)
    objects = read_many(data, what="row")
    assert b"".join(tlv.raw for tlv in objects) == data
    assert [tlv.offset for tlv in objects] == [sum(len(n.encode()) for n in row[:i]) for i in range(len(row))]


@given(nodes)
def test_offsets_point_at_the_slices(node: Node) -> None:
    data = node.encode()
    waiting = [(read(data, what="tree"), node)]
    while waiting:
        tlv, source = waiting.pop()
        assert data[tlv.offset : tlv.offset + len(tlv.raw)] == tlv.raw
        if source.members:
            waiting += list(zip(tlv.children(), source.members, strict=True))


def walk(tlv: Tlv, depth: int = 0) -> None:
    for use in (tlv.integer, tlv.boolean, tlv.bits, tlv.oid, lambda: tlv.text(64)):
        with suppress(WireError):
            use()
    with suppress(WireError):
        for member in tlv.children():
            walk(member, depth + 1)


@given(st.binary(max_size=400))
def test_noise_raises_wire_error_or_nothing(noise: bytes) -> None:
    with suppress(WireError):
        for tlv in read_many(noise, what="noise"):
            walk(tlv)


@given(nodes, st.data())
def test_a_cut_or_bent_tree_raises_wire_error_or_nothing(node: Node, data: st.DataObject) -> None:
    raw = bytearray(node.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    for bent in (bytes(raw), bytes(raw[:at])):
        with suppress(WireError):
            for tlv in read_many(bent, what="bent"):
                walk(tlv)
