"""`ifpp contract`: the line contract as files, and whether a newer one still serves those who know the older."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ifpp.bus.additions import losses
from ifpp.bus.contract import ASYNCAPI, asyncapi, render, schemas
from ifpp.errors import CustodyError, SettingsError


def write(folder: Path) -> None:
    """Write the AsyncAPI document and a JSON Schema of each document; raises CustodyError FILE.WRITE."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ASYNCAPI).write_bytes(render(asyncapi()))
        for name, schema in schemas().items():
            (folder / f"{name}.schema.json").write_bytes(render(schema))
    except OSError as error:
        raise CustodyError("FILE.WRITE", f"cannot be written ({error.strerror})", where=str(folder)) from error
    sys.stdout.write(f"{len(schemas())} schemas and {ASYNCAPI} in {folder}\n")


def compare(older: Path) -> int:
    """Print what this contract takes away from an older AsyncAPI document; 0 when it only adds, else 1."""
    found = losses(_read(older), asyncapi())
    for loss in found:
        sys.stdout.write(f"{loss}\n")
    if not found:
        sys.stdout.write("only additions: who knows the older contract understands this one\n")
    return 1 if found else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError("SETTINGS.INVALID", f"no AsyncAPI document ({error})", where=str(path)) from error
    if not isinstance(document, dict) or "components" not in document:
        raise SettingsError("SETTINGS.INVALID", "no AsyncAPI document", where=str(path))
    return document
