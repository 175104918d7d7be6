"""The factory services of FPX/1 under tag F9: status, one-time-key list, deletion, lock (10.3, 10.4, 10.8)."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.cmac import CMAC

from ifpp.sim.card_file import OneTimeKey
from ifpp.sim.euicc.chip import FPA_LOADING, FPA_LOCKED, FPA_OPEN, FPA_PREPARED, Chip, members
from ifpp.sim.euicc.nvm import KeySlot, KeyState
from ifpp.sim.tlv import Node, integer, parse, read_integer, tlv

_DIALECT_VERSION = bytes((1, 0, 0))
_FLAG_LIST_SIGNING, _FLAG_RETRY_SAME_BPP, _FLAG_CONNECTIVITY_TEST, _FLAG_REWORK = 1, 2, 4, 8
_LOCK_DELETES_KEYS = 1

OK = 0
NOTHING_TO_DELETE = 1
KEY_NOT_FOUND = 2
KEYS_REMAINING = 2
SESSION_IN_PROGRESS = 3
NOT_AUTHORISED = 4


def get_status(chip: Chip, _request: Node) -> bytes:
    """GetFpaStatus; always answered."""
    transaction_id = _transaction(chip)
    flags = (
        _FLAG_LIST_SIGNING * chip.nvm.list_signing
        | _FLAG_RETRY_SAME_BPP * (not chip.nvm.strict)
        | _FLAG_CONNECTIVITY_TEST * chip.nvm.connectivity_test
        | _FLAG_REWORK * chip.nvm.rework
    )
    return _answer(
        0xA0,
        tlv(0x80, integer(_state(chip))),
        tlv(0x81, integer(chip.keys_left)),
        tlv(0x82, _DIALECT_VERSION),
        tlv(0x83, integer(flags)) if flags else b"",
        tlv(0x84, transaction_id) if transaction_id else b"",
    )


def list_keys(chip: Chip, request: Node) -> bytes:
    """ListOneTimeKeys: a page of the key table with the challenge echoed, signed if the chip signs lists."""
    found = members(request.value)
    challenge = found.get(0x82)
    if challenge is not None and len(challenge) != 16:
        raise ValueError("challenge")
    first = read_integer(found.get(0x80, b"\x00"))
    most = read_integer(found[0x81]) if 0x81 in found else len(chip.nvm.keys)
    rows = [(key, slot) for _, key, slot in chip.slots() if key.slot >= first][: max(most, 0)]
    signed = tlv(
        0x30,
        tlv(0x80, challenge) if challenge is not None else b"",
        tlv(0x5A, chip.eid16),
        tlv(0x81, integer(chip.keys_left)),
        tlv(0xA2, *(_entry(key, slot) for key, slot in rows)),
    )
    return _answer(0xA1, signed, chip.sign(signed) if chip.nvm.list_signing else b"")


def delete_keys(chip: Chip, request: Node) -> bytes:
    """DeleteOneTimeKeys: all unused ones, or those named; nothing happens unless all of it can."""
    found = members(request.value)
    if (0x80 in found) == (0xA1 in found) or found.get(0x80):
        raise ValueError("either all or a list")
    named = None if 0xA1 not in found else [node.value for node in parse(found[0xA1])]
    result, deleted = _delete(chip, named) if _authorised(chip, request) else (NOT_AUTHORISED, 0)
    answer = tlv(0xA2, tlv(0x80, integer(result)), tlv(0x81, integer(deleted)), tlv(0x82, integer(chip.keys_left)))
    return tlv(0xF9, answer, chip.sign(answer) if 0x82 in found else b"")


def lock(chip: Chip, request: Node) -> bytes:
    """LockFpaServices: for ever; flag bit 0 deletes the remaining keys first."""
    flags = read_integer(members(request.value)[0x80])
    return _answer(0xA3, tlv(0x80, integer(_lock(chip, flags) if _authorised(chip, request) else NOT_AUTHORISED)))


def _authorised(chip: Chip, request: Node) -> bool:
    """A chip with the device maker's key wants its MAC over members, EID and a challenge it never took before."""
    if not chip.card.dm_key:
        return True
    found = {node.tag: node for node in parse(request.value)}
    if 0x82 not in found or 0x83 not in found:
        return False
    challenge, mac = found[0x82].value, found[0x83].value
    if len(challenge) != 16 or challenge in chip.nvm.challenges:
        return False
    cmac = CMAC(AES128(chip.card.dm_key))
    cmac.update(b"".join(node.raw for tag, node in found.items() if tag not in (0x82, 0x83)) + chip.eid16 + challenge)
    if not hmac.compare_digest(cmac.finalize()[:8], mac):
        return False
    chip.nvm.challenges.append(challenge)
    return True


def _lock(chip: Chip, flags: int) -> int:
    if _reserved(chip):
        return SESSION_IN_PROGRESS
    if chip.keys_left and not flags & _LOCK_DELETES_KEYS:
        return KEYS_REMAINING
    _delete(chip, None)
    chip.nvm.locked = True
    return OK


def _delete(chip: Chip, named: list[bytes] | None) -> tuple[int, int]:
    """Returns (result, number deleted)."""
    known = {key.otk_id for _, key, _ in chip.slots()}
    if named is not None and not known.issuperset(named):
        return KEY_NOT_FOUND, 0
    chosen = [(index, slot) for index, key, slot in chip.slots() if named is None or key.otk_id in named]
    if any(slot.state is KeyState.RESERVED for _, slot in chosen):
        return SESSION_IN_PROGRESS, 0
    unused = [index for index, slot in chosen if slot.state is KeyState.AVAILABLE]
    for index in unused:
        chip.spend(index, KeyState.DELETED)
    return (OK if unused else NOTHING_TO_DELETE), len(unused)


def _reserved(chip: Chip) -> bool:
    return any(slot.state is KeyState.RESERVED for slot in chip.nvm.keys) or chip.nvm.load is not None


def _state(chip: Chip) -> int:
    if chip.nvm.locked:
        return FPA_LOCKED
    reservation = chip.reservation
    if chip.nvm.load is not None or (reservation is not None and reservation.bf23_sha256 is not None):
        return FPA_LOADING
    return FPA_OPEN if reservation is None else FPA_PREPARED


def _transaction(chip: Chip) -> bytes:
    holder = chip.nvm.load or chip.reservation
    return holder.transaction_id if holder else b""


def _entry(key: OneTimeKey, slot: KeySlot) -> bytes:
    return tlv(
        0x30,
        tlv(0x80, integer(key.slot)),
        tlv(0x81, key.otk_id),
        tlv(0x82, integer(slot.state)),
        tlv(0x83, integer(key.alg)),
        tlv(0x5F49, key.public) if slot.state <= KeyState.RESERVED else b"",
    )


def _answer(operation: int, *parts: bytes) -> bytes:
    return tlv(0xF9, tlv(operation, *parts))
