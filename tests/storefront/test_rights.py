"""What a station may not have: refused with its code over HTTP, in the audit log, nothing changed."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from ifpp.errors import SupplyError
from ifpp.store.client import StoreClient
from ifpp.store.factory import Factory
from ifpp.store.records import TravellerItem
from tests.clock import START, FakeClock
from tests.store.world import add_job, eid, request, states, stock
from tests.storefront.conftest import serving


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"job_order_id": "JO-2"}, "BPP.RESERVED"),
        ({}, "BPP.RESERVED"),
        ({"job_order_id": "JO-3"}, "JOB.OTHER_STATION"),
        ({"job_order_id": "JO-1", "sn": "SN2"}, "UNIT.TRAVELLER"),
        ({"job_order_id": "JO-1", "sn": "SN3"}, "UNIT.TRAVELLER"),
    ],
)
async def test_it_is_refused_and_on_record(
    factory: Factory, clock: FakeClock, asked: dict[str, Any], code: str
) -> None:
    stock(factory, 1)
    for job, stations in (("JO-1", []), ("JO-2", []), ("JO-3", ["st02"])):
        add_job(factory, job_order_id=job, stations=stations)
    factory.reserve("JO-1", [str(eid(1))], "Eve", "as agreed", START)
    with factory.intake("traveller", "units", uuid4().hex, START) as intake:
        intake.add_traveller(TravellerItem("SN1", "TRACKER-2", str(eid(1))))
        intake.add_traveller(TravellerItem("SN2", "OTHER"))
    async with serving(factory, clock) as url, StoreClient(url, timeout_s=30) as client:
        with pytest.raises(SupplyError) as caught:
            await client.claim(request(1, **asked))
        assert caught.value.code == code
        assert states(factory, 1) == ["AVAILABLE"]
        assert (await client.claim(request(1, job_order_id="JO-1", sn="SN1"))).sn == "SN1"
    with factory.audit_log() as log:
        (entry,) = (entry for entry in log.entries("factory", 0, 1000) if entry.kind == "refused")
    assert json.loads(entry.facts)["code"] == code
    assert factory.audit() == []
