"""Taking a verified delivery into the books: one file, one transaction, all or nothing.

Rows are written in chunks while the file is read. When the database refuses a chunk, its items are tried one by one,
so that each bad item is named; nothing is committed then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, exists, func, select
from sqlalchemy import exc as sa

from ifpp.errors import IntakeError
from ifpp.model.clock import utc_ms_text
from ifpp.model.messages import Job
from ifpp.model.states import PackageState
from ifpp.store.records import BatchRow, ChipItem, PackageItem
from ifpp.store.schema import (
    batch,
    batch_count,
    batch_total,
    chain,
    chip,
    info2,
    job_order,
    otk,
    package,
    package_bytes,
)
from ifpp.store.trail import Trail

_CHUNK_ITEMS = 200
_CHUNK_BYTES = 4_000_000
_MAX_BAD_ITEMS = 100

T = TypeVar("T", ChipItem, PackageItem)
_REFUSALS = (sa.IntegrityError, sa.DataError)
# What binds a package, as its first entry in the audit log tells it.
_BIRTH_FACTS = {
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
_UNHELD = "INTAKE.FORMAT", "a value the database cannot hold"


class Intake:
    """One file being taken in; made by `Factory.intake`, which commits or rolls back."""

    def __init__(self, connection: Connection, trail: Trail, kind: str, name: str, digest: str) -> None:
        self._connection = connection
        self._trail = trail
        self._at = at = trail.at
        row = {"kind": kind, "name": name, "sha256": digest, "imported_at": at}
        try:
            number = connection.execute(batch.insert().returning(batch.c.number), [row]).scalar_one()
        except sa.IntegrityError as error:
            raise IntakeError("INTAKE.DUPLICATE", "this file was imported before", where=name) from error
        self._row = BatchRow(number, kind, name, digest, at, 0, 0, 0)
        self._chips: list[ChipItem] = []
        self._packages: list[PackageItem] = []
        self._pending_bytes = 0
        self._kept_once: set[str] = set()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._bad: list[IntakeError] = []

    @property
    def batch(self) -> BatchRow:
        """The file and what was taken from it so far."""
        return self._row

    def add_chip(self, item: ChipItem) -> None:
        """Take one eUICC with its one-time keys; an EID or a key that is already known makes the file bad."""
        self._chips.append(item)
        self._row = replace(self._row, chips=self._row.chips + 1)
        if len(self._chips) >= _CHUNK_ITEMS:
            self._flush()

    def add_package(self, item: PackageItem) -> None:
        """Take one package; its chip and one-time key must be known, and every id new."""
        self._packages.append(item)
        self._pending_bytes += len(item.bpp)
        self._counts[item.sku, item.region, item.smdp_oid] += 1
        if len(self._packages) >= _CHUNK_ITEMS or self._pending_bytes >= _CHUNK_BYTES:
            self._flush()

    def add_job(self, line: str, job: Job) -> None:
        """Take one job order for a line; a version that is not newer than the stored one makes the file bad."""
        stored = self._connection.execute(
            select(func.max(job_order.c.version)).where(job_order.c.job_order_id == job.job_order_id)
        ).scalar()
        if stored is not None and job.version <= stored:
            self._reject("INTAKE.DUPLICATE", f"version {stored} is stored already", job.job_order_id)
            return
        body = msgspec.json.encode(job)
        row = {"job_order_id": job.job_order_id, "version": job.version, "line": line, "body": body}
        self._connection.execute(job_order.insert(), [row | {"batch": self._row.number}])
        self._row = replace(self._row, jobs=self._row.jobs + 1)

    def finish(self) -> None:
        """Write what is pending and the totals. Raises IntakeError INTAKE.REJECTED with every bad item (up to 100)."""
        self._flush()
        self._raise_bad()
        number = self._row.number
        totals: dict[str, Any] = {"chips": self._row.chips, "packages": self._row.packages, "jobs": self._row.jobs}
        self._connection.execute(batch_total.insert(), [totals | {"batch": number}])
        counts = [
            {"batch": number, "sku": sku, "region": region, "smdp_oid": smdp_oid, "packages": packages}
            for (sku, region, smdp_oid), packages in self._counts.items()
        ]
        if counts:
            self._connection.execute(batch_count.insert(), counts)
        what: dict[str, Any] = {
            "batch": number,
            "kind": self._row.kind,
            "name": self._row.name,
            "sha256": self._row.sha256,
        }
        self._trail.note("import", **what, **totals)

    # ---- inside -----------------------------------------------------------------------------------

    def _flush(self) -> None:
        chips, self._chips = self._chips, []
        packages, self._packages = self._packages, []
        self._pending_bytes = 0
        self._write(chips, self._write_chips, self._why_chip)
        self._write(packages, self._write_packages, self._why_package)

    def _write(
        self,
        items: Sequence[T],
        write: Callable[[Sequence[T]], None],
        why: Callable[[T, sa.DBAPIError], tuple[str, str]],
    ) -> None:
        """Write a chunk in one go; when the database refuses, find out which items it means."""
        if not items or self._tried(items, write) is None:
            return
        for item in items:
            error = self._tried([item], write)
            if error is not None:
                self._reject(*why(item, error), item.eid)

    def _tried(self, items: Sequence[T], write: Callable[[Sequence[T]], None]) -> sa.DBAPIError | None:
        savepoint = self._connection.begin_nested()
        try:
            write(items)
        except _REFUSALS as error:
            savepoint.rollback()
            self._kept_once.clear()
            return error
        savepoint.commit()
        return None

    def _reject(self, code: str, detail: str, where: str) -> None:
        self._bad.append(IntakeError(code, detail, where=where))
        if len(self._bad) >= _MAX_BAD_ITEMS:
            self._raise_bad()

    def _raise_bad(self) -> None:
        if self._bad:
            detail = f"{len(self._bad)} bad items, first: {self._bad[0].where}: {self._bad[0].detail}"
            raise IntakeError("INTAKE.REJECTED", detail, where=self._row.name, items=tuple(self._bad))

    def _write_chips(self, items: Sequence[ChipItem]) -> None:
        keys = []
        rows = []
        for item in items:
            rows.append(
                {
                    "eid": item.eid,
                    "batch": self._row.number,
                    "certificate": item.certificate,
                    "chain_id": self._keep_chain(item.eum_chain),
                    "info2_id": self._keep_info2(item.info2),
                    "otk_list": item.otk_list,
                }
            )
            for key in item.keys:
                if key.public is not None:
                    named = {"eid": item.eid, "otk_id": key.otk_id.hex(), "slot": key.slot}
                    keys.append(named | {"alg": key.alg, "public": key.public})
        self._connection.execute(chip.insert(), rows)
        if keys:
            self._connection.execute(otk.insert(), keys)

    def _write_packages(self, items: Sequence[PackageItem]) -> None:
        blobs = [{"sha256": item.bpp_sha256, "bpp": item.bpp} for item in items]
        rows = [self._package_row(item, self._row.packages + at) for at, item in enumerate(items, 1)]
        self._connection.execute(package_bytes.insert(), blobs)
        self._connection.execute(package.insert(), rows)
        for row in rows:
            self._trail.note("available", **{fact: row[name] for fact, name in _BIRTH_FACTS.items()})
        self._row = replace(self._row, packages=self._row.packages + len(items))

    def _package_row(self, item: PackageItem, place: int) -> dict[str, Any]:
        return {
            "package_id": f"{self._row.number:06d}-{place:07d}",
            "batch": self._row.number,
            "eid": item.eid,
            "otk_id": item.otk_id.hex(),
            "iccid": item.iccid,
            "profile_type": item.profile_type,
            "sku": item.sku,
            "region": item.region,
            "smdp_oid": item.smdp_oid,
            "transaction_id": item.transaction_id.hex(),
            "smdp_chain_id": self._keep_chain(item.smdp_chain),
            "order_ref": item.order_ref,
            "prepare_download": item.prepare_download,
            "bpp_sha256": item.bpp_sha256,
            "bpp_bytes": len(item.bpp),
            "expires_at": None if item.expires_at is None else utc_ms_text(item.expires_at),
            "state": PackageState.AVAILABLE,
            "spent": False,
            "revision": 0,
            "changed_at": self._at,
            "node_id": "intake",
            "head_id": "",
            "event_id": "",
            "detail": self._row.name,
        }

    def _keep_chain(self, certificates: tuple[bytes, ...]) -> str:
        chain_id = sha256(b"".join(len(der).to_bytes(4, "big") + der for der in certificates)).hexdigest()
        rows = [
            {"chain_id": chain_id, "position": position, "certificate": certificate}
            for position, certificate in enumerate(certificates)
        ]
        self._keep(chain_id, rows, chain.insert(), chain.c.chain_id)
        return chain_id

    def _keep_info2(self, raw: bytes) -> str:
        info2_id = sha256(raw).hexdigest()
        self._keep(info2_id, [{"info2_id": info2_id, "raw": raw}], info2.insert(), info2.c.info2_id)
        return info2_id

    def _keep(self, digest: str, rows: Iterable[dict[str, object]], insert: Any, column: ColumnElement[str]) -> None:
        """Store once what many items share."""
        if digest in self._kept_once:
            return
        rows = list(rows)
        if rows and not self._connection.execute(select(exists().where(column == digest))).scalar():
            self._connection.execute(insert, rows)
        self._kept_once.add(digest)

    # ---- why an item was refused --------------------------------------------------------------------

    def _there(self, *conditions: ColumnElement[bool]) -> bool:
        return bool(self._connection.execute(select(exists().where(and_(*conditions)))).scalar())

    def _why_chip(self, item: ChipItem, error: sa.DBAPIError) -> tuple[str, str]:
        if isinstance(error, sa.DataError):
            return _UNHELD
        if self._there(chip.c.eid == item.eid):
            return "INTAKE.DUPLICATE", "this eUICC is already in the store"
        return "INTAKE.KEY_REUSED", "one of its one-time keys is already in the store, or stands twice in its list"

    def _why_package(self, item: PackageItem, error: sa.DBAPIError) -> tuple[str, str]:
        if isinstance(error, sa.DataError):
            return _UNHELD
        otk_id = item.otk_id.hex()
        if not self._there(chip.c.eid == item.eid):
            return "INTAKE.UNKNOWN_EID", "no eUICC data for this chip"
        if not self._there(otk.c.eid == item.eid, otk.c.otk_id == otk_id):
            return "INTAKE.UNKNOWN_KEY", f"one-time key {otk_id} is not in the chip's eUICC data"
        same = self._there(package.c.bpp_sha256 == item.bpp_sha256)
        if not same and self._there(package.c.eid == item.eid, package.c.otk_id == otk_id):
            return "INTAKE.KEY_REUSED", f"one-time key {otk_id} has a package already"
        what = (
            f"package {item.bpp_sha256}" if same else f"ICCID {item.iccid} or transaction {item.transaction_id.hex()}"
        )
        return "INTAKE.DUPLICATE", f"{what} is already in the store"
