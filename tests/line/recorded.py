"""Lines that worked, as their databases tell it: rows of real runs, to be put into a fresh factory database.

`recorded_lines/*.json.gz` are the rows of `ifpp demo --units 90 --faults 6 --stations 1 --heads N --seed 5 --keep DIR`,
written by `python -m tests.line.recorded DIR FILE`: every process was real, chips took 5 ms a command.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from ifpp.store.factory import Factory

FOLDER = Path(__file__).parent / "recorded_lines"
_TABLES = ("job_order", "station_line", "unit_attempt", "load_time", "state_span", "claim")
SITE = """enterprise = "demo"
site = "laptop"
area = "hall"
line = "L1"

[store]
database = "sqlite:///factory.db"
"""


def replay(name: str, folder: Path) -> Path:
    """Make the site file and the factory database of a recorded line; return the site file."""
    Factory.open(f"sqlite:///{folder / 'factory.db'}").close()
    rows = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    with closing(sqlite3.connect(folder / "factory.db")) as books, books:
        for table, lines in rows.items():
            for line in lines:
                names, marks = ", ".join(line), ", ".join("?" * len(line))
                values = [bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in line.values()]
                books.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)
    (folder / "site.toml").write_text(SITE, encoding="utf-8")
    return folder / "site.toml"


def record(kept: Path, out: Path) -> None:
    """Write the rows of a kept demo."""
    with closing(sqlite3.connect(f"{(kept / 'factory.db').resolve().as_uri()}?mode=ro", uri=True)) as books:
        books.row_factory = sqlite3.Row
        rows = {
            table: [
                {
                    name: {"hex": row[name].hex()} if isinstance(row[name], bytes) else row[name]
                    for name in tuple(row.keys())
                }
                for row in books.execute(f"SELECT * FROM {table}")
            ]
            for table in _TABLES
        }
    out.write_bytes(gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
