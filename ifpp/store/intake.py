"""Taking a verified file into the books: as large as it likes, all or nothing, and claims hardly notice.

SQLite has one writer at a time, so nothing here holds it for more than a chunk:
  1. The items are screened in chunks (`ifpp.store.screen`), which writes nothing. When one is refused, nothing more
     is staged, but the others are still screened, so that each bad item is named.
  2. What passed is staged: beside the books, where nobody sees it. A process that dies leaves it there; the next
     intake throws it away.
  3. The file is accepted in one short transaction: it has a number and an account of what it brings. From here on it
     goes to its end, whoever dies; whoever comes next finishes it first.
  4. Its rows move to the shelf in chunks, each with its entries in the audit log. No claim sees them yet.
  5. The batch is opened in one short transaction, by its totals: see `schema.SHELVED`.

One process at a time takes files with chips or packages in. A file of job orders, travellers or activation codes is
accepted and opened in one transaction, and waits for nobody.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, func, select
from sqlalchemy import exc as sa

from ifpp.errors import IntakeError
from ifpp.model.messages import Job
from ifpp.store import codes
from ifpp.store.database import Database
from ifpp.store.records import BatchRow, ChipItem, CodeItem, PackageItem, TravellerItem
from ifpp.store.schema import batch, batch_count, batch_total, job_order, package_bytes, staged, traveller
from ifpp.store.screen import Refusal, Screen
from ifpp.store.shelve import Rows, staged_chip, staged_package
from ifpp.store.trail import Trail

CHUNK_ITEMS = 200
_CHUNK_BYTES = 2_000_000
_MAX_BAD_ITEMS = 100
_WAIT_S = 600.0  # for another process that takes a file in
_ACCOUNT = 0  # the place of a file's account among its staged items, which start at 1

T = TypeVar("T", ChipItem, PackageItem)
Shelved = Callable[[int], None]
"""Called with the number of items on the shelf, after every chunk."""
Writing = Callable[[], AbstractContextManager[tuple[Connection, Trail]]]

_of_file = staged.c.file == bindparam("file")
_next_items = (
    select(staged.c.place, staged.c.item)
    .where(_of_file, staged.c.place > _ACCOUNT)
    .order_by(staged.c.place)
    .limit(CHUNK_ITEMS)
)
_next_remains = select(staged.c.place, staged.c.bpp_sha256).where(_of_file).order_by(staged.c.place).limit(CHUNK_ITEMS)
_account = select(staged.c.item).where(_of_file, staged.c.place == _ACCOUNT)
_delete = delete(staged).where(_of_file, staged.c.place >= bindparam("first"), staged.c.place <= bindparam("last"))


class _Account(msgspec.Struct, array_like=True):
    """What an accepted file brings; `counts` are packages by SKU, region and SM-DPf."""

    chips: int
    packages: int
    counts: list[tuple[str, str, str, int]]


_read_account = msgspec.msgpack.Decoder(_Account).decode


@dataclass(slots=True)
class Gentle:
    """Writes chunk after chunk; where one writer keeps all others waiting, they get as much time as it takes itself."""

    writing: Writing
    one_writer: bool
    _free_until: float = 0.0

    def run(self, change: Callable[[Connection, Trail], None]) -> None:
        time.sleep(max(0.0, self._free_until - time.monotonic()))
        start = time.monotonic()
        with self.writing() as (connection, trail):
            change(connection, trail)
        end = time.monotonic()
        self._free_until = end + (end - start if self.one_writer else 0.0)


class Intake:
    """One file being taken in; made by `Factory.intake`, which finishes or discards it.

    `where` names an item in the list of bad ones; without it, that is its EID.
    """

    def __init__(
        self,
        database: Database,
        writing: Writing,
        kind: str,
        name: str,
        digest: str,
        *,
        dry_run: bool,
        shelved: Shelved | None,
    ) -> None:
        self._shelved = shelved
        self._database = database
        self._writer = Gentle(writing, database.one_writer)
        self._kind, self._name, self._digest = kind, name, digest
        self._dry_run = dry_run
        self._chips: list[tuple[ChipItem, str]] = []
        self._packages: list[tuple[PackageItem, str]] = []
        self._jobs: list[tuple[str, Job]] = []
        self._travellers: dict[str, TravellerItem] = {}
        self._codes: dict[tuple[str, str], tuple[CodeItem, str]] = {}
        self._pending_bytes = 0
        self._screen: Screen | None = None
        self._account = _Account(0, 0, [])
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._staged = False
        self._bad: list[IntakeError] = []
        self._held = ExitStack()
        with database.read() as connection:
            self._refuse_known(connection)

    def add_chip(self, item: ChipItem, where: str = "") -> None:
        """Take one eUICC with its one-time keys; an EID or a key that is already known makes the file bad."""
        self._chips.append((item, where or item.eid))
        if len(self._chips) >= CHUNK_ITEMS:
            self._flush()

    def add_package(self, item: PackageItem, where: str = "") -> None:
        """Take one package; its chip and one-time key must be known, and every id new."""
        self._packages.append((item, where or item.eid))
        self._pending_bytes += len(item.bpp)
        if len(self._packages) >= CHUNK_ITEMS or self._pending_bytes >= _CHUNK_BYTES:
            self._flush()

    def add_job(self, line: str, job: Job) -> None:
        """Take one job order for a line; a version that is not newer than the stored one makes the file bad."""
        if "\0" in job.job_order_id:
            self._reject(("INTAKE.FORMAT", "a value the database cannot hold"), "job order")
            return
        self._jobs.append((line, job))

    def add_traveller(self, item: TravellerItem, where: str = "") -> None:
        """Take one traveller; one serial number stands once in a file, and a later file's word on it counts."""
        if any("\0" in text for text in (item.sn, item.sku, item.eid, item.job_order_id)):
            self._reject(("INTAKE.FORMAT", "a value the database cannot hold"), where or item.sn[:64])
        elif item.sn in self._travellers:
            self._reject(("INTAKE.DUPLICATE", "this serial number stands twice in this file"), where or item.sn)
        else:
            self._travellers[item.sn] = item

    def add_code(self, item: CodeItem, where: str = "") -> None:
        """Take one activation code; one (address, matching id) is in the books once."""
        texts = (item.address, item.matching_id, item.profile_type, item.sku, item.region, item.confirmation_code)
        if any("\0" in text for text in texts):
            self._reject(("INTAKE.FORMAT", "a value the database cannot hold"), where)
        elif (item.address, item.matching_id) in self._codes:
            self._reject(("INTAKE.DUPLICATE", "this matching id stands twice in this file"), where)
        else:
            self._codes[item.address, item.matching_id] = item, where

    def finish(self) -> None:
        """Take in what was added, see the module. Raises IntakeError INTAKE.REJECTED with every bad item (to 100)."""
        self._flush()
        if (self._jobs or self._travellers or self._codes) and self._screen is not None:
            detail = "job orders, travellers and activation codes come each in a file of their own"
            self._reject(("INTAKE.FORMAT", detail), self._name)
        self._check_codes()
        self._raise_bad()
        if self._staged:
            self._writer.run(self._accept)
            self._staged = False
            complete(self._database, self._writer, self._digest, self._shelved)
        else:
            self._take_at_once()

    def close(self, *, discarded: bool) -> None:
        """Let the next one in; `discarded`: what was staged goes away first."""
        with self._held:
            if discarded and self._staged:
                discard(self._database, self._writer, self._digest)

    # ---- inside -----------------------------------------------------------------------------------

    def _refuse_known(self, connection: Connection) -> None:
        if connection.execute(select(exists().where(batch.c.sha256 == self._digest))).scalar():
            raise IntakeError("INTAKE.DUPLICATE", "this file was imported before", where=self._name)

    def _flush(self) -> None:
        chips, self._chips = self._chips, []
        packages, self._packages = self._packages, []
        self._pending_bytes = 0
        if not chips and not packages:
            return
        screen = self._screen or self._begin()
        good_chips = self._passed(chips, screen.chips([item for item, _ in chips]))
        good_packages = self._passed(packages, screen.packages([item for item, _ in packages]))
        if not self._bad and not self._dry_run:
            self._stage(good_chips, good_packages)
        self._account.chips += len(good_chips)
        self._account.packages += len(good_packages)
        self._counts.update((item.sku, item.region, item.smdp_oid) for item in good_packages)

    def _begin(self) -> Screen:
        """Wait for our turn, and put away what others left behind."""
        if not self._dry_run:
            self._held.enter_context(self._database.alone("intake", _WAIT_S))
            settle_remains(self._database, self._writer)
            with self._database.read() as connection:
                self._refuse_known(connection)
        connection = self._held.enter_context(self._database.scratch())
        self._screen = Screen(connection, self._database.named)
        return self._screen

    def _passed(self, items: Sequence[tuple[T, str]], refusals: Sequence[Refusal | None]) -> list[T]:
        for (_, where), refusal in zip(items, refusals, strict=True):
            if refusal is not None:
                self._reject(refusal, where)
        return [item for (item, _), refusal in zip(items, refusals, strict=True) if refusal is None]

    def _reject(self, refusal: Refusal, where: str) -> None:
        self._bad.append(IntakeError(*refusal, where=where))
        if len(self._bad) >= _MAX_BAD_ITEMS:
            self._raise_bad()

    def _raise_bad(self) -> None:
        if self._bad:
            first = self._bad[0]
            detail = f"{len(self._bad)} bad items, first: {first.where}: {first.code} {first.detail}"
            raise IntakeError("INTAKE.REJECTED", detail, where=self._name, items=tuple(self._bad))

    def _stage(self, chips: Sequence[ChipItem], packages: Sequence[PackageItem]) -> None:
        """Step 2."""
        first = self._account.chips + self._account.packages + 1
        forms: list[tuple[bytes, str | None]] = [(staged_chip(item), None) for item in chips]
        forms += [(staged_package(item), item.bpp_sha256) for item in packages]
        rows = [
            {"file": self._digest, "place": place, "item": form, "bpp_sha256": sha256}
            for place, (form, sha256) in enumerate(forms, first)
        ]
        content = [{"sha256": item.bpp_sha256, "bpp": item.bpp} for item in packages]

        def change(connection: Connection, _trail: Trail) -> None:
            connection.execute(staged.insert(), rows)
            if content:
                connection.execute(package_bytes.insert(), content)

        self._staged = True
        self._writer.run(change)

    def _accept(self, connection: Connection, trail: Trail) -> None:
        """Step 3."""
        self._account.counts = [(*book, number) for book, number in self._counts.items()]
        self._number(connection, trail)
        form = msgspec.msgpack.encode(self._account)
        connection.execute(staged.insert(), [{"file": self._digest, "place": _ACCOUNT, "item": form}])

    def _take_at_once(self) -> None:
        """A file without chips and packages needs no stage."""
        if self._dry_run:
            with self._database.read() as connection:
                for _, job in self._jobs:
                    self._check_job(connection, job)
            self._raise_bad()
            return
        with self._writer.writing() as (connection, trail):
            row = self._number(connection, trail)
            for line, job in self._jobs:
                self._check_job(connection, job)
                body = {"line": line, "body": msgspec.json.encode(job), "batch": row.number}
                order = {"job_order_id": job.job_order_id, "version": job.version}
                if not self._bad:
                    connection.execute(job_order.insert(), [order | body])
            self._raise_bad()
            account = _Account(0, 0, [])
            if self._codes:
                counts = codes.add(connection, row.number, [item for item, _ in self._codes.values()])
                account = _Account(0, counts.total(), [(*book, number) for book, number in counts.items()])
            if self._travellers:
                rows = [asdict(item) | {"batch": row.number} for item in self._travellers.values()]
                connection.execute(traveller.insert(), rows)
            _open(connection, trail, row, account, len(self._jobs), len(self._travellers))

    def _check_codes(self) -> None:
        """One that another file brings at the same moment is refused by the database, with its whole file."""
        if not self._codes:
            return
        with self._database.read() as connection:
            known = codes.known(connection, [item for item, _ in self._codes.values()])
        for pair in sorted(known):
            self._reject(("INTAKE.DUPLICATE", "this matching id is already in the store"), self._codes[pair][1])

    def _check_job(self, connection: Connection, job: Job) -> None:
        newest = select(func.max(job_order.c.version)).where(job_order.c.job_order_id == job.job_order_id)
        stored = connection.execute(newest).scalar()
        if stored is not None and job.version <= stored:
            self._reject(("INTAKE.DUPLICATE", f"version {stored} is stored already"), job.job_order_id)

    def _number(self, connection: Connection, trail: Trail) -> BatchRow:
        row = {"kind": self._kind, "name": self._name, "sha256": self._digest, "imported_at": trail.at}
        try:
            number = connection.execute(batch.insert().returning(batch.c.number), [row]).scalar_one()
        except sa.IntegrityError as error:
            raise IntakeError("INTAKE.DUPLICATE", "this file was imported before", where=self._name) from error
        return BatchRow(number, self._kind, self._name, self._digest, trail.at, 0, 0, 0)


# ---- what was accepted, and what was not ------------------------------------------------------------


def anything_staged(connection: Connection) -> bool:
    """Whether an intake is on its way, or was broken off."""
    return bool(connection.execute(select(exists().where(staged.c.place >= 0))).scalar())


def settle_remains(database: Database, writer: Gentle) -> None:
    """Finish every accepted file and discard the others; only for who is alone."""
    while True:
        with database.read() as connection:
            digest = connection.execute(select(func.min(staged.c.file))).scalar()
            accepted = digest is not None and _batch_of(connection, digest) is not None
        if digest is None:
            return
        if accepted:
            complete(database, writer, digest)
        else:
            discard(database, writer, digest)


def complete(database: Database, writer: Gentle, digest: str, shelved: Shelved | None = None) -> None:
    """Steps 4 and 5 of an accepted file, from wherever it stands."""
    with database.read() as connection:
        row = _batch_of(connection, digest)
    assert row is not None  # noqa: S101 - accepted

    def open_(connection: Connection, trail: Trail) -> None:
        account = _read_account(connection.execute(_account, {"file": digest}).scalar_one())
        connection.execute(_delete, {"file": digest, "first": _ACCOUNT, "last": _ACCOUNT})
        _open(connection, trail, row, account)

    while items := _page(database, digest):
        writer.run(partial(_shelve, digest, items, Rows(row, items)))
        if shelved is not None:
            shelved(items[-1][0])
    writer.run(open_)


def _page(database: Database, digest: str) -> list[tuple[int, bytes]]:
    with database.read() as connection:
        return [(place, item) for place, item in connection.execute(_next_items, {"file": digest})]


def _shelve(digest: str, items: Sequence[tuple[int, bytes]], rows: Rows, connection: Connection, trail: Trail) -> None:
    rows.write(connection, trail)
    connection.execute(_delete, {"file": digest, "first": items[0][0], "last": items[-1][0]})


def discard(database: Database, writer: Gentle, digest: str) -> None:
    """Throw away what is staged of a file, unless it was accepted."""
    with database.read() as connection:
        if _batch_of(connection, digest) is not None:
            return
    more = True

    def throw(connection: Connection, _trail: Trail) -> None:
        nonlocal more
        remains = connection.execute(_next_remains, {"file": digest}).all()
        more = bool(remains)
        if remains:
            content = [row.bpp_sha256 for row in remains if row.bpp_sha256 is not None]
            connection.execute(delete(package_bytes).where(package_bytes.c.sha256.in_(content)))
            connection.execute(_delete, {"file": digest, "first": remains[0].place, "last": remains[-1].place})

    while more:
        writer.run(throw)


def _batch_of(connection: Connection, digest: str) -> BatchRow | None:
    row = connection.execute(select(batch).where(batch.c.sha256 == digest)).one_or_none()
    return None if row is None else BatchRow(row.number, row.kind, row.name, row.sha256, row.imported_at, 0, 0, 0)


def _open(
    connection: Connection, trail: Trail, row: BatchRow, account: _Account, jobs: int = 0, travellers: int = 0
) -> None:
    """Step 5: write what the file brought; from then on it counts."""
    totals: dict[str, Any] = {"chips": account.chips, "packages": account.packages, "jobs": jobs}
    connection.execute(batch_total.insert(), [totals | {"batch": row.number, "travellers": travellers}])
    counts = [
        {"batch": row.number, "sku": sku, "region": region, "smdp_oid": smdp_oid, "packages": packages}
        for sku, region, smdp_oid, packages in account.counts
    ]
    if counts:
        connection.execute(batch_count.insert(), counts)
    facts = totals | ({"travellers": travellers} if travellers else {})
    trail.note("import", batch=row.number, kind=row.kind, name=row.name, sha256=row.sha256, **facts)
