"""A station learns which blocks a card type takes on a reader, keeps it, and never repeats anything inside a load."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.model.messages import UnitResultEvent
from ifpp.model.states import Lamp, PackageState
from ifpp.sim.euicc.card import ATR, BlockLimit, Euicc
from ifpp.station.edges import Edge
from ifpp.station.journal import Journal
from tests.clock import FakeClock
from tests.station.shop import Run, Shop, shop, truth, world
from tests.station.test_head import CLEAN, results

__all__ = ["shop", "world"]

CARD, PORT = ATR.hex(), "memory://"
DAY_S = 86_400.0


def limited(shop: Shop, number: int, limit: BlockLimit | None) -> Euicc:
    chip = shop.chip(number)
    chip.limit = limit
    return chip


async def loaded(run: Run, chip: Euicc) -> UnitResultEvent:
    assert await run.load(chip) is Lamp.PASS
    assert truth(chip) == CLEAN
    return results(await run.supervise())[-1]


async def learnt(run: Run) -> int | None:
    return await asyncio.wrap_future(run.journal.block_size(CARD, PORT))


async def test_the_link_stands_in_the_result_of_a_unit(shop: Shop) -> None:
    async with shop.start() as run:
        result = await loaded(run, shop.chip())
        assert await learnt(run) is None, "nothing had to be learnt"
    assert result.link is not None
    assert (result.link.atr, result.link.protocol, result.link.block_size) == (CARD, "T=0", 255)
    assert result.link.bit_rate is None, "the reader's clock is not in the settings"
    assert result.firmware == f"{shop.eid()[:8]}/1.4.2"


@pytest.mark.parametrize("sw", [0x6700, 0x6601, 0])
async def test_what_one_unit_taught_the_next_begins_with_also_after_a_restart(shop: Shop, sw: int) -> None:
    async with shop.start() as run:
        result = await loaded(run, limited(shop, 0, BlockLimit(130, sw)))
        assert result.link is not None
        assert (result.link.block_size, await learnt(run)) == (120, 120)
    async with shop.start() as run:
        chip = limited(shop, 1, BlockLimit(130, sw))
        result = await loaded(run, chip)
    assert result.link is not None
    assert result.link.block_size == 120
    assert chip.load_apdus == [sum(profile.apdus for profile in result.profiles)], "no block was tried in vain"


async def test_a_block_refused_inside_a_load_is_settled_by_the_chip_and_the_next_are_smaller(shop: Shop) -> None:
    chip = shop.chip()

    def at_edge(edge: Edge) -> None:
        if edge is Edge.SENT:
            chip.limit = BlockLimit(240, 0x6601)

    async with shop.start(at_edge) as run:
        assert await run.load(chip) is Lamp.RESEAT
        await run.supervise()
        assert shop.state() is PackageState.UNKNOWN
        assert await learnt(run) == 240
        result = await loaded(run, chip)
    assert result.link is not None
    assert result.link.block_size == 240
    assert shop.state() is PackageState.INSTALLED


def test_what_was_learnt_is_forgotten_in_a_week_and_belongs_to_card_and_port(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    journal = Journal.open(tmp_path / "journal.db", "st01", clock)
    journal.learn_block_size(CARD, PORT, 120)
    journal.learn_block_size(CARD, PORT, 64)
    assert journal.block_size(CARD, PORT).result(10) == 64
    assert journal.block_size("3b00", PORT).result(10) is None
    assert journal.block_size(CARD, "tcp://h:1").result(10) is None
    clock.advance(8 * DAY_S)
    assert journal.block_size(CARD, PORT).result(10) is None
    journal.close()
