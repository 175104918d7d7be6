"""The card side of the virtual eUICC: ATR, class bytes, channels, SELECT, STORE DATA chains, GET RESPONSE."""

from __future__ import annotations

from functools import reduce
from operator import xor
from pathlib import Path

import pytest

from ifpp.sim import card_file
from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.card import ATR
from ifpp.sim.tlv import parse_one
from tests.sim.bench import ISDR, Terminal, installed, key_states, new_bench, outcome, results, status

OPEN = bytes.fromhex("0070000001")
GET_EID = bytes.fromhex("bf3e035c015a")
SELECT = bytes.fromhex("00a4040010") + ISDR
OK = b"\x90\x00"


@pytest.fixture
def card() -> Euicc:
    """A powered chip with the ISD-R selected on channel 1."""
    return new_bench().card


def sw(answer: bytes) -> str:
    return answer.hex()[-4:]


def test_atr_is_whole_and_its_check_byte_right() -> None:
    historical = ATR[1] & 0x0F
    assert ATR[:7] == bytes.fromhex("3b9f96801fc780"), "TA1 96, T=0, T=15 global bytes, category 80"
    assert len(ATR) == 6 + historical + 1
    assert reduce(xor, ATR[1:]) == 0


def test_without_power_there_is_silence() -> None:
    card = Euicc(new_bench().chip.card)
    assert card.process(OPEN) == b""
    assert card.reset() == ATR
    assert card.process(OPEN) == b"\x01\x90\x00"
    card.power_off()
    assert card.process(OPEN) == b""


@pytest.mark.parametrize(
    ("apdu", "expected"),
    [
        ("00", "6700"),
        ("007000", "6700"),
        ("0c70000001", "6e00"),
        ("1070000001", "6e00"),
        ("6070000001", "6e00"),
        ("ff70000001", "6e00"),
        ("0170000001", "6881"),
        ("4070000001", "6881"),
        ("00b0000000", "6d00"),
        ("8010000000", "6d00"),
        ("00a4000c023f00", "6a86"),
        ("00a4040010a0000005591010ffffffff8900000200", "6a82"),
        ("00a4040010a000", "6700"),
        ("80e2910006bf3e035c015a", "6d00"),
        ("00c0000010", "6985"),
        ("80aa00000aa9088100820101830107", "9000"),
        ("80aa0000", "6700"),
    ],
)
def test_status_words_of_the_card_manager(apdu: str, expected: str) -> None:
    card = Euicc(new_bench().chip.card)
    card.reset()
    assert sw(card.process(bytes.fromhex(apdu))) == expected


def test_every_channel_answers_under_its_class_byte(card: Euicc) -> None:
    """T24: 1 to 3 in the low bits, 4 to 19 in the second form; the twentieth is refused."""
    numbers = [1]
    numbers += [card.process(OPEN)[0] for _ in range(18)]
    assert numbers == list(range(1, 20))
    assert sw(card.process(OPEN)) == "6a81"
    for number in range(20):
        terminal = Terminal(card, channel=number)
        assert sw(terminal.select())[:2] == "61"
        assert terminal.ask(GET_EID).need(0x5A).value == card.chip.eid16
    assert Terminal(card, channel=4).cla(0x80) == 0xC0
    assert Terminal(card, channel=19).cla(0x00) == 0x4F


def test_get_response_takes_both_class_forms(card: Euicc) -> None:
    terminal = Terminal(card)
    for cla in (terminal.channel, 0x80 | terminal.channel):
        answer = next(card.process(apdu) for apdu in terminal.blocks(GET_EID))
        assert sw(card.process(bytes((cla, 0xC0, 0, 0, answer[1])))) == "9000"


def test_channels_open_by_number_and_close(card: Euicc) -> None:
    assert card.process(bytes.fromhex("0070000500")) == OK
    assert sw(card.process(bytes.fromhex("0070000500"))) == "6881"
    assert card.process(bytes.fromhex("0070800500")) == OK
    assert sw(card.process(bytes.fromhex("0070800500"))) == "6881"
    assert sw(card.process(bytes.fromhex("0070800000"))) == "6a86"
    assert sw(card.process(bytes.fromhex("0070001400"))) == "6a86"
    assert sw(card.process(bytes.fromhex("0070000000"))) == "6c01"


def test_selection_ends_with_the_channel(card: Euicc) -> None:
    terminal = Terminal(card)
    card.process(bytes((0, 0x70, 0x80, terminal.channel, 0)))
    assert card.process(OPEN)[0] == terminal.channel
    assert terminal.send(GET_EID) == (b"", 0x6D00)


def test_select_answers_the_template_of_the_isdr(card: Euicc) -> None:
    answer = card.process(SELECT)
    assert answer[0] == 0x61
    data, word = Terminal(card, channel=0).fetch(answer)
    assert word == 0x9000
    assert parse_one(data, 0x6F).need(0x84).value == ISDR
    assert card.process(SELECT[:3] + b"\x0c" + SELECT[4:]) == OK, "P2 0C asks for no data"


@pytest.mark.parametrize("block", [1, 7, 60, 120, 255])
def test_a_command_may_come_in_blocks_of_any_size(card: Euicc, block: int) -> None:
    terminal = Terminal(card, block=block)
    assert terminal.ask(GET_EID).need(0x5A).value == card.chip.eid16


# all on channel 1, where the ISD-R is selected
@pytest.mark.parametrize(
    ("apdus", "expected"),
    [
        (["81e2910106bf3e035c015a"], "6a86"),
        (["81e2110003bf3e03", "81e29102035c015a"], "6a86"),
        (["81e2110003bf3e03", "81e29101035c015a"], "6115"),
        (["81e2110003bf3e03", "81e2910006bf3e035c015a"], "6115"),
        (["81e2510006bf3e035c015a"], "6a86"),
        (["81e2910006bf3e035c01"], "6700"),
        (["81e2910005bf3e035c015a"], "6a80"),
        (["81e2910007bf3e035c015a00"], "6a80"),
        (["81e2910000"], "6700"),
        (["81e29100"], "6700"),
        (["01e2910006bf3e035c015a"], "6e00"),
        (["81e2910006bf3e035c015a00"], "6115"),
        (["81e2910002bf3e"], "6a80"),
        (["81e2910003bf7a00"], "6a88"),
        (["81e29100015a"], "6a80"),
    ],
)
def test_block_rules(card: Euicc, apdus: list[str], expected: str) -> None:
    answers = [card.process(bytes.fromhex(apdu)) for apdu in apdus]
    assert sw(answers[-1]) == expected


def test_a_wrong_block_number_forgets_the_chain(card: Euicc) -> None:
    card.process(bytes.fromhex("81e2110003bf3e03"))
    assert sw(card.process(bytes.fromhex("81e29102035c015a"))) == "6a86"
    assert sw(card.process(bytes.fromhex("81e29101035c015a"))) == "6a86"


def test_an_endless_chain_is_cut(card: Euicc) -> None:
    answers = [card.process(bytes((0x81, 0xE2, 0x11, number, 255)) + bytes(255)) for number in range(70)]
    assert sw(answers[0]) == "9000"
    assert "6a84" in map(sw, answers)


def test_answers_wait_for_get_response(card: Euicc) -> None:
    assert sw(card.process(next(Terminal(card, channel=1).blocks(GET_EID)))) == "6115"
    assert sw(card.process(bytes.fromhex("01c0000000"))) == "6c15", "Le 00 asks for 256"
    first = card.process(bytes.fromhex("01c0000005"))
    assert sw(first) == "6110"
    rest = card.process(bytes.fromhex("01c0000010"))
    assert sw(rest) == "9000"
    assert first[:-2] + rest[:-2] == bytes.fromhex("bf3e125a10") + card.chip.eid16
    assert sw(card.process(bytes.fromhex("01c0000001"))) == "6985", "fetched once is gone"


@pytest.mark.parametrize("between", ["0070000001", "80aa00000aa9088100820101830107", "02c0000015", "81e2110001bf"])
def test_a_waiting_answer_does_not_survive_another_command(card: Euicc, between: str) -> None:
    card.process(OPEN)
    assert sw(card.process(next(Terminal(card, channel=1).blocks(GET_EID)))) == "6115"
    card.process(bytes.fromhex(between))
    assert sw(card.process(bytes.fromhex("01c0000015"))) == "6985"


def test_long_answers_come_in_rounds_of_256() -> None:
    bench = new_bench(keys=10)
    answer = bench.card.process(next(bench.terminal.blocks(bytes.fromhex("f902a100"))))
    assert answer == b"\x61\x00"
    rounds = 0
    data = b""
    while answer[-2] == 0x61:
        answer = bench.card.process(bytes((bench.terminal.channel, 0xC0, 0, 0, answer[-1])))
        data += answer[:-2]
        rounds += 1
    assert rounds == len(data) // 256 + 1 == 5
    assert len(parse_one(data, 0xF9).need(0xA1).need(0x30).need(0xA2).children()) == 10


def test_counts_from_prepare_download_to_the_result() -> None:
    """What the demo compares with the protocol's minimum: nothing before and nothing after counts."""
    bench = new_bench()
    recipe = bench.recipe()
    status(bench.terminal)
    before = len(bench.terminal.sent)
    bench.provision(recipe)
    assert bench.card.load_apdus == [len(bench.terminal.sent) - before]
    results(bench.terminal)
    assert len(bench.card.load_apdus) == 1


def test_a_card_file_keeps_everything(tmp_path: Path) -> None:
    """Save after a load, with one key used, one reserved and one free: the loaded chip is the same chip."""
    bench = new_bench()
    path = card_file.save(bench.chip.card, tmp_path)
    assert bench.provision(bench.recipe())[1] == 0x9000
    bench.terminal.ask(bench.recipe(slot=1, transaction_id=b"\x01" * 16).prepare())
    bench.card.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    card = Euicc.load(path)
    assert card.nvm == bench.card.nvm
    card.reset()
    terminal = Terminal(card)
    assert installed(terminal) == installed(bench.terminal)
    assert results(terminal) == results(bench.terminal)
    assert status(terminal) == (2, 2)
    assert key_states(terminal) == [2, 1, 0]


def test_a_saved_chip_has_lost_its_spent_keys(tmp_path: Path) -> None:
    bench = new_bench()
    path = card_file.save(bench.chip.card, tmp_path)
    bench.provision(bench.recipe())
    bench.card.save(path)
    privates = [key.private for key in card_file.load(path).one_time_keys]
    assert privates[0] == b""
    assert all(len(private) == 32 for private in privates[1:])
    assert bench.chip.card.one_time_keys[0].private.hex() not in path.read_text()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench()
    path = card_file.save(bench.chip.card, tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(card_file, "write_private", full)
    with pytest.raises(OSError, match="no space"):
        bench.card.save(path)
    assert path.read_bytes() == before


def test_secrets_do_not_show() -> None:
    bench = new_bench()
    secret = bench.chip.card.euicc_private
    text = repr(bench.card) + repr(bench.card.nvm) + repr(bench.chip.card) + str(vars(bench.card.chip))
    assert secret.hex() not in text
    assert str(secret) not in text


def test_the_bench_is_sound() -> None:
    """The sound package of the bench installs: what the other tests bend is straight."""
    bench = new_bench()
    pir, word = bench.provision(bench.recipe())
    assert (outcome(pir), word) == (None, 0x9000)
