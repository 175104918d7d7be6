"""Charts, rules, capability and comparison against published factors and seeded simulation."""

from __future__ import annotations

import math
from random import Random

import pytest

from ifpp.line import spc
from ifpp.line.quality import chart, compare, limits_from, strata, subgroups
from ifpp.store.loads import Frozen, Load

# Factors of X-bar/S charts as ASTM MNL 7 and Montgomery (Appendix VI) print them: n, c4, A3, B3, B4.
FACTORS = [
    (2, 0.7979, 2.659, 0, 3.267),
    (3, 0.8862, 1.954, 0, 2.568),
    (5, 0.9400, 1.427, 0, 2.089),
    (6, 0.9515, 1.287, 0.030, 1.970),
    (10, 0.9727, 0.975, 0.284, 1.716),
    (25, 0.9896, 0.606, 0.565, 1.435),
]


@pytest.mark.parametrize(("n", "c4", "a3", "b3", "b4"), FACTORS)
def test_factors_are_the_published_ones(n: int, c4: float, a3: float, b3: float, b4: float) -> None:
    assert spc.c4(n) == pytest.approx(c4, abs=6e-5)
    assert spc.a3(n) == pytest.approx(a3, abs=6e-4)
    assert spc.b3(n) == pytest.approx(b3, abs=6e-4)
    assert spc.b4(n) == pytest.approx(b4, abs=6e-4)


def normal(seed: int, count: int, mean: float = 0.0, sigma: float = 1.0) -> list[float]:
    random = Random(seed)
    return [random.gauss(mean, sigma) for _ in range(count)]


def test_limits_take_25_subgroups() -> None:
    groups = subgroups(normal(1, 125))
    assert spc.limits_of(groups[:24]) is None
    limits = spc.limits_of(groups)
    assert limits is not None
    assert limits.mean == pytest.approx(0, abs=0.3)
    assert limits.s_mean / spc.c4(5) == pytest.approx(1, abs=0.2)
    assert limits.bounds[1] - limits.mean == pytest.approx(3 * limits.sigma)


@pytest.mark.parametrize(
    ("rule", "points", "wanted"),
    [
        ("1 beyond 3 sigma", [0, 3.1], [1]),
        ("1 beyond 3 sigma", [0, 3.0, -3.0], []),
        ("9 on one side", [0.1] * 9, [8]),
        ("9 on one side", [0.1] * 8 + [-0.1], []),
        ("2 of 3 beyond 2 sigma", [2.1, 0, 2.1], [2]),
        ("2 of 3 beyond 2 sigma", [2.1, 0, -2.1], []),
        ("4 of 5 beyond 1 sigma", [1.1, 1.1, 0, 1.1, 1.1], [4]),
        ("8 on one side", [-0.1] * 8, [7]),
        ("6 rising or falling", [0, 0.1, 0.2, 0.3, 0.4, 0.5], [5]),
        ("6 rising or falling", [0, 0.1, 0.2, 0.3, 0.4, 0.4], []),
        ("14 alternating", [0.1, -0.1] * 7, [13]),
        ("15 within 1 sigma", [0.5, -0.5, 0.1] * 5, [14]),
        ("8 outside 1 sigma", [1.5, -1.5] * 4, [7]),
    ],
)
def test_each_rule_says_where(rule: str, points: list[float], wanted: list[int]) -> None:
    rules = spc.OPERATOR_RULES | spc.ENGINEER_RULES
    assert [place for place, _ in spc.breaks(points, {rule: rules[rule]})] == wanted


def test_false_alarms_are_as_rare_as_theory_says() -> None:
    z = normal(7, 60_000)
    one = len(spc.breaks(z, {"1": spc.OPERATOR_RULES["1 beyond 3 sigma"]}))
    assert 250 < len(z) / one < 550  # 370 in theory
    called = spc.operator_alarms(z)
    assert sum("3 sigma" in rule for _, rule in called) <= 2  # 60,000 x 0.0027^2 = 0.4 are due
    assert len(spc.breaks(z, spc.ENGINEER_RULES)) > 5 * one


def test_an_operator_is_called_for_two_in_a_row_once() -> None:
    assert spc.operator_alarms([0, 4, 0, 4, 0]) == []
    assert spc.operator_alarms([0, 4, 4, 4, 4]) == [(2, "1 beyond 3 sigma")]
    assert spc.operator_alarms([0.5] * 10) == [(9, "9 on one side")]


def test_capability_is_refused_below_100_and_known_above() -> None:
    limits = spc.Limits(0.0, spc.c4(5))
    assert spc.capability(normal(3, 99), limits, 4.0) is None
    found = spc.capability(normal(3, 5000), limits, 4.0)
    assert found is not None
    assert found.cpu == pytest.approx(4 / 3, abs=0.03)
    assert found.ppu == pytest.approx(4 / 3, abs=0.04)
    assert found.ppu_low < found.ppu
    assert found.percentile == pytest.approx(4 / 3, abs=0.15)


def test_the_bound_of_capability_holds_as_often_as_it_says() -> None:
    limits = spc.Limits(0.0, spc.c4(5))
    found = [spc.capability(normal(seed, 100), limits, 4.0) for seed in range(300)]
    held = sum(one is not None and one.ppu_low <= 4 / 3 for one in found)
    assert 270 <= held <= 298  # 285 of 300 are due


def test_holm_is_the_published_example() -> None:
    # p = 0.01, 0.04, 0.03, 0.005: R's p.adjust(method = "holm")
    assert spc.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_heads_that_are_alike_are_not_told_apart_and_a_slow_one_is() -> None:
    wrong = 0
    for seed in range(40):
        heads = {f"h{number:02d}": normal(1000 * seed + number, 60, -3.0, 0.2) for number in range(16)}
        wrong += any(one.differs for one in compare(heads))
    assert wrong <= 4  # 0.4 are due
    heads["h03"] = [value + 0.25 for value in heads["h03"]]
    (slow,) = [one for one in compare(heads) if one.differs and one.ratio > 1]
    assert slow.head == "h03"
    assert slow.ratio == pytest.approx(math.exp(0.25), abs=0.12)


def load(head: str, value: float, profile: str = "T") -> Load:
    return Load(head, profile, "fw", "T=0/?/255", 1_000_000, round(1_000_000 * math.exp(value)))


def test_a_chart_compares_with_frozen_limits_only() -> None:
    calm = [load("st01/h01", value) for value in normal(5, 150, -2.0, 0.1)]
    ((name, heads),) = strata(calm).items()
    assert name == "T | fw | T=0/?/255"
    assert limits_from(name, {"st01/h01": heads["st01/h01"][:124]}, "a", "b") is None
    frozen = limits_from(name, heads, "a", "b")
    assert frozen is not None
    frozen = Frozen(name, frozen.mean, frozen.s_mean, frozen.subgroups, "a", "b", 1)
    slow = {"st01/h01": [value + 0.3 for value in heads["st01/h01"][:20]]}
    assert chart(name, slow, None, 0.0).operator_calls == []
    judged = chart(name, slow, frozen, 0.2)
    assert judged.operator_calls == ["st01/h01 subgroup 2: 1 beyond 3 sigma"]
    assert (judged.capability, judged.limits_version) == (None, 1)
    assert judged.why_no_capability == "20 loads of the 100 it takes"
    assert chart(name, heads, frozen, 0.2).operator_calls == []
    assert chart(name, heads, frozen, 0.2).capability is not None


def test_different_profiles_do_not_share_a_chart() -> None:
    assert len(strata([load("h", 0.0), load("h", 0.0, "U")])) == 2


@pytest.mark.parametrize(
    ("points", "called"),
    [
        ([0, 4, 4], ["1 beyond 3 sigma"]),
        ([4], []),
        ([4, 0], []),
        ([4, 4, 0], []),
        ([0.1] * 9, []),
        ([0.1] * 10, ["9 on one side"]),
        ([4] * 10, ["1 beyond 3 sigma", "9 on one side"]),
    ],
)
def test_an_operator_is_called_while_the_newest_two_points_break_a_rule(points: list[float], called: list[str]) -> None:
    assert spc.standing_calls(points) == called
