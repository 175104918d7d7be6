"""Who may load what: claims, the word "sent", releases and leases.

A claim gives one attempt the packages of one chip for one SKU and region that the profile plan names, in its order,
or all loadable ones where there is no plan (`ifpp.store.selection`); all or none. It is idempotent: an attempt that
holds packages gets the same ones again. A package that was sent, and whose result is not known, is never handed out: it
comes back as `unresolved`, for any head to read the chip it belongs to.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, or_, select

from ifpp.errors import CustodyError, IfppError, ServiceError, SupplyError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.model.messages import CACHE_HEAD, Claim, ClaimedPackage, ClaimRequest, Job
from ifpp.model.states import PackageState
from ifpp.store import codes, rework, travellers
from ifpp.store.claim_facts import PACKAGES, Facts, read
from ifpp.store.codes import Tie
from ifpp.store.denylist import Pair, denied, refusing
from ifpp.store.ledger import Step, lock_package, take
from ifpp.store.plans import Plan, Planned, in_force
from ifpp.store.reservations import keeper, running
from ifpp.store.schema import chain, chip, claim, package, reading
from ifpp.store.selection import Product, Selection, ahead, choose, expired, lease_runs, soon, taken
from ifpp.store.trail import Trail

S = PackageState
_Package = Row[Any]

_MAX_LEASE_S = 7 * 24 * 3600
# A claim made ahead is held so much longer than its station was told: clocks differ, and a load takes its time.
_AHEAD_SLACK_S = 3600
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_CLAIM_FIELDS = ("attempt_id", "eid", "sku", "region", "station_id", "head_id")
_OPEN = (S.SENT, S.UNKNOWN)
_MAX_REASONS, _MAX_DETAIL = 8, 400

_chain = select(chain.c.certificate).where(chain.c.chain_id == bindparam("chain_id")).order_by(chain.c.position)
_MAX_SEEN_CHAINS = 64
_seen_chains: dict[str, tuple[str, ...]] = {}
_attempt = select(claim).where(claim.c.attempt_id == bindparam("attempt_id"))
_lock_attempt = _attempt.with_for_update(key_share=True)
_told = select(reading.c.package_id, reading.c.attempt_id).where(
    reading.c.attempt_id.in_(bindparam("attempts", expanding=True))
)
_of_attempt = (
    select(package.c.package_id, package.c.revision, package.c.node_id)
    .where(package.c.attempt_id == bindparam("attempt_id"), package.c.state == S.CLAIMED)
    .order_by(package.c.package_id)
    .with_for_update(key_share=True)
)
# In no order: SQLite would go through every package there is to have one, instead of the claimed ones.
_lapsed = (
    select(package.c.package_id, package.c.revision)
    .where(
        package.c.state == S.CLAIMED,
        or_(
            package.c.lease_until <= bindparam("now"),
            and_(package.c.changed_at > bindparam("soon"), package.c.head_id != CACHE_HEAD),
        ),
    )
    .with_for_update(key_share=True, skip_locked=True)
)


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a claim gets, decided and not yet written."""

    request: ClaimRequest
    owner: _Package
    known: bool
    lease_until: str
    steps: list[Step]
    granted: Sequence[_Package]
    unresolved: Sequence[_Package]
    installed: Sequence[_Package]
    remove: Sequence[_Package]
    sn: str
    rework_id: str
    ties: Sequence[Tie] = ()
    new_chip: bool = False

    @property
    def profile_types(self) -> set[str]:
        """What may be loaded by it."""
        return {row.profile_type for row in (*self.granted, *self.unresolved)}


def claim_packages(connection: Connection, trail: Trail, requests: Sequence[ClaimRequest]) -> list[Claim | IfppError]:
    """Claim the packages of chips (see the module), at the time of the trail; the caller commits.

    Returns for each request, in order, its claim or why it is refused: SupplyError (EID.UNKNOWN, SKU.UNKNOWN,
    REGION.UNKNOWN, BPP.*, UNIT.*, JOB.OTHER_STATION), ServiceError STORE.REFUSED for an attempt id that was used for
    something else or has ended. Nothing is written for one that is refused. Claims of one chip, or of one attempt, are
    decided one after the other, all others together. What it raises is of the database, and of all.
    """
    answers: dict[int, Claim | IfppError] = {}
    waiting = list(range(len(requests)))
    while waiting:
        wave, later, busy = list[int](), list[int](), set[tuple[str, str]]()
        for number in waiting:
            keys = {("chip", requests[number].eid), ("attempt", requests[number].attempt_id)}
            (later if keys & busy else wave).append(number)
            busy |= keys
        answers |= zip(wave, _claim_apart(connection, trail, [requests[number] for number in wave]), strict=True)
        waiting = later
    return [answers[number] for number in range(len(requests))]


def _claim_apart(connection: Connection, trail: Trail, requests: Sequence[ClaimRequest]) -> list[Claim | IfppError]:
    """Claim for different chips and different attempts."""
    decided: list[_Grant | IfppError | None] = [_malformed(request) for request in requests]
    sound = [request for request, error in zip(requests, decided, strict=True) if error is None]
    facts = read(connection, sound, trail.at)
    for number, request in enumerate(requests):
        if decided[number] is None:
            decided[number] = _decided(connection, facts, request, trail.at)
    grants = [one for one in decided if isinstance(one, _Grant)]
    new = [one.request.eid for one in grants if one.new_chip]
    codes.tie(connection, trail, [tie for one in grants for tie in one.ties], new)
    take(connection, trail, [step for one in grants for step in one.steps])
    _remember(connection, trail, grants)
    pairs = refusing(connection, {name for one in grants for name in one.profile_types})
    answers = (_answer(connection, one, pairs) if isinstance(one, _Grant) else one for one in decided)
    return [one for one in answers if one is not None]


def _decided(connection: Connection, facts: Facts, request: ClaimRequest, at: str) -> _Grant | IfppError:
    try:
        return _decide(connection, facts, request, at)
    except IfppError as refusal:
        facts.codes.forget(request)
        return refusal


def _decide(connection: Connection, facts: Facts, request: ClaimRequest, at: str) -> _Grant:
    """Decide what a claim gets, and write nothing; raises why it is refused."""
    owner = facts.chips.get(request.eid)
    new_chip = owner is None
    if owner is None:
        if not facts.codes.delivered(request):
            raise SupplyError("EID.UNKNOWN", "the store has no eUICC data for it", where=request.eid)
        owner = codes.new_chip(request.eid)
    if request.attempt_id in facts.reported:
        raise ServiceError("STORE.REFUSED", "this attempt has reported its result", where=request.attempt_id)
    known = _check_attempt(request, facts.attempts.get(request.attempt_id))
    of_chip = [row for row in facts.packages[request.eid] if not _moved_on(row)]
    packages = [row for row in of_chip if not row.leaving]
    remove = [row for row in of_chip if row.leaving and not row.gone]
    order = rework.newest(connection, request.eid) if len(packages) < len(of_chip) else None
    other = order is not None and bool(order.sku)
    travels, job = (request.sn, request.eid) in facts.travelling, facts.jobs[request.job_order_id]
    sn = travellers.check(connection, request, known=travels, of_job=job.travels, other_product=other)
    _check_job(connection, request, owner, job.job)
    _check_rework(request, order, bool(remove))
    unresolved = [row for row in packages if row.state in _OPEN]
    held = [row for row in packages if row.state == S.CLAIMED and row.attempt_id == request.attempt_id]
    held = [row for row in held if (row.sku, row.region) == (request.sku, request.region)]
    lease_until = utc_ms_text(parse_utc(at) + timedelta(seconds=request.lease_s + _slack_s(request)))
    plan = facts.plans[request.sku, request.region, request.customer]
    granted: Sequence[_Package]
    steps: list[Step] = []
    ties: list[Tie] = []
    if held:
        granted, lease_until = _in_order(held, plan), held[0].lease_until
    else:
        product = Product(request.sku, request.region, request.customer)
        holder = request.station_id, request.head_id
        selection = choose(packages, plan, product, holder, at)
        ties = [] if remove or owner.clean_to_ship_at else _codes(facts.codes, request, packages, plan, selection)
        if ties:
            packages = [*packages, *(tie.row for tie in ties)]
            selection = choose(packages, plan, product, holder, at)
        if not remove:
            _check_supply(connection, request, owner, packages, selection, at)
        granted = () if remove and owner.clean_to_ship_at is not None else selection.granted
        _check_ahead(request, granted, unresolved, lease_until)
        steps = _claim_steps(granted, request, at, lease_until, plan)
    return _Grant(
        request,
        owner,
        known,
        lease_until,
        steps,
        granted,
        unresolved,
        [row for row in packages if row.state == S.INSTALLED],
        remove,
        sn,
        "" if order is None else order.rework_id,
        ties,
        new_chip,
    )


def _moved_on(row: _Package) -> bool:
    """Whether this was an activation code that is another chip's now, or nobody's."""
    return bool(row.bpp_bytes == 0 and row.state == S.DESTROYED)


def _void(row: _Package, at: str) -> bool:
    """Whether this is an activation code that nobody will take from its chip, and that is of no use to it."""
    return bool(row.bpp_bytes == 0 and row.state == S.AVAILABLE and (row.withdrawn or expired(row, at)))


def _codes(
    desk: codes.Desk, request: ClaimRequest, packages: Sequence[_Package], plan: Plan | None, selection: Selection
) -> list[Tie]:
    """Find the activation codes that a chip still needs: one where it has nothing, or those its plan lacks.

    Never ahead: a download needs its SM-DP+ anyway. Raises SupplyError BPP.EXHAUSTED when codes were delivered and
    none is left.
    """
    spent = {row.profile_type for row in packages if row.bpp_bytes == 0 and row.state == S.FAILED and row.spent}
    product = request.sku, request.region
    ordered = any((row.sku, row.region) == product and not _void(row, desk.at) for row in packages)
    if plan is None:
        wanted: Sequence[Planned] = () if ordered else (Planned(""),)
    else:
        wanted = [one for one in selection.missing if one.profile_type not in spent]
    if not wanted or request.head_id == CACHE_HEAD:
        return []
    found = [desk.find(request, one.profile_type, one.smdp_oid) for one in wanted]
    if not ordered and not any(found) and desk.delivered(request):
        detail = f"no activation code for {request.sku} in {request.region} is left"
        raise SupplyError("BPP.EXHAUSTED", detail, where=request.eid)
    return [one for one in found if one is not None]


def _answer(connection: Connection, grant: _Grant, pairs: Sequence[Pair]) -> Claim:
    return Claim(
        attempt_id=grant.request.attempt_id,
        eid=grant.request.eid,
        lease_until=grant.lease_until,
        euicc_certificate_b64=_base64(grant.owner.certificate),
        eum_chain_b64=list(_certificates(connection, grant.owner.chain_id)),
        packages=[_claimed(row, S.CLAIMED) for row in grant.granted],
        unresolved=[_claimed(row, S(row.state)) for row in grant.unresolved],
        installed=[_claimed(row, S.INSTALLED) for row in grant.installed],
        denied=denied(pairs, grant.request.eid, grant.profile_types),
        sn=grant.sn,
        remove=[_claimed(row, S.INSTALLED) for row in grant.remove],
        rework_id=grant.rework_id,
    )


def mark_sent(connection: Connection, trail: Trail, package_id: str, attempt_id: str, station_id: str) -> None:
    """Write that the first byte that can spend the key is about to leave; idempotent for the attempt.

    Raises SupplyError BPP.NOT_FOUND, CustodyError CUSTODY.TRANSITION when the package is not this attempt's.
    """
    _check_names(package_id, attempt_id, station_id)
    row = connection.execute(lock_package, {"package_id": package_id}).one_or_none()
    if row is None:
        raise SupplyError("BPP.NOT_FOUND", "there is no such package", where=package_id[:64])
    state = S(row.state)
    holder = connection.execute(_attempt, {"attempt_id": attempt_id}).one_or_none()
    if (
        row.attempt_id != attempt_id
        or holder is None
        or holder.station_id != station_id
        or state not in (S.CLAIMED, S.SENT)
    ):
        detail = f"the package is {state} and not leased to this attempt of {station_id[:64]}"
        raise CustodyError("CUSTODY.TRANSITION", detail, where=package_id)
    if state is S.CLAIMED:
        sent = Step(package_id, row.revision + 1, S.SENT, trail.at, station_id, holder.head_id, attempt_id=attempt_id)
        take(connection, trail, [sent])


def release(connection: Connection, trail: Trail, attempt_id: str, station_id: str) -> int:
    """End an attempt that sent nothing: its claimed packages are free again; return how many. Idempotent.

    The attempt id can never claim again, also when the release overtakes the claim. Raises CustodyError
    CUSTODY.TRANSITION when the attempt is another station's.
    """
    _check_names(attempt_id, station_id)
    at = trail.at
    known = connection.execute(_lock_attempt, {"attempt_id": attempt_id}).one_or_none()
    if known is None:
        tombstone = dict.fromkeys(("sku", "region", "head_id"), "")
        values = tombstone | {"attempt_id": attempt_id, "station_id": station_id, "at": at, "released_at": at}
        connection.execute(claim.insert(), [values])
        trail.note("release", attempt=attempt_id, node=station_id, freed=0)
        return 0
    if known.station_id != station_id:
        raise CustodyError("CUSTODY.TRANSITION", f"the attempt belongs to {known.station_id}", where=attempt_id)
    rows = connection.execute(_of_attempt, {"attempt_id": attempt_id}).all()
    free = [
        Step(row.package_id, row.revision + 1, S.AVAILABLE, at, station_id, known.head_id, detail="released")
        for row in rows
    ]
    take(connection, trail, free)
    if known.released_at is None:
        connection.execute(claim.update().where(claim.c.attempt_id == attempt_id).values(released_at=at))
        trail.note("release", attempt=attempt_id, node=station_id, freed=len(free))
    return len(free)


def expire_leases(connection: Connection, trail: Trail) -> int:
    """Free every claimed package whose lease has run out; return how many. Sent packages have no lease."""
    at = trail.at
    rows = connection.execute(_lapsed, {"now": at, "soon": soon(at)}).all()
    take(
        connection,
        trail,
        [Step(row.package_id, row.revision + 1, S.AVAILABLE, at, "store", detail="lease ran out") for row in rows],
    )
    return len(rows)


def try_plan(connection: Connection, eid: str, product: Product, at: str) -> tuple[Plan | None, Selection]:
    """Choose for a chip as a claim of a new head would, and change nothing. Raises SupplyError EID.UNKNOWN."""
    if connection.execute(select(chip.c.eid).where(chip.c.eid == eid)).scalar() is None:
        raise SupplyError("EID.UNKNOWN", "the store has no eUICC data for it", where=eid[:64])
    packages = connection.execute(PACKAGES, {"eids": [eid]}).all()
    plan = in_force(connection, product.sku, product.region, product.customer, at)
    return plan, replace(choose(packages, plan, product, ("", ""), at), kept_for=keeper(connection, eid))


# ---- inside -----------------------------------------------------------------------------------------


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ServiceError("STORE.REFUSED", f"not an identifier: {name[:40]!r}")


def _malformed(request: ClaimRequest) -> IfppError | None:
    """Say what is wrong with a request as it stands: it must not come near the statements of its neighbours."""
    try:
        _check_request(request)
    except IfppError as error:
        return error
    return None


def _check_request(request: ClaimRequest) -> None:
    _check_names(request.attempt_id, request.eid, request.sku, request.region, request.station_id, request.head_id)
    _check_names(*filter(None, (request.customer, request.job_order_id, request.sn)))
    if not 1 <= request.lease_s <= _MAX_LEASE_S:
        raise ServiceError("STORE.REFUSED", f"a lease of {request.lease_s} s is not possible", where=request.attempt_id)


def _check_rework(request: ClaimRequest, order: Row[Any] | None, remove: bool) -> None:
    """A unit in rework becomes what its order says; only a station that has the chip can take profiles off it."""
    if order is None:
        return
    if order.sku and (order.sku, order.region) != (request.sku, request.region):
        detail = f"its rework order says {order.sku} in {order.region}, the job {request.sku} in {request.region}"
        raise SupplyError("BPP.OTHER_PRODUCT", detail[:_MAX_DETAIL], where=request.eid)
    if remove and request.head_id == CACHE_HEAD:
        raise SupplyError("UNIT.UNRESOLVED", "profiles must leave its chip first", where=request.eid)
    if order.sealed and not remove:
        raise SupplyError("UNIT.EMPTIED", f"rework order {order.rework_id}", where=request.eid)


def _slack_s(request: ClaimRequest) -> int:
    return _AHEAD_SLACK_S if request.head_id == CACHE_HEAD else 0


def _check_ahead(
    request: ClaimRequest, granted: Sequence[_Package], unresolved: Sequence[_Package], lease_until: str
) -> None:
    """What is claimed ahead must be loadable as it is until its lease ends, without anybody asking again."""
    if request.head_id != CACHE_HEAD:
        return
    if unresolved:
        raise SupplyError("UNIT.UNRESOLVED", "its chip must be read first", where=request.eid)
    if any(row.bpp_bytes == 0 for row in granted):
        raise SupplyError("BPP.NOT_FOUND", "activation codes are not claimed ahead", where=request.eid)
    if any(expired(row, lease_until) for row in granted):
        raise SupplyError("BPP.EXPIRED", f"a package of it expires before {lease_until}", where=request.eid)


def _check_attempt(request: ClaimRequest, known: _Package | None) -> bool:
    """Return whether the attempt is known; refuse one that was released or asked for something else before."""
    if known is None:
        return False
    if known.released_at is not None:
        raise ServiceError("STORE.REFUSED", "this attempt was released", where=request.attempt_id)
    before = (known.eid, known.sku, known.region, known.station_id, known.head_id)
    if before != (request.eid, request.sku, request.region, request.station_id, request.head_id):
        raise ServiceError("STORE.REFUSED", "this attempt id was used for another claim", where=request.attempt_id)
    return True


def _check_job(connection: Connection, request: ClaimRequest, owner: Row[Any], job: Job | None) -> None:
    """Refuse a claim for another station's job, and of a chip that is kept for another job order."""
    kept_for = owner.kept_for
    if job is not None and job.stations and request.station_id not in job.stations:
        detail = f"it is for {', '.join(job.stations)}"[:_MAX_DETAIL]
        raise SupplyError("JOB.OTHER_STATION", detail, where=f"job order {request.job_order_id}")
    if kept_for is not None and kept_for != request.job_order_id and running(connection, kept_for):
        raise SupplyError("BPP.RESERVED", f"kept for job order {kept_for}", where=request.eid)


def _in_order(held: Sequence[_Package], plan: Plan | None) -> Sequence[_Package]:
    """Sort what an attempt holds as the plan says, so that a repeated claim gets the same answer."""
    profiles = () if plan is None else plan.profiles
    return sorted(held, key=lambda row: next((n for n, one in enumerate(profiles) if one.fits(row)), len(profiles)))


def _check_supply(
    connection: Connection,
    request: ClaimRequest,
    owner: _Package,
    packages: Sequence[_Package],
    selection: Selection,
    at: str,
) -> None:
    """Say why there is nothing to load. Everything installed and not yet sealed is no error: the claim is empty.

    What is unresolved is read from the chip whatever else there is, but no unit is sealed that lacks a profile of its
    plan: the answer is refused as a whole then.
    """
    ordered = [row for row in packages if (row.sku, row.region) == (request.sku, request.region)]
    unresolved = any(row.state in _OPEN for row in packages)
    others = any(taken(row, (request.station_id, request.head_id), at) for row in ordered)
    if not unresolved:
        if owner.clean_to_ship_at is not None:
            raise SupplyError("UNIT.ALREADY_LOADED", f"clean to ship since {owner.clean_to_ship_at}", where=request.eid)
        if others:
            raise SupplyError("BPP.TAKEN", "claimed by another head", where=request.eid)
        if not ordered:
            raise _nothing_ordered(connection, request, packages)
    if selection.missing and not others:
        lacking = ", ".join(map(str, selection.missing))
        beside = "; ".join(f"{row.profile_type} {why}" for row, why in selection.refused[:_MAX_REASONS])
        raise SupplyError("BPP.INCOMPLETE", f"the plan wants {lacking}; {beside}"[:_MAX_DETAIL], where=request.eid)
    if unresolved or selection.granted:
        return
    idle = [row for row in ordered if row.state in (S.AVAILABLE, S.CLAIMED, S.FAILED) and not row.spent]
    if any(row.withdrawn for row in idle):
        raise SupplyError("BPP.WITHDRAWN", "its packages were delivered and withdrawn", where=request.eid)
    if any(expired(row, at) for row in idle):
        raise SupplyError("BPP.EXPIRED", "no package of this chip is valid any more", where=request.eid)
    installed = {row.profile_type for row in ordered if row.state == S.INSTALLED}
    spent = {row.profile_type for row in ordered if row.state == S.FAILED}
    if not installed or spent - installed:
        raise SupplyError("BPP.EXHAUSTED", f"{len(ordered)} packages, none can be loaded", where=request.eid)


def _nothing_ordered(connection: Connection, request: ClaimRequest, packages: Sequence[_Package]) -> SupplyError:
    of_sku = exists().where(package.c.sku == request.sku)
    if not connection.execute(select(of_sku)).scalar():
        return SupplyError("SKU.UNKNOWN", "no package was delivered for it", where=request.sku)
    if not connection.execute(select(of_sku.where(package.c.region == request.region))).scalar():
        return SupplyError("REGION.UNKNOWN", f"no package of {request.sku} was delivered for it", where=request.region)
    if packages:
        found = ", ".join(sorted({f"{row.sku} in {row.region}" for row in packages}))[:_MAX_DETAIL]
        detail = f"the job says {request.sku} in {request.region}, the chip's packages say {found}"
        return SupplyError("BPP.OTHER_PRODUCT", detail, where=request.eid)
    return SupplyError("BPP.NOT_FOUND", f"none for {request.sku} in {request.region}", where=request.eid)


def _claim_steps(
    granted: Sequence[_Package], request: ClaimRequest, at: str, lease_until: str, plan: Plan | None
) -> list[Step]:
    steps = []
    chosen = "" if plan is None else f"plan {plan.name}"
    for row in granted:
        revision, head_id, until = row.revision, request.head_id, lease_until
        if row.state == S.CLAIMED:
            revision += 1
            why = "the head started anew" if lease_runs(row, at) else "lease ran out"
            if ahead(row) and lease_runs(row, at):  # its station may lose us in the next moment and go on alone
                why, head_id, until = "claimed ahead", CACHE_HEAD, max(until, row.lease_until)
            steps.append(
                Step(row.package_id, revision, S.AVAILABLE, at, request.station_id, request.head_id, detail=why)
            )
        steps.append(
            Step(
                row.package_id,
                revision + 1,
                S.CLAIMED,
                at,
                request.station_id,
                head_id,
                attempt_id=request.attempt_id,
                lease_until=until,
                detail=chosen,
            )
        )
    return steps


def _remember(connection: Connection, trail: Trail, grants: Sequence[_Grant]) -> None:
    """Keep the attempts, and which sendings each was told to read from the chip."""
    fresh = [one.request for one in grants if not one.known]
    if fresh:
        rows = [{name: getattr(one, name) for name in _CLAIM_FIELDS} | {"at": trail.at} for one in fresh]
        connection.execute(claim.insert(), rows)
    asked = [one for one in grants if one.unresolved]
    again = [one.request.attempt_id for one in asked if one.known]
    told = {tuple(row) for row in connection.execute(_told, {"attempts": again})} if again else set()
    for one in asked:
        attempt_id, request = one.request.attempt_id, one.request
        rows = [
            {"attempt_id": attempt_id, "package_id": row.package_id, "revision": row.revision}
            for row in one.unresolved
            if (row.package_id, attempt_id) not in told
        ]
        if rows:
            connection.execute(reading.insert(), rows)
            packages = [row["package_id"] for row in rows]
            who = {"attempt": attempt_id, "node": request.station_id, "head": request.head_id}
            trail.note("reading", eid=request.eid, packages=packages, **who)


def _claimed(row: _Package, state: PackageState) -> ClaimedPackage:
    if row.bpp_bytes == 0:
        return ClaimedPackage(
            **dict.fromkeys(("transaction_id", "otk_id", "bpp_sha256", "prepare_download_b64"), ""),
            package_id=row.package_id,
            iccid="" if row.iccid == row.package_id else row.iccid,
            profile_type=row.profile_type,
            smdp_oid=row.smdp_oid,
            state=state.value,
            bytes=0,
            sku=row.sku,
            region=row.region,
            kind="code",
            activation_code=codes.text_of(row),
            confirmation_code=row.confirmation_code,
        )
    return ClaimedPackage(
        package_id=row.package_id,
        iccid=row.iccid,
        profile_type=row.profile_type,
        smdp_oid=row.smdp_oid,
        transaction_id=row.transaction_id,
        otk_id=row.otk_id,
        state=state.value,
        bpp_sha256=row.bpp_sha256,
        bytes=row.bpp_bytes,
        sku=row.sku,
        region=row.region,
        prepare_download_b64=_base64(row.prepare_download),
    )


def _certificates(connection: Connection, chain_id: str) -> tuple[str, ...]:
    """Return the certificates of a chain, read once: its id is their digest, so they never change."""
    known = _seen_chains.get(chain_id)
    if known is None:
        if len(_seen_chains) >= _MAX_SEEN_CHAINS:
            _seen_chains.clear()
        found = connection.execute(_chain, {"chain_id": chain_id}).scalars()
        known = _seen_chains[chain_id] = tuple(_base64(certificate) for certificate in found)
    return known


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
