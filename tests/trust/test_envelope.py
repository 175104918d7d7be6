"""Envelopes hold to the last bit, or do not open."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.errors import VerificationError
from ifpp.log import Secret
from ifpp.trust.envelope import Opened, new_content_key, seal

HEAD = b'{"head":1}\n'
CHUNK = 16
SEALED = CHUNK + 16
KEY = Secret(bytes(range(32)))


def sealed(content: bytes, key: Secret = KEY) -> bytes:
    target = io.BytesIO()
    seal(io.BytesIO(content), target, key, HEAD, chunk_bytes=CHUNK)
    return target.getvalue()


def opening(envelope: bytes, key: Secret = KEY, head: bytes = HEAD) -> Opened:
    stream = io.BytesIO(envelope)
    stream.seek(len(HEAD))
    return Opened(stream, key, head, chunk_bytes=CHUNK, where="file")


def refused(envelope: bytes, key: Secret = KEY, head: bytes = HEAD) -> str:
    with pytest.raises(VerificationError) as caught:
        opening(envelope, key, head).read()
    return caught.value.code


@given(st.binary(max_size=5 * CHUNK))
def test_what_went_in_comes_out_as_often_as_wanted(content: bytes) -> None:
    envelope = opening(sealed(content))
    assert envelope.read() == content
    assert envelope.read() == b""
    envelope.seek(0)
    assert io.BufferedReader(envelope, 7).read() == content


@given(st.binary(max_size=4 * CHUNK), st.data())
def test_one_bit_anywhere_is_noticed(content: bytes, data: st.DataObject) -> None:
    envelope = bytearray(sealed(content))
    envelope[data.draw(st.integers(len(HEAD), len(envelope) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert refused(bytes(envelope)) == "ENVELOPE.BROKEN"


@pytest.mark.parametrize("length", [0, 1, CHUNK, 3 * CHUNK, 3 * CHUNK + 5])
def test_a_cut_anywhere_is_noticed(length: int) -> None:
    envelope = sealed(bytes(length))
    for end in range(len(HEAD), len(envelope)):
        assert refused(envelope[:end]) == "ENVELOPE.BROKEN"


def test_chunks_do_not_move_and_nothing_may_follow() -> None:
    envelope = sealed(bytes(range(3 * CHUNK)))
    first, second, third = (envelope[len(HEAD) + n * SEALED :][:SEALED] for n in range(3))
    for chunks in (
        second + first + third,
        first + third,
        first + first + third,
        first + second + third + third,
        first + second + third + b"x",
        third,
    ):
        assert refused(HEAD + chunks) == "ENVELOPE.BROKEN"


def test_another_key_or_another_head_does_not_open_it() -> None:
    envelope = sealed(b"content")
    assert refused(envelope, new_content_key()) == "ENVELOPE.BROKEN"
    assert refused(envelope, head=b'{"head":2}\n') == "ENVELOPE.BROKEN"
    assert refused(envelope, Secret(bytes(16))) == "ENVELOPE.KEY"


def test_the_key_is_in_no_text_of_it() -> None:
    with pytest.raises(VerificationError) as caught:
        opening(sealed(b"content")[:-1]).read()
    for text in (repr(opening(sealed(b""))), str(caught.value), repr(caught.value), repr(KEY)):
        assert KEY.reveal().hex() not in text
        assert repr(KEY.reveal()) not in text
