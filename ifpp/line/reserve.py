"""Which chips a job order is to have to itself, when only their number is said.

The first ones by EID that have all their packages and no other purpose: chips of a reel follow each other.
"""

from __future__ import annotations

from datetime import datetime

from ifpp.errors import SupplyError
from ifpp.line.request import Wish
from ifpp.model.messages import Job
from ifpp.store.factory import Factory


def choose_chips(factory: Factory, job: Job, units: int, *, lot: str, now: datetime) -> list[str]:
    """Choose `units` covered chips, those the job order keeps already among them.

    Raises SupplyError LOT.UNKNOWN, and RESERVATION.REFUSED when there are fewer.
    """
    product = job.product.part_number, job.region
    plan = factory.plan_for(*product, job.customer, now)
    wish = Wish(*product, () if plan is None else plan.profiles, job.job_order_id)
    number = factory.lot_number(lot) if lot else None
    kept: list[str] = []
    others: list[str] = []
    for chip in factory.lot_chips(number, now):
        if chip.kept_for == job.job_order_id:
            kept.append(chip.eid)
        elif len(others) < units and not chip.busy and chip.held and not (wish.elsewhere(chip) or wish.lacking(chip)):
            others.append(chip.eid)
    chosen = [*kept, *others][:units]
    if len(chosen) < units:
        detail = f"{len(chosen)} chips have their packages and no other purpose, {units} were asked for"
        raise SupplyError("RESERVATION.REFUSED", detail, where=job.job_order_id)
    return chosen
