"""Checking an exported audit log: needs the file and, to trust it, the factory's public key; no database.

Every line is read once, in order, and everything that does not hold is told with its line:
  1. Every line is canonical; the first is the header, the last the trailer, nothing follows.
  2. Entries of a chain are numbered 1, 2, 3 ... and each follows from the one before it.
  3. A checkpoint stands right after the entry it names, and names its hash.
  4. Every signature holds under a key of the header, or under the given keys alone when there are any.
  5. Counts, chain ends and digest of the trailer are those of the lines before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

from msgspec.structs import replace

from ifpp.errors import SettingsError, VerificationError
from ifpp.trust.signer import VerificationKey
from ifpp.wire.audit import (
    FORMAT,
    GENESIS,
    MAX_LINE_BYTES,
    VERSION,
    Checkpoint,
    CheckpointLine,
    Entry,
    EntryLine,
    Header,
    Trailer,
    TrailerLine,
    canonical,
    link,
    read_line,
)

MAX_FINDINGS = 50
_DIGEST = 32


class _Hashes:
    """The hash of every entry of a chain by its number, in runs without a gap."""

    def __init__(self) -> None:
        self._starts = [1]
        self._runs = [bytearray()]

    def push(self, number: int, digest: bytes) -> None:
        """Note an entry with a number higher than all before it."""
        if number != self._starts[-1] + len(self._runs[-1]) // _DIGEST:
            self._starts.append(number)
            self._runs.append(bytearray())
        self._runs[-1] += digest

    def get(self, number: int) -> bytes | None:
        """Return the hash of an entry that was seen, or None."""
        at = bisect_right(self._starts, number) - 1
        place = (number - self._starts[at]) * _DIGEST
        return bytes(self._runs[at][place : place + _DIGEST]) or None


@dataclass(slots=True)
class ChainReport:
    """One chain as it was found: how many entries, the last one and its hash, and how far signatures cover it."""

    entries: int = 0
    last: int = 0
    last_at: str = ""
    last_hash: bytes = GENESIS
    signed: int = 0
    hashes: _Hashes = field(default_factory=_Hashes, repr=False)


@dataclass(slots=True)
class AuditReport:
    """What a file holds and everything that does not hold in it (`findings`, at most MAX_FINDINGS; `found` counts all).

    `key_ids` are the keys that signed; `pinned` says that the caller named them, not the file.
    """

    factory_id: str = ""
    entries: int = 0
    checkpoints: int = 0
    chains: dict[str, ChainReport] = field(default_factory=dict)
    key_ids: set[str] = field(default_factory=set)
    pinned: bool = False
    findings: list[VerificationError] = field(default_factory=list)
    found: int = 0

    @property
    def sound(self) -> bool:
        """True when nothing was found."""
        return self.found == 0


def check_audit(stream: BinaryIO, name: str, keys: Iterable[VerificationKey] = ()) -> AuditReport:
    """Check a file; `name` names it in findings. `keys`: the only keys to trust, else those of the header.

    Raises SettingsError SETTINGS.MISSING when it cannot be read.
    """
    check = _Check(name, {key.key_id: key for key in keys})
    for line in _lines(stream, name):
        check.take(line)
    return check.finish()


def check_continuation(report: AuditReport, name: str, earlier: AuditReport) -> None:
    """Add to the findings of `report` where it does not continue an earlier export of the same factory."""
    found: list[tuple[str, str]] = []
    if report.factory_id != earlier.factory_id:
        found.append(("AUDIT.FORKED", f"the earlier export is of factory {earlier.factory_id[:40]}"))
    for chain_id, before in earlier.chains.items():
        now = report.chains.get(chain_id, ChainReport())
        if now.last < before.last:
            detail = f"chain {chain_id} ends with entry {now.last}, the earlier export has {before.last}"
            found.append(("AUDIT.CUT", detail))
        elif before.last and now.hashes.get(before.last) != before.last_hash:
            detail = f"chain {chain_id}: up to entry {before.last} it is not what the earlier export has"
            found.append(("AUDIT.FORKED", detail))
    report.found += len(found)
    report.findings += [VerificationError(code, detail, where=name) for code, detail in found]


def _lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            yield line
    except OSError as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be read ({error.strerror})", where=name) from error


class _Check:
    def __init__(self, name: str, keys: dict[str, VerificationKey]) -> None:
        self._name = name
        self._line = 0
        self._pinned = bool(keys)
        self._keys = keys
        self._header: Header | None = None
        self._trailer: Trailer | None = None
        self._chains: dict[str, ChainReport] = {}
        self._digest = sha256()
        self._report = AuditReport(pinned=self._pinned)

    def take(self, line: bytes) -> None:
        """Check one line with its end."""
        self._line += 1
        if self._trailer is not None:
            self._find("AUDIT.CHANGED", "something follows the trailer")
        elif not line.endswith(b"\n"):
            what = "is too long" if len(line) > MAX_LINE_BYTES else "is cut off, the file ends in the middle of it"
            self._find("AUDIT.CUT", f"the line {what}")
        else:
            self._dispatch(line)
        self._digest.update(line)

    def finish(self) -> AuditReport:
        """Look at what only the end can tell."""
        if self._line == 0:
            self._find("AUDIT.FORMAT", "the file is empty")
        elif self._trailer is None:
            self._find("AUDIT.CUT", f"the file ends without its trailer; {self._signed_so_far()}")
        self._report.chains = self._chains
        return self._report

    # ---- lines ------------------------------------------------------------------------------------

    def _dispatch(self, line: bytes) -> None:
        try:
            found = read_line(line[:-1])  # 1
        except ValueError as error:
            code = "AUDIT.FORMAT" if self._line == 1 else "AUDIT.CHANGED"
            self._find(code, f"the line is not what was written: {str(error)[:100]}")
            return
        if self._line == 1 and not isinstance(found, Header):
            self._find("AUDIT.CUT", "the file does not begin with its header")
        if isinstance(found, Header):
            self._take_header(found)
        elif isinstance(found, EntryLine):
            self._take_entry(found.entry, bytes.fromhex(found.hash))
        elif isinstance(found, CheckpointLine):
            self._take_checkpoint(found.checkpoint, found.signature)
        elif isinstance(found, TrailerLine):
            self._take_trailer(found.trailer, found.signature)

    def _take_header(self, header: Header) -> None:
        if self._line != 1:
            what = "stands twice" if self._header is not None else "does not stand first"
            self._find("AUDIT.REPLAYED" if self._header else "AUDIT.REORDERED", f"the header {what}")
            return
        if (header.format, header.version) != (FORMAT, VERSION):
            self._find("AUDIT.FORMAT", f"is {header.format[:40]!r} version {header.version[:20]!r}")
        self._header = header
        self._report.factory_id = header.factory_id
        if self._pinned:
            return
        for key in header.keys:
            try:
                known = VerificationKey.from_der(key.public, where=f"key {key.key_id[:16]}")
            except VerificationError as error:
                self._find(error.code, error.detail)
                continue
            if known.key_id != key.key_id:
                self._find("AUDIT.UNKNOWN_KEY", f"key {key.key_id[:16]} is not the one it is named")
            self._keys[known.key_id] = known

    def _take_entry(self, entry: Entry, digest: bytes) -> None:
        self._report.entries += 1
        chain = self._chain(entry.chain)
        entry = self._numbered(chain, entry, digest)
        what, last = f"entry {entry.number} of chain {entry.chain}", chain.last
        if entry.number <= last:
            self._out_of_place(chain, what, entry.number, digest)
            return
        if entry.number > last + 1:  # 2
            missing = f"{last + 1}" if entry.number == last + 2 else f"{last + 1} to {entry.number - 1}"
            self._find("AUDIT.CUT", f"before {what}, entry {missing} is missing")
        elif link(chain.last_hash, canonical(entry)) != digest:
            self._find("AUDIT.CHANGED", f"{what}, or the hash of the one before it, was changed")
        chain.hashes.push(entry.number, digest)
        chain.last_hash = digest
        chain.entries += 1
        chain.last, chain.last_at = entry.number, entry.at

    def _numbered(self, chain: ChainReport, entry: Entry, digest: bytes) -> Entry:
        """Return the entry with the number its hash speaks for, when that is the next one and it claims another."""
        expected = chain.last + 1
        if entry.number != expected:
            restored = replace(entry, number=expected)
            if link(chain.last_hash, canonical(restored)) == digest:
                self._find("AUDIT.CHANGED", f"entry {expected} of chain {entry.chain} was renumbered to {entry.number}")
                return restored
        return entry

    def _out_of_place(self, chain: ChainReport, what: str, number: int, digest: bytes) -> None:
        """An entry whose number is not higher than all before it."""
        seen = chain.hashes.get(number)
        if seen is None:
            self._find("AUDIT.REORDERED", f"{what} stands after entry {chain.last}")
        elif seen == digest:
            self._find("AUDIT.REPLAYED", f"{what} stands here a second time")
        else:
            self._find("AUDIT.FORKED", f"{what} stands here with another content than before")

    def _take_checkpoint(self, checkpoint: Checkpoint, signature: bytes) -> None:
        self._report.checkpoints += 1
        chain = self._chain(checkpoint.chain)
        what, last = f"the checkpoint of entry {checkpoint.number} of chain {checkpoint.chain}", chain.last
        if checkpoint.number > last:
            self._find("AUDIT.CUT", f"{what} follows entry {last}: what is between is missing")
        elif checkpoint.number < last:
            seen = "stands after entry" if checkpoint.number > chain.signed else "is repeated after entry"
            code = "AUDIT.REORDERED" if checkpoint.number > chain.signed else "AUDIT.REPLAYED"
            self._find(code, f"{what} {seen} {last}")
        elif chain.signed == last:
            self._find("AUDIT.REPLAYED", f"{what} stands here a second time")
        elif checkpoint.hash != chain.last_hash.hex():  # 3
            self._find("AUDIT.CHANGED", f"{what} was signed for another content of the chain")
        elif self._header is not None and checkpoint.factory_id != self._header.factory_id:
            self._find("AUDIT.CHANGED", f"{what} belongs to factory {checkpoint.factory_id[:40]}")
        if self._signed(checkpoint.key_id, signature, checkpoint.message(), what) and checkpoint.number == last:
            chain.signed = last

    def _take_trailer(self, trailer: Trailer, signature: bytes) -> None:
        self._trailer = trailer
        for chain_id, head in trailer.heads.items():  # 5
            chain = self._chain(chain_id)
            last = chain.last
            if last < head.number:
                self._find("AUDIT.CUT", f"chain {chain_id} ends with entry {last}, it had {head.number}")
            elif last > head.number or bytes.fromhex(head.hash) != chain.last_hash:
                self._find("AUDIT.CHANGED", f"chain {chain_id} does not end as it did when it was exported")
        for chain_id in self._chains.keys() - trailer.heads.keys():
            self._find("AUDIT.CHANGED", f"chain {chain_id} was not in the log that was exported")
        counted = (self._report.entries, self._report.checkpoints)
        if counted != (trailer.entries, trailer.checkpoints):
            fewer = counted[0] < trailer.entries or counted[1] < trailer.checkpoints
            detail = f"{trailer.entries} entries and {trailer.checkpoints} checkpoints were written"
            code = "AUDIT.CUT" if fewer else "AUDIT.REPLAYED"
            self._find(code, f"{detail}, the file holds {counted[0]} and {counted[1]}")
        if trailer.sha256 != self._digest.hexdigest():
            self._find("AUDIT.CHANGED", "the lines before the trailer are not those it was written for")
        if not trailer.end or not trailer.key_id:
            self._find("AUDIT.UNSIGNED", "the file is not signed")
        else:
            self._signed(trailer.key_id, signature, trailer.message(), "the trailer")  # 4

    # ---- inside -----------------------------------------------------------------------------------

    def _chain(self, chain_id: str) -> ChainReport:
        if chain_id not in self._chains:
            if self._header is not None and chain_id not in self._header.chains:
                self._find("AUDIT.CHANGED", f"the header names no chain {chain_id}")
            self._chains[chain_id] = ChainReport()
        return self._chains[chain_id]

    def _signed(self, key_id: str, signature: bytes, message: bytes, what: str) -> bool:
        key = self._keys.get(key_id)
        if key is None:
            by = "the named key" if self._pinned else "a key of the header"
            self._find("AUDIT.UNKNOWN_KEY", f"{what} is signed by key {key_id[:16]}, not by {by}")
            return False
        try:
            key.verify(signature, message, what=what)
        except VerificationError as error:
            self._find(error.code, f"{what}: {error.detail}")
            return False
        self._report.key_ids.add(key_id)
        return True

    def _signed_so_far(self) -> str:
        chains = [f"{chain_id} up to entry {chain.signed}" for chain_id, chain in self._chains.items()]
        return f"signatures cover {', '.join(chains) or 'nothing'}"

    def _find(self, code: str, detail: str) -> None:
        self._report.found += 1
        if len(self._report.findings) < MAX_FINDINGS:
            where = f"{self._name}:{self._line}" if self._line else self._name
            self._report.findings.append(VerificationError(code, detail, where=where))
