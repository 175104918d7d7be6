"""`python -m tests.bench [NAME ...]`: run all benchmarks, or the named ones, and print their tables."""

from __future__ import annotations

import importlib
import sys

BENCHES = {
    "cli": "CPU of `ifpp --help`, and what it imports",
    "load": "commands of a load against the protocol's minimum",
    "heads": "16 heads against 16 times one head",
    "rsp": "online downloads: 16 heads at 5 ms a command and 20 ms a round trip against 16 times one head",
    "modem": "bytes of a load on a modem's line against the minimum",
    "readers": "16 PC/SC heads through pcscd, against a C program that sends the same",
    "custody": "time of a unit, journal and ledger on disk against memory",
    "intake": "packages of 45 kB taken in, each verified; memory of a large file against a small one",
    "store": "claims with a million packages against ten thousand; 16 stations at once; packages handed out",
    "keys": "16 heads over keys that take 50 ms an operation against keys that take none",
    "kpi": "the figures of a shift of 100,000 units, on SQLite and PostgreSQL",
    "screen": "processor, memory and key-to-screen time of the station screen with 64 heads",
    "line": "five lines of 20 stations at their usual pace, then as fast as they go with one second's answer",
    "metrics": "a scrape of a station of 64 heads",
    "results": "results a second through one supervisor",
}
MODULES = {"line": "whole_line"}  # where it is not the name


def main(names: list[str]) -> int:
    chosen = list(BENCHES) if names in ([], ["all"]) else names
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        known = "\n".join(f"  {name:8} {about}" for name, about in BENCHES.items())
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are\n{known}\n")
        return 2
    missed = 0
    for name in chosen:
        sys.stdout.write(f"\n== {name}: {BENCHES[name]}\n")
        sys.stdout.flush()
        missed += not importlib.import_module(f"tests.bench.{MODULES.get(name, name)}").run()
    return 1 if missed else 0


sys.exit(main(sys.argv[1:]))
