"""Courier bundles: files between two parties that no network joins, as one file that is carried from one to the other.

    line 1   the manifest, JSON: who to whom, its number, the digest of the manifest before it, the files
    line 2   {"key_id", "signature"}: ECDSA P-256, SHA-256, r||s, over BUNDLE_CONTEXT and line 1 with its newline
    then     the bytes of the files in the order of the manifest, nothing between them and nothing behind

Numbers from one sender to one receiver start at 1 and have no gap; each manifest names the SHA-256 of the manifest
line before it (64 zeros before the first). So a bundle that is lost, repeated or made twice shows.

The receipt is one line of the same kind and its signature, over RECEIPT_CONTEXT: which manifest was accepted, when.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, BinaryIO, Literal, TypeVar

import msgspec

from ifpp.errors import IntakeError

BUNDLE_CONTEXT = b"ifpp courier bundle 1\n"
RECEIPT_CONTEXT = b"ifpp courier receipt 1\n"
MAX_FILES = 1000
MAX_LINE_BYTES = 1024 * 1024
BEFORE_FIRST = "0" * 64

Party = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Number = Annotated[int, msgspec.Meta(ge=1, le=999_999)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class BundledFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle; its name has no folder."""

    name: FileName
    bytes: Size
    sha256: Digest


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a bundle holds; `previous` is the digest of the manifest line before it."""

    format: Literal["ifpp.bundle"] = "ifpp.bundle"
    version: Literal["1.0"] = "1.0"
    sender: Party
    receiver: Party
    number: Number
    previous: Digest
    created_at: str
    files: Annotated[list[BundledFile], msgspec.Meta(min_length=1, max_length=MAX_FILES)]

    @property
    def content_bytes(self) -> int:
        """How many bytes follow the two lines."""
        return sum(file.bytes for file in self.files)


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That `receiver` has accepted the bundle whose manifest line has this digest."""

    format: Literal["ifpp.bundle-receipt"] = "ifpp.bundle-receipt"
    version: Literal["1.0"] = "1.0"
    sender: Party
    receiver: Party
    number: Number
    manifest: Digest
    accepted_at: str


class _Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key_id: Digest
    signature: bytes


DocumentT = TypeVar("DocumentT", Manifest, Receipt)


class Signed(msgspec.Struct, frozen=True):
    """A line as it stands in its file, newline included, and who signed it; what it says comes from `open_line`."""

    line: bytes
    key_id: str
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the line, hex."""
        return sha256(self.line).hexdigest()

    def encode(self) -> bytes:
        """Return both lines."""
        return self.line + msgspec.json.encode(_Signature(key_id=self.key_id, signature=self.signature)) + b"\n"


def write_line(document: Manifest | Receipt) -> bytes:
    """Return a document as the line that is signed."""
    line = msgspec.json.encode(document) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise IntakeError("BUNDLE.FORMAT", "too many files for one manifest")
    return line


def read_signed(stream: BinaryIO, name: str) -> Signed:
    """Read the two lines at the start of a file; raises IntakeError BUNDLE.FORMAT. Nothing is believed yet."""
    line = _line(stream, name)
    try:
        signed = msgspec.json.decode(_line(stream, name), type=_Signature)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntakeError("BUNDLE.FORMAT", f"no signature: {error}", where=f"{name}:2") from None
    return Signed(line, signed.key_id, signed.signature)


def open_line(line: bytes, kind: type[DocumentT], name: str) -> DocumentT:
    """Read what a line says; raises IntakeError BUNDLE.FORMAT."""
    try:
        document = msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntakeError("BUNDLE.FORMAT", str(error), where=f"{name}:1") from None
    if isinstance(document, Manifest) and len({file.name for file in document.files}) < len(document.files):
        raise IntakeError("BUNDLE.FORMAT", "two files have the same name", where=f"{name}:1")
    return document


def _line(stream: BinaryIO, name: str) -> bytes:
    line = stream.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES or not line.endswith(b"\n"):
        raise IntakeError("BUNDLE.FORMAT", "not a bundle: it does not begin with two lines", where=name)
    return line
