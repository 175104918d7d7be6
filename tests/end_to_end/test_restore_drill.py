"""The drill: copies are taken while the line works, then books and journal are lost, and everything still adds up."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from ifpp.roles.accounts import take_account
from ifpp.roles.factory_floor import STORE, SUPERVISOR, FactoryFloor
from ifpp.sim.world import JobPlan, build_world
from ifpp.store.factory import Factory
from tests.end_to_end.test_offline_shift import kill

UNITS, BEFORE = 6, 2
pytestmark = pytest.mark.timeout(300)


class Plant(FactoryFloor):
    station_extra = FactoryFloor.station_extra + "\n[deadlines]\nreconnect_s = 0.3\n\n[outbox]\nresend_s = 1\n"
    supervisor_extra = "lease_s = 3\n"

    async def ifpp(self, *words: str) -> None:
        """Run a command to its end, which is a good one."""
        child = await self.children.start_ifpp(f"desk-{words[0]}", *words)
        assert await child.process.wait() == 0, child.log.read_text()


async def test_books_and_journal_come_back(tmp_path: Path) -> None:
    world = build_world(tmp_path / "world", units=UNITS, seed=5, jobs=[JobPlan("JO-1", "TRACKER", "EU", ["st01"])])
    floor = Plant(tmp_path, ["st01"], heads=2, apdu_ms=20, broker=None)
    config = ["--config", str(tmp_path / "config" / "site.toml")]
    station, books, journal = str(floor.station_file("st01")), tmp_path / "factory.bak", tmp_path / "st01.bak"
    try:
        await floor.start_broker()
        await floor.open(world)
        fleet = floor.fleets["st01"]
        await fleet.tell("go")
        await counted(floor.database, BEFORE)
        copies = [("store", "backup", str(books), *config), ("station", "backup", station, str(journal))]
        await asyncio.gather(*(floor.ifpp(*words) for words in copies))
        assert fleet.process.returncode is None, "the copies were meant to be taken while it works"
        assert await asyncio.wait_for(fleet.process.wait(), 120) == 0
        await floor.settled()

        await asyncio.gather(*(kill(floor.children[name]) for name in (STORE, SUPERVISOR, "st01")))
        lose(tmp_path / "factory.db")
        await floor.ifpp("store", "restore", str(books), *config)
        await floor.ifpp("station", "resend", station)
        await start(floor, STORE, SUPERVISOR, "st01")
        await floor.settled()
        await floor.write_reports()
        figures = take_account(tmp_path, world, ["st01"], station_cpu_s=0, block_size=255)
        assert figures.unaccounted == []
        assert all(row.holds for row in figures.balance)
        assert (figures.passed, figures.acked) == (UNITS, UNITS)

        await kill(floor.children["st01"])
        lose(floor.journal("st01"))
        last = last_event(floor.database)
        words = ["--from", str(journal), "--by", "drill", "--reason", "its disk died"]
        await floor.ifpp("station", "restore", station, *words, *config)
        await start(floor, "st01")
        await heard_after(floor.database, last)
        await floor.settled()
    finally:
        await floor.close()
    with closing(Factory.open(floor.database)) as factory:
        assert factory.audit() == []
        assert factory.open_packages() == []
        assert factory.parked() == []
    audit = tmp_path / "audit.jsonl"
    floor = Plant(tmp_path, [], heads=1, apdu_ms=0, broker=None)
    try:
        await floor.ifpp("audit", "export", str(audit), *config)
        await floor.ifpp("audit", "verify", str(audit), "--key", str(tmp_path / "config" / "audit.pub"))
    finally:
        await floor.close()


async def counted(database: str, units: int) -> None:
    """Wait until so many units are in the books."""
    with closing(Factory.open(database)) as factory:
        async with asyncio.timeout(60):
            while sum(row.units for row in factory.unit_counts()) < units:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)


async def start(floor: Plant, *names: str) -> None:
    for name in names:
        await (await floor.start(name)).wait_ready()


def lose(path: Path) -> None:
    """The disk died: the file and all that belongs to it."""
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()


async def heard_after(database: str, last: int) -> None:
    """Wait until events after this one are in the books: the station's count again."""
    async with asyncio.timeout(60):
        while last_event(database) <= last:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


def last_event(database: str) -> int:
    with closing(Factory.open(database)) as factory:
        return factory.nodes.last_event("st01")
