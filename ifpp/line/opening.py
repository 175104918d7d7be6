"""An incoming file as it is, or what it holds when it is an envelope for the factory's transport key."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

from ifpp.errors import IntakeError, SettingsError, VerificationError
from ifpp.trust.envelope import Opened
from ifpp.trust.keyring import KeyProvider
from ifpp.wire.envelope import CHUNK_BYTES, is_envelope, read_head

Keys = Callable[[], KeyProvider | None]
"""Gives the factory's keys; they are asked for only when a file wants them."""


def opened(file: io.FileIO, name: str, keys: Keys) -> io.RawIOBase:
    """Return what is to be read; every byte of an envelope was decrypted once before, so that it holds to its end.

    Nothing of it is ever written in the clear. Raises IntakeError ENVELOPE.BROKEN; ENVELOPE.KEY when no key here opens
    it; ServiceError KEYS.UNREACHABLE.
    """
    stream = cast(BinaryIO, file)
    if not is_envelope(stream):
        return file
    try:
        head, line = read_head(stream, "delivery", name)
        stream.seek(len(line))
        provider = keys()
        if provider is None:
            raise IntakeError("ENVELOPE.KEY", f"it is for {head.key}, and there are no keys in [keys]", where=name)
        content_key = provider.unwrap(head.key, head.ephemeral, head.wrapped)
        whole = Opened(stream, content_key, line, chunk_bytes=CHUNK_BYTES, where=name)
        while whole.read(CHUNK_BYTES):
            pass
    except VerificationError as error:
        code = error.code if error.code.startswith("ENVELOPE.") else "ENVELOPE.KEY"
        raise IntakeError(code, error.detail, where=name) from None
    except SettingsError as error:
        if error.code != "KEYS.MISSING":
            raise
        raise IntakeError("ENVELOPE.KEY", f"it is for {head.key}, which is not here", where=name) from None
    whole.seek(0)
    return whole
