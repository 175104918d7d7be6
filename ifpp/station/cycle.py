"""One work cycle of one unit: read the chip, claim, settle what is open, load, verify, seal. Knows no lamp."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

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
from ifpp.fpa.fit import Wanted, preflight
from ifpp.fpa.load import Order, Verdict, load, prepare, read_back, require_listed
from ifpp.fpa.remove import remove
from ifpp.fpa.settle import settle
from ifpp.fpa.steps import Steps, permit_requests, told
from ifpp.hw.owner import Owner
from ifpp.log import get_logger
from ifpp.model.chip import Permit, firmware_name, version_bytes
from ifpp.model.clock import pause
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Claim, ClaimedPackage, ClaimRequest, Job, SealProof
from ifpp.model.recipe import CleanToShip, Fit, Identify, Load, Lock, Recipe, Verify
from ifpp.model.states import PackageState, Phase
from ifpp.station.attempt import Attempt, settled, under_way
from ifpp.station.board import CODE_NO_HOST, CODE_REGULAR_WORK
from ifpp.station.edges import Edge
from ifpp.station.floor import Floor
from ifpp.station.links import Links
from ifpp.station.notes import Notes
from ifpp.station.ready import check, in_order
from ifpp.station.records import SentPackage
from ifpp.trust.chain import EuiccKey
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.fpx import parse_prepare_download

log = get_logger("station.cycle")
Permitted = Mapping[str, asyncio.Task[Permit]]
"""The permits that were asked for, by the name of the step that needs them."""


class Enter(Protocol):
    """Shows on the board where a head is."""

    def __call__(self, phase: Phase, code: int, *, reason: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Supply:
    """What the store holds for one chip: the claim, and each package that may have to be sent, ready to send."""

    claim: Claim
    orders: dict[str, Order]


class Cycle:
    """Takes units of one head through their work, one after another; what it learns stands in the attempt."""

    def __init__(self, head_id: str, chip: Chip, owner: Owner, floor: Floor, enter: Enter) -> None:
        self._head_id = head_id
        self._chip = chip
        self._owner = owner
        self._floor = floor
        self._enter = enter
        self._links = Links(chip, floor.journal, floor.settings.heads[head_id])

    async def run(self, attempt: Attempt) -> None:
        """Provision the seated unit; raises IfppError. Every package that was sent has its word in `attempt.loads`."""
        try:
            await self._provision(attempt)
        finally:
            self._floor.store.done(attempt.eid, attempt.attempt_id)

    async def _provision(self, attempt: Attempt) -> None:
        # way of a unit, step 4
        attempt.sn = await self._floor.serials.seated(self._head_id, self._chip.port, self._owner)
        eid = await self._owner.call(self._meet)
        attempt.eid = eid
        self._floor.board.seat(self._head_id, eid, attempt.sn)
        attempt.seatings = self._floor.lives[self._head_id].seated(eid)
        self._step(attempt, Phase.IDENTIFIED)
        wanted, finish = attempt.job.recipe, self._floor.settings.recipe.finish
        recipe = self._floor.recipes.of(wanted.name, wanted.revision, finish=finish)
        notes = attempt.notes = Notes(recipe, self._floor.clock)
        if self._floor.route is not None:
            await self._floor.route.check(attempt, self._floor, self._without_answer)
        with notes.step(Identify().name) as evidence:
            identity, supply = await self._identify(attempt)
            evidence.update(told(identity))
        self._step(attempt, Phase.CLAIMED)
        emptied = supply.claim.remove and not _kept(supply.claim)
        attempt.rework_id, attempt.stock = supply.claim.rework_id, bool(emptied) or not recipe.ships
        permits = {} if emptied else self._ask_permits(recipe, identity)
        try:
            steps = await self._install(attempt, recipe, identity, supply)
            if not emptied:
                await self._finish(attempt, recipe, steps, permits)
        except IfppError:
            sent = {package.package_id for package, _ in attempt.loads}
            if any(package.package_id not in sent for package in supply.claim.packages):
                await self._release(attempt)
            raise
        finally:
            await _forget(permits.values())

    async def _identify(self, attempt: Attempt) -> tuple[Identity, Supply]:
        """Read the chip; store and journal answer meanwhile."""
        eid = Eid(attempt.eid)
        claimed = asyncio.create_task(self._supply(attempt), name=f"claim {self._head_id}")
        try:
            attempt.number, identity, block_size = await asyncio.gather(
                asyncio.wrap_future(self._floor.journal.next_attempt(eid)),
                self._owner.call(self._chip.identify, eid),
                self._links.recall(eid),
            )
        except BaseException:
            await self._give_back(attempt, claimed)
            raise
        self._links.begin(block_size)
        attempt.link, attempt.firmware = self._links.told(), firmware_name(eid, identity.info2)
        supply = await claimed
        self._floor.at_edge(Edge.CLAIMED)
        return identity, supply

    async def _finish(self, attempt: Attempt, recipe: Recipe, steps: Steps, permits: Permitted) -> None:
        """What a recipe does to the chip once its profiles are on it, from the deleted keys to the last look."""
        assert attempt.notes is not None  # noqa: S101 - set before anything is claimed
        self._step(attempt, Phase.SEALING)
        for step in recipe.steps:
            if isinstance(step, Identify | Fit | Load | Verify):
                continue  # done before, package by package: nothing is loaded on top of a doubt
            with attempt.notes.step(step.name) as evidence:
                if isinstance(step, CleanToShip):
                    attempt.seal = _proof(steps)
                    continue
                permit = await permits[step.name] if step.name in permits else None
                try:
                    evidence.update(await self._owner.call(steps.perform, step, permit))
                finally:
                    attempt.notes.run.differences = list(steps.differences)
                if isinstance(step, Lock):
                    self._floor.at_edge(Edge.SEALED)

    def _without_answer(self, code: str) -> None:
        """The unit waits for its route check ("": no more), and the board says so."""
        self._enter(Phase.IDENTIFIED, CODE_NO_HOST if code else CODE_REGULAR_WORK, reason=code)

    def _ask_permits(self, recipe: Recipe, identity: Identity) -> Permitted:
        """Ask for the permits of key deletion and lock while the package is loaded; a locked chip needs none."""
        permits = self._floor.permits
        if permits is None or is_locked(identity.status):
            return {}
        codec = self._chip.codec
        return {
            name: asyncio.create_task(permits.ask(codec, identity.eid, request), name=f"permit {self._head_id}")
            for name, request in permit_requests(recipe, codec).items()
        }

    def _meet(self) -> Eid:
        """Power the chip and ask who it is; on the owner's thread."""
        self._chip.open()
        return self._chip.eid()

    # ---- what the store holds ---------------------------------------------------------------------

    async def _supply(self, attempt: Attempt) -> Supply:
        """Claim the chip's packages and fetch them."""
        claim = await self._claim(attempt)
        try:
            if attempt.sn and claim.sn and attempt.sn != claim.sn:
                detail = f"the label says {attempt.sn}, the traveller of its chip {claim.sn}"
                raise SupplyError("UNIT.TRAVELLER", detail, where=f"EID {attempt.eid}")
            attempt.sn, attempt.lease_id = attempt.sn or claim.sn, claim.attempt_id
            if claim.eid != attempt.eid:
                raise CardError("EID.MISMATCH", f"the claim is for EID {claim.eid}", where=f"EID {attempt.eid}")
            orders = {
                package.package_id: await self._order(Eid(claim.eid), package)
                for package in [*claim.unresolved, *claim.packages]
            }
            for package in claim.packages:
                _check_product(attempt.job, package, orders[package.package_id])
        except IfppError:
            await self._release(attempt)
            raise
        return Supply(claim, orders)

    async def _give_back(self, attempt: Attempt, claimed: asyncio.Task[Supply]) -> None:
        """The chip turned out to be unfit while its packages were claimed: a release ends a claim it overtakes, too."""
        claimed.cancel()
        await asyncio.wait([claimed])
        if claimed.cancelled() or claimed.exception() is None:
            await self._release(attempt)

    async def _claim(self, attempt: Attempt) -> Claim:
        """Claim this chip's packages; while the store is away the unit waits, and the board says so."""
        floor, job = self._floor, attempt.job
        request = ClaimRequest(
            attempt_id=attempt.attempt_id,
            eid=attempt.eid,
            sku=job.product.part_number,
            region=job.region,
            station_id=floor.settings.id,
            head_id=self._head_id,
            lease_s=round(floor.settings.deadlines.lease_s),
            customer=job.customer,
            job_order_id=job.job_order_id,
            sn=attempt.sn,
        )
        while True:
            try:
                with floor.metrics.timed(series.CLAIM_SECONDS, example=attempt.attempt_id):
                    claim = await floor.store.claim(request)
            except ServiceError as error:
                if error.fault.retry is not Retry.LATER or floor.stopping.is_set():
                    raise
                self._enter(Phase.IDENTIFIED, CODE_NO_HOST, reason=error.code)
                await pause(floor.clock, floor.settings.deadlines.reconnect_s, floor.stopping)
                continue
            self._enter(Phase.CLAIMED, CODE_REGULAR_WORK)
            return claim

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
            profile_type=package.profile_type,
        )

    async def _release(self, attempt: Attempt) -> None:
        """Give back what was claimed and never sent; a store that is away lets the lease run out instead."""
        try:
            lease_id = attempt.lease_id or attempt.attempt_id
            await self._floor.store.release(attempt.eid, lease_id, self._floor.settings.id)
        except (ServiceError, SupplyError, CustodyError) as error:
            log.warning("release", head=self._head_id, attempt=attempt.attempt_id, code=error.code)

    # ---- what the chip gets -----------------------------------------------------------------------

    async def _install(self, attempt: Attempt, recipe: Recipe, identity: Identity, supply: Supply) -> Steps:
        """Bring the claim's profiles onto the chip; returns it ready for the steps that follow."""
        floor, claim = self._floor, supply.claim
        assert attempt.notes is not None  # noqa: S101
        with attempt.notes.step(Fit().name) as evidence:
            chain = [base64.b64decode(cert) for cert in claim.eum_chain_b64]
            euicc = base64.b64decode(claim.euicc_certificate_b64)
            key = floor.trust.euicc(euicc, chain, identity.eid, floor.clock.now())
            if is_locked(identity.status) and claim.packages:
                raise CardError("EUICC.FPA_LOCKED", "the factory services are locked", where=f"EID {identity.eid}")
            eim = check(recipe, identity, claim, self._chip.port, floor.clock.now())
            if not claim.remove and not claim.unresolved:
                self._preflight(identity, supply, claim.packages)
            evidence["profiles"] = ", ".join(package.profile_type for package in _kept(claim))
        for package in claim.remove:
            await self._remove(attempt, package, key)
        if claim.remove:  # there is more room now
            identity = await self._owner.call(self._chip.identify, identity.eid)
        for package in claim.unresolved:
            await self._resolve(attempt, identity, package, supply, key)
        if claim.installed:
            listed = {Iccid(done.iccid) for done in claim.installed}
            with attempt.notes.step(Verify().name) as evidence:
                await self._owner.call(require_listed, self._chip, listed)
                evidence["iccid"] = ", ".join(sorted(listed))
        if claim.remove or claim.unresolved:
            self._preflight(identity, supply, claim.packages)
        for package in in_order(recipe, claim.packages):
            await self._load(attempt, package, supply.orders[package.package_id], key)
        profiles = {Iccid(package.iccid): package.profile_type for package in _kept(claim)}
        return Steps(self._chip, identity.eid, recipe, profiles, eim)

    async def _remove(self, attempt: Attempt, package: ClaimedPackage, key: EuiccKey) -> None:
        """Rework: the intent, then the chip, then its word. Nothing on a chip is taken back, so nothing is asked twice.

        Wherever this process dies, the chip is read again and says itself what is gone.
        """
        floor = self._floor
        died = CardError("STATION.DIED", "nobody was there to hear the chip", where=f"ICCID {package.iccid}")
        attempt.removals[package.package_id] = (package, died)
        await asyncio.wrap_future(floor.journal.removing(attempt.attempt_id, self._will(attempt)))
        floor.at_edge(Edge.REMOVING)
        try:
            removal = await self._owner.call(remove, self._chip, Iccid(package.iccid), key)
        except IfppError as error:
            attempt.removals[package.package_id] = (package, error)
            raise
        floor.at_edge(Edge.REMOVED)
        attempt.removals[package.package_id] = (package, removal)
        log.info("removed", head=self._head_id, eid=attempt.eid, iccid=package.iccid, result=removal.result)
        try:
            await asyncio.wrap_future(floor.journal.removing(attempt.attempt_id, self._will(attempt)))
        except CustodyError as error:  # the chip says it again
            log.warning("removal not noted", head=self._head_id, eid=attempt.eid, code=error.code)

    def _preflight(self, identity: Identity, supply: Supply, packages: list[ClaimedPackage]) -> None:
        """Refuse what does not fit before any of it is sent."""
        recipe = self._floor.settings.recipe
        wanted = Wanted(
            memory_factor=recipe.memory_factor,
            svn=version_bytes(recipe.svn),
            profile_version=version_bytes(recipe.profile_version),
            denied=supply.claim.denied,
        )
        preflight(identity, [supply.orders[package.package_id] for package in packages], wanted)

    async def _resolve(
        self, attempt: Attempt, identity: Identity, package: ClaimedPackage, supply: Supply, key: EuiccKey
    ) -> None:
        """Read the chip to settle what an earlier attempt left open; then, where allowed, send the same package."""
        order = supply.orders[package.package_id]
        kept = await asyncio.wrap_future(self._floor.journal.result(identity.eid, package.package_id))
        try:
            verdict = await self._owner.call(settle, self._chip, order, bytes.fromhex(package.otk_id), key, kept)
        except TransportError as error:  # still open: nothing is decided by a chip that went away
            verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=error, pir=None)
        log.info("settled", head=self._head_id, eid=identity.eid, iccid=package.iccid, state=verdict.state)
        attempt.conclude(package, verdict)
        if verdict.state is PackageState.FAILED and not verdict.spent:
            self._preflight(identity, supply, [package])
            await self._load(attempt, package, order, key)
        elif verdict.fault is not None:
            raise verdict.fault

    async def _load(self, attempt: Attempt, package: ClaimedPackage, order: Order, key: EuiccKey) -> None:
        """Way of a unit, steps 5 and 6: from the intent to the read-back."""
        assert attempt.notes is not None  # noqa: S101
        noted: asyncio.Task[None] | None = None
        self._step(attempt, Phase.LOADING)
        try:
            with attempt.notes.step(Load().name) as evidence:
                verdict = await self._send(attempt, package, order, key)
                evidence.update(iccid=str(order.iccid), apdus=str(verdict.apdus), load_ms=str(verdict.load_ms))
                attempt.conclude(package, verdict)
                self._floor.at_edge(Edge.ANSWERED)
                self._measure(attempt, verdict)
                self._step(attempt, Phase.VERIFYING)
                noted = asyncio.create_task(self._note(attempt, package, verdict), name=f"settled {self._head_id}")
                if verdict.fault is not None:
                    raise verdict.fault
            with attempt.notes.step(Verify().name) as evidence:
                await self._verify(attempt, package, order, verdict)
                evidence["iccid"] = str(order.iccid)
        finally:
            if noted is not None:
                await noted

    async def _verify(self, attempt: Attempt, package: ClaimedPackage, order: Order, verdict: Verdict) -> None:
        """Hold the chip's result against its own list."""
        if verdict.pir is None:
            return
        try:
            await self._owner.call(read_back, self._chip, order, verdict.pir)
        except VerificationError as error:
            attempt.conclude(package, replace(verdict, state=PackageState.UNKNOWN, fault=error))
            raise

    def _measure(self, attempt: Attempt, verdict: Verdict) -> None:
        metrics, product = self._floor.metrics, attempt.job.product.part_number
        metrics.observe(series.LOAD_SECONDS, verdict.load_ms / 1000, example=attempt.attempt_id, product=product)
        metrics.add(series.APDUS, verdict.apdus, head=self._head_id)

    async def _send(self, attempt: Attempt, package: ClaimedPackage, order: Order, key: EuiccKey) -> Verdict:
        """Write the intent while the chip checks the order; no byte of the BPP leaves before both are done."""
        before = self._chip.apdus
        told = attempt.loads
        intended, prepared = await asyncio.gather(
            self._intend(attempt, package), self._owner.call(prepare, self._chip, order), return_exceptions=True
        )
        apdus = self._chip.apdus - before
        if isinstance(intended, CustodyError) and intended.code == "JOURNAL.WRITE":
            attempt.loads = told  # nothing was written and nothing was sent
            raise intended
        for refusal in (intended, prepared):
            if isinstance(refusal, IfppError):  # no byte of the BPP has left: the key cannot be spent
                return Verdict(PackageState.FAILED, spent=False, fault=refusal, pir=None, apdus=apdus)
            if isinstance(refusal, BaseException):
                raise refusal
        self._links.prepared()
        attempt.link = self._links.told()
        try:
            verdict = await self._owner.call(
                load, self._chip, order, key, partial(self._floor.board.move, self._head_id)
            )
        except TransportError as error:  # the head hangs: nobody knows what the chip makes of it
            verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=error, pir=None)
        self._links.loaded(verdict.fault)
        return replace(verdict, apdus=verdict.apdus + apdus)

    async def _intend(self, attempt: Attempt, package: ClaimedPackage) -> None:
        """SENT, synced in the journal, then in the store's ledger: from here on only the chip can settle this package.

        The journal comes first, so that there is no moment at which only the store knows.
        """
        floor = self._floor
        floor.at_edge(Edge.INTENDING)
        attempt.conclude(package, under_way(package.iccid))
        sent = SentPackage(
            attempt_id=attempt.attempt_id,
            package_id=package.package_id,
            eid=attempt.eid,
            iccid=package.iccid,
            transaction_id=package.transaction_id,
            bpp_sha256=package.bpp_sha256,
            head_id=self._head_id,
        )
        with floor.metrics.timed(series.JOURNAL_COMMIT_SECONDS):
            await asyncio.wrap_future(floor.journal.sent(sent, self._will(attempt)))
        floor.at_edge(Edge.JOURNALLED)
        if package.state == PackageState.CLAIMED:
            await floor.store.sent(attempt.eid, package.package_id, attempt.lease_id, floor.settings.id)
        floor.at_edge(Edge.SENT)

    async def _note(self, attempt: Attempt, package: ClaimedPackage, verdict: Verdict) -> None:
        """Write the chip's word. A journal that cannot be written now says SENT still, which costs one more reading of
        the chip should this process die before the unit is closed.
        """
        floor = self._floor
        try:
            written = floor.journal.settled(settled(attempt.attempt_id, package, verdict), self._will(attempt))
            await asyncio.wrap_future(written)
        except CustodyError as error:
            log.warning("result not noted", head=self._head_id, eid=attempt.eid, code=error.code, detail=error.detail)
        floor.at_edge(Edge.SETTLED)

    def _will(self, attempt: Attempt) -> bytes:
        floor = self._floor
        return attempt.will(
            station_id=floor.settings.id,
            boot_id=floor.journal.boot_id,
            now=floor.clock.now(),
            now_s=floor.clock.monotonic(),
        )

    def _step(self, attempt: Attempt, phase: Phase) -> None:
        attempt.phase = phase
        self._enter(phase, CODE_REGULAR_WORK)


def _kept(claim: Claim) -> list[ClaimedPackage]:
    """Every package whose profile the chip holds in the end."""
    return [*claim.installed, *claim.unresolved, *claim.packages]


def _proof(steps: Steps) -> SealProof:
    seal = steps.seal
    assert seal is not None  # noqa: S101 - a recipe that ships reads back before
    return SealProof(
        keys_deleted=seal.keys_deleted,
        keys_remaining=seal.keys_remaining,
        fpa_locked=seal.locked,
        lpa_answers=seal.lpa_answers,
    )


async def _forget(tasks: Iterable[asyncio.Task[Permit]]) -> None:
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])


def _check_product(job: Job, package: ClaimedPackage, order: Order) -> None:
    """Job and package must speak of the same product before anything is sent to the chip.

    Raises SupplyError BPP.OTHER_PRODUCT: it stops this unit on this head and nothing else.
    """
    if (package.sku, package.region) != (job.product.part_number, job.region):
        detail = (
            f"the job says {job.product.part_number} in {job.region}, the package {package.sku} in {package.region}"
        )
        raise SupplyError("BPP.OTHER_PRODUCT", detail, where=f"ICCID {package.iccid}")
    if order.bpp.metadata.iccid != order.iccid:
        detail = f"its own metadata say ICCID {order.bpp.metadata.iccid}"
        raise SupplyError("BPP.OTHER_PRODUCT", detail, where=f"ICCID {order.iccid}")
