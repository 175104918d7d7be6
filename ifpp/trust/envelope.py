"""Sealing and opening of envelopes: AES-256-GCM, one chunk in memory; `ifpp.wire.envelope` has the format."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ifpp.errors import VerificationError
from ifpp.log import Secret

_TAG_BYTES = 16
_KEY_BYTES = 32


def new_content_key() -> Secret:
    """Make the key of one envelope."""
    return Secret(secrets.token_bytes(_KEY_BYTES))


def seal(source: BinaryIO, target: BinaryIO, key: Secret, head: bytes, *, chunk_bytes: int) -> None:
    """Write the head line and what `source` holds, encrypted."""
    cipher, bound = AESGCM(key.reveal()), sha256(head).digest()
    target.write(head)
    for number, (chunk, last) in enumerate(_chunks(source, chunk_bytes)):
        target.write(cipher.encrypt(_nonce(number, last=last), chunk, bound))


class Opened(io.RawIOBase):
    """What an envelope holds, as a file that is read from its start; `seek(0)` begins again.

    `stream` stands at the first chunk. Every reading raises VerificationError ENVELOPE.BROKEN where the content does
    not hold, ENVELOPE.KEY where the content key is none; read it to the end before anything is believed.
    """

    def __init__(self, stream: BinaryIO, key: Secret, head: bytes, *, chunk_bytes: int, where: str) -> None:
        super().__init__()
        if len(key.reveal()) != _KEY_BYTES:
            raise VerificationError("ENVELOPE.KEY", "the content key has another length", where=where)
        self._stream, self._start = stream, stream.tell()
        self._cipher, self._bound = AESGCM(key.reveal()), sha256(head).digest()
        self._chunk_bytes, self._where = chunk_bytes, where
        self._rest = memoryview(b"")
        self._chunks = self._decrypted()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go back to the start; nowhere else."""
        if (offset, whence) != (0, io.SEEK_SET):
            raise io.UnsupportedOperation("an envelope is read from its start")
        self._stream.seek(self._start)
        self._rest, self._chunks = memoryview(b""), self._decrypted()
        return 0

    def tell(self) -> int:
        """How many bytes of the envelope itself have been read."""
        return self._stream.tell()

    def _decrypted(self) -> Iterator[bytes]:
        for number, (chunk, last) in enumerate(_chunks(self._stream, self._chunk_bytes + _TAG_BYTES)):
            try:
                plain = self._cipher.decrypt(_nonce(number, last=last), chunk, self._bound)
            except (InvalidTag, ValueError):
                detail = f"chunk {number} was altered, moved or cut, or the file ends early"
                raise VerificationError("ENVELOPE.BROKEN", detail, where=self._where) from None
            if plain or not last:
                yield plain


def _chunks(source: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Yield chunks of `size` bytes, the last one shorter or full, and whether it is the last; an empty file has one."""
    chunk = _full(source, size)
    while True:
        following = _full(source, size)
        yield chunk, not following
        if not following:
            return
        chunk = following


def _full(source: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end: pipes give what they have."""
    parts, missing = [], size
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
