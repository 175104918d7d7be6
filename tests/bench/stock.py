"""A factory database with as many chips and packages as one likes, written past the intake: a million in a minute.

What the intake would write is written by the database itself from a series of numbers; only the audit log has nothing
of it. Certificates and one-time keys have the sizes of real ones; packages have 45 kB only where that is asked for.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg

from ifpp.model.clock import utc_ms_text
from ifpp.store.factory import Factory
from tests.clock import START

SKU, REGION, SMDP = "TRACKER", "EU", "2.999.10"
_AT = utc_ms_text(START)
_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) ",
    "postgresql": "WITH n(i) AS (SELECT generate_series(1, {count})) ",
}
_WORDS = {
    "sqlite": {
        "pad": "printf('%0{width}d', i)",
        "blob": "CAST({text} AS BLOB)",
        "filler": "zeroblob({size})",
        "false": "0",
    },
    "postgresql": {
        "pad": "lpad(i::text, {width}, '0')",
        "blob": "convert_to({text}, 'UTF8')",
        "filler": "decode(repeat('00', {size}), 'hex')",
        "false": "false",
    },
}


_SERIES = {
    "sqlite": "INSERT INTO {what} {numbers}SELECT {values} FROM n",
    "postgresql": "{numbers}INSERT INTO {what} SELECT {values} FROM n",
}
_ONCE = (
    """INSERT INTO batch (kind, name, sha256, imported_at)
       VALUES ('esed', 'chips', 'c', '{at}'), ('esbpp', 'packages', 'p', '{at}')""",
    "INSERT INTO chain (chain_id, position, certificate) VALUES ('eum', 0, {filler_600})",
    "INSERT INTO info2 (info2_id, raw) VALUES ('info2', {filler_150})",
    "INSERT INTO batch_count VALUES (2, '{sku}', '{region}', '{smdp}', {count})",
    """INSERT INTO batch_total (batch, chips, packages, jobs, travellers)
       VALUES (1, {count}, 0, 0, 0), (2, 0, {count}, 0, 0)""",
)


def eid(number: int) -> str:
    """EID of a chip; its check digits do not hold, which the store leaves to the intake."""
    return f"8904903212345{number:019d}"


def sha256(number: int) -> str:
    """What stands for the digest of a package."""
    return f"{number:064d}"


def fill(url: str, count: int, *, package_bytes: int = 16) -> None:
    """Make the database at `url` and put `count` chips with a package each into it."""
    Factory.open(url).close()
    dialect = url.partition(":")[0]
    statements = _statements(dialect, count, package_bytes)
    if dialect == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -400000")
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("SET session_replication_role = replica")  # no triggers: the ledger is written below
        for statement in (*statements, _ledger(), "ANALYZE"):
            server.execute(statement.encode())


def _statements(dialect: str, count: int, package_bytes: int) -> list[str]:
    word = _WORDS[dialect]

    def pad(width: int) -> str:
        return word["pad"].format(width=width)

    def filler(size: int) -> str:
        return word["filler"].format(size=size)

    name = f"'8904903212345' || {pad(19)}"
    point = word["blob"].format(text=pad(65))
    from_numbers = {
        "chip (eid, batch, certificate, chain_id, info2_id, otk_list)": (
            f"{name}, 1, {filler(520)}, 'eum', 'info2', {filler(300)}"
        ),
        "otk (eid, otk_id, slot, alg, public)": f"{name}, '00', 0, 0, {point}",
        "package_bytes (sha256, bpp)": f"{pad(64)}, {filler(package_bytes)}",
        "package (package_id, batch, eid, otk_id, iccid, profile_type, sku, region, smdp_oid, transaction_id, "
        "smdp_chain_id, order_ref, prepare_download, bpp_sha256, bpp_bytes, state, spent, revision, changed_at, "
        "node_id, head_id, event_id, detail)": (
            f"'000002-' || {pad(7)}, 2, {name}, '00', {pad(20)}, 'standard', '{SKU}', '{REGION}', '{SMDP}', {pad(32)}, "
            f"'eum', 'order', {filler(200)}, {pad(64)}, {package_bytes}, 'AVAILABLE', {word['false']}, 0, '{_AT}', "
            "'intake', '', '', ''"
        ),
    }
    series = {"numbers": _NUMBERS[dialect].format(count=count), "count": count, "at": _AT} | {
        f"filler_{size}": filler(size) for size in (150, 600)
    }
    many = [_SERIES[dialect].format(what=what, values=values, **series) for what, values in from_numbers.items()]
    return [*(text.format(sku=SKU, region=REGION, smdp=SMDP, **series) for text in _ONCE), *many]


def _ledger() -> str:
    return (
        "INSERT INTO ledger (package_id, revision, from_state, to_state, at, node_id, head_id, attempt_id, event_id, "
        "detail) SELECT package_id, 0, '', state, changed_at, node_id, '', '', '', '' FROM package ORDER BY package_id"
    )
