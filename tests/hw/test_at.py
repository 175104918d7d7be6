"""The AT line on its own: echo, unsolicited lines at every place, bytes in any portion, late answers, garbage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.hw.at import BARE_HANDLE, AtLine, GarbledError, RefusedError, RestartedError, SilentError, session_handle
from ifpp.hw.at import card_answer as read_answer

SYNC = [
    ("AT+CMEE?", "\r\n+CMEE: 0\r\n\r\nOK\r\n"),
    ("ATE0", "ATE0\r\r\nOK\r\n"),
    ("AT+CMEE=1", "\r\nOK\r\n"),
    ("AT+CMEE?", "\r\n+CMEE: 1\r\n\r\nOK\r\n"),
]
CGLA = 'AT+CGLA=1,16,"80E2910003BF2E00"'
ANSWER = bytes.fromhex("BF2E128010000102030405060708090A0B0C0D0E0F9000")
LINE = f'+CGLA: 46,"{ANSWER.hex().upper()}"'


class Modem:
    """A scripted stream: asserts every command, plays its answer in portions, and keeps time for the line."""

    def __init__(self, script: list[tuple[str, str]], portion: int = 1 << 20) -> None:
        self.script = list(script)
        self.portion = portion
        self.now_s = 0.0
        self.waiting = b""
        self.urcs: list[str] = []

    def write(self, data: bytes) -> None:
        command, answer = self.script.pop(0)
        assert data == command.encode() + b"\r"
        self.waiting += answer.encode("latin-1")

    def read(self, timeout_s: float) -> bytes:
        taken, self.waiting = self.waiting[: self.portion], self.waiting[self.portion :]
        if not taken:
            self.now_s += timeout_s
        return taken

    def line(self, hear: Callable[[str], bool] | None = None) -> AtLine:
        return AtLine(self, hear or self.hear, lambda: self.now_s)

    def hear(self, line: str) -> bool:
        self.urcs.append(line)
        return line == "RDY"


def ask(answer: str, portion: int = 1 << 20) -> bytes:
    return Modem([*SYNC, (CGLA, answer)], portion).line().ask_card(CGLA, "+CGLA:", 10)


@pytest.mark.parametrize("portion", [1, 2, 3, 5, 17])
def test_bytes_may_come_in_any_portion(portion: int) -> None:
    assert ask(f"\r\n{LINE}\r\n\r\nOK\r\n", portion) == ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        f"{LINE}\r\nOK\r\n",
        f"{CGLA}\r\r\n{LINE}\r\n\r\nOK\r\n",
        f"{CGLA}\r{CGLA}\r\r\n{LINE}\r\n\r\nOK\r\n",
        f"\r\n{LINE.replace(chr(34), '')}\r\n\r\nOK\r\n",
        f"\r\n{LINE.replace(': ', ':')}\r\n\r\nOK\r\n",
        f"\r\n{LINE.lower().replace('+cgla', '+CGLA').replace(',', ' , ')}\r\n\r\nOK\r\n",
    ],
)
def test_echo_spaces_and_missing_quotes_are_taken(answer: str) -> None:
    assert ask(answer) == ANSWER


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    "urc", ['+CREG: 1,"00A1","01B2",7', "RING", '+QIND: "csq",1,99', "+CPIN: READY", "12", "\xff\xfe"]
)
def test_unsolicited_lines_may_stand_anywhere(place: int, urc: str) -> None:
    lines = [CGLA, LINE, "OK"]
    lines.insert(place, urc)
    answer = "".join(f"\r\n{line}\r\n" for line in lines)
    modem = Modem([*SYNC, (CGLA, answer), ("AT", "\r\nOK\r\n")])
    line = modem.line()
    assert line.ask_card(CGLA, "+CGLA:", 10) == ANSWER
    line.ask("AT")
    assert urc in modem.urcs


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("\r\nERROR\r\n", ""),
        ("\r\n+CME ERROR: 13\r\n", "13"),
        ("\r\n+CME ERROR: SIM failure\r\n", "SIM failure"),
        ("\r\nRING\r\n\r\n+CME ERROR:10\r\n", "10"),
        ("\r\nCOMMAND NOT SUPPORT\r\n", ""),
    ],
)
def test_refusals_have_their_reason(answer: str, reason: str) -> None:
    with pytest.raises(RefusedError) as caught:
        ask(answer)
    assert caught.value.reason == reason
    assert "BF2E" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        "\r\nOK\r\n",
        f"\r\n{LINE}\r\n{LINE}\r\n\r\nOK\r\n",
        '\r\n+CGLA: 44,"BF2E9000"\r\n\r\nOK\r\n',
        '\r\n+CGLA: 3,"900"\r\n\r\nOK\r\n',
        '\r\n+CGLA: 4,"90xx"\r\n\r\nOK\r\n',
        '\r\n+CGLA: "9000"\r\n\r\nOK\r\n',
        "x" * (300 * 1024),
    ],
)
def test_what_is_no_answer_is_garbled(answer: str) -> None:
    with pytest.raises(GarbledError):
        ask(answer)


def test_silence_is_told_at_the_deadline_and_a_late_answer_is_never_the_next_commands() -> None:
    late = f"\r\n{LINE}\r\n\r\nOK\r\n"
    modem = Modem([*SYNC, (CGLA, "")])
    line = modem.line()
    with pytest.raises(SilentError):
        line.ask_card(CGLA, "+CGLA:", 240)
    assert modem.now_s == pytest.approx(240)
    assert not line.in_step
    # two probes are queued behind the APDU, then everything is answered at once, and once more out of nowhere
    modem.script = [
        ("AT+CMEE?", ""),
        ("AT+CMEE?", f"{late}\r\n+CMEE: 1\r\n\r\nOK\r\n\r\n+CMEE: 1\r\n\r\nOK\r\n"),
        ("ATE0", "\r\nOK\r\n"),
        ("AT+CMEE=2", "\r\nOK\r\n"),
        ("AT+CMEE?", "\r\n+CMEE: 2\r\n\r\nOK\r\n"),
        (CGLA, '\r\n+CGLA: 4,"6985"\r\n\r\nOK\r\n'),
    ]
    assert line.ask_card(CGLA, "+CGLA:", 10) == bytes.fromhex("6985")
    assert modem.script == []


def test_an_answer_that_comes_between_two_commands_is_thrown_away() -> None:
    modem = Modem([*SYNC, ("AT", "\r\nOK\r\n"), (CGLA, '\r\n+CGLA: 4,"9000"\r\n\r\nOK\r\n')])
    line = modem.line()
    line.ask("AT")
    modem.waiting = f"\r\n{LINE}\r\n\r\nOK\r\n".encode()
    assert line.ask_card(CGLA, "+CGLA:", 10) == bytes.fromhex("9000")


def test_a_modem_that_starts_anew_is_noticed_at_once_and_set_up_again() -> None:
    modem = Modem([*SYNC, (CGLA, "\r\nRDY\r\n")])
    line = modem.line()
    with pytest.raises(RestartedError):
        line.ask_card(CGLA, "+CGLA:", 240)
    assert modem.now_s == 0
    modem.script = [*SYNC, ("AT", "\r\nOK\r\n")]
    line.ask("AT")


def test_nothing_and_garbage_are_told_apart() -> None:
    for answer, heard in (("", False), ("$GPGGA,123519\r\n", True)):
        modem = Modem([("AT+CMEE?", answer)] * 9)
        with pytest.raises(SilentError) as caught:
            modem.line().synchronise(5)
        assert caught.value.heard is heard


@pytest.mark.parametrize(
    ("answer", "handle"),
    [
        ("\r\n+CCHO: 1\r\n", "1"),
        ('\r\n+CCHO: "3"\r\n', "3"),
        ("\r\n+CCHO:000000000385a7cf\r\n", "000000000385a7cf"),
        ("\r\n2\r\n", "2"),
        ("\r\n000000000385a7cf\r\n", "000000000385a7cf"),
    ],
)
def test_session_handles(answer: str, handle: str) -> None:
    modem = Modem([*SYNC, ("AT+CCHO", f"\r\nRING\r\n{answer}\r\nOK\r\n")])
    assert session_handle(modem.line().ask("AT+CCHO", prefix="+CCHO:", bare=BARE_HANDLE), numbered=False) == handle


@pytest.mark.parametrize(
    ("values", "numbered"), [([], False), (["x"], False), (["0"], True), (["20"], True), (["000000000385a7cf"], True)]
)
def test_what_is_no_session_handle(values: list[str], numbered: bool) -> None:
    with pytest.raises(GarbledError):
        session_handle(values, numbered=numbered)


@given(st.lists(st.sampled_from(["\r", "\n", "OK", "ERROR", "+CGLA: ", "4,", '"', "9000", "RDY", "+CME ERROR: ", "x"])))
def test_whatever_comes_ends_in_an_answer_or_a_known_error(pieces: list[str]) -> None:
    modem = Modem([*SYNC, (CGLA, "".join(pieces))])
    with suppress(RefusedError, SilentError, RestartedError, GarbledError):
        assert modem.line().ask_card(CGLA, "+CGLA:", 10) == bytes.fromhex("9000")


def test_an_empty_answer_of_the_card_is_an_answer() -> None:
    assert read_answer('0,""') == b""
