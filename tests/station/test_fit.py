"""A unit that does not fit is refused before a byte of its package leaves: nothing is spent, the package is free."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from ifpp.model.states import Lamp, PackageState
from ifpp.settings import Life, Recipe
from ifpp.sim.euicc.card import Euicc
from tests.station.shop import BPP_TAG, Run, Shop, shop, truth, world
from tests.station.test_head import CLEAN, results

__all__ = ["shop", "world"]

PREPARE_TAG = b"\xbf\x21"


async def refused(shop: Shop, run: Run, chip: Euicc, code: str, lamp: Lamp) -> None:
    before = truth(chip)
    run.socket.seat(chip)
    assert await run.socket.shows(Lamp.PASS, Lamp.FAIL, Lamp.RESEAT, Lamp.HOLD) is lamp
    heads = {apdu[5:7] for apdu in run.socket.sent if apdu[1] == 0xE2}
    assert not heads & {BPP_TAG, PREPARE_TAG}
    (result,) = results(await run.supervise())
    assert [defect.code for defect in result.defects] == [code]
    assert result.profiles == []
    assert truth(chip) == before
    assert shop.state() is PackageState.AVAILABLE
    assert await run.held() == {}
    run.socket.take()
    await run.socket.shows(Lamp.OFF)


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        (Recipe(svn="2.6.1"), "FIT.SVN"),
        (Recipe(profile_version="3.0.0"), "FIT.PROFILE_VERSION"),
        (Recipe(memory_factor=1e6), "EUICC.NO_MEMORY"),
    ],
)
async def test_what_the_recipe_asks_for(shop: Shop, recipe: Recipe, code: str) -> None:
    shop.settings = msgspec.structs.replace(shop.settings, recipe=recipe)
    async with shop.start() as run:
        await refused(shop, run, shop.chip(), code, Lamp.FAIL)


async def test_a_chip_that_trusts_another_ci(shop: Shop) -> None:
    chip = shop.chip()
    stranger = replace(chip.chip.card, ci_certificates=())
    async with shop.start() as run:
        await refused(shop, run, Euicc(stranger, chip.nvm), "FIT.CI_KEY", Lamp.FAIL)
        assert await run.load(chip) is Lamp.PASS


async def test_a_denied_firmware_until_somebody_allows_it(shop: Shop) -> None:
    chip = shop.chip()
    (package,) = shop.record().packages
    firmware = f"{shop.eid()[:8]}/1.4.2"
    now = shop.clock.now()
    async with shop.start() as run:
        shop.factory.deny(firmware, package.profile_type, "Eve", "hangs", now, known=False)
        await refused(shop, run, chip, "FIT.DENIED", Lamp.FAIL)
        shop.factory.allow(firmware, package.profile_type, "Eve", "mended", now)
        assert await run.load(chip) is Lamp.PASS
    assert truth(chip) == CLEAN


async def test_what_fails_on_three_chips_is_proposed_and_once_activated_spares_the_fourth(shop: Shop) -> None:
    kind = shop.record().packages[0].profile_type
    async with shop.start(life=Life(fail_streak=0)) as run:
        for number in range(3):
            chip = shop.chip(number)
            liar = Euicc(replace(chip.chip.card, free_nvm=100), chip.nvm)  # it claims more memory than it has
            assert await run.load(liar) is Lamp.FAIL
            await run.supervise()
        (entry,) = shop.factory.denylist()
        assert (entry.standing, entry.profile_type, entry.failed) == ("PROPOSED", kind, 3)
        shop.factory.deny(entry.firmware, kind, "Eve", "seen on three chips", shop.clock.now(), known=True)
        assert await run.load(shop.chip(3)) is Lamp.FAIL
        (result,) = results(await run.supervise())
    assert [defect.code for defect in result.defects] == ["FIT.DENIED"]
    assert result.outcome_class == "SUPPLY"
    assert shop.state(3) is PackageState.AVAILABLE
