"""Blocks become smaller where the link asks for it, before a load and never inside one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ifpp.errors import CardError, TransportError
from ifpp.fpa.chip import Chip
from ifpp.fpa.link import card_type, read_link, smaller
from ifpp.fpa.load import Verdict, load, prepare
from ifpp.fpa.settle import settle
from ifpp.hw.tcp import TcpPort
from ifpp.model.ids import Eid
from ifpp.model.states import PackageState
from ifpp.sim.euicc.card import BlockLimit
from ifpp.sim.slots import Slot, SlotServer
from ifpp.wire.bpp import apdu_floor
from tests.fpa.conftest import Case

Make = Callable[..., list[Case]]
EID = Eid("89049032123451234512345678901235")


def opened(case: Case, limit: BlockLimit | None) -> Chip:
    port = case.port()
    port.chip.limit = limit
    chip = Chip(port)
    chip.open()
    assert chip.eid() == case.order.eid
    return chip


@pytest.mark.parametrize("sw", [0x6700, 0x6601, 0])
@pytest.mark.parametrize(("carried", "used"), [(255, 255), (254, 240), (240, 240), (239, 120), (100, 64), (64, 64)])
def test_prepare_finds_the_blocks_the_link_carries(make_cases: Make, sw: int, carried: int, used: int) -> None:
    (case,) = make_cases()
    chip = opened(case, BlockLimit(carried, sw))
    prepare(chip, case.order)
    assert chip.block_size == used
    before = chip.apdus
    verdict = load(chip, case.order, case.key)
    assert verdict.state is PackageState.INSTALLED
    prepared = apdu_floor((), len(case.order.prepare.raw), used) - 1
    assert chip.apdus - before == apdu_floor(case.order.bpp.segments, len(case.order.prepare.raw), used) - prepared


@pytest.mark.parametrize("sw", [0x6700, 0x6601, 0])
def test_a_link_that_carries_nothing_useful_is_given_up(make_cases: Make, sw: int) -> None:
    (case,) = make_cases()
    chip = opened(case, BlockLimit(63, sw))
    with pytest.raises(CardError) as caught:
        prepare(chip, case.order)
    assert caught.value.code == ("EUICC.STATUS_WORD" if sw else "APDU.TIMEOUT")
    assert chip.block_size == 64


def test_another_refusal_is_not_the_blocks_fault(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case, BlockLimit(120, 0x6982))
    with pytest.raises(CardError, match="6982"):
        prepare(chip, case.order)
    assert chip.block_size == 255


def test_a_chip_that_is_gone_is_not_asked_again(make_cases: Make) -> None:
    (case,) = make_cases()
    chip = opened(case, None)
    port = chip.port
    port.pull_at = len(port.sent) + 1  # type: ignore[attr-defined]
    with pytest.raises(TransportError, match=r"CONTACT\.LOST|pulled"):
        prepare(chip, case.order)
    assert chip.block_size == 255


@pytest.mark.parametrize("sw", [0x6700, 0x6601, 0])
def test_inside_a_load_nothing_is_sent_again(make_cases: Make, sw: int) -> None:
    (case,) = make_cases()
    chip = opened(case, None)
    port = chip.port
    prepare(chip, case.order)
    sent = len(port.sent)  # type: ignore[attr-defined]
    port.chip.limit = BlockLimit(120, sw)  # type: ignore[attr-defined]
    verdict = load(chip, case.order, case.key)
    assert verdict.state is PackageState.UNKNOWN
    assert len(port.sent) == sent + 1, "the first long block, and then nothing"  # type: ignore[attr-defined]
    assert chip.block_size == 255
    chip.open()
    settled = settle(chip, case.order, case.otk_id, case.key)
    assert (settled.state, settled.spent) == (PackageState.FAILED, False)


async def test_silence_over_a_socket_is_overcome_too(make_cases: Make) -> None:
    (case,) = make_cases()
    slot = Slot("h01")
    server = SlotServer({"h01": slot})
    await server.start()
    card = case.port().chip
    card.limit = BlockLimit(130, 0)
    slot.seat(card)
    port = TcpPort(server.urls["h01"])
    chip = Chip(port, load_apdu_timeout_s=0.5)

    def provision() -> Verdict:
        port.open()
        chip.open()
        prepare(chip, case.order)
        return load(chip, case.order, case.key)

    verdict = await asyncio.wait_for(asyncio.to_thread(provision), 60)
    port.close()
    server.stop()
    assert (verdict.state, chip.block_size) == (PackageState.INSTALLED, 120)


def test_what_is_known_of_a_link() -> None:
    fast = read_link(bytes.fromhex("3B9F96801FC3"), 4_000_000)
    assert (fast.protocol, fast.bit_rate) == ("T=0", 250_000)
    modem = read_link(b"", 4_000_000)
    assert (modem.protocol, modem.bit_rate) == ("", None)
    assert card_type(b"\x3b\x00", EID) == "3b00"
    assert card_type(b"", EID) == "EUM 89049032"
    assert [smaller(size) for size in (255, 200, 120, 64)] == [240, 120, 64, None]
