"""Job, chip and packages must speak of the same unit, whatever the store says: else this unit stops and no other."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from ifpp.model.messages import Claim, ClaimRequest
from ifpp.model.states import Lamp
from ifpp.store.client import StoreClient
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
