"""Modem card port: the SIM socket of a cellular module, reached with AT commands over a serial line.

Two ways to the card (3GPP TS 27.007): AT+CCHO, +CGLA, +CCHC, where the modem opens the channel and keeps its number
to itself, and AT+CSIM, which carries raw APDUs. Makers differ; what is known of a model stands in modems.toml.
`modem:/dev/ttyUSB2?baud=115200&model=NAME&quirks=FILE`: FILE is one more file of models, asked first.
"""

from __future__ import annotations

import errno
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import serial
from serial.tools import list_ports

from ifpp.errors import CardError, SettingsError, TransportError
from ifpp.hw.at import (
    BARE_HANDLE,
    DEADLINE_S,
    RECOVERY_S,
    AtLine,
    GarbledError,
    RefusedError,
    RestartedError,
    SilentError,
    session_handle,
)
from ifpp.hw.lamp import LampLine
from ifpp.hw.network import Registration, read_registration
from ifpp.model.states import Lamp
from ifpp.settings import Modem, load_modems

_MODELS = Path(__file__).with_name("modems.toml")
_BAUD = 115200
_OPEN_S = 5.0  # what speaks AT answers well within
_TEST_S = 2.0  # some modems leave AT+X=? unanswered
_POLL_S = 0.1
_OVERDUE_S = 60.0  # beyond every deadline of the line's own
_WRITE_S = 5.0
_SLICE_S = 0.1
_BUSY = frozenset({"14", "SIM busy"})
_COMMANDS = ("CCHO", "CGLA", "CCHC", "CSIM")
_NETWORKS = ("CEREG", "CGREG", "CREG")
_STATUS = "80F2000000"  # changes nothing (TS 102 221 11.1.2)
_MANAGE_CHANNEL, _NO_CHANNELS = 0x70, bytes.fromhex("6881")


class Sim(Enum):
    """What a modem says of its socket."""

    READY = "ready"
    FAILED = "failed"  # something is there that does not work, or not yet
    ABSENT = "absent"


class ModemPort:
    """A modem with one SIM socket (see ifpp.hw.port.CardPort).

    The modem keeps the ATR to itself: `power_up` returns b"". MODEM.ERROR (TransportError): the modem refused a command
    while a SIM is there; whether the card executed it is not known. After it and after APDU.TIMEOUT the chip must be
    powered up again. `knows`: the commands whose test form was answered, where the model leaves it to be asked; that
    one was not proves nothing, so +CCHO is always tried before +CSIM.
    """

    deadline_s: float | None = None

    def __init__(self, url: str, lamp: str = "") -> None:
        self.url = url
        self._device, self._baud, self._model = _parse(url)
        self.max_block = self._model.max_block
        self.knows: frozenset[str] = frozenset()
        self._lamp = LampLine(lamp)
        self._serial: _SerialLine | None = None
        self._line: AtLine | None = None
        self._raw = False  # the chip is reached over +CSIM
        self._handle = ""  # the chip is reached over +CGLA with this session
        self._leaked: list[str] = []  # sessions that may be open and that nobody uses
        self._owed = False  # the modem was left in the middle of a command
        self._removed = False  # seen while nobody asked

    def open(self) -> None:
        self.close()
        try:
            self._serial = _SerialLine(self._device, self._baud)
        except (OSError, ValueError, termios.error) as error:
            raise _unopened(error, self._device, self.url) from error
        self._line = AtLine(self._serial, self._unsolicited, time.monotonic)
        self._suspect_sessions()
        try:
            with self._speaking(RECOVERY_S) as line:
                line.synchronise(RECOVERY_S if self._owed else _OPEN_S)
            for command in self._model.init:
                self._must(command)
            if self._model.access == "auto":
                self.knows = frozenset(name for name in _COMMANDS if self._answers(f"AT+{name}=?"))
        except TransportError:
            self.close()
            raise

    def wait_seated(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while self._sim() is Sim.ABSENT:
            if not _rest(end_s):
                return False
        return True

    def wait_removed(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while not self._removed and self._sim() is not Sim.ABSENT:
            if not _rest(end_s):
                return False
        self._removed = False
        return True

    def label(self) -> str:
        return ""

    def power_up(self) -> bytes:
        self._end_session()
        while self._leaked:
            self._close_session(self._leaked[0])
            del self._leaked[0]
        self._reset_sim()
        return b""

    def power_down(self) -> None:
        """Give the session back; the SIM keeps its power until the next `power_up`, or the modem could not see it."""
        with suppress(TransportError):
            self._end_session()

    def open_channel(self, aid: bytes, timeout_s: float) -> int | None:
        access = self._model.access
        refusal = "" if access == "csim" else self._open_session(aid, timeout_s)
        if self._handle:
            return int(self._handle) if self._model.cla == "handle" else 0
        if refusal:
            self._require_sim(refusal)
            if access == "cgla" or not self._carries_csim():
                raise CardError("EUICC.NOT_AN_EUICC", refusal, where=self.url)
        self._raw = True
        return None

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        if not self._raw and not self._handle:
            raise TransportError("CONTACT.LOST", "the chip is not powered", where=self.url)
        if self._raw and apdu[1] == _MANAGE_CHANNEL and not self._model.csim_channels:
            return _NO_CHANNELS
        to, prefix = ("CSIM=", "+CSIM:") if self._raw else (f"CGLA={self._handle},", "+CGLA:")
        command = f'AT+{to}{2 * len(apdu)},"{apdu.hex().upper()}"'
        try:
            with self._speaking(timeout_s, to_card=True) as line:
                answer = line.ask_card(command, prefix, timeout_s)
        except RefusedError as error:
            self._lose_session()
            self._require_sim(str(error))
            raise TransportError("MODEM.ERROR", str(error), where=self.url) from error
        if len(answer) < 2:
            self._lose_session()
            raise TransportError("CONTACT.LOST", "the chip went away", where=self.url)
        return answer

    def lamp(self, lamp: Lamp) -> None:
        self._lamp.show(lamp)

    def registration(self) -> Registration:
        """See `ifpp.hw.network.NetworkPort`; a network the modem does not know is left out."""
        answers: list[str] = []
        for name in _NETWORKS:
            with suppress(RefusedError):
                answers += self._ask(f"AT+{name}?", prefix=f"+{name}:")
        return read_registration(answers)

    def close(self) -> None:
        self._lose_session()
        if self._line is not None:
            self._owed = not self._line.in_step
        if self._serial is not None:
            self._serial.close()
        self._serial = self._line = None
        self._lamp.close()

    # ---- sessions and the SIM ---------------------------------------------------------------------

    def _open_session(self, aid: bytes, timeout_s: float) -> str:
        """AT+CCHO; returns "" with `_handle` set, or why the modem refused it."""
        command = f'AT+CCHO="{aid.hex().upper()}"'
        end_s = time.monotonic() + self._model.ready_s
        tries = self._model.tries
        while True:
            try:
                with self._speaking(timeout_s, to_card=True) as line:
                    lines = line.ask(command, prefix="+CCHO:", bare=BARE_HANDLE, timeout_s=timeout_s)
                    self._handle = session_handle(lines, numbered=self._model.cla == "handle")
            except RefusedError as error:
                if error.reason in _BUSY and _rest(end_s):
                    continue
                tries -= 1
                if not tries:
                    return str(error)
                self._reset_sim()
            else:
                return ""

    def _end_session(self) -> None:
        """Close the session in an orderly way; one that was lost is closed before the next."""
        if self._handle:
            handle, self._handle = self._handle, ""
            self._close_session(handle)
        self._raw = False

    def _lose_session(self) -> None:
        if self._handle:
            self._leaked.insert(0, self._handle)
        self._handle, self._raw = "", False

    def _suspect_sessions(self) -> None:
        """Any session may be open: of another program, of an earlier life, or opened too late."""
        numbers = (str(number) for number in range(1, self._model.sessions + 1))
        self._leaked += [number for number in numbers if number not in self._leaked]

    def _close_session(self, handle: str) -> None:
        with suppress(RefusedError):  # not open, or +CCHC not known
            self._ask(f"AT+CCHC={handle}", timeout_s=RECOVERY_S)

    def _reset_sim(self) -> None:
        """Power the SIM off and on and wait until it works; raises CONTACT.NO_ATR."""
        for command in self._model.reset:
            self._must(command)
        end_s = time.monotonic() + self._model.ready_s
        while (sim := self._sim()) is not Sim.READY:
            if not _rest(end_s):
                raise TransportError("CONTACT.NO_ATR", f"SIM {sim.value} after its reset", where=self.url)
        self._removed = False  # what looked like a removal was the reset

    def _sim(self) -> Sim:
        """Ask for the SIM."""
        command, absent = self._model.presence, self._model.absent
        prefix = command.removeprefix("AT").rstrip("?").split("=")[0] + ":"
        try:
            said = [f"{prefix} {line}".startswith(absent) for line in self._ask(command, prefix=prefix)]
        except RefusedError as error:
            sim = Sim.ABSENT if not error.reason or error.reason in absent else Sim.FAILED
        else:
            self._removed = self._removed or any(said)  # be it in passing, before the answer
            sim = Sim.ABSENT if not said or said[-1] else Sim.READY
        self._removed = self._removed or sim is Sim.ABSENT
        return sim

    def _require_sim(self, refusal: str) -> None:
        """Tell a card that went away, or does not work, from a modem that refuses; raises TransportError."""
        sim = self._sim()
        if sim is not Sim.READY:
            raise TransportError("CONTACT.LOST", f"SIM {sim.value} ({refusal})", where=self.url)

    def _carries_csim(self) -> bool:
        return "CSIM" in self.knows or self._answers(f'AT+CSIM={len(_STATUS)},"{_STATUS}"')

    # ---- the line ---------------------------------------------------------------------------------

    def _answers(self, command: str) -> bool:
        """Whether the modem says OK to a command that some leave unanswered."""
        with self._speaking(_TEST_S) as line:
            try:
                line.ask(command, timeout_s=_TEST_S)
            except (RefusedError, SilentError):
                return False
            return True

    def _must(self, command: str) -> None:
        """A command of the model's own that has to work."""
        try:
            self._ask(command, timeout_s=RECOVERY_S)
        except RefusedError as error:
            raise TransportError("MODEM.ERROR", f"{command}: {error}", where=self.url) from error

    def _ask(self, command: str, *, prefix: str = "", timeout_s: float = DEADLINE_S) -> list[str]:
        with self._speaking(timeout_s) as line:
            return line.ask(command, prefix=prefix, timeout_s=timeout_s)

    @contextmanager
    def _speaking(self, timeout_s: float, *, to_card: bool = False) -> Iterator[AtLine]:
        """Turn what goes wrong on the line into TransportError; a refusal passes through.

        `to_card`: silence is the chip's, which may be slow; a modem may not.
        """
        if self._line is None:
            raise TransportError("HEAD.UNREACHABLE", "the modem is not connected", where=self.url)
        to_card = to_card and self._line.in_step
        self.deadline_s = time.monotonic() + RECOVERY_S + timeout_s + _OVERDUE_S
        try:
            yield self._line
        except RestartedError as error:
            self._lose_session()
            raise TransportError("MODEM.ERROR", str(error), where=self.url) from error
        except SilentError as error:
            if to_card:
                if not self._handle and not self._raw:
                    self._suspect_sessions()
                self._lose_session()
                raise TransportError("APDU.TIMEOUT", str(error), where=self.url) from error
            self.close()
            code = "HEAD.GARBAGE" if error.heard else "HEAD.UNREACHABLE"
            raise TransportError(code, str(error), where=self.url) from error
        except GarbledError as error:
            self.close()
            raise TransportError("HEAD.GARBAGE", str(error), where=self.url) from error
        except OSError as error:
            self.close()
            raise TransportError("HEAD.UNREACHABLE", f"the modem went away ({error})", where=self.url) from error
        finally:
            self.deadline_s = None

    def _unsolicited(self, line: str) -> bool:
        """Note what the modem says unasked; True when it has started anew."""
        if line.startswith(tuple(text for text in self._model.absent if not text.isdigit())):
            self._removed = True
        return line.startswith(self._model.restarted)


class _SerialLine:
    """A serial device, held alone (see ifpp.hw.at.Stream); raises OSError."""

    def __init__(self, device: str, baud: int) -> None:
        self._serial = serial.Serial(device, baud, timeout=_SLICE_S, write_timeout=_WRITE_S, exclusive=True)

    def write(self, data: bytes) -> None:
        self._serial.write(data)

    def read(self, timeout_s: float) -> bytes:
        waiting = self._serial.in_waiting
        if not waiting:
            if timeout_s <= 0 or not (first := self._serial.read(1)):
                return b""
            return bytes(first + self._serial.read(self._serial.in_waiting))
        return bytes(self._serial.read(waiting))

    def close(self) -> None:
        with suppress(OSError, termios.error):
            self._serial.reset_output_buffer()  # or closing waits for a modem that takes nothing
        with suppress(OSError):
            self._serial.close()


def _rest(end_s: float) -> bool:
    """Sleep until it is time to ask again; False when there is none left."""
    left_s = end_s - time.monotonic()
    if left_s > 0:
        time.sleep(min(_POLL_S, left_s))
    return left_s > 0


def _parse(url: str) -> tuple[str, int, Modem]:
    """Return device, bit/s and model of a modem URL; raises SettingsError."""
    parts = urlsplit(url)
    options = {"baud": str(_BAUD), "model": "generic", "quirks": ""}
    said = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not parts.path or parts.netloc or not said.keys() <= options.keys():
        form = "a modem port is written modem:/dev/ttyUSB2?baud=115200&model=NAME&quirks=FILE"
        raise SettingsError("SETTINGS.INVALID", form, where=url)
    options |= said
    if not options["baud"].isdecimal() or not int(options["baud"]):
        raise SettingsError("SETTINGS.INVALID", f"{options['baud']!r} is no baud rate", where=url)
    models = load_modems(_MODELS) | (load_modems(Path(options["quirks"])) if options["quirks"] else {})
    if options["model"] not in models:
        known = ", ".join(sorted(models))
        raise SettingsError("SETTINGS.INVALID", f"no model {options['model']!r}, there are {known}", where=url)
    return parts.path, int(options["baud"]), models[options["model"]]


def serial_devices() -> list[str]:
    """Return the serial devices of this machine, modems or not."""
    return sorted(port.device for port in list_ports.comports())


def _unopened(error: Exception, device: str, url: str) -> TransportError:
    """Say why a device cannot be opened."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        there = ", ".join(serial_devices()) or "none"
        return TransportError("HEAD.NO_READER", f"there is no {device}; serial ports found: {there}", where=url)
    if number in (errno.EBUSY, errno.EAGAIN):
        return TransportError("HEAD.IN_USE", f"{device} is held by {_holders(device)}", where=url)
    return TransportError("HEAD.UNREACHABLE", f"{device} cannot be opened ({error})", where=url)


def _holders(device: str) -> str:
    """Name the processes that have a device open, as far as this one may see them."""
    target, names = Path(device).resolve(), set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.readlink() == target:
                process = link.parent.parent
                names.add(f"{(process / 'comm').read_text().strip()} (process {process.name})")
    return ", ".join(sorted(names)) or "another program"
