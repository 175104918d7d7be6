"""Sealing with the device maker's word (FPX/1 10.8, dmAuth): the simulated chip judges each MAC by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC
from pkcs11 import Attribute, KeyType, ObjectClass

from ifpp.errors import CardError
from ifpp.fpa.chip import Chip
from ifpp.fpa.seal import Authorise
from ifpp.fpa.seal import permit as ask_permit
from ifpp.model.chip import Permit
from ifpp.model.ids import Eid
from ifpp.sim.euicc.card import Euicc
from ifpp.sim.eum import Eum
from ifpp.sim.pki import Pki
from ifpp.wire.fpx import FPX1, Es10fCodec
from tests.fpa.conftest import seal
from tests.memory_port import MemoryPort
from tests.real.softhsm import SoftToken

MASTER = bytes(range(32))


def authoriser(master: bytes) -> Authorise:
    """What a key provider does, written down once more."""

    def authorise(eid: Eid, message: bytes) -> bytes:
        derive = Cipher(algorithms.AES256(master), modes.ECB()).encryptor()  # noqa: S305 - as the dialect says
        mac = CMAC(algorithms.AES128(derive.update(bytes.fromhex(eid))))
        mac.update(message)
        return mac.finalize()[:8]

    return authorise


def permit(codec: Es10fCodec, eid: Eid, authorise: Authorise) -> Permit:
    """The word for deletion and lock in one."""
    return ask_permit(codec, eid, codec.lock_request(delete_first=True), authorise)


@pytest.fixture(scope="module")
def eum() -> Eum:
    return Eum(Pki.create(), seed=5, dm_master=MASTER)


@pytest.fixture
def inside(eum: Eum) -> Euicc:
    return Euicc(eum.issue().card)


@pytest.fixture
def chip(inside: Euicc) -> Iterator[Chip]:
    opened = Chip(MemoryPort(inside))
    opened.open()
    yield opened
    opened.close()


def test_one_command_with_the_right_word_deletes_and_locks(chip: Chip) -> None:
    eid = chip.eid()
    proof = seal(chip, eid, permit(FPX1, eid, authoriser(MASTER)))
    assert (proof.keys_deleted, proof.keys_remaining, proof.locked, proof.lpa_answers) == (3, 0, True, True)
    assert seal(chip, eid, permit(FPX1, eid, authoriser(MASTER))).keys_deleted == 0, "sealed already: nothing to do"


def test_a_wrong_missing_or_foreign_word_changes_nothing(chip: Chip) -> None:
    eid = chip.eid()
    other = Eid("89049032123451234512345678901235")
    right = permit(FPX1, eid, authoriser(MASTER))
    for refused in (
        None,
        permit(FPX1, eid, authoriser(bytes(32))),
        permit(FPX1, other, authoriser(MASTER)),
        Permit(bytes(16), right.mac),
        Permit(right.challenge, right.mac[:7] + bytes([right.mac[7] ^ 1])),
    ):
        with pytest.raises(CardError) as caught:
            seal(chip, eid, refused)
        assert caught.value.code == "EUICC.NOT_AUTHORISED"
        status = chip.status()
        assert (status.state, status.otk_remaining) == (1, 3)


def test_a_challenge_serves_once_and_only_its_command(chip: Chip) -> None:
    eid, otk = chip.eid(), chip.codec.parse_otks(chip.command(FPX1.otks_request())).keys[0].otk_id
    one = FPX1.delete_request([otk])
    challenge = b"\x01" * 16
    word = Permit(challenge, authoriser(MASTER)(eid, FPX1.permit_input(one, eid, challenge)))
    for other in (FPX1.delete_request(), FPX1.lock_request(delete_first=True)):
        assert b"\x80\x01\x04" in chip.command(FPX1.permitted(other, word)), "the word is for another command"
    assert b"\x80\x01\x00\x81\x01\x01" in chip.command(FPX1.permitted(one, word))
    assert b"\x80\x01\x04\x81\x01\x00" in chip.command(FPX1.permitted(one, word)), "taken a second time"
    assert chip.status().otk_remaining == 2


def test_the_challenge_stays_taken_without_power(inside: Euicc, chip: Chip) -> None:
    eid = chip.eid()
    otks = chip.codec.parse_otks(chip.command(FPX1.otks_request())).keys
    first = FPX1.delete_request([otks[0].otk_id])
    word = Permit(bytes(16), authoriser(MASTER)(eid, FPX1.permit_input(first, eid, bytes(16))))
    chip.command(FPX1.permitted(first, word))
    chip.close()
    chip.open()
    assert b"\x80\x01\x04" in chip.command(FPX1.permitted(first, word))


def test_a_chip_without_a_key_of_the_device_maker_obeys_anybody() -> None:
    chip = Chip(MemoryPort(Euicc(Eum(Pki.create(), seed=5).issue().card)))
    chip.open()
    eid = chip.eid()
    assert seal(chip, eid, permit(FPX1, eid, authoriser(MASTER))).keys_deleted == 3


def test_a_master_inside_a_token_gives_the_word_the_chip_expects(
    chip: Chip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = SoftToken(tmp_path, monkeypatch)
    master = {Attribute.KEY_TYPE: KeyType.AES, Attribute.VALUE: MASTER, Attribute.DERIVE: True}
    kept = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.ID: b"20260101000000"}
    token.put("chip.1", ObjectClass.SECRET_KEY, master | kept | {Attribute.SIGN: False, Attribute.VERIFY: False})
    keys, eid = token.open(), chip.eid()
    try:
        assert seal(chip, eid, permit(FPX1, eid, keys.authorise)).keys_deleted == 3
    finally:
        keys.close()
