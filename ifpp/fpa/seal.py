"""The end-of-line gate: no chip leaves with keys that would block its field eSIM (GENS13, EUICCF03, EUICCF04)."""

from __future__ import annotations

from dataclasses import dataclass

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip, is_locked
from ifpp.model.ids import Eid

_DELETED, _NOTHING_TO_DELETE = 0, 1
_LOCKED, _ALREADY_LOCKED = 0, 1


@dataclass(frozen=True, slots=True)
class Seal:
    """Proof that a chip is clean to ship, read from the chip after the fact."""

    keys_deleted: int
    keys_remaining: int
    locked: bool
    lpa_answers: bool


def seal(chip: Chip, eid: Eid) -> Seal:
    """Delete unused keys, lock the factory services, then read back that both hold and that the field LPA answers.

    Safe to repeat on a sealed chip. Raises CardError EUICC.NOT_SEALED naming what is missing.
    """
    # way of a unit, step 7
    deleted = 0
    status = chip.status()
    if not is_locked(status):
        if status.otk_remaining:
            deleted = _delete(chip, eid)
        result = chip.codec.parse_locked(chip.command(chip.codec.lock_request()))
        if result not in (_LOCKED, _ALREADY_LOCKED):
            raise CardError("EUICC.NOT_SEALED", f"LockFpaServices answered {result}", where=f"EID {eid}")
        status = chip.status()
    proof = Seal(deleted, status.otk_remaining, is_locked(status), chip.answers_field_lpa())
    if proof.keys_remaining or not proof.locked or not proof.lpa_answers:
        raise CardError("EUICC.NOT_SEALED", f"after sealing the chip shows {proof}", where=f"EID {eid}")
    return proof


def _delete(chip: Chip, eid: Eid) -> int:
    answer = chip.codec.parse_deleted(chip.command(chip.codec.delete_request()))
    if answer.result not in (_DELETED, _NOTHING_TO_DELETE):
        raise CardError("EUICC.NOT_SEALED", f"DeleteOneTimeKeys answered {answer.result}", where=f"EID {eid}")
    return answer.deleted
