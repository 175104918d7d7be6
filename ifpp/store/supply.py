"""Which chips there are for an order, what each has already and which of its keys are free. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import BindParameter, Connection, bindparam, exists, func, select

from ifpp.errors import SupplyError
from ifpp.model.states import OPEN_STATES, PackageState
from ifpp.store.code_tables import OF_CHIP
from ifpp.store.reservations import kept_for
from ifpp.store.rework_tables import LEAVING, rework_order
from ifpp.store.schema import SHELVED, WITHDRAWN, batch, chain, chip, info2, otk, package, reservation

PAGE = 500
_BUSY = (*OPEN_STATES, PackageState.INSTALLED)

_chips = (
    select(
        chip.c.eid,
        chip.c.certificate,
        chip.c.chain_id,
        chip.c.info2_id,
        chip.c.otk_list,
        func.coalesce(reservation.c.job_order_id, "").label("kept_for"),
    )
    .outerjoin(reservation, reservation.c.eid == chip.c.eid)
    .where(
        chip.c.clean_to_ship_at.is_(None),
        chip.c.eid > bindparam("after"),
        ~exists().where(rework_order.c.eid == chip.c.eid, rework_order.c.sealed),  # emptied, it takes nothing more
    )
    .order_by(chip.c.eid)
    .limit(PAGE)
)
_of_chips: BindParameter[str] = bindparam("eids", expanding=True)
_spoken_for = exists().where(package.c.eid == otk.c.eid, package.c.otk_id == otk.c.otk_id)
_free_keys = (
    select(otk.c.eid, otk.c.otk_id, otk.c.public)
    .where(otk.c.eid.in_(_of_chips), OF_CHIP, ~_spoken_for)
    .order_by(otk.c.eid, otk.c.slot)
)
_moved_on = (package.c.bpp_bytes == 0) & (package.c.state == PackageState.DESTROYED)  # a code of other chips now
_packages = select(
    package.c.eid,
    package.c.sku,
    package.c.region,
    package.c.profile_type,
    package.c.state,
    package.c.spent,
    package.c.expires_at,
    package.c.smdp_oid,
    WITHDRAWN.label("withdrawn"),
).where(package.c.eid.in_(_of_chips), SHELVED, ~_moved_on, ~LEAVING)
_targets = (
    select(rework_order.c.eid, rework_order.c.sku, rework_order.c.region)
    .where(rework_order.c.eid.in_(_of_chips), rework_order.c.sku != "")
    .order_by(rework_order.c.at)
)


@dataclass(frozen=True, slots=True)
class HeldPackage:
    """A package of a chip; one that can still be, is or was loaded where it is `held`. Equal by what it is for."""

    sku: str
    region: str
    profile_type: str
    smdp_oid: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LotChip:
    """A chip that has not left: what it holds or may still load, its one-time keys without a package, lowest first.

    `spoiled`: packages that nobody can load any more: failed for good, expired, withdrawn; `kept_for`: the job order
    that has the chip to itself, "" = none; `busy`: a package is with a head, or on the chip; `target`: SKU and region
    a rework order has chosen. What is removed by one, or shall be, is not held.
    """

    eid: str
    certificate: bytes
    chain_id: str
    info2_id: str
    otk_list: bytes
    held: tuple[HeldPackage, ...]
    free_keys: tuple[tuple[str, bytes], ...]
    spoiled: tuple[HeldPackage, ...] = ()
    kept_for: str = ""
    busy: bool = False
    target: tuple[str, str] | None = None


def lot_number(connection: Connection, name: str) -> int:
    """Return the number of an imported file of eUICC data by its name or number; raises SupplyError LOT.UNKNOWN."""
    rows = connection.execute(select(batch.c.number, batch.c.name).where(batch.c.kind == "esed")).all()
    found = [row.number for row in rows if name in (row.name, str(row.number))]
    if len(found) != 1:
        detail = (
            "several files of eUICC data have this name: give its number" if found else "no eUICC data by this name"
        )
        raise SupplyError("LOT.UNKNOWN", detail, where=name[:64])
    return int(found[0])


def lot_chips(connection: Connection, number: int | None, at: str) -> Iterator[LotChip]:
    """Give every chip of a lot, or of the store, that has not left, by EID; `at` judges what has expired."""
    wanted = _chips if number is None else _chips.where(chip.c.batch == number)
    holders = kept_for(connection)
    after = ""
    while rows := connection.execute(wanted, {"after": after}).all():
        eids = [row.eid for row in rows]
        keys: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for eid, otk_id, public in connection.execute(_free_keys, {"eids": eids}):
            keys[eid].append((otk_id, bytes(public)))
        held: dict[str, list[HeldPackage]] = defaultdict(list)
        spoiled: dict[str, list[HeldPackage]] = defaultdict(list)
        busy: set[str] = set()
        for one in connection.execute(_packages, {"eids": eids}):
            if one.state in _BUSY:
                busy.add(one.eid)
            counts = _counts(PackageState(one.state), one.spent, one.expires_at, at, withdrawn=one.withdrawn)
            kept = held if counts else spoiled
            kept[one.eid].append(HeldPackage(one.sku, one.region, one.profile_type, one.smdp_oid))
        targets = {eid: (sku, region) for eid, sku, region in connection.execute(_targets, {"eids": eids})}
        for row in rows:
            yield LotChip(
                **dict(row._mapping) | {"kept_for": row.kept_for if row.kept_for in holders else ""},
                held=tuple(held[row.eid]),
                free_keys=tuple(keys[row.eid]),
                spoiled=tuple(spoiled[row.eid]),
                busy=row.eid in busy,
                target=targets.get(row.eid),
            )
        after = eids[-1]


def shared(connection: Connection, number: int | None) -> dict[str, tuple[list[bytes], dict[str, bytes]]]:
    """Return what the chips of a lot share: by chain id the EUM's certificates, and EUICCInfo2 by its id."""
    pairs = select(chip.c.chain_id, info2.c.info2_id, info2.c.raw).join(info2, info2.c.info2_id == chip.c.info2_id)
    rows = connection.execute((pairs if number is None else pairs.where(chip.c.batch == number)).distinct()).all()
    found: dict[str, tuple[list[bytes], dict[str, bytes]]] = {}
    for chain_id, info2_id, raw in rows:
        if chain_id not in found:
            ordered = select(chain.c.certificate).where(chain.c.chain_id == chain_id).order_by(chain.c.position)
            found[chain_id] = list(connection.execute(ordered).scalars()), {}
        found[chain_id][1][info2_id] = bytes(raw)
    return found


def _counts(state: PackageState, spent: bool, expires_at: str | None, at: str, *, withdrawn: bool) -> bool:
    """Whether nobody needs to ask for this package again."""
    if state is PackageState.AVAILABLE or (state is PackageState.FAILED and not spent):
        return not withdrawn and (expires_at is None or expires_at > at)
    return state not in (PackageState.FAILED, PackageState.DESTROYED)
