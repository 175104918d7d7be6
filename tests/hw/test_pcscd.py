"""PC/SC ports under a real pcscd with virtual readers: many at once, its death, a card that hangs, another program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.errors import TransportError
from ifpp.fpa.chip import Chip
from ifpp.fpa.load import Verdict
from ifpp.hw import pcsc
from ifpp.hw.owner import Owner
from ifpp.hw.port import CardPort
from ifpp.model.states import PackageState
from ifpp.sim.euicc import Euicc
from tests.fpa.conftest import Case
from tests.hw.ports import KINDS, Rig, loaded, rig_of
from tests.real import pcscd

pytestmark = pytest.mark.needs("pcscd")
PATIENCE_S = 30.0
MID_LOAD_APDUS = 20  # STORE DATA and GET RESPONSE; the package begins behind some dozen


class Head:
    """A port with its owner, and the chip a test seats there."""

    def __init__(self, rig: Rig, name: str, case: Case) -> None:
        self.rig = rig
        self.name = name
        self.case = case
        self.port: CardPort = rig.port(name)
        self.chip = Euicc.load(case.card)
        self.owner = Owner(name, lambda: self.port.deadline_s)

    async def seat(self) -> None:
        """Open the port, with patience for a pcscd that has just been started, and seat a fresh chip."""
        for _ in range(50):
            try:
                await self.owner.call(self.port.open)
                break
            except TransportError:
                await asyncio.sleep(0.1)
        assert await self.owner.call(self.port.wait_removed, PATIENCE_S)
        self.chip = Euicc.load(self.case.card)
        self.rig.seat(self.chip, head=self.name)
        assert await self.owner.call(self.port.wait_seated, PATIENCE_S)

    async def load(self) -> Verdict:
        return await self.owner.call(loaded, self.port, self.case)

    async def close(self) -> None:
        await self.owner.call(self.port.close)
        self.owner.close()


@pytest.fixture
def rig(short_folder: Path) -> Iterator[Rig]:
    with rig_of(KINDS["pcsc"], short_folder, heads=16) as made:
        yield made


def heads_of(rig: Rig, supply: list[Case], number: int) -> list[Head]:
    return [Head(rig, name, case) for name, case in list(zip(rig.slots, supply, strict=True))[:number]]


async def test_sixteen_readers_load_at_once(rig: Rig, supply: list[Case]) -> None:
    heads = heads_of(rig, supply, 16)
    await asyncio.gather(*(head.seat() for head in heads))
    verdicts = await asyncio.gather(*(head.load() for head in heads))
    assert {verdict.state for verdict in verdicts} == {PackageState.INSTALLED}
    await asyncio.gather(*(head.close() for head in heads))


async def test_all_readers_are_listed_by_name(rig: Rig) -> None:
    assert await asyncio.to_thread(pcsc.reader_names) == pcscd.running().readers


async def test_pcscd_killed_in_mid_load_and_started_again(rig: Rig, supply: list[Case]) -> None:
    readers, heads = pcscd.running(), heads_of(rig, supply, 4)
    await asyncio.gather(*(head.seat() for head in heads))
    for head in heads:
        rig.hang(0.03, head.name)
    loads = [asyncio.create_task(head.load()) for head in heads]
    while min(head.chip.apdus for head in heads) < MID_LOAD_APDUS:  # noqa: ASYNC110 - another thread counts them
        await asyncio.sleep(0.005)
    await asyncio.to_thread(readers.kill_pcscd)
    verdicts = await asyncio.gather(*loads)
    for verdict in verdicts:
        assert verdict.state is PackageState.UNKNOWN
        assert verdict.fault is not None
        assert verdict.fault.code in ("HEAD.NO_SERVICE", "HEAD.UNREACHABLE", "CONTACT.LOST")
    with pytest.raises(TransportError) as caught:
        await heads[0].owner.call(heads[0].port.open)
    assert caught.value.code == "HEAD.NO_SERVICE"
    for head in heads:
        rig.unseat(head.name)
        rig.hang(0, head.name)
    readers.start_pcscd()
    await asyncio.gather(*(head.seat() for head in heads))
    assert {(await head.load()).state for head in heads} == {PackageState.INSTALLED}
    await asyncio.gather(*(head.close() for head in heads))


async def test_pcscd_ends_while_a_head_waits_for_a_unit(rig: Rig, supply: list[Case]) -> None:
    (head,) = heads_of(rig, supply, 1)
    await asyncio.gather(head.seat())
    waiting = asyncio.create_task(head.owner.call(head.port.wait_removed, 10.0))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(pcscd.running().kill_pcscd)
    with pytest.raises(TransportError) as caught:
        await waiting
    assert caught.value.code.startswith("HEAD.")
    rig.unseat(head.name)
    pcscd.running().start_pcscd()
    await head.seat()
    assert (await head.load()).state is PackageState.INSTALLED
    await head.close()


async def test_a_hung_card_holds_nobody_but_its_own_head(rig: Rig, supply: list[Case]) -> None:
    hung, *others = heads_of(rig, supply, 3)
    await asyncio.gather(*(head.seat() for head in (hung, *others)))
    chip = Chip(hung.port, apdu_timeout_s=1.0)
    await hung.owner.call(chip.open)
    rig.hang(60, hung.name)
    stuck = asyncio.create_task(hung.owner.call(chip.eid))
    verdicts = [await head.load() for head in others]
    assert {verdict.state for verdict in verdicts} == {PackageState.INSTALLED}
    with pytest.raises(TransportError) as caught:
        await stuck
    assert caught.value.code == "HEAD.HUNG"
    with pytest.raises(TransportError):  # at once, and nothing waits behind the hung call
        await hung.owner.call(chip.eid)
    rig.unseat(hung.name)  # the card side is cut: the call ends, and with it the head's retirement
    rig.hang(0, hung.name)
    while hung.owner.hung:  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.05)
    await hung.seat()
    assert (await hung.load()).state is PackageState.INSTALLED
    await asyncio.gather(*(head.close() for head in (hung, *others)))


async def test_a_pcscd_that_hangs_is_told_as_well(
    rig: Rig, supply: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    (head,) = heads_of(rig, supply, 1)
    await head.seat()
    monkeypatch.setattr(pcsc, "_CALL_S", 0.3)
    pcscd.running().signal(signal.SIGSTOP)
    try:
        with pytest.raises(TransportError) as caught:
            await head.owner.call(head.port.wait_removed, 0.1)
        assert caught.value.code == "HEAD.HUNG"
    finally:
        pcscd.running().signal(signal.SIGCONT)
    while head.owner.hung:  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.05)
    monkeypatch.undo()
    rig.unseat(head.name)
    await head.seat()
    assert (await head.load()).state is PackageState.INSTALLED
    await head.close()


async def test_a_reader_held_by_another_program(rig: Rig, supply: list[Case]) -> None:
    head, other = heads_of(rig, supply, 2)
    await asyncio.gather(head.seat(), other.seat())
    foreign = rig.port(head.name)  # a context of its own: what another program has
    await asyncio.to_thread(foreign.open)
    await asyncio.to_thread(foreign.power_up)
    with pytest.raises(TransportError) as caught:
        await head.owner.call(head.port.power_up)
    assert caught.value.code == "HEAD.IN_USE"
    assert (await other.load()).state is PackageState.INSTALLED
    assert len(await asyncio.to_thread(foreign.transmit, bytes.fromhex("00A4000400"), 1)) >= 2  # not thrown out
    await asyncio.to_thread(foreign.close)
    assert (await head.load()).state is PackageState.INSTALLED
    await asyncio.gather(head.close(), other.close())


async def test_a_reader_that_is_not_there(rig: Rig) -> None:
    port = pcsc.PcscPort("pcsc:ifpp virtual 99 00 00")
    with pytest.raises(TransportError) as caught:
        await asyncio.to_thread(port.open)
    assert caught.value.code == "HEAD.NO_READER"
    assert pcscd.running().readers[15] in caught.value.detail
