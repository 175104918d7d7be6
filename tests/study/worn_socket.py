"""How soon a worn socket is found among 16, and how often a healthy one is blamed: `python -m tests.study.worn_socket`.

Chance decides the outcome of every seating; what is made of it is the station's own code (`ifpp.station.life`). Every
head first works as a healthy one until its memory is full; then one socket is worn. A seating on a healthy head loses
contact with probability HEALTHY, a unit fails for its own reasons with FAILS, and one in 1/MUTE chips is dead on every
head. A unit that loses contact is seated again as often as the recipe allows.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import quantiles

from ifpp.settings import Life, Recipe
from ifpp.station.life import Finding, Lives, Seating
from tests.clock import FakeClock

HEADS = [f"h{number:02d}" for number in range(1, 17)]
WORN_HEAD = "h07"
HEALTHY, FAILS, MUTE = 0.003, 0.005, 0.0005
LEVELS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
PATIENCE = 4000  # units of the worn head until it counts as never found
RESEATS = Recipe().reseats


@dataclass(frozen=True)
class Found:
    """After how many of its units a worn head was found, None = not in PATIENCE; and by which alarm first."""

    warned: int | None
    stopped: int | None
    by: str


class Fixture:
    """A station's heads, fed round after round; `wear`: head -> probability that a seating loses contact."""

    def __init__(self, seed: int, settings: Life | None = None) -> None:
        self.settings = settings or Life()
        self.lives = Lives(HEADS, self.settings, clock=FakeClock())
        self.wear = dict.fromkeys(HEADS, HEALTHY)
        self.alarms: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._units = 0

    def rounds(self, count: int) -> Iterator[None]:
        """Every head gets one unit a round; one in quarantine is released at the end of it."""
        for _ in range(count):
            for head in HEADS:
                self._unit(head)
            yield
            for head in HEADS:
                if self.lives[head].blocked:
                    self.lives.release(head, "the study")

    def _unit(self, head: str) -> None:
        chance, self._units = self._chance.random, self._units + 1
        mute = chance() < MUTE
        for seating in range(RESEATS + 1):
            if mute or chance() < self.wear[head]:
                finding = Finding.CONTACT
            else:
                finding = Finding.FAIL if chance() < FAILS else Finding.PASS
            again = finding is Finding.CONTACT and seating < RESEATS
            causes = self.lives.close(head, Seating("" if mute else str(self._units), finding, again))
            self.alarms.update(cause.code for cause in causes if cause.standing)
            if not again:
                return


def find(level: float, seed: int, settings: Life | None = None) -> Found:
    """Let one socket be worn from one unit to the next; returns when it was found."""
    fixture = Fixture(seed, settings)
    for _ in fixture.rounds(fixture.settings.window):
        pass
    if fixture.lives.shown(WORN_HEAD).alarms:
        fixture.lives.release(WORN_HEAD, "the study")  # blamed before it was worn
    fixture.wear[WORN_HEAD] = level
    warned = stopped = None
    by = ""
    for number, _ in enumerate(fixture.rounds(PATIENCE), 1):
        shown = fixture.lives.shown(WORN_HEAD)
        by = by or " ".join(shown.alarms)
        warned = warned or (number if shown.alarms else None)
        stopped = stopped or (number if shown.blocked else None)
        if warned and (stopped or level < 0.5):
            break
    return Found(warned, stopped, by)


def blame(units_of_each: int, seed: int, settings: Life | None = None) -> dict[str, float]:
    """False alarms by code for 10,000 units of healthy heads."""
    fixture = Fixture(seed, settings)
    for _ in fixture.rounds(units_of_each):
        pass
    return {code: 10_000 * count / (units_of_each * len(HEADS)) for code, count in sorted(fixture.alarms.items())}


def _row(level: float, runs: list[Found]) -> str:
    found = sorted(run.warned for run in runs if run.warned is not None)
    stopped = sorted(run.stopped for run in runs if run.stopped is not None)
    by = Counter(run.by for run in runs if run.by)
    first = ", ".join(f"{code} {count}" for code, count in by.most_common())
    times = f"{_middle(found):>8} {_late(found):>8} {_middle(stopped):>10}"
    return f"{level:>10.0%} {len(found):>4}/{len(runs):<4} {times}   {first}"


def _middle(numbers: list[int]) -> str:
    return str(numbers[len(numbers) // 2]) if numbers else "-"


def _late(numbers: list[int]) -> str:
    return f"{quantiles(numbers, n=10)[-1]:.0f}" if len(numbers) > 1 else "-"


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.study.worn_socket", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="repetitions for each level of wear")
    parser.add_argument("--units", type=int, default=10_000, help="units of each healthy head")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    life = Life()
    out = sys.stdout.write
    out(f"one worn socket among {len(HEADS)}; healthy heads lose contact at {HEALTHY:.1%} of their seatings\n")
    out(f"{life.window} units of each head are remembered, confidence {life.confidence:.2%}\n\n")
    out("contact is     found   units until found   until it is\n")
    out("lost at      in time   median     9 of 10      stopped   first alarm (runs)\n")
    for level in LEVELS:
        runs = [find(level, options.seed * 1000 + run) for run in range(options.runs)]
        out(_row(level, runs) + "\n")
    false = blame(options.units, options.seed)
    words = ", ".join(f"{code} {rate:.2f}" for code, rate in false.items()) or "none"
    out(f"\nfalse alarms for 10,000 units of healthy heads ({options.units * len(HEADS):,} units): {words}\n")


if __name__ == "__main__":
    main()
