"""When certificates and revocation lists end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from ifpp.errors import SettingsError

SOON = timedelta(days=14)
_PART = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ending:
    """One certificate ("cert", "ca") or revocation list ("crl") in a file."""

    file: Path
    kind: str
    name: str
    ends: datetime


def endings(path: Path) -> list[Ending]:
    """Read a PEM file; what is no certificate in it does not count. Raises SettingsError SETTINGS.INVALID."""
    try:
        return [_ending(path, part.group(1), part.group(0)) for part in _PART.finditer(path.read_bytes())]
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "no certificate in PEM can be read", where=str(path)) from error


def _ending(path: Path, label: bytes, content: bytes) -> Ending:
    if label == b"X509 CRL":
        found = x509.load_pem_x509_crl(content)
        return Ending(path, "crl", found.issuer.rfc4514_string(), found.next_update_utc or found.last_update_utc)
    certificate = x509.load_pem_x509_certificate(content)
    own = certificate.issuer == certificate.subject
    return Ending(path, "ca" if own else "cert", certificate.subject.rfc4514_string(), certificate.not_valid_after_utc)
