"""Revisions of the figures of ended windows: a document that differs from the last one is the next."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select

from ifpp.store.figure_tables import kpi_revision

Key = tuple[str, str, str]
"""(line, kind, name of the window)."""


def of(connection: Connection, key: Key, sha256: str) -> int:
    """See `Factory.kpi_revision`."""
    row = connection.execute(select(kpi_revision.c.revision, kpi_revision.c.sha256).where(*_is(key))).one_or_none()
    if row is None:
        return 1
    changed: bool = row.sha256 != sha256
    return int(row.revision) + changed


def keep(connection: Connection, key: Key, sha256: str, at: str, *, complete: bool) -> int:
    """See `Factory.keep_kpi_revision`."""
    row = connection.execute(select(kpi_revision).where(*_is(key)).with_for_update()).one_or_none()
    facts = {"sha256": sha256, "complete": complete, "at": at}
    if row is None:
        line, kind, window = key
        new = {"line": line, "kind": kind, "window": window, "revision": 1}
        connection.execute(kpi_revision.insert(), [new | facts])
        return 1
    if row.sha256 == sha256:
        return int(row.revision)
    connection.execute(kpi_revision.update().where(*_is(key)).values(revision=row.revision + 1, **facts))
    return int(row.revision) + 1


def _is(key: Key) -> tuple[ColumnElement[bool], ...]:
    columns = (kpi_revision.c.line, kpi_revision.c.kind, kpi_revision.c.window)
    return tuple(column == value for column, value in zip(columns, key, strict=True))
