"""A shift without store, broker and supervisor, all of them killed for real; then they return and everything agrees."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from ifpp.roles.accounts import take_account
from ifpp.roles.children import Child
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor, outbox_depth
from ifpp.sim.world import JobPlan, build_world
from ifpp.store.factory import Factory

UNITS, KEPT, HEADS = 8, 6, 2
pytestmark = pytest.mark.timeout(300)


class Plant(FactoryFloor):
    """A station that keeps the packages of KEPT chips, and asks after its store often."""

    station_extra = FactoryFloor.station_extra + (
        f'\n[cache]\nfile = "st01.cache.db"\nunits = {KEPT}\nrefresh_s = 0.2\n'
        "\n[deadlines]\nreconnect_s = 0.3\nstore_s = 2\n\n[outbox]\nresend_s = 1\nresend_max_s = 2\n"
    )
    supervisor_extra = "lease_s = 3\n"


async def until(floor: Plant, station: Child, name: str, value: float, patience_s: float = 90) -> None:
    """Wait until a gauge of the station has a value."""
    async with asyncio.timeout(patience_s):
        while gauge(await floor.metrics(station), name) != value:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def gauge(metrics: str, name: str) -> float:
    rows = [line for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    return float(rows[0].rsplit(" ", 1)[1]) if rows else -1.0


async def kill(child: Child) -> None:
    """`kill -9`."""
    with suppress(ProcessLookupError):
        child.process.kill()
    await child.process.wait()


async def test_offline_shift(tmp_path: Path) -> None:
    world = build_world(tmp_path / "world", units=UNITS, seed=11, jobs=[JobPlan("JO-1", "TRACKER", "EU", ["st01"])])
    floor = Plant(tmp_path, ["st01"], heads=HEADS, apdu_ms=0, broker=None)
    try:
        await floor.start_broker()
        await floor.open(world)
        station, fleet = floor.children["st01"], floor.fleets["st01"]
        await until(floor, station, "ifpp_cached_units", KEPT)

        assert floor.broker is not None
        await asyncio.gather(kill(floor.children[STORE]), kill(floor.children[SUPERVISOR]), floor.broker.kill())
        await fleet.tell("go")
        assert await asyncio.wait_for(fleet.process.wait(), 120) == 0  # the robot has binned every unit
        async with asyncio.timeout(60):
            while outbox_depth(await floor.metrics(station)) < UNITS:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        assert gauge(await floor.metrics(station), "ifpp_store_away_seconds") > 0

        units = json.loads(floor.fleet_file("st01").read_bytes())["units"]
        made = {unit["eid"] for unit in units if unit["bin"] == "pass"}
        assert len(made) == KEPT
        assert all(len(unit["card"]["profiles"]) == (unit["eid"] in made) for unit in units)
        assert books(tmp_path)[:2] == (0, 0)  # nobody has heard of any of it

        await floor.start_broker()
        services = [await floor.start(STORE), await floor.start(SUPERVISOR)]
        await asyncio.gather(*(service.wait_ready() for service in services))
        await floor.settled()
        await until(floor, station, "ifpp_cached_units", UNITS - KEPT)  # what was used is dropped, the rest fetched
        await floor.children.stop(station)
        await floor.write_reports()
    finally:
        await floor.close()

    figures = take_account(tmp_path, world, ["st01"], station_cpu_s=0, block_size=255)
    (row,) = figures.balance
    assert row.holds
    assert (row.imported, row.installed, row.sent, row.unknown, row.failed) == (UNITS, KEPT, 0, 0, 0)
    assert (figures.passed, figures.clean_to_ship, figures.reported) == (KEPT, KEPT, KEPT)
    assert figures.report_refused == []
    counted, passed, supply = books(tmp_path)
    assert (counted, passed) == (UNITS, KEPT)
    assert supply == {unit["eid"] for unit in units} - made


def books(folder: Path) -> tuple[int, int, set[str]]:
    """Units the books count, those that passed, and the EIDs of those nothing was kept for."""
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    try:
        assert factory.audit() == []
        rows, attempts = factory.unit_counts(), factory.units(1000)
        supply = {row.eid for row in attempts if row.defect == "BPP.NOT_CACHED"}
        return sum(row.units for row in rows), sum(row.final_pass for row in rows), supply
    finally:
        factory.close()
