"""The lamp of a head whose reader or modem has none of its own: a small device behind a stream socket.

`unix:///path` or `tcp://host:port`; it hears the slot frame `00 02 E2 nn` (see ifpp.hw.tcp) and answers nothing.
"""

from __future__ import annotations

import contextlib
import socket

from ifpp.errors import TransportError
from ifpp.hw.tcp import address_of, connect, lamp_frame
from ifpp.model.states import Lamp

_TIMEOUT_S = 2.0


class LampLine:
    """The way to one lamp; `url` "" is a head without a lamp, for which every call does nothing.

    Connects when there is something to show, and again after the lamp went away. Errors: SettingsError for a bad URL,
    TransportError HEAD.LAMP when the lamp cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._address = address_of(url) if url else None
        self._socket: socket.socket | None = None

    def show(self, lamp: Lamp) -> None:
        """Show `lamp`; raises TransportError HEAD.LAMP. Blocks for some seconds at most."""
        if self._address is None:
            return
        try:
            if self._socket is None or _hung_up(self._socket):
                self.close()
                self._socket = connect(self._address, _TIMEOUT_S)
            self._socket.sendall(lamp_frame(lamp))
        except OSError as error:
            self.close()
            raise TransportError("HEAD.LAMP", f"the lamp is not reached ({error})", where=self._url) from error

    def close(self) -> None:
        """Let the lamp go; never fails."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _hung_up(stream: socket.socket) -> bool:
    """Whether the lamp closed its end, which a write would not notice; a lamp has nothing to say."""
    stream.settimeout(0)
    try:
        return stream.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        stream.settimeout(_TIMEOUT_S)
