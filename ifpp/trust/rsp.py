"""What a station can check of an online session before chip or server have to (SGP.22 v2, 3.1.2, 3.1.3, 5.7).

The chip judges the server and the server the chip; the station, between them, sees both. A wrong server is refused
here before the chip is asked, and a package for another profile before its first byte has left. Every signature is
verified over the bytes as they came. Each function raises VerificationError at the first step that does not hold; the
numbers of its plan reappear in the code.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from ifpp.errors import SupplyError, VerificationError
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import ActivationCode, Bound, ChipWord, Offer, Prepared, ServerWord
from ifpp.trust.certificate import Role
from ifpp.trust.chain import EuiccKey, SmdpIdentity, TrustStore, ci_key_id
from ifpp.trust.keys import PublicKey
from ifpp.trust.signatures import verify_smdp_sign

_INSTALL_BPP, _AES, _AES_128 = 1, 0x88, 16  # remoteOpId, keyType, keyLen of BF23 (SGP.22 5.5.1)


def check_server(
    word: ServerWord,
    code: ActivationCode,
    challenge: bytes,
    chip_ci_key_ids: Collection[bytes],
    trust: TrustStore,
    at: datetime,
) -> SmdpIdentity:
    """Check that the server is the one asked, answers this chip now, and is certified below a CI both know.

    1. The transaction id beside the signed objects is the signed one.
    2. It answers the chip's challenge,
    3. under the address that was asked (letter case does not matter).
    4. The chip knows the CI it wants to be verified with.
    5. CERT.DPauth leads to a CI trusted here, and to that one.
    6. serverSignature1 holds over serverSigned1.
    7. Its OID is the one of the activation code, when that names one.

    Raises RSP.MISMATCH (1, 2, 3, 7), FIT.CI_KEY (4), TRUST.CHAIN (5), TRUST.SIGNATURE (6).
    """
    _same(word.session_id == word.transaction_id, "the transaction id is not the signed one")  # 1
    _same(word.euicc_challenge == challenge, "it answers another challenge")  # 2
    _same(word.address.lower() == code.address.lower(), f"it calls itself {word.address[:80]}", code.address)  # 3
    if word.ci_key_id not in chip_ci_key_ids:  # 4
        known = ", ".join(known.hex() for known in chip_ci_key_ids) or "none"
        detail = f"the SM-DP+ uses CI key {word.ci_key_id.hex()}, the chip knows {known}"
        raise SupplyError("FIT.CI_KEY", detail, where=code.address)
    identity = trust.smdp((word.certificate,), at, Role.DPAUTH)  # 5
    if ci_key_id((word.certificate,)) != word.ci_key_id:  # 5
        raise VerificationError("TRUST.CHAIN", "another CI issued it than the one it names", where=Role.DPAUTH)
    identity.key.verify(word.signature, word.signed_raw, what="serverSignature1")  # 6
    _same(code.oid in ("", identity.oid), f"the SM-DP+ is {identity.oid}, not {code.oid}", code.address)  # 7
    return identity


def check_chip(word: ChipWord, server: ServerWord, eid: Eid, trust: TrustStore, at: datetime) -> EuiccKey:
    """Check the chip's proof as the server will, and return the key it signs with.

    1. It answers this session: transaction id, address, server's challenge.
    2. CERT.EUICC is that of this EID and leads over CERT.EUM to a trusted CI.
    3. euiccSignature1 holds over euiccSigned1.

    Raises RSP.MISMATCH (1), TRUST.CHAIN (2), TRUST.SIGNATURE (3).
    """
    said, asked = word.transaction_id, server.transaction_id
    same = (said, word.address, word.server_challenge) == (asked, server.address, server.server_challenge)
    _same(same, "the chip answers another session", f"EID {eid}")  # 1
    key = trust.euicc(word.euicc_certificate, word.eum_chain, eid, at)  # 2
    key.key.verify(word.signature, word.signed_raw, what="euiccSignature1")  # 3
    return key


def check_offer(
    offer: Offer, chip: ChipWord, server: SmdpIdentity, iccid: Iccid | None, trust: TrustStore, at: datetime
) -> SmdpIdentity:
    """Check that what is offered comes from the same SM-DP+, for this chip, and is the profile that was ordered.

    1. The transaction id is the session's, beside the signed objects and in them.
    2. CERT.DPpb leads to a trusted CI and is of the SM-DP+ of CERT.DPauth: same OID, same curve.
    3. smdpSignature2 holds over smdpSigned2 and euiccSignature1.
    4. The profile's ICCID is the ordered one, when the order names one.

    Raises RSP.MISMATCH (1, 2), TRUST.CHAIN (2), TRUST.SIGNATURE (3), RSP.OTHER_PROFILE (4).
    """
    same = offer.session_id == offer.transaction_id == chip.transaction_id
    _same(same, "the offer is of another session")  # 1
    smdp = trust.smdp((offer.certificate,), at)  # 2
    same = (smdp.oid, smdp.curve_name) == (server.oid, server.curve_name)
    _same(same, f"CERT.DPpb is of {smdp.oid} on {smdp.curve_name}, CERT.DPauth of {server.oid}")  # 2
    smdp.key.verify(offer.signature, offer.signed_raw + chip.signature_raw, what="smdpSignature2")  # 3
    if iccid is not None and offer.metadata.iccid != iccid:  # 4
        raise VerificationError("RSP.OTHER_PROFILE", f"it offers {offer.metadata.iccid}", where=f"ICCID {iccid}")
    return smdp


def check_prepared(prepared: Prepared, offer: Offer, hash_cc: bytes, key: EuiccKey) -> None:
    """Check that the chip gave its key for this offer.

    1. The transaction id and the confirmation code's hash are this session's.
    2. euiccSignature2 holds over euiccSigned2 and smdpSignature2.

    Raises RSP.MISMATCH (1), TRUST.SIGNATURE (2).
    """
    same = (prepared.transaction_id, prepared.hash_cc) == (offer.transaction_id, hash_cc)
    _same(same, "the chip prepared another download", f"EID {key.eid}")  # 1
    signed = prepared.signed_raw + offer.signature_raw
    key.key.verify(prepared.signature, signed, what="euiccSignature2")  # 2


def check_bound(bound: Bound, offer: Offer, prepared: Prepared, smdp: SmdpIdentity) -> None:
    """Check that the package is bound in this session, to the chip's key, and is what was offered.

    1. The transaction id is the session's, beside the package and in it.
    2. It asks for an installation with AES-128,
    3. with a key of the SM-DP+ that is on the curve.
    4. smdpSign holds over BF23 and the chip's one-time key.
    5. Its metadata are those of the offer.

    Raises RSP.MISMATCH (1, 2), TRUST.SIGNATURE (3, 4), RSP.OTHER_PROFILE (5).
    """
    channel = bound.bpp.channel
    _same(bound.session_id == channel.transaction_id == offer.transaction_id, "the package is of another session")  # 1
    asked = (channel.remote_op, channel.key_type, channel.key_length)
    _same(asked == (_INSTALL_BPP, _AES, _AES_128), "the package asks for something else than an installation")  # 2
    PublicKey.from_point(smdp.curve_name, channel.smdp_otpk, what="smdpOtpk")  # 3
    verify_smdp_sign(smdp, channel, prepared.otk_public)  # 4
    if bound.bpp.metadata != offer.metadata:  # 5
        detail = f"the package says {bound.bpp.metadata.iccid}, or other metadata than offered"
        raise VerificationError("RSP.OTHER_PROFILE", detail, where=f"ICCID {offer.metadata.iccid}")


def _same(holds: bool, otherwise: str, where: str = "") -> None:
    if not holds:
        raise VerificationError("RSP.MISMATCH", otherwise, where=where)
