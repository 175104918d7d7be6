"""The end-of-line gate: no chip leaves with keys that would block its field eSIM (GENS13, EUICCF03, EUICCF04)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip, is_locked
from ifpp.model.chip import DeleteResult, LockResult, Permit
from ifpp.model.ids import Eid
from ifpp.wire.fpx import Es10fCodec

_CHALLENGE_BYTES = 16
_DELETED, _NOTHING_TO_DELETE = 0, 1

Authorise = Callable[[Eid, bytes], bytes]
"""Returns the 8 bytes of MAC by which a chip knows the device maker; blocks, and raises what its keys raise."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Proof that a chip is clean to ship, read from the chip after the fact."""

    keys_deleted: int
    keys_remaining: int
    locked: bool
    lpa_answers: bool


def permit(codec: Es10fCodec, eid: Eid, authorise: Authorise) -> Permit:
    """Ask for the permit of this chip's sealing: one MAC for a challenge of ours, so it can be had before its time."""
    challenge = secrets.token_bytes(_CHALLENGE_BYTES)
    request = codec.lock_request(delete_first=True)
    return Permit(challenge, authorise(eid, codec.permit_input(request, eid, challenge)))


def seal(chip: Chip, eid: Eid, permit: Permit | None = None) -> Seal:
    """Delete unused keys, lock the factory services, then read back that both hold and that the field LPA answers.

    `permit`: for chips that obey the device maker alone (GENS13); one command then does both, with one MAC.
    Safe to repeat on a sealed chip. Raises CardError EUICC.NOT_SEALED naming what is missing, EUICC.NOT_AUTHORISED.
    """
    # way of a unit, step 7
    deleted = 0
    status = chip.status()
    if not is_locked(status):
        before = status.otk_remaining
        if permit is None:
            if before:
                deleted = _delete(chip, eid)
            _lock(chip, eid, chip.codec.lock_request())
        else:
            _lock(chip, eid, chip.codec.permitted(chip.codec.lock_request(delete_first=True), permit))
        status = chip.status()
        deleted = deleted if permit is None else before - status.otk_remaining
    proof = Seal(deleted, status.otk_remaining, is_locked(status), chip.answers_field_lpa())
    if proof.keys_remaining or not proof.locked or not proof.lpa_answers:
        raise CardError("EUICC.NOT_SEALED", f"after sealing the chip shows {proof}", where=f"EID {eid}")
    return proof


def _lock(chip: Chip, eid: Eid, request: bytes) -> None:
    result = chip.codec.parse_locked(chip.command(request))
    if result == LockResult.NOT_AUTHORISED:
        raise CardError("EUICC.NOT_AUTHORISED", "LockFpaServices: the chip refuses the permit", where=f"EID {eid}")
    if result not in (LockResult.OK, LockResult.ALREADY_LOCKED):
        raise CardError("EUICC.NOT_SEALED", f"LockFpaServices answered {result}", where=f"EID {eid}")


def _delete(chip: Chip, eid: Eid) -> int:
    answer = chip.codec.parse_deleted(chip.command(chip.codec.delete_request()))
    if answer.result == DeleteResult.NOT_AUTHORISED:
        raise CardError("EUICC.NOT_AUTHORISED", "DeleteOneTimeKeys: it wants a permit", where=f"EID {eid}")
    if answer.result not in (_DELETED, _NOTHING_TO_DELETE):
        raise CardError("EUICC.NOT_SEALED", f"DeleteOneTimeKeys answered {answer.result}", where=f"EID {eid}")
    return answer.deleted
