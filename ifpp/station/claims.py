"""What the store holds for the chip in a head: claimed, fetched, checked against the job order; given back unsent."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Protocol

from ifpp import metrics as series
from ifpp.errors import CardError, CustodyError, IfppError, Retry, ServiceError, SupplyError
from ifpp.fpa.load import Order
from ifpp.log import get_logger
from ifpp.model.clock import pause
from ifpp.model.ids import Eid, Iccid
from ifpp.model.messages import Claim, ClaimedPackage, ClaimRequest, Job
from ifpp.model.rsp import DownloadOrder
from ifpp.model.states import Phase
from ifpp.station.attempt import Attempt
from ifpp.station.board import CODE_NO_HOST, CODE_REGULAR_WORK
from ifpp.station.downloads import code_order, is_code
from ifpp.station.floor import Floor
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.fpx import parse_prepare_download

log = get_logger("station.claims")


class Enter(Protocol):
    """Shows on the board where a head is."""

    def __call__(self, phase: Phase, code: int, *, reason: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class Supply:
    """What the store holds for one chip: the claim, and each package or activation code in it, ready for use."""

    claim: Claim
    orders: dict[str, Order]
    codes: dict[str, DownloadOrder]


class Claims:
    """The claims of one head."""

    def __init__(self, head_id: str, floor: Floor, enter: Enter) -> None:
        self._head_id = head_id
        self._floor = floor
        self._enter = enter

    async def supply(self, attempt: Attempt) -> Supply:
        """Claim the chip's packages and fetch them."""
        claim = await self._claim(attempt)
        try:
            if attempt.sn and claim.sn and attempt.sn != claim.sn:
                detail = f"the label says {attempt.sn}, the traveller of its chip {claim.sn}"
                raise SupplyError("UNIT.TRAVELLER", detail, where=f"EID {attempt.eid}")
            attempt.sn, attempt.lease_id = attempt.sn or claim.sn, claim.attempt_id
            if claim.eid != attempt.eid:
                raise CardError("EID.MISMATCH", f"the claim is for EID {claim.eid}", where=f"EID {attempt.eid}")
            orders, codes = {}, {}
            for package in [*claim.unresolved, *claim.packages]:
                if is_code(package):
                    codes[package.package_id] = code_order(Eid(claim.eid), package)
                else:
                    orders[package.package_id] = await self._order(Eid(claim.eid), package)
            for package in claim.packages:
                _check_product(attempt.job, package, orders.get(package.package_id))
        except IfppError:
            await self.release(attempt)
            raise
        return Supply(claim, orders, codes)

    async def give_back(self, attempt: Attempt, claimed: asyncio.Task[Supply]) -> None:
        """The chip turned out to be unfit while its packages were claimed: a release ends a claim it overtakes, too."""
        claimed.cancel()
        await asyncio.wait([claimed])
        if claimed.cancelled() or claimed.exception() is None:
            await self.release(attempt)

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

    async def release(self, attempt: Attempt) -> None:
        """Give back what was claimed and never sent; a store that is away lets the lease run out instead."""
        try:
            lease_id = attempt.lease_id or attempt.attempt_id
            await self._floor.store.release(attempt.eid, lease_id, self._floor.settings.id)
        except (ServiceError, SupplyError, CustodyError) as error:
            log.warning("release", head=self._head_id, attempt=attempt.attempt_id, code=error.code)


def _check_product(job: Job, package: ClaimedPackage, order: Order | None) -> None:
    """Job and package must speak of the same product before anything is sent to the chip.

    Raises SupplyError BPP.OTHER_PRODUCT: it stops this unit on this head and nothing else.
    """
    if (package.sku, package.region) != (job.product.part_number, job.region):
        detail = (
            f"the job says {job.product.part_number} in {job.region}, the package {package.sku} in {package.region}"
        )
        raise SupplyError("BPP.OTHER_PRODUCT", detail, where=f"ICCID {package.iccid}")
    if order is not None and order.bpp.metadata.iccid != order.iccid:
        detail = f"its own metadata say ICCID {order.bpp.metadata.iccid}"
        raise SupplyError("BPP.OTHER_PRODUCT", detail, where=f"ICCID {order.iccid}")
