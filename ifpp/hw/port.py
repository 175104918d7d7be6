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
    max_block: int
    """The largest STORE DATA block the reader itself carries (255 unless its maker's faults say less)."""

    def open(self) -> None:
        """Reach the reader; what an earlier opening left is let go first."""

    def wait_seated(self, timeout_s: float) -> bool:
        """True as soon as a chip is seated, False after `timeout_s`."""

    def wait_removed(self, timeout_s: float) -> bool:
        """True as soon as the socket is empty, False after `timeout_s`."""

    def label(self) -> str:
        """Return what the fixture's scanner has read from the seated unit: its serial number; "" without a scanner."""

    def power_up(self) -> bytes:
        """Power the chip (cold) and return its ATR; b"" where the device keeps it to itself (a modem)."""

    def power_down(self) -> None:
        """Take the power away; never fails."""

    def open_channel(self, aid: bytes, timeout_s: float) -> int | None:
        """Select an application on a channel of the device's own making, once after `power_up`.

        None: the port carries raw APDUs and the caller opens the channel itself. A number: the application is
        selected, and the class bytes of the APDUs that follow are those of this logical channel (a modem sets the
        real one: 0). Raises TransportError, and CardError EUICC.NOT_AN_EUICC when the card has no such application.
        """

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
        from ifpp.hw.pcsc import PcscPort  # noqa: PLC0415 - wants pyscard

        return PcscPort(url, lamp)
    if scheme == "modem":
        from ifpp.hw.modem import ModemPort  # noqa: PLC0415 - wants pyserial

        return ModemPort(url, lamp)
    kinds = "tcp://host:port, unix:///path, pcsc:READER NAME or modem:/dev/tty"
    raise SettingsError("SETTINGS.INVALID", f"unknown kind of port {scheme!r}, use {kinds}", where=url)
