"""What the chip itself believes about an SM-DPf: the certificate chain to a trusted CI (SGP.22 4.5.2.2).

An eUICC knows no time, so validity periods are not looked at; everything else of FPX/1 10.5 and SGP.22 4.5 is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim.pki import POLICY_DPPB, point
from ifpp.sim.tlv import parse_one

P256 = ec.SECP256R1()
BRAINPOOL = ec.BrainpoolP256R1()
CURVES: dict[int, ec.EllipticCurve] = {0: P256, 1: BRAINPOOL}  # by alg of a one-time key (FPX/1 10.4)
_MAX_CHAIN = 4
# what cryptography raises for certificates that do not parse, lack something or are signed by somebody else
_UNFIT = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class ChainError(ValueError):
    """The chain does not lead from a CERT.DPpb to a trusted CI (DownloadErrorCode 1)."""


class CurveError(ValueError):
    """The certificate's key is on a curve this chip does not support (DownloadErrorCode 3)."""


@dataclass(frozen=True, slots=True)
class Signer:
    """An authenticated SM-DPf: its OID, its public point and the name of its curve."""

    oid: str
    point: bytes
    curve: str


@lru_cache(maxsize=256)
def key_identifier(root: bytes) -> bytes:
    """SubjectKeyIdentifier of a CI certificate (DER): its PKID."""
    return _ski(x509.load_der_x509_certificate(root))


@lru_cache(maxsize=256)
def authenticate(chain: tuple[bytes, ...], roots: tuple[bytes, ...], policy: str = POLICY_DPPB) -> Signer:
    """Check CERT.DPpb, or one of another `policy`, (first) through its issuers to one of `roots`.

    Raises ChainError, CurveError. The answer depends on the bytes alone, so one process serving thousands of chips
    computes it once.
    """
    if len(chain) > _MAX_CHAIN:
        raise ChainError("chain too long")
    try:
        if any(parse_one(der, 0x30).children()[-1].value[:1] != b"\0" for der in chain):
            raise ChainError("a signature with unused bits")  # two encodings of one certificate
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        trusted = [x509.load_der_x509_certificate(root) for root in roots]
        _check_path(certificates, trusted)
        return _signer(certificates[0], policy)
    except (ChainError, CurveError):
        raise
    except _UNFIT as error:
        raise ChainError(type(error).__name__) from error


def _check_path(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> None:
    """Each certificate names, and is signed by, the next one; the last one by a root with the right identifier."""
    for depth, certificate in enumerate(chain):
        authority = _extension(certificate, x509.AuthorityKeyIdentifier).key_identifier
        issuers = [chain[depth + 1]] if depth + 1 < len(chain) else roots
        issuer = next((each for each in issuers if _ski(each) == authority), None)
        if issuer is None:
            raise ChainError("unknown issuer")
        certificate.verify_directly_issued_by(issuer)
        _check_authority(issuer, below=depth)


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    constraints = _extension(certificate, x509.BasicConstraints)
    if not constraints.ca or not _usage(certificate).key_cert_sign:
        raise ChainError("issuer is not a CA")
    if constraints.path_length is not None and constraints.path_length < below:
        raise ChainError("path too long")


def _signer(leaf: x509.Certificate, policy: str) -> Signer:
    if not _usage(leaf).digital_signature:
        raise ChainError("key usage")
    policies = leaf.extensions.get_extension_for_class(x509.CertificatePolicies)
    if not policies.critical or policy not in {row.policy_identifier.dotted_string for row in policies.value}:
        raise ChainError(f"policy is not {policy}")
    names = _extension(leaf, x509.SubjectAlternativeName).get_values_for_type(x509.RegisteredID)
    if len(names) != 1:
        raise ChainError("no SM-DPf OID")
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in {P256.name, BRAINPOOL.name}:
        raise CurveError("curve")
    return Signer(names[0].dotted_string, point(public), public.curve.name)


def _usage(certificate: x509.Certificate) -> x509.KeyUsage:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    if not usage.critical:
        raise ChainError("key usage is not critical")
    return usage.value


def _ski(certificate: x509.Certificate) -> bytes:
    return _extension(certificate, x509.SubjectKeyIdentifier).digest


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension:
    return certificate.extensions.get_extension_for_class(kind).value
