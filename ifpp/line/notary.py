"""The notary signs the audit log: every clean-to-ship entry, and each chain again and again.

It runs beside the taking of events and never holds it up: while the key device is away entries wait for their
signature, the end-of-line gate says so, and nothing is lost. What it signs it has recomputed from its last signature
on; a chain that does not hold is not signed any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from ifpp import metrics as series
from ifpp.errors import IfppError, VerificationError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause, utc_ms_text
from ifpp.store.factory import Factory
from ifpp.store.records import AuditEntry, AuditHead, SignedCheckpoint
from ifpp.trust.signer import Signer, VerificationKey
from ifpp.wire.audit import GENESIS, link

_ROUND_S = 0.2
_PAGE = 1000

log = get_logger("line.notary")


@dataclass(slots=True)
class _Watch:
    """How far a chain was recomputed, and how far it is signed; `signed_s`, `told_s`: monotonic times."""

    chain_id: str
    signed_s: float
    told_s: float
    number: int = 0
    hash: bytes = GENESIS
    signed: int = 0
    broken: bool = False


class Notary:
    """Signs every chain of a factory's audit log with one key.

    A checkpoint follows after `entries` entries, or `seconds` after the last one, if there is something new.
    """

    def __init__(
        self, factory: Factory, signer: Signer, *, clock: Clock, metrics: Metrics, entries: int, seconds: float
    ) -> None:
        self._factory = factory
        self._signer = signer
        self._clock = clock
        self._metrics = metrics
        self._entries = entries
        self._seconds = seconds
        self._watches: dict[str, _Watch] = {}
        self._introduced = False
        self._failing = ""

    async def run(self, over: asyncio.Event) -> None:
        """Sign until `over`; what fails is tried again."""
        while True:
            await asyncio.to_thread(self._try)
            if await pause(self._clock, _ROUND_S, over):
                return

    async def finish(self) -> None:
        """Sign everything there is; for the end of a process."""
        await asyncio.to_thread(self._try, final=True)

    def sign(self, *, final: bool = False) -> int:
        """Sign what is due, with `final` everything; return how many signatures were made. Blocking.

        Raises ServiceError SIGNER.FAILED or DATABASE.UNREACHABLE; what was signed before stays.
        """
        if not self._introduced:
            self._factory.add_audit_key(self._signer.key_id, self._signer.public, self._clock.now())
            self._introduced = True
        with self._factory.audit_log() as audit:
            heads = audit.heads()
        made = 0
        for head in heads:
            try:
                made += self._sign_chain(head, final=final)
            except VerificationError as error:
                self._watches[head.chain_id].broken = True
                log.error("audit.chain_broken", chain=head.chain_id, error=error)
        return made

    # ---- inside -----------------------------------------------------------------------------------

    def _try(self, *, final: bool = False) -> None:
        try:
            self.sign(final=final)
            self._failing = ""
        except IfppError as error:  # the next round tries again; said once
            if error.code != self._failing:
                log.error("audit.not_signed", error=error)
            self._failing = error.code

    def _sign_chain(self, head: AuditHead, *, final: bool) -> int:
        watch = self._watches.get(head.chain_id) or self._begin(head.chain_id)
        if head.number < watch.number and not watch.broken:
            where = f"chain {watch.chain_id}"
            raise VerificationError("AUDIT.CUT", f"it ends with {head.number}, it had {watch.number}", where=where)
        made = 0
        while not watch.broken and watch.signed < head.number:
            with self._factory.audit_log() as audit:
                page = audit.entries(watch.chain_id, watch.number, _PAGE)
            made += self._sign_page(watch, page, final=final and len(page) < _PAGE)
            if len(page) < _PAGE:
                break
        self._metrics.set(series.AUDIT_UNSIGNED, max(0, head.number - watch.signed), chain=watch.chain_id)
        return made

    def _begin(self, chain_id: str) -> _Watch:
        """Start from the last signature under a chain."""
        watch = self._watches[chain_id] = _Watch(chain_id, self._clock.monotonic(), float("-inf"))
        with self._factory.audit_log() as audit:
            last = audit.last_checkpoint(chain_id)
            public = audit.keys().get(last.key_id, b"") if last else b""
        if last is not None:
            where = f"chain {chain_id}, checkpoint {last.number}"
            key = VerificationKey.from_der(public, where=where)
            key.verify(last.signature, last.statement(self._factory.factory_id).message(), what=where)
            watch.number, watch.hash, watch.signed = last.number, last.hash, last.number
        return watch

    def _sign_page(self, watch: _Watch, page: list[AuditEntry], *, final: bool) -> int:
        """Recompute a page, sign what is due in it, and only then move on."""
        number, digest = watch.number, watch.hash
        marks: dict[int, bytes] = {}
        for entry in page:
            digest = link(digest, entry.canonical())
            number += 1
            if (entry.number, entry.hash) != (number, digest):
                where = f"chain {watch.chain_id}, entry {number}"
                raise VerificationError("AUDIT.CHANGED", "the database does not hold what was written", where=where)
            if entry.cleared_eid is not None:
                marks[number] = digest
        last_signed = max(marks, default=watch.signed)
        overdue = self._clock.monotonic() - watch.signed_s >= self._seconds
        if number > last_signed and (final or overdue or number - last_signed >= self._entries):
            marks[number] = digest
        if marks:
            self._factory.add_checkpoints([self._checkpoint(watch.chain_id, *mark) for mark in marks.items()])
            watch.signed, watch.signed_s = max(marks), self._clock.monotonic()
            self._tell(watch, marks, always=final)
        watch.number, watch.hash = number, digest
        return len(marks)

    def _tell(self, watch: _Watch, marks: dict[int, bytes], *, always: bool) -> None:
        """Log where a chain stands now and then: one more place that a forger would have to change."""
        now_s, last = self._clock.monotonic(), max(marks)
        if always or now_s - watch.told_s >= self._seconds:
            watch.told_s = now_s
            log.info("audit.checkpoint", chain=watch.chain_id, number=last, hash=marks[last].hex())

    def _checkpoint(self, chain_id: str, number: int, digest: bytes) -> SignedCheckpoint:
        at = utc_ms_text(self._clock.now())
        unsigned = SignedCheckpoint(chain_id, number, digest, at, self._signer.key_id, signature=b"")
        message = unsigned.statement(self._factory.factory_id).message()
        return replace(unsigned, signature=self._signer.sign(message))
