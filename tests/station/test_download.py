"""Units that download their profile on the line: books, chip and SM-DP+ say the same, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ifpp.line.intake import import_file
from ifpp.model.messages import UnitResultEvent
from ifpp.model.recipe import (
    AnyStep,
    CleanToShip,
    Download,
    Enable,
    Fit,
    Identify,
    Notify,
    ReadBack,
    Recipe,
    flaws,
)
from ifpp.model.states import Lamp, PackageState
from ifpp.recipes import RecipeBook
from ifpp.sim.documents import write_codes
from ifpp.sim.euicc import Euicc
from ifpp.sim.fleet import card_contents
from ifpp.sim.smdp_plus import Order
from ifpp.sim.world import WorldSummary
from ifpp.station.edges import Edge
from ifpp.station.rsp_outbox import RspOutbox
from ifpp.store.factory import Factory
from ifpp.store.records import ReceivedEvent
from ifpp.trust.chain import TrustStore
from tests.clock import FakeClock
from tests.fpa.online import Site
from tests.station.doomed import Doom
from tests.station.shop import JOB, Run, Shop
from tests.station.test_head import results
from tests.station.test_kill import kill
from tests.storefront.conftest import serving

S = PackageState
STEPS: tuple[AnyStep, ...] = (Download(), Enable(), Notify(), ReadBack(), CleanToShip())
CODES = 2


def recipe(*steps: AnyStep, fit: Fit | None = None) -> Recipe:
    made = Recipe(JOB.recipe.name, JOB.recipe.revision, (Identify(), fit or Fit(), *(steps or STEPS)))
    assert not list(flaws(made))
    return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


class Floor:
    """A shop whose store has activation codes of an SM-DP+; chips are unknown to it until they claim one."""

    def __init__(self, shop: Shop, site: Site, orders: list[Order]) -> None:
        self.shop, self.site, self.orders = shop, site, orders

    def chip(self, **options: Any) -> Euicc:
        return Euicc(self.site.eum.issue(keys=0, **options).card)

    def states(self, chip: Euicc) -> list[tuple[str, str]]:
        """(state, ICCID) of what the books have of a chip."""
        record = self.shop.factory.unit(chip.chip.card.eid)
        return [] if record is None else [(package.state, package.iccid) for package in record.packages]

    def agrees(self, chip: Euicc, *, orders: int = 1) -> None:
        """One profile on the chip, enabled; the books know it; the SM-DP+ gave so many and was told of one."""
        (profile,) = card_contents(chip)["profiles"]
        assert profile["enabled"]
        assert (S.INSTALLED, profile["iccid"]) in self.states(chip)
        used = [order for order in self.orders if order.state != "RELEASED"]
        assert len(used) == orders
        assert [str(order.profile.iccid) for order in used if order.state == "INSTALLED"] == [profile["iccid"]]
        for row in self.shop.factory.balance():
            assert row.holds


@asynccontextmanager
async def open_floor(folder: Path, site: Site, *, code: str = "", codes: int = CODES) -> AsyncIterator[Floor]:
    clock = FakeClock(datetime.now(UTC))
    factory = Factory.open(f"sqlite:///{folder / 'factory.db'}")
    orders = [site.release(f"M-{number}", code=code) for number in range(1, codes + 1)]
    rows = [
        {
            "activation_code": f"1${site.smdp.address}$M-{number}" + ("$$1" if code else ""),
            "profile_type": "tracker",
            "sku": JOB.product.part_number,
            "region": JOB.region,
            **({"confirmation_code": code} if code else {}),
        }
        for number in range(1, codes + 1)
    ]
    write_codes(folder / "codes.jsonl", rows)
    import_file(folder / "codes.jsonl", factory, TrustStore([site.tree.ci.der]), now=clock.now(), line="L1")
    (folder / "ci.der").write_bytes(site.tree.ci.der)
    world = WorldSummary(folder, folder / "ci.der", folder, (), (), folder, ())
    async with serving(factory, clock) as url:
        shop = Shop(folder, world, factory, url, clock)
        shop.path = folder / "station.db"
        shop.tls_ca = site.ca
        shop.recipes = RecipeBook([recipe()])
        yield Floor(shop, site, orders)
    factory.close()


@pytest.fixture
async def floor(tmp_path: Path, site: Site) -> AsyncIterator[Floor]:
    async with open_floor(tmp_path, site) as opened:
        yield opened


async def last(run: Run) -> UnitResultEvent:
    return results(await run.supervise())[-1]


async def test_a_profile_is_downloaded_enabled_told_and_in_the_books(floor: Floor) -> None:
    chip = floor.chip()
    async with floor.shop.start() as run:
        lamp = await run.load(chip)
        result = await last(run)
    assert lamp is Lamp.PASS, result.defects
    floor.agrees(chip)
    assert result.clean_to_ship
    assert result.seal is not None
    assert (result.seal.fpa_absent, result.seal.keys_remaining, result.seal.lpa_answers) == (True, 0, True)
    (profile,) = result.profiles
    assert profile.package_state == S.INSTALLED
    assert profile.bytes > 4000
    assert result.run is not None
    assert [note.step for note in result.run.steps] == [step.name for step in recipe().steps]
    evidence = {note.step: note.evidence for note in result.run.steps}
    assert evidence["download"]["round_trips"] == "3"
    assert evidence["notify"] == {"delivered": "2", "waiting": "0"}
    assert card_contents(chip)["notifications"] == 0
    record = floor.shop.factory.unit(chip.chip.card.eid)
    assert record is not None
    assert record.clean_to_ship_at is not None


@pytest.mark.parametrize("code", ["", "0815"])
async def test_a_confirmation_code_is_stock_too(tmp_path: Path, site: Site, code: str) -> None:
    async with open_floor(tmp_path, site, code=code) as floor:
        chip = floor.chip()
        async with floor.shop.start() as run:
            assert await run.load(chip) is Lamp.PASS
            await run.supervise()
        floor.agrees(chip)


# ---- what is in the way --------------------------------------------------------------------------------


async def test_a_server_that_is_away_costs_no_code(floor: Floor) -> None:
    """The code was never shown to it: the next chip has it."""
    site, one, other = floor.site, floor.chip(), floor.chip()
    port = int(site.smdp.address.partition(":")[2])
    async with floor.shop.start() as run:
        site.loop.run(site.server.stop())
        lamp = await run.load(one)
        result = await last(run)
        assert (lamp, result.defects[0].code) == (Lamp.RESEAT, "RSP.UNREACHABLE")
        assert result.profiles[0].tied is False
        site.loop.run(site.server.start(port))
        assert await run.load(other) is Lamp.PASS
        assert await run.load(one) is Lamp.PASS
        await run.supervise()
    given = {order.eid: order.matching_id for order in floor.orders if order.eid}
    assert sorted(given.values()) == ["M-1", "M-2"]
    assert given.keys() == {one.chip.card.eid, other.chip.card.eid}
    assert [state for state, _ in floor.states(one)][-1] == S.INSTALLED


async def test_a_code_that_was_shown_stays_with_its_chip(floor: Floor) -> None:
    site, one, other = floor.site, floor.chip(), floor.chip()
    site.server.troubles["getBoundProfilePackage"] = ["cut"] * 3
    async with floor.shop.start() as run:
        assert await run.load(one) is Lamp.RESEAT
        result = await last(run)
        assert (result.profiles[0].package_state, result.profiles[0].tied) == (S.FAILED, True)
        assert await run.load(other) is Lamp.PASS
        await run.supervise()
        assert await run.load(one) is Lamp.PASS
        await run.supervise()
    given = {order.eid: order.matching_id for order in floor.orders if order.eid}
    assert given == {one.chip.card.eid: "M-1", other.chip.card.eid: "M-2"}


async def test_what_the_server_refuses_stands_in_the_verdict(floor: Floor) -> None:
    floor.orders[0].eligible = False
    async with floor.shop.start() as run:
        assert await run.load(floor.chip()) is Lamp.FAIL
        result = await last(run)
    assert result.defects[0].code == "RSP.NOT_ELIGIBLE"
    assert result.run is not None
    assert [(note.step, note.result) for note in result.run.steps][-1] == ("download", "FAIL")


async def test_nothing_is_downloaded_while_one_time_keys_remain(floor: Floor) -> None:
    chip = Euicc(floor.site.eum.issue(keys=1).card)
    async with floor.shop.start() as run:
        assert await run.load(chip) is Lamp.FAIL
        result = await last(run)
    assert result.defects[0].code == "FIT.KIND"
    assert floor.site.smdp.calls == {}
    assert [state for state, _ in floor.states(chip)] == [S.AVAILABLE]


async def test_a_recipe_that_loads_gets_no_codes(floor: Floor) -> None:
    floor.shop.recipes = RecipeBook()
    chip = Euicc(floor.site.eum.issue(keys=1).card)
    async with floor.shop.start() as run:
        await run.load(chip)
        result = await last(run)
    assert result.defects[0].code == "RECIPE.PROFILES"
    assert floor.site.smdp.calls == {}


async def test_a_notification_that_cannot_be_told_is_told_later(floor: Floor) -> None:
    site, chip = floor.site, floor.chip()
    site.server.troubles["handleNotification"] = ["503"]
    async with floor.shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        result = await last(run)
        assert result.run is not None
        evidence = {note.step: note.evidence for note in result.run.steps}
        assert evidence["notify"] == {"delivered": "0", "waiting": "2"}
        assert floor.orders[0].state == "DOWNLOADED"
        downloads = run.downloads
        assert downloads is not None
        assert await RspOutbox(downloads.book, downloads.client, leave_s=0).deliver() == 2
    floor.agrees(chip)


async def test_a_station_without_a_way_to_an_smdp_says_so(floor: Floor) -> None:
    floor.shop.tls_ca = None
    async with floor.shop.start() as run:
        await run.load(floor.chip())
        result = await last(run)
    assert result.defects[0].code == "SETTINGS.MISSING"


async def test_what_another_station_began_only_that_station_settles(floor: Floor, tmp_path: Path) -> None:
    chip, journal = floor.chip(), floor.shop.path
    await kill(floor.shop, chip, Doom(Edge.ANSWERED))
    floor.shop.path = tmp_path / "other.db"
    async with floor.shop.start() as run:
        await run.load(chip)
        rows = await asyncio.wrap_future(run.journal.unacked(0, 1000))
        (result,) = results([ReceivedEvent.parse("st01", row.body) for row in rows])
        assert (result.defects[0].code, result.outcome_class) == ("PIR.MISSING", "AMBIGUOUS")
        assert floor.site.smdp.calls["initiateAuthentication"] == 1
    floor.shop.path = journal
    async with floor.shop.start() as run:
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
    floor.agrees(chip)


# ---- kill -9 -------------------------------------------------------------------------------------------

DOOMS = [
    *(Doom(edge) for edge in (Edge.CLAIMED, Edge.INTENDING, Edge.JOURNALLED, Edge.SENT)),
    *(Doom(apdu=number) for number in (1, 2, 12, 20)),
    *(Doom(edge) for edge in (Edge.ANSWERED, Edge.SETTLED, Edge.CLOSING, Edge.CLOSED)),
]


@pytest.mark.parametrize("store_knows", [True, False])
@pytest.mark.parametrize("doom", DOOMS, ids=str)
async def test_after_a_kill_the_same_code_ends_in_one_profile(floor: Floor, doom: Doom, store_knows: bool) -> None:
    """`store_knows`: whether what the dead process left to be told has come there before the unit is seated again."""
    chip = floor.chip()
    await kill(floor.shop, chip, doom)
    async with floor.shop.start() as run:
        if store_knows:
            await run.supervise()
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    floor.agrees(chip)
    (row,) = floor.shop.factory.balance()
    assert (row.installed, row.unknown, row.sent, row.failed) == (1, 0, 0, 0)


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("apdu", [1, 7, 20])
async def test_a_chip_pulled_in_mid_download(floor: Floor, apdu: int, executed: bool) -> None:
    chip = floor.chip()
    async with floor.shop.start() as run:
        run.socket.seat(chip, (apdu, executed))
        await run.socket.shows(Lamp.RESEAT)
        run.socket.take()
        await run.socket.shows(Lamp.OFF)
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
        assert await run.held() == {}
    floor.agrees(chip)
