"""The factory's keys as objects of a token.

A key is an object labelled with its name, such as `audit.2`; a pair's halves share the label. Pairs are on P-256, the
others AES-256; none is extractable, and one that is, or may not do what it is for, is not used. CKA_ID says when a key
was made (14 digits) and goes on with random bytes; it is the id of a secret key, so nothing about its value leaves the
token. TRANSPORT agrees on a secret (CKM_ECDH1_DERIVE without a KDF, which every token has; CKD_SHA256_KDF few have):
the shared secret, which opens one delivery, leaves the token as the content key would anyway, the key does not.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Any

from pkcs11 import KDF, Attribute, KeyType, Mechanism, ObjectClass
from pkcs11 import exceptions as faults
from pkcs11.util.ec import encode_named_curve_parameters

from ifpp.errors import IfppError, ServiceError, SettingsError, VerificationError
from ifpp.hw.hsm.objects import (
    MAY,
    PAIR_USES,
    USES,
    find,
    find_chip_master,
    list_keys,
    marker,
    owned,
)
from ifpp.hw.hsm.token import Session, Token
from ifpp.log import Secret, get_logger
from ifpp.metrics import Metrics
from ifpp.model.ids import Eid
from ifpp.trust.keyfile import open_content_key, public_from_point
from ifpp.trust.keyring import KeyInfo, Purpose
from ifpp.trust.signer import Signer, VerificationKey

_MAC_BYTES = 8
_SESSION_KEY = {Attribute.TOKEN: False, Attribute.PRIVATE: True}
_LEAVES = _SESSION_KEY | {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
_STAYS = _SESSION_KEY | {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
_log = get_logger("hw.hsm")


class Pkcs11Keys:
    """A KeyProvider over one token; open it with `open`. May be used by many threads, not by a forked child."""

    kind = "pkcs11"

    def __init__(self, token: Token) -> None:
        self._token = token

    @classmethod
    def open(
        cls, module: str, token: str, pin: Secret, *, timeout_s: float, sessions: int, metrics: Metrics | None = None
    ) -> Pkcs11Keys:
        """Log in to the token with this label; one that does not answer now is asked again by the first operation.

        `timeout_s`: how long any call may last, waiting for one of the `sessions` included.
        Raises SettingsError KEYS.NO_TOKEN, KEYS.PIN or KEYS.PIN_LOCKED.
        """
        made = cls(Token(module, token, pin, timeout_s=timeout_s, sessions=sessions, metrics=metrics))
        try:
            made._token.run("login", lambda _: None)
        except ServiceError as error:
            _log.warning("keys.away", error=error)
        except IfppError:
            made.close()
            raise
        return made

    def keys(self) -> list[KeyInfo]:
        return self._token.run("list", list_keys)

    def signer(self, purpose: Purpose) -> Signer:
        return _TokenSigner(self, self._newest(purpose))

    def authorise(self, eid: Eid, message: bytes) -> bytes:
        return self._token.run("authorise", partial(_authorise, eid=bytes.fromhex(str(eid)), message=message))

    def unwrap(self, name: str, ephemeral_public: bytes | None, wrapped: bytes) -> Secret:
        owned(name, Purpose.TRANSPORT, self._token.where)
        point = ephemeral_public or b""
        if not _on_curve(point):
            raise VerificationError("TRUST.SIGNATURE", "the content key does not unwrap", where=name)
        shared = self._token.run("unwrap", partial(_agree, name=name, point=point))
        return open_content_key(shared, wrapped, name)

    def wrap(self, content_key: Secret) -> tuple[str, bytes]:
        name = self._newest(Purpose.BACKUP).name
        return name, self._token.run("wrap", partial(_wrap, name=name, content_key=content_key))

    def unwrap_backup(self, name: str, wrapped: bytes) -> Secret:
        owned(name, Purpose.BACKUP, self._token.where)
        return self._token.run("unwrap_backup", partial(_unwrap, name=name, wrapped=wrapped))

    def generate(self, purpose: Purpose) -> KeyInfo:
        version = max((one.version for one in self.keys() if one.purpose == purpose), default=0) + 1
        name = f"{purpose}.{version}"
        self._token.run("generate", partial(_generate, name=name, purpose=purpose), again=False)
        return next(one for one in self.keys() if one.name == name)

    def destroy(self, name: str) -> None:
        self._token.run("destroy", partial(_destroy, name=name), again=False)

    def sign(self, name: str, message: bytes) -> bytes:
        """Sign with one version; see `Signer.sign`."""
        return self._token.run("sign", partial(_sign, name=name, digest=sha256(message).digest()))

    def close(self) -> None:
        self._token.close()

    def _newest(self, purpose: Purpose) -> KeyInfo:
        found = [one for one in self.keys() if one.purpose == purpose]
        if not found:
            raise SettingsError("KEYS.MISSING", f"there is no {purpose} key", where=self._token.where)
        return max(found, key=lambda one: one.version)


class _TokenSigner:
    """A key pair of the token as a Signer; what the token says is verified before it goes out."""

    def __init__(self, keys: Pkcs11Keys, info: KeyInfo) -> None:
        self._keys, self._name = keys, info.name
        self.key_id, self.public = info.key_id, info.public or b""
        self._check = VerificationKey.from_der(self.public, where=info.name)

    def sign(self, message: bytes) -> bytes:
        try:
            signature = self._keys.sign(self._name, message)
            self._check.verify(signature, message, what=self._name)
        except ServiceError:
            raise
        except VerificationError:
            raise ServiceError("SIGNER.FAILED", "the token's signature does not hold", where=self._name) from None
        except IfppError as error:  # the key is gone or was changed
            raise ServiceError("SIGNER.FAILED", f"{error.code}: {error.detail}", where=self._name) from error
        return signature


# ---- work in a session --------------------------------------------------------------------------------


def _sign(session: Session, name: str, digest: bytes) -> bytes:
    signature: bytes = find(session, ObjectClass.PRIVATE_KEY, name, "sign").sign(digest, mechanism=Mechanism.ECDSA)
    return signature


def _authorise(session: Session, eid: bytes, message: bytes) -> bytes:
    """Two operations: the chip's key out of the newest master, and its CMAC."""
    derived = find_chip_master(session).derive_key(
        KeyType.AES,
        128,
        store=False,
        mechanism=Mechanism.AES_ECB_ENCRYPT_DATA,
        mechanism_param=eid,
        template=_STAYS | {Attribute.SIGN: True},
    )
    try:
        mac: bytes = derived.sign(message, mechanism=Mechanism.AES_CMAC)
    finally:
        derived.destroy()
    return mac[:_MAC_BYTES]


def _agree(session: Session, name: str, point: bytes) -> Secret:
    shared = find(session, ObjectClass.PRIVATE_KEY, name, "derive").derive_key(
        KeyType.GENERIC_SECRET,
        256,
        store=False,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, point),
        template=_LEAVES,
    )
    return _taken_out(shared)


def _wrap(session: Session, name: str, content_key: Secret) -> bytes:
    key = find(session, ObjectClass.SECRET_KEY, name, "wrap")
    inside = session.raw.create_object(
        _LEAVES
        | {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.VALUE: content_key.reveal(),
        }
    )
    try:
        wrapped: bytes = key.wrap_key(inside, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        inside.destroy()
    return wrapped


def _unwrap(session: Session, name: str, wrapped: bytes) -> Secret:
    key = find(session, ObjectClass.SECRET_KEY, name, "unwrap")
    try:
        inside = key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            wrapped,
            store=False,
            mechanism=Mechanism.AES_KEY_WRAP,
            template=_LEAVES,
        )
    except (
        faults.WrappedKeyInvalid,
        faults.WrappedKeyLenRange,
        faults.EncryptedDataInvalid,
        faults.GeneralError,  # what SoftHSM says of a changed key
    ):
        if session.gone():
            raise
        raise VerificationError("TRUST.SIGNATURE", "the backup's key does not unwrap", where=name) from None
    return _taken_out(inside)


def _taken_out(key: Any) -> Secret:
    try:
        return Secret(key[Attribute.VALUE])
    finally:
        key.destroy()


def _generate(session: Session, name: str, purpose: Purpose) -> None:
    common = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    if purpose in (Purpose.CHIP, Purpose.BACKUP):
        uses = {one: text in MAY[purpose] for one, text in USES.items()} | {Attribute.VERIFY: False}
        session.raw.generate_key(KeyType.AES, 256, id=marker(), label=name, store=True, template=common | uses)
        return
    curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    domain = session.raw.create_domain_parameters(KeyType.EC, curve, local=True)
    public = {Attribute.WRAP: False, Attribute.ENCRYPT: False, Attribute.DERIVE: False}
    domain.generate_keypair(
        id=marker(),
        label=name,
        store=True,
        public_template=public | {Attribute.VERIFY: "sign" in MAY[purpose]},
        private_template=common | {one: USES[one] in MAY[purpose] for one in PAIR_USES},
    )


def _destroy(session: Session, name: str) -> None:
    owned(name, None, session.where)
    found = list(session.raw.get_objects({Attribute.LABEL: name, Attribute.TOKEN: True}))
    if not found:
        raise SettingsError("KEYS.MISSING", f"there is no key {name}", where=session.where)
    session.found.pop(name, None)
    for one in found:
        one.destroy()


def _on_curve(point: bytes) -> bool:
    try:
        public_from_point(point, where="")
    except IfppError:
        return False
    return len(point) == 65
