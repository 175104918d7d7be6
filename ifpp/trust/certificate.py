"""One RSP certificate, read strictly: what its role must carry, and nothing it may not (SGP.22 4.5, SGP.14).

Plan for one certificate (numbers reappear in the code):
  1. One DER object without trailing bytes: X.509 version 3, signed ecdsa-with-SHA256, no extension twice.
  2. No critical extension its role does not define.
  3. A key on P-256 or brainpoolP256r1.
  4. Critical keyUsage: keyCertSign for a CA, digitalSignature and no keyCertSign for a leaf.
  5. Critical certificatePolicies with an OID of the role.
  6. A CA has critical basicConstraints CA:TRUE and a subjectKeyIdentifier, the EUM a path length too; a leaf is no CA.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from ifpp.errors import VerificationError
from ifpp.trust.keys import PublicKey

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
PERMITTED_EINS = x509.ObjectIdentifier("2.23.146.1.2.2.0")
_EIN_PREFIX = re.compile(r"[0-9]{1,30}")
_DER_SEQUENCE, _DER_PRINTABLE_STRING = 0x30, 0x13


class Role(StrEnum):
    """What a certificate is used for; the value names it in errors."""

    CI = "CI root"
    SUB_CA = "sub-CA"
    EUM = "CERT.EUM"
    EUICC = "CERT.EUICC"
    DPPB = "CERT.DPpb"
    DPAUTH = "CERT.DPauth"


@dataclass(frozen=True, slots=True)
class CertificatePolicies:
    """Accepted certificatePolicies OIDs by role; the defaults are those of SGP.22 v2 (id-rspRole-*).

    SGP.22 v3 assigns other, hierarchical OIDs and sub-CAs: name them here once they are checked against the
    specification. Without a sub-CA OID no sub-CA is accepted.
    """

    ci: frozenset[str] = frozenset({"2.23.146.1.2.1.0"})
    eum: frozenset[str] = frozenset({"2.23.146.1.2.1.2"})
    euicc: frozenset[str] = frozenset({"2.23.146.1.2.1.1"})
    dppb: frozenset[str] = frozenset({"2.23.146.1.2.1.5"})
    dpauth: frozenset[str] = frozenset({"2.23.146.1.2.1.4"})
    sub_ca: frozenset[str] = frozenset()

    def of(self, role: Role) -> frozenset[str]:
        """Return the OIDs of one role."""
        return {
            Role.CI: self.ci,
            Role.SUB_CA: self.sub_ca,
            Role.EUM: self.eum,
            Role.EUICC: self.euicc,
            Role.DPPB: self.dppb,
            Role.DPAUTH: self.dpauth,
        }[role]


class EinRange(NamedTuple):
    """EIDs an EUM may certify: `prefix` are leading digits, `organization` is None when the rule names none."""

    organization: str | None
    prefix: str


_COMMON_CRITICAL = {ExtensionOID.KEY_USAGE, ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.BASIC_CONSTRAINTS}
_LEAF_CRITICAL = _COMMON_CRITICAL | {ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.EXTENDED_KEY_USAGE}
_CRITICAL = {
    Role.CI: _COMMON_CRITICAL,
    Role.SUB_CA: _COMMON_CRITICAL | {ExtensionOID.NAME_CONSTRAINTS, PERMITTED_EINS},
    Role.EUM: _COMMON_CRITICAL | {ExtensionOID.NAME_CONSTRAINTS, PERMITTED_EINS},
    Role.EUICC: _LEAF_CRITICAL,
    Role.DPPB: _LEAF_CRITICAL,
    Role.DPAUTH: _LEAF_CRITICAL,
}
_LEAVES = frozenset({Role.EUICC, Role.DPPB, Role.DPAUTH})


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A certificate that meets the plan of this module; who issued it is `chain`'s matter."""

    role: Role
    what: str
    parsed: x509.Certificate
    key: PublicKey
    extensions: x509.Extensions
    not_before: datetime
    not_after: datetime
    path_length: int | None

    @property
    def subject_key_id(self) -> bytes | None:
        found = _find(self.extensions, x509.SubjectKeyIdentifier)
        return None if found is None else found.value.digest

    @property
    def authority_key_id(self) -> bytes | None:
        found = _find(self.extensions, x509.AuthorityKeyIdentifier)
        return None if found is None else found.value.key_identifier

    def subject_value(self, oid: x509.ObjectIdentifier) -> str:
        """Return the one value of a subject attribute; VerificationError when it is absent or repeated."""
        values = [str(attribute.value) for attribute in self.parsed.subject.get_attributes_for_oid(oid)]
        if len(values) != 1:
            self.refuse(f"the subject has {len(values)} values of {oid._name}, not one")
        return values[0]

    @property
    def organization(self) -> str:
        return self.subject_value(NameOID.ORGANIZATION_NAME)

    def registered_id(self) -> str:
        """Return the one registeredID of the subjectAltName in dotted form (SM-DP+ OID); VerificationError if none."""
        found = _find(self.extensions, x509.SubjectAlternativeName)
        oids = [] if found is None else found.value.get_values_for_type(x509.RegisteredID)
        if len(oids) != 1:
            self.refuse(f"the subjectAltName has {len(oids)} registered IDs, not one")
        return oids[0].dotted_string

    def ein_ranges(self) -> tuple[EinRange, ...]:
        """Return the EIDs this CA may certify: nameConstraints (SGP.22 v2) or permittedEins (v3); empty if it has none.

        Raises VerificationError when either extension is present but not as the specification shapes it.
        """
        ranges: list[EinRange] = []
        constraints = _find(self.extensions, x509.NameConstraints)
        if constraints is not None:
            if not constraints.critical or constraints.value.excluded_subtrees:
                self.refuse("nameConstraints must be critical and only permit")
            ranges += [self._range_of(name) for name in constraints.value.permitted_subtrees or ()]
        for extension in self.extensions:
            if extension.oid == PERMITTED_EINS and isinstance(extension.value, x509.UnrecognizedExtension):
                ranges += [EinRange(None, self._prefix(text)) for text in self._strings(extension.value.value)]
        return tuple(ranges)

    def check_dates(self, at: datetime) -> None:
        """Raise VerificationError unless the certificate is valid at this (aware) time."""
        if at < self.not_before:
            self.refuse(f"it is not valid before {self.not_before:%Y-%m-%d}")
        if at > self.not_after:
            self.refuse(f"it expired on {self.not_after:%Y-%m-%d}")

    def refuse(self, why: str) -> NoReturn:
        """Raise VerificationError TRUST.CHAIN that names this certificate."""
        raise VerificationError("TRUST.CHAIN", why, where=self.what)

    def _range_of(self, name: x509.GeneralName) -> EinRange:
        if not isinstance(name, x509.DirectoryName):
            self.refuse("nameConstraints permit something other than a directory name")
        values = {attribute.oid: str(attribute.value) for attribute in name.value}
        if len(list(name.value)) != 2 or values.keys() != {NameOID.ORGANIZATION_NAME, NameOID.SERIAL_NUMBER}:
            self.refuse("nameConstraints must name organization and serialNumber, nothing else")
        return EinRange(values[NameOID.ORGANIZATION_NAME], self._prefix(values[NameOID.SERIAL_NUMBER]))

    def _prefix(self, text: str) -> str:
        # an empty prefix would permit every EID
        if not _EIN_PREFIX.fullmatch(text):
            self.refuse("an EIN prefix is not made of digits")
        return text

    def _strings(self, der: bytes) -> list[str]:
        """Read SEQUENCE OF PrintableString, short form lengths (a list of some fifteen EINs at most)."""
        body = der[2:]
        if der[:1] != bytes([_DER_SEQUENCE]) or len(body) > 0x7F or der[1:2] != bytes([len(body)]):
            self.refuse("permittedEins is not a SEQUENCE of strings")
        texts: list[str] = []
        while body:
            if body[0] != _DER_PRINTABLE_STRING or len(body) < 2 or body[1] > len(body) - 2:
                self.refuse("permittedEins is not a SEQUENCE of strings")
            texts.append(body[2 : 2 + body[1]].decode("latin-1"))
            body = body[2 + body[1] :]
        return texts


def read_certificate(der: bytes, role: Role, policies: CertificatePolicies) -> Certificate:
    """Read one DER certificate in one role; raises VerificationError TRUST.CHAIN that names the broken rule."""
    parsed, extensions = _parse(der, role)  # 1
    what = f"{role.value} {parsed.subject.rfc4514_string()[:80]}"
    basic = _find(extensions, x509.BasicConstraints)
    certificate = Certificate(
        role=role,
        what=what,
        parsed=parsed,
        key=PublicKey.from_certificate_key(_public_key(parsed, what), what=what),  # 3
        extensions=extensions,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        path_length=None if basic is None else basic.value.path_length,
    )
    for extension in extensions:  # 2
        if extension.critical and extension.oid not in _CRITICAL[role]:
            certificate.refuse(f"critical extension {extension.oid.dotted_string} has no place here")
    _check_key_usage(certificate)  # 4
    _check_policies(certificate, policies.of(role))  # 5
    _check_basic_constraints(certificate, basic)  # 6
    return certificate


def _parse(der: bytes, role: Role) -> tuple[x509.Certificate, x509.Extensions]:
    try:
        parsed = x509.load_der_x509_certificate(der)
        extensions = parsed.extensions
        algorithm = parsed.signature_algorithm_oid
        _ = parsed.not_valid_before_utc, parsed.not_valid_after_utc, parsed.subject, parsed.issuer
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise VerificationError("TRUST.CHAIN", f"not a certificate: {error}", where=role.value) from None
    if parsed.version is not x509.Version.v3 or algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise VerificationError("TRUST.CHAIN", "not X.509 version 3 signed ecdsa-with-SHA256", where=role.value)
    if der[-len(parsed.signature) - 1] != 0:  # unused bits of the outer BIT STRING, which no signature covers
        raise VerificationError("TRUST.CHAIN", "its signature is not made of whole bytes", where=role.value)
    return parsed, extensions


def _public_key(parsed: x509.Certificate, what: str) -> object:
    try:
        return parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError("TRUST.CHAIN", f"its public key cannot be read: {error}", where=what) from None


def _find(extensions: x509.Extensions, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _check_key_usage(certificate: Certificate) -> None:
    found = _find(certificate.extensions, x509.KeyUsage)
    if found is None or not found.critical:
        certificate.refuse("it has no critical keyUsage")
    usage = found.value
    leaf = certificate.role in _LEAVES
    if (leaf and not usage.digital_signature) or usage.key_cert_sign is leaf:
        certificate.refuse("its keyUsage does not fit its role")


def _check_policies(certificate: Certificate, accepted: frozenset[str]) -> None:
    found = _find(certificate.extensions, x509.CertificatePolicies)
    if found is None or not found.critical:
        certificate.refuse("it has no critical certificatePolicies")
    oids = {information.policy_identifier.dotted_string for information in found.value}
    if not oids & accepted:
        certificate.refuse(f"its policies {', '.join(sorted(oids))} are not of this role")


def _check_basic_constraints(certificate: Certificate, basic: x509.Extension[x509.BasicConstraints] | None) -> None:
    if certificate.role in _LEAVES:
        if basic is not None and basic.value.ca:
            certificate.refuse("it claims to be a CA")
        return
    if basic is None or not basic.critical or not basic.value.ca:
        certificate.refuse("it has no critical basicConstraints CA:TRUE")
    if certificate.role is Role.EUM and basic.value.path_length is None:
        certificate.refuse("its path length is not limited")
    if certificate.subject_key_id is None:
        certificate.refuse("it has no subjectKeyIdentifier")
