"""Keeping packages ahead: fetched, verified and kept while the store is there; looked after when it is back.

One round: 1. the store says how the claims made ahead stand; what it withdrew, gave to somebody else or has settled is
dropped. 2. What is kept for another job order goes back. 3. Leases that are half over are renewed. 4. What is missing
is fetched. A round touches no chip that a head works with, and gives back nothing that this station began to send.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec

from ifpp import metrics as series
from ifpp.errors import CustodyError, IfppError, Retry, ServiceError, SettingsError, SupplyError, VerificationError
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, parse_utc, pause, utc_ms_text, uuid7
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import (
    CACHE_HEAD,
    Claim,
    ClaimedPackage,
    ClaimRequest,
    ExpectedQuestion,
    Job,
    JobState,
    LeaseQuestion,
)
from ifpp.settings import Station
from ifpp.station.cache import Cache, Holding, Lease, Wanted
from ifpp.station.gate import Gate
from ifpp.station.history import fates
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.supplier import Supplier
from ifpp.trust.chain import TrustStore
from ifpp.trust.verify import ExpectedPackage, check_package
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.fpx import parse_prepare_download

_ASKED_AT_ONCE = 100
_JOB_PATIENCE_S = 10.0
_ROUND = "prefetch"
log = get_logger("station.prefetch")


@dataclass(slots=True)
class Fetched:
    """What a filling brought: chips whose packages are kept now; EID -> why there is nothing for it."""

    kept: list[str] = field(default_factory=list)
    refused: dict[str, IfppError] = field(default_factory=dict)


class Prefetch:
    """Fills and looks after the cache of a station; belongs to the event loop."""

    def __init__(
        self,
        supplier: Supplier,
        cache: Cache,
        *,
        journal: Journal,
        trust: TrustStore,
        settings: Station,
        eids: Path | None,
        gate: Gate,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._supplier = supplier
        self._cache = cache
        self._journal = journal
        self._trust = trust
        self._settings = settings
        self._eids = eids
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._hopeless: set[str] = set()  # nothing could be kept for them, for the job order at hand
        self._for: Wanted | None = None
        self.holding = Holding()

    async def note_job(self, state: bytes) -> None:
        """Keep what the line said last of its job orders, for a start while the broker is away."""
        try:
            await asyncio.to_thread(self._cache.remember_job, state)
        except CustodyError as error:
            log.warning("job order not kept", code=error.code, detail=error.detail)

    async def recall_job(self, jobs: Jobs, stopping: asyncio.Event) -> None:
        """Where the line stays silent after the start, go on with what it said last."""
        await pause(self._clock, _JOB_PATIENCE_S, stopping)
        state = await asyncio.to_thread(self._cache.job)
        if not jobs.heard and state is not None:
            log.warning("line is silent, working on as it said last", code="BROKER.UNREACHABLE")
            jobs.update(msgspec.json.decode(state, type=JobState))

    async def run(self, jobs: Jobs, stopping: asyncio.Event) -> None:
        """Make rounds until the station stops; while the store is away it is asked again and again."""
        while not stopping.is_set():
            try:
                await self.round(await jobs.current(0.1))
            except IfppError as error:
                log.warning("prefetch", code=error.code, detail=error.detail)
            except Exception:  # what goes wrong here must not end the heads that work beside it
                log.exception("prefetch failed")
            self._measure()
            away = self._supplier.away_since
            seconds = self._settings.deadlines.reconnect_s if away else self._settings.cache.refresh_s
            await pause(self._clock, seconds, stopping)

    async def round(self, job: Job | None) -> None:
        """Look after what is kept, then fetch what is missing for this job order; see the module."""
        try:
            if not await self.reconcile():
                return
            if self._settings.cache.units and job is not None:
                await self._provide(job)
        finally:
            await asyncio.to_thread(self._cache.remember_time)
            self.holding = await asyncio.to_thread(self._cache.holding)

    # ---- how the leases stand ---------------------------------------------------------------------

    async def reconcile(self) -> bool:
        """Ask the store how the claims made ahead stand, drop what is not ours any more; False when it is away."""
        leases = await asyncio.to_thread(self._cache.leases)
        for start in range(0, max(1, len(leases)), _ASKED_AT_ONCE):
            part = leases[start : start + _ASKED_AT_ONCE]
            question = LeaseQuestion(station_id=self._settings.id, leases=[lease.lease_id for lease in part])
            try:
                answer = await self._supplier.store.leases(question)
            except ServiceError as error:
                if error.fault.retry is not Retry.LATER:
                    raise
                self._supplier.lost(error)
                return False
            if self._supplier.away_since:
                self._hopeless.clear()
            self._supplier.found()
            held, withdrawn = set(answer.held), set(answer.withdrawn)
            for lease in part:
                if lease.lease_id in withdrawn:
                    await self._part_with(lease, "withdrawn", release=not await self._used(lease.eid))
                elif lease.lease_id not in held:
                    await self._part_with(lease, "settled, or not ours any more", release=False)
        return True

    async def give_back(self, leases: Iterable[Lease], why: str) -> int:
        """Give back what was kept and never used; returns for how many chips."""
        unused = [lease for lease in leases if not await self._used(lease.eid)]
        return sum([await self._part_with(lease, why, release=True) for lease in unused])

    async def _part_with(self, lease: Lease, why: str, *, release: bool) -> bool:
        """Drop what is kept for a chip, then tell the store; not while a head works with it."""
        if not self._supplier.take(lease.eid, _ROUND):
            return False
        try:
            now = await asyncio.to_thread(self._cache.lease, lease.eid)
            if now is None or now.lease_id != lease.lease_id:
                return False
            await asyncio.to_thread(self._cache.drop, lease.eid)
        finally:
            self._supplier.done(lease.eid, _ROUND)
        log.info("kept no longer", eid=lease.eid, lease=lease.lease_id, why=why)
        if release:
            await self._release(lease.lease_id)
        return True

    async def _used(self, eid: str) -> bool:
        return bool(await fates(self._journal, eid))

    async def _release(self, lease_id: str) -> None:
        try:
            await self._supplier.store.release(lease_id, self._settings.id)
        except (ServiceError, SupplyError, CustodyError) as error:
            log.warning("release", lease=lease_id, code=error.code)

    # ---- filling ----------------------------------------------------------------------------------

    async def _provide(self, job: Job) -> None:
        wanted = Wanted(job.product.part_number, job.region, job.customer, job.job_order_id)
        if wanted != self._for:
            self._for, self._hopeless = wanted, set()
        leases = await asyncio.to_thread(self._cache.leases)
        await self.give_back((lease for lease in leases if not _serves(lease, wanted)), "another job order")
        soon = self._cache.now() + timedelta(seconds=self._settings.cache.lease_s / 2)
        mine = [lease for lease in leases if _serves(lease, wanted)]
        old = [lease.eid for lease in mine if not lease.until or parse_utc(lease.until) < soon]
        await self.fill(wanted, old, len(old))
        missing = self._settings.cache.units - len(mine)
        if missing > 0:
            kept = {lease.eid for lease in mine}
            await self._fill_up(job, wanted, kept, missing)

    async def _fill_up(self, job: Job, wanted: Wanted, kept: set[str], missing: int) -> None:
        """Fetch for the chips that are expected here; where nobody says which, only when no other station has them."""
        if self._eids is not None:
            eids = [eid for eid in read_eids(self._eids) if eid not in kept | self._hopeless]
            await self.fill(wanted, eids, missing)
        elif job.stations == [self._settings.id]:
            await self.fill_any(wanted, missing)

    async def fill_any(self, wanted: Wanted, count: int) -> Fetched:
        """Keep the packages of up to `count` chips of a product, whichever the store offers."""
        done, after = Fetched(), ""
        while len(done.kept) < count:
            question = ExpectedQuestion(
                station_id=self._settings.id,
                sku=wanted.sku,
                region=wanted.region,
                job_order_id=wanted.job_order_id,
                after=after,
            )
            eids = (await self._supplier.store.expected(question)).eids
            if not eids:
                break
            after = eids[-1]
            fresh = [eid for eid in eids if eid not in self._hopeless]
            part = await self.fill(wanted, fresh, count - len(done.kept))
            done.kept += part.kept
            done.refused |= part.refused
        return done

    async def fill(self, wanted: Wanted, eids: Iterable[str], count: int) -> Fetched:
        """Keep the packages of up to `count` of these chips.

        A chip for which that is not possible is passed over. Raises ServiceError when the store goes away, CustodyError
        CACHE.WRITE or CACHE.CORRUPT when nothing can be kept: what was kept before stays.
        """
        done = Fetched()
        for eid in eids:
            if len(done.kept) >= count:
                break
            if await self._used(eid) or not self._supplier.take(eid, _ROUND):
                continue
            try:
                await self._fetch(eid, wanted)
                done.kept.append(eid)
                self._gate.clear("CACHE.WRITE")
            except CustodyError as error:
                if error.code.startswith("CACHE."):
                    self._gate.note(error.code, f"{error.where}: {error.detail}", shuts=False)
                raise
            except (IfppError, ValueError) as error:
                if isinstance(error, ServiceError):
                    raise
                fault = error if isinstance(error, IfppError) else VerificationError("INTAKE.BINDING", str(error))
                self._hopeless.add(eid)
                done.refused[eid] = fault
                log.warning("not kept", eid=eid, code=fault.code, detail=fault.detail)
            finally:
                self._supplier.done(eid, _ROUND)
        if done.kept:
            log.info("kept ahead", units=len(done.kept), sku=wanted.sku, region=wanted.region)
        return done

    async def _fetch(self, eid: str, wanted: Wanted) -> None:
        """Claim the packages of one chip ahead, verify and keep them; what cannot be kept goes back at once."""
        until = self._cache.now() + timedelta(seconds=self._settings.cache.lease_s)
        request = ClaimRequest(
            attempt_id=uuid7(self._clock.now()),
            eid=eid,
            sku=wanted.sku,
            region=wanted.region,
            station_id=self._settings.id,
            head_id=CACHE_HEAD,
            lease_s=round(self._settings.cache.lease_s),
            customer=wanted.customer,
            job_order_id=wanted.job_order_id,
        )
        claim = await self._supplier.store.claim(request)
        try:
            if not claim.packages:
                raise SupplyError("BPP.NOT_FOUND", "nothing is left to load", where=eid)
            contents = {one.bpp_sha256: await self._supplier.package(one.bpp_sha256) for one in claim.packages}
            await asyncio.to_thread(self._verify, claim, eid, wanted, contents)
            await asyncio.to_thread(self._cache.keep, claim, wanted, until, contents)
        except (IfppError, ValueError):
            if await asyncio.to_thread(self._cache.lease, eid) is None:  # else what was kept before is still used
                await self._release(claim.attempt_id)
            raise

    def _verify(self, claim: Claim, eid: str, wanted: Wanted, contents: dict[str, bytes]) -> None:
        """Check all that a station can check; the chip's own word comes when it is loaded.

        1. The claim is for this chip, and its certificate chain holds.
        2. Each package is for the product that was asked for.
        3. Its parts belong together and to this chip, and its SM-DPf signed them (`trust.verify.check_package`).
        """
        if claim.eid != eid:
            raise VerificationError("EID.MISMATCH", f"the claim is for EID {claim.eid}", where=f"EID {eid}")
        chain = [base64.b64decode(one) for one in claim.eum_chain_b64]
        self._trust.euicc(base64.b64decode(claim.euicc_certificate_b64), chain, Eid(eid), self._clock.now())  # 1
        for package in claim.packages:
            if (package.sku, package.region) != (wanted.sku, wanted.region):  # 2
                detail = f"the package is for {package.sku} in {package.region}"
                raise SupplyError("BPP.OTHER_PRODUCT", detail, where=f"ICCID {package.iccid}")
            self._verify_package(Eid(eid), package, contents[package.bpp_sha256])  # 3

    def _verify_package(self, eid: Eid, package: ClaimedPackage, raw: bytes) -> None:
        prepare = parse_prepare_download(base64.b64decode(package.prepare_download_b64))
        where = f"ICCID {package.iccid}"
        if hashlib.sha1(prepare.otk_public, usedforsecurity=False).hexdigest() != package.otk_id:  # FPX/1: otkId
            raise VerificationError("INTAKE.UNKNOWN_KEY", "BF21 names another one-time key", where=where)
        now = self._clock.now()
        smdp = self._trust.smdp((prepare.smdp_certificate, *prepare.other_certificates), now)
        if smdp.oid != package.smdp_oid:
            raise VerificationError("INTAKE.BINDING", f"signed by SM-DPf {smdp.oid}", where=where)
        expected = ExpectedPackage(
            eid=eid,
            iccid=Iccid(package.iccid),
            transaction_id=bytes.fromhex(package.transaction_id),
            otk_public=prepare.otk_public,
            bpp_sha256=bytes.fromhex(package.bpp_sha256),
        )
        check_package(parse_bpp(raw), prepare, expected, smdp, now)

    # ---- what is shown ----------------------------------------------------------------------------

    @property
    def oldest_ms(self) -> int:
        """Age of what was kept first, in milliseconds."""
        oldest = self.holding.oldest_at
        return round(self._since_s(oldest) * 1000) if oldest else 0

    def _measure(self) -> None:
        away = self._supplier.away_since
        left_s = -self._since_s(self.holding.first_until) if self.holding.first_until else 0.0
        self._metrics.set(series.CACHED_UNITS, self.holding.units)
        self._metrics.set(series.CACHED_OLDEST_SECONDS, self.oldest_ms / 1000)
        self._metrics.set(series.CACHED_LEASE_SECONDS, left_s)
        self._metrics.set(series.STORE_AWAY_SECONDS, max(0.0, self._since_s(away)) if away else 0.0)

    def _since_s(self, at: str) -> float:
        return (parse_utc(utc_ms_text(self._cache.now())) - parse_utc(at)).total_seconds()


def read_eids(file: Path) -> list[str]:
    """Read a file of EIDs, one a line; empty lines and what follows # do not count. Raises SettingsError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("SETTINGS.MISSING", f"cannot be read ({error})", where=str(file)) from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        try:
            if text:
                found[str(Eid(text))] = None
        except (IfppError, ValueError) as error:
            raise SettingsError("SETTINGS.INVALID", str(error), where=f"{file}:{number}") from error
    return list(found)


def _serves(lease: Lease, wanted: Wanted) -> bool:
    """Whether what is kept may be loaded for a job order."""
    theirs = lease.wanted
    same = (theirs.sku, theirs.region, theirs.customer) == (wanted.sku, wanted.region, wanted.customer)
    return same and theirs.job_order_id in ("", wanted.job_order_id)
