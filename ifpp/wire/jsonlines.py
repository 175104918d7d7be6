"""JSON Lines with a sealed end: framing, digest and bounds of the files that ifpp.wire.documents names.

First line a header with `format` and `version`, then one item a line, last a trailer
{"end":true,"items":N,"sha256":"..."} whose digest covers every byte before that line. Readers keep one line of at
most MAX_LINE_BYTES in memory and raise IntakeError only; writers work beside the final name and rename after fsync.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Self, TypeVar

import msgspec

from ifpp.errors import CustodyError, IntakeError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.ids import Eid, Iccid

MAX_LINE_BYTES = 4 * 1024 * 1024
_MAX_TRAILER_BYTES = 512
_VERSION = "1.0"
_READ_VERSIONS = re.compile(r"1\.[0-9]{1,4}")
_HEX = re.compile(r"(?:[0-9a-f]{2})+")


class Hex(bytes):
    """A short binary id: lower-case hex in a file, bytes in memory."""

    __slots__ = ()


class Stamp(str):
    """A time in UTC as RFC 3339 of fixed width (2026-03-01T08:15:30.123Z), so that stamps sort like times."""

    __slots__ = ()

    def __new__(cls, text: str) -> Stamp:
        try:
            return super().__new__(cls, utc_ms_text(parse_utc(text)))
        except OverflowError:
            raise ValueError(f"{text[:40]!r} is outside the calendar") from None


class Header(msgspec.Struct, kw_only=True, tag_field="format"):
    """First line of every file: its `format`, its `version`, and what is common to the items."""

    version: str = _VERSION


class _Kind(msgspec.Struct):
    format: str
    version: str


class _Probe(msgspec.Struct):
    end: bool = False


class _Trailer(msgspec.Struct, kw_only=True):
    end: bool
    items: int
    sha256: Hex


class _BadIdError(ValueError):
    """An EID or ICCID that does not hold: another fault than a wrong format."""


def _decode_text(kind: type, value: object) -> object:
    """msgspec's hook for our own types; ValueError and TypeError come back as its ValidationError."""
    if not isinstance(value, str):
        raise TypeError(f"expected a string for {kind.__name__}")
    if kind in {Eid, Iccid}:
        try:
            return kind(value)
        except ValueError as error:
            raise _BadIdError(str(error)) from None
    if kind is not Hex:
        return kind(value)  # Stamp
    if not _HEX.fullmatch(value):
        raise ValueError("expected lower-case hex")
    return Hex.fromhex(value)


def _encode_text(value: object) -> str:
    return value.hex() if isinstance(value, Hex) else str(value)


_encoder = msgspec.json.Encoder(enc_hook=_encode_text)

T = TypeVar("T")
H = TypeVar("H", bound=Header)
ItemT = TypeVar("ItemT", bound=msgspec.Struct)


class Items(Generic[ItemT]):
    """The items of one file in order. What it gave counts only once it has ended without error."""

    def __init__(self, lines: _Lines, kind: type[ItemT]) -> None:
        self._lines = lines
        self._decoder = _decoder(kind)
        self._count = 0
        self._ended = False

    @property
    def where(self) -> str:
        """File and line of the item given last."""
        return self._lines.where

    @property
    def digest(self) -> bytes:
        """SHA-256 of everything read so far: of the whole file, once it has ended."""
        return self._lines.digest

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        if self._ended:
            raise StopIteration
        sealed = self._lines.digest
        line = self._lines.next()
        if _is_trailer(line):
            self._finish(_decode(_trailer_decoder, line, self.where), sealed)
            raise StopIteration
        self._count += 1
        return _decode(self._decoder, line, self.where)

    def _finish(self, trailer: _Trailer, digest: bytes) -> None:
        if trailer.items != self._count:
            detail = f"the trailer counts {trailer.items} items, the file holds {self._count}"
            raise IntakeError("INTAKE.TRUNCATED", detail, where=self.where)
        if trailer.sha256 != digest:
            raise IntakeError("INTAKE.DIGEST", "the digest in the trailer is not that of the lines", where=self.where)
        self._lines.end()
        self._ended = True


class _Lines:
    """Lines of a stream, numbered, bounded and digested."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._number = 0
        self._digest = hashlib.sha256()

    @property
    def where(self) -> str:
        return f"{self._name}:{self._number}"

    @property
    def digest(self) -> bytes:
        """SHA-256 of all lines taken so far."""
        return self._digest.digest()

    def next(self) -> bytes:
        self._number += 1
        line = _take(lambda: self._stream.readline(MAX_LINE_BYTES + 1), self.where)
        if len(line) > MAX_LINE_BYTES:
            raise IntakeError("INTAKE.OVERSIZE", f"a line longer than {MAX_LINE_BYTES} bytes", where=self.where)
        if not line.endswith(b"\n"):
            raise IntakeError("INTAKE.TRUNCATED", "the file ends without its trailer line", where=self.where)
        self._digest.update(line)
        return line

    def end(self) -> None:
        if _take(lambda: self._stream.read(1), self.where):
            raise IntakeError("INTAKE.FORMAT", "something follows the trailer", where=self.where)


def read_object(stream: BinaryIO, name: str | None, kind: type[H]) -> H:
    """Read a file that is one JSON object with `format` and `version`."""
    name = name or _name_of(stream)
    text = _take(lambda: stream.read(MAX_LINE_BYTES + 1), name)
    if len(text) > MAX_LINE_BYTES:
        raise IntakeError("INTAKE.OVERSIZE", f"longer than {MAX_LINE_BYTES} bytes", where=name)
    return _header(text, kind, name)


def read(stream: BinaryIO, name: str | None, header: type[H], item: type[ItemT]) -> tuple[H, Items[ItemT]]:
    """Read the header line; return it and the items that follow. `name` names the file in errors."""
    lines = _Lines(stream, name or _name_of(stream))
    first = lines.next()
    return _header(first, header, lines.where), Items(lines, item)


def _header(text: bytes, kind: type[H], where: str) -> H:
    """Decode a header after looking at its format and version alone, for an error that says what the file is."""
    found = _decode(_kind_decoder, text, where)
    expected = kind.__struct_config__.tag
    if found.format != expected or not _READ_VERSIONS.fullmatch(found.version):
        detail = f"is {found.format[:40]!r} version {found.version[:20]!r}, expected {expected} 1.x"
        raise IntakeError("INTAKE.FORMAT", detail, where=where)
    return _decode(_decoder(kind), text, where)


def _is_trailer(line: bytes) -> bool:
    """True for a line that says it is the end, whether or not the rest of it holds."""
    if len(line) > _MAX_TRAILER_BYTES or b'"end"' not in line:
        return False
    try:
        return _probe_decoder.decode(line).end
    except _UNDECODABLE:
        return False


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, dec_hook=_decode_text)


_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_kind_decoder, _probe_decoder, _trailer_decoder = _decoder(_Kind), _decoder(_Probe), _decoder(_Trailer)


def _decode(decoder: msgspec.json.Decoder[T], text: bytes, where: str) -> T:
    try:
        return decoder.decode(text)
    except _UNDECODABLE as error:
        code = "INTAKE.BAD_ID" if isinstance(error.__cause__, _BadIdError) else "INTAKE.FORMAT"
        raise IntakeError(code, str(error), where=where) from None


def _take(read: Callable[[], bytes], where: str) -> bytes:
    try:
        return read()
    except OSError as error:
        raise IntakeError("INTAKE.TRUNCATED", f"cannot be read ({error.strerror})", where=where) from error


def _name_of(stream: BinaryIO) -> str:
    return str(getattr(stream, "name", "document"))


class Writer(Generic[ItemT]):
    """Writes one file line by line: `with Writer(path, header) as file: file.add(item)`; `items` counts them.

    The file appears under its name when the block ends without error, complete and synced; after an error nothing of
    it stays. An older file of that name is replaced. Raises CustodyError FILE.WRITE when the disk refuses.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._header = header
        self._digest = hashlib.sha256()
        self.items = 0

    def __enter__(self) -> Self:
        with _disk(self._path):
            self._file = self._part.open("wb")
        try:
            self._line(self._header)
        except CustodyError:
            self._clear()
            raise
        return self

    def add(self, item: ItemT) -> None:
        self._line(item)
        self.items += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._seal()
        finally:
            self._clear()

    def _line(self, value: msgspec.Struct) -> None:
        line = _encoder.encode(value) + b"\n"
        self._digest.update(line)
        with _disk(self._path):
            self._file.write(line)

    def _seal(self) -> None:
        """Write the trailer, wait until the disk has everything, only then give the file its name."""
        self._line(_Trailer(end=True, items=self.items, sha256=Hex(self._digest.digest())))
        with _disk(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.replace(self._path)
            _sync_folder(self._path.parent)

    def _clear(self) -> None:
        with suppress(OSError):  # a full disk refuses here once more; the first refusal is the one that counts
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """The one place where a refusing disk becomes an error of ours."""
    try:
        yield
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(path)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
