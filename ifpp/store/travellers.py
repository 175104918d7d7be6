"""Travellers: what the MES says of a unit by its serial number - the third side of the triangle unit, chip, packages.

The newest file's word on a serial number counts. A unit whose serial number, chip, SKU and job do not all agree gets
nothing; whoever has no traveller is judged by chip and packages alone, unless the job order has travellers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, or_, select

from ifpp.errors import SupplyError
from ifpp.model.messages import ClaimRequest
from ifpp.store.schema import traveller

_Traveller = Row[Any]
_t = traveller.c
_of_unit = (
    select(traveller)
    .where(or_(_t.sn == bindparam("sn"), _t.sn.in_(select(_t.sn).where(_t.eid == bindparam("eid")))))
    .order_by(_t.batch)
)

_known = select(_t.sn, _t.eid).where(
    or_(_t.sn.in_(bindparam("serials", expanding=True)), _t.eid.in_(bindparam("eids", expanding=True)))
)

OF_JOB = exists().where(_t.job_order_id == bindparam("job_order_id"))
"""Whether the job order has travellers."""


def known(connection: Connection, units: Sequence[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Return those units (serial number, EID) that some traveller names by one or the other."""
    asked = {"serials": sorted({sn for sn, _ in units}), "eids": sorted({eid for _, eid in units})}
    rows = connection.execute(_known, asked).all()
    serials, eids = {row.sn for row in rows}, {row.eid for row in rows}
    return frozenset(unit for unit in units if unit[0] in serials or unit[1] in eids)


def check(
    connection: Connection, request: ClaimRequest, *, known: bool, of_job: bool, other_product: bool = False
) -> str:
    """Hold a claim against the travellers of its unit; return the serial number, "" when nobody knows it.

    `other_product`: a rework order says what the unit becomes, the traveller only which chip it is.
    `known`, `of_job`: what `known` and OF_JOB say of the request. Raises SupplyError UNIT.TRAVELLER when they do not
    agree, UNIT.NO_TRAVELLER for a serial number that is missing among the travellers of its job order.
    """
    rows = connection.execute(_of_unit, {"sn": request.sn, "eid": request.eid}).all() if known else []
    newest = {row.sn: row for row in rows}
    named = newest.get(request.sn)
    of_chip = [row for row in newest.values() if row.eid == request.eid]
    for row in (*of_chip, *([] if named is None else [named])):
        for what, said, found in _differences(request, row, other_product=other_product):
            detail = f"the traveller of {row.sn} says {what} {said}, here it is {found}"
            raise SupplyError("UNIT.TRAVELLER", detail, where=f"EID {request.eid}")
    if len(of_chip) > 1:
        serials = ", ".join(sorted(row.sn for row in of_chip))
        raise SupplyError("UNIT.TRAVELLER", f"the travellers of {serials} name one chip", where=f"EID {request.eid}")
    if request.sn and named is None and of_job and request.job_order_id and not other_product:
        detail = f"job order {request.job_order_id} has travellers, and none of them is for it"
        raise SupplyError("UNIT.NO_TRAVELLER", detail, where=f"serial number {request.sn}")
    return request.sn or (of_chip[0].sn if of_chip else "")


def announced(connection: Connection, job_order_id: str, sn: str, eid: str) -> bool:
    """Return whether the newest traveller of a unit is for this job order, chip and serial number."""
    rows = connection.execute(_of_unit, {"sn": sn, "eid": eid}).all() if job_order_id and (sn or eid) else []
    newest = {row.sn: row for row in rows}.values()
    return bool(newest) and all(
        row.job_order_id == job_order_id and row.eid in ("", eid) and (not sn or row.sn == sn) for row in newest
    )


def _differences(request: ClaimRequest, row: _Traveller, *, other_product: bool) -> Iterator[tuple[str, str, str]]:
    """Give what differs; what one of the two does not say never does."""
    pairs = (
        ("the chip is", row.eid, request.eid),
        ("the SKU is", "" if other_product else row.sku, request.sku),
        ("the serial number is", row.sn, request.sn),
        ("the job order is", "" if other_product else row.job_order_id, request.job_order_id),
    )
    return ((what, said, found) for what, said, found in pairs if said and found and said != found)
