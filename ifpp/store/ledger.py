"""Steps of packages: the one function through which a package changes, and the reading of its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from ifpp.errors import CustodyError
from ifpp.model.states import PackageState
from ifpp.store.schema import package
from ifpp.store.trail import Trail

_CHANGED = (
    "revision",
    "state",
    "changed_at",
    "node_id",
    "head_id",
    "attempt_id",
    "lease_until",
    "spent",
    "event_id",
    "detail",
)
_STEP = (
    package.update()
    .where(package.c.package_id == bindparam("b_package_id"), package.c.revision == bindparam("b_revision"))
    .values({name: bindparam(name) for name in _CHANGED})
)
_STEP_WITH_ICCID = _STEP.values(iccid=bindparam("iccid"))
_values = attrgetter(*_CHANGED)


@dataclass(frozen=True, slots=True)
class Held:
    """A package as the rules need it."""

    package_id: str
    eid: str
    iccid: str
    bpp_sha256: str
    state: PackageState
    spent: bool
    revision: int
    attempt_id: str | None

    @property
    def is_code(self) -> bool:
        """Whether it is an activation code: it has no bytes, and its own name for their digest."""
        return self.bpp_sha256 == self.package_id

    def is_meant(self, eid: str, iccid: str, bpp_sha256: str) -> bool:
        """Whether a station that names these speaks of this package; of a code it may know the ICCID first, or not."""
        if self.is_code:
            return self.eid == eid and not bpp_sha256 and (not iccid or self.iccid in (iccid, self.package_id))
        return (self.eid, self.iccid, self.bpp_sha256) == (eid, iccid, bpp_sha256)


HELD = (
    package.c.package_id,
    package.c.eid,
    package.c.iccid,
    package.c.bpp_sha256,
    package.c.state,
    package.c.spent,
    package.c.revision,
    package.c.attempt_id,
)


def held_of(row: Row[Any]) -> Held:
    """Return a row of the columns HELD as a value."""
    return Held(**dict(row._mapping) | {"state": PackageState(row.state)})


lock_package = select(*HELD).where(package.c.package_id == bindparam("package_id")).with_for_update(key_share=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One step to take: `revision` is the package's new one, `attempt_id` who holds it from then on.

    `iccid`: of an activation code that is installed, which was not known before.
    """

    package_id: str
    revision: int
    state: PackageState
    changed_at: str
    node_id: str
    head_id: str = ""
    attempt_id: str | None = None
    lease_until: str | None = None
    spent: bool = False
    event_id: str = ""
    detail: str = ""
    iccid: str = ""


def take(connection: Connection, trail: Trail, steps: Sequence[Step]) -> None:
    """Take the steps in order and note them; the database checks each and writes its ledger row.

    Raises CustodyError CUSTODY.TRANSITION when a package has moved since it was read; a step that the database
    forbids comes out as its IntegrityError (see `Database.write`).
    """
    if not steps:
        return
    plain = [_row(step) for step in steps if not step.iccid]
    named = [_row(step) | {"iccid": step.iccid} for step in steps if step.iccid]  # the last one of its package
    for statement, rows in ((_STEP, plain), (_STEP_WITH_ICCID, named)):
        if rows and connection.execute(statement, rows).rowcount != len(rows):
            raise CustodyError("CUSTODY.TRANSITION", "a package moved while it was being settled")
    for step in steps:
        iccid = {"iccid": step.iccid} if step.iccid else {}
        trail.note(
            step.state.lower(),
            package=step.package_id,
            revision=step.revision,
            node=step.node_id,
            head=step.head_id,
            attempt=step.attempt_id,
            event=step.event_id,
            spent=step.spent,
            detail=step.detail,
            **iccid,
        )


def _row(step: Step) -> dict[str, Any]:
    place = {"b_package_id": step.package_id, "b_revision": step.revision - 1}
    return dict(zip(_CHANGED, _values(step), strict=True)) | place
