"""The numbered plans: a good record, package and result pass; each step refuses what it is there for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.errors import VerificationError
from ifpp.model.chip import (
    BoundProfilePackage,
    InitialiseSecureChannel,
    InstallResult,
    OneTimeKey,
    OtkList,
    PrepareDownload,
    StoreMetadata,
)
from ifpp.model.ids import Eid, Iccid
from ifpp.trust.chain import EuiccKey, SmdpIdentity
from ifpp.trust.keys import P256, PublicKey
from ifpp.trust.verify import (
    ExpectedPackage,
    ExpectedResult,
    check_install_result,
    check_otk_list,
    check_package,
)
from tests.trust import pki
from tests.trust.pki import AT, EID

ICCID, OTHER_ICCID = Iccid("8988211900000311922"), Iccid("89000123456789012341")
OTHER_EID = Eid("89882119900000000000000000001654")
TID, OTHER_TID = bytes(range(16)), bytes(16)


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


SMDP_KEY, EUICC_KEY = new_key(), new_key()
SMDP = SmdpIdentity("2.999.10", PublicKey.from_point(P256, pki.point(SMDP_KEY), what="DPpb"), (b"DPpb", b"sub-CA"))
EUICC = EuiccKey(EID, PublicKey.from_point(P256, pki.point(EUICC_KEY), what="eUICC"))
OTK, OTHER_OTK, BRAINPOOL_OTK = (
    pki.point(new_key(curve)) for curve in (ec.SECP256R1(), ec.SECP256R1(), ec.BrainpoolP256R1())
)
BF23_HEAD, SIGNED2, BPP = b"first four members", b"smdpSigned2", b"the whole package"


@dataclass(frozen=True)
class Delivered:
    """One good package with everything `check_package` looks at."""

    package: BoundProfilePackage
    prepare: PrepareDownload
    expected: ExpectedPackage

    def check(self) -> None:
        check_package(self.package, self.prepare, self.expected, SMDP, AT)


def delivered(otk: bytes = OTK, smdp_otpk: bytes = OTHER_OTK) -> Delivered:
    channel = InitialiseSecureChannel(
        raw=b"",
        remote_op=1,
        transaction_id=TID,
        key_type=0x88,
        key_length=16,
        host_id=b"host",
        smdp_otpk=smdp_otpk,
        smdp_sign=pki.sign_raw(SMDP_KEY, BF23_HEAD + b"\x5f\x49\x41" + otk),
        signed_raw=BF23_HEAD,
    )
    prepare = PrepareDownload(
        raw=b"",
        transaction_id=TID,
        otk_public=otk,
        smdp_signed2_raw=SIGNED2,
        smdp_signature2=pki.sign_raw(SMDP_KEY, SIGNED2 + b"\x5a\x10" + EID.packed),
        smdp_certificate=b"DPpb",
        other_certificates=(b"sub-CA",),
    )
    metadata = StoreMetadata(ICCID, "provider", "name", 2, frozenset(), ())
    return Delivered(
        BoundProfilePackage(BPP, channel, metadata, (), ppk=True),
        prepare,
        ExpectedPackage(EID, ICCID, TID, otk, hashlib.sha256(BPP).digest(), AT + timedelta(seconds=1)),
    )


def test_a_good_package_passes() -> None:
    delivered().check()
    replace(good := delivered(), expected=replace(good.expected, expires_at=None)).check()


def package(**change: Any) -> Callable[[Delivered], Delivered]:
    return lambda good: replace(good, package=replace(good.package, **change))


def channel(**change: Any) -> Callable[[Delivered], Delivered]:
    return lambda good: package(channel=replace(good.package.channel, **change))(good)


def prepare(**change: Any) -> Callable[[Delivered], Delivered]:
    return lambda good: replace(good, prepare=replace(good.prepare, **change))


def expected(**change: Any) -> Callable[[Delivered], Delivered]:
    return lambda good: replace(good, expected=replace(good.expected, **change))


BAD_PACKAGES = {
    "1 another package": (package(raw=BPP + b"!"), "INTAKE.DIGEST", "bpp_sha256"),
    "2 expires this moment": (expected(expires_at=AT), "BPP.EXPIRED", "expires_at"),
    "3 item": (expected(transaction_id=OTHER_TID), "INTAKE.BINDING", "transaction_id"),
    "3 BF21": (prepare(transaction_id=OTHER_TID), "INTAKE.BINDING", "transaction_id"),
    "3 BF23": (channel(transaction_id=OTHER_TID), "INTAKE.BINDING", "transaction_id"),
    "4 key of BF21": (prepare(otk_public=OTHER_OTK), "INTAKE.UNKNOWN_KEY", "otk_id"),
    "4 key of the eUICC data": (expected(otk_public=OTHER_OTK), "INTAKE.UNKNOWN_KEY", "otk_id"),
    "5 certificate": (prepare(smdp_certificate=b"DPpb of another"), "INTAKE.BINDING", "prepare_download"),
    "5 certificates above": (prepare(other_certificates=()), "INTAKE.BINDING", "prepare_download"),
    "6 ICCID": (expected(iccid=OTHER_ICCID), "INTAKE.BINDING", "iccid"),
    "7 operation": (channel(remote_op=2), "INTAKE.BINDING", "bpp"),
    "7 key type": (channel(key_type=0x80), "INTAKE.BINDING", "bpp"),
    "7 key length": (channel(key_length=32), "INTAKE.BINDING", "bpp"),
    "8 otPK.DP off the curve": (channel(smdp_otpk=b"\x04" + bytes(64)), "INTAKE.BINDING", "smdpOtpk"),
    "9 BF23": (channel(signed_raw=BF23_HEAD + b"!"), "TRUST.SIGNATURE", "smdpSign"),
    "10 BF21": (prepare(smdp_signed2_raw=SIGNED2 + b"!"), "TRUST.SIGNATURE", "smdpSignature2"),
    "10 EID": (expected(eid=OTHER_EID), "TRUST.SIGNATURE", "smdpSignature2"),
}


@pytest.mark.parametrize(("change", "code", "where"), BAD_PACKAGES.values(), ids=BAD_PACKAGES.keys())
def test_each_step_refuses_a_package(change: Callable[[Delivered], Delivered], code: str, where: str) -> None:
    with pytest.raises(VerificationError) as caught:
        change(delivered()).check()
    assert (caught.value.code, caught.value.where) == (code, where)


def test_the_curve_of_the_one_time_key_must_be_that_of_the_certificate() -> None:
    with pytest.raises(VerificationError, match="one-time key: the public key is not on secp256r1") as caught:
        delivered(otk=BRAINPOOL_OTK).check()
    assert caught.value.code == "INTAKE.BINDING"


# ---- one-time-key list of the eUICC data ----------------------------------------------------------


def otk_list(**change: Any) -> OtkList:
    keys = (OneTimeKey(0, b"a" * 20, 0, 0, OTK), OneTimeKey(1, b"b" * 20, 0, 1, BRAINPOOL_OTK))
    good = OtkList(EID, bytes(16), 2, keys, b"list", pki.sign_raw(EUICC_KEY, b"list"))
    return replace(good, **change)


def one_key(**change: Any) -> tuple[OneTimeKey, ...]:
    return (replace(OneTimeKey(0, b"a" * 20, 0, 0, OTK), **change),)


def test_a_good_one_time_key_list_passes() -> None:
    check_otk_list(otk_list(), EUICC)
    check_otk_list(otk_list(keys=()), EUICC)
    check_otk_list(otk_list(keys=one_key(alg=2, public=b"of an algorithm to come")), EUICC)


BAD_LISTS = {
    "1 EID": (otk_list(eid=OTHER_EID), "INTAKE.BINDING", OTHER_EID),
    "2 challenge": (otk_list(challenge=bytes(15) + b"\x01"), "INTAKE.BINDING", "challenge"),
    "2 no challenge": (otk_list(challenge=None), "INTAKE.BINDING", "challenge"),
    "3 spent": (otk_list(keys=one_key(public=None, state=2)), "INTAKE.BINDING", "state 2"),
    "3 reserved": (otk_list(keys=one_key(state=1)), "INTAKE.BINDING", "state 1"),
    "3 curve": (otk_list(keys=one_key(alg=1)), "INTAKE.BINDING", "not on brainpoolP256r1"),
    "4 signature": (otk_list(signature=pki.sign_raw(SMDP_KEY, b"list")), "TRUST.SIGNATURE", "does not hold"),
    "4 unsigned": (otk_list(signature=None), "TRUST.SIGNATURE", "not signed"),
}


@pytest.mark.parametrize(("bad", "code", "why"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_each_step_refuses_a_one_time_key_list(bad: OtkList, code: str, why: str) -> None:
    with pytest.raises(VerificationError, match=why) as caught:
        check_otk_list(bad, EUICC)
    assert caught.value.code == code


# ---- installation result --------------------------------------------------------------------------

ORDER = ExpectedResult(EID, ICCID, TID, "2.999.10", last_seq=4)


def result(**change: Any) -> InstallResult:
    good = InstallResult(
        raw=b"",
        signed_raw=b"BF27",
        signature=pki.sign_raw(EUICC_KEY, b"BF27"),
        transaction_id=TID,
        seq_number=5,
        events=frozenset({0}),
        notification_address="",
        iccid=ICCID,
        smdp_oid="2.999.10",
        success=True,
        aid=bytes(16),
        command=None,
        reason=None,
        sima_response=b"",
        pe_status=(0, 0),
    )
    return replace(good, **change)


GOOD_RESULTS = {
    "success": (result(), ORDER),
    "without ICCID": (result(iccid=None), ORDER),
    "no number stored yet": (result(seq_number=0), replace(ORDER, last_seq=None)),
    "failure": (result(success=False, aid=None, command=5, reason=12, pe_status=(3,)), ORDER),
    "failure with an unknown reason": (result(success=False, aid=None, command=5, reason=99), ORDER),
    "shortest AID": (result(aid=bytes(5)), ORDER),
}


@pytest.mark.parametrize(("pir", "order"), GOOD_RESULTS.values(), ids=GOOD_RESULTS.keys())
def test_good_and_bad_outcomes_of_this_order_pass(pir: InstallResult, order: ExpectedResult) -> None:
    check_install_result(pir, order, EUICC)


BAD_RESULTS = {
    "2 signature": (result(signed_raw=b"BF27!"), "PIR.SIGNATURE", "euiccSignPIR"),
    "3 transaction": (result(transaction_id=OTHER_TID), "PIR.MISMATCH", "transaction"),
    "4 SM-DPf": (result(smdp_oid="2.999.12"), "PIR.MISMATCH", "SM-DPf 2.999.12"),
    "5 ICCID": (result(iccid=OTHER_ICCID), "PIR.MISMATCH", f"ICCID {OTHER_ICCID}"),
    "6 no event": (result(events=frozenset()), "PIR.MALFORMED", "events"),
    "6 two events": (result(events=frozenset({0, 1})), "PIR.MALFORMED", "events"),
    "6 deletion": (result(events=frozenset({3})), "PIR.MALFORMED", "events"),
    "7 replay": (result(seq_number=4), "PIR.MISMATCH", "sequence number 4"),
    "8 no AID": (result(aid=None), "PIR.MALFORMED", "AID"),
    "8 short AID": (result(aid=bytes(4)), "PIR.MALFORMED", "AID"),
    "8 long AID": (result(aid=bytes(17)), "PIR.MALFORMED", "AID"),
    "8 no element": (result(pe_status=()), "PIR.MALFORMED", "without a profile element status"),
    "8 bad element": (result(pe_status=(0, 1)), "PIR.MALFORMED", "status 0, 1"),
    "8 no reason": (result(success=False, aid=None, command=5), "PIR.MALFORMED", "reason"),
    "8 no command": (result(success=False, aid=None, reason=5), "PIR.MALFORMED", "command"),
}


@pytest.mark.parametrize(("pir", "code", "why"), BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_each_step_refuses_a_result(pir: InstallResult, code: str, why: str) -> None:
    with pytest.raises(VerificationError, match=why) as caught:
        check_install_result(pir, ORDER, EUICC)
    assert caught.value.code == code


def test_a_result_of_another_chip_is_refused_first() -> None:
    with pytest.raises(VerificationError) as caught:
        check_install_result(result(), replace(ORDER, eid=OTHER_EID), EUICC)
    assert caught.value.code == "EID.MISMATCH"
