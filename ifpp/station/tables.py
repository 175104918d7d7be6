"""The tables of the journal: those of version 2, which is taken over, and what each later version added."""

from __future__ import annotations

from typing import Any, Protocol

from ifpp.station.records import Whereabouts


class Connection(Protocol):
    """The connection of the journal."""

    def execute(self, sql: str, parameters: Any = ..., /) -> object:
        """Run one statement."""


SCHEMA_VERSION = 4
WORKS_SINCE = 3
"""The oldest version whose ifpp can work with a journal of this one, so that a station may go back to it."""
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE package (
    attempt_id TEXT NOT NULL, package_id TEXT NOT NULL, eid TEXT NOT NULL, iccid TEXT NOT NULL,
    transaction_id TEXT NOT NULL, bpp_sha256 TEXT NOT NULL, head_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('SENT', 'INSTALLED', 'FAILED', 'UNKNOWN')),
    spent INTEGER NOT NULL, reason TEXT NOT NULL, pir BLOB, sent_at TEXT NOT NULL, settled_at TEXT,
    resolved_by TEXT NOT NULL, -- the later attempt that learnt from the chip what became of it
    PRIMARY KEY (attempt_id, package_id)) STRICT;
CREATE INDEX package_by_eid ON package (eid);
CREATE TABLE will ( -- of attempts that are not closed
    attempt_id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE hold (
    eid TEXT PRIMARY KEY, since TEXT NOT NULL, code TEXT NOT NULL, action TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE unit (eid TEXT PRIMARY KEY, attempts INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE resource (
    name TEXT PRIMARY KEY, e10 TEXT NOT NULL, code INTEGER NOT NULL, since TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE outbox ( -- the newest row stays: it carries the number
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body BLOB NOT NULL,
    stored_at TEXT NOT NULL, acked_at TEXT, rejected TEXT) STRICT;
CREATE INDEX outbox_open ON outbox (seq) WHERE acked_at IS NULL;
CREATE INDEX outbox_rejected ON outbox (seq) WHERE rejected IS NOT NULL;
"""
SINCE_3 = """
CREATE TABLE link ( -- how large the blocks of a card type may be on a port
    card TEXT NOT NULL, port TEXT NOT NULL, block_size INTEGER NOT NULL, learnt_at TEXT NOT NULL,
    PRIMARY KEY (card, port)) STRICT, WITHOUT ROWID;
CREATE TABLE life ( -- of a head: insertions, contact, streaks, quarantine
    head_id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
SINCE_4 = """
CREATE TABLE rsp_session ( -- online sessions whose outcome nobody has taken over yet, one a chip
    eid TEXT PRIMARY KEY, package_id TEXT NOT NULL, address TEXT NOT NULL, transaction_id BLOB NOT NULL,
    smdp_oid TEXT NOT NULL, step TEXT NOT NULL CHECK (step IN ('OPENED', 'LOADING', 'CANCELLED', 'SETTLED')),
    iccid TEXT, certificates BLOB NOT NULL, cancelled BLOB NOT NULL, result BLOB NOT NULL,
    kept_at TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE rsp_notice ( -- what chips have to tell their SM-DP+, in the order it came about
    id INTEGER PRIMARY KEY, eid TEXT NOT NULL, seq_number INTEGER NOT NULL, address TEXT NOT NULL, raw BLOB NOT NULL,
    kept_at TEXT NOT NULL, delivered_at TEXT, refused TEXT, UNIQUE (eid, seq_number)) STRICT;
CREATE INDEX rsp_notice_owed ON rsp_notice (id) WHERE delivered_at IS NULL AND refused IS NULL;
"""
_OLDEST = 2


def since(version: int) -> str:
    """Return what a journal of this version, or an empty file (0), lacks; "" for one that is too old, or lacks nothing.

    Each statement ends a line.
    """
    steps = {3: SINCE_3, 4: SINCE_4}
    if 0 < version < _OLDEST:
        return ""
    return ("" if version else TABLES) + "".join(text for number, text in steps.items() if number > version)


def put_will(connection: Connection, attempt_id: str, will: bytes) -> None:
    """Keep the document of an open attempt that is to be sent if this process dies."""
    connection.execute(
        "INSERT INTO will VALUES (?, ?) ON CONFLICT (attempt_id) DO UPDATE SET body = excluded.body", (attempt_id, will)
    )


def put_life(connection: Connection, head_id: str, life: bytes) -> None:
    """Keep the life of a head."""
    connection.execute(
        "INSERT INTO life VALUES (?, ?) ON CONFLICT (head_id) DO UPDATE SET body = excluded.body", (head_id, life)
    )


def put_place(connection: Connection, name: str, where: Whereabouts) -> None:
    """Keep where a head or the station stands."""
    connection.execute(
        "INSERT INTO resource VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET e10 = excluded.e10, code = excluded.code, since = excluded.since",
        (name, where.e10, where.code, where.since),
    )
