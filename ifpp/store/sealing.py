"""Backups as envelopes for the backup key, when there is one, and plain files when there is none."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.trust.envelope import Opened, new_content_key, seal
from ifpp.trust.keyring import KeyProvider
from ifpp.wire.envelope import CHUNK_BYTES, Head, is_envelope, read_head

Keys = Callable[[], KeyProvider | None]
"""Gives the factory's keys; they are asked for only when a file wants them."""


def no_keys() -> None:
    """There are no keys here."""


def write(source: BinaryIO, target: Path, keys: KeyProvider | None) -> None:
    """Write a backup, sealed when there are keys; raises ServiceError KEYS.UNREACHABLE, SettingsError KEYS.MISSING."""
    with target.open("wb") as out:
        if keys is None:
            shutil.copyfileobj(source, out)
            return
        content_key = new_content_key()
        name, wrapped = keys.wrap(content_key)
        head = Head(content="backup", key=name, wrapped=wrapped).line()
        seal(source, out, content_key, head, chunk_bytes=CHUNK_BYTES)


@contextmanager
def opened(path: Path, keys: Keys, name: str = "") -> Iterator[BinaryIO]:
    """Give what a backup holds; a sealed one was decrypted to its end once before. `name` is told in errors.

    Raises CustodyError ENVELOPE.BROKEN for a changed file, ENVELOPE.KEY when no key here opens it.
    """
    where = name or str(path)
    with path.open("rb") as stream:
        if not is_envelope(stream):
            yield stream
            return
        try:
            whole = _envelope(stream, keys(), where)
            while whole.read(CHUNK_BYTES):
                pass
        except VerificationError as error:
            code = error.code if error.code.startswith("ENVELOPE.") else "ENVELOPE.KEY"
            raise CustodyError(code, error.detail, where=where) from None
        whole.seek(0)
        yield cast(BinaryIO, io.BufferedReader(whole, CHUNK_BYTES))


def _envelope(stream: BinaryIO, keys: KeyProvider | None, where: str) -> Opened:
    head, line = read_head(stream, "backup", where)
    if keys is None:
        raise VerificationError("ENVELOPE.KEY", f"it is for {head.key}, and there are no keys in [keys]", where=where)
    stream.seek(len(line))
    try:
        content_key = keys.unwrap_backup(head.key, head.wrapped)
    except SettingsError as error:
        if error.code != "KEYS.MISSING":
            raise
        raise VerificationError("ENVELOPE.KEY", f"it is for {head.key}, which is not here", where=where) from None
    return Opened(stream, content_key, line, chunk_bytes=CHUNK_BYTES, where=where)
