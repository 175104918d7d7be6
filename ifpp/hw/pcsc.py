"""pcsc: card port: a PC/SC reader behind pcscd, bound by its name and held exclusively.

Each port has a context of its own (handles of one context wait for each other in the library) and watches its own
reader: pyscard's monitor threads never come back after a restart of pcscd. After HEAD.* everything is established
anew by `open`; a context from before a restart is dead even where the library calls it valid.
Nothing can end a command to a card that hangs, not even SCardCancel: `deadline_s` says when it is overdue.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

from ifpp.errors import SettingsError, TransportError
from ifpp.hw.lamp import LampLine
from ifpp.model.states import Lamp

_SOCKET = "PCSCLITE_CSOCK_NAME"
_CALL_S = 15.0  # what pcscd may take for anything but an APDU and a wait; a card's reset is in it
_OK, _TIMEOUT = 0, 0x8010000A

# What pcscd says (PC/SC part 5; pcsclite.h), and what it means for a head. Anything else is HEAD.UNREACHABLE.
_FAULTS: dict[int, tuple[str, str]] = {
    0x80100003: ("HEAD.NO_SERVICE", "pcscd was started anew"),  # invalid handle
    0x80100013: ("HEAD.NO_SERVICE", "pcscd died over a command"),  # internal communications error
    0x8010001D: ("HEAD.NO_SERVICE", "pcscd does not answer"),
    0x8010001E: ("HEAD.NO_SERVICE", "pcscd has stopped"),
    0x80100009: ("HEAD.NO_READER", "there is no such reader"),
    0x80100017: ("HEAD.NO_READER", "the reader was unplugged"),
    0x8010002E: ("HEAD.NO_READER", "there is no reader at all"),
    0x8010000B: ("HEAD.IN_USE", "another program holds the reader"),
    0x8010000C: ("CONTACT.LOST", "there is no chip"),
    0x8010000F: ("CONTACT.LOST", "the chip's answer to reset is none, or names no usable protocol"),
    0x80100016: ("CONTACT.LOST", "the command did not reach the chip or its answer not the reader"),
    0x8010002F: ("CONTACT.LOST", "the exchange with the chip broke off"),
    0x80100065: ("CONTACT.LOST", "the reader does not understand the chip"),
    0x80100066: ("CONTACT.LOST", "the chip is mute"),
    0x80100067: ("CONTACT.LOST", "the chip has no power"),
    0x80100068: ("CONTACT.LOST", "the chip was reset by somebody else"),
    0x80100069: ("CONTACT.LOST", "the chip was taken out"),
}
_INVALID_HANDLE, _UNPLUGGED, _REMOVED = 0x80100003, 0x80100017, 0x80100069


def use_socket(path: str) -> None:
    """Talk to the pcscd behind this socket ("": where the library looks); before the first port is made.

    The library asks once: one process, one pcscd. Raises SettingsError when it has asked already.
    """
    if not path or os.environ.get(_SOCKET) == path:
        return
    if "smartcard.scard" in sys.modules:
        raise SettingsError("SETTINGS.INVALID", "one process cannot talk to a second pcscd", where=path)
    os.environ[_SOCKET] = path


def _library() -> Any:
    """Return pyscard's lowest layer; raises SettingsError when it is not installed."""
    try:
        from smartcard import scard  # noqa: PLC0415 - an extra, and the socket must be chosen before
    except ImportError as error:
        raise SettingsError(
            "SETTINGS.MISSING", f'a PC/SC reader needs pyscard: pip install "ifpp[pcsc]" ({error})', where="pyscard"
        ) from error
    return scard


def reader_names() -> list[str]:
    """Return the names of all readers of this pcscd; raises TransportError, SettingsError."""
    port = PcscPort("pcsc:?")
    try:
        port.establish()
        return port.readers()
    finally:
        port.close()


class PcscPort:
    """A reader at `pcsc:READER NAME`, the name as pcscd lists it (see ifpp.hw.port.CardPort).

    Reader and chip agree on T=0 or T=1 and pcscd speaks it: here are only APDUs.
    """

    max_block = 255

    def __init__(self, url: str, lamp: str = "") -> None:
        self.url = url
        self.deadline_s: float | None = None
        self._name = url.partition(":")[2].strip()
        if not self._name:
            raise SettingsError("SETTINGS.INVALID", "a reader is written pcsc:READER NAME", where=url)
        self._lamp = LampLine(lamp)
        self._api = _library()
        self._context: int | None = None
        self._card: int | None = None
        self._protocol = 0
        self._state = 0  # as pcscd told it last; the upper 16 bits count insertions and removals
        self._seating: int | None = None  # that count when the present unit was first seen

    # ---- the reader --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Establish everything anew; raises TransportError, HEAD.NO_READER naming the readers there are."""
        self.establish()
        try:
            names = self.readers()
        except TransportError:
            self.close()
            raise
        if self._name not in names:
            self.close()
            there = ", ".join(names) or "none"
            raise TransportError("HEAD.NO_READER", f"there is no such reader; there are: {there}", where=self.url)

    def establish(self) -> None:
        """Reach pcscd only; raises TransportError HEAD.NO_SERVICE."""
        self.close()
        self._state, self._seating = 0, None
        (self._context,) = self._ask(self._api.SCardEstablishContext, self._api.SCARD_SCOPE_SYSTEM)

    def readers(self) -> list[str]:
        """Return the names of all readers of this pcscd."""
        try:
            (names,) = self._ask(self._api.SCardListReaders, self._opened(), [])
        except TransportError as error:
            if error.code == "HEAD.NO_READER":
                return []
            raise
        return list(names)

    def wait_seated(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        self._look(0.0)
        while not self._present():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._look(left_s)
        self._seating = self._state >> 16
        return True

    def wait_removed(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        self._look(0.0)
        if self._seating is None:
            self._seating = self._state >> 16
        while self._present() and self._state >> 16 == self._seating:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._look(left_s)
        return True

    # ---- the chip ----------------------------------------------------------------------------------------------

    def label(self) -> str:
        return ""

    def power_up(self) -> bytes:
        api, protocols = self._api, self._api.SCARD_PROTOCOL_T0 | self._api.SCARD_PROTOCOL_T1
        self._disconnect()
        try:
            self._card, _ = self._ask(
                api.SCardConnect, self._opened(), self._name, api.SCARD_SHARE_EXCLUSIVE, protocols
            )
            # pcscd powers a chip when it is seated: only this makes a cold start sure, whoever used the chip before.
            (self._protocol,) = self._ask(
                api.SCardReconnect, self._card, api.SCARD_SHARE_EXCLUSIVE, protocols, api.SCARD_UNPOWER_CARD
            )
            _name, _state, _protocol, atr = self._ask(api.SCardStatus, self._card)
        except TransportError as error:
            self._give_up()
            if error.code == "CONTACT.LOST":
                raise TransportError("CONTACT.NO_ATR", error.detail, where=self.url) from error
            raise
        return bytes(atr)

    def power_down(self) -> None:
        self._disconnect()

    def open_channel(self, aid: bytes, timeout_s: float) -> int | None:  # noqa: ARG002 - raw APDUs: the caller does it
        return None

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        if self._card is None:
            raise TransportError("CONTACT.LOST", "the chip is not powered", where=self.url)
        deadline_s = self.deadline_s = time.monotonic() + timeout_s
        try:
            code, answer = self._api.SCardTransmit(self._card, self._protocol, list(apdu))
        except SystemError:
            code, answer = _INVALID_HANDLE, []
        finally:
            self.deadline_s = None
        if time.monotonic() > deadline_s:  # whoever waited has been told so: nothing more may reach this chip
            self._disconnect()
            raise TransportError("APDU.TIMEOUT", f"no answer in {timeout_s:g} s", where=self.url)
        if code != _OK or len(answer) < 2:  # pcscd calls it a success when a chip is pulled in a command
            self._give_up()
            self._fail(code or _REMOVED)
        return bytes(answer)

    def lamp(self, lamp: Lamp) -> None:
        self._lamp.show(lamp)

    def close(self) -> None:
        self._lamp.close()
        self._disconnect()
        if self._context is not None:
            context, self._context = self._context, None
            with suppress(TransportError):
                self._ask(self._api.SCardReleaseContext, context)

    # ---- pcscd -------------------------------------------------------------------------------------------------

    def _look(self, timeout_s: float) -> None:
        """Learn the reader's state: at once when it is not the one known, else after a change or `timeout_s`."""
        query = [(self._name, self._state)]
        try:
            (states,) = self._ask(
                self._api.SCardGetStatusChange,
                self._opened(),
                round(timeout_s * 1000),
                query,
                timeout_s=timeout_s + _CALL_S,
                quiet=_TIMEOUT,
            )
        except TransportError:
            self._state, self._seating = 0, None
            raise
        state = states[0][1]
        if not state & self._api.SCARD_STATE_CHANGED:
            return
        self._state = state & ~self._api.SCARD_STATE_CHANGED
        if self._state & (self._api.SCARD_STATE_UNKNOWN | self._api.SCARD_STATE_UNAVAILABLE):
            self._fail(_UNPLUGGED)

    def _present(self) -> bool:
        return bool(self._state & self._api.SCARD_STATE_PRESENT)

    def _opened(self) -> int:
        if self._context is None:
            raise TransportError("HEAD.UNREACHABLE", "the reader is not opened", where=self.url)
        return self._context

    def _give_up(self) -> None:
        """Let a chip go that has probably gone itself; never fails.

        To take the power from an empty socket makes pcscd call it empty before it has looked, and a unit that is
        seated when it does look is never announced.
        """
        self._disconnect(self._api.SCARD_LEAVE_CARD)

    def _disconnect(self, power: int | None = None) -> None:
        """Let the chip go, without power unless told otherwise; never fails."""
        if self._card is not None:
            card, self._card = self._card, None
            with suppress(TransportError):
                self._ask(self._api.SCardDisconnect, card, self._api.SCARD_UNPOWER_CARD if power is None else power)

    def _ask(self, function: Any, *args: Any, timeout_s: float = _CALL_S, quiet: int = _OK) -> list[Any]:
        """Call the library and return what it says behind its code; a code but success and `quiet` is raised."""
        self.deadline_s = time.monotonic() + timeout_s
        try:
            answer = function(*args)
        except SystemError:  # all that pyscard says of a handle it cannot use
            answer = [_INVALID_HANDLE]
        finally:
            self.deadline_s = None
        code, *values = answer if isinstance(answer, list) else [answer]
        if code & 0xFFFFFFFF not in (_OK, quiet):
            self._fail(code)
        return values

    def _fail(self, code: int) -> None:
        """The one place where a code of PC/SC becomes an error of ours; raises TransportError."""
        code &= 0xFFFFFFFF
        fault, detail = _FAULTS.get(code, ("HEAD.UNREACHABLE", "the reader failed"))
        raise TransportError(fault, f"{detail} (PC/SC {code:08X})", where=self.url)
