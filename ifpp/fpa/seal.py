"""The end-of-line gate: no chip leaves with keys that would block its field eSIM (GENS13, EUICCF03, EUICCF04)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip, has_services, is_locked
from ifpp.model.chip import DeleteResult, LockResult, Permit
from ifpp.model.ids import Eid
from ifpp.wire.fpx import Es10fCodec

_CHALLENGE_BYTES = 16
_DELETED, _NOTHING_TO_DELETE = 0, 1

Authorise = Callable[[Eid, bytes], bytes]
"""Returns the 8 bytes of MAC by which a chip knows the device maker; blocks, and raises what its keys raise."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Proof that a chip is clean to ship, read from the chip after the fact. `absent`: it has no factory services."""

    keys_deleted: int
    keys_remaining: int
    locked: bool
    lpa_answers: bool
    absent: bool = False


def permit(codec: Es10fCodec, eid: Eid, request: bytes, authorise: Authorise) -> Permit:
    """Ask for the permit of one deletion or lock: a MAC for a challenge of ours, so it can be had before its time."""
    challenge = secrets.token_bytes(_CHALLENGE_BYTES)
    return Permit(challenge, authorise(eid, codec.permit_input(request, eid, challenge)))


def delete_keys(chip: Chip, eid: Eid, permit: Permit | None = None) -> int:
    """Delete the unused one-time keys; returns how many there were.

    `permit`: for chips that obey the device maker alone (GENS13). Safe to repeat. Raises CardError EUICC.NOT_SEALED,
    EUICC.NOT_AUTHORISED.
    """
    status = chip.services()
    return 0 if is_locked(status) or not status.otk_remaining else _delete(chip, eid, permit)


def lock(chip: Chip, eid: Eid, permit: Permit | None = None) -> int:
    """Delete the keys that are left and lock the factory services; returns how many keys went.

    With `permit` one command does both, with one MAC. Safe to repeat. Raises as `delete_keys`.
    """
    # way of a unit, step 7
    status = chip.services()
    if is_locked(status) or not has_services(status):
        return 0
    before = status.otk_remaining
    if permit is not None:
        _lock(chip, eid, chip.codec.permitted(chip.codec.lock_request(delete_first=True), permit))
        return before
    deleted = _delete(chip, eid, None) if before else 0
    _lock(chip, eid, chip.codec.lock_request())
    return deleted


def prove(chip: Chip, deleted: int) -> Seal:
    """Read whether keys are gone, services locked, and the field's assistant answers; what is missing is not judged."""
    status = chip.services()
    answers = chip.answers_field_lpa()
    return Seal(deleted, status.otk_remaining, is_locked(status), answers, absent=not has_services(status))


def _lock(chip: Chip, eid: Eid, request: bytes) -> None:
    result = chip.codec.parse_locked(chip.command(request))
    if result == LockResult.NOT_AUTHORISED:
        raise CardError("EUICC.NOT_AUTHORISED", "LockFpaServices: the chip refuses the permit", where=f"EID {eid}")
    if result not in (LockResult.OK, LockResult.ALREADY_LOCKED):
        raise CardError("EUICC.NOT_SEALED", f"LockFpaServices answered {result}", where=f"EID {eid}")


def _delete(chip: Chip, eid: Eid, permit: Permit | None) -> int:
    request = chip.codec.delete_request()
    answer = chip.codec.parse_deleted(chip.command(chip.codec.permitted(request, permit) if permit else request))
    if answer.result == DeleteResult.NOT_AUTHORISED:
        raise CardError("EUICC.NOT_AUTHORISED", "DeleteOneTimeKeys: it wants a permit", where=f"EID {eid}")
    if answer.result not in (_DELETED, _NOTHING_TO_DELETE):
        raise CardError("EUICC.NOT_SEALED", f"DeleteOneTimeKeys answered {answer.result}", where=f"EID {eid}")
    return answer.deleted
