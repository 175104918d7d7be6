"""Known answers (tests/vectors/kat-ifpp.json; its README says where they come from)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KAT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "kat-ifpp.json").read_text())


def kat(*path: str | int) -> bytes:
    """Return one value of the vectors as bytes: kat("dialect", "status_req")."""
    value: Any = KAT
    for step in path:
        value = value[step]
    return bytes.fromhex(value)
