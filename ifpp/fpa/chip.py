"""One eUICC over one card port: its ES10 functions in the order a factory needs them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ifpp.errors import CardError, TransportError, WireError
from ifpp.fpa.link import blames_blocks, smaller
from ifpp.hw.port import CardPort
from ifpp.model.chip import EuiccInfo2, FpaState, FpaStatus, InstallResult, OtkList, PirEntry, ProfileInfo
from ifpp.model.ids import Eid
from ifpp.wire import es10
from ifpp.wire.apdu import ISD_R, CardChannel, StatusError, Trace, open_channel
from ifpp.wire.fpx import FPX1, Es10fCodec

# what a chip says to a function it does not know: nothing else may pass for "no factory services"
_UNKNOWN_FUNCTION = frozenset({0x6A80, 0x6A81, 0x6A86, 0x6A88, 0x6D00})


@dataclass(frozen=True, slots=True)
class Identity:
    """What a chip said when it was seated."""

    eid: Eid
    atr: bytes
    info2: EuiccInfo2
    status: FpaStatus


class Chip:
    """A powered eUICC with a logical channel to its ISD-R. Blocking; belongs to one thread.

    `apdu_timeout_s` is the deadline of one APDU; `load_apdu_timeout_s` of one inside a load, where the chip computes.
    """

    def __init__(
        self,
        port: CardPort,
        *,
        block_size: int = 255,
        apdu_timeout_s: float = 10.0,
        load_apdu_timeout_s: float = 240.0,
        codec: Es10fCodec = FPX1,
        trace: Trace | None = None,
    ) -> None:
        self.port = port
        self.codec = codec
        self._block_size = min(block_size, port.max_block)
        self._apdu_timeout_s = apdu_timeout_s
        self._load_apdu_timeout_s = load_apdu_timeout_s
        self._timeout_s = apdu_timeout_s
        self._trace = trace
        self._channel: CardChannel | None = None
        self._earlier_apdus = 0
        self.atr = b""

    def open(self) -> None:
        """Power up and select the ISD-R; raises TransportError, or CardError EUICC.NOT_AN_EUICC."""
        self._earlier_apdus = self.apdus
        self.atr = self.port.power_up()
        number = self.port.open_channel(ISD_R, self._timeout_s)
        if number is not None:
            self._channel = CardChannel(self._transmit, number, self._block_size, trace=self._trace)
            return
        try:
            self._channel = open_channel(self._transmit, ISD_R, self._block_size, trace=self._trace)
        except StatusError as error:
            raise CardError("EUICC.NOT_AN_EUICC", f"the ISD-R cannot be selected ({error.detail})") from error

    def close(self) -> None:
        """Take the power away; never fails."""
        self._channel = None
        self.port.power_down()

    def eid(self) -> Eid:
        """GetEID (SGP.22 5.7.20)."""
        return es10.parse_eid(self.command(es10.eid_request()))

    def identify(self, eid: Eid, *, factory: bool = True) -> Identity:
        """Read EUICCInfo2 and the state of the factory services.

        Raises CardError EUICC.NO_IFPP when the chip has none and the recipe wants them (`factory`).
        """
        info2 = es10.parse_info2(self.command(es10.info2_request()))
        try:
            status = self.status() if factory else self.services()
        except (StatusError, WireError) as error:
            raise CardError("EUICC.NO_IFPP", "the chip does not answer GetFpaStatus", where=f"EID {eid}") from error
        return Identity(eid, self.atr, info2, status)

    def status(self) -> FpaStatus:
        """GetFpaStatus (FPX/1)."""
        return self.codec.parse_status(self.command(self.codec.status_request()))

    def services(self) -> FpaStatus:
        """As `status`; state ABSENT when the chip does not know the function, as no SGP.22 or SGP.32 chip need."""
        try:
            return self.status()
        except StatusError as error:
            if error.sw not in _UNKNOWN_FUNCTION:
                raise
            return FpaStatus(FpaState.ABSENT, 0, b"")

    def keys(self) -> OtkList:
        """ListOneTimeKeys (FPX/1), unsigned."""
        return self.codec.parse_otks(self.command(self.codec.otks_request()))

    def profiles(self) -> tuple[ProfileInfo, ...]:
        """GetProfilesInfo (SGP.22 5.7.15) with an explicit tag list."""
        return es10.parse_profiles(self.command(es10.profiles_request()))

    def notifications(self) -> tuple[PirEntry, ...]:
        """ListNotification (SGP.22 5.7.9)."""
        return es10.parse_notifications(self.command(es10.notifications_request()))

    def results(self, seq_number: int) -> tuple[InstallResult, ...]:
        """Fetch the kept ProfileInstallationResult of a number; empty when it is another kind of notification."""
        return es10.parse_retrieved(self.command(es10.retrieve_request(seq_number)))

    def forget(self, seq_number: int) -> None:
        """NotificationSent: the chip may drop a result that is stored elsewhere."""
        es10.parse_sent(self.command(es10.sent_request(seq_number)))

    def answers_field_lpa(self) -> bool:
        """True when GetEUICCChallenge answers, as it must once no one-time key is left (EUICCF04)."""
        try:
            es10.parse_challenge(self.command(es10.challenge_request()))
        except StatusError:
            return False
        return True

    def command(self, tlv: bytes, *, loading: bool = False) -> bytes:
        """Send one ES10 command and return its response data; raises StatusError, TransportError, WireError."""
        if self._channel is None:
            raise TransportError("CONTACT.LOST", "the chip is not powered", where=self.port.url)
        self._timeout_s = self._load_apdu_timeout_s if loading else self._apdu_timeout_s
        try:
            return self._channel.command(tlv)
        finally:
            self._timeout_s = self._apdu_timeout_s

    def repeatable(self, tlv: bytes, *, loading: bool = False) -> bytes:
        """Send a command that may be sent twice: when the link does not carry its blocks, again in smaller ones.

        `block_size` then stays at what worked. After silence the port is opened anew and the chip powered anew: a late
        answer must not be taken for another's. Never for the commands of a load, which only the chip can settle.
        """
        while True:
            try:
                return self.command(tlv, loading=loading)
            except CardError as error:
                less = smaller(min(len(tlv), self._block_size)) if blames_blocks(error) else None
                if less is None:
                    raise
                self.block_size = less
                if isinstance(error, TransportError):
                    self.port.open()
                    self.open()

    def _transmit(self, apdu: bytes) -> bytes:
        return self.port.transmit(apdu, self._timeout_s)

    @property
    def apdus(self) -> int:
        """STORE DATA and GET RESPONSE commands sent since the chip was powered first after `close`."""
        return 0 if self._channel is None else self._earlier_apdus + self._channel.apdus

    @property
    def block_size(self) -> int:
        """Bytes in one STORE DATA block, from now on."""
        return self._block_size

    @block_size.setter
    def block_size(self, size: int) -> None:
        self._block_size = min(size, self.port.max_block)
        if self._channel is not None:
            self._channel.block_size = self._block_size


def is_locked(status: FpaStatus) -> bool:
    """True when the factory services are closed for good."""
    return status.state == FpaState.LOCKED


def has_services(status: FpaStatus) -> bool:
    """False when the chip has no factory services at all."""
    return status.state != FpaState.ABSENT


def milliseconds_since(start: float) -> int:
    """Whole milliseconds since a `time.monotonic()` reading."""
    return round((time.monotonic() - start) * 1000)
