"""Where the heads get their packages: from the store, and while it is away from what was kept ahead.

The store is asked first, so that its word is always the newest. It is away from the first call it does not answer until
it is heard again (`ifpp.station.prefetch` asks); meanwhile a chip for which packages are kept is served from here.
Nobody else has these packages: the store gave them to this station alone until a time that the station keeps, with a
margin. The store hears that they were sent afterwards, from the result; the journal's intent comes first as ever.
What the journal knows of a package counts also when the store is back: it may not have heard of it yet.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import msgspec

from ifpp.errors import CustodyError, Retry, ServiceError, SupplyError
from ifpp.log import get_logger
from ifpp.model.clock import Clock, parse_utc, utc_ms_text
from ifpp.model.messages import Claim, ClaimedPackage, ClaimRequest
from ifpp.model.states import PackageState
from ifpp.station.cache import Cache, Lease
from ifpp.station.gate import Gate
from ifpp.station.history import Fate, fates
from ifpp.station.journal import Journal
from ifpp.store.client import StoreClient

_OPEN = (PackageState.SENT, PackageState.UNKNOWN)
_AWAY = "STORE.UNREACHABLE"
log = get_logger("station.supplier")


class Supplier:
    """Belongs to the event loop. Without a cache it is the store and nothing else.

    Raises what `StoreClient` raises; while the store is away SupplyError BPP.NOT_CACHED, BPP.LEASE_ENDED,
    BPP.OTHER_PRODUCT, BPP.RESERVED, BPP.TAKEN, BPP.EXHAUSTED or UNIT.TRAVELLER, and CustodyError CACHE.*.
    """

    def __init__(
        self, store: StoreClient, cache: Cache | None, journal: Journal, gate: Gate, clock: Clock, *, margin_s: float
    ) -> None:
        self.store = store
        self.cache = cache
        self.away_since = ""
        self._journal = journal
        self._gate = gate
        self._clock = clock
        self._margin = timedelta(seconds=margin_s)
        self._in_work: dict[str, str] = {}  # EID -> attempt

    # ---- is the store there? ----------------------------------------------------------------------

    def lost(self, error: ServiceError) -> None:
        """The store did not answer."""
        if self.cache is not None and not self.away_since:
            self.away_since = utc_ms_text(self._clock.now())
            self._gate.note(_AWAY, f"{error.detail}; working from what is kept here", shuts=False)

    def found(self) -> None:
        """The store answered."""
        if self.away_since:
            log.info("store is back", away_since=self.away_since)
            self.away_since = ""
            self._gate.clear(_AWAY)

    # ---- who works with which chip ----------------------------------------------------------------

    def take(self, eid: str, attempt_id: str) -> bool:
        """Have a chip for oneself until `done`; False when somebody else of this station has it."""
        return self._in_work.setdefault(eid, attempt_id) == attempt_id

    def done(self, eid: str, attempt_id: str) -> None:
        """The attempt has ended."""
        if self._in_work.get(eid) == attempt_id:
            del self._in_work[eid]

    # ---- what heads ask ---------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> Claim:
        """Claim the packages of one chip; `attempt_id` of the answer names the claim that holds them."""
        if self.cache is None:
            return await self.store.claim(request)
        mine = self.take(request.eid, request.attempt_id)
        kept = await self._lease(request.eid) if self.away_since else None
        if kept is None or not self.runs(kept):
            try:
                return await self._ask(self.cache, request)
            except ServiceError as error:
                if error.fault.retry is not Retry.LATER:
                    self.found()
                    raise
                self.lost(error)
                kept = await self._lease(request.eid)
                if kept is None:
                    raise SupplyError("BPP.NOT_CACHED", error.detail, where=request.eid) from error
        if not mine:
            raise SupplyError("BPP.TAKEN", "another head of this station has it", where=request.eid)
        return await self._serve(self.cache, kept, request)

    async def package(self, digest: str) -> bytes:
        """Return one package byte for byte, its digest checked."""
        if self.cache is not None:
            try:
                kept = await asyncio.to_thread(self.cache.package, digest)
            except CustodyError:
                if self.away_since:
                    raise
            else:
                if kept is not None:
                    return kept
        return await self.store.package(digest)

    async def sent(self, eid: str, package_id: str, lease_id: str, station_id: str) -> None:
        """Tell the store, before it leaves, that the first byte leaves.

        A store that is away need not know of a package that it gave to this station until a time that has not come.
        """
        ours = await self._covers(eid, lease_id)
        if ours and self.away_since:
            return
        try:
            await self.store.sent(package_id, lease_id, station_id)
        except ServiceError as error:
            if not ours or error.fault.retry is not Retry.LATER:
                raise
            self.lost(error)

    async def release(self, eid: str, lease_id: str, station_id: str) -> None:
        """Give back what was not sent. While the store is away it stays ours, and is there for the next attempt.

        The cache forgets first: nothing is loaded from it that somebody else may have. What was sent and not settled is
        never given back: the store may take it for unsent.
        """
        if self.cache is not None:
            known = await fates(self._journal, eid)
            if self.away_since or any(state in _OPEN for state, _ in known.values()):
                return
            await asyncio.to_thread(self.cache.drop, eid)
        await self.store.release(lease_id, station_id)

    # ---- inside -----------------------------------------------------------------------------------

    async def _ask(self, cache: Cache, request: ClaimRequest) -> Claim:
        try:
            claim = await self.store.claim(request)
        except (SupplyError, CustodyError):
            self.found()
            raise
        self.found()
        with suppress(CustodyError):  # what is kept stands under its old id then, and its result is told under that
            before = await asyncio.to_thread(cache.claim, request.eid)
            kept = set() if before is None else {package.package_id for package in before.packages}
            if claim.packages and kept >= {package.package_id for package in claim.packages}:
                await asyncio.to_thread(cache.relet, request.eid, claim.attempt_id)
        return _as_it_stands(claim, await fates(self._journal, request.eid))

    async def _lease(self, eid: str) -> Lease | None:
        return None if self.cache is None else await asyncio.to_thread(self.cache.lease, eid)

    async def _covers(self, eid: str, lease_id: str) -> bool:
        """Whether the store gave us this chip's packages under this claim until a time that has not come."""
        try:
            kept = await self._lease(eid)
        except CustodyError:
            return False
        return kept is not None and kept.lease_id == lease_id and self.runs(kept)

    def runs(self, kept: Lease) -> bool:
        """Whether a load that begins now ends in time."""
        return bool(kept.until) and self.cache is not None and self.cache.now() + self._margin < parse_utc(kept.until)

    async def _serve(self, cache: Cache, kept: Lease, request: ClaimRequest) -> Claim:
        """Answer a claim as the store would, from what is kept and what the journal knows of it."""
        _check_job(kept, request)
        if not self.runs(kept):
            why = f"its lease ends at {kept.until}" if kept.until else "the clock was set back, its lease is not known"
            raise SupplyError("BPP.LEASE_ENDED", why, where=request.eid)
        claim = await asyncio.to_thread(cache.claim, request.eid)
        if claim is None:
            raise SupplyError("BPP.NOT_CACHED", "it was given back", where=request.eid)
        if request.sn and claim.sn and request.sn != claim.sn:
            detail = f"the label says {request.sn}, the traveller of this chip {claim.sn}"
            raise SupplyError("UNIT.TRAVELLER", detail, where=request.eid)
        log.info("served from the cache", eid=request.eid, attempt=request.attempt_id, lease=kept.lease_id)
        return _as_it_stands(claim, await fates(self._journal, request.eid))


def _check_job(kept: Lease, request: ClaimRequest) -> None:
    """What is kept was asked for by a job order: it is for no other product, and for no other job of one it names."""
    wanted = kept.wanted
    if (wanted.sku, wanted.region, wanted.customer) != (request.sku, request.region, request.customer):
        detail = f"the job says {request.sku} in {request.region}, what is kept {wanted.sku} in {wanted.region}"
        raise SupplyError("BPP.OTHER_PRODUCT", detail, where=request.eid)
    if wanted.job_order_id and wanted.job_order_id != request.job_order_id:
        raise SupplyError("BPP.RESERVED", f"kept for job order {wanted.job_order_id}", where=request.eid)


def _as_it_stands(claim: Claim, known: dict[str, Fate]) -> Claim:
    """Sort the packages of a claim by what this station did with them; raises SupplyError BPP.EXHAUSTED.

    One whose sending was never settled is read from the chip again, however often that was done: it harms nothing.
    """
    packages: list[ClaimedPackage] = []
    unresolved = list(claim.unresolved)
    installed = list(claim.installed)
    spent = 0
    for package in claim.packages:
        state, gone = known.get(package.package_id, (PackageState.AVAILABLE, False))
        if state in _OPEN:
            unresolved.append(msgspec.structs.replace(package, state=PackageState.UNKNOWN.value))
        elif state is PackageState.INSTALLED:
            installed.append(msgspec.structs.replace(package, state=PackageState.INSTALLED.value))
        elif gone:
            spent += 1
        else:
            packages.append(package)
    if spent and not unresolved:
        raise SupplyError("BPP.EXHAUSTED", f"{spent} of its packages failed for good", where=claim.eid)
    return msgspec.structs.replace(claim, packages=packages, unresolved=unresolved, installed=installed)
