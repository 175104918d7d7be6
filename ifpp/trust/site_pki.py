"""A small CA for the TLS of one site, in a folder: for trials, or where no other CA issues certificates.

Keys are on P-256, made fresh, in files of mode 0600. Whoever has `ca.key` may speak as any station: keep it away from
stations and store. Certificates hold for two years, revocation lists for 90 days.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ifpp.errors import CustodyError, SettingsError
from ifpp.trust.callers import CallerRole

_CA_DAYS, _DAYS, _LIST_DAYS = 3650, 730, 90
_BACKDATED = timedelta(minutes=5)  # clocks of stations are not the same
_END = b"-----END X509 CRL-----"
SERVERS = ("store", "broker")
CLIENTS = (*CallerRole, "mes", "scada")  # these two speak to the broker alone: the store knows no such roles
_PEM = serialization.Encoding.PEM
_Key = ec.EllipticCurvePrivateKey
_Public = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class SitePki:
    """The CA in a folder: `ca.pem`, `ca.key`, `crl.pem`, and what it issued: `<name>.pem`, `<name>.key`.

    Files are replaced at once, never written over: who reads one sees the old or the new.
    """

    def __init__(self, folder: Path) -> None:
        """Open the CA of a folder; make one where there is none. Raises CustodyError FILE.WRITE, SettingsError."""
        self._folder = folder
        self.ca, self.crl = folder / "ca.pem", folder / "crl.pem"
        self._old_key = folder / "ca.old.key"
        if (folder / "ca.key").exists():
            self._key, self._certificate = _read(folder / "ca.key"), _read_certificate(self.ca)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(folder)) from error
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._make_ca()
        _write(folder / "ca.key", _secret(self._key), 0o600)
        _write(self.ca, self._certificate.public_bytes(_PEM), 0o644)
        self.revoke()

    def rotate(self) -> None:
        """Make the next CA, which issues from now on; `ca.pem` holds both. Raises CustodyError FILE.WRITE."""
        if self._old_key.exists():
            raise CustodyError("FILE.WRITE", "the CA before is not retired yet", where=str(self._old_key))
        old = self.ca.read_bytes()
        _write(self._old_key, _secret(self._key), 0o600)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._make_ca()
        _replace(self._folder / "ca.key", _secret(self._key), 0o600)
        _replace(self.ca, self._certificate.public_bytes(_PEM) + old, 0o644)
        self.revoke()

    def retire(self) -> None:
        """Trust the newest CA only; the key of the one before is gone."""
        _replace(self.ca, self._certificate.public_bytes(_PEM), 0o644)
        self._old_key.unlink(missing_ok=True)
        self.revoke()

    def issue_caller(self, role: str, name: str, now: datetime | None = None) -> tuple[Path, Path]:
        """Issue or renew `<role>-<name>.pem`, role of `CLIENTS`; return certificate and key. Raises CustodyError."""
        return self._issue(self.certificate(role, name), *_alternative(role, name), now)

    def issue_store(self, host: str, kind: str = "store") -> tuple[Path, Path]:
        """Issue or renew `<kind>-<host>.pem`, of the store or "broker" at this host; return certificate and key."""
        return self._issue(self.certificate(kind, host), *_alternative(kind, host), None)

    def sign_request(self, request: Path, kind: str, name: str, now: datetime | None = None) -> Path:
        """Issue a certificate for the key of a request (PKCS#10, PEM), under the name that is given here, not its own.

        Raises SettingsError SETTINGS.INVALID for a request that does not prove its key.
        """
        try:
            found = x509.load_pem_x509_csr(request.read_bytes())
            public = found.public_key()
        except (OSError, ValueError) as error:
            raise SettingsError("SETTINGS.INVALID", "no request in PEM can be read", where=str(request)) from error
        if not found.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise SettingsError("SETTINGS.INVALID", "it does not prove that it has its key", where=str(request))
        path = self.certificate(kind, name)
        _replace(path, self._signed(path, public, *_alternative(kind, name), now), 0o644)
        return path

    def certificate(self, kind: str, name: str) -> Path:
        """Where the certificate of a store at this host, or of a caller, stands."""
        return self._folder / f"{kind}-{name.replace(':', '_')}.pem"

    def revoke(self, certificate: Path | None = None, now: datetime | None = None) -> None:
        """Renew the revocation list, with one certificate more; raises SettingsError."""
        found = None if certificate is None else _read_certificate(certificate)
        known = _read_lists(self.crl)
        authorities = [(self._certificate, self._key)]
        if self._old_key.exists():
            authorities.append((_read_certificates(self.ca)[-1], _read(self._old_key)))
        if found is not None and found.issuer not in [authority.subject for authority, _ in authorities]:
            raise SettingsError("SETTINGS.INVALID", "not issued by this CA", where=str(certificate))
        lists = []
        for authority, key in authorities:
            entries = [entry for one in known if one.issuer == authority.subject for entry in one]
            if found is not None and found.issuer == authority.subject:
                builder = x509.RevokedCertificateBuilder().serial_number(found.serial_number)
                entries.append(builder.revocation_date(now or datetime.now(UTC)).build())
            lists.append(_list(authority, key, entries, now))
        _replace(self.crl, b"".join(lists), 0o644)

    def _make_ca(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ifpp site CA {token_hex(4)}")])
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys([*others, "encipher_only", "decipher_only"], False)
        return (
            self._builder(name, name, self._key.public_key(), _CA_DAYS, None)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _issue(
        self, path: Path, name: x509.GeneralName, use: x509.ObjectIdentifier, now: datetime | None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        secret = path.with_name(f"{path.stem}.key")
        issued = self._signed(path, key.public_key(), name, use, now)
        _replace(secret, _secret(key), 0o600)
        _replace(path, issued, 0o644)
        return path, secret

    def _signed(
        self,
        path: Path,
        public: _Public,
        name: x509.GeneralName,
        use: x509.ObjectIdentifier,
        now: datetime | None,
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem[:64])])
        return (
            self._builder(subject, self._certificate.subject, public, _DAYS, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(_PEM)
        )

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, public: _Public, days: int, now: datetime | None
    ) -> x509.CertificateBuilder:
        begins = (now or datetime.now(UTC)) - _BACKDATED
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


def _list(
    authority: x509.Certificate, key: _Key, entries: list[x509.RevokedCertificate], now: datetime | None
) -> bytes:
    begins = (now or datetime.now(UTC)) - _BACKDATED
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(begins)
        .next_update(begins + timedelta(days=_LIST_DAYS))
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256()).public_bytes(_PEM)


def _alternative(kind: str, name: str) -> tuple[x509.GeneralName, x509.ObjectIdentifier]:
    """Return how a certificate names its holder, and what it is for."""
    if kind not in SERVERS:
        return x509.UniformResourceIdentifier(f"ifpp:{kind}:{name}"), ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        return x509.IPAddress(ip_address(name)), ExtendedKeyUsageOID.SERVER_AUTH
    except ValueError:
        return x509.DNSName(name), ExtendedKeyUsageOID.SERVER_AUTH


def _secret(key: _Key) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _read(path: Path) -> _Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise SettingsError("SIGNER.KEY", "not a CA key that `ifpp pki` made", where=str(path)) from None
    if not isinstance(key, _Key):
        raise SettingsError("SIGNER.KEY", "not a CA key that `ifpp pki` made", where=str(path))
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "no certificate in PEM can be read", where=str(path)) from error


def _read_certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def _read_lists(path: Path) -> list[x509.CertificateRevocationList]:
    if not path.exists():
        return []
    try:
        parts = path.read_bytes().split(_END)[:-1]
        return [x509.load_pem_x509_crl(part + _END) for part in parts]
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "no revocation list in PEM can be read", where=str(path)) from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Put a file in the place of one that may be there; raises CustodyError FILE.WRITE."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    _write(part, content, mode)
    part.replace(path)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file; raises CustodyError FILE.WRITE when there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error
