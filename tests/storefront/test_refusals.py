"""What was refused is told once and counted always, however many come."""

from __future__ import annotations

import logging

import pytest

from ifpp.metrics import Metrics
from ifpp.storefront.refusals import Refusals


def test_equal_ones_are_counted_together(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(metrics)
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            refusals.add("station st01", "claim", "STORE.FORBIDDEN", f"number {number}")
    (one,) = refusals.take()
    assert (one.who, one.times, one.detail) == ("station st01", 1000, "number 0")
    assert len(caplog.records) == 1
    assert metrics.value("ifpp_store_refusals_total", operation="claim", code="STORE.FORBIDDEN") == 1000
    assert refusals.take() == []


def test_different_ones_have_an_end(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(metrics)
    for number in range(5000):
        refusals.add(f"192.0.2.{number}", "claim", "STORE.REFUSED", "x")
    taken = refusals.take()
    assert sum(one.times for one in taken) == 5000
    assert len(taken) == 101
    assert taken[-1].who == "many"
    assert len(caplog.records) == 101


def test_what_could_not_be_written_is_kept() -> None:
    refusals = Refusals(None)
    refusals.add("a", "claim", "STORE.REFUSED", "first")
    taken = refusals.take()
    refusals.add("a", "claim", "STORE.REFUSED", "second")
    refusals.put_back(taken)
    refusals.put_back([])
    assert [(one.times, one.detail) for one in refusals.take()] == [(2, "second")]
    refusals.put_back(taken)
    assert refusals.take() == taken


@pytest.mark.parametrize("code", ["BPP.NOT_FOUND", "BPP.EXHAUSTED", "BPP.TAKEN", "UNIT.ALREADY_LOADED"])
def test_want_of_stock_is_no_refusal(metrics: Metrics, code: str) -> None:
    refusals = Refusals(metrics)
    refusals.add("station st01", "claim", code, "none")
    assert refusals.take() == []


def test_what_a_stranger_writes_cannot_break_a_line() -> None:
    refusals = Refusals(None)
    refusals.add("a", "claim", "STORE.REFUSED", "x\n{\u2028\x00" + "y" * 5000)
    (one,) = refusals.take()
    assert one.detail.startswith("x\\n{\\u2028\\x00y")
    assert one.detail.isprintable()
    assert len(one.detail) < 300
