"""The study in short: a worn socket is found soon, a healthy one is left in peace."""

from __future__ import annotations

import pytest

from tests.study.worn_socket import blame, find

SEEDS = range(5)


@pytest.mark.parametrize(("level", "at_most"), [(0.05, 400), (0.2, 90), (0.5, 40)])
def test_a_worn_socket_is_found(level: float, at_most: int) -> None:
    found = [find(level, seed).warned for seed in SEEDS]
    assert all(units is not None and units <= at_most for units in found), found


def test_a_socket_without_contact_is_out_of_work_after_three_units() -> None:
    assert {find(1.0, seed).stopped for seed in SEEDS} == {3}


def test_wear_is_told_from_chance() -> None:
    """Five times as much wear is found in less than half the units."""
    little, much = (sorted(find(level, seed).warned or 4000 for seed in SEEDS)[2] for level in (0.03, 0.15))
    assert much < little / 2


def test_healthy_heads_are_hardly_ever_blamed() -> None:
    false = blame(2000, seed=3)
    assert sum(false.values()) <= 1.0, false
    assert set(false) <= {"A-112"}, "three different units in a row on a healthy head are next to impossible"
