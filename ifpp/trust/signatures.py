"""The signatures of RSP and FPX/1, each over the bytes that were received, never over a re-encoding (SGP.22 2.6.7).

Every function returns None when the signature holds and raises VerificationError when it does not.
"""

from __future__ import annotations

from ifpp.errors import VerificationError
from ifpp.model.chip import InitialiseSecureChannel, InstallResult, OtkList, PrepareDownload
from ifpp.model.ids import Eid
from ifpp.trust.chain import EuiccKey, SmdpIdentity

_TL_PUBLIC_KEY = b"\x5f\x49\x41"  # tag 5F49 and the length of an uncompressed point
_TL_EID = b"\x5a\x10"


def verify_smdp_sign(smdp: SmdpIdentity, channel: InitialiseSecureChannel, otk_public: bytes) -> None:
    """Verify smdpSign of BF23: its first four members as encoded, then the one-time key, which BF23 does not carry.

    `otk_public` is the 65-byte point. SGP.22 5.5.1; raises TRUST.SIGNATURE.
    """
    message = channel.signed_raw + _TL_PUBLIC_KEY + otk_public
    smdp.key.verify(channel.smdp_sign, message, what="smdpSign")


def verify_smdp_signature2(smdp: SmdpIdentity, prepare: PrepareDownload, eid: Eid) -> None:
    """Verify smdpSignature2 of the factory BF21: smdpSigned2, then ``5A 10 EID`` in place of euiccSignature1.

    SGP.22 5.7.5 with FPX/1 PrepareDownload; raises TRUST.SIGNATURE.
    """
    message = prepare.smdp_signed2_raw + _TL_EID + eid.packed
    smdp.key.verify(prepare.smdp_signature2, message, what="smdpSignature2")


def verify_otk_list(euicc: EuiccKey, otk_list: OtkList) -> None:
    """Verify the signature of a one-time-key list over its TLV 30 (FPX/1 ListOneTimeKeys); raises TRUST.SIGNATURE."""
    if otk_list.signature is None:
        raise VerificationError("TRUST.SIGNATURE", "the list is not signed", where="one-time-key list")
    euicc.key.verify(otk_list.signature, otk_list.signed_raw, what="one-time-key list")


def verify_install_result(euicc: EuiccKey, pir: InstallResult) -> None:
    """Verify euiccSignPIR over the complete BF27 TLV (SGP.22 2.5.6); raises PIR.SIGNATURE."""
    euicc.key.verify(pir.signature, pir.signed_raw, what="euiccSignPIR", code="PIR.SIGNATURE")
