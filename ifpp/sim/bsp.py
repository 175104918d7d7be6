"""BSP / SCP03t: key agreement, key derivation and the protected TLVs of a Bound Profile Package.

Sources: SGP.22 v2 annex G and 2.5.3/2.5.4 (tags 86/87/88), BSI TR-03111 ECKA-EG with the X9.63 KDF over SHA-256,
NIST SP 800-38A/B. Both ends use it: the SM-DPf protects, the eUICC takes apart.

A protected TLV is ``tag | length | body | 8-byte MAC`` and at most 1020 bytes long. ``86``/``87`` carry AES-128-CBC
ciphertext (plaintext at most 1007 bytes), ``88`` carries clear text (at most 1008 bytes).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from ifpp.sim.tlv import header

MAX_TLV = 1020
MAX_PLAINTEXT = 1007
MAC_LENGTH = 8
KEY_TYPE_AES = 0x88
KEY_LENGTH = 16
_ENCRYPTED_TAGS = frozenset({0x86, 0x87})
_MAC_ONLY_TAG = 0x88


class StructureError(ValueError):
    """A protected TLV whose tag, length or padding is wrong (errorReason 7)."""


class SecurityError(ValueError):
    """A protected TLV whose MAC does not hold (errorReason 8)."""


class SessionKeys(NamedTuple):
    """What the KDF yields, in its order: initial MAC chaining value, S-ENC, S-MAC (16 bytes each)."""

    mcv: bytes
    s_enc: bytes
    s_mac: bytes

    def __repr__(self) -> str:
        return "SessionKeys(...)"


class Bsp:
    """One set of session keys with its state: a block counter from 1 and the MAC chaining value.

    One object serves one direction: either the sender's or the receiver's. After an error it is of no further use.
    """

    __slots__ = ("_counter", "_ecb", "_mac", "_mcv", "_s_enc")

    def __init__(self, s_enc: bytes, s_mac: bytes, mcv: bytes) -> None:
        self._s_enc = algorithms.AES(s_enc)
        # ECB serves one block at a time, as SCP03t makes its ICV: AES(S-ENC, counter)
        self._ecb = Cipher(self._s_enc, modes.ECB()).encryptor()  # noqa: S305
        self._mac = CMAC(algorithms.AES(s_mac))
        self._mcv = mcv
        self._counter = 1

    def icv(self) -> bytes:
        """The initial chaining vector of the next block."""
        return self._ecb.update(self._counter.to_bytes(16, "big"))

    def encrypt(self, tag: int, plaintext: bytes) -> bytes:
        """Protect one ``86`` or ``87``; the caller keeps to MAX_PLAINTEXT (see split)."""
        padded = plaintext + b"\x80" + bytes(15 - len(plaintext) % 16)
        body = Cipher(self._s_enc, modes.CBC(self.icv())).encryptor().update(padded)
        return self._seal(tag, body)

    def mac_only(self, tag: int, plaintext: bytes) -> bytes:
        """Protect one ``88``: the text stays clear, the counter steps all the same."""
        return self._seal(tag, plaintext)

    def decrypt(self, tlv: bytes) -> bytes:
        """Check and open one complete ``86`` or ``87``; raises StructureError, SecurityError."""
        body_at = _frame(tlv)
        if tlv[0] not in _ENCRYPTED_TAGS or (len(tlv) - body_at - MAC_LENGTH) % 16 or len(tlv) - body_at < 16:
            raise StructureError("not a sequence of cipher blocks")
        icv = self.icv()
        self._check(tlv)
        padded = Cipher(self._s_enc, modes.CBC(icv)).decryptor().update(tlv[body_at:-MAC_LENGTH])
        text = padded.rstrip(b"\x00")
        if len(padded) - len(text) > 15 or text[-1:] != b"\x80":
            raise StructureError("padding")
        return text[:-1]

    def verify(self, tlv: bytes) -> bytes:
        """Check one complete ``88`` and return its text; raises StructureError, SecurityError."""
        body_at = _frame(tlv)
        if tlv[0] != _MAC_ONLY_TAG:
            raise StructureError("not a MAC-only block")
        self._check(tlv)
        return tlv[body_at:-MAC_LENGTH]

    def _seal(self, tag: int, body: bytes) -> bytes:
        head = header(tag, len(body) + MAC_LENGTH)
        return head + body + self._chain(head + body)[:MAC_LENGTH]

    def _check(self, tlv: bytes) -> None:
        if not hmac.compare_digest(self._chain(tlv[:-MAC_LENGTH])[:MAC_LENGTH], tlv[-MAC_LENGTH:]):
            raise SecurityError("MAC")

    def _chain(self, data: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(self._mcv)
        mac.update(data)
        self._mcv = mac.finalize()
        self._counter += 1
        return self._mcv


def _frame(tlv: bytes) -> int:
    """Check length field and size limit of one protected TLV; returns the offset of its body."""
    if len(tlv) > MAX_TLV or len(tlv) < 2 + MAC_LENGTH:
        raise StructureError("size")
    first = tlv[1]
    body_at = 2 if first < 0x80 else 2 + (first & 0x7F)
    length = first if first < 0x80 else int.from_bytes(tlv[2:body_at], "big")
    if first > 0x82 or first == 0x80 or body_at + length != len(tlv) or length < MAC_LENGTH:
        raise StructureError("length")
    return body_at


def shared_secret(private: ec.EllipticCurvePrivateKey, peer_point: bytes) -> bytes:
    """ECKA: the 32-byte x coordinate; raises ValueError when the point is not on the private key's curve."""
    peer = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, peer_point)
    return private.exchange(ec.ECDH(), peer)


def session_keys(secret: bytes, host_id: bytes, eid16: bytes) -> SessionKeys:
    """X9.63 KDF: SharedInfo is key type, key length, LV hostId, LV EID (16 bytes, packed digits)."""
    info = bytes((KEY_TYPE_AES, KEY_LENGTH, len(host_id))) + host_id + bytes((len(eid16),)) + eid16
    stream = b"".join(hashlib.sha256(secret + n.to_bytes(4, "big") + info).digest() for n in (1, 2))
    return SessionKeys(stream[:16], stream[16:32], stream[32:48])


def derive(private: ec.EllipticCurvePrivateKey, peer_point: bytes, host_id: bytes, eid16: bytes) -> Bsp:
    """Key agreement and derivation in one: the BSP state both ends start from."""
    keys = session_keys(shared_secret(private, peer_point), host_id, eid16)
    return Bsp(keys.s_enc, keys.s_mac, keys.mcv)


def split(upp: bytes, size: int = MAX_PLAINTEXT) -> list[bytes]:
    """Cut an unprotected profile package (or metadata, size 1008) into pieces; only the last may be shorter."""
    return [upp[at : at + size] for at in range(0, len(upp), size)]
