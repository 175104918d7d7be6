"""How keys are found in a token, what is known of them, and whether they are as they must be to be used."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from pkcs11 import Attribute, ObjectClass
from pkcs11 import exceptions as faults

from ifpp.errors import CustodyError, SettingsError
from ifpp.hw.hsm.token import Session
from ifpp.model.clock import utc_ms_text
from ifpp.trust.keyfile import public_from_point
from ifpp.trust.keyring import KeyInfo, Purpose

_NAME = re.compile(r"(audit|report|station|chip|transport|backup)\.([1-9][0-9]{0,3})")
_STAMP, _STAMP_BYTES, _MARKER_BYTES = "%Y%m%d%H%M%S", 14, 32
_MASTER = "newest chip master"

USES = {
    Attribute.SIGN: "sign",
    Attribute.DERIVE: "derive",
    Attribute.WRAP: "wrap",
    Attribute.UNWRAP: "unwrap",
    Attribute.DECRYPT: "decrypt",
    Attribute.ENCRYPT: "encrypt",
}
MAY = {
    Purpose.AUDIT: {"sign"},
    Purpose.REPORT: {"sign"},
    Purpose.STATION: {"sign"},
    Purpose.CHIP: {"derive"},
    Purpose.TRANSPORT: {"derive"},
    Purpose.BACKUP: {"wrap", "unwrap"},
}
PAIR_USES = (Attribute.SIGN, Attribute.DERIVE, Attribute.UNWRAP, Attribute.DECRYPT)
_ATTRIBUTE = {text: attribute for attribute, text in USES.items()}


def owned(name: str, purpose: Purpose | None, where: str) -> None:
    """Return when this is the name of a key of ours (of this purpose); raises SettingsError KEYS.MISSING."""
    known = _NAME.fullmatch(name)
    if known is None or (purpose is not None and known[1] != purpose):
        raise SettingsError("KEYS.MISSING", f"there is no {purpose or ''} key {name[:40]}", where=where)


def find(session: Session, kind: ObjectClass, name: str, use: str) -> Any:
    """Return the private or secret key; looked up and checked once in a session.

    Raises SettingsError KEYS.MISSING, or CustodyError KEYS.ATTRIBUTES for one that could leave the token or may not
    be used like this.
    """
    if name not in session.found:
        session.found[name] = _checked(_only(session, kind, name), name, use)
    return session.found[name]


def find_chip_master(session: Session) -> Any:
    """Return the newest master of the chips' keys; as `find`."""
    if _MASTER not in session.found:
        names = [key.label for key in _all(session, {Attribute.CLASS: ObjectClass.SECRET_KEY})]
        versions = [int(known[2]) for known in map(_NAME.fullmatch, names) if known and known[1] == Purpose.CHIP]
        if not versions:
            raise SettingsError("KEYS.MISSING", "there is no chip key", where=session.where)
        session.found[_MASTER] = find(session, ObjectClass.SECRET_KEY, f"{Purpose.CHIP}.{max(versions)}", "derive")
    return session.found[_MASTER]


def list_keys(session: Session) -> list[KeyInfo]:
    """Return every key of ours, as it is: also one that must not be used."""
    found = []
    for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY):
        for key in _all(session, {Attribute.CLASS: kind}):
            if name := _NAME.fullmatch(key.label):
                found.append(_info(session, key, kind, Purpose(name[1]), int(name[2])))
    return sorted(found, key=lambda one: (one.purpose, one.version))


def marker() -> bytes:
    """A fresh CKA_ID: now, and random bytes."""
    return datetime.now(UTC).strftime(_STAMP).encode() + secrets.token_bytes(_MARKER_BYTES - _STAMP_BYTES)


def _all(session: Session, template: dict[Attribute, Any]) -> list[Any]:
    found = list(session.raw.get_objects(template | {Attribute.TOKEN: True}))  # a list: the search has to end
    if not found and session.gone():
        raise faults.TokenNotPresent
    return found


def _only(session: Session, kind: ObjectClass, name: str) -> Any:
    found = _all(session, {Attribute.CLASS: kind, Attribute.LABEL: name})
    if len(found) != 1:
        detail = f"there are {len(found)} keys {name}" if found else f"there is no key {name}"
        raise SettingsError("KEYS.MISSING", detail, where=session.where)
    return found[0]


def _checked(key: Any, name: str, use: str) -> Any:
    wrong = [
        text
        for text, holds in (
            ("can be taken out of the token", not key[Attribute.EXTRACTABLE]),
            ("is not sensitive", key[Attribute.SENSITIVE]),
            (f"may not {use}", key[_ATTRIBUTE[use]]),
        )
        if not holds
    ]
    if wrong:
        raise CustodyError("KEYS.ATTRIBUTES", " and ".join(wrong), where=name)
    return key


def _info(session: Session, key: Any, kind: ObjectClass, purpose: Purpose, version: int) -> KeyInfo:
    secret, public = kind == ObjectClass.SECRET_KEY, None
    uses = USES if secret else {one: USES[one] for one in PAIR_USES}
    flags = {Attribute.SENSITIVE: "sensitive", Attribute.EXTRACTABLE: "extractable"} | uses
    if secret:
        algorithm, key_id = f"AES-{key[Attribute.VALUE_LEN] * 8}", key.id.hex()
    else:
        half = _only(session, ObjectClass.PUBLIC_KEY, key.label)
        public = public_from_point(half[Attribute.EC_POINT], where=key.label)
        algorithm, key_id = "EC P-256", sha256(public).hexdigest()
    return KeyInfo(
        name=key.label,
        purpose=purpose,
        version=version,
        algorithm=algorithm,
        key_id=key_id,
        public=public,
        attributes=frozenset(text for one, text in flags.items() if key[one]),
        created_at=_made(key.id),
    )


def _made(identity: bytes) -> str | None:
    try:
        return utc_ms_text(datetime.strptime(identity[:_STAMP_BYTES].decode("ascii") + "+0000", f"{_STAMP}%z"))
    except ValueError:  # somebody else made it
        return None
