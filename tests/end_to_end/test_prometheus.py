"""A real Prometheus scrapes a real line: every panel has data, and what is killed is an alert that reaches people."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from ifpp.roles.demo_keys import KeysKind
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.world import JobPlan, build_world
from tests.deploy.dashboards import expressions
from tests.real import prometheus, softhsm

pytestmark = pytest.mark.timeout(300)


async def test_panels_have_data_and_what_is_killed_is_an_alert_that_reaches_people(tmp_path: Path) -> None:
    prometheus.require()
    prometheus.require_alertmanager()
    softhsm.require()
    world = build_world(
        tmp_path / "world", units=8, seed=3, jobs=[JobPlan("JO-1", "TRACKER", "EU", ["st01"])], faults=2
    )
    floor = FactoryFloor(tmp_path, ["st01"], heads=2, apdu_ms=0, broker=None, keys=KeysKind.PKCS11)
    try:
        await floor.start_broker()
        await floor.open(world)
        names = {"ifpp-station": "st01", "ifpp-supervisor": SUPERVISOR, "ifpp-store": STORE}
        targets = {job: [int(floor.children[name].facts["metrics_port"])] for job, name in names.items()}
        with ExitStack() as stack:
            manager = stack.enter_context(prometheus.alertmanager(tmp_path / "alertmanager"))
            running = prometheus.running(tmp_path / "prometheus", targets, manager)
            server = await asyncio.to_thread(stack.enter_context, running)
            await floor.fleets["st01"].tell("go")
            assert await asyncio.wait_for(floor.fleets["st01"].process.wait(), 120) == 0
            for place, expr in expressions().items():
                await asyncio.to_thread(prometheus.wait_for, partial(has_data, server, expr), about=place)
            await asyncio.to_thread(names_no_unit, server)
            before = await asyncio.to_thread(server.firing)
            assert not [one for one in before.values() if one["labels"]["severity"] == "critical"], before
            assert "IfppStationDown" not in before

            for name in ("st01", SUPERVISOR):
                floor.children[name].process.kill()
                await floor.children[name].process.wait()
            wanted = {"IfppStationDown", "IfppSupervisorAbsent"}
            await asyncio.to_thread(prometheus.wait_for, lambda: wanted <= server.firing().keys())
            alert = server.firing()["IfppStationDown"]
            assert alert["labels"]["alarm"] == "A-101"
            assert alert["annotations"]["description"].endswith("check power and network of the station")
            assert "IfppStoreDown" not in server.firing()
            await asyncio.to_thread(reaches_people, manager)
    finally:
        await floor.close()


def names_no_unit(server: prometheus.Prometheus) -> None:
    """No label of anything scraped has an EID, an ICCID, a serial number or a transaction as its value."""
    names = server.ask("labels")
    assert {"head", "station", "product"} <= set(names)
    values = {value for name in names for value in server.ask(f"label/{name}/values")}
    assert "st01" in values
    assert not [one for one in values if re.search(r"\d{15,}|^SN|[0-9a-f]{8}-[0-9a-f]{4}-7", one)]


def reaches_people(manager: prometheus.Alertmanager) -> None:
    """Each alert goes where its severity belongs; what the absent supervisor explains is kept back, nothing else."""
    told = {"IfppStationDown": "hour", "IfppSupervisorAbsent": "now"}
    prometheus.wait_for(lambda: told.keys() <= manager.alerts().keys())
    for name, receiver in told.items():
        assert [one["name"] for one in manager.alerts()[name]["receivers"]] == [receiver]
    explained, other = "IfppOutboxLate", "IfppHeldUnits"
    for name in (explained, other):
        labels = [f"alertname={name}", "severity=warning", "line=L1", "station=st02"]
        prometheus.amtool("alert", "add", *labels, f"--alertmanager.url={manager.url}")

    def states() -> dict[str, str]:
        return {name: one["status"]["state"] for name, one in manager.alerts().items()}

    prometheus.wait_for(lambda: states().get(explained) == "suppressed" and states().get(other) == "active")
    (by,) = manager.alerts()[explained]["status"]["inhibitedBy"]
    assert by == manager.alerts()["IfppSupervisorAbsent"]["fingerprint"]
    assert states()["IfppStationDown"] == "active"


def has_data(server: prometheus.Prometheus, expr: str) -> bool:
    """Whether the answer has a number."""
    rows = server.ask("query", query=expr)["result"]
    return any(not math.isnan(float(row["value"][1])) for row in rows)
