"""One work cycle of one unit: read the chip, claim, settle what is open, load, verify, seal. Knows no lamp."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import msgspec

from ifpp import metrics as series
from ifpp.errors import (
    CardError,
    CustodyError,
    IfppError,
    SettingsError,
    SupplyError,
    TransportError,
    VerificationError,
)
from ifpp.fpa.chip import Chip, Identity, has_services, is_locked
from ifpp.fpa.fit import Wanted, preflight, preflight_online
from ifpp.fpa.load import Order, Verdict, load, prepare, read_back, require_listed
from ifpp.fpa.remove import remove
from ifpp.fpa.rsp import Download as Downloaded
from ifpp.fpa.rsp import outcome_of
from ifpp.fpa.settle import settle
from ifpp.fpa.steps import Steps, permit_requests, told
from ifpp.hw.owner import Owner
from ifpp.log import get_logger
from ifpp.model.chip import Permit, firmware_name, version_bytes
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Claim, ClaimedPackage, SealProof
from ifpp.model.recipe import CleanToShip, Download, Fit, Identify, Load, Lock, Notify, Recipe, Verify
from ifpp.model.states import PackageState, Phase
from ifpp.station.attempt import Attempt, settled, under_way
from ifpp.station.board import CODE_NO_HOST, CODE_REGULAR_WORK
from ifpp.station.claims import Claims, Enter, Supply
from ifpp.station.downloads import HeadDownloads, is_code, was_sent
from ifpp.station.edges import Edge
from ifpp.station.floor import Floor
from ifpp.station.history import fates
from ifpp.station.links import Links
from ifpp.station.notes import Notes
from ifpp.station.ready import check, in_order
from ifpp.station.records import SentPackage
from ifpp.trust.chain import EuiccKey

log = get_logger("station.cycle")
Permitted = Mapping[str, asyncio.Task[Permit]]
"""The permits that were asked for, by the name of the step that needs them."""


class Cycle:
    """Takes units of one head through their work, one after another; what it learns stands in the attempt."""

    def __init__(self, head_id: str, chip: Chip, owner: Owner, floor: Floor, enter: Enter) -> None:
        self._head_id = head_id
        self._chip = chip
        self._owner = owner
        self._floor = floor
        self._enter = enter
        self._claims = Claims(head_id, floor, enter)
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
            identity, supply = await self._identify(attempt, recipe)
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
                await self._claims.release(attempt)
            raise
        finally:
            await _forget(permits.values())

    async def _identify(self, attempt: Attempt, recipe: Recipe) -> tuple[Identity, Supply]:
        """Read the chip; store and journal answer meanwhile."""
        eid = Eid(attempt.eid)
        claimed = asyncio.create_task(self._claims.supply(attempt), name=f"claim {self._head_id}")
        try:
            attempt.number, identity, block_size = await asyncio.gather(
                asyncio.wrap_future(self._floor.journal.next_attempt(eid)),
                self._owner.call(partial(self._chip.identify, eid, factory=not recipe.online)),
                self._links.recall(eid),
            )
        except BaseException:
            await self._claims.give_back(attempt, claimed)
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
            if isinstance(step, Identify | Fit | Load | Download | Verify):
                continue  # done before, package by package: nothing is loaded on top of a doubt
            with attempt.notes.step(step.name) as evidence:
                if isinstance(step, CleanToShip):
                    attempt.seal = _proof(steps)
                    continue
                if isinstance(step, Notify):
                    delivered, left = await self._owner.call(self._downloads().notify, Eid(attempt.eid))
                    evidence.update(delivered=str(delivered), waiting=str(left))
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
        if permits is None or is_locked(identity.status) or not has_services(identity.status):
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

    # ---- what the chip gets -----------------------------------------------------------------------

    async def _install(self, attempt: Attempt, recipe: Recipe, identity: Identity, supply: Supply) -> Steps:
        """Bring the claim's profiles onto the chip; returns it ready for the steps that follow."""
        floor, claim = self._floor, supply.claim
        assert attempt.notes is not None  # noqa: S101 - begun in run
        with attempt.notes.step(Fit().name) as evidence:
            key = self._key_of(claim, identity.eid)
            if is_locked(identity.status) and not all(map(is_code, claim.packages)):
                raise CardError("EUICC.FPA_LOCKED", "the factory services are locked", where=f"EID {identity.eid}")
            eim = check(recipe, identity, claim, self._chip.port, floor.clock.now())
            if not claim.remove and not claim.unresolved:
                self._preflight(identity, supply, claim.packages)
            evidence["profiles"] = ", ".join(package.profile_type for package in _kept(claim))
        if recipe.online:
            await self._owner.call(self._downloads().take_over, identity.eid, claim)
        for package in claim.remove:
            await self._remove(attempt, package, key)
        if claim.remove:  # there is more room now
            identity = await self._owner.call(partial(self._chip.identify, identity.eid, factory=not recipe.online))
        for package in claim.unresolved:
            await self._take_up(attempt, identity, package, supply, key)
        if claim.installed:
            listed = {Iccid(done.iccid) for done in claim.installed}
            with attempt.notes.step(Verify().name) as evidence:
                await self._owner.call(require_listed, self._chip, listed)
                evidence["iccid"] = ", ".join(sorted(listed))
        if claim.remove or claim.unresolved:
            self._preflight(identity, supply, claim.packages)
        for package in in_order(recipe, claim.packages):
            await self._bring(attempt, package, supply, key)
        there = {package.package_id: package for package in (*_kept(claim), *(load[0] for load in attempt.loads))}
        profiles = {Iccid(package.iccid): package.profile_type for package in there.values()}
        return Steps(self._chip, identity.eid, recipe, profiles, eim)

    async def _take_up(
        self, attempt: Attempt, identity: Identity, package: ClaimedPackage, supply: Supply, key: EuiccKey | None
    ) -> None:
        """Settle what an earlier attempt left open; then, where allowed, go on with it."""
        if is_code(package):
            await self._download(attempt, package, supply)
        else:
            await self._resolve(attempt, identity, package, supply, _known(key, identity.eid))

    async def _bring(self, attempt: Attempt, package: ClaimedPackage, supply: Supply, key: EuiccKey | None) -> None:
        if is_code(package):
            await self._download(attempt, package, supply)
        else:
            order = supply.orders[package.package_id]
            await self._load(attempt, package, order, _known(key, order.eid))

    def _key_of(self, claim: Claim, eid: Eid) -> EuiccKey | None:
        """The key the chip signs with; None of one that nobody delivered data of, as those that download may be."""
        if not claim.euicc_certificate_b64:
            return None
        chain = [base64.b64decode(cert) for cert in claim.eum_chain_b64]
        euicc = base64.b64decode(claim.euicc_certificate_b64)
        return self._floor.trust.euicc(euicc, chain, eid, self._floor.clock.now())

    async def _remove(self, attempt: Attempt, package: ClaimedPackage, key: EuiccKey | None) -> None:
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
        orders = [supply.orders[package.package_id] for package in packages if not is_code(package)]
        preflight(identity, orders, wanted)
        preflight_online(identity, [package.profile_type for package in packages if is_code(package)], wanted)

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
        assert attempt.notes is not None  # noqa: S101 - begun in run
        noted: asyncio.Task[bool] | None = None
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
                await self._verify(attempt, package, order.iccid, verdict)
                evidence["iccid"] = str(order.iccid)
        finally:
            if noted is not None:
                await noted

    async def _download(self, attempt: Attempt, package: ClaimedPackage, supply: Supply) -> None:
        """As `_load`, with an activation code; one that an earlier attempt began with is taken up where that ended."""
        assert attempt.notes is not None  # noqa: S101 - begun in run
        eid, line = Eid(attempt.eid), self._downloads()
        self._step(attempt, Phase.LOADING)
        with attempt.notes.step(Download().name) as evidence:
            found = await self._fetch(attempt, package, supply, line)
            verdict, iccid = found.verdict, found.iccid
            evidence.update(address=package.smdp_oid, iccid=str(iccid or ""), round_trips=str(line.es9.round_trips))
            evidence.update(apdus=str(verdict.apdus), load_ms=str(verdict.load_ms))
            got = msgspec.structs.replace(package, iccid=str(iccid or package.iccid), bytes=found.size)
            attempt.conclude(got, verdict, tied=found.tied)
            self._floor.at_edge(Edge.ANSWERED)
            self._measure(attempt, verdict)
            self._step(attempt, Phase.VERIFYING)
            stored = await self._note(attempt, got, verdict)
            if verdict.fault is None and iccid is not None:
                await self._verify(attempt, got, iccid, verdict)
            if stored and verdict.spent:
                await self._owner.call(line.taken, eid, package.package_id)
            if verdict.fault is not None:
                raise verdict.fault

    async def _fetch(
        self, attempt: Attempt, package: ClaimedPackage, supply: Supply, line: HeadDownloads
    ) -> Downloaded:
        """Write the intent before the SM-DP+ hears of the code; from then on every ending is a verdict."""
        told, before = attempt.loads, await fates(self._floor.journal, attempt.eid)
        state, spent = before.get(package.package_id, (PackageState.AVAILABLE, False))
        if spent and state in (PackageState.INSTALLED, PackageState.FAILED):
            return await self._told_before(attempt, package)
        try:
            if was_sent(package) and package.package_id not in before:
                known = {Iccid(done.iccid) for done in supply.claim.installed}
                await self._owner.call(line.require_accounted, known)
            await self._intend(attempt, package)
        except (TransportError, VerificationError) as error:  # another station began it, and has to say
            return _open_still(package, error)
        except CustodyError as error:
            if error.code == "JOURNAL.WRITE":
                attempt.loads = told  # nothing was written and nothing was sent
                raise
            return _not_begun(package, error)
        except IfppError as error:
            return _not_begun(package, error)
        try:
            found = await self._owner.call(line.fetch, supply.codes[package.package_id])
        except TransportError as error:  # the head hangs
            found = _open_still(package, error)
        self._links.prepared()
        self._links.loaded(found.verdict.fault)
        attempt.link = self._links.told()
        return replace(found, tied=found.tied or was_sent(package))

    async def _told_before(self, attempt: Attempt, package: ClaimedPackage) -> Downloaded:
        """The chip's own word, which this station has in its journal and the store has not heard of yet."""
        raw = await asyncio.wrap_future(self._floor.journal.result(attempt.eid, package.package_id))
        return outcome_of(package.package_id, raw or b"")

    def _downloads(self) -> HeadDownloads:
        """This head's way to SM-DP+; raises SettingsError when the station has none."""
        downloads = self._floor.downloads
        if downloads is None:
            raise SettingsError("SETTINGS.MISSING", "this station has no way to an SM-DP+", where="[rsp]")
        return downloads.of(self._chip, partial(self._floor.board.move, self._head_id))

    async def _verify(self, attempt: Attempt, package: ClaimedPackage, iccid: Iccid, verdict: Verdict) -> None:
        """Hold the chip's result against its own list."""
        if verdict.pir is None:
            return
        try:
            await self._owner.call(read_back, self._chip, iccid, verdict.pir)
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
        attempt.conclude(package, under_way(package.iccid or package.package_id))
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

    async def _note(self, attempt: Attempt, package: ClaimedPackage, verdict: Verdict) -> bool:
        """Write the chip's word; returns whether it is written.

        A journal that cannot be written now says SENT still, which costs one more reading of the chip should this
        process die before the unit is closed.
        """
        floor = self._floor
        stored = True
        try:
            written = floor.journal.settled(settled(attempt.attempt_id, package, verdict), self._will(attempt))
            await asyncio.wrap_future(written)
        except CustodyError as error:
            log.warning("result not noted", head=self._head_id, eid=attempt.eid, code=error.code, detail=error.detail)
            stored = False
        floor.at_edge(Edge.SETTLED)
        return stored

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
        fpa_absent=seal.absent,
    )


async def _forget(tasks: Iterable[asyncio.Task[Permit]]) -> None:
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])


def _open_still(package: ClaimedPackage, fault: IfppError) -> Downloaded:
    """Nobody knows yet what the chip has made of it."""
    verdict = Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=None)
    return Downloaded(package.package_id, verdict, tied=True)


def _not_begun(package: ClaimedPackage, fault: IfppError) -> Downloaded:
    """Neither chip nor SM-DP+ has heard of the code."""
    verdict = Verdict(PackageState.FAILED, spent=False, fault=fault, pir=None)
    return Downloaded(package.package_id, verdict, tied=was_sent(package))


def _known(key: EuiccKey | None, eid: Eid) -> EuiccKey:
    """Only a chip whose data were delivered has packages of its own."""
    if key is None:
        raise SupplyError("EID.UNKNOWN", "the store has a package and no certificate for it", where=f"EID {eid}")
    return key
