"""The end-of-line gate: clean to ship with proof, nothing open, and signed; on SQLite and on PostgreSQL."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.errors import FAULTS, SupplyError
from ifpp.model.messages import SealProof, UnitGate
from ifpp.store.factory import Factory
from ifpp.store.records import SignedCheckpoint
from ifpp.trust.signer import SoftwareSigner, VerificationKey, create_key
from ifpp.wire.audit import Checkpoint, canonical, link
from tests.clock import START
from tests.store.raw import raw
from tests.store.test_audit import facts_of, log_of, switch_rules_off
from tests.store.test_events import started, word
from tests.store.world import SEALED, Node, eid, iccid, later, outcome, request, states, stock, take_one


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> SoftwareSigner:
    path = tmp_path_factory.mktemp("key") / "audit.key"
    create_key(path)
    return SoftwareSigner.load(path)


def loaded(factory: Factory, **changes: Any) -> None:
    """Chip 1, its package installed and sealed."""
    stock(factory, 1)
    take_one(factory, Node().result(1, "a", [word(started(factory), "INSTALLED")], **changes))


def sign_clearance(factory: Factory, signer: SoftwareSigner, number: int | None = None) -> None:
    """Sign the last entry of the log, as the supervisor's notary does."""
    factory.add_audit_key(signer.key_id, signer.public, START)
    entry = next(entry for entry in reversed(log_of(factory)) if entry.cleared_eid)
    unsigned = SignedCheckpoint(
        entry.chain_id, number or entry.number, entry.hash, "2026-03-01T08:00:10.000Z", signer.key_id, b""
    )
    signature = signer.sign(unsigned.statement(factory.factory_id).message())
    factory.add_checkpoints([SignedCheckpoint(**_fields(unsigned) | {"signature": signature})])


def _fields(one: SignedCheckpoint) -> dict[str, Any]:
    return {name: getattr(one, name) for name in SignedCheckpoint.__slots__}


def closed(gate: UnitGate, code: str, *words: str) -> None:
    assert (gate.clean_to_ship, gate.code, gate.proof) == (False, code, None)
    assert gate.advice == FAULTS[code].advice
    assert all(word in gate.reason for word in words), gate.reason


def test_a_sealed_unit_passes_the_gate(factory: Factory) -> None:
    loaded(factory)
    gate = factory.unit_gate(eid(1))
    assert (gate.clean_to_ship, gate.signed, gate.since) == (True, False, "2026-03-01T08:00:06.000Z")
    assert gate.proof is not None
    assert gate.proof.entry["facts"]["iccids"] == [iccid(10)]
    assert factory.unit_gate(iccid(10)) == factory.unit_gate("SN1") == gate


def test_the_signed_answer_can_be_checked_by_whoever_asked(factory: Factory, signer: SoftwareSigner) -> None:
    loaded(factory)
    sign_clearance(factory, signer)
    document = msgspec.json.decode(msgspec.json.encode(factory.unit_gate(eid(1))))
    assert document["signed"] is True
    proof = document["proof"]
    assert proof["hash"] == link(bytes.fromhex(proof["previous"]), canonical(proof["entry"])).hex()
    assert proof["checkpoint"]["hash"] == proof["hash"]
    key = VerificationKey.from_der(b64decode(proof["public_key_b64"]))
    assert key.key_id == signer.key_id == proof["checkpoint"]["key_id"]
    message = msgspec.convert(proof["checkpoint"], Checkpoint).message()
    key.verify(b64decode(proof["signature_b64"]), message, what="gate")


def test_a_unit_nobody_sealed_or_nobody_knows(factory: Factory) -> None:
    stock(factory, 1)
    closed(factory.unit_gate(eid(1)), "GATE.NOT_SEALED", "no station has sealed it")
    for name in (eid(9), "nobody"):
        with pytest.raises(SupplyError, match=r"EID\.UNKNOWN"):
            factory.unit_gate(name)


@pytest.mark.parametrize("state", ["CLAIMED", "SENT", "UNKNOWN"])
def test_an_open_package_closes_the_gate(factory: Factory, state: str) -> None:
    stock(factory, 1)
    claim = factory.claim(request(1, "a"), START)
    package_id = claim.packages[0].package_id
    if state != "CLAIMED":
        factory.mark_sent(package_id, "a", "st01", START)
    if state == "UNKNOWN":
        take_one(factory, Node().result(1, "a", [word(package_id, "UNKNOWN")]))
    closed(factory.unit_gate(eid(1)), "GATE.OPEN_PACKAGE", iccid(10), state, "2026-03-01T08:00:00.000Z", "st01")


def test_a_station_cannot_clear_a_unit_with_a_package_open(factory: Factory) -> None:
    """Package 1 is with another head; what the event says of package 0 is taken all the same."""
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    first, second = (package.package_id for package in claim.packages)
    factory.mark_sent(second, "a", "st01", START)
    answer = take_one(factory, Node().result(1, "a", [outcome(1, 0, "INSTALLED", package_id=first)]))
    assert answer.rejected == ()
    assert states(factory, 1) == ["INSTALLED", "SENT"]
    last = log_of(factory)[-1]
    assert (last.kind, last.cleared_eid) == ("withheld", None)
    assert f"{second} is SENT" in facts_of(last)["reason"]
    take_one(factory, Node("st02").result(1, "a", [outcome(1, 1, "INSTALLED", package_id=second)], clean_to_ship=False))
    closed(factory.unit_gate(eid(1)), "GATE.NOT_SEALED", "st01/h01", "without proof or while a package was open")


def test_without_proof_nothing_is_cleared(factory: Factory) -> None:
    loaded(factory, seal=None)
    assert states(factory, 1) == ["INSTALLED"]
    assert facts_of(log_of(factory)[-1])["reason"] == "no proof that the chip is sealed"
    closed(factory.unit_gate(eid(1)), "GATE.NOT_SEALED", "without proof")
    factory.claim(request(1, "b"), later(9))  # the unit is seated again and sealed
    take_one(factory, Node("st02").result(1, "b", clean_to_ship=True, seal=SEALED))
    assert factory.unit_gate(eid(1)).clean_to_ship


@pytest.mark.parametrize(
    ("seal", "words"),
    [
        (SealProof(keys_deleted=0, keys_remaining=1, fpa_locked=True, lpa_answers=True), "1 one-time keys remain"),
        (SealProof(keys_deleted=1, keys_remaining=0, fpa_locked=False, lpa_answers=True), "factory services open"),
        (SealProof(keys_deleted=1, keys_remaining=0, fpa_locked=True, lpa_answers=False), "field LPA silent"),
    ],
)
def test_a_proof_that_speaks_against_its_claim_is_parked(factory: Factory, seal: SealProof, words: str) -> None:
    stock(factory, 1)
    package_id = started(factory)
    answer = take_one(factory, Node().result(1, "a", [word(package_id, "INSTALLED")], seal=seal))
    assert [(row.code, words in row.text) for row in answer.rejected] == [("CUSTODY.NOT_SEALED", True)]
    assert answer.through == 1
    assert states(factory, 1) == ["SENT"]
    closed(factory.unit_gate(eid(1)), "GATE.OPEN_PACKAGE", "SENT")


def test_an_unsealed_unit_may_say_so(factory: Factory) -> None:
    seal = SealProof(keys_deleted=0, keys_remaining=1, fpa_locked=False, lpa_answers=False)
    loaded(factory, seal=seal, clean_to_ship=False)
    assert states(factory, 1) == ["INSTALLED"]
    closed(factory.unit_gate(eid(1)), "GATE.NOT_SEALED")


@pytest.mark.parametrize("keys", [-1, 2**60])
def test_nonsense_in_a_proof_is_refused(factory: Factory, keys: int) -> None:
    stock(factory, 1)
    seal = SealProof(keys_deleted=keys, keys_remaining=0, fpa_locked=True, lpa_answers=True)
    answer = take_one(factory, Node().result(1, "a", [word(started(factory), "INSTALLED")], seal=seal))
    assert [row.code for row in answer.rejected] == ["CUSTODY.EVENT_REFUSED"]


def test_a_unit_is_cleared_once(factory: Factory) -> None:
    loaded(factory)
    take_one(factory, Node("st02").result(1, "b", clean_to_ship=True, seal=SEALED))
    assert [entry.kind for entry in log_of(factory)].count("clean_to_ship") == 1


def test_two_clearances_in_one_batch_are_one(factory: Factory) -> None:
    stock(factory, 1)
    node, package_id = Node(), started(factory)
    events = [
        node.result(1, "a", [word(package_id, "INSTALLED")]),
        node.result(1, "b", clean_to_ship=True, seal=SEALED),
    ]
    (answer,) = factory.take_events(events, START)
    assert (answer.rejected, answer.fresh) == ((), (1, 2))
    assert [entry.kind for entry in log_of(factory)].count("clean_to_ship") == 1


def test_a_chip_nobody_knows_is_not_cleared(factory: Factory) -> None:
    take_one(factory, Node().result(7, "a", clean_to_ship=True, seal=SEALED))
    assert facts_of(log_of(factory)[-1])["reason"] == "the store has no eUICC data for it"


def test_a_late_word_that_opens_a_package_closes_the_gate_again(factory: Factory) -> None:
    stock(factory, 1, packages_each=2)
    claim = factory.claim(request(1, "a"), START)
    first, second = (package.package_id for package in claim.packages)
    words = [outcome(1, 0, "INSTALLED", package_id=first), outcome(1, 1, "CLAIMED", package_id=second)]
    take_one(factory, Node().result(1, "a", words, clean_to_ship=True, seal=SEALED))
    assert factory.unit_gate(eid(1)).clean_to_ship
    take_one(factory, Node("st09").result(1, "x", [outcome(1, 1, "UNKNOWN", package_id=second)]))
    closed(factory.unit_gate(eid(1)), "GATE.OPEN_PACKAGE", iccid(11), "UNKNOWN", "st09")


def test_where_the_factory_signs_an_unsigned_entry_waits(factory: Factory, signer: SoftwareSigner) -> None:
    loaded(factory)
    factory.add_audit_key(signer.key_id, signer.public, START)
    closed(factory.unit_gate(eid(1)), "GATE.UNSIGNED", "not signed yet")
    sign_clearance(factory, signer)
    assert factory.unit_gate(eid(1)).signed


FORGERIES = {
    "cleared by hand": "UPDATE chip SET clean_to_ship_at = '2026-01-01T00:00:00.000Z' WHERE eid = '{other}'",
    "facts changed": "UPDATE audit_entry SET at = 'x' WHERE kind = 'clean_to_ship'",
    "entry of another": "UPDATE audit_entry SET cleared_eid = '{other}' WHERE kind = 'clean_to_ship'",
    "entry gone": "UPDATE audit_entry SET cleared_eid = NULL",
    "other signature": "UPDATE audit_checkpoint SET signature = public FROM audit_key",
    "other time": "UPDATE audit_checkpoint SET at = 'x'",
    "other hash": "UPDATE audit_checkpoint SET hash = public FROM audit_key",
    "other key": "UPDATE audit_key SET public = signature FROM audit_checkpoint",
}


@pytest.mark.parametrize("how", FORGERIES)
def test_forged_books_do_not_open_the_gate(factory: Factory, url: str, signer: SoftwareSigner, how: str) -> None:
    stock(factory, 2)
    take_one(factory, Node().result(1, "a", [word(started(factory), "INSTALLED")]))
    sign_clearance(factory, signer)
    with raw(url) as connection:
        switch_rules_off(connection, url)
        connection.execute(FORGERIES[how].format(other=eid(2)))
        if how == "entry of another":
            connection.execute(FORGERIES["cleared by hand"].format(other=eid(2)))
    number = 2 if "{other}" in FORGERIES[how] else 1
    closed(factory.unit_gate(eid(number)), "GATE.FORGED")


def test_a_swapped_key_is_noticed(factory: Factory, url: str, signer: SoftwareSigner, tmp_path: Path) -> None:
    loaded(factory)
    sign_clearance(factory, signer)
    create_key(tmp_path / "other")
    other = SoftwareSigner.load(tmp_path / "other")
    with raw(url) as connection:
        switch_rules_off(connection, url)
        placeholder = "?" if url.startswith("sqlite") else "%s"
        connection.execute(f"UPDATE audit_key SET public = {placeholder}", (other.public,))
    closed(factory.unit_gate(eid(1)), "GATE.FORGED", "not the one it is named")
