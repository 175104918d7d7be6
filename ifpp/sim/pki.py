"""A test PKI made fresh at every start: CI root, EUM, CERT.DPpb and CERT.EUICC by the profiles of SGP.22 4.5 / SGP.26.

All object identifiers lie under 2.999 (example arc) but for the GSMA policy identifiers. Keys come from the operating
system's random source, always. Bad certificates for tests are made by changing a profile:
``ci.issue(replace(DPPB, policy=POLICY_EUICC), ...)``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

POLICY_CI = "2.23.146.1.2.1.0"
POLICY_EUICC = "2.23.146.1.2.1.1"
POLICY_EUM = "2.23.146.1.2.1.2"
POLICY_DPTLS = "2.23.146.1.2.1.3"
POLICY_DPAUTH = "2.23.146.1.2.1.4"
POLICY_DPPB = "2.23.146.1.2.1.5"
CI_OID = "2.999.1"
EUM_OID = "2.999.5"
SMDP_OID = "2.999.10"
EIN = "89049032"

_DIGEST = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """What one kind of certificate carries; `usage` names members of X.509 KeyUsage, `years` counts from `not_before`.

    `path_length` is used in CA certificates only. The name constraint permits one directory name: O and the EIN prefix.
    `hosts` are the names and IP addresses of a TLS server.
    """

    policy: str
    usage: frozenset[str]
    is_ca: bool = False
    path_length: int | None = None
    rid: str | None = None
    permitted: tuple[str, str] | None = None
    years: int = 30
    hosts: tuple[str, ...] = ()


CI = CertificateProfile(POLICY_CI, frozenset({"key_cert_sign", "crl_sign"}), is_ca=True, rid=CI_OID, years=35)
EUM = CertificateProfile(POLICY_EUM, frozenset({"key_cert_sign"}), is_ca=True, path_length=0, rid=EUM_OID)
EUICC = CertificateProfile(POLICY_EUICC, frozenset({"digital_signature"}))
DPAUTH = CertificateProfile(POLICY_DPAUTH, frozenset({"digital_signature"}), rid=SMDP_OID, years=3)
DPTLS = CertificateProfile(POLICY_DPTLS, frozenset({"digital_signature"}), rid=SMDP_OID, years=3)
DPPB = CertificateProfile(POLICY_DPPB, frozenset({"digital_signature"}), rid=SMDP_OID, years=3)


@dataclass(frozen=True, slots=True)
class Holder:
    """A private key with its certificate; signs further certificates if the certificate allows it (not checked)."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def __repr__(self) -> str:
        return f"Holder({self.certificate.subject.rfc4514_string()})"

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pkid(self) -> bytes:
        """The SubjectKeyIdentifier value (20 bytes)."""
        return self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest

    def issue(
        self,
        profile: CertificateProfile,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        not_before: datetime | None = None,
    ) -> x509.Certificate:
        """Sign a certificate of this profile for `public_key`; `not_before` defaults to one day ago."""
        return _sign(self.key, self.certificate, profile, subject, public_key, not_before=not_before)


@dataclass(frozen=True, slots=True)
class Pki:
    """One tree: CI root -> EUM, CI root -> CERT.DPpb. eUICC certificates are issued below the EUM."""

    ci: Holder
    eum: Holder
    dppb: Holder

    @classmethod
    def create(
        cls,
        *,
        name: str = "IFPP Sim",
        ein: str = EIN,
        smdp_oid: str = SMDP_OID,
        curve: ec.EllipticCurve | None = None,
        not_before: datetime | None = None,
    ) -> Pki:
        """Make a fresh tree on P-256 (or `curve`); two calls give two trees that do not trust each other."""
        chosen = curve or ec.SECP256R1()
        ci = self_signed(name_of(f"{name} CI", "CI"), ec.generate_private_key(chosen), not_before=not_before)
        eum_name = f"{name} EUM"
        eum = below(
            ci, replace(EUM, permitted=(eum_name, ein)), name_of(eum_name, "EUM"), curve=chosen, not_before=not_before
        )
        profile = replace(DPPB, rid=smdp_oid)
        dppb = below(ci, profile, name_of(f"{name} SM-DPf", "DPpb"), curve=chosen, not_before=not_before)
        return cls(ci, eum, dppb)


def name_of(organisation: str, common_name: str, serial_number: str = "") -> x509.Name:
    """Make a subject: O, serialNumber (an EID, PrintableString) if given, CN."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)]
    if serial_number:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number))
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def organisation_of(certificate: x509.Certificate) -> str:
    """Return the subject's O."""
    return str(certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)


def self_signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, not_before: datetime | None = None) -> Holder:
    """Make a CI root for `key`."""
    return Holder(key, _sign(key, None, CI, subject, key.public_key(), not_before=not_before))


def below(
    issuer: Holder,
    profile: CertificateProfile,
    subject: x509.Name,
    *,
    curve: ec.EllipticCurve | None = None,
    not_before: datetime | None = None,
) -> Holder:
    """Make a fresh key and have `issuer` certify it."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return Holder(key, issuer.issue(profile, subject, key.public_key(), not_before=not_before))


def point(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the uncompressed point 04 || X || Y (65 bytes)."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def scalar(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the private value, 32 bytes big-endian. Key material: for personalisation files only."""
    return key.private_numbers().private_value.to_bytes(32, "big")


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes, *, deterministic: bool = False) -> bytes:
    """Return the ECDSA/SHA-256 signature r || s (64 bytes, BSI TR-03111 plain format).

    `deterministic` takes the nonce from RFC 6979: for known-answer tests only.
    """
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(_DIGEST, deterministic_signing=deterministic)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _sign(
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    profile: CertificateProfile,
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    *,
    not_before: datetime | None,
) -> x509.Certificate:
    """Build and sign; `issuer` None makes a root, which carries no authorityKeyIdentifier."""
    start = not_before or datetime.now(UTC) - timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * profile.years))
    )
    for extension, critical in _extensions(profile, signer, issuer, public_key):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, _DIGEST)


def _extensions(
    profile: CertificateProfile,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    public_key: ec.EllipticCurvePublicKey,
) -> list[tuple[x509.ExtensionType, bool]]:
    """List the extensions of a profile, each with its critical flag."""
    policy = x509.PolicyInformation(x509.ObjectIdentifier(profile.policy), None)
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(public_key), False),
        (_key_usage(profile.usage), True),
        (x509.CertificatePolicies([policy]), True),
    ]
    if issuer is not None:
        found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False))
    if profile.is_ca:
        found.append((x509.BasicConstraints(ca=True, path_length=profile.path_length), True))
    names: list[x509.GeneralName] = [_host(host) for host in profile.hosts]
    if profile.rid is not None:
        names.append(x509.RegisteredID(x509.ObjectIdentifier(profile.rid)))
    if names:
        found.append((x509.SubjectAlternativeName(names), False))
    if profile.hosts:
        found.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), True))
    if profile.permitted is not None:
        found.append((x509.NameConstraints([x509.DirectoryName(_permitted(*profile.permitted))], None), True))
    return found


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _permitted(organisation: str, ein: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, ein),
        ]
    )


def _key_usage(usage: frozenset[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital_signature" in usage,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign="key_cert_sign" in usage,
        crl_sign="crl_sign" in usage,
        encipher_only=False,
        decipher_only=False,
    )
