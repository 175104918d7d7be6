"""The audit log's bytes: canonical, linked, and read back only in the one form they are written in."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.model.ids import Eid, eid_check_digits
from ifpp.wire.audit import (
    FORMAT,
    GENESIS,
    VERSION,
    Checkpoint,
    CheckpointLine,
    EntryLine,
    Head,
    Header,
    Key,
    Trailer,
    TrailerLine,
    canonical,
    checkpoint_line,
    entry_bytes,
    entry_line,
    header_line,
    link,
    read_line,
    trailer_line,
)

FIRST30 = "890499990000000000000000000001"
FACTS = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.one_of(st.text(max_size=20), st.integers(-(2**53) + 1, 2**53 - 1), st.booleans(), st.lists(st.text(max_size=5))),
    max_size=6,
)


@given(FACTS)
def test_canonical_bytes_are_those_of_any_json_library_with_sorted_keys(facts: dict[str, object]) -> None:
    """An auditor needs no code of ours (RFC 8785 sorts by UTF-16, our own names are ASCII)."""
    expected = json.dumps(facts, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert json.loads(canonical(facts)) == facts
    assert canonical(facts).decode().replace("\x7f", "") == expected.replace("\x7f", "")


@given(FACTS, st.integers(1, 2**53 - 1))
def test_an_entry_is_assembled_as_it_is_encoded(facts: dict[str, object], number: int) -> None:
    whole = {"at": "now", "chain": "store", "facts": facts, "kind": "sent", "number": number}
    body = entry_bytes("store", number, "now", "sent", canonical(facts))
    assert body == canonical(whole)
    found = read_line(entry_line(body, link(GENESIS, body))[:-1])
    assert isinstance(found, EntryLine)
    assert canonical(found.entry) == body
    assert found.hash == sha256(bytes(32) + body).hexdigest()


def test_identifiers_are_written_as_their_text() -> None:
    eid = Eid(FIRST30 + eid_check_digits(FIRST30))
    assert canonical({"eid": eid}) == b'{"eid":"%b"}' % eid.encode()
    with pytest.raises(TypeError):
        canonical({"what": object()})


CHECKPOINT = Checkpoint(at="now", chain="store", factory_id="f", hash="0" * 64, key_id="1" * 64, number=3)
TRAILER = Trailer(
    checkpoints=1, end=True, entries=3, heads={"store": Head(hash="0" * 64, number=3)}, key_id="", sha256="2" * 64
)
HEADER = Header(
    chains=["store"],
    created_at="now",
    factory_id="f",
    format=FORMAT,
    keys=[Key(key_id="1" * 64, public=b"public")],
    version=VERSION,
)
LINES = [
    header_line(HEADER),
    entry_line(entry_bytes("store", 1, "now", "sent", b'{"a":1}'), bytes(32)),
    checkpoint_line(CHECKPOINT, b"s" * 64),
    trailer_line(TRAILER, b"s" * 64),
]


def test_every_line_is_read_back() -> None:
    header, entry, checkpoint, trailer = (read_line(line[:-1]) for line in LINES)
    assert header == HEADER
    assert isinstance(entry, EntryLine)
    assert entry.entry.facts == {"a": 1}
    assert checkpoint == CheckpointLine(checkpoint=CHECKPOINT, signature=b"s" * 64)
    assert trailer == TrailerLine(trailer=TRAILER, signature=b"s" * 64)


def test_what_is_signed_says_what_it_is_for() -> None:
    assert CHECKPOINT.message().startswith(b"ifpp audit checkpoint 1\n{")
    assert TRAILER.message().startswith(b"ifpp audit export 1\n{")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b":", b": ", 1),
        lambda line: line.replace(b'"', b'"\\u0041', 1),
        lambda line: b" " + line,
        lambda line: line[:-1] + b',"z":1}',
        lambda line: line[:-2],
        lambda line: line.replace(b"1", b"1.0"),
        lambda line: line + line,
        lambda line: b"[" * 100_000,
        lambda line: b"\xff" + line,
    ],
)
def test_there_is_one_form_only(line: bytes, spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(ValueError, match=r"."):
        read_line(spoil(line[:-1]))


def test_the_idle_bits_of_base64_count() -> None:
    """Two texts for the same bytes would be a change nobody sees."""
    line = LINES[3][:-1]
    assert line.count(b"cw==") == 1
    with pytest.raises(ValueError, match="canonical"):
        read_line(line.replace(b"cw==", b"cx=="))
