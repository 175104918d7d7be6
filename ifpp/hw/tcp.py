"""tcp:// and unix:// card ports: a slot reached over a stream of length-prefixed frames.

Frames both ways are a 2-byte big-endian length and a payload. One byte is a control (00 power off, 01 power on,
02 reset, 04 get ATR), two bytes starting with E0 and E1 wait for a chip to be seated or removed (second byte: tenths
of a second), E2 sets the lamp and E3 asks for the serial number the fixture has read from the unit; anything from 4
bytes is an APDU. An empty reply means that the chip is gone, or that nothing was read.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from urllib.parse import urlsplit

from ifpp.errors import SettingsError, TransportError
from ifpp.model.states import Lamp

_POWER_OFF, _POWER_ON, _GET_ATR = b"\x00", b"\x01", b"\x04"
_WAIT_SEATED, _WAIT_REMOVED, _LAMP = 0xE0, 0xE1, 0xE2
_LABEL = b"\xe3\x00"
_LAMPS = {Lamp.OFF: 0, Lamp.BUSY: 1, Lamp.PASS: 2, Lamp.FAIL: 3, Lamp.RESEAT: 4, Lamp.HOLD: 5}
_CONNECT_TIMEOUT_S = 5.0
_REPLY_MARGIN_S = 5.0
_LENGTH = struct.Struct(">H")
_TIMEVAL = struct.Struct("@ll")
_MAX_FRAME = 2 + 0xFFFF


Address = tuple[str, int] | str  # host and TCP port, or the path of a Unix socket


def address_of(url: str) -> Address:
    """Return where `tcp://host:port` or `unix:///path` leads; raises SettingsError."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise SettingsError("SETTINGS.INVALID", "a Unix socket is written unix:///path", where=url)
        return parts.path
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError("SETTINGS.INVALID", str(error), where=url) from error
    if parts.scheme != "tcp" or not host or not port:
        raise SettingsError("SETTINGS.INVALID", "a tcp port is written tcp://host:port", where=url)
    return host, port


def connect(address: Address, timeout_s: float) -> socket.socket:
    """Return a connected stream that sends at once; raises OSError."""
    if isinstance(address, str):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(timeout_s)
        try:
            stream.connect(address)
        except OSError:
            stream.close()
            raise
        return stream
    stream = socket.create_connection(address, timeout=timeout_s)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def lamp_frame(lamp: Lamp) -> bytes:
    """Return the frame that shows a lamp."""
    return bytes((0, 2, _LAMP, _LAMPS[lamp]))


class TcpPort:
    """A slot at tcp://host:port or unix:///path (see ifpp.hw.port.CardPort).

    Every call keeps its own deadline, so `deadline_s` is never set.
    """

    deadline_s: float | None = None
    max_block = 255

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = address_of(url)
        self._socket: socket.socket | None = None
        self._timeout_s = _CONNECT_TIMEOUT_S

    def open(self) -> None:
        self.close()
        try:
            self._socket = connect(self._address, _CONNECT_TIMEOUT_S)
            # The kernel keeps the deadlines: Python's own cost a poll() and a wait for the GIL at every read and write.
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_CONNECT_TIMEOUT_S))
            self._timeout_s = 0.0
        except OSError as error:
            raise TransportError("HEAD.UNREACHABLE", f"no connection ({error})", where=self.url) from error

    def wait_seated(self, timeout_s: float) -> bool:
        return self._wait(_WAIT_SEATED, timeout_s)

    def wait_removed(self, timeout_s: float) -> bool:
        return self._wait(_WAIT_REMOVED, timeout_s)

    def label(self) -> str:
        read = self._ask_slot(_LABEL, _REPLY_MARGIN_S)
        try:
            return read.decode("ascii")
        except UnicodeDecodeError:  # half a scan is none
            return ""

    def power_up(self) -> bytes:
        self._send(_POWER_ON)
        atr = self._ask_slot(_GET_ATR, _REPLY_MARGIN_S)
        if not atr:
            raise TransportError("CONTACT.NO_ATR", "no answer to reset", where=self.url)
        return atr

    def power_down(self) -> None:
        with contextlib.suppress(TransportError):
            self._send(_POWER_OFF)

    def open_channel(self, aid: bytes, timeout_s: float) -> int | None:  # noqa: ARG002 - raw APDUs: the caller does it
        return None

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        try:
            answer = self._ask(apdu, timeout_s)
        except TimeoutError as error:
            self.close()  # a late answer must never be taken for the next command's
            raise TransportError("APDU.TIMEOUT", f"no answer in {timeout_s:g} s", where=self.url) from error
        if len(answer) < 2:
            raise TransportError("CONTACT.LOST", "the chip went away", where=self.url)
        return answer

    def lamp(self, lamp: Lamp) -> None:
        self._send(lamp_frame(lamp)[2:])

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _wait(self, what: int, timeout_s: float) -> bool:
        tenths = max(0, min(255, round(timeout_s * 10)))
        return self._ask_slot(bytes((what, tenths)), timeout_s + _REPLY_MARGIN_S) == b"\x01"

    def _ask_slot(self, control: bytes, timeout_s: float) -> bytes:
        """Ask the slot itself: no answer means that the head is broken, whatever sits in it."""
        try:
            return self._ask(control, timeout_s)
        except TimeoutError as error:
            self.close()
            raise TransportError("HEAD.UNREACHABLE", "the slot does not answer", where=self.url) from error

    def _ask(self, payload: bytes, timeout_s: float) -> bytes:
        """Send one frame and return the reply; TimeoutError passes through."""
        self._send(payload)
        stream = self._stream()
        if timeout_s != self._timeout_s:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s))
            self._timeout_s = timeout_s
        answer = self._receive(stream)
        while len(answer) < 2 or len(answer) < (size := 2 + _LENGTH.unpack_from(answer)[0]):
            answer += self._receive(stream)
        if len(answer) > size:
            self._lost(OSError("the slot answered more than it was asked"))
        return answer[2:]

    def _send(self, payload: bytes) -> None:
        try:
            self._stream().sendall(_LENGTH.pack(len(payload)) + payload)
        except OSError as error:
            self._lost(error)

    def _receive(self, stream: socket.socket) -> bytes:
        try:
            chunk = stream.recv(_MAX_FRAME)
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            self._lost(error)
        if not chunk:
            self._lost(None)
        return chunk

    def _stream(self) -> socket.socket:
        if self._socket is None:
            raise TransportError("HEAD.UNREACHABLE", "the slot is not connected", where=self.url)
        return self._socket

    def _lost(self, error: OSError | None) -> None:
        self.close()
        raise TransportError("HEAD.UNREACHABLE", f"connection lost ({error or 'closed'})", where=self.url) from error


def _timeval(timeout_s: float) -> bytes:
    """Return a `struct timeval`; never 0, which would mean for ever."""
    return _TIMEVAL.pack(*divmod(max(1, round(timeout_s * 1e6)), 1_000_000))
