"""Envelopes: one file encrypted for one key of the factory, read and written in chunks; the head in the clear.

    line 1    the head, JSON: {"format": "ifpp.envelope", "version": "1.0", "content", "key", "ephemeral"?, "wrapped"}
    then      chunks of CHUNK_BYTES plain bytes, the last one shorter or full, each AES-256-GCM with its 16-byte tag

`key` names the key that opens it, such as "transport.1". `wrapped` is the content key under AES key wrap (RFC 3394):
for content "delivery" by a key both sides agree on, ECDH on P-256 of `ephemeral` (65-byte point) and the factory's
transport key, then the ANSI X9.63 KDF with SHA-256 and no shared info; for content "backup" by the backup key itself.
A content key is 32 random bytes and serves one file. Nonce of a chunk: its number from 0 (11 bytes, big-endian), then
01 for the last chunk, 00 for others. Associated data of each chunk: SHA-256 of the head line with its newline. So no
chunk can be altered, moved, left out, added or taken from another file, and a file cut anywhere does not open.
"""

from __future__ import annotations

from typing import Annotated, BinaryIO, Literal

import msgspec

from ifpp.errors import VerificationError

CHUNK_BYTES = 65_536
MAX_HEAD_BYTES = 4096
_BEGINNING = b'{"format":"ifpp.envelope"'
_POINT_BYTES = 65

Content = Literal["delivery", "backup"]


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """The first line of an envelope."""

    format: Literal["ifpp.envelope"] = "ifpp.envelope"
    version: Literal["1.0"] = "1.0"
    content: Content
    key: Annotated[str, msgspec.Meta(pattern=r"^(transport|backup)\.[0-9]{1,6}\Z")]
    ephemeral: Annotated[bytes, msgspec.Meta(min_length=_POINT_BYTES, max_length=_POINT_BYTES)] | None = None
    wrapped: Annotated[bytes, msgspec.Meta(min_length=40, max_length=40)]

    def line(self) -> bytes:
        """Return the head as it stands in the file."""
        return msgspec.json.encode(self) + b"\n"


def is_envelope(stream: BinaryIO) -> bool:
    """Tell whether a file is an envelope; it stands at its start afterwards."""
    stream.seek(0)
    beginning = stream.read(len(_BEGINNING))
    stream.seek(0)
    return beginning == _BEGINNING


def read_head(stream: BinaryIO, content: Content, where: str) -> tuple[Head, bytes]:
    """Return the head and its line; the stream is at the first chunk then. Raises VerificationError ENVELOPE.BROKEN."""
    line = stream.readline(MAX_HEAD_BYTES)
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError("ENVELOPE.BROKEN", f"the head does not hold ({error})", where=where) from None
    purpose = "transport" if content == "delivery" else content
    agreed = head.ephemeral is not None
    if head.content != content or not head.key.startswith(purpose) or agreed != (content == "delivery"):
        raise VerificationError("ENVELOPE.BROKEN", f"is not a {content} for a {purpose} key", where=where)
    return head, line
