"""What was done with keys, and who agreed: signed records, one file each, every one bound to the one before it.

A record is one line of canonical JSON (sorted names, no spaces) and a second line with the key's id and its signature
over CONTEXT and the first line. A confirmation is one person's signature, with a key of his own, under what is about
to be done; it names the newest record, so that it holds once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from ifpp.errors import CustodyError, VerificationError
from ifpp.model.clock import parse_utc, utc_ms_text
from ifpp.trust.keyring import KeyInfo
from ifpp.trust.signer import Signer, VerificationKey

CONTEXT = b"ifpp-ceremony-1\0"
CONFIRM_CONTEXT = b"ifpp-confirmation-1\0"
_FORMAT, _VERSION = "ifpp.ceremony", "1.0"
_VALID = timedelta(days=1)
_MAX_BYTES = 1 << 20
_GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Act:
    """What is done: `action` init, rotate or destroy; `key`: a purpose, or the name of a version."""

    action: str
    key: str
    by: str
    reason: str


class Records:
    """The records in a folder; reading them verifies them all. Raises VerificationError KEYS.RECORDS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = _GENESIS
        self.number = 0
        self.known: dict[str, str] = {}
        self.all: list[dict[str, Any]] = []
        for path in sorted(folder.glob("*.ceremony")):
            self._take(path)

    def write(
        self, act: Act, keys: Sequence[KeyInfo], signer: Signer, now: datetime, confirmations: Sequence[dict[str, str]]
    ) -> Path:
        """Record what was done and which keys there are now; raises CustodyError FILE.WRITE, ServiceError."""
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "number": self.number + 1,
            "previous": self.head,
            "action": act.action,
            "key": act.key,
            "by": act.by,
            "reason": act.reason,
            "at": utc_ms_text(now),
            "keys": [_describe(info) for info in keys],
            "confirmations": list(confirmations),
        }
        line = _canonical(document)
        signature = {"key_id": signer.key_id, "signature": signer.sign(CONTEXT + line).hex()}
        path = self.folder / f"{self.number + 1:04}-{act.action}.ceremony"
        _write_new(path, line + b"\n" + _canonical(signature) + b"\n")
        self._take(path)
        return path

    # ---- inside -----------------------------------------------------------------------------------

    def _take(self, path: Path) -> None:
        """Check one record: its form, its place, its signature by one of the keys there were afterwards."""
        try:
            content = path.read_bytes()[:_MAX_BYTES]
            line, seal, rest = content.split(b"\n")
            document, signed = json.loads(line), json.loads(seal)
            place = (document["format"], document["number"], document["previous"])
            publics = {one["key_id"]: bytes.fromhex(one["public"]) for one in document["keys"]}
            known = {one["name"]: one["key_id"] for one in document["keys"]}
            public, signature = publics[signed["key_id"]], bytes.fromhex(signed["signature"])
        except (OSError, ValueError, KeyError, TypeError):
            raise VerificationError("KEYS.RECORDS", "is no ceremony record", where=str(path)) from None
        if rest or place != (_FORMAT, self.number + 1, self.head):
            raise VerificationError("KEYS.RECORDS", "does not follow the record before it", where=str(path))
        try:
            key = VerificationKey.from_der(public, where=str(path))
            key.verify(signature, CONTEXT + line, what=str(path))
        except VerificationError as error:
            raise VerificationError("KEYS.RECORDS", error.detail, where=str(path)) from None
        if key.key_id != signed["key_id"]:
            raise VerificationError("KEYS.RECORDS", "its key is not the one it is named", where=str(path))
        self.number, self.head = self.number + 1, sha256(content).hexdigest()
        self.known = known
        self.all.append(document)


def confirm(records: Records, action: str, key: str, by: str, signer: Signer, now: datetime) -> bytes:
    """Return one person's confirmation of what is about to be done, as the content of a file."""
    statement = {"action": action, "key": key, "by": by, "head": records.head, "at": utc_ms_text(now)}
    signature = signer.sign(CONFIRM_CONTEXT + _canonical(statement)).hex()
    return _canonical(statement | {"signature": signature}) + b"\n"


def check_confirmations(
    documents: Sequence[Mapping[str, str]], act: Act, head: str, people: Mapping[str, VerificationKey], at: datetime
) -> None:
    """Return when two different people confirmed; raises VerificationError KEYS.UNCONFIRMED.

    Each confirmation holds for one day, and only after the record whose digest is `head`.
    """
    found = {}
    for document in documents:
        by = document.get("by", "")
        where = f"confirmation of {by[:40]}"
        if by not in people:
            raise VerificationError("KEYS.UNCONFIRMED", "is nobody of [keys] people", where=where)
        if [document.get(name) for name in ("action", "key", "head")] != [act.action, act.key, head]:
            raise VerificationError("KEYS.UNCONFIRMED", "confirms something else, or was used", where=where)
        _check_signature(people[by], document, where)
        if not timedelta(minutes=-5) <= at - parse_utc(document["at"]) <= _VALID:
            raise VerificationError("KEYS.UNCONFIRMED", "is older than a day, or of tomorrow", where=where)
        found[people[by].key_id] = by
    if len(found) < 2:
        names = ", ".join(found.values()) or "nobody"
        raise VerificationError("KEYS.UNCONFIRMED", f"two people must confirm, so far: {names}", where=act.key)


def _check_signature(key: VerificationKey, document: Mapping[str, str], where: str) -> None:
    statement = {name: value for name, value in document.items() if name != "signature"}
    try:
        signature = bytes.fromhex(document.get("signature", ""))
        key.verify(signature, CONFIRM_CONTEXT + _canonical(statement), what=where)
    except (ValueError, VerificationError):
        detail = "the signature is not this person's, or something was changed"
        raise VerificationError("KEYS.UNCONFIRMED", detail, where=where) from None


def read_confirmation(path: Path) -> dict[str, str]:
    """Read what `confirm` wrote, unchecked; raises VerificationError KEYS.UNCONFIRMED."""
    try:
        document = json.loads(path.read_bytes()[:_MAX_BYTES])
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise VerificationError("KEYS.UNCONFIRMED", "is no confirmation", where=str(path))
    return document


def _describe(info: KeyInfo) -> dict[str, str]:
    return {
        "name": info.name,
        "algorithm": info.algorithm,
        "key_id": info.key_id,
        "public": (info.public or b"").hex(),
        "attributes": " ".join(sorted(info.attributes)),
        "created_at": info.created_at or "",
    }


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _write_new(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(part, path)  # unlike a rename it never replaces a record
        part.unlink()
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(path)) from error
