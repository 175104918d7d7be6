"""Retention: which bytes need not be kept any more, and letting them go.

A package of some 45 kB is needed until its chip has it for good. Its bytes go when (1) its one-time key is spent or it
was destroyed, so that no rule of custody could ask for it again, (2) a report that says so was acknowledged, so that
no SM-DPf can ask for it again, and (3) that is so for long enough. Everything else stays: what the package was, with
the digest of its bytes, every step of it, the chip's signed result, events, reports and the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, bindparam, exists, func, or_, select

from ifpp.model.clock import utc_ms_text
from ifpp.model.states import PackageState
from ifpp.store.database import Database
from ifpp.store.schema import package, package_bytes, report_ack, report_item
from ifpp.store.trail import Trail

_PAGE = 500

_answered = exists().where(
    report_item.c.package_id == package.c.package_id,
    report_item.c.state == package.c.state,
    report_ack.c.report_id == report_item.c.report_id,
)
_done = (
    select(package.c.package_id, package.c.bpp_sha256, package.c.bpp_bytes)
    .join(package_bytes, package_bytes.c.sha256 == package.c.bpp_sha256)
    .where(
        package.c.package_id > bindparam("after"),
        package.c.changed_at < bindparam("before"),
        func.length(package_bytes.c.bpp) > 0,
        or_(package.c.state == PackageState.DESTROYED, package.c.spent & _answered),
    )
    .order_by(package.c.package_id)
    .limit(_PAGE)
)
_empty = package_bytes.update().where(package_bytes.c.sha256 == bindparam("b_sha256")).values(bpp=b"")


class Retention:
    """Lets go of what is not needed, a page at a time, while everybody works."""

    def __init__(
        self, database: Database, writing: Callable[[datetime], AbstractContextManager[tuple[Connection, Trail]]]
    ) -> None:
        self._database = database
        self._writing = writing

    def purge(self, before: datetime, now: datetime, *, dry_run: bool = False) -> Iterator[tuple[int, int]]:
        """Empty packages that were settled before a time; give how many, and their bytes, page by page."""
        place = {"after": "", "before": utc_ms_text(before)}
        while True:
            with self._database.read() as connection:
                rows = connection.execute(_done, place).all()
            if not rows:
                return
            place["after"] = rows[-1].package_id
            if not dry_run:
                digests = [row.bpp_sha256 for row in rows]
                with self._writing(now) as (connection, trail):
                    connection.execute(_empty, [{"b_sha256": digest} for digest in digests])
                    listed = sha256(",".join(digests).encode()).hexdigest()
                    trail.note("purged", packages=len(rows), before=place["before"], sha256=listed)
            yield len(rows), sum(row.bpp_bytes for row in rows)
