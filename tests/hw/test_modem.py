"""The modem port against a scripted peer on a pseudo-terminal: every byte out is checked, every byte in is played."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ifpp.errors import CardError, IfppError, SettingsError, TransportError
from ifpp.hw import modem as modem_module
from ifpp.hw.modem import ModemPort
from ifpp.hw.port import make_port
from ifpp.settings import load_modems
from ifpp.wire.apdu import ISD_R

Step = tuple[str, str]

OK, ERROR = "\r\nOK\r\n", "\r\nERROR\r\n"
READY = ("AT+CPIN?", f"\r\n+CPIN: READY\r\n{OK}")
CCHO = f'AT+CCHO="{ISD_R.hex().upper()}"'
STORE = bytes.fromhex("80E2910003BF2E00")
CGLA, CSIM = 'AT+CGLA=1,16,"80E2910003BF2E00"', 'AT+CSIM=16,"80E2910003BF2E00"'
EID_ANSWER = "BF2E12801000112233445566778899AABBCCDDEEFF9000"
OPENING: list[Step] = [
    ("AT+CMEE?", f"AT+CMEE?\r\r\n+CMEE: 0\r\n{OK}"),
    ("ATE0", f"ATE0\r{OK}"),
    ("AT+CMEE=1", OK),
    ("AT+CMEE?", f"\r\n+CMEE: 1\r\n{OK}"),
]
TESTS: list[Step] = [(f"AT+{name}=?", OK) for name in ("CCHO", "CGLA", "CCHC", "CSIM")]
POWER_UP: list[Step] = [
    ("AT+CCHC=1", ERROR),
    ("AT+CCHC=2", "\r\n+CME ERROR: 50\r\n"),
    ("AT+CFUN=0", OK),
    ("AT+CFUN=1", OK),
    READY,
]
SESSION: Step = (CCHO, f"\r\n+CCHO: 1\r\n{OK}")


class Peer:
    """The other end of the line."""

    def __init__(self, script: list[Step]) -> None:
        self._script = script
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        self.device = os.ttyname(self._theirs)
        self.trouble: list[str] = []
        self._thread = threading.Thread(target=self._play, name="peer")
        self._thread.start()

    def _play(self) -> None:
        for command, answer in self._script:
            expected, got = command.encode() + b"\r", b""
            while len(got) < len(expected):
                if not select.select([self._ours], [], [], 5)[0]:
                    break
                got += os.read(self._ours, len(expected) - len(got))
            if got != expected:
                self.trouble.append(f"{expected!r} expected, {got!r} came")
                return
            os.write(self._ours, answer.encode("latin-1"))

    def unplug(self) -> None:
        self._thread.join()
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        self._thread.join()
        if self._ours >= 0:
            if select.select([self._ours], [], [], 0.05)[0]:
                self.trouble.append(f"{os.read(self._ours, 4096)!r} came after the end")
            os.close(self._ours)
        os.close(self._theirs)
        assert self.trouble == []


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(
        "[models.short]\nsessions = 2\nready_s = 5\n"
        "[models.hasty]\nsessions = 2\nready_s = 0.000001\n"
        '[models.csim]\naccess = "csim"\nsessions = 0\nready_s = 0.3\ncsim_channels = false\nmax_block = 120\n'
        '[models.odd]\naccess = "cgla"\ninit = ["AT^SWITCH_SLOT=1"]\nreset = ["AT+CRFSIM"]\npresence = "AT#QSS?"\n'
        'absent = ["#QSS: 0,0"]\nready_s = 0.3\ntries = 2\nsessions = 0\ncla = "handle"\n'
    )
    return path


@contextmanager
def opened(
    script: list[Step], models: Path, model: str = "short", opening: list[Step] | None = None
) -> Iterator[tuple[ModemPort, Peer]]:
    peer = Peer([*(OPENING + TESTS if opening is None else opening), *script])
    port = ModemPort(f"modem:{peer.device}?model={model}&quirks={models}")
    try:
        port.open()
        yield port, peer
    finally:
        port.close()
        peer.close()


def code_of(port: ModemPort, apdu: bytes = STORE, timeout_s: float = 1.0) -> str:
    with pytest.raises(TransportError) as caught:
        port.transmit(apdu, timeout_s)
    assert "BF2E" not in str(caught.value)
    return caught.value.code


def test_a_session_over_cgla_is_exact(models: Path) -> None:
    script = [*POWER_UP, SESSION, (CGLA, f'\r\n+CGLA: 46,"{EID_ANSWER}"\r\n{OK}'), ("AT+CCHC=1", f"\r\n+CCHC\r\n{OK}")]
    with opened(script, models) as (port, _):
        assert port.knows == {"CCHO", "CGLA", "CCHC", "CSIM"}
        assert port.power_up() == b""
        assert port.open_channel(ISD_R, 1) == 0
        assert port.transmit(STORE, 1).hex().upper() == EID_ANSWER
        port.power_down()
        port.power_down()
        assert code_of(port) == "CONTACT.LOST"
        assert port.deadline_s is None


@pytest.mark.parametrize(
    ("answer", "handle"),
    [
        ("+CCHO: 000000000385a7cf", "000000000385a7cf"),
        ("000000000385a7cf", "000000000385a7cf"),
        ("7", "7"),
        ('+CCHO: "3"', "3"),
    ],
)
def test_session_handles_go_back_as_they_came(models: Path, answer: str, handle: str) -> None:
    apdu = (f'AT+CGLA={handle},16,"80E2910003BF2E00"', f'\r\n+CGLA: 4,"6114"\r\n{OK}')
    script = [*POWER_UP, (CCHO, f"\r\n{answer}\r\n{OK}"), apdu, (f"AT+CCHC={handle}", OK)]
    with opened(script, models) as (port, _):
        port.power_up()
        assert port.open_channel(ISD_R, 1) == 0
        assert port.transmit(STORE, 1) == bytes.fromhex("6114")
        port.power_down()


def test_raw_apdus_over_csim_are_exact(models: Path) -> None:
    script = [("AT+CFUN=0", OK), ("AT+CFUN=1", OK), READY, (CSIM, f'\r\n+CSIM: 4,"9000"\r\n{OK}')]
    with opened(script, models, "csim", OPENING) as (port, _):
        port.power_up()
        assert port.max_block == 120
        assert port.open_channel(ISD_R, 1) is None
        assert port.transmit(bytes.fromhex("0070000001"), 1) == bytes.fromhex("6881")  # its model says so
        assert port.transmit(STORE, 1) == bytes.fromhex("9000")
        port.power_down()


def test_a_model_is_data(models: Path) -> None:
    opening = [*OPENING, ("AT^SWITCH_SLOT=1", OK)]
    seated: Step = ("AT#QSS?", f"\r\n#QSS: 0,1\r\n{OK}")
    script = [
        ("AT#QSS?", f"\r\n#QSS: 0,0\r\n{OK}"),
        ("AT+CRFSIM", OK),
        seated,
        (CCHO, "\r\n+CME ERROR: 13\r\n"),  # busy after its start: a reset helps this model
        ("AT+CRFSIM", OK),
        seated,
        (CCHO, f"\r\n+CCHO: 2\r\n{OK}"),
    ]
    with opened(script, models, "odd", opening) as (port, _):
        assert not port.wait_seated(0)
        port.power_up()
        assert port.open_channel(ISD_R, 1) == 2


def test_without_ccho_the_card_is_reached_over_csim(models: Path) -> None:
    opening = [*OPENING, *((f"AT+{name}=?", ERROR) for name in ("CCHO", "CGLA", "CCHC", "CSIM"))]
    script = [
        *POWER_UP,
        (CCHO, ERROR),
        READY,
        ('AT+CSIM=10,"80F2000000"', f'\r\n+CSIM: 4,"9000"\r\n{OK}'),
        (CSIM, f'\r\n+CSIM: 4,"9000"\r\n{OK}'),
    ]
    with opened(script, models, opening=opening) as (port, _):
        port.power_up()
        assert port.open_channel(ISD_R, 1) is None
        assert port.transmit(STORE, 1) == bytes.fromhex("9000")
        port.power_down()


def test_a_sim_that_is_no_euicc(models: Path) -> None:
    opening = [*OPENING, *TESTS[:3], ("AT+CSIM=?", ERROR)]
    script = [*POWER_UP, (CCHO, "\r\n+CME ERROR: 13\r\n"), READY, ('AT+CSIM=10,"80F2000000"', ERROR)]
    with opened(script, models, opening=opening) as (port, _):
        port.power_up()
        with pytest.raises(CardError) as caught:
            port.open_channel(ISD_R, 1)
        assert caught.value.code == "EUICC.NOT_AN_EUICC"


def test_a_busy_sim_is_waited_for(models: Path) -> None:
    script = [*POWER_UP[:4], ("AT+CPIN?", "\r\n+CME ERROR: 14\r\n"), READY, (CCHO, "\r\n+CME ERROR: 14\r\n"), SESSION]
    with opened(script, models) as (port, _):
        port.power_up()
        assert port.open_channel(ISD_R, 1) == 0


@pytest.mark.parametrize(
    ("refusal", "sim", "code"),
    [
        (ERROR, f"\r\n+CPIN: READY\r\n{OK}", "MODEM.ERROR"),
        ("\r\n+CME ERROR: 100\r\n", f"\r\n+CPIN: SIM PIN\r\n{OK}", "MODEM.ERROR"),
        ("\r\n+CME ERROR: 13\r\n", "\r\n+CME ERROR: 13\r\n", "CONTACT.LOST"),
        (ERROR, "\r\n+CME ERROR: 10\r\n", "CONTACT.LOST"),
        (ERROR, "\r\n+CME ERROR: SIM not inserted\r\n", "CONTACT.LOST"),
        (ERROR, f"\r\n+CPIN: NOT INSERTED\r\n{OK}", "CONTACT.LOST"),
    ],
)
def test_a_refused_apdu_is_the_cards_or_the_modems(models: Path, refusal: str, sim: str, code: str) -> None:
    again: list[Step] = [("AT+CCHC=1", OK), *POWER_UP[2:]]  # the session that was lost is closed first
    with opened([*POWER_UP, SESSION, (CGLA, refusal), ("AT+CPIN?", sim), *again], models) as (port, _):
        port.power_up()
        port.open_channel(ISD_R, 1)
        assert code_of(port) == code
        assert code_of(port) == "CONTACT.LOST"  # nothing goes out before the chip is powered up again
        port.power_down()
        port.power_up()


def test_a_late_answer_is_not_taken_for_the_next(models: Path) -> None:
    late = f'\r\n+CGLA: 46,"{EID_ANSWER}"\r\n{OK}'
    script = [
        *POWER_UP,
        SESSION,
        (CGLA, ""),
        ("AT+CMEE?", f"{late}\r\n+CMEE: 1\r\n{OK}"),
        ("ATE0", OK),
        ("AT+CMEE=2", OK),
        ("AT+CMEE?", f"\r\n+CMEE: 2\r\n{OK}"),
        ("AT+CCHC=1", OK),
        *POWER_UP[2:],
        (CCHO, f"\r\n+CCHO: 2\r\n{OK}"),
        (CGLA.replace("=1", "=2"), f'\r\n+CGLA: 4,"6985"\r\n{OK}'),
    ]
    with opened(script, models) as (port, _):
        port.power_up()
        port.open_channel(ISD_R, 1)
        assert code_of(port, timeout_s=0.1) == "APDU.TIMEOUT"
        port.power_up()
        port.open_channel(ISD_R, 1)
        assert port.transmit(STORE, 1) == bytes.fromhex("6985")


@pytest.mark.parametrize("answer", ['\r\n+CGLA: 8,"9000"\r\n', '\r\n+CGLA: 4,"90zz"\r\n', "\r\n"])
def test_garbage_for_an_apdu_needs_a_new_opening(models: Path, answer: str) -> None:
    with opened([*POWER_UP, SESSION, (CGLA, answer + OK)], models) as (port, _):
        port.power_up()
        port.open_channel(ISD_R, 1)
        assert code_of(port) == "HEAD.GARBAGE"
        assert code_of(port) == "CONTACT.LOST"
        with pytest.raises(TransportError) as caught:
            port.wait_removed(0)
        assert caught.value.code == "HEAD.UNREACHABLE"


def test_an_empty_answer_is_a_lost_chip(models: Path) -> None:
    with opened([*POWER_UP, SESSION, (CGLA, f'\r\n+CGLA: 0,""\r\n{OK}')], models) as (port, _):
        port.power_up()
        port.open_channel(ISD_R, 1)
        assert code_of(port) == "CONTACT.LOST"


def test_a_removal_that_is_only_said_in_passing_counts(models: Path) -> None:
    said = f"\r\n+CPIN: NOT INSERTED\r\n\r\n+CPIN: READY\r\n{OK}"
    with opened([*POWER_UP, ("AT+CPIN?", said)], models) as (port, _):
        port.power_up()
        assert port.wait_seated(0)
        assert port.wait_removed(0)


def test_a_sim_that_does_not_come_up_has_no_answer_to_reset(models: Path) -> None:
    dead = ("AT+CPIN?", "\r\n+CME ERROR: 13\r\n")
    with opened([*POWER_UP[:4], dead], models, "hasty") as (port, _):
        with pytest.raises(TransportError) as caught:
            port.power_up()
        assert caught.value.code == "CONTACT.NO_ATR"


# ---- the device itself --------------------------------------------------------------------------------------------


def refusal(port: ModemPort) -> IfppError:
    with pytest.raises(TransportError) as caught:
        port.open()
    return caught.value


def test_no_such_device() -> None:
    error = refusal(ModemPort("modem:/dev/ttyNONE7"))
    assert error.code == "HEAD.NO_READER"
    assert "/dev/ttyNONE7" in error.detail


def test_what_is_no_serial_device(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.touch()
    assert refusal(ModemPort(f"modem:{plain}")).code == "HEAD.UNREACHABLE"


def test_a_device_another_program_holds_is_named_and_left_alone() -> None:
    peer = Peer([])
    hold = "import serial, sys, time; p = serial.Serial(sys.argv[1], exclusive=True); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, peer.device], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"\n"
            error = refusal(ModemPort(f"modem:{peer.device}"))
            assert error.code == "HEAD.IN_USE"
            assert f"process {holder.pid}" in error.detail
            assert holder.poll() is None
        finally:
            holder.kill()
    peer.close()


@pytest.mark.parametrize(("answer", "code"), [("", "HEAD.UNREACHABLE"), ("$GPGGA,1\r\n\xff\xfe", "HEAD.GARBAGE")])
def test_what_speaks_no_at(monkeypatch: pytest.MonkeyPatch, answer: str, code: str) -> None:
    monkeypatch.setattr(modem_module, "_OPEN_S", 0.3)
    peer = Peer([("AT+CMEE?", answer)])
    assert refusal(ModemPort(f"modem:{peer.device}")).code == code
    peer.close()


def test_a_modem_that_is_unplugged(models: Path) -> None:
    with opened([*POWER_UP, SESSION], models) as (port, peer):
        port.power_up()
        port.open_channel(ISD_R, 1)
        peer.unplug()
        assert code_of(port) == "HEAD.UNREACHABLE"
        port.power_down()


def test_a_modem_that_dies_while_it_is_asked_for_the_sim(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModemPort._ask, "__kwdefaults__", {"prefix": "", "timeout_s": 0.2})
    with opened([("AT+CPIN?", "")], models) as (port, _):
        with pytest.raises(TransportError) as caught:
            port.wait_seated(0)
        assert caught.value.code == "HEAD.UNREACHABLE"


# ---- what a station file may say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "modem:",
        "modem://host/x",
        "modem:/dev/x?speed=1",
        "modem:/dev/x?baud=fast",
        "modem:/dev/x?baud=0",
        "modem:/dev/x?model=none",
    ],
)
def test_a_bad_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_port(url)
    assert url in str(caught.value)


def test_a_bad_model_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[models.mine]\nreset = []\nabsence = ["10"]\n')
    with pytest.raises(SettingsError) as caught:
        make_port(f"modem:/dev/x?model=mine&quirks={path}")
    assert f"{path}:3" in str(caught.value)
    assert 'did you mean "absent"' in str(caught.value)


def test_every_model_of_ours_makes_a_port() -> None:
    models = load_modems(Path(modem_module.__file__).with_name("modems.toml"))
    assert {"generic", "quectel-eg25", "sierra-mc7455"} <= models.keys()
    for name in models:
        assert make_port(f"modem:/dev/x?model={name}").max_block >= 6
