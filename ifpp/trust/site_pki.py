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
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ifpp.errors import CustodyError, SettingsError
from ifpp.trust.callers import CallerRole

_CA_DAYS, _DAYS, _LIST_DAYS = 3650, 730, 90
_BACKDATED = timedelta(minutes=5)  # clocks of stations are not the same
_PEM = serialization.Encoding.PEM
_Key = ec.EllipticCurvePrivateKey


class SitePki:
    """The CA in a folder: `ca.pem`, `ca.key`, `crl.pem`, and what it issued: `<name>.pem`, `<name>.key`."""

    def __init__(self, folder: Path) -> None:
        """Open the CA of a folder; make one where there is none. Raises CustodyError FILE.WRITE, SettingsError."""
        self._folder = folder
        self.ca, self.crl = folder / "ca.pem", folder / "crl.pem"
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
        self._write_list([])

    def issue_caller(self, role: CallerRole, name: str, now: datetime | None = None) -> tuple[Path, Path]:
        """Issue `<role>-<name>.pem` for a client; return certificate and key. Raises CustodyError FILE.WRITE."""
        uri = x509.UniformResourceIdentifier(f"ifpp:{role}:{name}")
        return self._issue(self.certificate(role, name), uri, ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def issue_store(self, host: str) -> tuple[Path, Path]:
        """Issue `store-<host>.pem` for the store at this host name or address; return certificate and key."""
        try:
            name: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        return self._issue(self.certificate("store", host), name, ExtendedKeyUsageOID.SERVER_AUTH, None)

    def certificate(self, kind: str, name: str) -> Path:
        """Where the certificate of a store at this host, or of a caller, stands."""
        return self._folder / f"{kind}-{name.replace(':', '_')}.pem"

    def revoke(self, certificate: Path | None = None, now: datetime | None = None) -> None:
        """Renew the revocation list, with one certificate more; raises SettingsError."""
        entries = list(_read_list(self.crl))
        if certificate is not None:
            number = _read_certificate(certificate).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now or datetime.now(UTC))
            entries.append(entry.build())
        self._write_list(entries, now)

    def _make_ca(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ifpp site CA {token_hex(4)}")])
        others = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage = dict.fromkeys([*others, "encipher_only", "decipher_only"], False)
        return (
            self._builder(name, name, self._key, _CA_DAYS, None)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _issue(
        self, path: Path, name: x509.GeneralName, use: x509.ObjectIdentifier, now: datetime | None
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.stem[:64])])
        issued = (
            self._builder(subject, self._certificate.subject, key, _DAYS, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = path.with_name(f"{path.stem}.key")
        _write(secret, _secret(key), 0o600)
        _write(path, issued.public_bytes(_PEM), 0o644)
        return path, secret

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: _Key, days: int, now: datetime | None
    ) -> x509.CertificateBuilder:
        begins = (now or datetime.now(UTC)) - _BACKDATED
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    def _write_list(self, entries: list[x509.RevokedCertificate], now: datetime | None = None) -> None:
        begins = (now or datetime.now(UTC)) - _BACKDATED
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(begins)
            .next_update(begins + timedelta(days=_LIST_DAYS))
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        content = builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
        part = self.crl.with_suffix(".part")
        part.unlink(missing_ok=True)
        _write(part, content, 0o644)
        part.replace(self.crl)


def _secret(key: _Key) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _read(path: Path) -> _Key:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise SettingsError("SIGNER.KEY", "not a CA key that `ifpp store pki` made", where=str(path)) from None
    if not isinstance(key, _Key):
        raise SettingsError("SIGNER.KEY", "not a CA key that `ifpp store pki` made", where=str(path))
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "no certificate in PEM can be read", where=str(path)) from error


def _read_list(path: Path) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", "no revocation list in PEM can be read", where=str(path)) from error


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file; raises CustodyError FILE.WRITE when there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error
