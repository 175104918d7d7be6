"""The one seam to a chip: a blocking card port, used by one owner thread only."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from ifpp.errors import SettingsError
from ifpp.model.states import Lamp


class CardPort(Protocol):
    """One socket that takes one chip. All calls block and belong to one thread.

    Errors: TransportError (CONTACT.NO_ATR, CONTACT.LOST, APDU.TIMEOUT) for the chip, (HEAD.*) for the reader itself;
    after HEAD.* the port must be closed and opened anew.
    `deadline_s`: a call that nothing can end is running and is overdue from this `time.monotonic()` on; None while
    every running call ends by itself. Set by the port, read by any thread (see ifpp.hw.owner).
    """

    url: str
    deadline_s: float | None

    def open(self) -> None:
        """Reach the reader; what an earlier opening left is let go first."""

    def wait_seated(self, timeout_s: float) -> bool:
        """True as soon as a chip is seated, False after `timeout_s`."""

    def wait_removed(self, timeout_s: float) -> bool:
        """True as soon as the socket is empty, False after `timeout_s`."""

    def power_up(self) -> bytes:
        """Power the chip (cold) and return its ATR."""

    def power_down(self) -> None:
        """Take the power away; never fails."""

    def transmit(self, apdu: bytes, timeout_s: float) -> bytes:
        """One APDU; returns response data followed by SW1 SW2 (at least 2 bytes)."""

    def lamp(self, lamp: Lamp) -> None:
        """Show the verdict to whoever feeds the head. Another thread may call it while a call of the owner hangs."""

    def close(self) -> None:
        """Let the reader go; never fails."""


def make_port(url: str, lamp: str = "") -> CardPort:
    """Return the port for a URL of a station file, with the lamp at another URL where the reader has none.

    Raises SettingsError for an unknown kind, a bad URL, or a kind whose library is not installed.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("tcp", "unix"):
        from ifpp.hw.tcp import TcpPort  # noqa: PLC0415 - a station loads only the kinds it uses

        if lamp:
            raise SettingsError("SETTINGS.INVALID", "a slot shows its own lamp: remove `lamp`", where=lamp)
        return TcpPort(url)
    if scheme == "pcsc":
        from ifpp.hw.pcsc import PcscPort  # noqa: PLC0415

        return PcscPort(url, lamp)
    kinds = "tcp://host:port, unix:///path or pcsc:READER NAME"
    raise SettingsError("SETTINGS.INVALID", f"unknown kind of port {scheme!r}, use {kinds}", where=url)
