"""Whether items may come into the books at all: said before anything of them is written.

Refused is what the books have already, what stands twice in the file, and what no database of ours can hold. The keys
of a file's items are kept in a temporary table: the memory a file takes does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, select, tuple_

from ifpp.store.records import ChipItem, PackageItem
from ifpp.store.schema import chip, otk, package

Refusal = tuple[str, str]
"""Code and detail."""

T = TypeVar("T", ChipItem, PackageItem)
_MAX_INT = 2**31 - 1
_seen = Table("ifpp_seen", MetaData(), Column("key", LargeBinary(16), primary_key=True), prefixes=["TEMPORARY"])


class Screen:
    """Screens the items of one file in order, a chunk at a time, over one connection of its own."""

    def __init__(self, connection: Connection, named: Callable[[], AbstractContextManager[None]]) -> None:
        self._connection = connection
        self._named = named
        with named(), connection.begin():
            _seen.create(connection)

    def chips(self, items: Sequence[ChipItem]) -> list[Refusal | None]:
        """Return for each eUICC why it cannot be taken, or None; those taken are known from then on."""
        eids = [str(item.eid) for item in items]
        publics = [key.public for item in items for key in item.keys if key.public is not None]
        with self._named(), self._connection.begin():
            known = set(self._connection.execute(select(chip.c.eid).where(chip.c.eid.in_(eids))).scalars())
            held = select(otk.c.public).where(otk.c.public.in_(publics))
            used = {bytes(public) for public in self._connection.execute(held).scalars()}
            return self._judged([(item, _chip_keys(item)) for item in items], partial(_why_chip, known, used))

    def packages(self, items: Sequence[PackageItem]) -> list[Refusal | None]:
        """Return for each package why it cannot be taken, or None; those taken are known from then on."""
        with self._named(), self._connection.begin():
            shelf = _Shelf(self._connection, items)
            return self._judged([(item, _package_keys(item)) for item in items], shelf.why)

    def _judged(
        self, items: list[tuple[T, list[bytes]]], why: Callable[[T, list[bytes], set[bytes]], Refusal | None]
    ) -> list[Refusal | None]:
        """Judge items with their keys in order; what is taken is seen by those behind it."""
        every = [key for _, keys in items for key in keys]
        found = self._connection.execute(select(_seen.c.key).where(_seen.c.key.in_(every)))
        seen = {bytes(key) for key in found.scalars()}
        refusals, fresh = [], []
        for item, keys in items:
            refusal = why(item, keys, seen)
            if refusal is None:
                seen.update(keys)
                fresh += keys
            refusals.append(refusal)
        if fresh:
            self._connection.execute(_seen.insert(), [{"key": key} for key in fresh])
        return refusals


class _Shelf:
    """What the books hold of the chips and identities of some packages."""

    def __init__(self, connection: Connection, items: Sequence[PackageItem]) -> None:
        def rows(*columns: Column[Any], where: Any) -> set[tuple[Any, ...]]:
            return {tuple(row) for row in connection.execute(select(*columns).where(where))}

        p = package.c
        eids = sorted({str(item.eid) for item in items})
        transactions = sorted({(item.smdp_oid, item.transaction_id.hex()) for item in items})
        self._eids = rows(chip.c.eid, where=chip.c.eid.in_(eids))
        self._keys = rows(otk.c.eid, otk.c.otk_id, where=otk.c.eid.in_(eids))
        self._spoken_for = rows(p.eid, p.otk_id, where=p.eid.in_(eids))
        self._contents = rows(p.bpp_sha256, where=p.bpp_sha256.in_([item.bpp_sha256 for item in items]))
        self._iccids = rows(p.iccid, where=p.iccid.in_([str(item.iccid) for item in items]))
        self._transactions = rows(
            p.smdp_oid, p.transaction_id, where=tuple_(p.smdp_oid, p.transaction_id).in_(transactions)
        )

    def why(self, item: PackageItem, keys: list[bytes], seen: set[bytes]) -> Refusal | None:
        """Return the first thing that speaks against a package."""
        eid, otk_id, transaction = str(item.eid), item.otk_id.hex(), item.transaction_id.hex()
        texts = (item.profile_type, item.sku, item.region, item.smdp_oid, item.order_ref)
        content, key, iccid, order = (known in seen for known in keys)
        of_key = f"one-time key {otk_id}"
        against: tuple[tuple[bool, Refusal], ...] = (
            (any("\0" in text for text in texts), _UNHELD),
            ((eid,) not in self._eids, ("INTAKE.UNKNOWN_EID", "no eUICC data for this chip")),
            ((eid, otk_id) not in self._keys, ("INTAKE.UNKNOWN_KEY", f"{of_key} is not in the chip's eUICC data")),
            (content or (item.bpp_sha256,) in self._contents, _twice(f"package {item.bpp_sha256}", content)),
            (key or (eid, otk_id) in self._spoken_for, ("INTAKE.KEY_REUSED", f"{of_key} has a package already")),
            (iccid or (item.iccid,) in self._iccids, _twice(f"ICCID {item.iccid}", iccid)),
            (order or (item.smdp_oid, transaction) in self._transactions, _twice(f"transaction {transaction}", order)),
        )
        return next((refusal for holds, refusal in against if holds), None)


_UNHELD: Refusal = "INTAKE.FORMAT", "a value the database cannot hold"


def _twice(what: str, in_file: bool) -> Refusal:
    return "INTAKE.DUPLICATE", f"{what} {'stands twice in this file' if in_file else 'is already in the store'}"


def _why_chip(known: set[str], used: set[bytes], item: ChipItem, keys: list[bytes], seen: set[bytes]) -> Refusal | None:
    own, *of_keys = keys
    listed = [key for key in item.keys if key.public is not None]
    if any(not 0 <= number <= _MAX_INT for key in listed for number in (key.slot, key.alg)):
        return _UNHELD
    if own in seen or item.eid in known:
        return _twice("this eUICC", own in seen)
    if any(key.public in used for key in listed) or seen.intersection(of_keys):
        return "INTAKE.KEY_REUSED", "one of its one-time keys is already in the store or in this file"
    if len({key.otk_id for key in listed}) < len(listed) or len(set(of_keys)) < len(listed):
        return "INTAKE.KEY_REUSED", "a one-time key stands twice in its list"
    return None


def _chip_keys(item: ChipItem) -> list[bytes]:
    publics = [key.public for key in item.keys if key.public is not None]
    return [_key("eid", item.eid), *(_key("public", public.hex()) for public in publics)]


def _package_keys(item: PackageItem) -> list[bytes]:
    return [
        _key("content", item.bpp_sha256),
        _key("key", item.eid, item.otk_id.hex()),
        _key("iccid", item.iccid),
        _key("transaction", item.smdp_oid, item.transaction_id.hex()),
    ]


def _key(*parts: str) -> bytes:
    return sha256("\0".join(parts).encode()).digest()[:16]
