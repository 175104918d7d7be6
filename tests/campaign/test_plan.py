"""The plan of a campaign: the seed alone decides, every edge has its turn, two faults at once never hit one process."""

from __future__ import annotations

from tests.campaign.edges import EDGES
from tests.campaign.plan import Fault, Kind, Step, plan

STATIONS, HEADS = ["st01", "st02"], ["h01", "h02"]


def faults(steps: list[Step]) -> list[Fault]:
    return [fault for step in steps for fault in step.faults]


def steps_of(count: int, seed: int, *, disk: bool = True) -> list[Step]:
    return plan(count, seed, stations=STATIONS, heads=HEADS, disk=disk)


def test_the_seed_decides_and_the_number_is_kept() -> None:
    assert steps_of(60, 3) == steps_of(60, 3) != steps_of(60, 4)
    assert [fault.number for fault in faults(steps_of(61, 5))] == list(range(1, 62))


def test_every_edge_and_every_kind_has_its_turn() -> None:
    chosen = faults(steps_of(120, 1))
    assert {fault.edge for fault in chosen if fault.kind is Kind.EDGE} == set(EDGES)
    assert {fault.kind for fault in chosen} == set(Kind)


def test_an_edge_is_of_its_own_process() -> None:
    for fault in faults(steps_of(120, 2)):
        if fault.kind is Kind.EDGE:
            process = fault.edge.partition(".")[0]
            assert fault.target == process or (process == "station" and fault.target in STATIONS)


def test_two_at_once_come_to_two_processes() -> None:
    pairs = [step.faults for step in steps_of(200, 6) if len(step.faults) > 1]
    assert pairs
    assert all(first.target != second.target for first, second in pairs)


def test_no_disk_is_filled_where_none_can_be() -> None:
    assert Kind.DISK not in {fault.kind for fault in faults(steps_of(200, 7, disk=False))}
