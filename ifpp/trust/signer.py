"""Keys that sign what the factory says: the seam an HSM fits into, and a key in a file for factories without one.

Signatures are ECDSA on P-256 with SHA-256, 64 bytes r||s. A key is named by the SHA-256 of its SubjectPublicKeyInfo
(DER), in hex: `openssl pkey -pubin -in KEY.pub -outform der | sha256sum` shows the same.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.trust.keys import P256, PublicKey

_ECDSA = ec.ECDSA(hashes.SHA256())
_HALF = 32
_MAX_FILE_BYTES = 64 * 1024
_DER, _PEM = serialization.Encoding.DER, serialization.Encoding.PEM
_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


class Signer(Protocol):
    """A private key on P-256, wherever it lives."""

    @property
    def key_id(self) -> str:
        """SHA-256 of `public`, 64 hex digits."""

    @property
    def public(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""

    def sign(self, message: bytes) -> bytes:
        """Return r||s, 64 bytes, over SHA-256 of the message; raises ServiceError SIGNER.FAILED. Blocking."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """The public part of a signer; make it with `read_public_key` or `from_der`."""

    key_id: str
    public: bytes
    _key: PublicKey = field(repr=False, compare=False)

    @classmethod
    def from_der(cls, public: bytes, *, where: str = "public key") -> VerificationKey:
        """Read a SubjectPublicKeyInfo; raises VerificationError AUDIT.UNKNOWN_KEY for anything but a P-256 key."""
        try:
            found = PublicKey.from_certificate_key(serialization.load_der_public_key(public), what=where)
        except (ValueError, UnsupportedAlgorithm, VerificationError):
            raise VerificationError("AUDIT.UNKNOWN_KEY", "not a public key on P-256", where=where) from None
        if found.curve_name != P256:
            raise VerificationError("AUDIT.UNKNOWN_KEY", "not a public key on P-256", where=where)
        return cls(sha256(public).hexdigest(), public, found)

    def verify(self, signature: bytes, message: bytes, *, what: str) -> None:
        """Return when the signature holds; raises VerificationError AUDIT.SIGNATURE naming `what`."""
        self._key.verify(signature, message, what=what, code="AUDIT.SIGNATURE")


class SoftwareSigner:
    """A key held in memory, read from a PEM file (PKCS#8, not encrypted) that only its owner may read."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(_DER, _SPKI)
        self.key_id = sha256(self.public).hexdigest()

    @classmethod
    def load(cls, path: Path) -> SoftwareSigner:
        """Read a key file; raises SettingsError SIGNER.KEY, or SIGNER.EXPOSED when others may read it."""
        try:
            with path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                content = stream.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise SettingsError("SIGNER.KEY", f"cannot be read ({error.strerror})", where=str(path)) from error
        if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
            detail = f"has mode {stat.S_IMODE(mode):04o}, others may read the private key"
            raise SettingsError("SIGNER.EXPOSED", detail, where=str(path))
        try:
            private = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # the cause may quote the file
            detail = "not an unencrypted PKCS#8 private key in PEM"
            raise SettingsError("SIGNER.KEY", detail, where=str(path)) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != P256:
            raise SettingsError("SIGNER.KEY", "not a key on P-256", where=str(path))
        return cls(private)

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._private.sign(message, _ECDSA))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")


def create_key(path: Path) -> Path:
    """Make a fresh key in `path` (mode 0600) and its public part in `path`.pub, which is returned.

    Never overwrites: raises CustodyError FILE.WRITE when one of the two exists or cannot be written.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    secret = private.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = path.with_name(path.name + ".pub")
    _write_new(path, secret, 0o600)
    try:
        _write_new(public, private.public_key().public_bytes(_PEM, _SPKI), 0o644)
    except CustodyError:
        path.unlink()
        raise
    return public


def read_public_key(path: Path) -> VerificationKey:
    """Read a public key from a PEM file; raises SettingsError SIGNER.KEY."""
    try:
        found = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SettingsError("SIGNER.KEY", f"cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError("SIGNER.KEY", "not a public key in PEM", where=str(path)) from None
    try:
        return VerificationKey.from_der(found.public_bytes(_DER, _SPKI), where=str(path))
    except VerificationError as error:
        raise SettingsError("SIGNER.KEY", error.detail, where=str(path)) from None


def write_public_key(path: Path, public: bytes) -> None:
    """Write a SubjectPublicKeyInfo as PEM to a new file; raises CustodyError FILE.WRITE."""
    _write_new(path, serialization.load_der_public_key(public).public_bytes(_PEM, _SPKI), 0o644)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error
