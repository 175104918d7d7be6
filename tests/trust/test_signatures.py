"""Signatures: the known answers of tests/vectors/kat-ifpp.json, T08 and T09, and what lies out of range."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ifpp.errors import VerificationError
from ifpp.model.chip import InitialiseSecureChannel, OtkList, PrepareDownload
from ifpp.model.ids import Eid
from ifpp.trust.chain import EuiccKey, SmdpIdentity
from ifpp.trust.keys import BRAINPOOL256, P256, PublicKey
from ifpp.trust.signatures import (
    verify_install_result,
    verify_otk_list,
    verify_smdp_sign,
    verify_smdp_signature2,
)
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.es10 import parse_pir
from ifpp.wire.fpx import FPX1, parse_prepare_download
from tests.trust import pki

VECTORS = Path(__file__).parent.parent / "vectors" / "kat-ifpp.json"
ALL = json.loads(VECTORS.read_text())
KAT: dict[str, str] = {name: value for name, value in (ALL | ALL["dialect"]).items() if isinstance(value, str)}
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def kat(name: str) -> bytes:
    return bytes.fromhex(KAT[name])


EID = Eid(KAT["eid"])
SMDP = SmdpIdentity("2.999.10", PublicKey.from_point(P256, kat("dppb_pub"), what="DPpb"), ())
EUICC = EuiccKey(EID, PublicKey.from_point(P256, kat("euicc_pub"), what="eUICC"))


def channel() -> InitialiseSecureChannel:
    return parse_bpp(bytes.fromhex(ALL["session_mode"]["bpp"])).channel


def prepare() -> PrepareDownload:
    certificate = b"\x30\x03\x02\x01\x00"  # the vectors leave it to the PKI
    body = kat("smdpSigned2") + b"\x5f\x37\x40" + kat("smdpSignature2") + certificate
    return parse_prepare_download(b"\xbf\x21\x81" + bytes([len(body)]) + body)


def otk_list() -> OtkList:
    return FPX1.parse_otks(kat("list_resp"))


def test_smdp_sign_holds_with_the_right_key() -> None:
    assert channel().signed_raw + b"\x5f\x49\x41" + kat("otk_pub") == kat("smdpSign_tbs")
    verify_smdp_sign(SMDP, channel(), kat("otk_pub"))


def test_smdp_sign_fails_with_another_one_time_key_transaction_or_host() -> None:
    """T08."""
    good, otk = channel(), kat("otk_pub")
    changes = [(kat("transactionId"), bytes(16)), (kat("hostId"), b"IFPPDPF2"), (kat("dp_ot_pub"), otk)]
    bad = [(replace(good, signed_raw=good.signed_raw.replace(old, new)), otk) for old, new in changes]
    for changed, key in [*bad, (good, kat("dp_ot_pub"))]:
        assert (changed.signed_raw, key) != (good.signed_raw, otk)
        with pytest.raises(VerificationError, match="smdpSign: the signature does not hold") as caught:
            verify_smdp_sign(SMDP, changed, key)
        assert caught.value.code == "TRUST.SIGNATURE"


def test_smdp_signature2_binds_the_eid() -> None:
    verify_smdp_signature2(SMDP, prepare(), EID)
    with pytest.raises(VerificationError, match="smdpSignature2"):
        verify_smdp_signature2(SMDP, prepare(), Eid("89882119900000000000000000001654"))
    other_key = replace(prepare(), smdp_signed2_raw=kat("smdpSigned2").replace(kat("otk_pub"), kat("dp_ot_pub")))
    with pytest.raises(VerificationError, match="smdpSignature2"):
        verify_smdp_signature2(SMDP, other_key, EID)


def test_the_one_time_key_list_is_signed_by_the_chip() -> None:
    verify_otk_list(EUICC, otk_list())
    for bad in (
        replace(otk_list(), signed_raw=otk_list().signed_raw[:-1] + b"\x00"),
        replace(otk_list(), signature=None),
        replace(otk_list(), signature=kat("pir_ok")[-64:]),
    ):
        with pytest.raises(VerificationError, match="one-time-key list") as caught:
            verify_otk_list(EUICC, bad)
        assert caught.value.code == "TRUST.SIGNATURE"


@pytest.mark.parametrize("name", ["pir_ok", "pir_err"])
def test_an_installation_result_is_signed_by_the_chip(name: str) -> None:
    pir = parse_pir(kat(name))
    verify_install_result(EUICC, pir)
    for byte in range(len(pir.signed_raw)):
        changed = bytearray(pir.signed_raw)
        changed[byte] ^= 0x80
        with pytest.raises(VerificationError) as caught:
            verify_install_result(EUICC, replace(pir, signed_raw=bytes(changed)))
        assert caught.value.code == "PIR.SIGNATURE"


def test_received_bytes_are_verified_not_a_re_encoding() -> None:
    """T09: a result signed with a length octet more than DER needs holds as received, not as DER would write it."""
    key = ec.generate_private_key(ec.SECP256R1())
    euicc = EuiccKey(EID, PublicKey.from_point(P256, pki.point(key), what="eUICC"))
    minimal = parse_pir(kat("pir_ok")).signed_raw
    wide = minimal[:2] + b"\x81" + minimal[2:]
    signature = pki.sign_raw(key, wide)
    received = parse_pir(pir_tlv(wide, signature))
    assert received.signed_raw == wide
    verify_install_result(euicc, received)
    with pytest.raises(VerificationError, match="does not hold"):
        verify_install_result(euicc, parse_pir(pir_tlv(minimal, signature)))


def pir_tlv(signed: bytes, signature: bytes) -> bytes:
    body = signed + b"\x5f\x37\x40" + signature
    return b"\xbf\x37\x81" + bytes([len(body)]) + body


def test_a_signature_of_a_wrong_length_is_refused() -> None:
    pir = parse_pir(kat("pir_ok"))
    for bad in (b"", pir.signature[:-1], pir.signature + b"\x00", der_of(pir.signature)):
        with pytest.raises(VerificationError, match="64 bytes"):
            verify_install_result(EUICC, replace(pir, signature=bad))


@pytest.mark.parametrize("value", [0, ORDER_P256, ORDER_P256 + 1, 2**256 - 1])
@pytest.mark.parametrize("half", ["r", "s"])
def test_r_and_s_outside_their_range_are_refused_before_verifying(value: int, half: str) -> None:
    pir, number = parse_pir(kat("pir_ok")), value.to_bytes(32, "big")
    forged = number + pir.signature[32:] if half == "r" else pir.signature[:32] + number
    with pytest.raises(VerificationError, match=r"outside 1\.\.n-1") as caught:
        verify_install_result(EUICC, replace(pir, signature=forged))
    assert caught.value.code == "PIR.SIGNATURE"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.BrainpoolP256R1()], ids=lambda curve: curve.name)
def test_both_curves_verify_and_their_largest_numbers_are_in_range(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    public = PublicKey.from_point(curve.name, pki.point(key), what="key")
    for n in range(20):
        public.verify(pki.sign_raw(key, bytes([n])), bytes([n]), what="message")
    with pytest.raises(VerificationError, match="does not hold"):
        public.verify(pki.sign_raw(key, b"\x01"), b"\x02", what="message")
    assert curve.group_order is not None
    largest = (curve.group_order - 1).to_bytes(32, "big")
    with pytest.raises(VerificationError, match="does not hold"):
        public.verify(largest * 2, b"", what="message")
    with pytest.raises(VerificationError, match="outside"):
        public.verify(curve.group_order.to_bytes(32, "big") * 2, b"", what="message")


def test_points_that_are_not_on_the_curve_are_refused() -> None:
    good = kat("otk_pub")
    off = good[:-1] + bytes([good[-1] ^ 1])
    compressed = bytes([2 + (good[-1] & 1)]) + good[1:33]
    for bad in (off, compressed, b"\x04" + bytes(64), good + b"\x00", b"", b"\x06" + good[1:]):
        with pytest.raises(VerificationError):
            PublicKey.from_point(P256, bad, what="one-time key")
    with pytest.raises(VerificationError, match="not on brainpoolP256r1"):
        PublicKey.from_point(BRAINPOOL256, good, what="one-time key")


def der_of(raw: bytes) -> bytes:
    """The same signature as X.509 would carry it."""
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
