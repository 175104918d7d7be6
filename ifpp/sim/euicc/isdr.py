"""The ISD-R: takes one complete ES10 command, checks the gate of its function, and answers data or a status word."""

from __future__ import annotations

from collections.abc import Callable

from ifpp.sim.euicc import eim, fpa, gating, install, load, online, reads, states
from ifpp.sim.euicc.chip import CONDITIONS, NOT_FOUND, WRONG_DATA, Chip, StatusWordError
from ifpp.sim.tlv import Node, parse, parse_one

_LOAD_BPP = 0xBF36
_UNSUPPORTED_OPERATION = 0x6A81
# these start something new: on the channel of a load they end it, elsewhere they have to wait for it
_NEW_SESSION = frozenset({_LOAD_BPP, 0xBF21, 0xBF2E, 0xBF38, 0xBF41})
_SEGMENTS = frozenset({0x86, 0x87, 0x88, 0xA0, 0xA1, 0xA2, 0xA3})
_ENABLE, _DISABLE = 0xBF31, 0xBF32

_FUNCTIONS: dict[int, Callable[[Chip, Node], bytes]] = {
    0xBF20: reads.get_info1,
    0xBF21: online.prepare_download,
    0xBF22: reads.get_info2,
    0xBF28: reads.list_notifications,
    0xBF29: states.set_nickname,
    0xBF2B: reads.retrieve_notifications,
    0xBF2D: reads.get_profiles_info,
    0xBF2E: online.get_challenge,
    0xBF30: reads.remove_notification,
    _ENABLE: states.enable_profile,
    _DISABLE: states.disable_profile,
    0xBF33: states.delete_profile,
    0xBF34: states.memory_reset,
    0xBF38: online.authenticate_server,
    0xBF3C: reads.get_addresses,
    0xBF3E: reads.get_eid,
    0xBF3F: states.set_default_address,
    0xBF41: online.cancel_session,
    0xBF43: reads.get_rat,
    0xBF55: eim.get_configuration,
    0xBF57: eim.add_initial,
    0xBF65: eim.set_default_address,
    gating.F9_STATUS: fpa.get_status,
    gating.F9_LIST: fpa.list_keys,
    gating.F9_DELETE: fpa.delete_keys,
    gating.F9_LOCK: fpa.lock,
}


class Isdr:
    """ES10 dispatch over one chip; holds the running load, which power or channel loss ends."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.refresh = False
        self._load: load.Load | None = None

    def command(self, channel: int, data: bytes) -> bytes:
        """Execute one command; the answer may be empty. Raises StatusWordError."""
        running = self._load
        if running is not None and running.channel == channel and data[0] not in (0xBF, 0xF9):
            return self._segment(running, data)
        operation = _operation(data, factory=bool(self.chip.card.one_time_keys))
        if running is not None and running.channel == channel and not _known(operation):
            return self._segment(running, data)
        return self._function(channel, operation, data)

    def leave(self, channel: int) -> None:
        """The channel was closed, or something was selected on it anew."""
        if self._load is not None and self._load.channel == channel:
            self._interrupt()

    def _segment(self, running: load.Load, data: bytes) -> bytes:
        try:
            result = running.segment(data)
        except install.LoadError as error:
            result = running.refuse(error)
        if result is not None:
            self._load = None
        return result or b""

    def _function(self, channel: int, operation: int, data: bytes) -> bytes:
        chip = self.chip
        nvm = chip.nvm
        if not gating.allowed(operation, chip.stage, connectivity_test=nvm.connectivity_test, rework=nvm.rework):
            raise StatusWordError(CONDITIONS)
        if operation in _NEW_SESSION and self._load is not None:
            if self._load.channel != channel:
                raise StatusWordError(CONDITIONS)
            self._interrupt()
        if operation == _LOAD_BPP:
            self._load, result = load.begin(chip, channel, data)
            return result or b""
        return self._call(operation, data)

    def _call(self, operation: int, data: bytes) -> bytes:
        function = _FUNCTIONS.get(operation)
        if function is None:
            raise StatusWordError(_refusal(operation, data))
        try:
            request = parse_one(data)
            answer = function(self.chip, request.children()[0] if request.tag == 0xF9 else request)
            self.refresh = (
                operation in (_ENABLE, _DISABLE) and answer[-1] == states.OK and states.wants_refresh(request)
            )
        except (ValueError, KeyError):
            raise StatusWordError(CONDITIONS if self.chip.nvm.locked and operation == 0xBF21 else WRONG_DATA) from None
        return answer

    def _interrupt(self) -> None:
        self._load = None
        install.resolve_interruption(self.chip)


def _operation(data: bytes, *, factory: bool) -> int:
    """The function asked for: a two-byte request tag, or F9 with the tag of its operation; 0 when there is none.

    `factory`: a chip that never had one-time keys has no factory services either, and does not know F9.
    """
    if data[0] == 0xBF and len(data) > 1:
        return 0xBF00 | data[1]
    if data[0] == 0xF9 and factory:
        try:
            operations = parse(parse_one(data).value)
        except ValueError:
            return 0
        return 0xF900 | operations[0].tag if len(operations) == 1 else 0
    return 0


def _known(operation: int) -> bool:
    return operation in _FUNCTIONS or operation == _LOAD_BPP


def _refusal(operation: int, data: bytes) -> int:
    if operation >> 8 == 0xF9:
        return _UNSUPPORTED_OPERATION
    if data[0] in _SEGMENTS:
        return CONDITIONS
    return NOT_FOUND if operation else WRONG_DATA
