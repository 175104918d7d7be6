"""The PC/SC port against a scripted library: every code of pcscd, exact calls, and bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ifpp.errors import Blame, SettingsError, TransportError
from ifpp.hw import pcsc
from ifpp.hw.pcsc import PcscPort
from ifpp.hw.port import make_port

NAME = "Reader [Maker 3000] 00 00"
ATR = [0x3B, 0x00]
EMPTY, PRESENT, CHANGED = 0x10, 0x20, 0x02


class Library:
    """pyscard's lowest layer as far as a port uses it; `says` replaces the answer of a function."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.says: dict[str, Any] = {}
        self.state = PRESENT | 0x1_0000

    def __getattr__(self, name: str) -> Any:
        if name.isupper() or not name.startswith("SCard"):
            return {
                "SCARD_SCOPE_SYSTEM": 2,
                "SCARD_SHARE_EXCLUSIVE": 1,
                "SCARD_PROTOCOL_T0": 1,
                "SCARD_PROTOCOL_T1": 2,
                "SCARD_UNPOWER_CARD": 2,
                "SCARD_LEAVE_CARD": 0,
                "SCARD_STATE_CHANGED": CHANGED,
                "SCARD_STATE_PRESENT": PRESENT,
                "SCARD_STATE_UNKNOWN": 4,
                "SCARD_STATE_UNAVAILABLE": 8,
            }[name]
        return self._function(name)

    def _function(self, name: str) -> Callable[..., Any]:
        defaults: dict[str, Any] = {
            "SCardEstablishContext": [0, 77],
            "SCardListReaders": [0, ["Other", NAME]],
            "SCardGetStatusChange": [0, [(NAME, self.state | CHANGED, ATR)]],
            "SCardConnect": [0, 88, 1],
            "SCardReconnect": [0, 2],
            "SCardStatus": [0, NAME, 0, 2, ATR],
            "SCardTransmit": [0, [0x90, 0x00]],
            "SCardDisconnect": 0,
            "SCardReleaseContext": 0,
        }

        def call(*args: Any) -> Any:
            self.calls.append((name, args))
            answer = self.says.get(name, defaults[name])
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(pcsc, "_library", lambda: made)
    return made


@pytest.fixture
def port(library: Library) -> PcscPort:
    made = PcscPort(f"pcsc:{NAME}")
    made.open()
    return made


def fault_of(function: Callable[..., object], *args: object) -> TransportError:
    with pytest.raises(TransportError) as caught:
        function(*args)
    return caught.value


def test_a_unit_costs_exactly_these_calls(library: Library, port: PcscPort) -> None:
    assert port.wait_seated(1)
    assert port.power_up() == bytes(ATR)
    assert port.transmit(b"\x80\xe2\x91\x00\x00", 1) == b"\x90\x00"
    port.power_down()
    port.close()
    assert library.calls == [
        ("SCardEstablishContext", (2,)),
        ("SCardListReaders", (77, [])),
        ("SCardGetStatusChange", (77, 0, [(NAME, 0)])),
        ("SCardConnect", (77, NAME, 1, 3)),
        ("SCardReconnect", (88, 1, 3, 2)),
        ("SCardStatus", (88,)),
        ("SCardTransmit", (88, 2, [0x80, 0xE2, 0x91, 0x00, 0x00])),
        ("SCardDisconnect", (88, 2)),
        ("SCardReleaseContext", (77,)),
    ]


CODES = {
    0x80100003: "HEAD.NO_SERVICE",
    0x80100013: "HEAD.NO_SERVICE",
    0x8010001D: "HEAD.NO_SERVICE",
    0x80100009: "HEAD.NO_READER",
    0x80100017: "HEAD.NO_READER",
    0x8010000B: "HEAD.IN_USE",
    0x80100016: "CONTACT.LOST",
    0x80100069: "CONTACT.LOST",
    0x80100014: "HEAD.UNREACHABLE",
}


@pytest.mark.parametrize(("number", "code"), CODES.items())
@pytest.mark.parametrize("signed", [False, True])
def test_every_word_of_pcscd_has_its_code(
    library: Library, port: PcscPort, number: int, code: str, signed: bool
) -> None:
    port.power_up()
    library.says["SCardTransmit"] = [number - (1 << 32) if signed else number, []]
    error = fault_of(port.transmit, bytes(5), 1)
    assert (error.code, error.where) == (code, f"pcsc:{NAME}")
    assert f"{number:08X}" in error.detail


@pytest.mark.parametrize("number", [0x8010000C, 0x8010000F, 0x80100066, 0x80100067, 0x80100069])
@pytest.mark.parametrize("function", ["SCardConnect", "SCardReconnect", "SCardStatus"])
def test_a_chip_that_does_not_come_up_has_no_atr(library: Library, port: PcscPort, function: str, number: int) -> None:
    library.says[function] = [number, 0, 0]
    assert fault_of(port.power_up).code == "CONTACT.NO_ATR"
    assert fault_of(port.transmit, bytes(5), 1).code == "CONTACT.LOST"


@pytest.mark.parametrize("answer", [[], [0x90]])
def test_a_success_without_status_word_is_a_lost_chip_and_its_socket_is_left_alone(
    library: Library, port: PcscPort, answer: list[int]
) -> None:
    port.power_up()
    library.says["SCardTransmit"] = [0, answer]
    assert fault_of(port.transmit, bytes(5), 1).code == "CONTACT.LOST"
    assert library.calls[-1] == ("SCardDisconnect", (88, 0))


def test_a_bare_system_error_is_a_dead_handle(library: Library, port: PcscPort) -> None:
    port.power_up()
    library.says["SCardTransmit"] = SystemError("returned NULL without setting an exception")
    assert fault_of(port.transmit, bytes(5), 1).code == "HEAD.NO_SERVICE"
    library.says["SCardGetStatusChange"] = SystemError()
    assert fault_of(port.wait_seated, 0.1).code == "HEAD.NO_SERVICE"


def test_no_such_reader_names_those_there_are(library: Library) -> None:
    error = fault_of(PcscPort("pcsc:Nobody").open)
    assert error.code == "HEAD.NO_READER"
    assert NAME in error.detail
    library.says["SCardListReaders"] = [0x8010002E, []]
    assert "none" in fault_of(PcscPort("pcsc:Nobody").open).detail
    assert library.calls[-1][0] == "SCardReleaseContext"


def test_an_unplugged_reader_is_told_while_waiting(library: Library, port: PcscPort) -> None:
    library.state = 0x4 | 0x8
    assert fault_of(port.wait_removed, 0.1).code == "HEAD.NO_READER"


def test_a_reader_in_use_asks_people_and_harms_nobody(library: Library, port: PcscPort) -> None:
    library.says["SCardConnect"] = [0x8010000B, 0, 0]
    error = fault_of(port.power_up)
    assert (error.code, error.fault.blame) == ("HEAD.IN_USE", Blame.STATION)
    assert "closed" in error.advice


def test_a_change_of_units_between_two_looks_is_a_removal(library: Library, port: PcscPort) -> None:
    assert port.wait_seated(0)
    assert not port.wait_removed(0)
    library.state = PRESENT | 0x3_0000
    assert port.wait_removed(0)


def test_a_late_answer_is_never_taken(library: Library, port: PcscPort, monkeypatch: pytest.MonkeyPatch) -> None:
    port.power_up()
    times = iter([100.0, 101.5])
    monkeypatch.setattr(pcsc, "time", SimpleNamespace(monotonic=lambda: next(times, 200.0)))
    assert fault_of(port.transmit, bytes(5), 1).code == "APDU.TIMEOUT"
    assert fault_of(port.transmit, bytes(5), 1).code == "CONTACT.LOST"


def test_a_deadline_stands_only_while_a_call_runs(library: Library, port: PcscPort) -> None:
    seen: list[float | None] = []
    library.says["SCardTransmit"] = [0, [0x90, 0]]
    original = library._function

    def spy(name: str) -> Callable[..., Any]:
        seen.append(port.deadline_s) if name == "SCardTransmit" else None
        return original(name)

    port.power_up()
    library._function = spy  # type: ignore[method-assign]
    port.transmit(bytes(5), 240)
    assert seen[0] is not None
    assert port.deadline_s is None


def test_without_pyscard_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartcard", None)
    monkeypatch.setitem(sys.modules, "smartcard.scard", None)
    with pytest.raises(SettingsError) as caught:
        make_port("pcsc:Any")
    assert "ifpp[pcsc]" in caught.value.detail


def test_a_reader_needs_a_name() -> None:
    with pytest.raises(SettingsError):
        make_port("pcsc:")


def test_one_process_knows_one_pcscd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", "/one")
    monkeypatch.setitem(sys.modules, "smartcard.scard", SimpleNamespace())
    pcsc.use_socket("")
    pcsc.use_socket("/one")
    with pytest.raises(SettingsError):
        pcsc.use_socket("/two")
