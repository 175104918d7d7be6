"""Capacity: cases worked out by hand, a model measured on one recorded line against what another one made, refusals."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.errors import SettingsError, SupplyError
from ifpp.line.capacity import MIN_UNITS, Measured, answer, measure
from ifpp.roles.capacity import capacity, target_of
from ifpp.store.cycles import Cycle, Worked
from ifpp.store.factory import Factory
from ifpp.store.figures import StateTime
from tests.line.recorded import replay


def cycle(number: int, head: str = "h01", result: str = "PASS", *, cycle_ms: int = 8000, load_ms: int = 5000) -> Cycle:
    began = number * 10_000
    outcome = "PASS" if result == "PASS" else "CONTACT"
    return Cycle("st01", head, "JO", result, outcome, "", began, began + cycle_ms, cycle_ms, load_ms)


def worked(cycles: list[Cycle], change_ms: int = 2000, **heads: int) -> Worked:
    """Every cycle has a change of units before it, on h01 of `change_ms`, on others as `heads` says."""
    changes: dict[tuple[str, str], list[int]] = {}
    for one in cycles:
        changes.setdefault((one.station, one.head), []).append(heads.get(one.head, change_ms))
    return Worked(cycles, changes, claims_per_s=3)


def sound(count: int = 40) -> list[Cycle]:
    return [cycle(number, f"h{number % 2 + 1:02d}") for number in range(count)]


def of(cycles: list[Cycle], states: list[StateTime] | None = None) -> Measured:
    return measure(worked(cycles), {}, states or [])


def state(e10: str, ms: int, *, head: str = "h01", planned: bool = True) -> StateTime:
    return StateTime("st01", head, e10, 0, ms, 1, planned)


# ---- by hand ----------------------------------------------------------------------------------------------


def test_a_good_unit_takes_its_load_the_rest_of_its_cycle_and_one_change() -> None:
    parts = of(sound()).parts
    assert (parts.load, parts.rest, parts.handling, parts.store, parts.total) == (5.0, 3.0, 2.0, 0.0, 10.0)


def test_two_heads_of_ten_seconds_make_720_an_hour_and_1000_take_three() -> None:
    found = answer(of(sound()), target=1000.0)
    assert found.rate_now == pytest.approx(720)
    assert found.exact == pytest.approx(1000 * 10 / 3600)
    assert (found.heads, found.stations, found.heads_per_station) == (3, 2, 2)
    assert found.rate_one_down == pytest.approx(720)


def test_a_target_that_comes_out_even_takes_no_head_too_many() -> None:
    assert answer(of(sound()), target=720.0).heads == 2
    assert answer(of(sound()), target=720.1).heads == 3


def test_attempts_that_fail_cost_their_cycle_and_their_change() -> None:
    failed = [cycle(100 + number, "h01", "ERROR", cycle_ms=1000, load_ms=0) for number in range(10)]
    found = of([*sound(), *failed])
    assert found.parts.retries == {"CONTACT": pytest.approx(10 * (1.0 + 2.0) / 40)}
    assert found.parts.total == pytest.approx(10.75)
    gains = {option.what: option.gain for option in answer(found).options}
    rate = 2 * 3600 / 10.75
    assert gains["no attempt ends as CONTACT (10 did)"] == pytest.approx(720 - rate)
    # all of them were h01's: without them it fails as often as h02, never
    assert gains["st01/h01 fails no more often than the other heads"] == pytest.approx(720 - rate)


def test_time_down_is_time_lost_and_waiting_is_not_counted_twice() -> None:
    states = [
        state("PRD", 700),
        state("SBY", 200),
        state("UDT", 80),
        state("SDT", 20),
        state("UDT", 900, planned=False),
    ]
    found = of(sound(), states)
    assert found.uptime == pytest.approx(0.9)
    assert answer(found).rate_now == pytest.approx(648)
    assert answer(found, uptime=0.5).rate_now == pytest.approx(360)
    assert answer(found, target=720.0).heads == 3  # 2 / 0.9
    assert answer(found).shares["down"] == pytest.approx(10 / 9)


def test_without_states_uptime_is_not_measured_and_nothing_is_taken_off() -> None:
    found = of(sound())
    assert (found.uptime, found.waited_store, answer(found).uptime) == (None, None, 1.0)


def test_long_changes_are_waits_for_a_unit_and_can_be_the_bottleneck() -> None:
    made = worked(sound())
    made.changes_ms["st01", "h01"][0] = 400_000
    found = measure(made, {}, [])
    assert (found.parts.handling, found.long_changes) == (2.0, (1, 400.0))
    assert answer(found).bottleneck == "wait for a unit"


def test_waits_for_the_store_are_taken_out_of_the_cycle() -> None:
    cycles = sound()
    for one in cycles:
        one.store_ms = 2500
    found = of(cycles)
    assert (found.parts.rest, found.parts.store, found.parts.total) == (0.5, 2.5, 10.0)
    assert {option.what: round(option.gain) for option in answer(found).options}["no head waits for the store"] == 240


def test_options_are_what_the_model_makes_of_them_then_what_can_be_bought() -> None:
    """30 units on h01 with changes of 2 s, 10 on h02 with 1 s: 9.75 s a unit, of which loads are 5."""
    cycles = [cycle(number, "h02" if number % 4 == 3 else "h01") for number in range(40)]
    found = answer(measure(worked(cycles, h02=1000), {}, []), target=1000.0)
    rate = 2 * 3600 / 9.75
    expected = [
        ("loads a fifth shorter (reader speed, larger blocks)", 2 * 3600 / 8.75 - rate, 3),
        ("units are changed as fast as at st01/h02", 2 * 3600 / 8.75 - rate, 3),
        ("1 more head", rate / 2, 3),
        ("2 more heads: a station of 2", rate, 3),
    ]
    assert [one.what for one in found.options] == [what for what, _, _ in expected]
    assert [one.gain for one in found.options] == pytest.approx([gain for _, gain, _ in expected])
    assert [one.heads_needed for one in found.options] == [heads for _, _, heads in expected]
    assert [bool(one.assumed) for one in found.options] == [True, False, False, False]
    assert [one.buys for one in found.options] == [False, False, True, True]


def test_the_margin_is_that_of_a_ratio() -> None:
    """Half of the units take 6 s, half 10 s, each with 2 s of change: T is 10 s with a deviation of 2 s a unit."""
    cycles = [cycle(number, cycle_ms=6000 if number % 2 else 10_000, load_ms=0) for number in range(100)]
    found = of(cycles)
    assert found.parts.total == pytest.approx(10)
    assert found.margin_s == pytest.approx(1.96 * 2 * (100 / 99) ** 0.5 / 100**0.5)
    assert found.more_units == 0
    assert of(cycles[:40]).more_units == 24  # 0.628 s of 10 s; within 0.5 s it takes 64 units


def test_too_few_units_are_refused_and_it_says_how_many_more() -> None:
    with pytest.raises(SettingsError, match=f"{MIN_UNITS - 8} more"):
        of(sound(8))


@pytest.mark.parametrize(
    ("target", "takt", "wanted"), [("1200/h", "", 1200.0), ("1200", "", 1200.0), ("", "3.0s", 1200.0), ("", "", None)]
)
def test_targets_are_read(target: str, takt: str, wanted: float | None) -> None:
    assert target_of(target, takt) == wanted


@pytest.mark.parametrize(("target", "takt"), [("many", ""), ("0/h", ""), ("", "-1s"), ("1/h", "1s"), ("1/min", "")])
def test_wrong_targets_are_refused(target: str, takt: str) -> None:
    with pytest.raises(SettingsError) as refused:
        target_of(target, takt)
    assert refused.value.code == "COMMAND.INVALID"


# ---- against lines that worked ----------------------------------------------------------------------------


def measured_on(name: str, folder: Path) -> Measured:
    folder.mkdir()
    site = replay(name, folder)
    factory = Factory.open(f"sqlite:///{site.parent / 'factory.db'}")
    try:
        last = factory.figures.last_end("L1")
        assert last is not None
        start = last.replace(year=2000)
        jobs = {job.job_order_id: job for job in factory.jobs("L1")}
        return measure(factory.figures.worked("L1", start, last.replace(year=2100)), jobs, [])
    finally:
        factory.close()


def test_two_measured_heads_say_what_six_made(tmp_path: Path) -> None:
    two, six = measured_on("two_heads", tmp_path / "two"), measured_on("six_heads", tmp_path / "six")
    assert (len(two.heads), len(six.heads), two.good, six.good) == (2, 6, 85, 85)
    predicted = 6 * 3600 / two.parts.total
    assert 0.95 < predicted / six.delivered < 1.08
    assert 0.95 < answer(two).rate_now / two.delivered < 1.05
    asked = answer(two, target=six.delivered)
    assert asked.heads == 6
    assert asked.exact is not None
    assert asked.exact_high is not None
    assert 5 < asked.exact < 6 < asked.exact_high < 7


def test_a_wait_for_the_store_belongs_to_the_cycle_it_interrupted(tmp_path: Path) -> None:
    site = replay("two_heads", tmp_path)
    factory = Factory.open(f"sqlite:///{tmp_path / 'factory.db'}")
    try:
        last = factory.figures.last_end("L1")
        assert last is not None
        span = last.replace(year=2000), last.replace(year=2100)
        before = factory.figures.worked("L1", *span)
        chosen = next(one for one in before.cycles if one.cycle_ms > 500)
        row = (
            chosen.station,
            10**6,
            chosen.head,
            "SBY",
            2500,
            "PRD",
            1100,
            chosen.began_ms + 100,
            chosen.began_ms + 350,
        )
        with closing(sqlite3.connect(site.parent / "factory.db")) as books, books:
            books.execute("INSERT INTO state_span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        after = factory.figures.worked("L1", *span)
    finally:
        factory.close()
    assert {one.began_ms: one.store_ms for one in after.cycles if one.store_ms} == {chosen.began_ms: 250}
    assert after.changes_ms == before.changes_ms


def test_the_command_says_it_to_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = replay("six_heads", tmp_path)
    wanted = {"target": "36000/h", "takt": "", "since": "", "shift": "", "job": "", "recipe": ""}
    options = {"availability": 0.9, "heads_per_station": 4}
    capacity(site, **wanted, **options, as_json=True)  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["line"], told["measured"]["good"]) == ("ifpp.capacity/1.0", "L1", 85)
    assert told["answer"]["heads"] == 12
    assert told["answer"]["stations"] == 3
    assert told["measured"]["uptime"] == 1.0
    assert told["limits"]["store"] == "not measured here"
    capacity(site, **wanted, **options, as_json=False)  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert "TARGET 36,000 an hour, a unit each 0.10 s: 12 heads, 3 stations of 4" in text
    assert "load" in next(line for line in text.splitlines() if "<- the bottleneck" in line)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"since": "soon"}, "--since soon"),
        ({"since": "1s"}, "the last unit ended at 2026-"),
        ({"since": "1h", "job": "JO-1000"}, "choose one"),
        ({"recipe": "other"}, "30 more are needed"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    asked = {"target": "", "takt": "", "since": "", "shift": "", "job": "", "recipe": ""} | changes
    with pytest.raises(SettingsError) as refused:
        capacity(replay("two_heads", tmp_path), **asked, availability=None, heads_per_station=0, as_json=False)
    assert words in str(refused.value)


def test_a_job_order_nobody_worked_on_is_named(tmp_path: Path) -> None:
    asked = {"target": "", "takt": "", "since": "", "shift": "", "job": "JO-9", "recipe": ""}
    with pytest.raises(SupplyError, match="JO-9"):
        capacity(replay("two_heads", tmp_path), **asked, availability=None, heads_per_station=0, as_json=False)
