"""Keys in one encrypted file: for the demo and for sites without an HSM.

The file is JSON: {"format", "salt", "nonce", "sealed"}; `sealed` is AES-256-GCM over the list of keys, under scrypt of
the PIN (N 2^15, r 8, p 1). Whoever has file and PIN has the keys: "extractable" is among their attributes. A change
holds a lock and is made in a new file that takes the old one's place; what is open already keeps what it has read.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac, hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from ifpp.errors import CustodyError, SettingsError, VerificationError
from ifpp.log import Secret
from ifpp.model.clock import utc_ms_text
from ifpp.model.ids import Eid
from ifpp.trust.keyring import KeyInfo, Purpose
from ifpp.trust.signer import Signer, SoftwareSigner

_FORMAT = "ifpp.keys/1"
_MAX_BYTES = 1 << 20
_MAC_BYTES = 8
_USES = {
    Purpose.AUDIT: {"sign"},
    Purpose.REPORT: {"sign"},
    Purpose.STATION: {"sign"},
    Purpose.CHIP: {"derive"},
    Purpose.TRANSPORT: {"derive"},
    Purpose.BACKUP: {"wrap", "unwrap"},
}
_DER = serialization.Encoding.DER
_SPKI, _PKCS8 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PrivateFormat.PKCS8


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of the file; `value`: PKCS#8 (DER) of a key pair, or the 32 bytes of a secret key."""

    name: str
    value: Secret
    created_at: str

    @property
    def purpose(self) -> Purpose:
        return Purpose(self.name.split(".")[0])

    @property
    def version(self) -> int:
        return int(self.name.split(".")[1])

    def private(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_der_private_key(self.value.reveal(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - the file's own, under its seal
        return key

    def info(self) -> KeyInfo:
        secret = self.purpose in (Purpose.CHIP, Purpose.BACKUP)
        public = None if secret else self.private().public_key().public_bytes(_DER, _SPKI)
        return KeyInfo(
            name=self.name,
            purpose=self.purpose,
            version=self.version,
            algorithm="AES-256" if secret else "EC P-256",
            key_id=_check_value(self.value) if public is None else sha256(public).hexdigest(),
            public=public,
            attributes=frozenset({"extractable", *_USES[self.purpose]}),
            created_at=self.created_at,
        )


class SoftwareKeys:
    """A KeyProvider over a file; open it with `open`, make it with `create`."""

    kind = "software"

    def __init__(self, path: Path, pin: Secret) -> None:
        self._path, self._seal = path, _Seal(pin)
        self._keys: dict[str, _Key] = {}

    @classmethod
    def create(cls, path: Path, pin: Secret) -> SoftwareKeys:
        """Make an empty file of mode 0600; raises CustodyError FILE.WRITE when there is one."""
        try:
            path.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise CustodyError("FILE.WRITE", f"cannot be made ({error.strerror})", where=str(path)) from error
        made = cls(path, pin)
        made._write()
        return made

    @classmethod
    def open(cls, path: Path, pin: Secret) -> SoftwareKeys:
        """Read a file; raises SettingsError KEYS.NO_TOKEN without a sound file, KEYS.PIN for a wrong PIN."""
        try:
            with path.open("rb") as stream:
                mode, content = os.fstat(stream.fileno()).st_mode, stream.read(_MAX_BYTES)
        except OSError as error:
            raise SettingsError("KEYS.NO_TOKEN", f"cannot be read ({error.strerror})", where=str(path)) from error
        if mode & 0o077:
            detail = f"has mode {mode & 0o777:04o}, others may read it"
            raise SettingsError("SIGNER.EXPOSED", detail, where=str(path))
        made = cls(path, pin)
        made._keys = made._seal.open(content, str(path))
        return made

    def keys(self) -> list[KeyInfo]:
        return [key.info() for key in self._keys.values()]

    def signer(self, purpose: Purpose) -> Signer:
        return SoftwareSigner(self._newest(purpose).private())

    def authorise(self, eid: Eid, message: bytes) -> bytes:
        # ECB of one block: the chip's key out of the master's
        master = Cipher(algorithms.AES(self._newest(Purpose.CHIP).value.reveal()), modes.ECB()).encryptor()  # noqa: S305
        mac = cmac.CMAC(algorithms.AES(master.update(bytes.fromhex(str(eid)))))
        mac.update(message)
        return mac.finalize()[:_MAC_BYTES]

    def unwrap(self, name: str, ephemeral_public: bytes | None, wrapped: bytes) -> Secret:
        try:
            if ephemeral_public is None:
                raise ValueError("no ephemeral key")
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), ephemeral_public)
            shared = self._named(name, Purpose.TRANSPORT).private().exchange(ec.ECDH(), point)
        except ValueError:
            raise VerificationError("TRUST.SIGNATURE", "the content key does not unwrap", where=name) from None
        return open_content_key(Secret(shared), wrapped, name)

    def wrap(self, content_key: Secret) -> tuple[str, bytes]:
        key = self._newest(Purpose.BACKUP)
        return key.name, keywrap.aes_key_wrap(key.value.reveal(), content_key.reveal())

    def unwrap_backup(self, name: str, wrapped: bytes) -> Secret:
        try:
            return Secret(keywrap.aes_key_unwrap(self._named(name, Purpose.BACKUP).value.reveal(), wrapped))
        except (ValueError, keywrap.InvalidUnwrap):
            raise VerificationError("TRUST.SIGNATURE", "the backup's key does not unwrap", where=name) from None

    def generate(self, purpose: Purpose) -> KeyInfo:
        if purpose in (Purpose.CHIP, Purpose.BACKUP):
            value = secrets.token_bytes(32)
        else:
            value = ec.generate_private_key(ec.SECP256R1()).private_bytes(_DER, _PKCS8, serialization.NoEncryption())
        with self._changing():
            version = max((key.version for key in self._keys.values() if key.purpose == purpose), default=0) + 1
            key = _Key(f"{purpose}.{version}", Secret(value), utc_ms_text(datetime.now(UTC)))
            self._keys[key.name] = key
        return key.info()

    def destroy(self, name: str) -> None:
        with self._changing():
            self._named(name)
            del self._keys[name]

    def close(self) -> None:
        self._keys.clear()

    # ---- inside -----------------------------------------------------------------------------------

    def _newest(self, purpose: Purpose) -> _Key:
        found = [key for key in self._keys.values() if key.purpose == purpose]
        if not found:
            raise SettingsError("KEYS.MISSING", f"there is no {purpose} key", where=str(self._path))
        return max(found, key=lambda key: key.version)

    def _named(self, name: str, purpose: Purpose | None = None) -> _Key:
        if name not in self._keys or purpose not in (None, self._keys[name].purpose):
            raise SettingsError("KEYS.MISSING", f"there is no {purpose or ''} key {name[:40]}", where=str(self._path))
        return self._keys[name]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Read the file again under its lock, let it be changed, write it."""
        written = self._keys
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            written = self._seal.open(self._path.read_bytes(), str(self._path))
            self._keys = dict(written)
            yield
            self._write()
        except OSError as error:
            self._keys = written
            detail = f"cannot be written ({error.strerror})"
            raise CustodyError("FILE.WRITE", detail, where=str(self._path)) from error
        finally:
            os.close(lock)

    def _write(self) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(self._seal.close(self._keys.values()))
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def open_content_key(shared: Secret, wrapped: bytes, name: str) -> Secret:
    """Unwrap a content key under the ANSI X9.63 KDF (SHA-256, no shared info) of an ECDH secret (RFC 3394)."""
    try:
        key = X963KDF(hashes.SHA256(), 32, b"").derive(shared.reveal())
        return Secret(keywrap.aes_key_unwrap(key, wrapped))
    except (ValueError, keywrap.InvalidUnwrap):
        raise VerificationError("TRUST.SIGNATURE", "the content key does not unwrap", where=name) from None


def public_from_point(point: bytes, *, where: str) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a P-256 point; PKCS#11 wraps it in an OCTET STRING, some tokens not."""
    wrapped = len(point) == 67 and point[:2] == b"\x04\x41"  # a bare point begins so too where its x does with 41
    bare = point[2:] if wrapped else point
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bare).public_bytes(_DER, _SPKI)
    except ValueError:
        raise CustodyError("KEYS.ATTRIBUTES", "is no key on P-256", where=where) from None


class _Seal:
    """The file's seal under a PIN; the slow hash is made once for each salt, and the salt stays the file's."""

    def __init__(self, pin: Secret) -> None:
        self._pin, self._salt, self._key = pin, b"", Secret(b"")

    def close(self, keys: Iterable[_Key]) -> bytes:
        """Return a file with these keys."""
        salt, nonce = self._salt or secrets.token_bytes(16), secrets.token_bytes(12)
        plain = json.dumps([[key.name, key.value.reveal().hex(), key.created_at] for key in keys]).encode()
        sealed = self._cipher(salt).encrypt(nonce, plain, _FORMAT.encode())
        document = {"format": _FORMAT, "salt": salt.hex(), "nonce": nonce.hex(), "sealed": sealed.hex()}
        return json.dumps(document).encode() + b"\n"

    def open(self, content: bytes, where: str) -> dict[str, _Key]:
        """Return the keys of a file by name; raises SettingsError KEYS.NO_TOKEN, KEYS.PIN."""
        try:
            document = json.loads(content)
            form = document["format"]
            salt, nonce, sealed = (bytes.fromhex(document[name]) for name in ("salt", "nonce", "sealed"))
        except (ValueError, KeyError, TypeError, RecursionError):
            form = ""
        if form != _FORMAT:
            raise SettingsError("KEYS.NO_TOKEN", "is not a file of keys", where=where)
        try:
            plain = self._cipher(salt).decrypt(nonce, sealed, _FORMAT.encode())
        except (InvalidTag, ValueError):
            raise SettingsError("KEYS.PIN", "the PIN is wrong, or the file was changed", where=where) from None
        return {name: _Key(name, Secret(bytes.fromhex(value)), at) for name, value, at in json.loads(plain)}

    def _cipher(self, salt: bytes) -> AESGCM:
        if salt != self._salt:
            key = Scrypt(salt=salt, length=32, n=1 << 15, r=8, p=1).derive(self._pin.reveal())
            self._salt, self._key = salt, Secret(key)
        return AESGCM(self._key.reveal())


def _check_value(value: Secret) -> str:
    """What tells two secret keys apart and nothing else."""
    return sha256(b"ifpp-key-check\0" + value.reveal()).hexdigest()
