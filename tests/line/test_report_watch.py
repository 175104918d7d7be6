"""The watch over reports: what nobody acknowledged in time is counted, and no more once it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ifpp.line.report_watch import ReportWatch
from ifpp.metrics import Metrics, Role
from ifpp.store.reports import WrittenReport
from tests.clock import START, FakeClock
from tests.line.world import SMDP, GatedFactory, send_package, stock


def gauge(metrics: Metrics) -> float:
    return next(
        float(line.rsplit(" ", 1)[1])
        for line in metrics.text().decode().splitlines()
        if line.startswith("ifpp_reports_overdue{")
    )


async def test_a_report_is_overdue_until_it_is_acknowledged(factory: GatedFactory) -> None:
    stock(factory, 1)
    package = send_package(factory, 1, "attempt-1")
    metrics, clock = Metrics(Role.SUPERVISOR, line="L1"), FakeClock()
    watch = ReportWatch(factory, clock=clock, metrics=metrics, due_h=2)
    factory.add_report(
        WrittenReport("r1", SMDP, "f", "0" * 64, 1), [(package.package_id, "SENT")], START + timedelta(seconds=1)
    )
    await watch.look()
    assert (watch.overdue, gauge(metrics)) == ([], 0)
    clock.advance(7202)
    await watch.look()
    assert (watch.overdue, gauge(metrics)) == (["r1"], 1)
    factory.acknowledge_report("r1", "Anna", datetime.now(UTC))
    await watch.look()
    assert (watch.overdue, gauge(metrics)) == ([], 0)
