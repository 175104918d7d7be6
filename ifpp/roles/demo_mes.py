"""The MES in a demo: it sends the orders, hears of every unit, and its figures are held against the factory's."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from ifpp.errors import ServiceError
from ifpp.roles.factory_floor import LINE, MES, FactoryFloor
from ifpp.sim.world import WorldSummary
from ifpp.store.factory import Factory

_PATIENCE_S = 90.0
_ROUND_S = 0.3


async def begin(floor: FactoryFloor, world: WorldSummary) -> None:
    """Let the MES send its orders."""
    await (await floor.start_mes(world)).tell("go")


async def conclude(floor: FactoryFloor) -> None:
    """Let the MES stop what runs; returns when every order is closed and the line's log is acknowledged.

    Raises ServiceError HOST.TIMEOUT.
    """
    child = floor.children[MES]
    await child.tell("finish")
    end = time.monotonic() + _PATIENCE_S
    factory = Factory.open(floor.database)
    try:
        while not await asyncio.to_thread(_told_all, factory):
            if child.process.returncode is not None:
                raise child.death("the MES ended before it was told everything")
            if time.monotonic() > end:
                detail = f"orders are not closed, or the MES has not acknowledged all, after {_PATIENCE_S:.0f} s"
                raise ServiceError("HOST.TIMEOUT", detail, where=str(child.log))
            await asyncio.sleep(_ROUND_S)
    finally:
        factory.close()
    if await child.stop():
        raise child.death("the MES ended badly")


def _told_all(factory: Factory) -> bool:
    state = factory.line_log_state(LINE)
    return all(job.dispatch_status == "CLOSED" for job in factory.jobs(LINE)) and state.last == state.acknowledged


def compare(path: Path, database: str) -> tuple[dict[str, Any], list[str]]:
    """Return what the MES was told, and each point in which the factory's books say something else."""
    told: dict[str, Any] = json.loads(path.read_bytes())
    factory = Factory.open(database)
    try:
        counts = {row.job_order_id: row for row in factory.unit_counts()}
        state, installed = factory.line_log_state(LINE), sum(row.installed for row in factory.balance())
        attempts = sum(row.attempts for row in counts.values())
        jobs = factory.jobs(LINE)
    finally:
        factory.close()
    pairs: list[tuple[str, object, object]] = [
        ("results", told["results"], attempts),
        ("packages consumed", told["packages"].get("consumed", 0), installed),
        ("acknowledged", told["acknowledged"], state.acknowledged),
        ("gaps", told["gaps"], 0),
        ("conflicting documents", told["conflicts"], 0),
        ("orders", sorted(told["orders"]), sorted(job.job_order_id for job in jobs)),
        ("job responses", sorted(told["responses"]), sorted(told["orders"])),
    ]
    for name, units in told["units"].items():
        row, response = counts.get(name), told["responses"].get(name, {})
        books = (row.units, row.final_pass, row.attempts) if row else (0, 0, 0)
        pairs.append((f"units of {name}", (units["units"], units["good"]), books[:2]))
        answer = (response.get("units_in"), response.get("good"), response.get("attempts"))
        pairs.append((f"job response of {name}", answer, books))
    return told, [f"{what}: the MES has {mes}, the books {books}" for what, mes, books in pairs if mes != books]
