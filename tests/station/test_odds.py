"""The exact binomial tail against sums of exact fractions, and the verdict made of it."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.station.odds import at_least, is_worse, smoothed


def exactly(failures: int, trials: int, rate: Fraction) -> Fraction:
    """The tail as the definition has it, without rounding."""
    counts = range(failures, trials + 1)
    return sum((comb(trials, n) * rate**n * (1 - rate) ** (trials - n) for n in counts), Fraction(0))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 120), st.integers(0, 120), st.integers(1, 199))
def test_the_tail_is_exact(trials: int, failures: int, rate_in_200: int) -> None:
    failures, rate = min(failures, trials), Fraction(rate_in_200, 200)
    assert at_least(failures, trials, float(rate)) == pytest.approx(float(exactly(failures, trials, rate)), rel=1e-9)


def test_a_tail_far_out_is_small_and_not_lost_in_rounding() -> None:
    assert at_least(60, 200, 0.003) == pytest.approx(float(exactly(60, 200, Fraction(3, 1000))), rel=1e-9)


def test_a_rate_is_never_taken_for_none_or_all() -> None:
    assert smoothed(0, 0) == 0.5
    assert 0 < smoothed(0, 3000) < 0.001
    assert 0.999 < smoothed(3000, 3000) < 1


@pytest.mark.parametrize(
    ("own", "siblings", "worse"),
    [
        ((0, 200), (0, 3000), False),
        ((2, 200), (0, 3000), False),  # two are not enough, even where nobody else has one
        ((3, 200), (0, 3000), True),
        ((3, 200), (30, 3000), False),  # what is bad everywhere is no socket
        ((10, 200), (30, 3000), True),
        ((200, 200), (0, 0), False),  # nobody to compare with
        ((5, 5), (0, 15), True),
        ((0, 0), (10, 100), False),
    ],
)
def test_worse_than_its_siblings(own: tuple[int, int], siblings: tuple[int, int], worse: bool) -> None:
    assert is_worse(own, siblings, 0.999) is worse
