"""kill -9 of a supervisor at every statement around sealing: never a unit too many, never a gap in the numbers."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import sqlalchemy

from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from ifpp.trust.signer import SoftwareSigner, create_key
from tests.clock import START
from tests.store.test_quota import installed, order, signed, take
from tests.store.world import Node, eid, stock

UNITS, ORDERED = 5, 3
PATIENCE_S = 60.0


def settle(url: str, groups: list[list[ReceivedEvent]], dies_at: int) -> None:
    """Take each group in its transaction, as after a restart; die before the statement or commit `dies_at`."""
    left = dies_at

    def pass_by(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    factory = Factory.open(url)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", pass_by)
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", pass_by)
    for group in groups:
        factory.take_events(group, START)
    factory.close()


def clean(factory: Factory) -> int:
    return sum(factory.unit_gate(eid(number), START).clean_to_ship for number in range(1, UNITS + 1))


def test_a_supervisor_killed_at_every_statement_gives_no_unit_too_many(
    factory: Factory, url: str, tmp_path: Path
) -> None:
    create_key(tmp_path / "planner.key")
    planner, node = SoftwareSigner.load(tmp_path / "planner.key"), Node()
    stock(factory, UNITS)
    take(factory, planner, signed(planner, order(ORDERED)))
    events = [node.result(number, f"a{number}", installed(factory, number, f"a{number}")) for number in range(1, 6)]
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    kills, dies_at, used = 0, 1, 0
    while True:
        process = context.Process(target=settle, args=(url, [events[:2], events[2:]], dies_at))
        process.start()
        process.join(PATIENCE_S)
        (standing,) = factory.production_orders()
        assert used <= standing.used == clean(factory) <= ORDERED
        assert factory.audit() == []  # an order's numbers without a gap, every count with its unit
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills, dies_at, used = kills + 1, dies_at + 1, standing.used
    assert standing.used == clean(factory) == ORDERED
    assert kills > 20
    assert [factory.unit_gate(eid(number), START).code for number in (4, 5)] == ["GATE.QUOTA"] * 2
