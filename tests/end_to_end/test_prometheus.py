"""A real Prometheus scrapes a real line: every panel of every dashboard has data, and a killed station is an alert."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from pathlib import Path

import pytest

from ifpp.roles.demo_keys import KeysKind
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.world import JobPlan, build_world
from tests.deploy.dashboards import expressions
from tests.real import prometheus, softhsm

pytestmark = pytest.mark.timeout(300)


async def test_panels_have_data_and_a_killed_station_is_an_alert(tmp_path: Path) -> None:
    prometheus.require()
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
        running = prometheus.running(tmp_path / "prometheus", targets)
        server = await asyncio.to_thread(running.__enter__)
        try:
            await floor.fleets["st01"].tell("go")
            assert await asyncio.wait_for(floor.fleets["st01"].process.wait(), 120) == 0
            for place, expr in expressions().items():
                await asyncio.to_thread(prometheus.wait_for, partial(has_data, server, expr), about=place)
            before = await asyncio.to_thread(server.firing)
            assert not [one for one in before.values() if one["labels"]["severity"] == "critical"], before
            assert "IfppStationDown" not in before

            floor.children["st01"].process.kill()
            await floor.children["st01"].process.wait()
            await asyncio.to_thread(prometheus.wait_for, lambda: "IfppStationDown" in server.firing())
            alert = server.firing()["IfppStationDown"]
            assert alert["labels"]["alarm"] == "A-101"
            assert alert["annotations"]["description"].endswith("check power and network of the station")
            assert not {"IfppSupervisorAbsent", "IfppStoreDown"} & set(server.firing())
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)
    finally:
        await floor.close()


def has_data(server: prometheus.Prometheus, expr: str) -> bool:
    """Whether the answer has a number."""
    rows = server.ask("query", query=expr)["result"]
    return any(not math.isnan(float(row["value"][1])) for row in rows)
