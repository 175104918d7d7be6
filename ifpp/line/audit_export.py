"""Writing the audit log to a file that can be checked without the factory (format: ifpp.wire.audit)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from ifpp.errors import CustodyError
from ifpp.model.clock import utc_ms_text
from ifpp.store.audit import AuditLog
from ifpp.store.factory import Factory
from ifpp.trust.signer import Signer
from ifpp.wire.audit import (
    FORMAT,
    VERSION,
    Head,
    Header,
    Key,
    Trailer,
    checkpoint_line,
    entry_line,
    header_line,
    trailer_line,
)

Write = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written; `key_id` is the key that signed the end, "" when none did."""

    path: Path
    chains: int
    entries: int
    checkpoints: int
    key_id: str


def export_audit(factory: Factory, path: Path, signer: Signer | None, now: datetime) -> Exported:
    """Write every chain with its checkpoints, as they are at one moment; the end is signed when there is a signer.

    The file appears complete or not at all. Raises CustodyError FILE.WRITE, also when `path` exists; ServiceError
    DATABASE.UNREACHABLE or SIGNER.FAILED.
    """
    if path.exists():
        raise CustodyError("FILE.WRITE", "exists already: evidence is not overwritten", where=str(path))
    if signer is not None:
        factory.add_audit_key(signer.key_id, signer.public, now)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream, factory.audit_log() as log:
            digest, heads = sha256(), {head.chain_id: head for head in log.heads()}

            def write(line: bytes) -> None:
                stream.write(line)
                digest.update(line)

            write(header_line(_header(log, factory.factory_id, list(heads), now)))
            counts = [_write_chain(log, chain_id, factory.factory_id, write) for chain_id in heads]
            trailer = Trailer(
                checkpoints=sum(checkpoints for _, checkpoints in counts),
                end=True,
                entries=sum(entries for entries, _ in counts),
                heads={head.chain_id: Head(hash=head.hash.hex(), number=head.number) for head in heads.values()},
                key_id="" if signer is None else signer.key_id,
                sha256=digest.hexdigest(),
            )
            stream.write(trailer_line(trailer, b"" if signer is None else signer.sign(trailer.message())))
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(path)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(path)) from error
    finally:
        with suppress(OSError):  # a full disk refuses here once more; the first refusal is the one that counts
            part.unlink(missing_ok=True)
    return Exported(path, len(heads), trailer.entries, trailer.checkpoints, trailer.key_id)


def _header(log: AuditLog, factory_id: str, chains: list[str], now: datetime) -> Header:
    return Header(
        chains=chains,
        created_at=utc_ms_text(now),
        factory_id=factory_id,
        format=FORMAT,
        keys=[Key(key_id=key_id, public=public) for key_id, public in sorted(log.keys().items())],
        version=VERSION,
    )


def _write_chain(log: AuditLog, chain_id: str, factory_id: str, write: Write) -> tuple[int, int]:
    """Write one chain, each checkpoint after its entry; return how many entries and checkpoints."""
    entries = checkpoints = 0
    for page in log.pages(chain_id):
        signed = {one.number: one for one in log.checkpoints(chain_id, page[0].number - 1, page[-1].number)}
        for entry in page:
            write(entry_line(entry.canonical(), entry.hash))
            if entry.number in signed:
                one = signed[entry.number]
                write(checkpoint_line(one.statement(factory_id), one.signature))
        entries += len(page)
        checkpoints += len(signed)
    return entries, checkpoints
