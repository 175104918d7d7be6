"""Who calls the store: the name and role in a client certificate, and whether the certificate still counts.

The certificate has one SubjectAltName of type URI `ifpp:<role>:<name>`, for example `ifpp:station:st01`: role is
station, supervisor, planner or auditor, name 1 to 32 characters of A-Z a-z 0-9 _ -. The subject says nothing. That the
certificate was issued by the site's CA is proved by TLS; dates and revocation are looked at again for every request, so
that a connection does not outlive its certificate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from ifpp.errors import SettingsError, VerificationError
from ifpp.trust.tls import stamp

_CALLER = re.compile(r"ifpp:(station|supervisor|planner|auditor):([A-Za-z0-9_-]{1,32})")
_MAX_FILE_BYTES = 16 * 1024 * 1024


class CallerRole(StrEnum):
    """What a caller may be."""

    STATION = "station"
    SUPERVISOR = "supervisor"
    PLANNER = "planner"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds the key of a certificate; `issuer` is a name in DER, `serial` in hex for people to read."""

    name: str
    role: CallerRole
    issuer: bytes
    number: int
    begins: datetime
    ends: datetime

    @property
    def serial(self) -> str:
        """The serial number in hex, as `openssl x509 -serial` shows it."""
        text = f"{self.number:X}"
        return text.zfill(len(text) + len(text) % 2)

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


def read_caller(certificate: bytes) -> Caller:
    """Read a client certificate (DER); raises VerificationError STORE.FORBIDDEN when it names nobody."""
    try:
        found = x509.load_der_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except (ValueError, UnsupportedAlgorithm):
        raise VerificationError("STORE.FORBIDDEN", "the certificate cannot be read") from None
    ours = [uri for uri in uris if uri.startswith("ifpp:")]
    match = _CALLER.fullmatch(ours[0]) if len(ours) == 1 else None
    if match is None:
        detail = "the certificate does not name one caller (URI ifpp:<role>:<name>)"
        raise VerificationError("STORE.FORBIDDEN", detail)
    return Caller(
        name=match.group(2),
        role=CallerRole(match.group(1)),
        issuer=found.issuer.public_bytes(),
        number=found.serial_number,
        begins=found.not_valid_before_utc,
        ends=found.not_valid_after_utc,
    )


def check_dates(caller: Caller, at: datetime) -> None:
    """Return when the certificate is valid at this time; raises VerificationError STORE.FORBIDDEN."""
    if not caller.begins <= at <= caller.ends:
        detail = f"the certificate of {caller} is valid from {caller.begins:%F %T} to {caller.ends:%F %T} UTC"
        raise VerificationError("STORE.FORBIDDEN", detail)


class Revocations:
    """The revocation lists of the site's CAs: a PEM file, read again when it changes.

    Once a list has ended (nextUpdate), or the file cannot be used any more, nobody is let in: a list that is not
    renewed would let revoked certificates in one day.
    """

    def __init__(self, path: Path, authorities: Path) -> None:
        """Read the lists; raises SettingsError SETTINGS.INVALID when one is not signed by an authority of the file."""
        self._path = path
        self._authorities_file = authorities
        self._authorities = _certificates(authorities)
        self._seen: tuple[tuple[int, int], ...] = ()
        self._revoked: frozenset[tuple[bytes, int]] = frozenset()
        self._ends: dict[bytes, datetime] = {}
        self._load()

    def check(self, caller: Caller, at: datetime) -> None:
        """Return when the certificate is not revoked; raises VerificationError STORE.FORBIDDEN."""
        if self._stamp() != self._seen:
            self._reload()
        end = self._ends.get(caller.issuer)
        if end is None or at > end:
            since = "there is none of its issuer" if end is None else f"it ended at {end:%F %T} UTC"
            raise VerificationError("STORE.FORBIDDEN", f"no revocation list in force: {since}", where=str(self._path))
        if (caller.issuer, caller.number) in self._revoked:
            raise VerificationError("STORE.FORBIDDEN", f"the certificate {caller.serial} of {caller} is revoked")

    def _reload(self) -> None:
        try:
            self._load()
        except SettingsError as error:
            raise VerificationError("STORE.FORBIDDEN", f"no revocation list in force: {error.detail}") from error

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return stamp(self._path), stamp(self._authorities_file)

    def _load(self) -> None:
        """Take over what the file says now; of a file that cannot be used nothing counts."""
        self._seen, self._revoked, self._ends = self._stamp(), frozenset(), {}
        self._authorities = _certificates(self._authorities_file)
        revoked: set[tuple[bytes, int]] = set()
        ends: dict[bytes, datetime] = {}
        for found in _revocation_lists(self._path):
            issuer = found.issuer.public_bytes()
            if not self._signed(found) or found.next_update_utc is None:
                raise SettingsError("SETTINGS.INVALID", "not signed by a CA of tls.ca", where=str(self._path))
            ends[issuer] = found.next_update_utc
            revoked.update((issuer, entry.serial_number) for entry in found)
        self._revoked, self._ends = frozenset(revoked), ends

    def _signed(self, found: x509.CertificateRevocationList) -> bool:
        return any(
            authority.subject == found.issuer and _signed_by(found, authority) for authority in self._authorities
        )


def _signed_by(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # of any key a CA may have
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _certificates(path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_content(path))
    except ValueError as error:
        raise SettingsError("SETTINGS.INVALID", f"no certificates in PEM ({error})", where=str(path)) from error


def _revocation_lists(path: Path) -> list[x509.CertificateRevocationList]:
    parts = re.findall(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", _content(path), re.DOTALL)
    if not parts:
        raise SettingsError("SETTINGS.INVALID", "no revocation list in PEM", where=str(path))
    try:
        return [x509.load_pem_x509_crl(part) for part in parts]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError("SETTINGS.INVALID", f"not a revocation list ({error})", where=str(path)) from error


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise SettingsError("SETTINGS.MISSING", "there is no such file", where=str(path)) from None
    except OSError as error:
        raise SettingsError("SETTINGS.INVALID", f"cannot be read ({error.strerror})", where=str(path)) from error
