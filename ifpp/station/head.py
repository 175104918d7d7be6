"""One programming head: seat, identify, claim, load, verify, seal, store, show; again and again."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, replace

from ifpp import metrics as series
from ifpp.errors import (
    CardError,
    CustodyError,
    IfppError,
    Retry,
    ServiceError,
    SupplyError,
    TransportError,
    VerificationError,
)
from ifpp.fpa.chip import Chip, Identity, is_locked
from ifpp.fpa.load import Order, Verdict, load, preflight, prepare, read_back, require_listed
from ifpp.fpa.seal import seal
from ifpp.fpa.settle import settle
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.log import get_logger
from ifpp.metrics import Metrics
from ifpp.model.clock import Clock, pause, uuid7
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Claim, ClaimedPackage, ClaimRequest, Message, StateChanged
from ifpp.model.states import E10, Lamp, PackageState, Phase
from ifpp.settings import Station
from ifpp.station.attempt import Attempt, settled
from ifpp.station.board import CODE_BLOCKED, CODE_NO_HOST, CODE_READER_LOST, CODE_REGULAR_WORK, CODE_STARVED, Board
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal, SentPackage
from ifpp.store.client import StoreClient
from ifpp.trust.chain import EuiccKey, TrustStore
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.fpx import parse_prepare_download

_POLL_S = 0.5
log = get_logger("station.head")


@dataclass(frozen=True, slots=True)
class Floor:
    """What all heads of a station share."""

    settings: Station
    clock: Clock
    journal: Journal
    store: StoreClient
    trust: TrustStore
    jobs: Jobs
    board: Board
    metrics: Metrics
    stopping: asyncio.Event


@dataclass(frozen=True, slots=True)
class Supply:
    """What the store holds for one chip: the claim, and each package that may have to be sent, ready to send."""

    claim: Claim
    orders: dict[str, Order]


class Head:
    """Runs one card port until the station stops; whatever happens here, the other heads go on."""

    def __init__(self, head_id: str, port: CardPort, floor: Floor) -> None:
        self.head_id = head_id
        self._port = port
        self._floor = floor
        self._owner = Owner(f"head-{head_id}")
        self._seatings: dict[str, int] = {}
        self._chip = Chip(
            port,
            block_size=floor.settings.heads[head_id].block_size,
            apdu_timeout_s=floor.settings.deadlines.apdu_s,
            load_apdu_timeout_s=floor.settings.deadlines.load_apdu_s,
        )
        floor.board.add(head_id)

    async def run(self) -> None:
        """Serve units until the station stops; a lost reader is tried again and again."""
        # way of a unit, step 3
        while not self._floor.stopping.is_set():
            try:
                await self._owner.call(self._port.open)
                await self._serve()
            except TransportError as error:
                log.warning("head lost", head=self.head_id, code=error.code, detail=error.detail)
                self._enter(Phase.RETIRED, CODE_READER_LOST, reason=error.code)
                await self._pause()
            except Exception:  # an unforeseen fault of ours must not stop the other heads
                log.exception("head failed", head=self.head_id)
                self._enter(Phase.RETIRED, CODE_READER_LOST, reason="INTERNAL")
                await self._pause()
            finally:
                await self._owner.call(self._port.close)
        self._owner.close()

    async def _serve(self) -> None:
        self._enter(Phase.EMPTY, CODE_STARVED)
        await self._owner.call(self._port.lamp, Lamp.OFF)
        while not self._floor.stopping.is_set():
            job = await self._floor.jobs.current()
            if job is None or not await self._owner.call(self._port.wait_seated, _POLL_S):
                continue
            now = self._floor.clock
            attempt = Attempt(uuid7(now.now()), self.head_id, job, now.now(), now.monotonic(), seatings=1)
            await self._work(attempt)
            await self._until_removed()

    async def _until_removed(self) -> None:
        while not await self._owner.call(self._port.wait_removed, _POLL_S):
            if self._floor.stopping.is_set():
                return
        self._enter(Phase.EMPTY, CODE_STARVED)
        await self._owner.call(self._port.lamp, Lamp.OFF)

    async def _work(self, attempt: Attempt) -> None:
        """Take one unit to its verdict; every fault of the unit ends here, stored, and not in another head."""
        self._enter(Phase.SEATED, CODE_REGULAR_WORK)
        await self._owner.call(self._port.lamp, Lamp.BUSY)
        try:
            await self._provision(attempt)
        except IfppError as error:
            attempt.fault = error
        except Exception as error:
            log.exception("unforeseen", head=self.head_id, eid=attempt.eid)
            attempt.fault = CardError("INTERNAL", f"{type(error).__name__}", where=f"head {self.head_id}")
        await self._close(attempt)

    async def _provision(self, attempt: Attempt) -> None:
        # way of a unit, step 4
        await self._owner.call(self._chip.open)
        eid = await self._owner.call(self._chip.eid)
        attempt.eid = eid
        self._seatings[eid] = attempt.seatings = self._seatings.get(eid, 0) + 1
        attempt.number = await asyncio.wrap_future(self._floor.journal.next_attempt(eid))
        self._step(attempt, Phase.IDENTIFIED)
        claimed = asyncio.create_task(self._supply(attempt), name=f"claim {self.head_id}")
        try:
            identity = await self._owner.call(self._chip.identify, eid)
        except BaseException:
            await self._give_back(attempt, claimed)
            raise
        supply = await claimed  # the store answers while the chip is read
        self._step(attempt, Phase.CLAIMED)
        try:
            await self._install(attempt, identity, supply)
        except IfppError:
            await self._release(attempt, supply.claim)
            raise
        self._step(attempt, Phase.SEALING)
        await self._owner.call(seal, self._chip, identity.eid)
        attempt.sealed = True

    async def _supply(self, attempt: Attempt) -> Supply:
        """Claim the chip's packages and fetch them."""
        claim = await self._claim(attempt)
        try:
            orders = {
                package.package_id: await self._order(Eid(claim.eid), package)
                for package in [*claim.unresolved, *claim.packages]
            }
        except IfppError:
            await self._release(attempt, claim)
            raise
        return Supply(claim, orders)

    async def _give_back(self, attempt: Attempt, claimed: asyncio.Task[Supply]) -> None:
        """The chip turned out to be unfit while its packages were claimed."""
        await asyncio.wait([claimed])
        if not claimed.cancelled() and claimed.exception() is None:
            await self._release(attempt, claimed.result().claim)

    async def _claim(self, attempt: Attempt) -> Claim:
        """Claim this chip's packages; while the store is away the unit waits, and the board says so."""
        floor, job = self._floor, attempt.job
        request = ClaimRequest(
            attempt_id=attempt.attempt_id,
            eid=attempt.eid,
            sku=job.product.part_number,
            region=job.region,
            station_id=floor.settings.id,
            head_id=self.head_id,
            lease_s=round(floor.settings.deadlines.lease_s),
        )
        while True:
            try:
                with floor.metrics.timed(series.CLAIM_SECONDS):
                    claim = await floor.store.claim(request)
            except ServiceError as error:
                if error.fault.retry is not Retry.LATER or floor.stopping.is_set():
                    raise
                self._enter(Phase.IDENTIFIED, CODE_NO_HOST, reason=error.code)
                await self._pause()
                continue
            self._enter(Phase.CLAIMED, CODE_REGULAR_WORK)
            return claim

    async def _install(self, attempt: Attempt, identity: Identity, supply: Supply) -> None:
        floor, claim = self._floor, supply.claim
        chain = [base64.b64decode(cert) for cert in claim.eum_chain_b64]
        key = floor.trust.euicc(base64.b64decode(claim.euicc_certificate_b64), chain, identity.eid, floor.clock.now())
        if is_locked(identity.status) and claim.packages:
            raise CardError("EUICC.FPA_LOCKED", "the factory services are locked", where=f"EID {identity.eid}")
        for package in claim.unresolved:
            await self._resolve(attempt, identity, package, supply.orders[package.package_id], key)
        if claim.installed:
            await self._owner.call(require_listed, self._chip, {Iccid(done.iccid) for done in claim.installed})
        for package in claim.packages:
            await self._load(attempt, identity, package, supply.orders[package.package_id], key)

    async def _resolve(
        self, attempt: Attempt, identity: Identity, package: ClaimedPackage, order: Order, key: EuiccKey
    ) -> None:
        """Read the chip to settle what an earlier attempt left open; then, where allowed, send the same package."""
        try:
            verdict = await self._owner.call(settle, self._chip, order, bytes.fromhex(package.otk_id), key)
        except TransportError as error:  # still open: nothing is decided by a chip that went away
            verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=error, pir=None)
        log.info("settled", head=self.head_id, eid=identity.eid, iccid=package.iccid, state=verdict.state)
        if verdict.state is PackageState.FAILED and not verdict.spent:
            await self._load(attempt, identity, package, order, key)
            return
        attempt.loads.append((package, verdict))
        if verdict.fault is not None:
            raise verdict.fault

    async def _load(
        self, attempt: Attempt, identity: Identity, package: ClaimedPackage, order: Order, key: EuiccKey
    ) -> None:
        """Way of a unit, steps 5 and 6: from the pre-flight fit to the read-back."""
        floor = self._floor
        preflight(identity, order, floor.settings.recipe.memory_factor)
        self._step(attempt, Phase.LOADING)
        verdict = await self._send(attempt, package, order, key)
        attempt.loads.append((package, verdict))
        product = attempt.job.product.part_number
        floor.metrics.observe(series.LOAD_SECONDS, verdict.load_ms / 1000, product=product)
        floor.metrics.add(series.APDUS, verdict.apdus, head=self.head_id)
        self._step(attempt, Phase.VERIFYING)
        stored = asyncio.wrap_future(floor.journal.settled(settled(attempt.attempt_id, package, verdict)))
        if verdict.pir is not None and verdict.state is PackageState.INSTALLED:
            try:
                await self._owner.call(read_back, self._chip, order, verdict.pir)
            except VerificationError as error:
                attempt.loads[-1] = (package, replace(verdict, state=PackageState.UNKNOWN, fault=error))
                raise
            finally:
                await stored
        await stored
        if verdict.fault is not None:
            raise verdict.fault

    async def _send(self, attempt: Attempt, package: ClaimedPackage, order: Order, key: EuiccKey) -> Verdict:
        """Write the intent while the chip checks the order; no byte of the BPP leaves before both are done."""
        before = self._chip.apdus
        intended, prepared = await asyncio.gather(
            self._intend(attempt, package), self._owner.call(prepare, self._chip, order), return_exceptions=True
        )
        apdus = self._chip.apdus - before
        if isinstance(intended, BaseException):
            raise intended
        if isinstance(prepared, IfppError):  # no byte of the BPP has left: the key cannot be spent
            return Verdict(PackageState.FAILED, spent=False, fault=prepared, pir=None, apdus=apdus)
        if isinstance(prepared, BaseException):
            raise prepared
        verdict = await self._owner.call(load, self._chip, order, key)
        return replace(verdict, apdus=verdict.apdus + apdus)

    async def _intend(self, attempt: Attempt, package: ClaimedPackage) -> None:
        """SENT in the store's ledger and synced in the journal: from here on only the chip can settle this package."""
        floor = self._floor
        if package.state == PackageState.CLAIMED:
            await floor.store.sent(package.package_id, attempt.attempt_id, floor.settings.id)
        sent = SentPackage(
            attempt_id=attempt.attempt_id,
            package_id=package.package_id,
            eid=attempt.eid,
            iccid=package.iccid,
            transaction_id=package.transaction_id,
            bpp_sha256=package.bpp_sha256,
            head_id=self.head_id,
        )
        with floor.metrics.timed(series.JOURNAL_COMMIT_SECONDS):
            await asyncio.wrap_future(floor.journal.sent(sent))

    async def _order(self, eid: Eid, package: ClaimedPackage) -> Order:
        raw = await self._floor.store.package(package.bpp_sha256)
        return Order(
            package_id=package.package_id,
            eid=eid,
            iccid=Iccid(package.iccid),
            transaction_id=bytes.fromhex(package.transaction_id),
            smdp_oid=package.smdp_oid,
            prepare=parse_prepare_download(base64.b64decode(package.prepare_download_b64)),
            bpp=parse_bpp(raw),
        )

    async def _release(self, attempt: Attempt, claim: Claim) -> None:
        """Give back what was claimed and never sent; a store that is away lets the lease run out instead."""
        sent = {package.package_id for package, _ in attempt.loads}
        if all(package.package_id in sent for package in claim.packages):
            return
        try:
            await self._floor.store.release(attempt.attempt_id, self._floor.settings.id)
        except (ServiceError, SupplyError, CustodyError) as error:
            log.warning("release", head=self.head_id, attempt=attempt.attempt_id, code=error.code)

    async def _close(self, attempt: Attempt) -> None:
        # way of a unit, step 8
        floor, reseats = self._floor, self._floor.settings.recipe.reseats
        now, now_s = floor.clock.now(), floor.clock.monotonic()
        result = attempt.event(
            station_id=floor.settings.id, boot_id=floor.journal.boot_id, now=now, now_s=now_s, reseats=reseats
        )
        floor.board.count(self.head_id, attempt.result)
        phase_events = floor.board.enter(self.head_id, Phase.VERDICT, CODE_BLOCKED)
        events: list[tuple[str, Message]] = [("unit_result", result)]
        events += [("state_changed", event) for event in phase_events]
        self._count_states(phase_events)
        lamp = attempt.lamp(reseats)
        try:
            with floor.metrics.timed(series.JOURNAL_COMMIT_SECONDS):
                await asyncio.wrap_future(floor.journal.close_unit(attempt.settled_packages(), events))
        except CustodyError as error:
            log.error("not stored", head=self.head_id, eid=attempt.eid, code=error.code, detail=error.detail)
            lamp = Lamp.HOLD  # green means stored
        self._measure(attempt)
        if lamp is Lamp.PASS and floor.settings.recipe.report_path == "factory":
            await self._forget(attempt)
        self._log_verdict(attempt, lamp)
        await self._owner.call(self._chip.close)
        await self._owner.call(self._port.lamp, lamp)

    async def _forget(self, attempt: Attempt) -> None:
        """The result is stored here: the device need not report it again. Losing this step harms nothing."""
        for _, verdict in attempt.loads:
            if verdict.pir is not None:
                try:
                    await self._owner.call(self._chip.forget, verdict.pir.seq_number)
                except IfppError as error:
                    log.warning("result stays on the chip", head=self.head_id, eid=attempt.eid, code=error.code)

    async def _pause(self) -> None:
        await pause(self._floor.clock, self._floor.settings.deadlines.reconnect_s, self._floor.stopping)

    def _measure(self, attempt: Attempt) -> None:
        metrics, job = self._floor.metrics, attempt.job
        operation, product = job.operation, job.product.part_number
        metrics.add(series.UNIT_RESULTS, head=self.head_id, result=attempt.result, operation=operation, product=product)
        if attempt.number == 1 and attempt.fault is None:
            metrics.add(series.FIRST_PASS, operation=operation, product=product)
        if attempt.fault is not None:
            metrics.add(series.DEFECTS, head=self.head_id, code=attempt.fault.code)

    def _log_verdict(self, attempt: Attempt, lamp: Lamp) -> None:
        fault = attempt.fault
        log.info(
            "verdict",
            head=self.head_id,
            eid=attempt.eid,
            attempt=attempt.number,
            result=attempt.result,
            outcome=attempt.outcome,
            lamp=lamp,
            code="" if fault is None else fault.code,
            detail="" if fault is None else fault.detail,
        )

    def _count_states(self, events: list[StateChanged]) -> None:
        metrics = self._floor.metrics
        for event in events:
            metrics.add(series.STATE_SECONDS, event.old_duration_ms / 1000, head=self.head_id, e10=event.old)
            if event.new == E10.UDT:
                metrics.add(series.FAILURES, head=self.head_id)

    def _step(self, attempt: Attempt, phase: Phase) -> None:
        attempt.phase = phase
        self._enter(phase, CODE_REGULAR_WORK)

    def _enter(self, phase: Phase, code: int, *, reason: str = "") -> None:
        """Move on the board; an E10 transition goes into the outbox without being waited for."""
        events = self._floor.board.enter(self.head_id, phase, code, reason=reason)
        if events:
            self._count_states(events)
            self._floor.journal.events([("state_changed", event) for event in events])
