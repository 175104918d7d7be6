"""A certificate factory for tests: a good chain, and the same chain with one thing changed.

`Recipe` says everything about one certificate; `dataclasses.replace` makes the bad variants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from ifpp.model.ids import Eid

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
EID = Eid("89049032123451234512345678901235")
SMDP_OID = "2.999.10"
PERMITTED_EINS = ObjectIdentifier("2.23.146.1.2.2.0")
POLICY_CI, POLICY_EUICC, POLICY_EUM, POLICY_DPPB = (f"2.23.146.1.2.1.{n}" for n in (0, 1, 2, 5))

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Recipe:
    """One certificate; None leaves the extension out."""

    name: str
    organization: str | None = "Test EUM"
    serial_number: str | None = None
    policies: tuple[str, ...] | None = ()
    policies_critical: bool = True
    cert_sign: bool = False
    digital_signature: bool = True
    key_usage_critical: bool | None = True
    ca: bool | None = None
    ca_critical: bool = True
    path_length: int | None = None
    permitted: tuple[tuple[str | None, str | None], ...] | None = None
    permitted_dns: str | None = None
    excluded: bool = False
    constraints_critical: bool = True
    permitted_eins: bytes | None = None
    san: tuple[str, ...] | None = None
    subject_key_id: bool = True
    authority_key_id: bool = True
    extra_critical: bool = False
    not_before: datetime = datetime(2025, 1, 1, tzinfo=UTC)
    not_after: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    curve: ec.EllipticCurve | None = None  # None makes an RSA key
    digest: hashes.SHA256 | hashes.SHA384 | None = None


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key."""

    key: Key
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


P256 = ec.SECP256R1()
ROOT = Recipe("Test CI", None, policies=(POLICY_CI,), cert_sign=True, digital_signature=False, ca=True, curve=P256)
EUM = replace(
    ROOT,
    name="Test EUM",
    organization="Test EUM",
    policies=(POLICY_EUM,),
    path_length=0,
    permitted=(("Test EUM", "89049032"),),
)
EUICC = Recipe("Test eUICC", serial_number=EID, policies=(POLICY_EUICC,), curve=P256)
DPPB = Recipe("Test SM-DPf", "Test SM-DPf", policies=(POLICY_DPPB,), san=(SMDP_OID,), curve=P256)
SUB_CA = replace(ROOT, name="Test sub-CA", policies=("2.999.99",))


def issue(recipe: Recipe, issuer: Issued | None = None, *, signer: Key | None = None) -> Issued:
    """Make a certificate; without issuer it signs itself. `signer` signs in the issuer's name with another key."""
    key: Key = rsa.generate_private_key(65537, 2048) if recipe.curve is None else ec.generate_private_key(recipe.curve)
    subject = _name((NameOID.COMMON_NAME, recipe.name), (NameOID.ORGANIZATION_NAME, recipe.organization))
    if recipe.serial_number is not None:
        subject = x509.Name([*subject, x509.NameAttribute(NameOID.SERIAL_NUMBER, recipe.serial_number)])
    issuer_key = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(recipe.not_before)
        .not_valid_after(recipe.not_after)
    )
    for extension, critical in _extensions(recipe, key, issuer_key):
        builder = builder.add_extension(extension, critical)
    return Issued(key, builder.sign(signer or issuer_key, recipe.digest or hashes.SHA256()))


def _extensions(recipe: Recipe, key: Key, issuer_key: Key) -> list[tuple[x509.ExtensionType, bool]]:
    made: list[tuple[x509.ExtensionType, bool]] = []
    if recipe.key_usage_critical is not None:
        made.append((_key_usage(recipe), recipe.key_usage_critical))
    if recipe.policies is not None:
        information = [x509.PolicyInformation(ObjectIdentifier(oid), None) for oid in recipe.policies]
        made.append((x509.CertificatePolicies(information), recipe.policies_critical))
    if recipe.ca is not None:
        made.append((x509.BasicConstraints(recipe.ca, recipe.path_length if recipe.ca else None), recipe.ca_critical))
    if recipe.permitted is not None:
        names = [_name((NameOID.ORGANIZATION_NAME, o), (NameOID.SERIAL_NUMBER, n)) for o, n in recipe.permitted]
        trees: list[x509.GeneralName] = [x509.DirectoryName(name) for name in names]
        trees += [x509.DNSName(recipe.permitted_dns)] if recipe.permitted_dns else []
        constraints = x509.NameConstraints(trees, trees if recipe.excluded else None)
        made.append((constraints, recipe.constraints_critical))
    if recipe.permitted_eins is not None:
        made.append((x509.UnrecognizedExtension(PERMITTED_EINS, recipe.permitted_eins), False))
    if recipe.san is not None:
        ids = [x509.RegisteredID(ObjectIdentifier(oid)) for oid in recipe.san]
        made.append((x509.SubjectAlternativeName(ids or [x509.DNSName("smdp.example.com")]), False))
    if recipe.subject_key_id:
        made.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if recipe.authority_key_id:
        made.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False))
    if recipe.extra_critical:
        made.append((x509.UnrecognizedExtension(ObjectIdentifier("2.999.1"), b"\x05\x00"), True))
    return made


def _key_usage(recipe: Recipe) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=recipe.digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=recipe.cert_sign,
        crl_sign=recipe.cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(*values: tuple[ObjectIdentifier, str | None]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values if value is not None])


def printable_strings(*texts: str) -> bytes:
    """SEQUENCE OF PrintableString in DER (short forms)."""
    body = b"".join(bytes([0x13, len(text)]) + text.encode() for text in texts)
    return bytes([0x30, len(body)]) + body


def sign_raw(key: Key, message: bytes) -> bytes:
    """Return r||s, 64 bytes, ECDSA with SHA-256."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: Key) -> bytes:
    """Return the 65-byte uncompressed public point."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def chain(*members: Issued) -> list[bytes]:
    """Return the DER of each certificate."""
    return [member.der for member in members]
