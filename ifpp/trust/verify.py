"""Three numbered verification plans: a chip's eUICC data, a delivered package, an installation result.

Each function returns None when every step holds and raises VerificationError at the first one that does not; the
numbers of its plan reappear in the code. Certificate chains are verified before, by `chain.TrustStore`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from ifpp.errors import VerificationError
from ifpp.model.chip import (
    BoundProfilePackage,
    InstallResult,
    NotificationEvent,
    OtkList,
    OtkState,
    PrepareDownload,
    SignedNotification,
)
from ifpp.model.ids import Eid, Iccid
from ifpp.trust.chain import EuiccKey, SmdpIdentity
from ifpp.trust.keys import BRAINPOOL256, P256, PublicKey
from ifpp.trust.signatures import (
    verify_install_result,
    verify_otk_list,
    verify_smdp_sign,
    verify_smdp_signature2,
)

EXPORT_CHALLENGE = bytes(16)  # marks a one-time-key list as the EUM's export (FPX/1 ListOneTimeKeys)
CURVE_OF_ALG = {0: P256, 1: BRAINPOOL256}
_INSTALL_BPP, _AES, _AES_128 = 1, 0x88, 16  # remoteOpId, keyType, keyLen of BF23 (SGP.22 5.5.1)
_INSTALL_EVENT = frozenset({NotificationEvent.INSTALL})


@dataclass(frozen=True, slots=True)
class ExpectedPackage:
    """What the delivery and the chip's eUICC data say about one package.

    `otk_public` (65 bytes) is the key the eUICC data hold under the delivery's otkId; `bpp_sha256` is 32 bytes.
    """

    eid: Eid
    iccid: Iccid
    transaction_id: bytes
    otk_public: bytes
    bpp_sha256: bytes
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpectedResult:
    """The order an installation result must answer. `last_seq`: the highest sequence number stored for this EID."""

    eid: Eid
    iccid: Iccid
    transaction_id: bytes
    smdp_oid: str
    last_seq: int | None = None


def check_otk_list(otk_list: OtkList, euicc: EuiccKey) -> None:
    """Check the one-time-key list of one eUICC data record (SGP.41 Esed; FPX/1 ListOneTimeKeys).

    The shape was checked by the parser: slots and ids once each, each id the SHA-1 of its point.
    1. The list names the EID of the certificate.
    2. It carries the zero challenge of an EUM export.
    3. Each key is available and, if its algorithm is known here, a point of that algorithm's curve.
    4. The eUICC signed the list.

    Raises INTAKE.BINDING (1, 2, 3) or TRUST.SIGNATURE (4).
    """
    if otk_list.eid != euicc.eid:  # 1
        _unbound(f"the list is of EID {otk_list.eid}", "one-time-key list")
    if otk_list.challenge != EXPORT_CHALLENGE:  # 2
        _unbound("the list is an answer to a challenge, not an export", "one-time-key list")
    for key in otk_list.keys:  # 3
        where = f"one-time key in slot {key.slot}"
        if key.state != OtkState.AVAILABLE or key.public is None:
            _unbound(f"it is not available but in state {key.state}", where)
        if key.alg in CURVE_OF_ALG:
            PublicKey.from_point(CURVE_OF_ALG[key.alg], key.public, what=where, code="INTAKE.BINDING")
    verify_otk_list(euicc, otk_list)  # 4


def check_package(
    package: BoundProfilePackage, prepare: PrepareDownload, expected: ExpectedPackage, smdp: SmdpIdentity, at: datetime
) -> None:
    """Check one delivered package against its order, the chip's eUICC data and the verified SM-DPf (SGP.41 Esbpp).

    The shape (SGP.22 2.5.3) was checked by the parser.
     1. The BPP has the delivered SHA-256.
     2. It has not expired at the time passed in.
     3. transactionId is the same in the delivery, in BF21 and in BF23.
     4. BF21 names the one-time key of the eUICC data.
     5. BF21 carries the delivery's certificate chain.
     6. The ICCID of the metadata is the delivered one.
     7. BF23 asks for an installation with AES-128.
     8. Both one-time keys are points of the curve of CERT.DPpb.
     9. smdpSign holds over BF23 and the one-time key.
    10. smdpSignature2 holds over BF21 and the EID.

    Raises INTAKE.DIGEST (1), BPP.EXPIRED (2), INTAKE.UNKNOWN_KEY (4), INTAKE.BINDING (3, 5-8), TRUST.SIGNATURE (9, 10).
    """
    channel = package.channel
    if hashlib.sha256(package.raw).digest() != expected.bpp_sha256:  # 1
        raise VerificationError("INTAKE.DIGEST", "the package has another SHA-256 than delivered", where="bpp_sha256")
    if expected.expires_at is not None and expected.expires_at <= at:  # 2
        raise VerificationError("BPP.EXPIRED", f"it expired at {expected.expires_at.isoformat()}", where="expires_at")
    if not expected.transaction_id == prepare.transaction_id == channel.transaction_id:  # 3
        _unbound("the item, BF21 and BF23 name different transactions", "transaction_id")
    if prepare.otk_public != expected.otk_public:  # 4
        raise VerificationError("INTAKE.UNKNOWN_KEY", "BF21 names another one-time key than ordered", where="otk_id")
    if (prepare.smdp_certificate, *prepare.other_certificates) != smdp.chain:  # 5
        _unbound("BF21 carries other certificates than the delivery", "prepare_download")
    if package.metadata.iccid != expected.iccid:  # 6
        _unbound(f"the metadata say ICCID {package.metadata.iccid}", "iccid")
    if (channel.remote_op, channel.key_type, channel.key_length) != (_INSTALL_BPP, _AES, _AES_128):  # 7
        _unbound("BF23 asks for something else than an installation with AES-128", "bpp")
    for point, what in ((expected.otk_public, "one-time key"), (channel.smdp_otpk, "smdpOtpk")):  # 8
        PublicKey.from_point(smdp.curve_name, point, what=what, code="INTAKE.BINDING")
    verify_smdp_sign(smdp, channel, expected.otk_public)  # 9
    verify_smdp_signature2(smdp, prepare, expected.eid)  # 10


def check_install_result(pir: InstallResult, expected: ExpectedResult, euicc: EuiccKey) -> None:
    """Check that an installation result is this chip's answer to this order, good or bad (SGP.22 2.5.6).

    Shape and certificate chain come first: the parser and `TrustStore.euicc`. A failed installation passes too:
    what it says (`pir.success`) may be believed then.
    1. The chain is that of the expected EID.
    2. The eUICC signed the result.
    3. It answers the expected transaction,
    4. of the expected SM-DPf,
    5. for the expected ICCID (when it names one).
    6. Its event is installation and nothing else.
    7. Its sequence number is higher than the last one stored, when that is given.
    8. Success has an ISD-P AID of 5..16 bytes and only status 0; failure has its command and reason.

    Raises EID.MISMATCH (1), PIR.SIGNATURE (2), PIR.MISMATCH (3, 4, 5, 7) or PIR.MALFORMED (6, 8).
    """
    where = f"ICCID {expected.iccid}"
    if euicc.eid != expected.eid:  # 1
        raise VerificationError(
            "EID.MISMATCH", f"the order is for {expected.eid}, the chip is {euicc.eid}", where=where
        )
    verify_install_result(euicc, pir)  # 2
    if pir.transaction_id != expected.transaction_id:  # 3
        raise VerificationError("PIR.MISMATCH", "the result answers another transaction", where=where)
    if pir.smdp_oid != expected.smdp_oid:  # 4
        raise VerificationError("PIR.MISMATCH", f"the result is for SM-DPf {pir.smdp_oid}", where=where)
    if pir.iccid is not None and pir.iccid != expected.iccid:  # 5
        raise VerificationError("PIR.MISMATCH", f"the result is for ICCID {pir.iccid}", where=where)
    if pir.events != _INSTALL_EVENT:  # 6
        raise VerificationError("PIR.MALFORMED", f"the result is about events {sorted(pir.events)}", where=where)
    if expected.last_seq is not None and pir.seq_number <= expected.last_seq:  # 7
        detail = f"sequence number {pir.seq_number} is not after {expected.last_seq}: an old result again"
        raise VerificationError("PIR.MISMATCH", detail, where=where)
    _check_final_result(pir, where)  # 8


def check_deletion(notice: SignedNotification, iccid: Iccid, euicc: EuiccKey) -> None:
    """Check that a notification is this chip's word that it deleted a profile (SGP.22 2.8.1).

    1. Its event is a deletion and nothing else, of this ICCID: raises PIR.MISMATCH.
    2. The eUICC signed it: raises PIR.SIGNATURE.
    """
    if notice.iccid != iccid or notice.events != frozenset({NotificationEvent.DELETE}):  # 1
        raise VerificationError("PIR.MISMATCH", "the notification is not of its deletion", where=f"ICCID {iccid}")
    euicc.key.verify(notice.signature, notice.signed_raw, what="delete notification", code="PIR.SIGNATURE")  # 2


def _check_final_result(pir: InstallResult, where: str) -> None:
    if not pir.success:
        if pir.command is None or pir.reason is None:
            raise VerificationError("PIR.MALFORMED", "a failure without command or reason", where=where)
        return
    if pir.aid is None or not 5 <= len(pir.aid) <= 16:
        raise VerificationError("PIR.MALFORMED", "success without an ISD-P AID of 5..16 bytes", where=where)
    if not pir.pe_status:
        raise VerificationError("PIR.MALFORMED", "success without a profile element status", where=where)
    if any(pir.pe_status):
        statuses = ", ".join(map(str, pir.pe_status))
        raise VerificationError("PIR.MALFORMED", f"success with profile element status {statuses}", where=where)


def _unbound(detail: str, where: str) -> NoReturn:
    raise VerificationError("INTAKE.BINDING", detail, where=where)
