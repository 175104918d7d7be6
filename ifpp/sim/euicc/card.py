"""The card side of a virtual eUICC: APDUs, logical channels, STORE DATA chains, GET RESPONSE (ISO 7816-4, TS 102 221).

It behaves as a T=0 card: response data of a case 4 command wait for GET RESPONSE (61xx), which must come next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifpp.sim import card_file
from ifpp.sim.card_file import CardFile
from ifpp.sim.euicc import install
from ifpp.sim.euicc.chip import Chip, StatusWordError
from ifpp.sim.euicc.isdr import Isdr
from ifpp.sim.euicc.nvm import KeyState, Nvm
from ifpp.sim.tlv import tlv

ISDR_AID = bytes.fromhex("a0000005591010ffffffff8900000100")
# T=0 with T=15 global bytes (class A to C), eUICC related historical bytes, TCK
ATR = bytes.fromhex("3b9f96801fc78031e073fe211b67494650502f3100c1")
_FCI = tlv(0x6F, tlv(0x84, ISDR_AID), tlv(0xA5, bytes.fromhex("9f6501ff")), tlv(0xE0, bytes.fromhex("8203020202")))
_REFRESH = bytes.fromhex("d009810301010482028182")

_OK = b"\x90\x00"
_MORE_BLOCKS, _LAST_BLOCK = 0x11, 0x91
_MAX_COMMAND = 16_384
_CHANNELS = 20
_NO_CHANNEL = -1


def _channel_of(cla: int) -> int:
    """The logical channel of a class byte without secure messaging or chaining (TS 102 221 10.1.1)."""
    if cla & 0x7C == 0:
        return cla & 0x03
    return 4 + (cla & 0x0F) if cla & 0x70 == 0x40 else _NO_CHANNEL


_CHANNEL = tuple(_channel_of(cla) for cla in range(256))


@dataclass(frozen=True, slots=True)
class BlockLimit:
    """A link that carries no STORE DATA blocks above `size` bytes: it answers them with `sw` (6700 or 6601).

    `sw` 0: the chip loses step and says nothing more until it is powered anew.
    """

    size: int
    sw: int = 0x6700


class _Channel:
    """One open logical channel: what is selected on it, and the blocks of an unfinished STORE DATA chain."""

    __slots__ = ("blocks", "isdr_selected", "next_block", "size")

    def __init__(self) -> None:
        self.isdr_selected = False
        self.start()

    def start(self) -> None:
        """Begin a new STORE DATA chain."""
        self.blocks: list[bytes] = []
        self.next_block = 0
        self.size = 0


class Euicc:
    """One virtual eUICC as a state machine: `process` takes a command APDU and returns response data and status word.

    A new object has no power. `reset` powers it (or resets it: volatile state is lost either way), `power_off` mutes
    it; without power `process` answers nothing at all. `apdus` counts the STORE DATA and GET RESPONSE received in the
    object's life; `load_apdus` says for each result delivered how many of them it took, from the PrepareDownload
    (BF21) of the same session to the last byte of the result (BF37), `download_apdus` the same from the
    GetEUICCChallenge (BF2E), where there was one. `limit` is a fault of the link, set at will.
    """

    atr = ATR

    def __init__(self, card: CardFile, nvm: Nvm | None = None) -> None:
        self.chip = Chip(card, nvm)
        self.apdus = 0
        self.load_apdus: list[int] = []
        self.download_apdus: list[int] = []
        self.limit: BlockLimit | None = None
        self._powered = False
        self._forget()

    @classmethod
    def load(cls, path: Path) -> Euicc:
        """Read a card file: as personalised, or as saved; raises ValueError, KeyError when it is not one."""
        document: dict[str, Any] = json.loads(path.read_bytes())
        saved = document.get("nvm")
        return cls(card_file.load(path), None if saved is None else Nvm.from_document(saved))

    def save(self, path: Path) -> None:
        """Write the changed state into the card file, all or nothing; spent private keys are gone from it."""
        document: dict[str, Any] = json.loads(path.read_bytes())
        document["nvm"] = self.chip.nvm.to_document()
        for entry, slot in zip(document["one_time_keys"], self.chip.nvm.keys, strict=True):
            if slot.state > KeyState.RESERVED:
                entry["private"] = ""
        fresh = path.with_suffix(".new")
        card_file.write_private(fresh, json.dumps(document).encode())
        fresh.replace(path)

    @property
    def nvm(self) -> Nvm:
        return self.chip.nvm

    def power_off(self) -> None:
        self._powered = False
        self._forget()

    def reset(self) -> bytes:
        """Cold or warm reset; returns the ATR. A load that power loss has interrupted gets its result now."""
        self._forget()
        install.resolve_interruption(self.chip)
        self.chip.power_lost()
        self._powered = True
        return self.atr

    def process(self, apdu: bytes) -> bytes:
        """Execute one command APDU."""
        if not self._powered:
            return b""
        try:
            return self._dispatch(apdu)
        except StatusWordError as refused:
            return refused.sw.to_bytes(2, "big")

    def _dispatch(self, apdu: bytes) -> bytes:
        if len(apdu) < 4:
            raise StatusWordError(0x6700)
        number = _CHANNEL[apdu[0]]
        if number == _NO_CHANNEL:
            raise StatusWordError(0x6E00)
        channel = self._channels.get(number)
        if channel is None:
            raise StatusWordError(0x6881)
        if apdu[1] == 0xE2:
            return self._store_data(number, channel, apdu)
        if apdu[1] == 0xC0:
            return self._get_response(number, apdu)
        self._waiting = b""
        return self._interindustry(number, channel, apdu) if apdu[0] < 0x80 else _proprietary(apdu)

    def _forget(self) -> None:
        """Lose all volatile state."""
        self.silent = False  # a seated chip that does not answer any more
        self._channels = {0: _Channel()}
        self._isdr = Isdr(self.chip)
        self._waiting = b""
        self._waiting_channel = 0
        self._result_waits = False
        self._final = _OK
        self._load_began = 0
        self._session_began = 0

    def _store_data(self, number: int, channel: _Channel, apdu: bytes) -> bytes:
        """One block of an ES10 command (SGP.22 5.7.2, GlobalPlatform 11.11): P2 counts blocks from 0."""
        self.apdus += 1
        self._waiting = b""
        if apdu[0] < 0x80 or not channel.isdr_selected:
            raise StatusWordError(0x6E00 if apdu[0] < 0x80 else 0x6D00)
        size = len(apdu)
        if self.limit is not None and size > 5 + self.limit.size:
            return self._exceed(self.limit)
        if size < 6 or apdu[4] == 0 or not 5 + apdu[4] <= size <= 6 + apdu[4]:
            raise StatusWordError(0x6700)
        kind, block = apdu[2], apdu[3]
        if block == 0:
            channel.start()
            if apdu[5:7] == b"\xbf\x21":
                self._load_began = self.apdus
            elif apdu[5:7] == b"\xbf\x2e":
                self._session_began = self.apdus
        if block != channel.next_block or kind not in (_MORE_BLOCKS, _LAST_BLOCK):
            channel.start()
            raise StatusWordError(0x6A86)
        piece = apdu[5 : 5 + apdu[4]]
        if kind == _MORE_BLOCKS:
            return self._keep(channel, piece)
        command = b"".join((*channel.blocks, piece)) if block else piece
        channel.start()
        return self._execute(number, command)

    def _exceed(self, limit: BlockLimit) -> bytes:
        if limit.sw:
            raise StatusWordError(limit.sw)
        self._powered = False
        self.silent = True
        return b""

    def _keep(self, channel: _Channel, piece: bytes) -> bytes:
        channel.blocks.append(piece)
        channel.next_block += 1
        channel.size += len(piece)
        if channel.size > _MAX_COMMAND:
            channel.start()
            raise StatusWordError(0x6A84)
        return _OK

    def _execute(self, number: int, command: bytes) -> bytes:
        data = self._isdr.command(number, command)
        self._final = b"\x91" + bytes((len(_REFRESH),)) if self._isdr.refresh else _OK
        self._isdr.refresh = False
        return self._case4(number, data) if data else _OK

    def _case4(self, number: int, data: bytes) -> bytes:
        self._waiting = data
        self._waiting_channel = number
        self._result_waits = data[:2] == b"\xbf\x37"
        return bytes((0x61, min(len(data), 256) & 0xFF))

    def _get_response(self, number: int, apdu: bytes) -> bytes:
        self.apdus += 1
        waiting = self._waiting
        if not waiting or self._waiting_channel != number or apdu[2:4] != b"\x00\x00":
            self._waiting = b""
            raise StatusWordError(0x6985)
        wanted = (apdu[4] if len(apdu) > 4 else 0) or 256
        if wanted > len(waiting):
            raise StatusWordError(0x6C00 | len(waiting))
        part, self._waiting = waiting[:wanted], waiting[wanted:]
        if self._waiting:
            return part + bytes((0x61, min(len(self._waiting), 256) & 0xFF))
        if self._result_waits and self._load_began:
            self._count_load()
        return part + self._final

    def _count_load(self) -> None:
        """The result of a load has gone out to its last byte."""
        self.load_apdus.append(self.apdus - self._load_began + 1)
        if self._session_began:
            self.download_apdus.append(self.apdus - self._session_began + 1)
        self._load_began = self._session_began = 0

    def _interindustry(self, number: int, channel: _Channel, apdu: bytes) -> bytes:
        if apdu[1] == 0xA4:
            return self._select(number, channel, apdu)
        if apdu[1] == 0x70:
            return self._manage_channel(apdu)
        raise StatusWordError(0x6D00)

    def _select(self, number: int, channel: _Channel, apdu: bytes) -> bytes:
        """SELECT by AID; what is no AID of this card leaves the selection as it was."""
        if apdu[2] != 0x04:
            raise StatusWordError(0x6A86)
        if len(apdu) < 6 or len(apdu) < 5 + apdu[4]:
            raise StatusWordError(0x6700)
        if apdu[5 : 5 + apdu[4]] != ISDR_AID:
            raise StatusWordError(0x6A82)
        self._isdr.leave(number)
        channel.start()
        channel.isdr_selected = True
        self._final = _OK
        return _OK if apdu[3] & 0x0C == 0x0C else self._case4(number, _FCI)

    def _manage_channel(self, apdu: bytes) -> bytes:
        """Open (P1 00) the next free channel or the one in P2, or close (P1 80) the one in P2."""
        action, number = apdu[2], apdu[3]
        if action == 0x80 and number:
            if number not in self._channels:
                raise StatusWordError(0x6881)
            self._isdr.leave(number)
            del self._channels[number]
            return _OK
        if action != 0 or number >= _CHANNELS:
            raise StatusWordError(0x6A86)
        return self._open_named(number) if number else self._open_next(apdu)

    def _open_named(self, number: int) -> bytes:
        if number in self._channels:
            raise StatusWordError(0x6881)
        self._channels[number] = _Channel()
        return _OK

    def _open_next(self, apdu: bytes) -> bytes:
        if apdu[4:] != b"\x01":
            raise StatusWordError(0x6C01)
        free = next((each for each in range(1, _CHANNELS) if each not in self._channels), None)
        if free is None:
            raise StatusWordError(0x6A81)
        self._channels[free] = _Channel()
        return bytes((free,)) + _OK


def _proprietary(apdu: bytes) -> bytes:
    """Commands of TS 102 221 on any channel; what they say changes nothing here."""
    if apdu[1] == 0xAA:  # TERMINAL CAPABILITY
        if len(apdu) < 6 or len(apdu) < 5 + apdu[4]:
            raise StatusWordError(0x6700)
        return _OK
    if apdu[1] == 0x12:  # FETCH: the one proactive command there is, asked for by 91xx
        if apdu[4:] != bytes((len(_REFRESH),)):
            raise StatusWordError(0x6C00 | len(_REFRESH))
        return _REFRESH + _OK
    if apdu[1] == 0x14:  # TERMINAL RESPONSE
        return _OK
    raise StatusWordError(0x6D00)
