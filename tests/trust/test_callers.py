"""Who a client certificate names, and whether it counts; the CA of a site."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.trust.callers import CallerRole, Revocations, check_dates, read_caller
from ifpp.trust.site_pki import SitePki
from ifpp.trust.tls import client_context, server_context

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@pytest.fixture
def pki(tmp_path: Path) -> SitePki:
    return SitePki(tmp_path / "pki")


def der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def certificate(*names: x509.GeneralName) -> bytes:
    """A certificate with these alternative names; read_caller looks at nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ifpp:station:st01")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


@pytest.mark.parametrize("role", list(CallerRole))
def test_a_certificate_names_its_holder(pki: SitePki, role: CallerRole) -> None:
    path, _ = pki.issue_caller(role, "st-01_A", NOW)
    caller = read_caller(der(path))
    assert (caller.role, caller.name, str(caller)) == (role, "st-01_A", f"{role} st-01_A")
    check_dates(caller, NOW)


def test_other_names_do_not_disturb() -> None:
    names = [x509.DNSName("st01.plant"), uri("spiffe://plant/st01"), uri("ifpp:auditor:anna")]
    assert read_caller(certificate(*names)).role is CallerRole.AUDITOR


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("ifpp:station:st01")],
        [uri("ifpp:station:st01"), uri("ifpp:planner:st01")],
        *([uri(f"ifpp:{text}")] for text in ("station:", "st01", "root:st01", "station:a b", "station:st01:x")),
        [uri("ifpp:station:" + "x" * 33)],
        [uri("ifpp:station:st01\n")],
        [uri("ifpp:STATION:st01")],
        [uri("IFPP:station:st01")],
        [uri("ifpp:station:../../etc")],
        [uri("ifpp:station:' OR 1=1 --")],
    ],
)
def test_a_certificate_that_does_not_name_one_caller(names: list[x509.GeneralName]) -> None:
    """The subject, which says ifpp:station:st01, does not count."""
    with pytest.raises(VerificationError, match=r"STORE\.FORBIDDEN"):
        read_caller(certificate(*names))


def test_what_is_no_certificate() -> None:
    with pytest.raises(VerificationError, match=r"STORE\.FORBIDDEN"):
        read_caller(b"\x30\x03\x02\x01\x05")


@pytest.mark.parametrize("seconds", [-1, 24 * 3600 + 1])
def test_a_certificate_counts_between_its_dates(seconds: int) -> None:
    caller = read_caller(certificate(uri("ifpp:station:st01")))
    check_dates(caller, NOW)
    with pytest.raises(VerificationError, match="valid from 2026-03-01 08:00:00 to 2026-03-02 08:00:00 UTC"):
        check_dates(caller, NOW + timedelta(seconds=seconds))


# ---- revocation -------------------------------------------------------------------------------------


def test_revoked_is_refused_as_soon_as_the_list_says_so(pki: SitePki) -> None:
    (one, _), (two, _) = (pki.issue_caller(CallerRole.STATION, name, NOW) for name in ("st01", "st02"))
    pki.revoke(now=NOW)
    lists = Revocations(pki.crl, pki.ca)
    for path in (one, two):
        lists.check(read_caller(der(path)), NOW)
    pki.revoke(one, NOW)
    with pytest.raises(VerificationError, match="of station st01 is revoked"):
        lists.check(read_caller(der(one)), NOW)
    lists.check(read_caller(der(two)), NOW)


def test_a_list_that_has_ended_lets_nobody_in(pki: SitePki) -> None:
    path, _ = pki.issue_caller(CallerRole.STATION, "st01", NOW)
    pki.revoke(now=NOW)
    caller, late = read_caller(der(path)), NOW + timedelta(days=91)
    lists = Revocations(pki.crl, pki.ca)
    with pytest.raises(VerificationError, match="it ended at"):
        lists.check(caller, late)
    pki.revoke(now=late)
    lists.check(caller, late)


@pytest.mark.parametrize("content", [None, b"", b"nothing", "foreign"])
def test_a_list_that_cannot_be_used_lets_nobody_in(pki: SitePki, tmp_path: Path, content: bytes | str | None) -> None:
    path, _ = pki.issue_caller(CallerRole.STATION, "st01", NOW)
    lists = Revocations(pki.crl, pki.ca)
    if content is None:
        pki.crl.unlink()
    else:
        foreign = SitePki(tmp_path / "foreign").crl.read_bytes()
        pki.crl.write_bytes(foreign if isinstance(content, str) else content)
    for _ in range(2):
        with pytest.raises(VerificationError, match="no revocation list in force"):
            lists.check(read_caller(der(path)), NOW)
    with pytest.raises(SettingsError):
        Revocations(pki.crl, pki.ca)


def test_every_issuer_needs_its_list(pki: SitePki, tmp_path: Path) -> None:
    other = SitePki(tmp_path / "other")
    for one in (pki, other):
        one.revoke(now=NOW)
    both = tmp_path / "both.pem"
    both.write_bytes(pki.ca.read_bytes() + other.ca.read_bytes())
    (mine, _), (theirs, _) = (one.issue_caller(CallerRole.STATION, "st01", NOW) for one in (pki, other))
    lists = Revocations(pki.crl, both)
    lists.check(read_caller(der(mine)), NOW)
    with pytest.raises(VerificationError, match="there is none of its issuer"):
        lists.check(read_caller(der(theirs)), NOW)
    pki.crl.write_bytes(pki.crl.read_bytes() + other.crl.read_bytes())
    for path in (mine, theirs):
        lists.check(read_caller(der(path)), NOW)


# ---- the CA and its files -----------------------------------------------------------------------------


def test_openssl_agrees(pki: SitePki) -> None:
    """The files are what other programs take them for."""
    store, _ = pki.issue_store("127.0.0.1")
    station, _ = pki.issue_caller(CallerRole.STATION, "st01")
    revoked, _ = pki.issue_caller(CallerRole.STATION, "st02")
    pki.revoke(revoked)

    def verify(path: Path, purpose: str) -> int:
        words = ["-x509_strict", "-crl_check", "-CRLfile", pki.crl, "-CAfile", pki.ca, "-purpose", purpose, path]
        return subprocess.run(["openssl", "verify", *map(str, words)], capture_output=True, check=False).returncode

    assert [verify(store, "sslserver"), verify(station, "sslclient")] == [0, 0]
    assert 0 not in (verify(revoked, "sslclient"), verify(station, "sslserver"), verify(store, "sslclient"))


def test_private_keys_are_for_their_owner_only_and_renewed_as_a_whole(pki: SitePki) -> None:
    _, key = pki.issue_caller(CallerRole.STATION, "st01")
    for path in (key, pki.ca.with_name("ca.key")):
        assert path.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    certificate, again = pki.issue_caller(CallerRole.STATION, "st01")
    assert again == key
    assert key.read_bytes() != before
    assert key.stat().st_mode & 0o777 == 0o600
    client_context(pki.ca, certificate, key)
    pki.ca.with_name("ca.key.part").mkdir()
    with pytest.raises((CustodyError, OSError)):
        pki.rotate()
    pki.ca.with_name("ca.key.part").rmdir()
    ca = pki.ca.read_bytes()
    assert SitePki(pki.ca.parent).ca.read_bytes() == ca


def test_contexts_say_what_is_wrong_with_the_files(pki: SitePki, tmp_path: Path) -> None:
    certificate, key = pki.issue_caller(CallerRole.STATION, "st01")
    _, other = pki.issue_caller(CallerRole.STATION, "st02")
    assert client_context(pki.ca, certificate, key).check_hostname
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    for ca, cert, secret, code in (
        (tmp_path / "absent", certificate, key, "MISSING"),
        (pki.ca, certificate, tmp_path / "absent", "MISSING"),
        (nothing, certificate, key, "INVALID"),
        (pki.ca, certificate, other, "INVALID"),
    ):
        with pytest.raises(SettingsError, match=rf"SETTINGS\.{code}"):
            server_context(ca, cert, secret)
    exposed = tmp_path / "exposed.key"
    shutil.copy(key, exposed)
    exposed.chmod(0o640)
    with pytest.raises(SettingsError, match=r"SIGNER\.EXPOSED.*0640"):
        client_context(pki.ca, certificate, exposed)


def test_an_encrypted_key_asks_nobody_for_a_password(pki: SitePki, tmp_path: Path) -> None:
    certificate, key = pki.issue_caller(CallerRole.STATION, "st01")
    locked = tmp_path / "locked.key"
    words = ["openssl", "pkcs8", "-topk8", "-in", str(key), "-out", str(locked), "-passout", "pass:x"]
    subprocess.run(words, check=True, capture_output=True)
    os.chmod(locked, 0o600)  # noqa: PTH101
    with pytest.raises(SettingsError, match="the key is encrypted"):
        client_context(pki.ca, certificate, locked)
