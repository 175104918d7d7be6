"""The one seam to a chip: a blocking card port, used by one owner thread only."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from ifpp.errors import SettingsError
from ifpp.model.states import Lamp


class CardPort(Protocol):
    """One socket that takes one chip. All calls block and belong to one thread.

    Errors: TransportError (CONTACT.NO_ATR, CONTACT.LOST, APDU.TIMEOUT) for the chip, (HEAD.UNREACHABLE) for the
    reader itself; after HEAD.UNREACHABLE the port must be closed and opened anew.
    """

    url: str

    def open(self) -> None:
        """Reach the reader."""

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
        """Show the verdict to whoever feeds the head."""

    def close(self) -> None:
        """Let the reader go; never fails."""


def make_port(url: str) -> CardPort:
    """Return the port for a URL of a station file; raises SettingsError for an unknown kind."""
    scheme = urlsplit(url).scheme
    if scheme == "tcp":
        from ifpp.hw.tcp import TcpPort  # noqa: PLC0415 - a station loads only the kinds it uses

        return TcpPort(url)
    raise SettingsError("SETTINGS.INVALID", f"unknown kind of port {scheme!r}, use tcp://host:port", where=url)
