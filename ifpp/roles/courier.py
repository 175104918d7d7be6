"""`ifpp bundle`: files carried between parties that no network joins."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.line.courier import Courier
from ifpp.roles.runtime import beside
from ifpp.settings import load_site
from ifpp.trust.signer import SoftwareSigner, read_public_key


def make(site_file: Path, receiver: str, files: list[Path]) -> None:
    """Bundle files for a receiver."""
    made = _courier(site_file).make(receiver, files, datetime.now(UTC))
    _print(f"bundle {made.number} for {receiver}, {made.files} files: {made.path}")


def accept(site_file: Path, bundle: Path) -> None:
    """Check a bundle, unpack it and write the receipt."""
    accepted = _courier(site_file).accept(bundle, datetime.now(UTC))
    _print(f"bundle {accepted.number} from {accepted.sender} accepted; receipt: {accepted.receipt}")
    for path in accepted.files:
        _print(f"  {path}")


def receipt(site_file: Path, file: Path) -> None:
    """Check the receipt for a bundle of ours."""
    found = _courier(site_file).check_receipt(file)
    _print(f"bundle {found.number} was accepted by {found.receiver} at {found.accepted_at}")
    if found.outstanding:
        _print(f"no receipt yet for {', '.join(map(str, found.outstanding))}")


def _courier(site_file: Path) -> Courier:
    settings = load_site(site_file).courier
    for key in ("name", "key"):
        if not getattr(settings, key):
            raise SettingsError("SETTINGS.MISSING", f"bundles need courier.{key}", where=str(site_file))
    peers = {name: read_public_key(beside(site_file, file)) for name, file in settings.peers.items()}
    signer = SoftwareSigner.load(beside(site_file, settings.key))
    folder = beside(site_file, settings.folder)
    return Courier(settings.name, signer, peers, folder, settings.max_bundle_mb * 1_000_000)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
