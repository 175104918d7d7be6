"""Signing keys: made once, kept from others, and usable by any other ECDSA library."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.trust.signer import Signer, SoftwareSigner, VerificationKey, create_key, read_public_key

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, OPENSSL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
PLAIN = serialization.NoEncryption()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_signs_and_its_public_part_verifies(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    public = read_public_key(create_key(path))
    assert mode_of(path) == 0o600
    signer: Signer = SoftwareSigner.load(path)
    assert (signer.key_id, signer.public) == (public.key_id, public.public)
    assert public.key_id == sha256(public.public).hexdigest()
    signature = signer.sign(b"message")
    assert len(signature) == 64
    public.verify(signature, b"message", what="it")
    with pytest.raises(VerificationError, match=r"AUDIT\.SIGNATURE"):
        public.verify(signature, b"another", what="it")


def test_any_other_library_verifies_too(tmp_path: Path) -> None:
    create_key(tmp_path / "k")
    signer = SoftwareSigner.load(tmp_path / "k")
    key = serialization.load_der_public_key(signer.public)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signature = signer.sign(b"message")
    half = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    key.verify(half, b"message", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("taken", ["audit.key", "audit.key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("precious")
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        create_key(tmp_path / "audit.key")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "precious")]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "audit.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=r"SIGNER\.EXPOSED.*chmod 600"):
        SoftwareSigner.load(path)


def private(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve)


BAD = {
    "absent": None,
    "empty": b"",
    "noise": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    "encrypted": private(ec.SECP256R1()).private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")),
    "other curve": private(ec.SECP384R1()).private_bytes(PEM, PKCS8, PLAIN),
    "brainpool": private(ec.BrainpoolP256R1()).private_bytes(PEM, PKCS8, PLAIN),
    "other kind": ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, PLAIN),
    "public": private(ec.SECP256R1()).public_key().public_bytes(PEM, SPKI),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_signing_key_is_refused_by_code(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / "audit.key", BAD[name]
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(SettingsError, match=r"SIGNER\.KEY.*audit\.key") as caught:
        SoftwareSigner.load(path)
    assert content is None or b"BEGIN" not in str(caught.value).encode()


def test_nothing_shows_the_private_key(tmp_path: Path) -> None:
    create_key(tmp_path / "k")
    signer = SoftwareSigner.load(tmp_path / "k")
    secret = signer._private.private_numbers().private_value
    assert str(secret) not in repr(signer) + repr(vars(signer))


@pytest.mark.parametrize("content", [None, b"", b"noise", BAD["noise"]], ids=["absent", "empty", "noise", "PEM noise"])
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pub"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"SIGNER\.KEY"):
        read_public_key(path)


@pytest.mark.parametrize(
    "public",
    [
        b"",
        b"\x30\x00",
        private(ec.SECP384R1()).public_key().public_bytes(DER, SPKI),
        private(ec.BrainpoolP256R1()).public_key().public_bytes(DER, SPKI),
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(DER, SPKI),
    ],
    ids=["empty", "no key", "P-384", "brainpool", "Ed25519"],
)
def test_a_key_in_a_file_is_checked(public: bytes) -> None:
    with pytest.raises(VerificationError, match=r"AUDIT\.UNKNOWN_KEY"):
        VerificationKey.from_der(public)
