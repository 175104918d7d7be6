"""The audit log: every custody event becomes one entry of a hash chain, in the transaction that makes it a fact.

Whoever changes the books notes it in a Trail; the Chain of the process writes the trail as the last act before the
commit, so that the one row all writers of a chain share is locked for the length of a commit only. Each process role
has a chain of its own (store, intake, one for each line): their writers do not wait for each other.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from ifpp.errors import CustodyError
from ifpp.model.states import PackageState
from ifpp.store.records import AuditEntry, AuditHead, SignedCheckpoint
from ifpp.store.schema import audit_chain, audit_checkpoint, audit_entry, audit_key, ledger
from ifpp.store.trail import Note, Trail
from ifpp.wire.audit import GENESIS, canonical, entry_bytes, link

_PAGE = 5000

_lock_head = select(audit_chain.c.number, audit_chain.c.hash).where(audit_chain.c.chain_id == bindparam("chain_id"))
_move_head = audit_chain.update().where(
    audit_chain.c.chain_id == bindparam("b_chain"),
    audit_chain.c.number == bindparam("b_number"),
    audit_chain.c.hash == bindparam("b_hash"),
)
# Thousands of entries a second: written in the driver's own words, past SQLAlchemy's care for every parameter.
_APPEND = f"INSERT INTO audit_entry ({', '.join(audit_entry.c.keys())}) VALUES ({{}})"  # noqa: S608 - our own names
_MARKS = {"sqlite": "?", "postgresql": "%s"}
_entries = (
    select(audit_entry)
    .where(audit_entry.c.chain_id == bindparam("chain_id"), audit_entry.c.number > bindparam("after"))
    .order_by(audit_entry.c.number)
    .limit(bindparam("limit"))
)
_checkpoints = (
    select(audit_checkpoint)
    .where(
        audit_checkpoint.c.chain_id == bindparam("chain_id"),
        audit_checkpoint.c.number > bindparam("after"),
        audit_checkpoint.c.number <= bindparam("through"),
    )
    .order_by(audit_checkpoint.c.number)
)
_last_checkpoint = (
    select(audit_checkpoint)
    .where(audit_checkpoint.c.chain_id == bindparam("chain_id"))
    .order_by(audit_checkpoint.c.number.desc())
    .limit(1)
)
_cleared = select(audit_entry).where(audit_entry.c.cleared_eid == bindparam("eid"))
_hash_at = select(audit_entry.c.hash).where(
    audit_entry.c.chain_id == bindparam("chain_id"), audit_entry.c.number == bindparam("number")
)


_Row = tuple[str, int, str, str, bytes, bytes, str | None]


class Chain:
    """The chain one process writes; made when its first entry is."""

    def __init__(self, chain_id: str, factory_id: str) -> None:
        self._chain_id = chain_id
        self._factory_id = factory_id
        self._head = (0, GENESIS)  # a guess: where we left it, unless somebody else wrote or the commit failed

    def append(self, connection: Connection, trail: Trail) -> None:
        """Write the trail as the last act of a transaction; the head row stays locked until it ends."""
        if not trail.notes:
            return
        head = self._head
        rows = self._rows(head, trail)
        if not head[0] or not self._moved(connection, head, rows):
            head = self._locked(connection)
            rows = self._rows(head, trail)
            if not self._moved(connection, head, rows):
                raise CustodyError("AUDIT.FORKED", "somebody else wrote under our lock", where=self._chain_id)
        marks = ", ".join(_MARKS[connection.dialect.name] for _ in audit_entry.c)
        connection.exec_driver_sql(_APPEND.format(marks), rows)
        self._head = _end(rows)

    def _rows(self, head: tuple[int, bytes], trail: Trail) -> list[_Row]:
        """Return the entries of a trail that follows `head`, in the order of the columns."""
        number, digest = head
        notes = trail.notes
        if number == 0:
            notes = [Note(trail.at, "opened", canonical({"factory_id": self._factory_id})), *notes]
        rows = []
        for note in notes:
            number += 1
            digest = link(digest, entry_bytes(self._chain_id, number, note.at, note.kind, note.facts))
            rows.append((self._chain_id, number, note.at, note.kind, note.facts, digest, note.cleared_eid))
        return rows

    def _moved(self, connection: Connection, head: tuple[int, bytes], rows: list[_Row]) -> bool:
        """Move the head row from where we think it is; False when it is elsewhere."""
        place = {"b_chain": self._chain_id, "b_number": head[0], "b_hash": head[1]}
        number, digest = _end(rows)
        return connection.execute(_move_head, place | {"number": number, "hash": digest}).rowcount == 1

    def _locked(self, connection: Connection) -> tuple[int, bytes]:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(audit_chain)
        first = {"chain_id": self._chain_id, "number": 0, "hash": GENESIS}
        connection.execute(insert.values(first).on_conflict_do_nothing())
        row = connection.execute(_lock_head.with_for_update(), {"chain_id": self._chain_id}).one()
        return row.number, row.hash


def _end(rows: list[_Row]) -> tuple[int, bytes]:
    last = rows[-1]
    return last[1], last[5]


# ---- reading ------------------------------------------------------------------------------------------


class AuditLog:
    """The log as one read transaction sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def heads(self) -> list[AuditHead]:
        """Return where every chain ends, by name."""
        rows = self._connection.execute(select(audit_chain).order_by(audit_chain.c.chain_id))
        return [AuditHead(*row) for row in rows]

    def entries(self, chain_id: str, after: int, limit: int) -> list[AuditEntry]:
        """Return at most `limit` entries of a chain that follow the number `after`, in order."""
        rows = self._connection.execute(_entries, {"chain_id": chain_id, "after": after, "limit": limit})
        return [AuditEntry(*row) for row in rows]

    def pages(self, chain_id: str) -> Iterator[list[AuditEntry]]:
        """Give every entry of a chain in order, a few thousand at a time."""
        after = 0
        while page := self.entries(chain_id, after, _PAGE):
            yield page
            after = page[-1].number

    def checkpoints(self, chain_id: str, after: int, through: int) -> list[SignedCheckpoint]:
        """Return the checkpoints of a chain under the entries after < number <= through, in order."""
        place = {"chain_id": chain_id, "after": after, "through": through}
        return [SignedCheckpoint(*row) for row in self._connection.execute(_checkpoints, place)]

    def last_checkpoint(self, chain_id: str) -> SignedCheckpoint | None:
        """Return the latest checkpoint of a chain, or None."""
        row = self._connection.execute(_last_checkpoint, {"chain_id": chain_id}).one_or_none()
        return None if row is None else SignedCheckpoint(*row)

    def keys(self) -> dict[str, bytes]:
        """Return every key that was made known: its id, its SubjectPublicKeyInfo."""
        return keys(self._connection)


def clearance(connection: Connection, eid: str) -> tuple[AuditEntry, bytes, SignedCheckpoint | None] | None:
    """Return the clean_to_ship entry of an EID, the hash before it, and the checkpoint that signs it."""
    row = connection.execute(_cleared, {"eid": eid}).one_or_none()
    if row is None:
        return None
    entry = AuditEntry(*row)
    place = {"chain_id": entry.chain_id, "number": entry.number - 1}
    previous = connection.execute(_hash_at, place).scalar_one_or_none() or GENESIS
    c = audit_checkpoint.c
    signed = select(audit_checkpoint).where(c.chain_id == entry.chain_id, c.number == entry.number)
    found = connection.execute(signed).one_or_none()
    return entry, previous, None if found is None else SignedCheckpoint(*found)


def keys(connection: Connection) -> dict[str, bytes]:
    """Return every key that ever signed: its id, its SubjectPublicKeyInfo."""
    return {row.key_id: row.public for row in connection.execute(select(audit_key).order_by(audit_key.c.at))}


# ---- signatures -----------------------------------------------------------------------------------------


def add_key(connection: Connection, trail: Trail, key_id: str, public: bytes) -> None:
    """Make a key known before it signs; nothing happens when it is."""
    if key_id not in keys(connection):
        connection.execute(audit_key.insert(), [{"key_id": key_id, "public": public, "at": trail.at}])
        trail.note("key", key_id=key_id, public=b64encode(public).decode())


def add_checkpoints(connection: Connection, signed: Sequence[SignedCheckpoint]) -> None:
    """Keep checkpoints; one that another supervisor made for the same entry stays as it is."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(audit_checkpoint)
    names = SignedCheckpoint.__slots__
    rows = [{name: getattr(one, name) for name in names} for one in signed]
    connection.execute(insert.on_conflict_do_nothing(), rows)


# ---- proving --------------------------------------------------------------------------------------------

_STATE_OF_KIND = {state.lower(): state.value for state in PackageState}
_NAMED = 10  # differences that are told one by one

_Step = tuple[str, int, str, str, str, str, str, str]
_step_columns = [
    ledger.c[name] for name in ("package_id", "revision", "to_state", "at", "node_id", "head_id", "event_id", "detail")
]


def prove(connection: Connection) -> list[str]:
    """Recompute every chain and hold it against the ledger; return what does not agree, in words.

    1. every entry follows the one before it, and the last is the one the chain's head names
    2. ledger rows and step entries are the same, one for one
    """
    found: list[str] = []
    written = _Sum()
    log = AuditLog(connection)
    for head in log.heads():
        number, digest = 0, GENESIS
        for entry in (entry for page in log.pages(head.chain_id) for entry in page):
            digest = link(digest, entry.canonical())
            if (entry.number, entry.hash) != (number + 1, digest):
                found.append(f"audit chain {head.chain_id}: entry {entry.number} does not follow entry {number}")
                digest = entry.hash
            number = entry.number
            if entry.kind in _STATE_OF_KIND:
                written.add(_step_of(entry))
        if (number, digest) != (head.number, head.hash):
            found.append(f"audit chain {head.chain_id}: ends with entry {number}, should end with {head.number}")
    booked = _Sum()
    for step in _ledger_steps(connection):
        booked.add(step)
    return found if written == booked else [*found, *_differences(connection)]


@dataclass(slots=True)
class _Sum:
    """Number and sum of digests of many steps: equal for equal steps, whatever their order."""

    count: int = 0
    total: int = 0

    def add(self, step: _Step) -> None:
        self.count += 1
        self.total += int.from_bytes(sha256(repr(step).encode()).digest(), "big")


def _step_of(entry: AuditEntry) -> _Step:
    facts = msgspec.json.decode(entry.facts)
    names = ("node", "head", "event", "detail")
    node, head, event, detail = (facts.get(name, "") for name in names)
    return facts["package"], facts["revision"], _STATE_OF_KIND[entry.kind], entry.at, node, head, event, detail


def _ledger_steps(connection: Connection) -> Iterator[_Step]:
    for row in connection.execution_options(yield_per=_PAGE).execute(select(*_step_columns)):
        yield row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]


def _differences(connection: Connection) -> Iterator[str]:
    """Name the steps that stand in one of the two only."""
    booked = set(_ledger_steps(connection))
    log = AuditLog(connection)
    written = Counter(
        _step_of(entry)
        for head in log.heads()
        for page in log.pages(head.chain_id)
        for entry in page
        if entry.kind in _STATE_OF_KIND
    )
    sides = (
        (sorted(booked - written.keys()), "is in the ledger, but not like this in the audit log"),
        (sorted(written.keys() - booked), "is in the audit log, but not like this in the ledger"),
        (sorted(step for step, times in written.items() if times > 1), "is in the audit log more than once"),
    )
    for steps, what in sides:
        for package_id, revision, state, *_ in steps[:_NAMED]:
            yield f"package {package_id}: step {revision} to {state} {what}"
        if len(steps) > _NAMED:
            yield f"and {len(steps) - _NAMED} more: each {what}"
