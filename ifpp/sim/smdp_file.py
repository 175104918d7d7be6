"""An SM-DP+ on disk, before it serves: its keys and certificates, and the orders it was given.

<directory>/            mode 0700, files 0600
    keys.pem            private keys of CERT.DPauth, CERT.DPpb and CERT.DP.TLS, in this order
    smdp-plus.json      {"address", "ci", "certificates": [3], "orders": [{"matching_id", "code", "profile"}, ...]}
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ifpp.sim import pki
from ifpp.sim.card_file import write_private
from ifpp.sim.profiles import Profile
from ifpp.sim.smdp_plus import SmdpPlus

_KEYS, _STATE = "keys.pem", "smdp-plus.json"
_END = b"-----END PRIVATE KEY-----\n"


def save(smdp: SmdpPlus, tls: pki.Holder, directory: Path) -> None:
    """Keep an SM-DP+ that has not served yet; `tls` is what it will show on HTTPS."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    holders = (smdp.dpauth, smdp.dppb, tls)
    keys = [holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for holder in holders]
    write_private(directory / _KEYS, b"".join(keys))
    document = {
        "address": smdp.address,
        "ci": _text(smdp.ci),
        "certificates": [_text(holder.der) for holder in holders],
        "orders": [
            {"matching_id": order.matching_id, "code": order.code, "profile": _told(order.profile)}
            for order in smdp.orders.values()
        ],
    }
    write_private(directory / _STATE, json.dumps(document, indent=1).encode())


def load(directory: Path) -> tuple[SmdpPlus, pki.Holder]:
    """Return what was saved; raises OSError, ValueError, TypeError or KeyError when it is not one."""
    document = json.loads((directory / _STATE).read_bytes())
    keys = list(_keys((directory / _KEYS).read_bytes()))
    dpauth, dppb, tls = _holders(keys, document["certificates"])
    smdp = SmdpPlus(dpauth, dppb, _bytes(document["ci"]), document["address"])
    for order in document["orders"]:
        smdp.release(order["matching_id"], _profile(order["profile"]), code=order["code"])
    return smdp, tls


def _holders(keys: Sequence[ec.EllipticCurvePrivateKey], certificates: Sequence[str]) -> list[pki.Holder]:
    pairs = zip(keys, certificates, strict=True)
    return [pki.Holder(key, x509.load_der_x509_certificate(_bytes(certificate))) for key, certificate in pairs]


def _keys(pem: bytes) -> Iterator[ec.EllipticCurvePrivateKey]:
    for part in pem.split(_END)[:-1]:
        key = load_pem_private_key(part + _END, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{_KEYS} holds another kind of key")
        yield key


def _told(profile: Profile) -> dict[str, str]:
    return {name: _text(value) if isinstance(value, bytes) else value for name, value in asdict(profile).items()}


def _profile(told: dict[str, str]) -> Profile:
    return Profile(**told | {name: _bytes(told[name]) for name in ("mcc_mnc", "upp")})  # type: ignore[arg-type]  # JSON


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
