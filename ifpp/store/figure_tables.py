"""Tables of the line's figures: what events say of states and loads, laid out to be counted; limits and releases.

`state_span`, `load_time` and `unit_again` are written with the event they come from, in its transaction, and never
changed.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Index, Integer, Table, Text

from ifpp.store.schema import metadata, unit_attempt

# One stay in one E10 state, at its end: [began_ms, ended_ms) in Unix milliseconds, its length from a monotonic clock.
state_span = Table(
    "state_span",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("resource", Text, nullable=False),
    Column("e10", Text, nullable=False),
    Column("code", BigInteger, nullable=False),
    Column("next_e10", Text, nullable=False),
    Column("next_code", BigInteger, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger, nullable=False),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_state_span_ended_ms", "ended_ms"),
    Index("ix_state_span_resource", "node_id", "resource", "ended_ms"),
)

# One package that was installed, and how long that took. `link`: protocol, bit rate and block size of the reader.
load_time = Table(
    "load_time",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("head_id", Text, nullable=False),
    Column("profile_type", Text, nullable=False),
    Column("firmware", Text, nullable=False),
    Column("link", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("load_ms", BigInteger, nullable=False),
    Column("ended_at", Text, nullable=False),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_load_time_ended_at", "ended_at"),
)

# Attempts at units that were tried more than once at an operation: only these have to be put in order.
unit_again = Table(
    "unit_again",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("operation", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("ended_at", Text, nullable=False),
    ForeignKeyConstraint(["node_id", "seq"], ["event.node_id", "event.seq"]),
    Index("ix_unit_again_ended_at", "ended_at"),
)

# For which line a station works: that of the last job order it told a result of.
station_line = Table(
    "station_line",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("line", Text, nullable=False),
    Index("ix_station_line_line", "line"),
)

# The last document of each ended window, by its digest: a different one is its next revision.
kpi_revision = Table(
    "kpi_revision",
    metadata,
    Column("line", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("window", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("at", Text, nullable=False),
)

# Frozen limits of a stratum's chart: natural logarithms of seconds per kilobyte.
chart_limits = Table(
    "chart_limits",
    metadata,
    Column("line", Text, primary_key=True),
    Column("stratum", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("mean", Float(53), nullable=False),
    Column("s_mean", Float(53), nullable=False),
    Column("subgroups", BigInteger, nullable=False),
    Column("from_at", Text, nullable=False),
    Column("to_at", Text, nullable=False),
    Column("told_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
)

# Who let a job order go on after its first article and golden units, for which setup.
job_release = Table(
    "job_release",
    metadata,
    Column("job_order_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("setup", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("told_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Text, nullable=False),
)

Index("ix_unit_attempt_ended_at", unit_attempt.c.ended_at)
Index("ix_unit_attempt_operation", unit_attempt.c.operation, unit_attempt.c.unit)

KEPT = ("state_span", "unit_again", "load_time", "chart_limits", "job_release")
"""Tables whose rows are never changed nor deleted."""
