"""The fuzz targets on seeded mutations: short enough for every test run, the same on every machine."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_wire import TARGETS, Target, mutate, one_input, run_short

RUNS = 1000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_bent_inputs_raise_nothing_else(target: Target) -> None:
    accepted = run_short(target, RUNS)
    assert accepted < RUNS  # a target that accepts everything reads nothing


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutations_start_from_an_input_that_holds(target: Target) -> None:
    target.read(target.seeds[0])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_first_byte_chooses_the_target(target: Target) -> None:
    one_input(b"")
    for seed in target.seeds:
        one_input(bytes([TARGETS.index(target)]) + seed)


def test_a_finding_is_not_swallowed() -> None:
    def broken(_data: bytes) -> None:
        raise IndexError("a parser ran off its input")

    with pytest.raises(IndexError):
        run_short(Target("broken", broken, TARGETS[0].allowed, (b"seed",)), 1)


def test_mutations_are_repeatable() -> None:
    import random

    assert mutate(b"0123456789", random.Random(7)) == mutate(b"0123456789", random.Random(7))
