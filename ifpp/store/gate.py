"""The end-of-line gate: may this unit leave the factory? Answered from the books as they stand at this moment.

Plan (numbers reappear in the code):
  1. The chip is known.
  2. No package of it is open: in the hands of a head, or with an unknown fate.
     None is to leave it again, and it was not emptied after it was sealed (`ifpp.store.rework`).
     The MES, asked afterwards, did not refuse it (`ifpp.store.unasked`).
  3. It was called clean to ship, with the proof that it was sealed (`ifpp.store.plan` lets nothing else in).
     Where it was not, although a station says so, the quota may be the reason (`ifpp.store.quota`).
  4. The audit log has the entry that says so, for this chip, and it follows from the entry before it.
  5. Where this factory signs: the entry is signed, and the signature holds under a key of this factory.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, select

from ifpp.errors import FAULTS, SupplyError, VerificationError
from ifpp.model.messages import SignedEntry, UnitGate
from ifpp.model.states import OPEN_STATES, Disposition
from ifpp.store import audit, quota, rework, unasked
from ifpp.store.records import AuditEntry, SignedCheckpoint
from ifpp.store.schema import chip, package, unit_attempt
from ifpp.trust.signer import VerificationKey
from ifpp.wire.audit import link

_chip = select(chip.c.clean_to_ship_at).where(chip.c.eid == bindparam("eid"))
_open = (
    select(package.c.iccid, package.c.state, package.c.changed_at, package.c.node_id, package.c.head_id)
    .where(package.c.eid == bindparam("eid"), package.c.state.in_(OPEN_STATES))
    .order_by(package.c.package_id)
)
_called_clean = (
    select(unit_attempt.c.node_id, unit_attempt.c.head_id, unit_attempt.c.ended_at)
    .where(unit_attempt.c.eid == bindparam("eid"), unit_attempt.c.clean_to_ship)
    .order_by(unit_attempt.c.ended_at.desc())
    .limit(1)
)

_last = (
    select(unit_attempt.c.disposition, unit_attempt.c.node_id, unit_attempt.c.head_id, unit_attempt.c.ended_at)
    .where(unit_attempt.c.eid == bindparam("eid"))
    .order_by(unit_attempt.c.ended_at.desc(), unit_attempt.c.seq.desc())
    .limit(1)
)


def ask(connection: Connection, factory_id: str, eid: str, at: str, *, orders_required: bool = False) -> UnitGate:
    """Return whether a unit may leave at a time, with the proof; raises SupplyError EID.UNKNOWN."""
    known = connection.execute(_chip, {"eid": eid}).one_or_none()
    if known is None:  # 1
        raise SupplyError("EID.UNKNOWN", "the store has no eUICC data for it", where=eid[:64])
    if kept := _kept(connection, eid):  # 2
        return _closed(eid, *kept)
    if known.clean_to_ship_at is None:  # 3
        said = connection.execute(_called_clean, {"eid": eid}).one_or_none()
        if said is not None and (none_left := quota.exhausted(connection, eid, at, required=orders_required)):
            return _closed(eid, "GATE.QUOTA", none_left)
        return _closed(
            eid, "GATE.NOT_SEALED", _why_not_sealed(said, connection.execute(_last, {"eid": eid}).one_or_none())
        )
    try:
        proof = _proof(connection, factory_id, eid)
    except VerificationError as error:  # 4, 5
        return _closed(eid, error.code, error.detail)
    return UnitGate(
        eid=eid,
        clean_to_ship=True,
        signed=proof.checkpoint is not None,
        since=known.clean_to_ship_at,
        proof=proof,
    )


def gate_document(gate: UnitGate) -> dict[str, Any]:
    """Return the answer as a JSON value."""
    document: dict[str, Any] = msgspec.to_builtins(gate)
    return document


def _closed(eid: str, code: str, reason: str) -> UnitGate:
    return UnitGate(eid=eid, clean_to_ship=False, code=code, reason=reason, advice=FAULTS[code].advice)


def _kept(connection: Connection, eid: str) -> tuple[str, str] | None:
    """Return code and reason why a unit must stay whether it was sealed or not; None when there is none."""
    if still_open := connection.execute(_open, {"eid": eid}).all():
        words = [f"ICCID {row.iccid} is {row.state} since {row.changed_at} ({row.node_id})" for row in still_open]
        return "GATE.OPEN_PACKAGE", "; ".join(words)
    if in_rework := _in_rework(connection, eid):
        return "GATE.REWORK", in_rework
    if refused := unasked.refusal(connection, eid):
        return "GATE.ROUTE", f"refused when the MES was asked afterwards: {refused}"
    return None


def _in_rework(connection: Connection, eid: str) -> str:
    """Say why a unit in rework may not leave; "" when none of it is left."""
    pending, _ = rework.leaving(connection, [eid])
    if pending:
        return f"in rework: {len(pending)} profiles are to leave its chip"
    return "its chip was emptied after it was sealed" if rework.was_sealed(connection, eid) else ""


def _why_not_sealed(said: Row[Any] | None, last: Row[Any] | None) -> str:
    if last is not None and last.disposition == Disposition.STOCK:
        return f"in stock, not sealed: {last.node_id}/{last.head_id} at {last.ended_at}"
    if said is None:
        return "no station has sealed it"
    where = f"{said.node_id}/{said.head_id} called it clean to ship at {said.ended_at}"
    return f"{where}, but without proof or while a package was open"


def _proof(connection: Connection, factory_id: str, eid: str) -> SignedEntry:
    """Return the entry that clears the chip, checked; raises VerificationError GATE.FORGED, GATE.UNSIGNED."""
    found = audit.clearance(connection, eid)
    if found is None:
        raise VerificationError("GATE.FORGED", "the books call it clean to ship, the audit log does not", where=eid)
    entry, previous, signed = found
    facts = msgspec.json.decode(entry.facts)
    if entry.hash != link(previous, entry.canonical()) or facts.get("eid") != eid:  # 4
        raise VerificationError("GATE.FORGED", "its entry in the audit log was changed", where=eid)
    proof = SignedEntry(entry=msgspec.json.decode(entry.canonical()), previous=previous.hex(), hash=entry.hash.hex())
    keys = audit.keys(connection)
    if signed is None:
        if keys:  # 5
            raise VerificationError("GATE.UNSIGNED", "its entry in the audit log is not signed yet", where=eid)
        return proof
    public = _check_signature(entry, signed, keys, factory_id)
    proof.checkpoint = msgspec.to_builtins(signed.statement(factory_id))
    proof.signature_b64 = b64encode(signed.signature).decode()
    proof.public_key_b64 = b64encode(public).decode()
    return proof


def _check_signature(entry: AuditEntry, signed: SignedCheckpoint, keys: dict[str, bytes], factory_id: str) -> bytes:
    """Return the public key under which the signature holds; raises VerificationError GATE.FORGED."""
    public = keys.get(signed.key_id)
    if public is None or signed.hash != entry.hash:
        raise VerificationError("GATE.FORGED", "its signature is for something else", where=entry.chain_id)
    try:
        key = VerificationKey.from_der(public)
        if key.key_id != signed.key_id:
            raise VerificationError("GATE.FORGED", "the key is not the one it is named", where=signed.key_id)
        key.verify(signed.signature, signed.statement(factory_id).message(), what="checkpoint")
    except VerificationError as error:
        raise VerificationError("GATE.FORGED", error.detail, where=entry.chain_id) from error
    return public
