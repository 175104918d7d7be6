"""The denylist: which profile type must not be loaded into chips of which firmware, learnt from failures and edited.

`fit` holds one row for each pair of firmware (`ifpp.model.chip.firmware_name`) and profile type that stations told of.
Rules of learning, applied in the transaction that takes the events:
  1. One success says that the pair works: nothing is learnt against it any more, a proposal is taken back.
  2. A failure counts when it is the product's (outcome class PRODUCT) and the package ended FAILED; a chip counts once.
  3. So many chips without any success make an entry: a proposal, or by setting one that refuses at once.
  4. After a person's word on a pair only later failures count.
Every change stands in the audit log (kind `denylist`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, bindparam, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from ifpp.errors import CustodyError
from ifpp.model.messages import UnitResultEvent
from ifpp.model.states import OutcomeClass, PackageState
from ifpp.store.schema import IS_PRODUCT, fit, package, package_result, unit_attempt
from ifpp.store.trail import Trail

LEARNER = "ifpp"
MAX_NAME = 64
Pair = tuple[str, str]


class Standing(StrEnum):
    """Where a pair stands; only ACTIVE refuses."""

    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    ACTIVE = "ACTIVE"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class Learning:
    """After how many failed chips an entry is made (0: never), and whether it refuses at once."""

    failures: int = 3
    refuse: bool = False


USUAL = Learning()


@dataclass(frozen=True, slots=True)
class DeniedRow:
    """One entry of the denylist; `failed` counts the chips, `succeeded` says that some chip took the profile."""

    firmware: str
    profile_type: str
    standing: str
    by: str
    reason: str
    changed_at: str
    succeeded: bool
    failed: int


_KEY = (fit.c.firmware, fit.c.profile_type)
_known = select(fit).where(tuple_(*_KEY).in_(bindparam("pairs", expanding=True)))
_denied = (
    select(*_KEY)
    .where(fit.c.standing == Standing.ACTIVE, fit.c.profile_type.in_(bindparam("types", expanding=True)))
    .order_by(*_KEY)
)
_result_of = (package_result.c.node_id == unit_attempt.c.node_id) & (package_result.c.seq == unit_attempt.c.seq)
_failed = (
    select(func.count(unit_attempt.c.eid.distinct()))
    .select_from(unit_attempt)
    .join(package, package.c.eid == unit_attempt.c.eid)
    .join(package_result, (package_result.c.package_id == package.c.package_id) & _result_of)
    .where(
        unit_attempt.c.firmware == bindparam("firmware"),
        IS_PRODUCT,
        package.c.profile_type == bindparam("profile_type"),
        package_result.c.state == PackageState.FAILED,
        package_result.c.taken_at > bindparam("since"),
    )
)


def refusing(connection: Connection, profile_types: Iterable[str]) -> list[Pair]:
    """Return the entries in force for any of these profile types, in order."""
    types = sorted(set(profile_types))
    return [(row[0], row[1]) for row in connection.execute(_denied, {"types": types})] if types else []


def denied(pairs: Iterable[Pair], eid: str, profile_types: Collection[str]) -> dict[str, list[str]]:
    """Return profile type -> firmware of this chip's maker that must not get it, among entries in force."""
    answer: dict[str, list[str]] = {}
    for firmware, profile_type in pairs:
        if profile_type in profile_types and firmware.partition("/")[0] == eid[:8]:
            answer.setdefault(profile_type, []).append(firmware)
    return answer


def entries(connection: Connection) -> list[DeniedRow]:
    """Return every entry, refusing or not, by firmware and profile type."""
    rows = connection.execute(select(fit).where(fit.c.standing != Standing.OPEN).order_by(*_KEY)).all()
    return [
        DeniedRow(
            row.firmware,
            row.profile_type,
            row.standing,
            row.told_by,
            row.reason,
            row.changed_at,
            row.succeeded,
            _count(connection, (row.firmware, row.profile_type), ""),
        )
        for row in rows
    ]


def decide(
    connection: Connection, trail: Trail, pair: Pair, standing: Standing, by: str, reason: str, *, new: bool
) -> None:
    """A person's word on a pair. Raises CustodyError DENYLIST.UNKNOWN unless it has an entry, or may be `new`."""
    row = connection.execute(_known, {"pairs": [pair]}).one_or_none()
    if not new and (row is None or row.standing in (Standing.OPEN, Standing.REMOVED)):
        raise CustodyError("DENYLIST.UNKNOWN", "there is no such entry", where=f"{pair[0]} {pair[1]}")
    if row is None:
        _open(connection, [pair])
    _set(connection, trail, pair, standing, by, reason)


def learn(connection: Connection, trail: Trail, documents: Sequence[UnitResultEvent], learning: Learning) -> None:
    """Draw the conclusions of results that were written in this transaction."""
    worked = {pair for document in documents for pair in _pairs(document, PackageState.INSTALLED)}
    product = [document for document in documents if document.outcome_class == OutcomeClass.PRODUCT]
    broke = {pair for document in product for pair in _pairs(document, PackageState.FAILED)}
    told = sorted(worked | broke)
    if not told:
        return
    rows = {(row.firmware, row.profile_type): row for row in connection.execute(_known, {"pairs": told})}
    _open(connection, [pair for pair in told if pair not in rows])
    for pair in sorted(worked):
        row = rows.get(pair)
        if row is None or not row.succeeded:
            _note_success(connection, pair)
            if row is not None and row.standing == Standing.PROPOSED:
                _set(connection, trail, pair, Standing.OPEN, LEARNER, "a chip of this firmware took the profile")
    for pair in sorted(broke - worked):
        row = rows.get(pair)
        if row is None or (not row.succeeded and row.standing in (Standing.OPEN, Standing.REMOVED)):
            _conclude(connection, trail, pair, "" if row is None else row.changed_at, learning)


def _pairs(document: UnitResultEvent, state: PackageState) -> Collection[Pair]:
    if not 0 < len(document.firmware) <= MAX_NAME:
        return ()
    types = {result.profile_type for result in document.profiles if result.package_state == state}
    return {(document.firmware, kind) for kind in types if len(kind) <= MAX_NAME}


def _conclude(connection: Connection, trail: Trail, pair: Pair, since: str, learning: Learning) -> None:
    failed = _count(connection, pair, since)
    if 0 < learning.failures <= failed:
        standing = Standing.ACTIVE if learning.refuse else Standing.PROPOSED
        _set(connection, trail, pair, standing, LEARNER, f"failed on {failed} chips and never succeeded")


def _count(connection: Connection, pair: Pair, since: str) -> int:
    firmware, profile_type = pair
    wanted = {"firmware": firmware, "profile_type": profile_type, "since": since}
    return int(connection.execute(_failed, wanted).scalar_one())


def _open(connection: Connection, pairs: Sequence[Pair]) -> None:
    if pairs:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(fit)
        empty = {"standing": Standing.OPEN, "told_by": "", "reason": "", "changed_at": "", "succeeded": False}
        rows = [{"firmware": firmware, "profile_type": kind} | empty for firmware, kind in pairs]
        connection.execute(insert.on_conflict_do_nothing(), rows)


def _note_success(connection: Connection, pair: Pair) -> None:
    change = fit.update().where(fit.c.firmware == pair[0], fit.c.profile_type == pair[1])
    connection.execute(change.values(succeeded=True))


def _set(connection: Connection, trail: Trail, pair: Pair, standing: Standing, by: str, reason: str) -> None:
    firmware, profile_type = pair
    change = fit.update().where(fit.c.firmware == firmware, fit.c.profile_type == profile_type)
    connection.execute(change.values(standing=standing, told_by=by, reason=reason, changed_at=trail.at))
    facts = {"firmware": firmware, "profile_type": profile_type, "standing": standing.value}
    trail.note("denylist", **facts, by=by, reason=reason)
