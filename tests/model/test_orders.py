"""The life of a job order: every command in every state."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.model.mes import EidList, JobOrder
from ifpp.model.messages import Job, Product, Recipe
from ifpp.model.orders import COMMANDS, ENDED, completed, decide

STATES = ("WAITING", "READY", "RUNNING", "HELD", "COMPLETED", "ABORTED", "CANCELLED", "CLOSED")


def ask(command: str, version: int = 1, **changes: object) -> JobOrder:
    plain = JobOrder(
        schema="job_order/1.0",
        request_id="r",
        job_order_id="J-1",
        version=version,
        command=command,
        product=Product(part_number="TCU"),
        recipe=Recipe(name="load"),
        quantity=10,
        region="EU",
    )
    return msgspec.structs.replace(plain, **changes)


def known(dispatch_status: str, version: int = 1) -> Job:
    job = decide(None, ask("STORE", version)).job
    assert job is not None
    return msgspec.structs.replace(job, dispatch_status=dispatch_status)


def test_from_stored_to_closed() -> None:
    job = None
    for command, after in (
        ("STORE", "WAITING"),
        ("START", "RUNNING"),
        ("HOLD", "HELD"),
        ("RESUME", "RUNNING"),
        ("STOP", "COMPLETED"),
        ("CLOSE", "CLOSED"),
    ):
        decision = decide(job, ask(command))
        assert (decision.status, decision.dispatch_status) == ("ACCEPTED", after)
        job = decision.job
    assert job is not None
    assert job.dispatch_status == "CLOSED"


def test_start_of_an_unknown_order_stores_it() -> None:
    decision = decide(None, ask("START", priority=7, due_at="2026-11-23T14:00:00.000Z", route_policy="CACHE"))
    assert decision.dispatch_status == "RUNNING"
    assert decision.job is not None
    assert (decision.job.priority, decision.job.route_policy, decision.job.quantity) == (7, "CACHE", 10)


@pytest.mark.parametrize("dispatch_status", STATES)
def test_what_has_ended_never_works_again(dispatch_status: str) -> None:
    for command in COMMANDS:
        for version in (1, 2):
            decision = decide(known(dispatch_status), ask(command, version))
            if dispatch_status in ENDED:
                assert decision.dispatch_status in ENDED
                assert decision.job is None or decision.dispatch_status == "CLOSED"


def test_a_new_version_of_a_running_order_keeps_it_running() -> None:
    decision = decide(known("RUNNING"), ask("STORE", 2, quantity=20))
    assert decision.dispatch_status == "RUNNING"
    assert decision.job is not None
    assert (decision.job.version, decision.job.quantity) == (2, 20)


@pytest.mark.parametrize(
    ("order", "command", "code"),
    [
        (None, ask("HOLD"), "ORDER.UNKNOWN"),
        (None, ask("START", quantity=None), "ORDER.CONTENT"),
        (None, ask("STORE", region=""), "ORDER.CONTENT"),
        (None, ask("STORE", eids_ref=EidList(url="https://mes/eids", sha256="0" * 64, count=3)), "ORDER.EIDS"),
        (known("RUNNING", 3), ask("HOLD", 2), "STALE_VERSION"),
        (known("RUNNING"), ask("HOLD", 2), "ORDER.UNKNOWN"),
        (known("RUNNING"), ask("STORE", quantity=11), "ORDER.CONFLICT"),
        (known("WAITING"), ask("START", region="US"), "ORDER.CONFLICT"),
        (known("COMPLETED"), ask("STORE", 2), "ORDER.ENDED"),
        (known("WAITING"), ask("RESUME"), "ORDER.STATE"),
        (known("RUNNING"), ask("DANCE"), "ORDER.COMMAND"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(order: Job | None, command: JobOrder, code: str) -> None:
    decision = decide(order, command)
    assert (decision.status, decision.code, decision.job) == ("REJECTED", code, None)
    assert decision.text


def test_an_order_is_complete_when_its_quantity_is_good() -> None:
    assert completed(known("RUNNING"), 10)
    assert not completed(known("RUNNING"), 9)
    assert not completed(known("HELD"), 10)


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.integers(1, 3)), max_size=30))
def test_versions_never_go_back(commands: list[tuple[str, int]]) -> None:
    job: Job | None = None
    for command, version in commands:
        decision = decide(job, ask(command, version))
        if decision.job is not None:
            assert job is None or decision.job.version >= job.version
            job = decision.job
        assert (decision.status == "REJECTED") == bool(decision.code)
        assert (decision.status == "ACCEPTED") == (decision.job is not None)


@pytest.mark.parametrize(
    ("standing", "command"),
    [("RUNNING", "START"), ("HELD", "HOLD"), ("RUNNING", "RESUME"), ("WAITING", "STORE"), ("CLOSED", "CLOSE")],
)
def test_what_stands_already_is_a_duplicate(standing: str, command: str) -> None:
    decision = decide(known(standing), ask(command))
    assert (decision.status, decision.dispatch_status, decision.job) == ("DUPLICATE", standing, None)
