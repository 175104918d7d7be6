"""Heads over real card ports: a reader that hangs, a pcscd that dies, a unit pulled in every phase of its work."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ifpp.errors import TransportError
from ifpp.model.messages import UnitResultEvent
from ifpp.model.states import Lamp, PackageState, Phase
from ifpp.sim.slots import Cut
from tests.hw.ports import KINDS, Rig, rig_of
from tests.real import pcscd
from tests.station.shop import BPP_TAG, PATIENCE_S, Run, Shop, Socket, shop, truth, world

__all__ = ["shop", "world"]

CLEAN = (1, 0, True)
VERDICTS = (Lamp.PASS, Lamp.FAIL, Lamp.RESEAT, Lamp.HOLD)


@pytest.fixture
def readers() -> Iterator[Rig]:
    """Two virtual PC/SC readers that pcscd has seen empty."""
    with tempfile.TemporaryDirectory(prefix="ifpp-") as name, rig_of(KINDS["pcsc"], Path(name), heads=2) as rig:
        for head in rig.slots:
            port = rig.port(head)
            port.open()
            assert port.wait_removed(rig.kind.patience_s)
            port.close()
        yield rig


async def until(shop: Shop, condition: Callable[[], bool]) -> None:
    """Wait for something, and let the station's time go on meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            shop.clock.advance(0.5)
            await asyncio.sleep(0.02)


class Hanging:
    """Lets a socket hang at the first block of a package until it is released, like a reader nothing can wake."""

    def __init__(self, socket: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.released = threading.Event()
        self._socket = socket
        self._transmit = socket.transmit
        monkeypatch.setattr(socket, "transmit", self._hang)

    def _hang(self, apdu: bytes, timeout_s: float) -> bytes:
        if self.released.is_set() or apdu[5:7] != BPP_TAG:
            return self._transmit(apdu, timeout_s)
        self._socket.deadline_s = time.monotonic() + 0.05
        self.released.wait(PATIENCE_S)
        self._socket.deadline_s = None
        raise TransportError("APDU.TIMEOUT", "too late", where=self._socket.url)


async def test_a_head_that_hangs_is_retired_and_the_others_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    chip, other_chip = shop.chip(), shop.chip(1)
    async with shop.start(heads=2) as run:
        stuck, other = run.sockets
        hanging = Hanging(stuck, monkeypatch)
        stuck.seat(chip)
        assert await stuck.shows(*VERDICTS) is Lamp.RESEAT
        await until(shop, lambda: run.board.rows["h01"].phase is Phase.RETIRED)
        assert [code for result in await results(run) for code in result] == ["HEAD.HUNG"]
        assert shop.state() is PackageState.UNKNOWN
        other.seat(other_chip)
        assert await other.shows(*VERDICTS) is Lamp.PASS
        stuck.take()
        hanging.released.set()
        await until(shop, lambda: run.board.rows["h01"].phase is Phase.EMPTY)
        assert stuck.wait_removed(0)  # nobody has asked for that removal while the head hung
        assert await run.load(chip) is Lamp.PASS
        await run.supervise()
    assert truth(chip) == truth(other_chip) == CLEAN
    assert shop.state() is PackageState.INSTALLED


async def test_a_station_stops_although_a_head_hangs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop.start() as run:
        hanging = Hanging(run.socket, monkeypatch)
        run.socket.seat(shop.chip())
        await run.socket.shows(Lamp.RESEAT)
        run.stopping.set()
        shop.clock.advance(5)
    hanging.released.set()


@pytest.mark.needs("pcscd")
@pytest.mark.parametrize("apdu", [2, 9, 20, 27, 36])  # selecting, reading, loading twice, sealing
async def test_a_unit_pulled_in_any_phase_passes_when_it_is_seated_again(shop: Shop, readers: Rig, apdu: int) -> None:
    chip = shop.chip()
    async with shop.start(ports={"h01": readers.url()}) as run:
        row = run.board.rows["h01"]
        await until(shop, lambda: row.phase is Phase.EMPTY)
        readers.seat(chip, Cut(apdu, executed=True))
        await until(shop, lambda: row.ng == 1 and row.phase is Phase.EMPTY)
        readers.seat(chip)
        await until(shop, lambda: row.ok == 1)
        await run.supervise()
    assert truth(chip) == CLEAN
    assert shop.state() is PackageState.INSTALLED


@pytest.mark.needs("pcscd")
async def test_pcscd_killed_in_mid_load_costs_a_reseat(shop: Shop, readers: Rig) -> None:
    chips = [shop.chip(0), shop.chip(1)]
    async with shop.start(ports={head: readers.url(head) for head in ("h01", "h02")}) as run:
        rows = [run.board.rows[head] for head in ("h01", "h02")]
        await until(shop, lambda: all(row.phase is Phase.EMPTY for row in rows))
        for head, chip in zip(readers.slots, chips, strict=True):
            readers.hang(0.03, head)
            readers.seat(chip, head=head)
        await until(shop, lambda: all(row.phase is Phase.LOADING for row in rows))
        pcscd.running().kill_pcscd()
        await until(shop, lambda: all(row.ng == 1 and row.phase is Phase.RETIRED for row in rows))
        for head in readers.slots:
            readers.unseat(head)
            readers.hang(0, head)
        pcscd.running().start_pcscd()
        await until(shop, lambda: all(row.phase is Phase.EMPTY for row in rows))
        for head, chip in zip(readers.slots, chips, strict=True):
            readers.seat(chip, head=head)
        await until(shop, lambda: all(row.ok == 1 for row in rows))
        await run.supervise()
    assert [truth(chip) for chip in chips] == [CLEAN, CLEAN]
    assert {shop.state(0), shop.state(1)} == {PackageState.INSTALLED}


async def results(run: Run) -> list[list[str]]:
    """The defect codes of every unit result since the last time."""
    events = await run.supervise()
    told = [event.body for event in events if event.schema.startswith("unit_result/")]
    return [[defect.code for defect in msgspec.json.decode(body, type=UnitResultEvent).defects] for body in told]
