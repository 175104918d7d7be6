"""What an SM-DPf checks on data it receives: eUICC certificates, one-time-key lists, installation results.

SGP.41 DPFF05-DPFF10: the SM-DPf, not the factory, judges. Every check raises EvidenceError with a reason in words.
Signatures are verified over the bytes as received.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from ifpp.sim import pki
from ifpp.sim.eum import otk_id_of
from ifpp.sim.tlv import Node, parse, parse_one, read_bits, read_integer, read_oid

_INSTALL, _DELETE = frozenset({0}), frozenset({3})


class EvidenceError(ValueError):
    """A certificate, list or result that does not prove what it claims."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What a verified ProfileInstallationResult says; `command` and `reason` are those of a failure (SGP.22 5.7.5)."""

    transaction_id: bytes
    seq_number: int
    smdp_oid: str
    iccid: bytes | None
    installed: bool
    command: int | None = None
    reason: int | None = None


def euicc_key(certificate: bytes, eum_chain: Sequence[bytes], ci: bytes, eid: str) -> ec.EllipticCurvePublicKey:
    """Check CERT.EUICC <- CERT.EUM <- CI root for this EID and return the chip's key; raises EvidenceError."""
    if len(eum_chain) != 1:
        raise EvidenceError("an EUM chain of one certificate is expected")
    eum = _eum(eum_chain[0], ci)
    chip = _load(certificate)
    _issued(chip, eum, pki.POLICY_EUICC)
    if _subject(chip, NameOID.SERIAL_NUMBER) != eid:
        raise EvidenceError("the certificate is for another EID")
    if not eid.startswith(_permitted_prefix(eum)):
        raise EvidenceError("the EID is outside the EUM's range")
    if _subject(chip, NameOID.ORGANIZATION_NAME) != _subject(eum, NameOID.ORGANIZATION_NAME):
        raise EvidenceError("the certificate names another organisation than its EUM's")
    return _ec_key(chip)


def verify_raw(key: ec.EllipticCurvePublicKey, data: bytes, signature: bytes) -> None:
    """Verify r || s (64 bytes) over `data`; raises EvidenceError."""
    if len(signature) != 64:
        raise EvidenceError("a signature that is not 64 bytes")
    pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(encode_dss_signature(*pair), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise EvidenceError("the signature does not hold") from None


def one_time_keys(otk_list: bytes, key: ec.EllipticCurvePublicKey, eid: str) -> dict[bytes, bytes]:
    """Check an exported one-time-key list (TLV 30 and 5F37) and return {otk_id: public point} of the available ones."""
    try:
        signed, signature = parse(otk_list)
        if (signed.tag, signature.tag) != (0x30, 0x5F37):
            raise EvidenceError("not a signed one-time-key list")
        owner = signed.need(0x5A).value.hex()
        entries = signed.need(0xA2).children()
        keys = {entry.need(0x81).value: entry.need(0x5F49).value for entry in entries if not _state(entry)}
    except ValueError as error:
        raise EvidenceError(f"one-time-key list: {error}") from error
    verify_raw(key, signed.raw, signature.value)
    if owner != eid:
        raise EvidenceError("the one-time-key list is of another chip")
    if any(otk_id != otk_id_of(public) for otk_id, public in keys.items()):
        raise EvidenceError("a one-time key does not match its identifier")
    return keys


def installation(pir: bytes, key: ec.EllipticCurvePublicKey) -> Installation:
    """Check form and signature of a ProfileInstallationResult (BF37) and return what it says; raises EvidenceError."""
    try:
        data, signature = parse_one(pir, 0xBF37).children()
        if (data.tag, signature.tag) != (0xBF27, 0x5F37):
            raise EvidenceError("not an installation result")
        verify_raw(key, data.raw, signature.value)
        return _installation(data)
    except EvidenceError:
        raise
    except ValueError as error:
        raise EvidenceError(f"installation result: {error}") from error


def deletion(notification: bytes, key: ec.EllipticCurvePublicKey) -> bytes:
    """Check form and signature of a notification that a profile was deleted (SGP.22 5.7.9, 2.8.1); return its ICCID.

    Raises EvidenceError.
    """
    try:
        signed, signature = parse_one(notification, 0x30).children()[:2]
        if (signed.tag, signature.tag) != (0xBF2F, 0x5F37):
            raise EvidenceError("not a notification")
        verify_raw(key, signed.raw, signature.value)
        if read_bits(signed.need(0x81).value) != _DELETE:
            raise EvidenceError("the notification is not of a deletion")
        return signed.need(0x5A).value
    except EvidenceError:
        raise
    except ValueError as error:
        raise EvidenceError(f"notification: {error}") from error


def _installation(data: Node) -> Installation:
    notification = data.need(0xBF2F)
    if read_bits(notification.need(0x81).value) != _INSTALL:
        raise EvidenceError("the notification is not of an installation")
    iccid = notification.first(0x5A)
    result = parse_one(data.need(0xA2).value)
    installed = result.tag == 0xA0
    if installed:
        _all_well(result)
    return Installation(
        transaction_id=data.need(0x80).value,
        seq_number=read_integer(notification.need(0x80).value),
        smdp_oid=read_oid(data.need(0x06).value),
        iccid=iccid.value if iccid else None,
        installed=installed,
        command=None if installed else read_integer(result.need(0x80).value),
        reason=None if installed else read_integer(result.need(0x81).value),
    )


def _all_well(success: Node) -> None:
    """A success names an ISD-P and only EUICCResponses whose every status is ok."""
    if not 5 <= len(success.need(0x4F).value) <= 16:
        raise EvidenceError("an ISD-P AID of a wrong length")
    for response in parse(success.need(0x04).value):
        if any(read_integer(status.need(0x80).value) for status in response.need(0xA0).children()):
            raise EvidenceError("a success with a profile element that failed")


def _state(entry: Node) -> int:
    return read_integer(entry.need(0x82).value)


@lru_cache(maxsize=64)
def _eum(certificate: bytes, ci: bytes) -> x509.Certificate:
    eum = _load(certificate)
    _issued(eum, _load(ci), pki.POLICY_EUM)
    return eum


def _load(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate)
    except (ValueError, x509.InvalidVersion) as error:
        raise EvidenceError("a certificate that does not parse") from error


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, policy: str) -> None:
    """Check signature, role and dates of a certificate below `issuer`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise EvidenceError("a certificate that its issuer did not sign") from error
    try:
        policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound as error:
        raise EvidenceError("a certificate without policy") from error
    if policy not in {entry.policy_identifier.dotted_string for entry in policies}:
        raise EvidenceError("a certificate of another role")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise EvidenceError("a certificate that is not valid today")


def _permitted_prefix(eum: x509.Certificate) -> str:
    """Return the EIN of the EUM's name constraint."""
    try:
        constraint = eum.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound as error:
        raise EvidenceError("an EUM certificate without name constraint") from error
    for permitted in constraint.permitted_subtrees or ():
        if isinstance(permitted, x509.DirectoryName):
            return _attribute(permitted.value, NameOID.SERIAL_NUMBER)
    raise EvidenceError("an EUM certificate without permitted directory name")


def _subject(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> str:
    return _attribute(certificate.subject, kind)


def _attribute(name: x509.Name, kind: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(kind)
    if len(found) != 1:
        raise EvidenceError("a name without exactly one organisation or serial number")
    return str(found[0].value)


def _ec_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise EvidenceError("a certificate without an elliptic-curve key")
    return key
