"""`python -m tests.store.importer URL FIRST COUNT [BYTES]`: a process that takes packages in, and says how far.

Chips FIRST, FIRST + 1, ... must be there, with a key each. The file's digest is always the same.
"""

from __future__ import annotations

import sys
from contextlib import closing

from ifpp.store.factory import Factory
from tests.clock import START
from tests.store.world import package_item

DIGEST = "d" * 64


def main(url: str, first: int, count: int, size: int = 400) -> None:
    with closing(Factory.open(url, writer="intake")) as factory:
        with factory.intake("esbpp", "large.esbpp.jsonl", DIGEST, START, shelved=say_shelved) as intake:
            for number in range(first, first + count):
                intake.add_package(package_item(number, bpp=(b"%d " % number).ljust(size, b".")))
                if number % 100 == 0:
                    say("staging", number - first)
        say("done", count)


def say_shelved(items: int) -> None:
    say("shelving", items)


def say(phase: str, items: int) -> None:
    sys.stdout.write(f"{phase} {items}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
