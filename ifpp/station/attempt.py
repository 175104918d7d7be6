"""One work cycle of one unit on one head, from the seating to the event that tells of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from ifpp import __version__
from ifpp.errors import Blame, CardError, IfppError, Retry, TransportError
from ifpp.fpa.load import Verdict
from ifpp.fpa.remove import Removal
from ifpp.model.clock import utc_ms_text, uuid7
from ifpp.model.messages import (
    ClaimedPackage,
    Defect,
    Job,
    Link,
    ProfileResult,
    RemovedProfile,
    RouteNote,
    SealProof,
    UnitRef,
    UnitResultEvent,
)
from ifpp.model.states import Disposition, Lamp, OutcomeClass, PackageState, Phase, UnitResult
from ifpp.station.life import Finding, Seating
from ifpp.station.notes import Notes
from ifpp.station.records import ClosedUnit, Events, Hold, SettledPackage

_RESULT_OF_BLAME = {
    Blame.CONTACT: UnitResult.ERROR,
    Blame.PRODUCT: UnitResult.FAIL,
    Blame.SUPPLY: UnitResult.ERROR,
    Blame.STATION: UnitResult.ERROR,
    Blame.AMBIGUOUS: UnitResult.ERROR,
}


@dataclass(slots=True)
class Attempt:
    """What is known of the unit on a head; grows while the unit goes its way.

    `removals`: by package, how its profile left the chip, or why that is not known; `stock`: not to be sealed.
    `lease_id`: the claim that holds its packages; another one than the attempt where they were claimed ahead. `notes`:
    how far it has come in its recipe. `untied`: activation codes that its chip cannot have been tied to.
    """

    attempt_id: str
    head_id: str
    job: Job
    started_at: datetime
    started_s: float
    seatings: int
    phase: Phase = Phase.SEATED
    eid: str = ""
    lease_id: str = ""
    sn: str = ""
    number: int = 1
    loads: list[tuple[ClaimedPackage, Verdict]] = field(default_factory=list)
    removals: dict[str, tuple[ClaimedPackage, Removal | IfppError]] = field(default_factory=dict)
    rework_id: str = ""
    stock: bool = False
    fault: IfppError | None = None
    seal: SealProof | None = None
    link: Link | None = None
    firmware: str = ""
    route: RouteNote | None = None
    notes: Notes | None = None
    aborted: bool = False
    untied: set[str] = field(default_factory=set)

    def conclude(self, package: ClaimedPackage, verdict: Verdict, *, tied: bool = True) -> None:
        """Note what became of a package; a later word on the same package takes the place of the earlier.

        `tied`: see `ProfileResult`.
        """
        self.untied = self.untied - {package.package_id} if tied else self.untied | {package.package_id}
        self.loads = [load for load in self.loads if load[0].package_id != package.package_id]
        self.loads.append((package, verdict))

    @property
    def unknown(self) -> bool:
        """True while the fate of a package is open."""
        return any(verdict.state is PackageState.UNKNOWN for _, verdict in self.loads)

    @property
    def told_by_chip(self) -> list[int]:
        """Sequence numbers of what the chip keeps for its servers, and what is stored here with this attempt.

        What concerns an activation code is told to its SM-DP+ first (step notify).
        """
        removals = (
            removal for one, removal in self.removals.values() if isinstance(removal, Removal) and one.kind == "package"
        )
        notices = [removal.notice.seq_number for removal in removals if removal.notice is not None]
        results = (verdict.pir for one, verdict in self.loads if one.kind == "package")
        return notices + [pir.seq_number for pir in results if pir is not None]

    @property
    def finished_before(self) -> bool:
        """True when the books already call this unit clean to ship: there was nothing to do."""
        return self.fault is not None and self.fault.code == "UNIT.ALREADY_LOADED"

    @property
    def outcome(self) -> OutcomeClass:
        if self.fault is None or self.finished_before:
            return OutcomeClass.PASS
        if self.unknown:
            return OutcomeClass.AMBIGUOUS
        return OutcomeClass.ABORTED if self.aborted else OutcomeClass(self.fault.fault.blame)

    @property
    def result(self) -> UnitResult:
        if self.fault is None:
            return UnitResult.PASS
        if self.finished_before:
            return UnitResult.SKIPPED
        return UnitResult.ABORTED if self.aborted else _RESULT_OF_BLAME[self.fault.fault.blame]

    @property
    def finding(self) -> Finding:
        """What this attempt says about the head: a lost contact is the head's, whatever it did to the unit."""
        if self.outcome is OutcomeClass.PASS:
            return Finding.PASS
        if self.fault is None or self.aborted:
            return Finding.NOTHING
        blame = self.fault.fault.blame
        if blame is Blame.CONTACT and isinstance(self.fault, TransportError):
            return Finding.CONTACT
        return {Blame.PRODUCT: Finding.FAIL, Blame.STATION: Finding.NOTHING}.get(blame, Finding.OTHER)

    def seating(self, reseats: int) -> Seating:
        """This attempt as its head remembers it."""
        installed = [load for load in self.loads if load[1].state is PackageState.INSTALLED and load[1].load_ms]
        return Seating(
            eid=str(self.eid),
            finding=self.finding,
            again=self.disposition(reseats) is Disposition.RETEST,
            load_s=sum(verdict.load_ms for _, verdict in installed) / 1000,
            load_kb=sum(package.bytes for package, _ in installed) / 1000,
        )

    def disposition(self, reseats: int) -> Disposition:
        """What happens to the unit next; a unit is seated again at most `reseats` times."""
        if self.fault is None or self.finished_before:
            return Disposition.STOCK if self.stock and self.fault is None else Disposition.CONTINUE
        again = self.fault.fault.retry in (Retry.RESEAT, Retry.SAME_PACKAGE)
        again = again or (self.fault.fault.blame is Blame.STATION and self.fault.fault.retry is Retry.LATER)
        if again and self.seatings <= reseats:
            return Disposition.RETEST
        return Disposition.REWORK if self.result is UnitResult.FAIL else Disposition.HOLD

    def lamp(self, reseats: int) -> Lamp:
        """What the head shows once this attempt is stored."""
        if self.outcome is OutcomeClass.PASS:
            return Lamp.PASS
        if self.disposition(reseats) is Disposition.RETEST:
            return Lamp.RESEAT
        return Lamp.HOLD if self.outcome in (OutcomeClass.AMBIGUOUS, OutcomeClass.ABORTED) else Lamp.FAIL

    def settled_packages(self) -> list[SettledPackage]:
        """The journal's view of what became of every package of this attempt."""
        return [settled(self.attempt_id, package, verdict) for package, verdict in self.loads]

    def closed(self, events: Events, life: bytes | None = None) -> ClosedUnit:
        """The end of this attempt as the journal takes it, with the life of its head after it."""
        hold = Hold(self.fault.code, self.fault.advice) if self.fault is not None and self.unknown else None
        passed = self.outcome is OutcomeClass.PASS
        return ClosedUnit(
            attempt_id=self.attempt_id,
            eid=str(self.eid),
            packages=self.settled_packages(),
            events=events,
            hold=hold,
            judged=passed or self.outcome is OutcomeClass.PRODUCT,
            finished=passed,
            life=None if life is None else (self.head_id, life),
        )

    def will(self, *, station_id: str, boot_id: str, now: datetime, now_s: float) -> bytes:
        """The `S/evt/unit_result` document to be sent should this process die now."""
        died = CardError("STATION.DIED", "the station's process died in the middle of this unit")
        orphan = replace(self, fault=died, seal=None)
        event = orphan.event(station_id=station_id, boot_id=boot_id, now=now, now_s=now_s, reseats=0)
        return msgspec.json.encode(event)

    def event(self, *, station_id: str, boot_id: str, now: datetime, now_s: float, reseats: int) -> UnitResultEvent:
        """Write `S/evt/unit_result` of this attempt."""
        load_ms = sum(verdict.load_ms for _, verdict in self.loads)
        cycle_ms = round((now_s - self.started_s) * 1000)
        return UnitResultEvent(
            schema="unit_result/1.0",
            id=uuid7(now),
            ts=utc_ms_text(now),
            node_id=station_id,
            boot_id=boot_id,
            transaction_id=self.attempt_id,
            operation=self.job.operation,
            unit=UnitRef(sn=self.sn, eid=str(self.eid)),
            job_order_id=self.job.job_order_id,
            work_order_id=self.job.work_order_id,
            lot_id=self.job.lot_id,
            product=self.job.product,
            region=self.job.region,
            recipe=self.job.recipe,
            head_id=self.head_id,
            attempt=self.number,
            result=self.result,
            outcome_class=self.outcome,
            disposition=self.disposition(reseats),
            clean_to_ship=self.seal is not None and self.fault is None,
            started_at=utc_ms_text(self.started_at),
            ended_at=utc_ms_text(now),
            cycle_ms=cycle_ms,
            load_ms=load_ms,
            handling_ms=max(0, cycle_ms - load_ms),
            profiles=[
                _profile(package, verdict, self._lease_id, tied=package.package_id not in self.untied)
                for package, verdict in self.loads
            ],
            removed=[_removed(package, removal) for package, removal in self.removals.values()],
            rework_id=self.rework_id,
            defects=[] if self.fault is None else [self._defect(self.fault)],
            seal=self.seal,
            link=self.link,
            firmware=self.firmware,
            sw_version=__version__,
            route_check=self.route,
            run=None if self.notes is None else self.notes.run,
        )

    @property
    def _lease_id(self) -> str:
        return "" if self.lease_id == self.attempt_id else self.lease_id

    def _defect(self, fault: IfppError) -> Defect:
        place = f"{fault.where}: " if fault.where else ""
        return Defect(code=fault.code, text=place + fault.detail, phase=self.phase)


def under_way(iccid: str) -> Verdict:
    """What is to be believed of a package from the intent to send it until the chip or the store says otherwise."""
    fault = CardError("STATION.DIED", "sent, and nobody was there to take the result", where=f"ICCID {iccid}")
    return Verdict(PackageState.UNKNOWN, spent=False, fault=fault, pir=None)


def _removed(package: ClaimedPackage, removal: Removal | IfppError) -> RemovedProfile:
    told = RemovedProfile(package_id=package.package_id, iccid=package.iccid, state="GONE")
    if isinstance(removal, IfppError):
        told.state = "PRESENT" if removal.code == "EUICC.NOT_REMOVED" else "UNKNOWN"
        told.error = f"{removal.code}: {removal.detail}"
        return told
    told.result = removal.result
    told.notification_b64 = "" if removal.notice is None else base64.b64encode(removal.notice.raw).decode()
    return told


def settled(attempt_id: str, package: ClaimedPackage, verdict: Verdict) -> SettledPackage:
    """Return a verdict as the journal keeps it, with the raw result of the chip."""
    return SettledPackage(
        attempt_id=attempt_id,
        package_id=package.package_id,
        state=verdict.state,
        spent=verdict.spent,
        reason="" if verdict.fault is None else verdict.fault.code,
        pir=None if verdict.pir is None else verdict.pir.raw,
    )


def _profile(package: ClaimedPackage, verdict: Verdict, lease_id: str, *, tied: bool) -> ProfileResult:
    installed = verdict.state is PackageState.INSTALLED
    return ProfileResult(
        package_id=package.package_id,
        iccid=package.iccid,
        profile_type=package.profile_type,
        bpp_sha256=package.bpp_sha256,
        bytes=package.bytes,
        apdus=verdict.apdus,
        retries=0,
        load_ms=verdict.load_ms,
        result=UnitResult.PASS
        if installed
        else _RESULT_OF_BLAME[verdict.fault.fault.blame if verdict.fault else Blame.AMBIGUOUS],
        package_state=verdict.state,
        key_consumed=verdict.spent,
        pir_b64="" if verdict.pir is None else base64.b64encode(verdict.pir.raw).decode(),
        error="" if verdict.fault is None else f"{verdict.fault.code}: {verdict.fault.detail}",
        lease_id=lease_id,
        tied=tied,
    )
