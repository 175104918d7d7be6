"""Job, chip and packages must speak of the same unit, whatever the store says: else this unit stops and no other."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import msgspec
import pytest

from ifpp.model.messages import Claim, ClaimRequest, UnitRef, UnitResultEvent
from ifpp.model.states import Lamp, PackageState
from ifpp.store.client import StoreClient
from ifpp.store.records import ReceivedEvent, TravellerItem
from tests.station.shop import JOB, Shop, shop, truth, world
from tests.station.test_fit import refused
from tests.station.test_head import CLEAN

__all__ = ["shop", "world"]

change = msgspec.structs.replace


def other_chip(claim: Claim) -> Claim:
    return change(claim, eid=claim.eid[:-1] + str((int(claim.eid[-1]) + 1) % 10))


def other_sku(claim: Claim) -> Claim:
    return change(claim, packages=[change(package, sku="OTHER") for package in claim.packages])


def other_region(claim: Claim) -> Claim:
    return change(claim, packages=[change(package, region="US") for package in claim.packages])


def other_iccid(claim: Claim) -> Claim:
    return change(claim, packages=[change(package, iccid="8949990000000000010") for package in claim.packages])


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (other_chip, "EID.MISMATCH"),
        (other_sku, "BPP.OTHER_PRODUCT"),
        (other_region, "BPP.OTHER_PRODUCT"),
        (other_iccid, "BPP.OTHER_PRODUCT"),
    ],
)
async def test_a_triangle_that_is_none_stops_the_unit(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, lie: Callable[[Claim], Claim], code: str
) -> None:
    chip, honest = shop.chip(), StoreClient.claim

    async def claim(self: StoreClient, request: ClaimRequest) -> Claim:
        return lie(await honest(self, request))

    async with shop.start() as run:
        with monkeypatch.context() as patch:
            patch.setattr(StoreClient, "claim", claim)
            await refused(shop, run, chip, code, Lamp.FAIL)
        assert await run.load(chip) is Lamp.PASS, "the head goes on"
    assert truth(chip) == CLEAN


async def test_the_customer_of_the_job_reaches_the_store(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, honest = [], StoreClient.claim

    async def claim(self: StoreClient, request: ClaimRequest) -> Claim:
        asked.append((request.sku, request.region, request.customer))
        return await honest(self, request)

    monkeypatch.setattr(StoreClient, "claim", claim)
    monkeypatch.setattr("tests.station.shop.JOB", change(JOB, customer="acme"))
    async with shop.start() as run:
        assert await run.load(shop.chip()) is Lamp.PASS
    assert asked == [("TRACKER", "EU", "acme")]


def travellers(shop: Shop, *items: TravellerItem) -> None:
    with shop.factory.intake("traveller", "units.traveller.jsonl", uuid4().hex, shop.clock.now()) as intake:
        for item in items:
            intake.add_traveller(item)


def result_of(events: list[ReceivedEvent]) -> UnitResultEvent:
    (body,) = [event.body for event in events if event.schema.startswith("unit_result")]
    return msgspec.json.decode(body, type=UnitResultEvent)


async def test_a_label_that_is_on_another_unit_stops_this_one(shop: Shop) -> None:
    chip = shop.chip()
    travellers(shop, TravellerItem("SN1", "TRACKER", str(shop.eid())), TravellerItem("SN2", "TRACKER"))
    async with shop.start() as run:
        run.socket.sn = "SN2"
        await refused(shop, run, chip, "UNIT.TRAVELLER", Lamp.FAIL)
        assert shop.state() is PackageState.AVAILABLE
        run.socket.sn = "SN1"
        assert await run.load(chip) is Lamp.PASS, "the head goes on"
        assert result_of(await run.supervise()).unit == UnitRef(sn="SN1", eid=str(shop.eid()))
    assert shop.factory.unit("SN1") == shop.record()


async def test_a_unit_that_is_to_become_something_else_is_stopped(shop: Shop) -> None:
    travellers(shop, TravellerItem("SN1", "OTHER"))
    async with shop.start() as run:
        run.socket.sn = "SN1"
        await refused(shop, run, shop.chip(), "UNIT.TRAVELLER", Lamp.FAIL)


async def test_without_a_scanner_the_chip_says_which_unit_it_is(shop: Shop) -> None:
    travellers(shop, TravellerItem("SN1", "TRACKER", str(shop.eid())))
    async with shop.start() as run:
        assert await run.load(shop.chip()) is Lamp.PASS
        assert result_of(await run.supervise()).unit.sn == "SN1"


async def test_what_a_claim_says_of_the_unit_is_compared_here_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that was made ahead knows nothing of the label."""
    honest = StoreClient.claim

    async def claim(self: StoreClient, request: ClaimRequest) -> Claim:
        return change(await honest(self, request), sn="SN9")

    monkeypatch.setattr(StoreClient, "claim", claim)
    async with shop.start() as run:
        run.socket.sn = "SN1"
        await refused(shop, run, shop.chip(), "UNIT.TRAVELLER", Lamp.FAIL)
    assert shop.state() is PackageState.AVAILABLE


async def test_a_chip_of_another_job_order_is_refused(shop: Shop) -> None:
    with shop.factory.intake("job", "other.job.json", uuid4().hex, shop.clock.now()) as intake:
        intake.add_job("L1", change(JOB, job_order_id="JO-2"))
    shop.factory.reserve("JO-2", [str(shop.eid())], "Eve", "as agreed", shop.clock.now())
    async with shop.start() as run:
        await refused(shop, run, shop.chip(), "BPP.RESERVED", Lamp.FAIL)
    assert shop.state() is PackageState.AVAILABLE
