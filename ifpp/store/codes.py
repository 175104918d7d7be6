"""Activation codes as stock: what is free, tying one to a chip, taking a delivery of them in.

A code that is tied is a package of its chip, without bytes, with a one-time key of its own beside those of the chip
(slot -1), for it is one as well: spent once. From there on it takes the same steps, in the same ledger. Until it is
installed its ICCID is not known, and the package id stands in its place. What was never sent, or what the SM-DP+ cannot
have tied to the chip, may go to another chip: that package is destroyed, the code becomes a new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, exists, func, or_, select, tuple_

from ifpp.errors import CustodyError
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import ClaimRequest
from ifpp.model.rsp import ActivationCode
from ifpp.model.states import PackageState
from ifpp.store.code_tables import code
from ifpp.store.ledger import Step, take
from ifpp.store.records import CodeItem
from ifpp.store.schema import IS_CODE, chip, info2, ledger, otk, package, package_bytes, withdrawal
from ifpp.store.shelve import BIRTH_FACTS
from ifpp.store.trail import Trail

S = PackageState
_Row = Row[Any]
_PAGE = 500
_NO_INFO2 = sha256(b"").hexdigest()
_NO_SLOT = -1

_product = (code.c.sku == bindparam("sku"), code.c.region == bindparam("region"))
_usable = (
    *_product,
    or_(bindparam("profile_type") == "", code.c.profile_type == bindparam("profile_type")),
    or_(bindparam("address") == "", code.c.address == bindparam("address")),
    or_(code.c.expires_at.is_(None), code.c.expires_at > bindparam("at")),
    code.c.code_id.not_in(bindparam("taken", expanding=True)),
    ~exists().where(withdrawal.c.batch == code.c.batch),
)
_oldest_free = (
    select(code)
    .where(code.c.package_id.is_(None), *_usable)
    .order_by(code.c.code_id)
    .limit(1)
    .with_for_update(key_share=True, skip_locked=True)
)
_was_sent = exists().where(ledger.c.package_id == package.c.package_id, ledger.c.to_state == S.SENT)
_oldest_idle = (
    select(code, package.c.state, package.c.revision)
    .join(package, package.c.package_id == code.c.package_id)
    .where(
        IS_CODE,
        package.c.sku == bindparam("sku"),
        package.c.region == bindparam("region"),
        or_(package.c.state == S.DESTROYED, (package.c.state == S.AVAILABLE) & ~_was_sent),
        *_usable,
    )
    .order_by(package.c.changed_at, code.c.code_id)
    .limit(1)
    .with_for_update(key_share=True, skip_locked=True, of=(code, package))
)
_delivered = select(exists().where(*_product))
_tie = (
    code.update()
    .where(code.c.code_id == bindparam("b_code_id"), code.c.ties == bindparam("b_ties"))
    .values(package_id=bindparam("package_id"), ties=bindparam("ties"))
)


@dataclass(frozen=True, slots=True)
class Tie:
    """A code that is to become a package of a chip, not written yet; `row` is the package as a claim reads one.

    `retired`: revision of the package it was before, when that is still on the shelf of another chip.
    """

    row: _Row
    code: _Row
    retired: int | None


def new_chip(eid: str) -> _Row:
    """Return a chip nobody delivered eUICC data of, as a claim reads one: its first code brings it into the books."""
    facts = SimpleNamespace(eid=eid, certificate=b"", chain_id="", clean_to_ship_at=None, kept_for=None)
    return cast("_Row", facts)


@dataclass(slots=True)
class Desk:
    """Finds codes for the claims of one transaction, none twice."""

    connection: Connection
    at: str
    _taken: dict[str, str] = field(default_factory=dict)

    def delivered(self, request: ClaimRequest) -> bool:
        """Whether any code was delivered for the product, used or not."""
        product = {"sku": request.sku, "region": request.region}
        return bool(self.connection.execute(_delivered, product).scalar())

    def find(self, request: ClaimRequest, profile_type: str = "", address: str = "") -> Tie | None:
        """Return the oldest free code for a chip ("" = of any type, any SM-DP+), locked; None when there is none.

        Only then one that another chip had and never sent.
        """
        wanted = {"sku": request.sku, "region": request.region, "profile_type": profile_type, "address": address}
        values = wanted | {"at": self.at, "taken": list(self._taken)}
        found = self.connection.execute(_oldest_free, values).one_or_none()
        retired = None
        if found is None:
            found = self.connection.execute(_oldest_idle, values).one_or_none()
            if found is None:
                return None
            retired = found.revision if found.state == S.AVAILABLE else None
        self._taken[found.code_id] = request.attempt_id
        return Tie(cast("_Row", SimpleNamespace(**_package_of(found, request.eid, self.at), **_BESIDE)), found, retired)

    def forget(self, request: ClaimRequest) -> None:
        """Leave what was found for a claim that is refused to the others."""
        self._taken = {code_id: owner for code_id, owner in self._taken.items() if owner != request.attempt_id}


def tie(connection: Connection, trail: Trail, ties: Sequence[Tie], new: Iterable[str]) -> None:
    """Make packages of codes; `new`: the EIDs of chips that come into the books by it."""
    if not ties:
        return
    take(
        connection,
        trail,
        [
            Step(one.code.package_id, one.retired + 1, S.DESTROYED, trail.at, "store", detail="to another chip")
            for one in ties
            if one.retired is not None
        ],
    )
    rows = [{name: getattr(one.row, name) for name in _COLUMNS} for one in ties]
    batch_of = {one.row.eid: one.row.batch for one in ties}
    chips = [_chip_row(eid, batch_of[eid]) for eid in new]
    if chips:
        connection.execute(chip.insert(), chips)
    connection.execute(otk.insert(), [_key_row(row["eid"], row["otk_id"]) for row in rows])
    connection.execute(package_bytes.insert(), [{"sha256": row["bpp_sha256"], "bpp": b""} for row in rows])
    connection.execute(package.insert(), rows)
    for row in rows:
        trail.note("available", **{fact: row[name] for fact, name in BIRTH_FACTS.items()})
    changes = [
        {
            "b_code_id": one.code.code_id,
            "b_ties": one.code.ties,
            "package_id": one.row.package_id,
            "ties": one.code.ties + 1,
        }
        for one in ties
    ]
    if connection.execute(_tie, changes).rowcount != len(changes):
        raise CustodyError("CUSTODY.TRANSITION", "an activation code was tied by somebody else")


def text_of(row: _Row) -> str:
    """Return the activation code of a package that is one, as an LPA takes it; `row` has the columns CODE."""
    return str(ActivationCode(row.address, row.matching_id, row.oid, bool(row.confirmation_code)))


CODE = tuple(code.c[name] for name in ("address", "matching_id", "oid", "confirmation_code"))


# ---- how many there are -------------------------------------------------------------------------------


def untied(connection: Connection) -> Counter[tuple[str, str, str]]:
    """Count the codes that no chip has, by SKU, region and address."""
    book = (code.c.sku, code.c.region, code.c.address)
    free = select(*book, func.count()).where(code.c.package_id.is_(None)).group_by(*book)
    given_back = (
        select(*book, func.count())
        .join(package, package.c.package_id == code.c.package_id)
        .where(IS_CODE, package.c.state == S.DESTROYED)
        .group_by(*book)
    )
    found: Counter[tuple[str, str, str]] = Counter()
    for sku, region, address, number in (*connection.execute(free), *connection.execute(given_back)):
        found[sku, region, address] += number
    return found


def retired(connection: Connection) -> list[tuple[str, str, str, int]]:
    """Count the packages that codes were before, or were given back from, by SKU, region and address."""
    book = (package.c.sku, package.c.region, package.c.smdp_oid)
    rows = select(*book, func.count()).where(IS_CODE, package.c.state == S.DESTROYED).group_by(*book)
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(rows)]


def ready(connection: Connection, at: str) -> dict[tuple[str, str], int]:
    """Count the codes that may be tied now, by SKU and region."""
    valid = or_(code.c.expires_at.is_(None), code.c.expires_at > at)
    given = ~exists().where(withdrawal.c.batch == code.c.batch)
    free = select(code.c.sku, code.c.region, func.count()).where(code.c.package_id.is_(None), valid, given)
    rows = connection.execute(free.group_by(code.c.sku, code.c.region))
    return {(sku, region): number for sku, region, number in rows}


def untied_of(connection: Connection, batch: int) -> int:
    """Count the codes of a delivery that no chip ever had."""
    chosen = select(func.count()).select_from(code).where(code.c.batch == batch, code.c.package_id.is_(None))
    return int(connection.execute(chosen).scalar_one())


# ---- a delivery ---------------------------------------------------------------------------------------


def known(connection: Connection, items: Sequence[CodeItem]) -> set[tuple[str, str]]:
    """Return which of these (address, matching id) are in the books already."""
    pair = tuple_(code.c.address, code.c.matching_id)
    found: set[tuple[str, str]] = set()
    for start in range(0, len(items), _PAGE):
        wanted = [(item.address, item.matching_id) for item in items[start : start + _PAGE]]
        found.update((row[0], row[1]) for row in connection.execute(select(*pair.clauses).where(pair.in_(wanted))))
    return found


def add(connection: Connection, batch: int, items: Sequence[CodeItem]) -> Counter[tuple[str, str, str]]:
    """Put the codes of a delivery on the shelf; return how many, by SKU, region and address."""
    if not connection.execute(select(exists().where(info2.c.info2_id == _NO_INFO2))).scalar():
        connection.execute(info2.insert(), [{"info2_id": _NO_INFO2, "raw": b""}])
    rows = [
        {
            "code_id": f"{batch:06d}-{place:07d}",
            "batch": batch,
            "address": item.address,
            "oid": item.oid,
            "matching_id": item.matching_id,
            "confirmation_code": item.confirmation_code,
            "sku": item.sku,
            "region": item.region,
            "profile_type": item.profile_type,
            "expires_at": None if item.expires_at is None else utc_ms_text(item.expires_at),
            "package_id": None,
            "ties": 0,
        }
        for place, item in enumerate(items, 1)
    ]
    connection.execute(code.insert(), rows)
    return Counter((item.sku, item.region, item.address) for item in items)


# ---- inside -------------------------------------------------------------------------------------------


def _package_of(found: _Row, eid: str, at: str) -> dict[str, Any]:
    package_id = f"{found.code_id}-{found.ties + 1}"
    return {
        "package_id": package_id,
        "batch": found.batch,
        "eid": eid,
        "otk_id": package_id,
        "iccid": package_id,
        "profile_type": found.profile_type,
        "sku": found.sku,
        "region": found.region,
        "smdp_oid": found.address,
        "transaction_id": package_id,
        "smdp_chain_id": "",
        "order_ref": found.code_id,
        "prepare_download": b"",
        "bpp_sha256": package_id,
        "bpp_bytes": 0,
        "expires_at": found.expires_at,
        "state": S.AVAILABLE,
        "spent": False,
        "revision": 0,
        "attempt_id": None,
        "lease_until": None,
        "changed_at": at,
        "node_id": "store",
        "head_id": "",
        "event_id": "",
        "detail": f"activation code {found.code_id}",
        **{column.name: getattr(found, column.name) for column in CODE},
    }


_COLUMNS = tuple(package.c.keys())
_BESIDE = {"withdrawn": False, "leaving": False, "gone": False}


def _chip_row(eid: str, batch: int) -> dict[str, Any]:
    no_data = {"certificate": b"", "chain_id": "", "info2_id": _NO_INFO2, "otk_list": b""}
    return {"eid": eid, "batch": batch, "clean_to_ship_at": None, "clean_event_id": None} | no_data


def _key_row(eid: str, otk_id: str) -> dict[str, Any]:
    return {"eid": eid, "otk_id": otk_id, "slot": _NO_SLOT, "alg": 0, "public": otk_id.encode()}
