"""kill -9 of a station at every named edge of a unit's way: afterwards the books say what the chip holds.

After each death the unit is taken out of the socket, the station starts anew, and before anything else tells what it
left open. Then the unit is seated again and must end clean, with one profile and one key used.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from ifpp.model.states import Lamp, PackageState
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.slots import Slot, SlotServer
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.station.edges import Edge
from tests.station.doomed import Doom, start
from tests.station.shop import JOB, PATIENCE_S, Shop, open_shop, shop, truth, world
from tests.station.test_head import CLEAN, results

__all__ = ["shop", "world"]

S = PackageState
BLANK = (0, 3, False)
NOTHING, OPEN, KNOWN = None, S.UNKNOWN, S.INSTALLED  # what the next start has to tell of the package


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    """One unit with two profiles."""
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"])]
    folder = tmp_path_factory.mktemp("pairs")
    return build_world(folder, units=1, seed=8, jobs=plan, profile_kb=(4, 6), profiles_per_unit=2)


async def kill(shop: Shop, chip: Euicc, doom: Doom) -> None:
    """Let a station die over a chip; return when it is dead and the unit taken out."""
    slot = Slot("h01")
    server = SlotServer({"h01": slot})
    await server.start()
    ci, recipes = shop.world.ci.read_bytes(), list(shop.recipes)
    process = start(shop.path, server.ports["h01"], shop.store_url, ci, doom, recipes, shop.tls_ca)
    slot.seat(chip)
    await asyncio.to_thread(process.join, PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL
    slot.unseat()
    server.stop()


# doom, what the next start tells of the package, what the chip holds, what the ledger says after that
ROWS = [
    (Doom(Edge.CLAIMED), NOTHING, BLANK, S.CLAIMED),
    (Doom(Edge.INTENDING), NOTHING, BLANK, S.CLAIMED),
    (Doom(Edge.JOURNALLED), OPEN, BLANK, S.UNKNOWN),
    (Doom(Edge.SENT), OPEN, BLANK, S.UNKNOWN),
    (Doom(apdu=1), OPEN, BLANK, S.UNKNOWN),
    (Doom(apdu=2), OPEN, BLANK, S.UNKNOWN),
    (Doom(apdu=12), OPEN, BLANK, S.UNKNOWN),
    (Doom(apdu=20), OPEN, BLANK, S.UNKNOWN),
    (Doom(apdu=21), OPEN, (1, 2, False), S.UNKNOWN),
    (Doom(apdu=22), OPEN, (1, 2, False), S.UNKNOWN),
    (Doom(Edge.ANSWERED), OPEN, (1, 2, False), S.UNKNOWN),
    (Doom(Edge.SETTLED), KNOWN, (1, 2, False), S.INSTALLED),
    (Doom(Edge.SEALED), KNOWN, CLEAN, S.INSTALLED),
    (Doom(Edge.CLOSING), KNOWN, CLEAN, S.INSTALLED),
    (Doom(Edge.CLOSED), NOTHING, CLEAN, S.INSTALLED),
    (Doom(Edge.FORGOTTEN), NOTHING, CLEAN, S.INSTALLED),
]


@pytest.mark.parametrize(("doom", "told", "chip_holds", "ledger"), ROWS, ids=str)
async def test_after_a_kill_the_books_say_what_the_chip_holds(
    shop: Shop, doom: Doom, told: PackageState | None, chip_holds: tuple[int, int, bool], ledger: PackageState
) -> None:
    chip = shop.chip()
    await kill(shop, chip, doom)
    assert truth(chip) == chip_holds
    async with shop.start() as run:
        recovered = [result for result in results(await run.supervise()) if result.result == "ERROR"]
        assert [row.package_state for result in recovered for row in result.profiles] == [told] * (told is not None)
        assert shop.state() is ledger
        assert list(await run.held()) == [shop.eid()] * (told is not None)
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED
    assert shop.record().clean_to_ship_at is not None
    (row,) = [row for row in shop.factory.balance() if row.region == "EU"]
    assert row.holds
    assert (row.installed, row.unknown, row.sent) == (1, 0, 0)


@pytest.mark.parametrize(("edge", "told"), [(Edge.SENT, [KNOWN, OPEN]), (Edge.SETTLED, [KNOWN, KNOWN])], ids=str)
async def test_a_kill_in_the_second_of_two_packages_keeps_the_first_ones_result(
    tmp_path: Path, pairs: WorldSummary, edge: Edge, told: list[PackageState]
) -> None:
    async with open_shop(tmp_path, pairs) as shop:
        chip = shop.chip()
        await kill(shop, chip, Doom(edge, times=2))
        async with shop.start() as run:
            (recovered,) = results(await run.supervise())
            assert [row.package_state for row in recovered.profiles] == told
            assert await run.load(chip) is Lamp.PASS
            await run.supervise()
            assert await run.held() == {}
        assert truth(chip) == (2, 0, True)
        assert [package.state for package in shop.record().packages] == [S.INSTALLED, S.INSTALLED]


async def test_a_station_killed_again_and_again_over_one_unit(shop: Shop) -> None:
    """Each life ends a little later; every death is told once, in order, and the unit ends clean."""
    chip = shop.chip()
    for doom in (Doom(Edge.SENT), Doom(apdu=5), Doom(Edge.SENT), Doom(apdu=22), Doom(Edge.SEALED)):
        await kill(shop, chip, doom)
    async with shop.start() as run:
        told = results(await run.supervise())
        assert [result.attempt for result in told] == sorted(result.attempt for result in told)
        assert {result.defects[0].code for result in told} == {"STATION.DIED"}
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    assert truth(chip) == CLEAN
    assert shop.state() is S.INSTALLED


async def test_a_unit_that_was_taken_away_is_told_of_though_nobody_seats_it_again(shop: Shop) -> None:
    await kill(shop, shop.chip(), Doom(apdu=12))
    async with shop.start() as run:
        (told,) = results(await run.supervise())
        assert (told.result, told.outcome_class, told.disposition) == ("ERROR", "AMBIGUOUS", "HOLD")
        assert told.unit.eid == shop.eid()
        assert "until a station has read it again" in (await run.held())[shop.eid()]
    assert shop.state() is S.UNKNOWN
    async with shop.start() as run:  # told once, held until it is read
        assert results(await run.supervise()) == []
        assert list(await run.held()) == [shop.eid()]
