"""The binder against the known answers of vectors/kat-ifpp.json, byte for byte, and the size rules of SGP.22 2.5."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

from ifpp.sim import binder, bsp, pki
from ifpp.sim.profiles import iccid_swapped, mcc_mnc
from ifpp.sim.tlv import parse, parse_one, tlv
from tests.sim.kat import EID, KAT, octets, private

TARGET = binder.BindingTarget(EID, octets("otk_pub"))
SIGN = partial(pki.sign_raw, private("dppb_priv"), deterministic=True)
PPK = bsp.SessionKeys(octets("ppk_mode", "ppk_mcv"), octets("ppk_mode", "ppk_enc"), octets("ppk_mode", "ppk_cmac"))


def bound(upp: bytes, ppk: bsp.SessionKeys | None = None, metadata: bytes = octets("bf25")) -> bytes:
    return binder.bind(
        TARGET,
        upp,
        metadata,
        dp_one_time=private("dp_ot_priv"),
        transaction_id=octets("transactionId"),
        host_id=octets("hostId"),
        sign=SIGN,
        ppk=ppk,
    )


def test_metadata() -> None:
    made = binder.store_metadata(
        iccid_swapped(KAT["iccid"]), "TESTSP", "KAT", fqdn="dpf.example.com", mcc_mnc=mcc_mnc("00101")
    )
    assert made == octets("bf25")


def test_initialise_secure_channel_and_what_its_signature_covers() -> None:
    covered = []

    def sign(data: bytes) -> bytes:
        covered.append(data)
        return SIGN(data)

    made = binder.initialise_secure_channel(
        octets("transactionId"), octets("hostId"), octets("dp_ot_pub"), octets("otk_pub"), sign
    )
    assert made == octets("bf23")
    assert covered == [octets("smdpSign_tbs")]
    assert parse_one(made).need(0x5F37).value == octets("smdpSign")


@pytest.mark.parametrize(("mode", "ppk"), [("session_mode", None), ("ppk_mode", PPK)])
def test_a_whole_package(mode: str, ppk: bsp.SessionKeys | None) -> None:
    made = bound(octets("upp"), ppk)
    assert made == octets(mode, "bpp")
    assert made == b"".join(bytes.fromhex(segment) for segment in KAT[mode]["segments"])


def test_a_profile_of_several_blocks() -> None:
    upp = bytes((7 * i + 1) % 256 for i in range(2015))
    blocks = parse(parse_one(bound(upp)).need(0xA3).value)
    assert [len(block.raw) for block in blocks] == KAT["multiseg"]["seg_lengths"]
    assert [block.raw[-8:].hex() for block in blocks] == KAT["multiseg"]["macs"]
    digest = hashlib.sha256(b"".join(block.raw for block in blocks)).hexdigest()
    assert digest == KAT["multiseg"]["sha256_concat"]


def test_prepare_download_in_factory_form() -> None:
    covered = []

    def sign(data: bytes) -> bytes:
        covered.append(data)
        return SIGN(data)

    certificate = tlv(0x30, b"certificate")
    made = binder.prepare_download(TARGET, octets("transactionId"), certificate, sign)
    members = parse_one(made, 0xBF21).children()
    assert [member.tag for member in members] == [0x30, 0x5F37, 0x30]
    assert members[0].raw == octets("dialect", "smdpSigned2")
    assert covered == [octets("dialect", "prepare_signed_tbs")]
    assert members[1].value == octets("dialect", "smdpSignature2")
    assert members[2].raw == certificate


@pytest.mark.parametrize("size", [1, 1006, 1007, 1008, 30_000])
@pytest.mark.parametrize("ppk", [None, PPK], ids=["session", "ppk"])
def test_no_protected_block_is_longer_than_1020_bytes_and_all_but_the_last_are_full(
    size: int, ppk: bsp.SessionKeys | None
) -> None:
    package = parse_one(bound(bytes(size), ppk, metadata=tlv(0xBF25, bytes(1500))))
    blocks = parse(package.need(0xA3).value)
    assert [len(block.raw) for block in blocks[:-1]] == [1020] * (size // 1007 - (size % 1007 == 0))
    assert sum(len(block.raw) <= 1020 for block in blocks) == -(-size // 1007)
    assert [len(block.raw) for block in package.need(0xA1).children()] == [1020, 509]
    assert (package.first(0xA2) is not None) == (ppk is not None)


def test_a_wrong_eid_gives_other_keys() -> None:
    there = binder.BindingTarget("89049032123451234512345678901332", TARGET.otk_public)
    other = binder.bind(
        there,
        octets("upp"),
        octets("bf25"),
        dp_one_time=private("dp_ot_priv"),
        transaction_id=octets("transactionId"),
        host_id=octets("hostId"),
        sign=SIGN,
    )
    ours, theirs = parse_one(bound(octets("upp"))), parse_one(other)
    assert ours.need(0xBF23).raw == theirs.need(0xBF23).raw
    assert ours.need(0xA0).raw != theirs.need(0xA0).raw
