"""Commands of the MES in the database: once each, audited, as the stations see them; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ifpp.model.mes import JobOrder, ProfileNeed
from ifpp.model.messages import Product, Recipe
from ifpp.store.factory import Factory
from ifpp.store.orders import OrderWord
from ifpp.store.plans import Planned
from tests.clock import START
from tests.contract import check
from tests.store.world import REGION, SKU, Node, add_job, later, outcome, request, send_all, stock


def order(command: str, version: int = 1, **changes: Any) -> JobOrder:
    plain = JobOrder(
        schema="job_order/1.0",
        request_id=str(uuid4()),
        job_order_id="J-1",
        version=version,
        command=command,
        product=Product(part_number=SKU),
        recipe=Recipe(name="load"),
        quantity=3,
        region=REGION,
    )
    return msgspec.structs.replace(plain, **changes)


def standing(factory: Factory) -> dict[str, tuple[int, str]]:
    return {job.job_order_id: (job.version, job.dispatch_status) for job in factory.jobs("L1")}


def test_an_order_is_what_the_stations_see(factory: Factory) -> None:
    for command, after in (("STORE", "WAITING"), ("START", "RUNNING"), ("HOLD", "HELD"), ("RESUME", "RUNNING")):
        assert factory.command_order("L1", order(command), START) == OrderWord("ACCEPTED", after)
        assert standing(factory) == {"J-1": (1, after)}
    assert factory.command_order("L1", order("STORE", 2, quantity=5), START).dispatch_status == "RUNNING"
    assert standing(factory) == {"J-1": (2, "RUNNING")}
    with factory.audit_log() as log:
        facts = [json.loads(entry.facts) for entry in log.entries("factory", 0, 100) if entry.kind == "order"]
    assert [(fact["command"], fact["dispatch_status"], fact["by"]) for fact in facts][:2] == [
        ("STORE", "WAITING", "MES"),
        ("START", "RUNNING", "MES"),
    ]


def test_an_order_may_not_ask_for_what_is_not_planned(factory: Factory) -> None:
    two = [ProfileNeed(type="boot"), ProfileNeed(type="data", per_unit=2)]
    assert factory.command_order("L1", order("STORE", profile_types=two), START).status == "ACCEPTED", "no plan"
    planned = [Planned("boot"), Planned("data")]
    factory.change_plan((SKU, REGION, ""), planned, (START, None), "Eve", "as sold", START)
    refused = factory.command_order("L1", order("STORE", 2, profile_types=two), later(1))
    assert refused == OrderWord("REJECTED", "WAITING", "ORDER.PROFILES", "the plan says 1 x boot, 1 x data")
    assert standing(factory) == {"J-1": (1, "WAITING")}
    agreed = [ProfileNeed(type="data"), ProfileNeed(type="boot")]
    assert factory.command_order("L1", order("STORE", 2, profile_types=agreed), later(2)).status == "ACCEPTED"


def test_a_request_is_answered_alike_and_done_once(factory: Factory) -> None:
    start = order("START")
    assert factory.command_order("L1", start, START).status == "ACCEPTED"
    factory.command_order("L1", order("HOLD"), later(1))
    again = factory.command_order("L1", start, later(2))
    assert (again.status, again.dispatch_status) == ("DUPLICATE", "RUNNING")
    assert standing(factory) == {"J-1": (1, "HELD")}
    forged = msgspec.structs.replace(start, quantity=4)
    assert factory.command_order("L1", forged, later(3)).code == "ORDER.REQUEST"
    refused = order("RESUME", 7)
    assert [factory.command_order("L1", refused, later(4)).code for _ in range(2)] == ["ORDER.UNKNOWN"] * 2


def test_an_order_belongs_to_one_line(factory: Factory) -> None:
    factory.command_order("L1", order("START"), START)
    assert factory.command_order("L2", order("HOLD"), START).code == "ORDER.OTHER_LINE"
    assert standing(factory) == {"J-1": (1, "RUNNING")}


def test_an_imported_order_obeys_the_mes_too(factory: Factory) -> None:
    add_job(factory)
    (job,) = factory.jobs("L1")
    held = order("HOLD", job.version, job_order_id=job.job_order_id)
    assert factory.command_order("L1", held, START).dispatch_status == "HELD"


def test_the_line_ends_an_order_when_enough_is_good(factory: Factory) -> None:
    factory.command_order("L1", order("START"), START)
    assert factory.finish_order("L1", "J-1", 2, later(1)) is None
    done = factory.finish_order("L1", "J-1", 3, later(2))
    assert done is not None
    assert done.dispatch_status == "COMPLETED"
    assert factory.finish_order("L1", "J-1", 3, later(3)) is None
    assert factory.finish_order("L1", "J-9", 3, later(3)) is None
    assert factory.command_order("L1", order("CLOSE"), later(4)).dispatch_status == "CLOSED"


@pytest.mark.parametrize("command", ["START", "HOLD"])
def test_the_same_command_from_many_sides_is_accepted_once(factory: Factory, command: str) -> None:
    factory.command_order("L1", order("STORE"), START)
    with ThreadPoolExecutor(8) as pool:
        words = list(pool.map(lambda _: factory.command_order("L1", order(command), START), range(16)))
    assert sorted(word.status for word in words) == ["ACCEPTED"] + ["DUPLICATE"] * 15


def test_an_ended_order_is_responded_to_once_with_the_figures_of_the_log(factory: Factory) -> None:
    stock(factory, 3)
    node = Node("st01")
    factory.command_order("L1", order("START", job_order_id="JO-1"), START)
    for number, state in ((1, "INSTALLED"), (2, "FAILED"), (3, "INSTALLED")):
        claim = factory.claim(request(number), START)
        send_all(factory, claim)
        word = outcome(number, 0, state, spent=True, package_id=claim.packages[0].package_id)
        factory.take_events([node.result(number, claim.attempt_id, [word])], START)
    factory.command_order("L1", order("STOP", job_order_id="JO-1"), later(10))
    assert factory.respond_to_orders("L1", "boot", later(12), grace_s=5) == []
    assert factory.respond_to_orders("L2", "boot", later(60), grace_s=5) == []
    assert factory.respond_to_orders("L1", "boot", later(15), grace_s=5) == ["JO-1"]
    assert factory.respond_to_orders("L1", "boot", later(99), grace_s=5) == []
    *before, row = factory.line_log_page("L1", 0)
    assert [one.name for one in before] == ["unit_result"] * 3, "what it counts stands before it"
    check("a/b/c/d/L1/_line/evt/job_response", row.body)
    told = json.loads(row.body)
    assert (told["job_state"], told["units_in"], told["good"], told["failed"]) == ("COMPLETED", 3, 2, 1)
    assert told["materials"] == [{"profile_type": "operational-0", "consumed": 2, "spoiled": 1}]
    assert told["started_at"] < told["ended_at"]


def test_an_order_that_never_began_is_responded_to_as_well(factory: Factory) -> None:
    factory.command_order("L1", order("STORE"), START)
    factory.command_order("L1", order("ABORT"), START)
    assert factory.respond_to_orders("L1", "boot", later(0), grace_s=0) == ["J-1"]
    told = json.loads(factory.line_log_page("L1", 0)[0].body)
    assert (told["job_state"], told["units_in"], told["attempts"]) == ("CANCELLED", 0, 0)
