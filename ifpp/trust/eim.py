"""The certificate of an eIM, before a chip is told to obey whoever holds its key (SGP.32 2.11).

Plan (numbers reappear in the code):
  1. One PEM certificate each, of the eIM and of its issuer; without an issuer it has issued itself.
  2. X.509 version 3 with a key on P-256 or brainpoolP256r1; keyUsage, where there is one, allows signatures and no CA.
  3. The issuer may sign certificates, and its signature holds.
  4. Both are valid at the time passed in.
  5. Where it names hosts, one of them is the eIM's FQDN; where it names a registered OID, that is the eIM's id.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from typing import NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.errors import VerificationError
from ifpp.model.recipe import Eim
from ifpp.trust.keys import PublicKey

_REMEMBERED = 64
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def check_eim(eim: Eim, at: datetime) -> bytes:
    """Return the eIM's certificate (DER) when it holds at this time; raises VerificationError EIM.CERTIFICATE."""
    certificate, issuer = _check(eim)
    for member in (certificate, issuer):  # 4
        if not member.not_valid_before_utc <= at <= member.not_valid_after_utc:
            until = f"{member.not_valid_before_utc:%Y-%m-%d} to {member.not_valid_after_utc:%Y-%m-%d}"
            _refuse(eim, f"{_subject(member)} is valid from {until}")
    return certificate.public_bytes(Encoding.DER)


def certificate_digest(der: bytes) -> str:
    """Name a certificate by the SHA-256 of its DER, in hex."""
    return hashlib.sha256(der).hexdigest()


@lru_cache(_REMEMBERED)
def _check(eim: Eim) -> tuple[x509.Certificate, x509.Certificate]:
    """Check all but the dates, which change."""
    certificate = _parse(eim, eim.certificate)  # 1
    issuer = _parse(eim, eim.issuer) if eim.issuer else certificate
    try:
        PublicKey.from_certificate_key(certificate.public_key(), what=_subject(certificate))  # 2
        usage = _find(certificate, x509.KeyUsage)
        if usage is not None and (not usage.digital_signature or usage.key_cert_sign):
            _refuse(eim, "its keyUsage is not that of a signer")
        if issuer is not certificate:
            _check_ca(eim, issuer)
        certificate.verify_directly_issued_by(issuer)  # 3
        _check_names(eim, certificate)
    except InvalidSignature:
        _refuse(eim, f"the signature of {_subject(issuer)} does not hold")
    except VerificationError as error:
        _refuse(eim, error.detail)
    except (ValueError, TypeError, x509.DuplicateExtension) as error:
        _refuse(eim, f"{_subject(issuer)} has not issued it ({error})")
    return certificate, issuer


def _parse(eim: Eim, pem: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        _refuse(eim, f"not a certificate: {error}")
    if certificate.version is not x509.Version.v3:
        _refuse(eim, "not X.509 version 3")  # 2
    return certificate


def _check_ca(eim: Eim, issuer: x509.Certificate) -> None:
    basic, usage = _find(issuer, x509.BasicConstraints), _find(issuer, x509.KeyUsage)
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        _refuse(eim, f"{_subject(issuer)} may not issue certificates")


def _check_names(eim: Eim, certificate: x509.Certificate) -> None:
    names = _find(certificate, x509.SubjectAlternativeName)
    if names is None:
        return
    hosts = names.get_values_for_type(x509.DNSName)
    if hosts and eim.fqdn and eim.fqdn not in hosts:  # 5
        _refuse(eim, f"it is for {', '.join(hosts)}, not for {eim.fqdn}")
    oids = [oid.dotted_string for oid in names.get_values_for_type(x509.RegisteredID)]
    if oids and eim.id_type == "oid" and eim.id not in oids:
        _refuse(eim, f"it is for {', '.join(oids)}, not for {eim.id}")


def _find(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:80]


def _refuse(eim: Eim, why: str) -> NoReturn:
    raise VerificationError("EIM.CERTIFICATE", why, where=f"eIM {eim.id}")
