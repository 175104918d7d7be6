"""A file of ours and its signature beside it, `NAME.sig`: written once, checked by anyone who has the public key.

The signature is over `ifpp.line.report.statement`: of which kind the file is, its id, the SHA-256 of its bytes.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ifpp.errors import CustodyError, VerificationError
from ifpp.line.report import REPORT, digest_of, signature_file, statement
from ifpp.trust.signer import Signer, VerificationKey

ACCEPTANCE = "ifpp.acceptance"
_KINDS = (REPORT, ACCEPTANCE)
_FORMAT, _VERSION = "ifpp.signature", "1.0"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature that holds says: the kind of the file, its id, its digest, the key."""

    of: str
    report_id: str
    sha256: str
    key_id: str


def sign_file(path: Path, of: str, report_id: str, signer: Signer) -> None:
    """Write the signature of a file beside it. Raises ServiceError SIGNER.FAILED, CustodyError FILE.WRITE."""
    digest = digest_of(path)
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "of": of,
        "report_id": report_id,
        "sha256": digest,
        "key_id": signer.key_id,
        "signature": b64encode(signer.sign(statement(of, report_id, digest))).decode(),
    }
    beside = signature_file(path)
    try:
        beside.write_text(json.dumps(document) + "\n", encoding="utf-8")
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(beside)) from error


def verify_file(path: Path, keys: Mapping[str, VerificationKey]) -> Signed:
    """Return what is signed when all of it holds; `keys` by id are those that are trusted.

    Raises CustodyError REPORT.UNSIGNED (no signature that can be read), REPORT.CHANGED (other bytes than were signed);
    VerificationError AUDIT.UNKNOWN_KEY, AUDIT.SIGNATURE.
    """
    told, signature = _read(signature_file(path))
    if told.of not in _KINDS:
        raise CustodyError("REPORT.UNSIGNED", f"signed as {told.of!r}, which no report is", where=str(path))
    if (found := digest_of(path)) != told.sha256:
        raise CustodyError("REPORT.CHANGED", f"SHA-256 {found[:16]}..., signed {told.sha256[:16]}...", where=str(path))
    if (key := keys.get(told.key_id)) is None:
        raise VerificationError("AUDIT.UNKNOWN_KEY", f"signed by key {told.key_id}", where=str(path))
    key.verify(signature, statement(told.of, told.report_id, told.sha256), what=path.name)
    return told


def _read(beside: Path) -> tuple[Signed, bytes]:
    try:
        with beside.open("rb") as stream:
            document = json.loads(stream.read(_MAX_BYTES))
        if (document["format"], document["version"]) != (_FORMAT, _VERSION):
            raise ValueError("not a signature of this version")
        told = Signed(*(str(document[name]) for name in ("of", "report_id", "sha256", "key_id")))
        return told, b64decode(document["signature"], validate=True)
    except OSError as error:
        detail = f"its signature cannot be read ({error.strerror})"
        raise CustodyError("REPORT.UNSIGNED", detail, where=str(beside)) from error
    except (ValueError, KeyError, TypeError, Base64Error) as error:
        raise CustodyError("REPORT.UNSIGNED", f"its signature is none ({error})", where=str(beside)) from error
