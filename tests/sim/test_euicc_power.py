"""T13 and T19: power and channel loss at every APDU of a provisioning, and what may be loaded afterwards."""

from __future__ import annotations

import pytest

from ifpp.sim.euicc import Euicc
from ifpp.sim.profiles import iccid_swapped
from ifpp.sim.tlv import read_integer, tlv
from tests.sim.bench import (
    ICCID,
    Recipe,
    Terminal,
    installed,
    key_states,
    new_bench,
    outcome,
    results,
    segments,
    sequence,
    status,
)

BENCH = new_bench(keys=2)
RECIPE = BENCH.recipe()
PREPARE_APDUS = 3 + 1  # three blocks and one GET RESPONSE
# segment index -> bppCommandId named by the result when power goes after it
COMMANDS = [0, 1, 2, 2, 5, 5, 5, 5]


def fresh() -> Euicc:
    card = Euicc(BENCH.chip.card)
    card.reset()
    return card


def script(card: Euicc, recipe: Recipe = RECIPE) -> list[bytes]:
    """All APDUs of one provisioning without faults, from opening the channel to the last GET RESPONSE."""
    terminal = Terminal(card)
    terminal.ask(recipe.prepare())
    terminal.load(recipe.bpp())
    return terminal.sent


SCRIPT = script(fresh())
LAST_BLOCK = len(SCRIPT) - 2


def first_segment_end() -> int:
    """Index of the APDU with which BF23 is complete."""
    return 2 + PREPARE_APDUS + len(list(Terminal(fresh()).blocks(segments(RECIPE.bpp())[0]))) - 1


def command_at(index: int) -> int:
    """bppCommandId of the last whole segment among the first `index` + 1 APDUs."""
    at = 2 + PREPARE_APDUS - 1
    last = -1
    for number, segment in enumerate(segments(RECIPE.bpp())):
        at += -(-len(segment) // 255)
        if at <= index:
            last = COMMANDS[number]
    return last


def cut_at(index: int, *, executed: bool) -> Euicc:
    """A chip whose power went at APDU `index`, before or after executing it, and came back."""
    card = fresh()
    for apdu in SCRIPT[: index + 1 if executed else index]:
        card.process(apdu)
    card.power_off()
    assert card.process(SCRIPT[index]) == b""
    card.reset()
    return card


def test_the_script_is_what_the_tests_think() -> None:
    assert len(segments(RECIPE.bpp())) == len(COMMANDS)
    assert SCRIPT[LAST_BLOCK][1:3] == b"\xe2\x91"
    assert SCRIPT[-1][1] == 0xC0
    assert first_segment_end() == 2 + PREPARE_APDUS


@pytest.mark.parametrize("executed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("index", range(len(SCRIPT)))
def test_power_cut_at_every_apdu(index: int, executed: bool) -> None:
    """T19: either the whole profile with its result, or none of it; and the same package still leads to the end."""
    card = cut_at(index, executed=executed)
    reached = index if executed else index - 1
    terminal = Terminal(card)
    done = reached >= LAST_BLOCK
    begun = reached >= first_segment_end()
    kept = results(terminal)
    assert installed(terminal) == ([iccid_swapped(ICCID)] if done else [])
    assert [outcome(pir) for pir in kept] == ([None] if done else [(command_at(reached), 11)] if begun else [])
    prepared = reached >= 2 + PREPARE_APDUS - 2
    assert key_states(terminal)[0] == (2 if done else 1 if prepared else 0)
    assert status(terminal)[0] == (1 if done or not prepared else 3 if begun else 2)
    if not done:
        retry_to_the_end(terminal, earlier=len(kept))


def retry_to_the_end(terminal: Terminal, *, earlier: int) -> None:
    """T13: the byte-identical package goes through; the results keep their order."""
    terminal.ask(RECIPE.prepare())
    pir, sw = terminal.load(RECIPE.bpp())
    assert (outcome(pir), sw) == (None, 0x9000)
    assert [sequence(kept) for kept in results(terminal)] == list(range(1, earlier + 2))
    assert installed(terminal) == [iccid_swapped(ICCID)]
    assert key_states(terminal) == [2, 0]


def test_another_package_is_refused_after_an_interrupted_one() -> None:
    """T13: the key waits for the package it has accepted; the refusal costs nothing."""
    card = cut_at(len(SCRIPT) - 5, executed=True)
    terminal = Terminal(card)
    other = BENCH.recipe()
    assert other.bpp() != RECIPE.bpp()
    terminal.ask(other.prepare())
    assert terminal.load(other.bpp()) == (b"", 0x6985)
    assert key_states(terminal)[0] == 1
    retry_to_the_end(terminal, earlier=1)


def test_retry_needs_no_new_preparation() -> None:
    """Reservation, transaction and SM-DPf are kept without power."""
    card = cut_at(len(SCRIPT) - 5, executed=True)
    assert outcome(Terminal(card).load(RECIPE.bpp())[0]) is None


def test_repeated_cuts_leave_one_result_each() -> None:
    card = fresh()
    for expected in (1, 2, 3):
        terminal = Terminal(card)
        terminal.ask(RECIPE.prepare())
        for segment in segments(RECIPE.bpp())[:5]:
            terminal.send(segment)
        card.power_off()
        card.reset()
        assert [sequence(pir) for pir in results(Terminal(card))] == list(range(1, expected + 1))
    retry_to_the_end(Terminal(card), earlier=3)


def test_interruption_is_noted_once() -> None:
    card = cut_at(len(SCRIPT) - 5, executed=True)
    for _ in range(3):
        card.power_off()
        card.reset()
    assert len(results(Terminal(card))) == 1


def test_result_survives_until_it_is_sent() -> None:
    card = cut_at(LAST_BLOCK, executed=True)
    terminal = Terminal(card)
    (pir,) = results(terminal)
    assert read_integer(terminal.ask(bytes.fromhex("bf3003800101")).need(0x80).value) == 0
    assert results(terminal) == []
    assert read_integer(terminal.ask(bytes.fromhex("bf3003800101")).need(0x80).value) == 1
    assert sequence(pir) == 1


@pytest.mark.parametrize("how", ["close", "select", "prepare", "load"])
def test_channel_loss_interrupts_like_power_loss(how: str) -> None:
    """Closing the channel, selecting anew, or starting over on it: (last command, 11), then the same package."""
    card = fresh()
    terminal = Terminal(card)
    terminal.ask(RECIPE.prepare())
    parts = segments(RECIPE.bpp())
    for segment in parts[:6]:
        assert terminal.send(segment) == (b"", 0x9000)
    if how == "close":
        card.process(bytes((0x00, 0x70, 0x80, terminal.channel, 0x00)))
        terminal.open()
    elif how == "select":
        terminal.select()
    elif how == "prepare":
        terminal.ask(RECIPE.prepare())
    else:
        assert terminal.send(parts[0]) == (b"", 0x9000)
    assert [outcome(pir) for pir in results(terminal)] == [(5, 11)]
    if how != "load":
        assert terminal.send(parts[6]) == (b"", 0x6985)
        assert terminal.send(parts[0]) == (b"", 0x9000)
    answers = [terminal.send(segment) for segment in parts[1:]]
    assert outcome(answers[-1][0]) is None


def test_another_channel_closing_disturbs_nothing() -> None:
    card = fresh()
    terminal, other = Terminal(card), Terminal(card)
    terminal.ask(RECIPE.prepare())
    parts = segments(RECIPE.bpp())
    for segment in parts[:6]:
        terminal.send(segment)
    card.process(bytes((0x00, 0x70, 0x80, other.channel, 0x00)))
    answers = [terminal.send(segment) for segment in parts[6:]]
    assert outcome(answers[-1][0]) is None


def test_power_cut_while_a_second_order_runs_leaves_the_first_profile_alone() -> None:
    card = fresh()
    script(card)
    second = BENCH.recipe(slot=1, iccid="8988211900000311930", transaction_id=b"\x0b" * 16)
    terminal = Terminal(card)
    terminal.ask(second.prepare())
    for segment in segments(second.bpp())[:6]:
        terminal.send(segment)
    card.power_off()
    card.reset()
    terminal = Terminal(card)
    assert installed(terminal) == [iccid_swapped(ICCID)]
    assert [outcome(pir) for pir in results(terminal)] == [None, (5, 11)]
    assert key_states(terminal) == [2, 1]
    answer = terminal.ask(tlv(0xBF41, tlv(0x80, b"\x0b" * 16), tlv(0x81, b"\x05")))
    assert answer.first(0xA0) is not None
    assert key_states(terminal) == [2, 2], "its package had begun"
