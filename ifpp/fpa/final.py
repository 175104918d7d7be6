"""The final read-back: what a chip is now, and in what it differs from what its recipe promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ifpp.fpa.chip import Chip
from ifpp.fpa.configure import eims, same_eim
from ifpp.fpa.seal import Seal, prove
from ifpp.model.chip import EimData, ProfileInfo
from ifpp.model.ids import Iccid
from ifpp.model.recipe import Promise
from ifpp.wire import configuration
from ifpp.wire.apdu import StatusError

_ENABLED = 1


@dataclass(frozen=True, slots=True)
class ChipState:
    """What was read. `address`, `eims` None: not read, or the chip does not know the function."""

    profiles: tuple[ProfileInfo, ...]
    seal: Seal
    address: str | None = None
    eims: tuple[EimData, ...] | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a recipe promised of one chip: its profiles by ICCID with their types, its eIM as the chip shall have it."""

    promise: Promise
    profiles: Mapping[Iccid, str]
    eim: EimData | None = None


def read_state(chip: Chip, promise: Promise, deleted: int = 0) -> ChipState:
    """Read all a recipe speaks of; `deleted`: keys this attempt deleted. Raises TransportError, WireError."""
    profiles = chip.profiles()
    address = known = None
    if promise.address is not None:
        address = configuration.parse_addresses(chip.command(configuration.addresses_request())).default_dp
    if promise.eim is not None:
        try:
            known = eims(chip)
        except StatusError:
            known = None
    return ChipState(profiles, prove(chip, deleted), address, known)


def differences(expected: Expected, state: ChipState) -> tuple[str, ...]:
    """Name everything in which a chip is not what was promised; nothing: it is."""
    return (
        *seal_differences(expected.promise, state.seal),
        *_profile_differences(expected, state),
        *_set(expected, state),
    )


def seal_differences(promise: Promise, seal: Seal) -> tuple[str, ...]:
    """Name what is missing for a chip that is clean to ship (GENS13, EUICCF03, EUICCF04)."""
    missing = []
    if promise.keys_gone and seal.keys_remaining:
        missing.append(f"{seal.keys_remaining} one-time keys remain")
    if promise.locked and not (seal.locked or seal.absent):
        missing.append("the factory services are not locked")
    if (promise.keys_gone or promise.locked) and not seal.lpa_answers:
        missing.append("neither LPA nor IPA answers")
    return tuple(missing)


def _profile_differences(expected: Expected, state: ChipState) -> Iterator[str]:
    there = {profile.iccid: profile for profile in state.profiles}
    for iccid, profile_type in expected.profiles.items():
        profile = there.get(iccid)
        if profile is None:
            yield f"ICCID {iccid} is not there"
            continue
        wanted = expected.promise.of(profile_type)
        if (profile.state == _ENABLED) != wanted.enabled:
            yield f"ICCID {iccid} is {'disabled' if wanted.enabled else 'enabled'}"
        if wanted.nickname is not None and profile.nickname != wanted.nickname:
            yield f"ICCID {iccid} is called {profile.nickname!r}, not {wanted.nickname!r}"
    if not expected.promise.others:
        strange = [profile for profile in state.profiles if profile.iccid not in expected.profiles]
        yield from (f"ICCID {profile.iccid or 'malformed'} was not to be there" for profile in strange)


def _set(expected: Expected, state: ChipState) -> Iterator[str]:
    promise = expected.promise
    if promise.address is not None and state.address != promise.address:
        yield f"the default SM-DP+ address is {state.address!r}, not {promise.address!r}"
    if promise.eim is None or expected.eim is None:
        return
    if state.eims is None:
        yield "the chip does not tell its eIMs"
    elif len(state.eims) != 1 or not same_eim(state.eims[0], expected.eim):
        known = ", ".join(each.id for each in state.eims) or "none"
        yield f"its eIM is {known}, not {expected.eim.id} as the recipe has it"
