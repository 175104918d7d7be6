"""The head of an envelope: what is taken for one, and what is refused."""

from __future__ import annotations

from io import BytesIO

import pytest

from ifpp.errors import VerificationError
from ifpp.wire.envelope import MAX_HEAD_BYTES, Head, is_envelope, read_head

WRAPPED = bytes(40)
POINT = b"\x04" + bytes(64)
DELIVERY = Head(content="delivery", key="transport.3", ephemeral=POINT, wrapped=WRAPPED)
BACKUP = Head(content="backup", key="backup.1", wrapped=WRAPPED)


@pytest.mark.parametrize("head", [DELIVERY, BACKUP])
def test_a_head_is_read_as_it_was_written(head: Head) -> None:
    stream = BytesIO(head.line() + b"chunks")
    assert is_envelope(stream)
    assert read_head(stream, head.content, "x") == (head, head.line())
    assert stream.read() == b"chunks"


@pytest.mark.parametrize("content", [b"", b"{", b'{"format":"ifpp.esed"}\n', b"SQLite format 3\0"])
def test_other_files_are_none(content: bytes) -> None:
    assert not is_envelope(BytesIO(content))


@pytest.mark.parametrize(
    "line",
    [
        BACKUP.line(),  # another content
        Head(content="delivery", key="backup.1", ephemeral=POINT, wrapped=WRAPPED).line(),
        Head(content="delivery", key="transport.1", wrapped=WRAPPED).line(),
        DELIVERY.line().replace(b"transport.3", b"transport.../x"),
        DELIVERY.line().replace(b'"1.0"', b'"2.0"'),
        DELIVERY.line().replace(b"}", b',"more":1}'),
        DELIVERY.line()[:-30],
        b'{"format":"ifpp.envelope"' + b" " * 2 * MAX_HEAD_BYTES,
        b'{"format":"ifpp.envelope","key":"\xff"}\n',
    ],
)
def test_a_head_that_does_not_hold_is_refused(line: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        read_head(BytesIO(line), "delivery", "x")
    assert caught.value.code == "ENVELOPE.BROKEN"
