"""Courier bundles between parties that no network joins: made, accepted, receipted; the format is `ifpp.wire.bundle`.

The courier's folder is the memory of both directions. Every step becomes a fact by one link of a finished file:

    sent/<receiver>/000001.bundle      made; kept until its receipt is checked
    sent/<receiver>/000001.manifest    the manifest of it, kept for ever
    sent/<receiver>/000001.receipt     its receipt, checked
    received/<sender>/000001/          the files of a bundle, to be imported
    received/<sender>/000001.receipt   it was accepted; this goes back to the sender
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from ifpp.errors import CustodyError, IntakeError, SettingsError, VerificationError
from ifpp.model.clock import utc_ms_text
from ifpp.trust.signer import Signer, VerificationKey
from ifpp.wire.bundle import (
    BEFORE_FIRST,
    BUNDLE_CONTEXT,
    RECEIPT_CONTEXT,
    BundledFile,
    Manifest,
    Receipt,
    Signed,
    open_line,
    read_signed,
    write_line,
)

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that may be carried away."""

    path: Path
    number: int
    files: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A bundle that is here: its files in order, and the receipt that goes back."""

    sender: str
    number: int
    files: tuple[Path, ...]
    receipt: Path


@dataclass(frozen=True, slots=True)
class Receipted:
    """A receipt that holds; `outstanding` are the numbers of bundles to that receiver that have none yet."""

    receiver: str
    number: int
    accepted_at: str
    outstanding: tuple[int, ...]


class Courier:
    """One party: its name, its key, the public keys of the others, and its folder. A bundle has at most `max_bytes`."""

    def __init__(
        self, name: str, signer: Signer, peers: Mapping[str, VerificationKey], folder: Path, max_bytes: int
    ) -> None:
        self._name = name
        self._signer = signer
        self._peers = peers
        self._folder = folder
        self._max_bytes = max_bytes

    def make(self, receiver: str, files: Sequence[Path], now: datetime) -> Made:
        """Bundle files for a receiver under the next number.

        Raises SettingsError for a receiver without a key or a file that cannot be read, IntakeError BUNDLE.FORMAT for
        names that cannot travel, BUNDLE.SIZE; CustodyError FILE.WRITE.
        """
        self._key_of(receiver)
        with _alone(self._folder / "sent" / receiver) as folder:
            last = _last(folder, "bundle", "manifest")
            self._remember(folder, last)
            previous = _digest_of(folder / f"{last:06d}.manifest") if last else BEFORE_FIRST
            manifest = Manifest(
                sender=self._name,
                receiver=receiver,
                number=last + 1,
                previous=previous,
                created_at=utc_ms_text(now),
                files=[_described(path) for path in files],
            )
            self._check_size(manifest, "bundle")
            signed = self._signed(_line_of(manifest), BUNDLE_CONTEXT)
            bundle = folder / f"{manifest.number:06d}.bundle"
            with _new_file(bundle) as out:
                out.write(signed.encode())
                for described, path in zip(manifest.files, files, strict=True):
                    with _opened(path) as source:
                        _copy(source, out, described, "INTAKE.DIGEST")
            self._remember(folder, manifest.number)
        return Made(bundle, manifest.number, len(files))

    def accept(self, path: Path, now: datetime) -> Accepted:
        """Check a bundle and unpack it; nothing of a refused one stays. Nothing is imported.

        1. It begins with a manifest that a sender known here has signed, to this party.
        2. It is not larger than allowed, and exactly as long as the manifest says.
        3. It follows the last one of this sender: BUNDLE.GAP, BUNDLE.REPLAYED, BUNDLE.FORKED otherwise.
        4. Every file has its digest.
        5. The receipt is written: the bundle is accepted.

        Raises IntakeError BUNDLE.*; SettingsError when the file cannot be opened; CustodyError FILE.WRITE.
        """
        with _opened(path) as stream:
            signed = read_signed(stream, path.name)
            manifest = self._believed(signed, path.name)  # 1
            self._check_size(manifest, path.name)
            expected, found = stream.tell() + manifest.content_bytes, os.fstat(stream.fileno()).st_size
            if found != expected:  # 2
                raise IntakeError("BUNDLE.SIZE", f"it has {found} bytes instead of {expected}", where=path.name)
            with _alone(self._folder / "received" / manifest.sender) as folder:
                self._check_order(folder, manifest, signed, path.name)  # 3
                return self._unpack(folder, stream, manifest, signed, now)

    def check_receipt(self, path: Path) -> Receipted:
        """Check a receipt for a bundle of ours and keep it; the bundle itself need not be kept any longer.

        Raises IntakeError BUNDLE.SIGNATURE, BUNDLE.PARTY, BUNDLE.UNKNOWN, BUNDLE.FORKED, BUNDLE.FORMAT.
        """
        with _opened(path) as stream:
            signed = read_signed(stream, path.name)
            if stream.read(1):
                raise IntakeError("BUNDLE.FORMAT", "something follows the receipt", where=path.name)
        receipt = open_line(signed.line, Receipt, path.name)
        self._verify(signed, RECEIPT_CONTEXT, receipt.receiver, path.name)
        if receipt.sender != self._name:
            raise IntakeError("BUNDLE.PARTY", f"it is for {receipt.sender}", where=path.name)
        with _alone(self._folder / "sent" / receipt.receiver) as folder:
            made = folder / f"{receipt.number:06d}.manifest"
            if not made.exists():
                raise IntakeError("BUNDLE.UNKNOWN", f"bundle {receipt.number} was never made here", where=path.name)
            if receipt.manifest != _digest_of(made):
                raise IntakeError("BUNDLE.FORKED", "it is for another bundle of this number", where=path.name)
            with _new_file(made.with_suffix(".receipt")) as out:
                out.write(signed.encode())
            made.with_suffix(".bundle").unlink(missing_ok=True)
            open_ones = _numbers(folder, "manifest") - _numbers(folder, "receipt")
        return Receipted(receipt.receiver, receipt.number, receipt.accepted_at, tuple(sorted(open_ones)))

    # ---- inside -----------------------------------------------------------------------------------

    def _remember(self, folder: Path, number: int) -> None:
        """Keep the manifest of a bundle that is made, also of one whose maker died over that."""
        bundle, place = folder / f"{number:06d}.bundle", folder / f"{number:06d}.manifest"
        if number and not place.exists():
            with _opened(bundle) as stream:
                signed = read_signed(stream, bundle.name)
            with _new_file(place) as out:
                out.write(signed.encode())

    def _believed(self, signed: Signed, name: str) -> Manifest:
        manifest = open_line(signed.line, Manifest, name)
        self._verify(signed, BUNDLE_CONTEXT, manifest.sender, name)
        if manifest.receiver != self._name:
            raise IntakeError("BUNDLE.PARTY", f"it is for {manifest.receiver}, this is {self._name}", where=name)
        return manifest

    def _verify(self, signed: Signed, context: bytes, signer: str, name: str) -> None:
        key = self._peers.get(signer)
        if key is None:
            raise IntakeError("BUNDLE.PARTY", f"no key of {signer} is known here", where=name)
        try:
            key.verify(signed.signature, context + signed.line, what=f"signature of {signer}")
        except VerificationError as error:
            raise IntakeError("BUNDLE.SIGNATURE", f"{error.where}: {error.detail}", where=name) from error

    def _check_size(self, manifest: Manifest, name: str) -> None:
        if manifest.content_bytes > self._max_bytes:
            detail = f"its files have {manifest.content_bytes} bytes, allowed are {self._max_bytes}"
            raise IntakeError("BUNDLE.SIZE", detail, where=name)

    def _check_order(self, folder: Path, manifest: Manifest, signed: Signed, name: str) -> None:
        last = _last(folder, "receipt")
        number = manifest.number
        if number <= last:
            taken = self._accepted(folder / f"{number:06d}.receipt").manifest
            if taken == signed.digest:
                receipt = folder / f"{number:06d}.receipt"
                raise IntakeError("BUNDLE.REPLAYED", f"it was accepted before, see {receipt}", where=name)
            raise IntakeError("BUNDLE.FORKED", f"another bundle {number} was accepted before", where=name)
        if number > last + 1:
            raise IntakeError("BUNDLE.GAP", f"it is number {number}, accepted so far are {last}", where=name)
        before = self._accepted(folder / f"{last:06d}.receipt").manifest if last else BEFORE_FIRST
        if manifest.previous != before:
            raise IntakeError("BUNDLE.FORKED", f"it does not follow the bundle {last} accepted here", where=name)

    def _accepted(self, path: Path) -> Receipt:
        """Read a receipt of ours; one that we did not sign is no memory to go by."""
        with _opened(path) as stream:
            signed = read_signed(stream, path.name)
        own = VerificationKey.from_der(self._signer.public)
        try:
            own.verify(signed.signature, RECEIPT_CONTEXT + signed.line, what="receipt")
        except VerificationError as error:
            raise IntakeError("BUNDLE.SIGNATURE", f"our own receipt: {error.detail}", where=str(path)) from error
        return open_line(signed.line, Receipt, path.name)

    def _unpack(self, folder: Path, stream: BinaryIO, manifest: Manifest, signed: Signed, now: datetime) -> Accepted:
        place = folder / f"{manifest.number:06d}"
        part = place.with_suffix(".part")
        with _disk(place):
            for remains in (part, place):  # of an acceptance that died: it has no receipt
                shutil.rmtree(remains, ignore_errors=True)
            part.mkdir()
        try:
            for described in manifest.files:  # 4
                with _new_file(part / described.name) as out:
                    _copy(stream, out, described, "BUNDLE.DIGEST")
            with _disk(place):
                part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        receipt = Receipt(
            sender=manifest.sender,
            receiver=self._name,
            number=manifest.number,
            manifest=signed.digest,
            accepted_at=utc_ms_text(now),
        )
        paper = place.with_suffix(".receipt")
        with _new_file(paper) as out:  # 5
            out.write(self._signed(write_line(receipt), RECEIPT_CONTEXT).encode())
        files = tuple(place / described.name for described in manifest.files)
        return Accepted(manifest.sender, manifest.number, files, paper)

    def _signed(self, line: bytes, context: bytes) -> Signed:
        return Signed(line, self._signer.key_id, self._signer.sign(context + line))

    def _key_of(self, party: str) -> VerificationKey:
        if party not in self._peers:
            raise SettingsError("SETTINGS.MISSING", "no key of this party is known", where=f"courier.peers.{party}")
        return self._peers[party]


def _line_of(manifest: Manifest) -> bytes:
    """Return the line of a manifest that can be read again: names and number are allowed ones."""
    line = write_line(manifest)
    open_line(line, Manifest, "manifest")
    return line


def _described(path: Path) -> BundledFile:
    with _opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        return BundledFile(name=path.name, bytes=size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def _copy(source: BinaryIO, out: BinaryIO, described: BundledFile, code: str) -> None:
    """Copy exactly the described bytes; raises IntakeError with `code` when they are others."""
    digest, left = hashlib.sha256(), described.bytes
    while left and (block := source.read(min(left, _BLOCK))):
        digest.update(block)
        out.write(block)
        left -= len(block)
    if left or digest.hexdigest() != described.sha256:
        raise IntakeError(code, "its content is not what the manifest says", where=described.name)


def _numbers(folder: Path, suffix: str) -> set[int]:
    return {int(path.stem) for path in folder.glob(f"[0-9][0-9][0-9][0-9][0-9][0-9].{suffix}")}


def _last(folder: Path, *suffixes: str) -> int:
    return max((number for suffix in suffixes for number in _numbers(folder, suffix)), default=0)


def _digest_of(path: Path) -> str:
    with _opened(path) as stream:
        return read_signed(stream, path.name).digest


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """One process at a time works in a folder, which is made."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be opened ({error.strerror})", where=str(path)) from error
    with stream:
        yield stream


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name when it is whole and on the disk; nothing of it stays when the block raises."""
    part = path.with_name(path.name + ".part")
    try:
        with _disk(path), part.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        with _disk(path):
            part.rename(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(path)) from error
