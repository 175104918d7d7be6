"""The eIMs an IoT chip obeys (SGP.32 v1): the first is made known in the factory, all can be read."""

from __future__ import annotations

from ifpp.sim.euicc.chain import key_identifier
from ifpp.sim.euicc.chip import NOT_FOUND, Chip, StatusWordError, members
from ifpp.sim.tlv import Node, integer, parse, parse_one, tlv

_MEMORY, _EXISTS, _UNKNOWN_CI, _COMMAND = 1, 2, 3, 7
_KNOWN = frozenset({0x80, 0x81, 0x82, 0x83, 0x84, 0xA5, 0xA6, 0x87, 0x88, 0x89, 0xAA})
_MAX_ID = 128
_MAX_BYTES = 4_096


class _RefusedError(Exception):
    """AddInitialEim is refused with this number."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def get_configuration(chip: Chip, request: Node) -> bytes:
    """GetEimConfigurationData, of all or of one by its id."""
    _require_iot(chip)
    found = members(request.value)
    wanted = members(found[0xA0])[0x80] if 0xA0 in found else None
    chosen = [raw for raw in chip.nvm.eims if wanted is None or _members(raw)[0x80] == wanted]
    return tlv(0xBF55, tlv(0xA0, *chosen))


def add_initial(chip: Chip, request: Node) -> bytes:
    """AddInitialEim: only while the chip knows none; all of the list or nothing."""
    _require_iot(chip)
    try:
        listed = [node.raw for node in parse(members(request.value)[0xA0])]
        for raw in listed:
            _check(chip, raw)
        if chip.nvm.eims or len({_members(raw)[0x80] for raw in listed}) < len(listed):
            raise _RefusedError(_EXISTS)
        if sum(map(len, listed)) > _MAX_BYTES:
            raise _RefusedError(_MEMORY)
    except _RefusedError as refused:
        return tlv(0xBF57, tlv(0x81, integer(refused.number)))
    chip.nvm.eims = listed
    return tlv(0xBF57, tlv(0xA0, *(_added(raw) for raw in listed)))


def set_default_address(chip: Chip, request: Node) -> bytes:
    """SetDefaultDpAddress in the form of SGP.32."""
    _require_iot(chip)
    chip.nvm.default_dp_address = members(request.value)[0x80].decode()
    return tlv(0xBF65, tlv(0x80, integer(0)))


def _added(raw: bytes) -> bytes:
    """addOk, or the association token where one was asked for."""
    return tlv(0x84, integer(1)) if 0x84 in _members(raw) else tlv(0x05)


def _check(chip: Chip, raw: bytes) -> None:
    try:
        found = _members(raw)
        name = found[0x80].decode()
        key = members(found[0xA5]) if 0xA5 in found else {}
    except (ValueError, KeyError):
        raise _RefusedError(_COMMAND) from None
    if not found.keys() <= _KNOWN or not 1 <= len(name) <= _MAX_ID or len(key) != 1:
        raise _RefusedError(_COMMAND)
    if 0x88 in found and found[0x88] not in map(key_identifier, chip.card.ci_certificates):
        raise _RefusedError(_UNKNOWN_CI)


def _members(raw: bytes) -> dict[int, bytes]:
    return members(parse_one(raw, 0x30).value)


def _require_iot(chip: Chip) -> None:
    if not chip.card.iot:
        raise StatusWordError(NOT_FOUND)
