"""`ifpp report verify`: whether a report is what its key signed; needs no factory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.line.acceptance import FORMAT
from ifpp.line.signed_file import verify_file
from ifpp.trust.signer import read_public_key


def verify(path: Path, keys: list[Path]) -> int:
    """Print who signed a report; 0 when it holds. An acceptance report that says "fail" holds, and is 1.

    Raises CustodyError REPORT.UNSIGNED, REPORT.CHANGED; VerificationError AUDIT.UNKNOWN_KEY, AUDIT.SIGNATURE.
    """
    if not keys:
        raise SettingsError("COMMAND.INVALID", "name the public key that is trusted", where="--key")
    trusted = [read_public_key(key) for key in keys]
    told = verify_file(path, {key.key_id: key for key in trusted})
    sys.stdout.write(f"{path.name}: {told.of} {told.report_id}, signed by key {told.key_id}; nothing was changed\n")
    verdict = _verdict(path)
    if verdict:
        sys.stdout.write(f"its verdict: {verdict}\n")
    return 1 if verdict == "fail" else 0


def _verdict(path: Path) -> str:
    """What an acceptance report says; "" for another file."""
    if path.suffix != ".json":
        return ""
    document = json.loads(path.read_bytes())
    return str(document["verdict"]) if document.get("format") == FORMAT else ""
