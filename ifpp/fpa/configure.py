"""What a recipe sets on a chip once its one-time keys are gone: profile states, nicknames, addresses, an eIM.

Every function reads first and may be repeated wherever it was interrupted. A refusal by status word means that the
chip did nothing (SGP.22 5.7; SGP.32).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip
from ifpp.model.chip import EimData, ProfileInfo
from ifpp.model.ids import Iccid
from ifpp.wire import configuration, es10
from ifpp.wire.apdu import StatusError

_OK, _POLICY = 0, 3
_DISABLED, _ENABLED = 0, 1


def enable(chip: Chip, iccid: Iccid) -> str:
    """Enable a profile, reset the chip and read that it is so; returns what was done.

    Raises CardError EUICC.POLICY, EUICC.NOT_SWITCHED, TransportError, WireError.
    """
    return _switch(chip, iccid, _ENABLED, "EnableProfile", es10.enable_request, es10.parse_enable)


def disable(chip: Chip, iccid: Iccid) -> str:
    """Disable a profile, in the same way."""
    return _switch(chip, iccid, _DISABLED, "DisableProfile", es10.disable_request, es10.parse_disable)


def _switch(
    chip: Chip,
    iccid: Iccid,
    wanted: int,
    what: str,
    request: Callable[[Iccid], bytes],
    parse: Callable[[bytes], int],
) -> str:
    where = f"ICCID {iccid}"
    if _listed(chip, iccid).state == wanted:
        return "was so"
    result = parse(_ask(chip, request(iccid), what, where))
    if result == _POLICY:
        raise CardError("EUICC.POLICY", f"{what}: disallowed by policy", where=where)
    if result != _OK:
        raise CardError("EUICC.NOT_SWITCHED", f"{what} answered {result}", where=where)
    chip.open()  # without a refresh a chip may show its new state only after a reset
    if _listed(chip, iccid).state != wanted:
        raise CardError("EUICC.NOT_SWITCHED", f"{what} succeeded, and the chip shows the old state", where=where)
    return "done"


def set_nickname(chip: Chip, iccid: Iccid, nickname: str) -> None:
    """Name a profile; raises CardError EUICC.NOT_SET."""
    where = f"ICCID {iccid}"
    answer = _ask(chip, configuration.nickname_request(iccid, nickname), "SetNickname", where, "EUICC.NOT_SET")
    _require(configuration.parse_nickname(answer), "SetNickname", where)


def set_default_address(chip: Chip, address: str, where: str) -> None:
    """Set the default SM-DP+ address, in the form the chip knows; raises CardError EUICC.NOT_SET."""
    iot = False
    try:
        answer = chip.command(configuration.default_address_request(address))
    except StatusError:  # a chip for IoT may know the form of SGP.32 alone
        iot = True
        request = configuration.default_address_request(address, iot=True)
        answer = _ask(chip, request, "SetDefaultDpAddress", where, "EUICC.NOT_SET")
    _require(configuration.parse_default_address(answer, iot=iot), "SetDefaultDpAddress", where)


def eims(chip: Chip) -> tuple[EimData, ...]:
    """The eIMs a chip knows (SGP.32); raises StatusError from a chip that knows no such function."""
    return configuration.parse_eims(chip.command(configuration.eims_request()))


def add_eim(chip: Chip, eim: EimData, where: str) -> str:
    """Make an eIM known to a chip that knows none, or knows this one already; returns what was done.

    Raises CardError EIM.OTHER, EUICC.NOT_SET.
    """
    answer = _ask(chip, configuration.eims_request(), "GetEimConfigurationData", where, "EUICC.NOT_SET")
    known = configuration.parse_eims(answer)
    if any(same_eim(each, eim) for each in known):
        return "was so"
    if known:
        raise CardError("EIM.OTHER", f"it knows {', '.join(each.id for each in known)}", where=where)
    answer = _ask(chip, configuration.add_eim_request(eim), "AddInitialEim", where, "EUICC.NOT_SET")
    _require(configuration.parse_add_eim(answer), "AddInitialEim", where)
    return "done"


def same_eim(one: EimData, other: EimData) -> bool:
    """Whether both are the same eIM; its counter moves on in the field and is left out."""
    return replace(one, counter=None) == replace(other, counter=None)


def _listed(chip: Chip, iccid: Iccid) -> ProfileInfo:
    for profile in chip.profiles():
        if profile.iccid == iccid:
            return profile
    raise CardError("EUICC.NOT_SWITCHED", "the chip does not list this profile", where=f"ICCID {iccid}")


def _ask(chip: Chip, request: bytes, what: str, where: str, code: str = "EUICC.NOT_SWITCHED") -> bytes:
    try:
        return chip.command(request)
    except StatusError as error:
        raise CardError(code, f"{what}: the chip refuses ({error.detail})", where=where) from error


def _require(result: int, what: str, where: str) -> None:
    if result != _OK:
        raise CardError("EUICC.NOT_SET", f"{what} answered {result}", where=where)
