"""APDUs between the line and an ISD-R: four small layers around one `Transmit`.

    CardChannel      one ES10 command = a chain of STORE DATA blocks on one logical channel     (SGP.22 5.7.2)
    _WholeAnswer     61xx: fetch the rest with GET RESPONSE                                     (ISO 7816-4, T=0)
    _ExactLength     6Cxx: once more with the length the card asks for                          (ISO 7816-4, T=0)
    _Line            bytes out and in, counted and traced without their payload

A card that says anything else than success raises StatusError; an answer shorter than a status word means that the
card has gone (PC/SC reports a card pulled during a command as success with nothing) and raises TransportError.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ifpp.errors import CardError, SettingsError, TransportError, WireError

Transmit = Callable[[bytes], bytes]
"""One command APDU in; response data followed by SW1 SW2 out."""

ISD_R = bytes.fromhex("A0000005591010FFFFFFFF8900000100")
MAX_ANSWER_BYTES = 64 * 1024
MAX_ROUNDS = 1024  # four times what 256-byte answers need
MAX_BLOCKS = 256  # the block number P2 is one byte
BLOCK_BYTES = 255  # Lc is one byte; extended length is not used by any eUICC known

_STORE_DATA, _GET_RESPONSE, _SELECT, _MANAGE_CHANNEL, _TERMINAL_CAPABILITY = 0xE2, 0xC0, 0xA4, 0x70, 0xAA
_MORE_BLOCKS, _LAST_BLOCK = 0x11, 0x91
_COUNTED = frozenset({_STORE_DATA, _GET_RESPONSE})
# A9: extended logical channels, additional interfaces, eUICC-related: LUId, LPDd and LDSd present (TS 102 221 11.1.19).
_TERMINAL = bytes.fromhex("A9088100820101830107")

_MEANINGS = {
    0x6581: "memory failure",
    0x6601: "checksum error on the link: use smaller blocks",
    0x6700: "wrong length",
    0x6881: "logical channel not supported",
    0x6982: "security status not satisfied",
    0x6985: "conditions of use not satisfied: no session, wrong order or service locked",
    0x6999: "application selection failed",
    0x6A80: "wrong data",
    0x6A81: "function not supported",
    0x6A82: "application not found",
    0x6A84: "not enough memory",
    0x6A86: "wrong P1 P2",
    0x6A88: "referenced data not found",
    0x6D00: "instruction unknown",
    0x6E00: "class unknown",
    0x6F00: "unspecified error",
}
_NO_APPLICATION = frozenset({0x6A82, 0x6999})
_CHANNEL_NOT_SUPPORTED = 0x6881


class StatusError(CardError):
    """The card answered a command with a status word that means no; `sw` is that number."""

    def __init__(self, sw: int, command: str, *, code: str = "EUICC.STATUS_WORD") -> None:
        self.sw = sw
        super().__init__(code, f"{command} answered {sw:04X} ({_MEANINGS.get(sw, 'no meaning known')})")


@dataclass(frozen=True, slots=True)
class Apdu:
    """A short command APDU; `le` is the number of bytes wanted (256 is coded 00), None for no Le field."""

    cla: int
    ins: int
    p1: int
    p2: int
    data: bytes = field(default=b"", repr=False)
    le: int | None = None

    def encode(self) -> bytes:
        head = bytes((self.cla, self.ins, self.p1, self.p2))
        lc = bytes((len(self.data),)) if self.data else b""
        le = b"" if self.le is None else bytes((self.le % 256,))
        return head + lc + self.data + le


@dataclass(frozen=True, slots=True)
class Response:
    """Response data and status word of one exchange."""

    data: bytes = field(repr=False)
    sw: int

    @property
    def ok(self) -> bool:
        """True for 9000, and for 91xx: done, with a proactive command pending (TS 102 221 10.2.1.2)."""
        return self.sw == 0x9000 or self.sw >> 8 == 0x91


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a trace may know of one APDU: never its payload. `lc` and `answer_bytes` are sizes in bytes."""

    cla: int
    ins: int
    p1: int
    p2: int
    lc: int
    sw: int
    answer_bytes: int
    duration_ms: float


Trace = Callable[[Exchange], None]


class _Line:
    """Innermost layer: send one APDU, cut off the status word, count and trace."""

    def __init__(self, transmit: Transmit, trace: Trace | None, monotonic: Callable[[], float]) -> None:
        self._transmit = transmit
        self._trace = trace
        self._monotonic = monotonic
        self.apdus = 0

    def send(self, apdu: Apdu) -> Response:
        self.apdus += apdu.ins in _COUNTED
        started = self._monotonic()
        answer = self._transmit(apdu.encode())
        if len(answer) < 2:
            raise TransportError("CONTACT.LOST", f"the card answered {len(answer)} bytes and no status word")
        response = Response(answer[:-2], int.from_bytes(answer[-2:], "big"))
        if self._trace is not None:
            duration_ms = (self._monotonic() - started) * 1000
            size = len(response.data)
            self._trace(Exchange(apdu.cla, apdu.ins, apdu.p1, apdu.p2, len(apdu.data), response.sw, size, duration_ms))
        return response


class _ExactLength:
    """6Cxx: send the same command once more with Le = xx."""

    def __init__(self, inner: _Line) -> None:
        self._inner = inner

    def send(self, apdu: Apdu) -> Response:
        response = self._inner.send(apdu)
        if response.sw >> 8 != 0x6C:
            return response
        again = Apdu(apdu.cla, apdu.ins, apdu.p1, apdu.p2, apdu.data, _wanted(response.sw))
        return self._inner.send(again)


class _WholeAnswer:
    """61xx: fetch the announced bytes with GET RESPONSE until the card has no more; bounded in bytes and rounds."""

    def __init__(self, inner: _ExactLength, channel: int) -> None:
        self._inner = inner
        self._cla = interindustry_cla(channel)

    def send(self, apdu: Apdu) -> Response:
        response = self._inner.send(apdu)
        if response.sw >> 8 != 0x61:
            return response
        data = bytearray(response.data)
        for _ in range(MAX_ROUNDS):
            response = self._inner.send(Apdu(self._cla, _GET_RESPONSE, 0, 0, le=_wanted(response.sw)))
            data += response.data
            if len(data) > MAX_ANSWER_BYTES:
                raise WireError(f"the card's answer is longer than {MAX_ANSWER_BYTES} bytes")
            if response.sw >> 8 != 0x61:
                return Response(bytes(data), response.sw)
        raise WireError(f"the card still announces data after {MAX_ROUNDS} GET RESPONSE")


class CardChannel:
    """One logical channel with a selected application, for one owner thread.

    `transmit` carries APDUs; `channel` is 0 to 19; `block_size` is the number of command bytes in one STORE DATA.
    `trace` hears of every APDU, without its payload. `apdus` counts the STORE DATA and GET RESPONSE sent so far.
    """

    def __init__(
        self,
        transmit: Transmit,
        channel: int,
        block_size: int = BLOCK_BYTES,
        *,
        trace: Trace | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= block_size <= BLOCK_BYTES:
            raise SettingsError("SETTINGS.INVALID", f"a block has 1 to {BLOCK_BYTES} bytes, not {block_size}")
        self.channel = channel
        self.block_size = block_size
        self._cla = proprietary_cla(channel)
        self._line = _Line(transmit, trace, monotonic)
        self._stack = _WholeAnswer(_ExactLength(self._line), channel)

    @property
    def apdus(self) -> int:
        return self._line.apdus

    def send(self, apdu: Apdu) -> Response:
        """Send one APDU as it stands, fetch its whole answer and return it whatever its status word."""
        return self._stack.send(apdu)

    def command(self, tlv: bytes) -> bytes:
        """Send one ES10 command and return its response data (empty when the card has nothing to say).

        Raises StatusError for a status word other than success, TransportError when the card is gone, WireError for
        a command that does not fit a chain (refused before the first byte) and for an endless answer. A card that
        already answers an inner block has decided: the remaining blocks are not sent.
        """
        blocks = split_blocks(tlv, self.block_size)
        last = len(blocks) - 1
        data = b""
        for number, block in enumerate(blocks):
            p1 = _LAST_BLOCK if number == last else _MORE_BLOCKS
            response = self.send(Apdu(self._cla, _STORE_DATA, p1, number, block))
            if not response.ok:
                raise StatusError(response.sw, f"STORE DATA block {number + 1} of {last + 1}")
            data = response.data
            if data:
                break
        return data

    def segment(self, segment: bytes) -> bytes:
        """Send one segment of a bound profile package: a command of its own (SGP.22 2.5.5, 5.7.6)."""
        return self.command(segment)

    def select(self, aid: bytes) -> None:
        """Select an application on this channel; raises StatusError (EUICC.NOT_AN_EUICC when there is none)."""
        response = self.send(Apdu(interindustry_cla(self.channel), _SELECT, 0x04, 0x00, aid))
        if not response.ok:
            code = "EUICC.NOT_AN_EUICC" if response.sw in _NO_APPLICATION else "EUICC.STATUS_WORD"
            raise StatusError(response.sw, f"SELECT on channel {self.channel}", code=code)

    def close(self) -> None:
        """Give the logical channel back; never fails (a card that has gone has closed it)."""
        if self.channel:
            with suppress(CardError, WireError):
                self.send(Apdu(0x00, _MANAGE_CHANNEL, 0x80, self.channel))


def open_channel(
    transmit: Transmit,
    aid: bytes = ISD_R,
    block_size: int = BLOCK_BYTES,
    *,
    trace: Trace | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> CardChannel:
    """Open a logical channel on a freshly reset card and select `aid` on it.

    Sends TERMINAL CAPABILITY (any answer will do), MANAGE CHANNEL and SELECT. A card or reader without logical
    channels (6881) is used on its basic channel. Raises StatusError, TransportError, WireError.
    """
    basic = CardChannel(transmit, 0, block_size, trace=trace, monotonic=monotonic)
    basic.send(Apdu(0x80, _TERMINAL_CAPABILITY, 0, 0, _TERMINAL))
    number = _manage_channel(basic)
    channel = CardChannel(transmit, number, block_size, trace=trace, monotonic=monotonic) if number else basic
    try:
        channel.select(aid)
    except CardError:
        channel.close()
        raise
    return channel


def split_blocks(command: bytes, block_size: int) -> list[bytes]:
    """Cut a command into the blocks of one STORE DATA chain; raises WireError when it does not fit."""
    if not command:
        raise WireError("an empty command cannot be sent")
    count = -(-len(command) // block_size)
    if count > MAX_BLOCKS:
        raise WireError(f"{len(command)} bytes need {count} blocks of {block_size}, a chain has at most {MAX_BLOCKS}")
    return [command[at : at + block_size] for at in range(0, len(command), block_size)]


def interindustry_cla(channel: int) -> int:
    """Return the class byte of SELECT and GET RESPONSE on a logical channel 0 to 19 (ISO 7816-4 5.4.1)."""
    return _cla(channel, 0x00, 0x40)


def proprietary_cla(channel: int) -> int:
    """Return the class byte of STORE DATA on a logical channel 0 to 19 (GlobalPlatform 11.1.4)."""
    return _cla(channel, 0x80, 0xC0)


def _cla(channel: int, first: int, further: int) -> int:
    if not 0 <= channel <= 19:
        raise WireError(f"there is no logical channel {channel}")
    return first | channel if channel < 4 else further | channel - 4


def _wanted(sw: int) -> int:
    """Number of bytes a 61xx or 6Cxx names; 00 means 256."""
    return sw & 0xFF or 256


def _manage_channel(basic: CardChannel) -> int:
    """Return the number of a new logical channel, 0 when the card has only the basic one."""
    response = basic.send(Apdu(0x00, _MANAGE_CHANNEL, 0x00, 0x00, le=1))
    if response.sw == _CHANNEL_NOT_SUPPORTED:
        return 0
    if not response.ok:
        raise StatusError(response.sw, "MANAGE CHANNEL open")
    number = response.data[0] if len(response.data) == 1 else 0
    if not 1 <= number <= 19:
        raise WireError(f"MANAGE CHANNEL opened no channel 1 to 19 (answer of {len(response.data)} bytes, {number})")
    return number
