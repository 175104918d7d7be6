"""Elliptic-curve public keys of RSP: two curves, raw r||s signatures, range-checked before they are verified."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ifpp.errors import VerificationError

P256 = "secp256r1"
BRAINPOOL256 = "brainpoolP256r1"

_CURVES: dict[str, ec.EllipticCurve] = {P256: ec.SECP256R1(), BRAINPOOL256: ec.BrainpoolP256R1()}
_ORDERS = {
    P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    BRAINPOOL256: 0xA9FB57DBA1EEA9BC3E660A909D838D718C397AA3B561A6F7901E0E82974856A7,
}
_ECDSA = ec.ECDSA(hashes.SHA256())
_HALF = 32  # bytes of r and of s, and of each coordinate, on both curves


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One verification key on P-256 or brainpoolP256r1."""

    curve_name: str
    _key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)
    point: bytes

    @classmethod
    def from_point(cls, curve_name: str, point: bytes, *, what: str, code: str = "TRUST.SIGNATURE") -> PublicKey:
        """Make a key from its 65-byte uncompressed point (tag 5F49).

        ``what`` names the key in the error. Raises VerificationError with ``code`` for no point of this curve.
        """
        if len(point) != 1 + 2 * _HALF or point[0] != 0x04:
            raise VerificationError(code, "a public key is 65 bytes, uncompressed", where=what)
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve_name], point)
        except ValueError:
            raise VerificationError(code, f"the public key is not on {curve_name}", where=what) from None
        return cls(curve_name, key, point)

    @classmethod
    def from_certificate_key(cls, key: object, *, what: str) -> PublicKey:
        """Make a key from the one inside a certificate; raises VerificationError TRUST.CHAIN for another kind."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            raise VerificationError("TRUST.CHAIN", "the key is not on P-256 or brainpoolP256r1", where=what)
        numbers = key.public_numbers()
        point = b"\x04" + numbers.x.to_bytes(_HALF, "big") + numbers.y.to_bytes(_HALF, "big")
        return cls(key.curve.name, key, point)

    def verify(self, signature: bytes, message: bytes, *, what: str, code: str = "TRUST.SIGNATURE") -> None:
        """Verify one ECDSA-SHA256 signature in the plain format r||s of 64 bytes (BSI TR-03111, SGP.22 2.6.7.2).

        ``what`` names the signature in the error. Raises VerificationError with ``code`` unless it holds.
        """
        if len(signature) != 2 * _HALF:
            raise VerificationError(code, f"a signature has 64 bytes, not {len(signature)}", where=what)
        r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
        order = _ORDERS[self.curve_name]
        if not (0 < r < order and 0 < s < order):
            raise VerificationError(code, "r or s lies outside 1..n-1", where=what)
        try:
            self._key.verify(encode_dss_signature(r, s), message, _ECDSA)
        except InvalidSignature:
            raise VerificationError(code, "the signature does not hold over these bytes", where=what) from None
