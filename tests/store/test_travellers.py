"""What the MES says of a unit must agree with its chip and its packages; on SQLite and on PostgreSQL."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ifpp.errors import IntakeError
from ifpp.store.factory import Factory
from ifpp.store.records import TravellerItem
from tests.clock import START
from tests.store.raw import REFUSALS, raw
from tests.store.world import SKU, eid, later, refusal, request, states, stock


def take_in(factory: Factory, *items: TravellerItem) -> None:
    with factory.intake("traveller", "units.traveller.jsonl", uuid4().hex, START) as intake:
        for item in items:
            intake.add_traveller(item)


def traveller(sn: str, number: int = 0, sku: str = SKU, job: str = "JO-1") -> TravellerItem:
    return TravellerItem(sn, sku, str(eid(number)) if number else "", job)


@pytest.fixture(autouse=True)
def packages(factory: Factory) -> None:
    stock(factory, 3)


def test_a_unit_that_agrees_gets_its_packages(factory: Factory) -> None:
    take_in(factory, traveller("SN1", 1), traveller("SN2"))
    assert factory.batches()[-1].travellers == 2
    claim = factory.claim(request(1, sn="SN1", job_order_id="JO-1"), START)
    assert (len(claim.packages), claim.sn) == (1, "SN1")
    assert factory.claim(request(2, sn="SN2", job_order_id="JO-1"), START).sn == "SN2"


def test_the_chip_tells_the_serial_number_where_nobody_reads_it(factory: Factory) -> None:
    take_in(factory, traveller("SN1", 1))
    assert factory.claim(request(1), START).sn == "SN1"
    assert factory.claim(request(2), START).sn == ""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ([traveller("SN1", 2)], "the traveller of SN1 says the chip is"),
        ([traveller("SN1", sku="OTHER")], "says the SKU is OTHER, here it is TRACKER-2"),
        ([traveller("SN1", job="JO-7")], "says the job order is JO-7, here it is JO-1"),
        ([traveller("SN1"), traveller("SN2", 1)], "the traveller of SN2 says the serial number is SN2, here it is SN1"),
        ([traveller("SN2", 1, sku="OTHER")], "the traveller of SN2 says the SKU is OTHER"),
    ],
)
def test_a_unit_that_does_not_agree_gets_nothing(factory: Factory, known: list[TravellerItem], said: str) -> None:
    take_in(factory, *known)
    error = refusal(factory, request(1, sn="SN1", job_order_id="JO-1"))
    assert error.code == "UNIT.TRAVELLER"
    assert said in error.detail
    assert states(factory, 1) == ["AVAILABLE"]


def test_one_chip_is_in_one_unit(factory: Factory) -> None:
    take_in(factory, traveller("SN1", 1))
    take_in(factory, traveller("SN2", 1))
    error = refusal(factory, request(1))
    assert (error.code, error.detail) == ("UNIT.TRAVELLER", "the travellers of SN1, SN2 name one chip")


def test_the_newest_word_on_a_serial_number_counts(factory: Factory) -> None:
    take_in(factory, traveller("SN1", 2, sku="OTHER"))
    assert refusal(factory, request(1, sn="SN1")).code == "UNIT.TRAVELLER"
    take_in(factory, traveller("SN1", 1))
    assert factory.claim(request(1, sn="SN1"), START).sn == "SN1"
    assert factory.claim(request(2), later(1)).sn == "", "it is not in that unit any more"


def test_a_serial_number_the_job_does_not_know(factory: Factory) -> None:
    take_in(factory, traveller("SN1", 1))
    assert refusal(factory, request(2, sn="SN2", job_order_id="JO-1")).code == "UNIT.NO_TRAVELLER"
    assert factory.claim(request(2, sn="SN2", job_order_id="JO-2"), START).sn == "SN2", "a job without travellers"


def test_a_serial_number_stands_once_in_a_file(factory: Factory) -> None:
    with pytest.raises(IntakeError) as caught:
        take_in(factory, traveller("SN1", 1), traveller("SN1", 2), TravellerItem("S\0", SKU))
    assert [item.code for item in caught.value.items] == ["INTAKE.DUPLICATE", "INTAKE.FORMAT"]
    assert factory.claim(request(1), START).sn == ""


def test_travellers_are_history(factory: Factory, url: str) -> None:
    take_in(factory, traveller("SN1", 1))
    with pytest.raises(REFUSALS, match="neither changed nor deleted"), raw(url) as connection:
        connection.execute("UPDATE traveller SET sku = 'OTHER'")


@pytest.mark.parametrize("sn", ["' OR 1=1 --", "../../etc/passwd", "%", "SN_"])
def test_tricks_are_only_texts(factory: Factory, sn: str) -> None:
    take_in(factory, traveller("SN1", 1, job="JO-1"))
    assert refusal(factory, request(2, sn=sn, job_order_id="JO-1")).code == "UNIT.NO_TRAVELLER"
    assert refusal(factory, request(1, sn=sn)).code == "UNIT.TRAVELLER"
