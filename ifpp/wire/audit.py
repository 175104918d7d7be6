"""The audit log as bytes: entries of a hash chain, signed checkpoints, and the file they are exported to.

Canonical bytes are JSON with sorted keys and nothing between the tokens, UTF-8, integers only (RFC 8785 for such
values). An entry is {"at", "chain", "facts", "kind", "number"}; numbers of a chain start at 1 and have no gap. Its
hash is SHA-256(hash of the entry before || canonical bytes of the entry); before the first stand 32 zero bytes.

A checkpoint {"at", "chain", "factory_id", "hash", "key_id", "number"} says: this chain ended with this hash at this
number. It is signed (ECDSA P-256, SHA-256, r||s) over CHECKPOINT_CONTEXT followed by its canonical bytes. A clean to
ship entry has a checkpoint of its own: the signature under the entry.

The file is JSON Lines, every line canonical: a header; for each chain its entries in order, a checkpoint right after
the entry it names; a trailer that counts, hashes all bytes before it, and is signed over TRAILER_CONTEXT and its
canonical bytes.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Annotated, Any

import msgspec

FORMAT, VERSION = "ifpp.audit", "1.0"
GENESIS = bytes(32)
MAX_LINE_BYTES = 1024 * 1024
CHECKPOINT_CONTEXT = b"ifpp audit checkpoint 1\n"
TRAILER_CONTEXT = b"ifpp audit export 1\n"

Number = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
ChainId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.-]{1,64}\Z")]


def _plain(value: object) -> str:
    """Write an Eid or Iccid as the text it is."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} in an audit entry")


_sorted = msgspec.json.Encoder(order="sorted", enc_hook=_plain)


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One custody event in its chain."""

    at: str
    chain: ChainId
    facts: dict[str, Any]
    kind: str
    number: Number


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a signature says: the chain ended with `hash` at `number`."""

    at: str
    chain: ChainId
    factory_id: str
    hash: Digest
    key_id: Digest
    number: Number

    def message(self) -> bytes:
        """Return the bytes the signature covers."""
        return CHECKPOINT_CONTEXT + canonical(self)


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that signed; `public` is its SubjectPublicKeyInfo (DER), `key_id` the SHA-256 of that."""

    key_id: Digest
    public: bytes


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """First line: whose log this is, which chains follow and which keys signed them."""

    chains: list[ChainId]
    created_at: str
    factory_id: str
    format: str
    keys: list[Key]
    version: str


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a chain ended."""

    hash: Digest
    number: Number


class Trailer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Last line: what stands before it. `key_id` is "" when the exporting site has no signing key."""

    checkpoints: Count
    end: bool
    entries: Count
    heads: dict[ChainId, Head]
    key_id: str
    sha256: Digest

    def message(self) -> bytes:
        """Return the bytes the signature covers."""
        return TRAILER_CONTEXT + canonical(self)


class EntryLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: Entry
    hash: Digest


class CheckpointLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checkpoint: Checkpoint
    signature: bytes


class TrailerLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    signature: bytes
    trailer: Trailer


Line = Header | EntryLine | CheckpointLine | TrailerLine
# The first member in sorted order tells what a line is.
_DECODERS: tuple[tuple[bytes, msgspec.json.Decoder[Line]], ...] = tuple(
    (b'{"%b":' % first, msgspec.json.Decoder(kind))
    for first, kind in (
        (b"chains", Header),
        (b"checkpoint", CheckpointLine),
        (b"entry", EntryLine),
        (b"signature", TrailerLine),
    )
)


class _Body(msgspec.Struct, kw_only=True):
    """An entry whose facts are canonical already; members in sorted order."""

    at: str
    chain: str
    facts: msgspec.Raw
    kind: str
    number: int


def canonical(document: object) -> bytes:
    """Return the canonical bytes of a document; raises ValueError for text that is not Unicode."""
    return _sorted.encode(document)


def entry_bytes(chain: str, number: int, at: str, kind: str, facts: bytes) -> bytes:
    """Return the canonical bytes of an entry whose facts are canonical bytes already."""
    return msgspec.json.encode(_Body(at=at, chain=chain, facts=msgspec.Raw(facts), kind=kind, number=number))


def link(previous: bytes, entry: bytes) -> bytes:
    """Return the hash of an entry that follows the one with the hash `previous`."""
    return sha256(previous + entry).digest()


def entry_line(entry: bytes, digest: bytes) -> bytes:
    """Return the file line of an entry."""
    return b'{"entry":%b,"hash":"%b"}\n' % (entry, digest.hex().encode())


def checkpoint_line(checkpoint: Checkpoint, signature: bytes) -> bytes:
    """Return the file line of a checkpoint."""
    return b'{"checkpoint":%b,"signature":"%b"}\n' % (canonical(checkpoint), b64encode(signature))


def header_line(header: Header) -> bytes:
    """Return the first line of a file."""
    return canonical(header) + b"\n"


def trailer_line(trailer: Trailer, signature: bytes) -> bytes:
    """Return the last line of a file; an unsigned one has an empty signature."""
    return b'{"signature":"%b","trailer":%b}\n' % (b64encode(signature), canonical(trailer))


def read_line(line: bytes) -> Line:
    """Read one line without its end; raises ValueError saying why it is none of ours, or not canonical."""
    decoder = next((decoder for start, decoder in _DECODERS if line.startswith(start)), None)
    if decoder is None:
        raise ValueError("neither header, entry, checkpoint nor trailer")
    try:
        found = decoder.decode(line)
        if canonical(found) != line:
            raise ValueError("not in canonical form")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return found
