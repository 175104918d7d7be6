"""Write the line contract into the package, and freeze it under the version at hand while that is not released.

A release is named in CHANGELOG.md without "(unreleased)": from then on its frozen contract never changes, and a change
needs the next version. `tests/bus/test_contract.py` holds the contract to every frozen one.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

from ifpp import __version__
from ifpp.bus.contract import asyncapi, render
from ifpp.roles.contract import write

ROOT = Path(__file__).resolve().parent.parent
SUMS = "SHA256SUMS"


def freeze(version: str, changelog: str, folder: Path) -> None:
    """Put the contract into `folder` for a version, with the digests of all.

    Raises SystemExit when the version is released with another contract.
    """
    target, document = folder / f"asyncapi-{version}.json", render(asyncapi())
    if f"## {version} (unreleased)" not in changelog and target.exists() and target.read_bytes() != document:
        sys.exit(f"{version} is released with another contract: give the next version its name in ifpp/__init__.py")
    target.write_bytes(document)
    frozen = sorted(folder.glob("*.json"))
    rows = [f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in frozen]
    (folder / SUMS).write_text("".join(rows))


if __name__ == "__main__":
    write(ROOT / "ifpp" / "bus" / "published")
    freeze(__version__, (ROOT / "CHANGELOG.md").read_text(), ROOT / "tests" / "bus" / "released")
