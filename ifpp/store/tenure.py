"""Who runs a line: one row for each, an epoch that grows with every new tenure, and the fence behind an old one."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ifpp.errors import LineTakenError
from ifpp.store.schema import line_lease
from ifpp.store.trail import Trail

RELEASED = "1970-01-01T00:00:00.000Z"  # run out by every clock, right or wrong


@dataclass(frozen=True, slots=True)
class Tenure:
    """The right of one process to run a line, from one epoch to the next."""

    line: str
    owner: str
    epoch: int


def acquire(connection: Connection, trail: Trail, line: str, owner: str, until: str, abandoned: str) -> int:
    """Take or renew (see `Factory.acquire_line`)."""
    columns = select(line_lease.c.owner, line_lease.c.epoch, line_lease.c.expires_at)
    lease = connection.execute(columns.where(line_lease.c.line == line).with_for_update(key_share=True)).one_or_none()
    if lease is None:
        row = {"line": line, "owner": owner, "epoch": 1, "expires_at": until}
        connection.execute(line_lease.insert(), [row])
        trail.note("line", line=line, owner=owner, epoch=1)
        return 1
    running = lease.expires_at > trail.at and lease.expires_at != abandoned
    if running and lease.owner != owner:
        raise LineTakenError(lease.owner, lease.expires_at, where=line)
    epoch: int = lease.epoch
    if not running:
        epoch += 1
        trail.note("line", line=line, owner=owner, epoch=epoch)
    change = line_lease.update().where(line_lease.c.line == line)
    connection.execute(change.values(owner=owner, epoch=epoch, expires_at=until))
    return epoch


def release(connection: Connection, trail: Trail, line: str, owner: str) -> None:
    """Give a line back (see `Factory.release_line`)."""
    mine = (line_lease.c.line == line, line_lease.c.owner == owner, line_lease.c.expires_at != RELEASED)
    if connection.execute(line_lease.update().where(*mine).values(expires_at=RELEASED)).rowcount:
        trail.note("line", line=line, owner=owner, left=True)


def hold(connection: Connection, tenure: Tenure) -> None:
    """Keep the line in its present hands until this transaction ends; raises LineTakenError when they are others."""
    columns = select(line_lease.c.owner, line_lease.c.epoch, line_lease.c.expires_at)
    row = connection.execute(columns.where(line_lease.c.line == tenure.line).with_for_update(read=True)).one_or_none()
    if row is None or (row.owner, row.epoch) != (tenure.owner, tenure.epoch):
        owner, until = ("nobody", "") if row is None else (row.owner, row.expires_at)
        raise LineTakenError(owner, until, where=tenure.line)
