"""Units on their way through recipes: what stands in their record, and that custody holds whatever a step does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.model.messages import UnitResultEvent
from ifpp.model.recipe import (
    IFPP_LOAD,
    AnyStep,
    CleanToShip,
    Connect,
    DefaultAddress,
    DeleteKeys,
    Eim,
    Enable,
    Fit,
    Identify,
    Load,
    Lock,
    Nickname,
    ReadBack,
    Recipe,
    Verify,
    digest,
    flaws,
)
from ifpp.model.recipe_run import RecipeRun
from ifpp.model.states import Lamp, PackageState
from ifpp.recipes import RecipeBook
from ifpp.sim import pki
from ifpp.sim.eum import Make
from ifpp.sim.fleet import card_contents
from ifpp.sim.world import JobPlan, WorldSummary, build_world
from ifpp.station.edges import Edge
from ifpp.station.permits import Permits
from tests.fpa.test_seal import MASTER, authoriser
from tests.station.doomed import Doom
from tests.station.shop import JOB, PATIENCE_S, Run, Shop, open_shop, truth
from tests.station.test_head import results
from tests.station.test_kill import kill

CA = pki.self_signed(pki.name_of("IoT", "eIM CA"), ec.generate_private_key(ec.SECP256R1()))
LEAF = pki.below(CA, pki.EUICC, pki.name_of("IoT", "eIM"))
PEM, CA_PEM = (each.certificate.public_bytes(Encoding.PEM).decode() for each in (LEAF, CA))
EIM = Eim(id="eim.example", certificate=PEM, issuer=CA_PEM)
TYPES = ("first", "second")
LAST = (Lock(), ReadBack(), CleanToShip())
ATTACHES = (DeleteKeys(), Enable("second"), Nickname("factory", "first"), DefaultAddress("smdp.example"), EIM, *LAST)


def recipe(*steps: AnyStep, profiles: tuple[str, ...] = TYPES, fit: Fit | None = None) -> Recipe:
    made = Recipe(JOB.recipe.name, JOB.recipe.revision, (Identify(), fit or Fit(), Load(profiles), Verify(), *steps))
    assert not list(flaws(made))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    """IoT chips with two profiles each, whose deletions and locks want the device maker's word."""
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"], types=TYPES)]
    make = Make(iot=True, tre="integrated", tre_product="SOC-7")
    folder = tmp_path_factory.mktemp("two")
    return build_world(folder, units=2, seed=9, jobs=plan, profile_kb=(4, 5), make=make, dm_master=MASTER)


@pytest.fixture
async def shop(tmp_path: Path, world: WorldSummary) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, world) as opened:
        opened.permits = Permits(authoriser(MASTER), timeout_s=PATIENCE_S, heads=1)
        yield opened
        opened.permits.close()


async def last(run: Run) -> UnitResultEvent:
    return results(await run.supervise())[-1]


def gone(result: UnitResultEvent) -> RecipeRun:
    assert result.run is not None
    return result.run


def states(shop: Shop) -> set[str]:
    return {package.state for package in shop.record().packages}


async def test_several_profiles_in_order_one_enabled_and_an_eim(shop: Shop) -> None:
    wanted = recipe(*ATTACHES, profiles=("second", "first"), fit=Fit(chip="iot", tre="integrated", tre_product="SOC"))
    shop.recipes = RecipeBook([wanted, IFPP_LOAD])
    chip = shop.chip()
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        result = await last(run)
    told = gone(result)
    assert (told.name, told.version, told.digest) == ("load", "1", digest(wanted))
    assert [note.step for note in told.steps] == [
        *("identify", "fit", "load", "verify", "load", "verify"),
        *(step.name for step in wanted.steps[4:]),
    ]
    assert {note.result for note in told.steps} == {"PASS"}
    assert told.steps[0].evidence["tre_product"] == "SOC-7"
    assert result.clean_to_ship
    assert result.seal is not None
    assert (result.seal.keys_deleted, result.seal.fpa_locked, result.seal.lpa_answers) == (1, True, True)
    contents = card_contents(chip)
    by_type = {package.iccid: package.profile_type for package in shop.record().packages}
    assert [
        (by_type[profile["iccid"]], profile["enabled"], profile["nickname"]) for profile in contents["profiles"]
    ] == [("second", True, ""), ("first", False, "factory")]
    assert (contents["default_address"], contents["eims"]) == ("smdp.example", ["eim.example"])


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (recipe(*ATTACHES, fit=Fit(chip="consumer")), "FIT.KIND"),
        (recipe(*ATTACHES, fit=Fit(tre="discrete")), "FIT.KIND"),
        (recipe(DeleteKeys(), *LAST, profiles=("first", "third")), "RECIPE.PROFILES"),
        (recipe(DeleteKeys(), Enable(), *LAST, profiles=()), "RECIPE.PROFILES"),
        (recipe(DeleteKeys(), Enable("first"), Connect(), *LAST), "CONNECT.NO_MODEM"),
        (recipe(DeleteKeys(), Eim(id="e", certificate=PEM, issuer=""), *LAST), "EIM.CERTIFICATE"),
        (msgspec.structs.replace(recipe(*ATTACHES), version="2"), "RECIPE.UNKNOWN"),
    ],
)
async def test_what_cannot_be_carried_out_spends_nothing(shop: Shop, wanted: Recipe, code: str) -> None:
    shop.recipes = RecipeBook([wanted])
    chip = shop.chip()
    before = truth(chip)
    async with shop.start() as run:
        assert await run.load(chip) in (Lamp.FAIL, Lamp.HOLD)
        result = await last(run)
    assert [defect.code for defect in result.defects] == [code]
    assert truth(chip) == before
    assert states(shop) == {PackageState.AVAILABLE}
    if code != "RECIPE.UNKNOWN":
        assert (gone(result).steps[-1].step, gone(result).steps[-1].code) == ("fit", code)


async def test_a_recipe_that_does_not_ship_ends_in_stock(shop: Shop) -> None:
    shop.recipes = RecipeBook([recipe(DeleteKeys(), Enable("first"), ReadBack())])
    chip = shop.chip()
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        result = await last(run)
    assert (result.disposition, result.clean_to_ship, result.seal) == ("STOCK", False, None)
    assert truth(chip) == (2, 0, False)


async def test_a_chip_that_undoes_a_step_is_not_shipped_and_each_difference_is_told(shop: Shop) -> None:
    shop.recipes = RecipeBook([recipe(*ATTACHES)])
    chip = shop.chip()

    def spoil(edge: Edge) -> None:
        if edge is Edge.SEALED and chip.nvm.eims:
            chip.nvm.eims.clear()
            chip.nvm.default_dp_address = "other.example"

    async with shop.start(spoil) as run:
        assert await run.load(chip) is Lamp.RESEAT
        result = await last(run)
    assert [defect.code for defect in result.defects] == ["READBACK.DIFFERS"]
    assert len(gone(result).differences) == 2
    assert not result.clean_to_ship
    assert states(shop) == {PackageState.INSTALLED}, "the profiles are there, whatever else is not"
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS, "seated again every step is repeated"
        assert (await last(run)).clean_to_ship


@pytest.mark.parametrize("at", range(2, 40, 4))
async def test_a_unit_whose_contact_is_lost_after_the_load_comes_to_its_end_when_seated_again(
    shop: Shop, at: int
) -> None:
    """The chip is loaded by a recipe that stops there; then contact is lost at each command of the rest in turn."""
    chip = shop.chip()
    shop.recipes = RecipeBook([recipe()])
    async with shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
    shop.recipes = RecipeBook([recipe(*ATTACHES)])
    async with shop.start() as run:
        run.socket.seat(chip, (at, True), from_power_up=True)
        first = await run.socket.shows(Lamp.PASS, Lamp.RESEAT)
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        cut = await last(run)
        assert cut.clean_to_ship is (first is Lamp.PASS)
        if first is Lamp.RESEAT:
            assert await run.load(chip) is Lamp.PASS
            assert (await last(run)).clean_to_ship
    contents = card_contents(chip)
    assert [profile["enabled"] for profile in contents["profiles"]] == [False, True]
    assert (contents["eims"], contents["fpa_locked"], contents["keys_left"]) == (["eim.example"], True, 0)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> WorldSummary:
    """An IoT chip with two profiles that obeys anybody."""
    plan = [JobPlan(JOB.job_order_id, "TRACKER", "EU", ["st01"], types=TYPES)]
    return build_world(
        tmp_path_factory.mktemp("free"), units=1, seed=10, jobs=plan, profile_kb=(4, 5), make=Make(iot=True)
    )


@pytest.mark.parametrize("edge", [Edge.SETTLED, Edge.SEALED, Edge.CLOSING], ids=str)
async def test_after_a_kill_in_the_middle_of_a_recipe_the_unit_comes_to_its_end(
    tmp_path: Path, free: WorldSummary, edge: Edge
) -> None:
    async with open_shop(tmp_path, free) as shop:
        shop.recipes = RecipeBook([recipe(*ATTACHES)])
        chip = shop.chip()
        await kill(shop, chip, Doom(edge, times=2 if edge is Edge.SETTLED else 1))
        async with shop.start() as run:
            (died,) = results(await run.supervise())
            assert (died.defects[0].code, died.clean_to_ship) == ("STATION.DIED", False)
            assert gone(died).steps, "the will says how far it had come"
            assert await run.load(chip) is Lamp.PASS
            assert (await last(run)).clean_to_ship
        contents = card_contents(chip)
        assert [profile["enabled"] for profile in contents["profiles"]] == [False, True]
        assert (contents["eims"], contents["keys_left"], contents["fpa_locked"]) == (["eim.example"], 0, True)
        (row,) = [row for row in shop.factory.balance() if row.region == "EU"]
        assert row.holds
        assert (row.installed, row.unknown, row.sent) == (2, 0, 0)
