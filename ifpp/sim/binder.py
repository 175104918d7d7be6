"""Binding: the byte strings of a Bound Profile Package (SGP.22 2.5) and of PrepareDownload in factory form (FPX/1).

Pure functions: all keys and random values come in, so known answers can be reproduced. smdpf.py supplies fresh ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import bsp, pki
from ifpp.sim.tlv import bits, tlv

# r || s over the given bytes, by SK.DPpb
RawSigner = Callable[[bytes], bytes]

_INSTALL_BOUND_PROFILE_PACKAGE = b"\x01"
_MAX_MAC_ONLY = 1008
_ALL_EVENTS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class BindingTarget:
    """For whom: one chip and one of its one-time keys (65-byte point)."""

    eid: str
    otk_public: bytes

    @property
    def eid16(self) -> bytes:
        """The EID, 16 bytes, digits packed high nibble first."""
        return bytes.fromhex(self.eid)


def store_metadata(iccid_swapped: bytes, provider: str, name: str, *, fqdn: str, mcc_mnc: bytes) -> bytes:
    """Build the StoreMetadataRequest (BF25): class operational (DER default, absent), no policy rules.

    All four notification events go to `fqdn`; `mcc_mnc` is the profile owner's PLMN, 3 bytes as in TS 24.008.
    """
    notification = tlv(0x30, tlv(0x80, bits(_ALL_EVENTS)), tlv(0x81, fqdn.encode()))
    return tlv(
        0xBF25,
        tlv(0x5A, iccid_swapped),
        tlv(0x91, provider.encode()),
        tlv(0x92, name.encode()),
        tlv(0xB6, notification),
        tlv(0xB7, tlv(0x80, mcc_mnc)),
    )


def initialise_secure_channel(
    transaction_id: bytes, host_id: bytes, dp_public: bytes, otk_public: bytes, sign: RawSigner
) -> bytes:
    """Build InitialiseSecureChannelRequest (BF23): smdpSign covers its members and the chip's one-time key."""
    crt = tlv(0xA6, tlv(0x80, bytes((bsp.KEY_TYPE_AES,))), tlv(0x81, bytes((bsp.KEY_LENGTH,))), tlv(0x84, host_id))
    members = tlv(0x82, _INSTALL_BOUND_PROFILE_PACKAGE) + tlv(0x80, transaction_id) + crt + tlv(0x5F49, dp_public)
    return tlv(0xBF23, members, tlv(0x5F37, sign(members + tlv(0x5F49, otk_public))))


def protected_parts(session: bsp.Bsp, metadata: bytes, upp: bytes, ppk: bsp.SessionKeys | None = None) -> bytes:
    """Protect ConfigureISDP, metadata, key replacement (with `ppk`) and profile: the members A0 to A3 of a BPP."""
    configure = tlv(0xA0, session.encrypt(0x87, tlv(0xBF24)))
    pieces = (session.mac_only(0x88, piece) for piece in bsp.split(metadata, _MAX_MAC_ONLY))
    parts = [configure, tlv(0xA1, *pieces)]
    if ppk is not None:
        replace_keys = tlv(0xBF26, tlv(0x80, ppk.mcv), tlv(0x81, ppk.s_enc), tlv(0x82, ppk.s_mac))
        parts.append(tlv(0xA2, session.encrypt(0x87, replace_keys)))
        session = bsp.Bsp(ppk.s_enc, ppk.s_mac, ppk.mcv)
    parts.append(tlv(0xA3, *(session.encrypt(0x86, piece) for piece in bsp.split(upp))))
    return b"".join(parts)


def bind(
    target: BindingTarget,
    upp: bytes,
    metadata: bytes,
    *,
    dp_one_time: ec.EllipticCurvePrivateKey,
    transaction_id: bytes,
    host_id: bytes,
    sign: RawSigner,
    ppk: bsp.SessionKeys | None = None,
) -> bytes:
    """Bind one profile to one one-time key: the BPP (BF36), in session-key mode or, with `ppk`, in random-key mode.

    `dp_one_time` is otSK.DP, fresh for each package (perfect forward secrecy). Raises ValueError when the one-time
    key is not a point of its curve.
    """
    session = bsp.derive(dp_one_time, target.otk_public, host_id, target.eid16)
    dp_public = pki.point(dp_one_time.public_key())
    channel = initialise_secure_channel(transaction_id, host_id, dp_public, target.otk_public, sign)
    return tlv(0xBF36, channel, protected_parts(session, metadata, upp, ppk))


def smdp_signed2(transaction_id: bytes, otk_public: bytes) -> bytes:
    """Build smdpSigned2: transaction, no confirmation code, and the one-time key as bppEuiccOtpk."""
    return tlv(0x30, tlv(0x80, transaction_id), tlv(0x01, b"\x00"), tlv(0x5F49, otk_public))


def prepare_download(target: BindingTarget, transaction_id: bytes, certificate: bytes, sign: RawSigner) -> bytes:
    """Build PrepareDownload (BF21) in factory form: smdpSignature2 covers smdpSigned2 and the EID (5A)."""
    signed = smdp_signed2(transaction_id, target.otk_public)
    signature = sign(signed + tlv(0x5A, target.eid16))
    return tlv(0xBF21, signed, tlv(0x5F37, signature), certificate)
