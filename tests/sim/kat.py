"""The known-answer values of vectors/kat-ifpp.json (see vectors/README.md), for the tests of the simulated world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

KAT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "kat-ifpp.json").read_bytes())
EID: str = KAT["eid"]


def octets(*path: str) -> bytes:
    """Return the bytes at a path of names, e.g. octets("session_mode", "bpp")."""
    value: Any = KAT
    for name in path:
        value = value[name]
    return bytes.fromhex(value)


def private(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key with the named private value."""
    return ec.derive_private_key(int(KAT[name], 16), ec.SECP256R1())
