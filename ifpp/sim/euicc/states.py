"""ES10 functions that change profiles and settings: enable, disable, delete, reset, names (SGP.22 5.7)."""

from __future__ import annotations

from ifpp.sim.euicc.chip import DELETE, DISABLE, ENABLE, Chip, members
from ifpp.sim.euicc.metadata import OPERATIONAL, PPR1, PPR2, read_metadata
from ifpp.sim.euicc.nvm import Profile
from ifpp.sim.tlv import Node, integer, parse_one, read_bits, tlv

OK = 0
NOT_FOUND = 1
WRONG_STATE = 2
DISALLOWED_BY_POLICY = 3
NOTHING_TO_DELETE = 1
UNDEFINED = 127

_TEST = 0
_RESET_OPERATIONAL, _RESET_TEST, _RESET_ADDRESS = range(3)
_MAX_NICKNAME = 64


def enable_profile(chip: Chip, request: Node) -> bytes:
    """EnableProfile: another enabled profile is disabled by it unless its PPR1 forbids."""
    return _result(0xBF31, _enable(chip, _target(chip, members(request.value)[0xA0])))


def disable_profile(chip: Chip, request: Node) -> bytes:
    return _result(0xBF32, _disable(chip, _target(chip, members(request.value)[0xA0])))


def wants_refresh(request: Node) -> bool:
    """The refreshFlag of EnableProfile and DisableProfile (any non-zero octet is TRUE)."""
    return members(request.value).get(0x81, b"\x00") != b"\x00"


def delete_profile(chip: Chip, request: Node) -> bytes:
    profile = _target(chip, request.value)
    if profile is None:
        code = NOT_FOUND
    elif profile.enabled:
        code = WRONG_STATE
    elif PPR2 in read_metadata(profile.metadata).pprs:
        code = DISALLOWED_BY_POLICY
    else:
        code = OK
        _remove(chip, profile)
    return _result(0xBF33, code)


def memory_reset(chip: Chip, request: Node) -> bytes:
    """eUICCMemoryReset: profiles and default address go; lock, key states and sequence number stay."""
    options = read_bits(members(request.value)[0x82])
    classes = {profile.iccid: read_metadata(profile.metadata).profile_class for profile in chip.nvm.profiles}
    doomed = [
        profile
        for profile in chip.nvm.profiles
        if (classes[profile.iccid] == OPERATIONAL and _RESET_OPERATIONAL in options)
        or (classes[profile.iccid] == _TEST and _RESET_TEST in options)
    ]
    address = _RESET_ADDRESS in options and chip.nvm.default_dp_address != ""
    for profile in doomed:
        _remove(chip, profile)
    if address:
        chip.nvm.default_dp_address = ""
    return _result(0xBF34, OK if doomed or address else NOTHING_TO_DELETE)


def set_nickname(chip: Chip, request: Node) -> bytes:
    found = members(request.value)
    profile = chip.find_profile(found[0x5A])
    if profile is None:
        return _result(0xBF29, NOT_FOUND)
    if len(found[0x90]) > _MAX_NICKNAME:
        return _result(0xBF29, UNDEFINED)
    profile.nickname = found[0x90].decode()
    return _result(0xBF29, OK)


def set_default_address(chip: Chip, request: Node) -> bytes:
    chip.nvm.default_dp_address = members(request.value)[0x80].decode()
    return _result(0xBF3F, OK)


def _enable(chip: Chip, profile: Profile | None) -> int:
    if profile is None:
        return NOT_FOUND
    if profile.enabled:
        return WRONG_STATE
    for other in chip.nvm.profiles:
        if other.enabled and _disable(chip, other) != OK:
            return DISALLOWED_BY_POLICY
    profile.enabled = True
    chip.notify(ENABLE, read_metadata(profile.metadata).recipients(ENABLE), profile.iccid)
    return OK


def _disable(chip: Chip, profile: Profile | None) -> int:
    if profile is None:
        return NOT_FOUND
    if not profile.enabled:
        return WRONG_STATE
    metadata = read_metadata(profile.metadata)
    if PPR1 in metadata.pprs:
        return DISALLOWED_BY_POLICY
    profile.enabled = False
    chip.notify(DISABLE, metadata.recipients(DISABLE), profile.iccid)
    return OK


def _remove(chip: Chip, profile: Profile) -> None:
    chip.nvm.profiles.remove(profile)
    chip.notify(DELETE, read_metadata(profile.metadata).recipients(DELETE), profile.iccid)


def _target(chip: Chip, identifier: bytes) -> Profile | None:
    """The profile named by ICCID (5A) or ISD-P AID (4F)."""
    named = parse_one(identifier)
    if named.tag == 0x4F:
        return next((profile for profile in chip.nvm.profiles if profile.aid == named.value), None)
    if named.tag != 0x5A:
        raise ValueError("profile identifier")
    return chip.find_profile(named.value)


def _result(tag: int, code: int) -> bytes:
    return tlv(tag, tlv(0x80, integer(code)))
