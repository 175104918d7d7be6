"""Serial numbers people scan: each is for one free head and one unit, and what is doubtful is refused."""

from __future__ import annotations

import pytest

from ifpp.errors import SettingsError, SupplyError
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.model.states import Phase
from ifpp.sim.euicc.card import Euicc
from ifpp.station.board import CODE_REGULAR_WORK, Board
from ifpp.station.serials import SCAN_HOLDS_S, ScannedSerials
from tests.clock import FakeClock
from tests.memory_port import MemoryPort


class Fixture:
    """A fixture whose scanner reads `label`."""

    label = ""

    async def seated(self, head_id: str, port: CardPort, owner: Owner) -> str:
        return self.label


class Station:
    def __init__(self) -> None:
        self.clock, self.fixture = FakeClock(), Fixture()
        self.board = Board("st01", "b", self.clock)
        for head_id in ("h01", "h02"):
            self.board.add(head_id)
        self.serials = ScannedSerials(self.board, self.clock, self.fixture)

    async def seat(self, head_id: str = "h01") -> str:
        port = MemoryPort(Euicc.__new__(Euicc))  # nobody asks the chip
        return await self.serials.seated(head_id, port, Owner(head_id))


@pytest.fixture
def station() -> Station:
    return Station()


async def test_a_scan_is_for_one_head_and_one_unit(station: Station) -> None:
    assert station.serials.scan("h01", " SN1\r") == "unit SN1 goes into head h01"
    assert await station.seat("h02") == ""
    assert await station.seat("h01") == "SN1"
    assert await station.seat("h01") == ""


@pytest.mark.parametrize("nothing", ["", "  \r\n", "S\x00N", "S" * 65])
def test_what_names_no_unit_is_refused(station: Station, nothing: str) -> None:
    with pytest.raises(SettingsError, match=r"UNIT\.SCAN"):
        station.serials.scan("h01", nothing)


def test_no_head_or_one_at_work_takes_no_scan(station: Station) -> None:
    with pytest.raises(SettingsError, match="no head is chosen"):
        station.serials.scan("", "SN1")
    station.board.enter("h01", Phase.LOADING, CODE_REGULAR_WORK)
    with pytest.raises(SettingsError, match="not free"):
        station.serials.scan("h01", "SN1")


def test_one_unit_cannot_be_in_two_heads(station: Station) -> None:
    station.serials.scan("h01", "SN1")
    for head_id, why in (("h01", "already"), ("h02", "scanned for head h01")):
        with pytest.raises(SettingsError, match=why):
            station.serials.scan(head_id, "SN1")
    station.board.seat("h01", "8" * 32, "SN2")
    with pytest.raises(SettingsError, match="is in head h01"):
        station.serials.scan("h02", "SN2")


async def test_a_wrong_scan_is_mended_by_the_next_one(station: Station) -> None:
    station.serials.scan("h01", "SN1")
    station.serials.scan("h01", "SN2")
    assert await station.seat() == "SN2"


async def test_an_old_scan_is_for_nobody(station: Station) -> None:
    station.serials.scan("h01", "SN1")
    station.clock.advance(SCAN_HOLDS_S + 1)
    assert await station.seat() == ""
    station.serials.scan("h02", "SN1")


async def test_label_and_scan_must_agree(station: Station) -> None:
    station.fixture.label = "SN1"
    assert await station.seat() == "SN1"
    station.serials.scan("h01", "SN1")
    assert await station.seat() == "SN1"
    station.serials.scan("h01", "SN2")
    with pytest.raises(SupplyError, match=r"UNIT\.TRAVELLER"):
        await station.seat()
    assert await station.seat() == "SN1", "the next unit is judged anew"
