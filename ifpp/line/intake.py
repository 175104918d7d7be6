"""Import of files: verified first, then taken in, or refused as a whole.

Plan for a file (numbers reappear in the code):
  1. What an import that died left behind is finished or thrown away. A file that is byte for byte one imported before
     is done: nothing happens.
  2. Its first line says what the file is, its header holds: certificates above all.
  3. Every item holds by itself; every bad one is noted, also one that cannot be read.
  4. The file is whole: trailer, count and digest. Any fault so far refuses it.
  5. The same bytes are read once more and staged, then accepted in one short transaction (`ifpp.store.intake`); the
     store refuses what it has already: EIDs, one-time keys, ICCIDs, packages, transactions.

A few items are in memory at a time. Nothing here holds a lock for longer than a chunk: stations claim packages
meanwhile.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from ifpp.errors import IfppError, IntakeError, SettingsError, VerificationError, WireError
from ifpp.line.incoming import Context, Incoming, kind_of
from ifpp.line.opening import Keys, opened
from ifpp.store.factory import Factory
from ifpp.trust.chain import TrustStore
from ifpp.wire.jsonlines import MAX_LINE_BYTES

MAX_LISTED = 100
_PROGRESS_ITEMS = 100
_READ_BYTES = 1 << 20
_ITEM_FAULTS = frozenset({"INTAKE.FORMAT", "INTAKE.BAD_ID"})  # the next line may still be read after these

Progress = Callable[[str, int, float], None]
"""Called with the phase ("verify", "stage", "shelve"), the items done and the share of the phase that is (0 to 1).

That is every hundred items and at the end. What is small or only verified is never shelved.
"""


class IntakeOutcome(StrEnum):
    """What became of a file that was not refused."""

    IMPORTED = "IMPORTED"
    ALREADY_IMPORTED = "ALREADY_IMPORTED"
    VERIFIED = "VERIFIED"  # a dry run: all holds, nothing was kept


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What became of one file; `kind`: "esed", "esbpp", "codes", "traveller" or "job".

    `sha256`: of the whole file, in hex.
    """

    name: str
    kind: str
    sha256: str
    items: int
    outcome: IntakeOutcome


def import_file(
    path: Path,
    factory: Factory,
    trust_store: TrustStore,
    *,
    now: datetime,
    line: str,
    dry_run: bool = False,
    progress: Progress | None = None,
    keys: Keys = lambda: None,
) -> IntakeReport:
    """Import eUICC data, a delivery, activation codes, travellers, or a job order for `line`; see the plan above.

    An envelope is opened with `keys` and is what it holds, here and in its report (see `ifpp.line.opening`).

    A dry run checks everything, against the store too, and writes nothing. Raises IntakeError for a refused file: with
    the fault's code when it is the whole file's, else INTAKE.REJECTED; `items` lists the first hundred bad items,
    each with code, line and ids. Nothing of a refused file is in the store. Raises SettingsError when the file cannot
    be opened, ServiceError when the database does not answer, or another import goes on for long (INTAKE.BUSY).
    """
    # way of a unit, step 1
    context = Context(factory, trust_store, now, line)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be opened ({error.strerror})", where=str(path)) from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SettingsError("SETTINGS.INVALID", "not a file", where=str(path))
        size = os.fstat(file.fileno()).st_size
        content = opened(file, path.name, keys)
        taking = _Import(content, size, path.name, context, progress or (lambda _phase, _items, _share: None))
        return taking.run(dry_run=dry_run)


class _Import:
    """The way of one open file."""

    def __init__(self, file: io.RawIOBase, size: int, name: str, context: Context, progress: Progress) -> None:
        self._file = file
        self._name = name
        self._context = context
        self._progress = progress
        self._sha256 = ""
        self._bytes = max(1, size)
        self._kind: type[Incoming[Any]]

    def run(self, *, dry_run: bool) -> IntakeReport:
        if not dry_run:  # 1
            self._context.factory.settle_intakes(self._context.now)
        with self._reading() as reader:
            self._sha256 = hashlib.file_digest(reader, "sha256").hexdigest()
        if known := self._known():  # 1
            return known
        with self._reading() as reader:
            self._kind = kind_of(reader.readline(MAX_LINE_BYTES), self._name)  # 2
        items = self._verify()
        try:
            self._take(items, dry_run=dry_run)
        except IntakeError:
            if known := self._known():  # another process was faster
                return known
            raise
        outcome = IntakeOutcome.VERIFIED if dry_run else IntakeOutcome.IMPORTED
        return IntakeReport(self._name, self._kind.kind, self._sha256, items, outcome)

    def _known(self) -> IntakeReport | None:
        for batch in self._context.factory.batches():
            if batch.sha256 == self._sha256:
                items = batch.chips + batch.packages + batch.jobs + batch.travellers
                return IntakeReport(self._name, batch.kind, batch.sha256, items, IntakeOutcome.ALREADY_IMPORTED)
        return None

    def _verify(self) -> int:
        """Steps 2 to 4; return how many items hold."""
        bad = _BadItems()
        with self._reading() as reader:
            incoming = self._open(reader)
            total = 0
            for total, item in enumerate(self._readable(incoming, bad), start=1):
                try:
                    incoming.check(item)  # 3
                except (IntakeError, VerificationError, WireError) as error:
                    bad.note(error, incoming.named(item))
                if total % _PROGRESS_ITEMS == 0:
                    self._progress("verify", total, self._share())
            self._check_same(incoming)
        self._progress("verify", total, 1.0)
        if bad.count:  # 4
            first = bad.first[0]
            detail = f"{bad.count} bad items, first: {first.where}: {first.code} {first.detail}"
            raise IntakeError("INTAKE.REJECTED", detail, where=self._name, items=bad.first)
        return total

    def _share(self) -> float:
        """How much of the file has been read."""
        return min(1.0, self._file.tell() / self._bytes)

    def _open(self, reader: BinaryIO) -> Incoming[Any]:
        incoming = self._kind(reader, self._name, self._context)
        try:
            incoming.check_header()  # 2
        except (IntakeError, VerificationError, WireError) as error:
            bad = _BadItems()
            bad.note(error, incoming.where)
            raise bad.first[0] from error
        return incoming

    def _readable(self, incoming: Incoming[Any], bad: _BadItems) -> Iterator[Any]:
        """Give every item that can be read; raises IntakeError when the file as a whole cannot."""
        while True:
            try:
                item = next(incoming.items)
            except StopIteration:
                return
            except IntakeError as error:
                if error.code not in _ITEM_FAULTS:  # 4
                    raise IntakeError(error.code, error.detail, where=error.where, items=bad.first) from error
                bad.note(error, error.where)
                continue
            yield item

    def _take(self, items: int, *, dry_run: bool) -> None:
        """Step 5."""
        kind, context = self._kind.kind, self._context
        taking = context.factory.intake(
            kind,
            self._name,
            self._sha256,
            context.now,
            dry_run=dry_run,
            shelved=lambda done: self._progress("shelve", done, done / items),
        )
        with self._reading() as reader, taking as intake:
            incoming = self._kind(reader, self._name, context)
            count = 0
            for count, item in enumerate(incoming.items, start=1):
                incoming.add(intake, item)
                if count % _PROGRESS_ITEMS == 0:
                    self._progress("stage", count, self._share())
            self._check_same(incoming)
            self._progress("stage", count, 1.0)

    def _check_same(self, incoming: Incoming[Any]) -> None:
        """Every reading sees the same bytes, or nothing is believed."""
        if incoming.digest.hex() != self._sha256:
            raise IntakeError("INTAKE.DIGEST", "the file changed while it was read", where=self._name)

    @contextmanager
    def _reading(self) -> Iterator[io.BufferedReader[io.RawIOBase]]:
        """Read the file from its start; it stays open."""
        self._file.seek(0)
        reader = io.BufferedReader(self._file, _READ_BYTES)
        try:
            yield reader
        finally:
            reader.detach()


class _BadItems:
    """The first bad items of a file, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[IntakeError] = []

    @property
    def first(self) -> tuple[IntakeError, ...]:
        return tuple(self._first)

    def note(self, error: IfppError, where: str) -> None:
        """Note an item's fault under its line and ids; bytes that do not parse are the sender's format."""
        self.count += 1
        if len(self._first) < MAX_LISTED:
            detail = f"{error.where}: {error.detail}" if error.where not in {"", where} else error.detail
            code = "INTAKE.FORMAT" if isinstance(error, WireError) else error.code
            self._first.append(IntakeError(code, detail, where=where))
