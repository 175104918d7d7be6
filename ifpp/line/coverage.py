"""Coverage: for how many units there are packages, which chips lack some, how long the stock lasts, what to order.

The chips that are named and ordered for are those that `ifpp store request` asks for (`ifpp.line.request.Wish`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ifpp.errors import SupplyError
from ifpp.line.request import Wish, still_needed
from ifpp.model.messages import Job
from ifpp.store.factory import Factory
from ifpp.store.plans import Planned
from ifpp.store.stock import StockLevel
from ifpp.store.supply import LotChip

MAX_EIDS = 100
Product = tuple[str, str]


@dataclass(slots=True)
class OrderLine:
    """Packages of one profile type to order from one SM-DPf ("" = not known from plan or deliveries)."""

    smdp_oid: str
    profile_type: str
    packages: int = 0
    eids: list[str] = field(default_factory=list)  # the first hundred


@dataclass(slots=True)
class Coverage:
    """One SKU and region, of a job order or of chips.

    `profiles` are those each chip shall have: of the plan in force, else every type that was delivered to the chips.
    `needed` units are still to be made, None when no job order says so; `covered` chips have all their packages,
    `uncovered` ones are to have some and lack them, `short` of those lack the one-time keys for it too; `missing` units
    have no chip for which could be ordered. `reserved` of the covered chips are kept for the job order, without one for
    any; those kept for another one count here for nothing. `spare` of those and `codes` are more than needed. `spoiled`
    packages can be loaded no more. `codes`: activation codes for any chip, one a unit; they make up for chips that
    are missing.
    """

    job: str
    sku: str
    region: str
    customer: str
    plan: str
    profiles: list[str]
    needed: int | None
    covered: int = 0
    reserved: int = 0
    uncovered: int = 0
    uncovered_eids: list[str] = field(default_factory=list)  # the first hundred
    short: int = 0
    missing: int = 0
    spare: int = 0
    spoiled: int = 0
    codes: int = 0
    units_an_hour: float = 0.0
    hours_left: float | None = None
    low: bool = False
    orders: list[OrderLine] = field(default_factory=list)


@dataclass(slots=True)
class CoverageReport:
    """`chips` that have not left; `blank` ones have no package for anything."""

    chips: int
    blank: int
    products: list[Coverage]


def cover(
    factory: Factory, line: str, *, now: datetime, job: str = "", lot: str = "", low_stock_hours: float
) -> CoverageReport:
    """Cover a job order of the line, a lot of chips (file name or number), or everything there is.

    Raises SupplyError JOB.UNKNOWN, LOT.UNKNOWN; ServiceError.
    """
    jobs = [one for one in factory.jobs(line) if job in ("", one.job_order_id)]
    if job and not jobs:
        raise SupplyError("JOB.UNKNOWN", f"line {line} has no such job order", where=job)
    number = factory.lot_number(lot) if lot else None

    def chips() -> Iterable[LotChip]:
        return factory.lot_chips(number, now)

    seen: dict[Product, set[str]] = {}
    total = blank = 0
    for chip in chips():
        total += 1
        blank += not chip.held and not chip.spoiled
        for one in (*chip.held, *chip.spoiled):
            seen.setdefault((one.sku, one.region), set()).add(one.profile_type)
    suppliers = factory.suppliers()
    if job:
        subjects: list[tuple[Product, Job | None]] = [((jobs[0].product.part_number, jobs[0].region), jobs[0])]
    else:
        subjects = [(product, None) for product in sorted(seen if lot else seen.keys() | suppliers.keys())]
    levels = {(level.sku, level.region): level for level in factory.stock_levels(now)}
    products = []
    for product, order in subjects:
        customer = "" if order is None else order.customer
        plan = factory.plan_for(*product, customer, now)
        planned = sorted(map(Planned, seen.get(product, ())), key=str) if plan is None else list(plan.profiles)
        needed = None if order is None else still_needed(factory, order)
        about = Coverage(
            job, *product, customer, "" if plan is None else plan.name, [str(one) for one in planned], needed
        )
        level = levels.get(product)
        about.codes = 0 if level is None else level.codes
        _count(about, chips, planned, suppliers.get(product, []))
        if level is not None and level.units_an_hour:
            wanted = _ordered(factory, jobs, product) if order is None else needed
            _last(about, level, low_stock_hours, wanted)
        products.append(about)
    return CoverageReport(total, blank, products)


def _count(
    about: Coverage, chips: Callable[[], Iterable[LotChip]], planned: Sequence[Planned], suppliers: list[str]
) -> None:
    wish = Wish(about.sku, about.region, tuple(planned), about.job)
    product = (about.sku, about.region)
    for chip in chips():
        about.spoiled += sum((one.sku, one.region) == product for one in chip.spoiled)
        covered = bool(planned) and not wish.elsewhere(chip) and not wish.lacking(chip)
        about.covered += covered
        about.reserved += covered and bool(chip.kept_for)
    ready = about.covered + about.codes
    left = None if about.needed is None else max(0, about.needed - ready)
    about.spare = 0 if about.needed is None else max(0, ready - about.needed)
    only = suppliers[0] if len(suppliers) == 1 else ""
    lines = {one: OrderLine(one.smdp_oid or only, one.profile_type) for one in planned}
    ordered = 0
    for chip in chips():
        lacking, meant = wish.lacking(chip), _meant_for(chip, product)
        if not lacking or wish.elsewhere(chip):
            continue
        can_order = len(chip.free_keys) >= len(lacking)
        order = can_order and (meant if left is None else ordered < left)
        if meant or order:
            about.uncovered += 1
            about.short += not can_order
            _name(about.uncovered_eids, chip)
        if order:
            ordered += 1
            for wanted in lacking:
                lines[wanted].packages += 1
                _name(lines[wanted].eids, chip)
    about.missing = 0 if left is None else left - ordered
    about.orders = sorted(
        (row for row in lines.values() if row.packages), key=lambda row: (row.smdp_oid, row.profile_type)
    )


def _meant_for(chip: LotChip, product: Product) -> bool:
    return any((one.sku, one.region) == product for one in (*chip.held, *chip.spoiled))


def _name(eids: list[str], chip: LotChip) -> None:
    if len(eids) < MAX_EIDS:
        eids.append(chip.eid)


def _ordered(factory: Factory, jobs: list[Job], product: Product) -> int | None:
    """Return how many units the line's job orders for a product still need, None when there are none for it."""
    found = [job for job in jobs if (job.product.part_number, job.region) == product]
    return sum(still_needed(factory, job) for job in found) if found else None


def _last(about: Coverage, level: StockLevel, low_stock_hours: float, needed: int | None) -> None:
    """How long the stock lasts at the factory's present rate of this product; low: not enough for `needed`."""
    ready = about.covered + about.codes
    about.units_an_hour = level.units_an_hour
    about.hours_left = ready / level.units_an_hour
    about.low = about.hours_left < low_stock_hours and not (needed is not None and ready >= needed)
