"""Staged items become rows of the books, in the order of their file.

An item is staged as the columns of its row; what only the books know (batch, number, time) is added here.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, exists, select

from ifpp.model.clock import utc_ms_text
from ifpp.model.states import PackageState
from ifpp.store.records import BatchRow, ChipItem, PackageItem
from ifpp.store.schema import chain, chip, info2, otk, package
from ifpp.store.trail import Trail

# What binds a package, as its first entry in the audit log tells it.
BIRTH_FACTS = {
    "package": "package_id",
    "revision": "revision",
    "node": "node_id",
    "detail": "detail",
    "batch": "batch",
    "eid": "eid",
    "otk": "otk_id",
    "iccid": "iccid",
    "smdp": "smdp_oid",
    "transaction": "transaction_id",
    "bpp_sha256": "bpp_sha256",
    "sku": "sku",
    "region": "region",
    "order": "order_ref",
}
_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


def staged_chip(item: ChipItem) -> bytes:
    """Return one eUICC as it is staged."""
    keys = [
        {"otk_id": key.otk_id.hex(), "slot": key.slot, "alg": key.alg, "public": key.public}
        for key in item.keys
        if key.public is not None
    ]
    return _pack(
        {
            "eid": str(item.eid),
            "certificate": item.certificate,
            "chain": item.eum_chain,
            "info2": item.info2,
            "otk_list": item.otk_list,
            "keys": keys,
        }
    )


def staged_package(item: PackageItem) -> bytes:
    """Return one package as it is staged: all but its bytes."""
    return _pack(
        {
            "eid": str(item.eid),
            "otk_id": item.otk_id.hex(),
            "iccid": str(item.iccid),
            "profile_type": item.profile_type,
            "sku": item.sku,
            "region": item.region,
            "smdp_oid": item.smdp_oid,
            "transaction_id": item.transaction_id.hex(),
            "chain": item.smdp_chain,
            "order_ref": item.order_ref,
            "prepare_download": item.prepare_download,
            "bpp_sha256": item.bpp_sha256,
            "bpp_bytes": len(item.bpp),
            "expires_at": None if item.expires_at is None else utc_ms_text(item.expires_at),
        }
    )


class Rows:
    """The rows of some staged items of an accepted file; made before the transaction that writes them."""

    def __init__(self, batch: BatchRow, items: Sequence[tuple[int, bytes]]) -> None:
        self._chips: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] = []
        self._packages: list[dict[str, Any]] = []
        self._shared = _Shared()
        for place, staged in items:
            row = _unpack(staged)
            chain_id = self._shared.chain(tuple(row.pop("chain")))
            row["batch"] = batch.number
            if "bpp_sha256" in row:
                known = {"package_id": f"{batch.number:06d}-{place:07d}", "smdp_chain_id": chain_id}
                self._packages.append(row | known | {"detail": batch.name} | _BORN)
            else:
                self._keys += [key | {"eid": row["eid"]} for key in row.pop("keys")]
                self._chips.append(row | {"chain_id": chain_id, "info2_id": self._shared.info2(row.pop("info2"))})

    def write(self, connection: Connection, trail: Trail) -> None:
        """Put the items on the shelf, and their births into the audit log."""
        self._shared.write(connection)
        for row in self._packages:
            row["changed_at"] = trail.at
        for table, rows in ((chip, self._chips), (otk, self._keys), (package, self._packages)):
            if rows:
                connection.execute(table.insert(), rows)
        for row in self._packages:
            trail.note("available", **{fact: row[name] for fact, name in BIRTH_FACTS.items()})


_BORN = {
    "state": PackageState.AVAILABLE,
    "spent": False,
    "revision": 0,
    "node_id": "intake",
    "head_id": "",
    "event_id": "",
}


class _Shared:
    """What many items share is stored once, under its digest."""

    def __init__(self) -> None:
        self._chains: dict[str, tuple[bytes, ...]] = {}
        self._info2: dict[str, bytes] = {}

    def chain(self, certificates: tuple[bytes, ...]) -> str:
        chain_id = sha256(b"".join(len(der).to_bytes(4, "big") + der for der in certificates)).hexdigest()
        self._chains[chain_id] = certificates
        return chain_id

    def info2(self, raw: bytes) -> str:
        info2_id = sha256(raw).hexdigest()
        self._info2[info2_id] = raw
        return info2_id

    def write(self, connection: Connection) -> None:
        def there(column: ColumnElement[str], digest: str) -> bool:
            return bool(connection.execute(select(exists().where(column == digest))).scalar())

        for chain_id, certificates in self._chains.items():
            if not there(chain.c.chain_id, chain_id):
                numbered = enumerate(certificates)
                rows = [{"chain_id": chain_id, "position": at, "certificate": der} for at, der in numbered]
                connection.execute(chain.insert(), rows)
        for info2_id, raw in self._info2.items():
            if not there(info2.c.info2_id, info2_id):
                connection.execute(info2.insert(), [{"info2_id": info2_id, "raw": raw}])
