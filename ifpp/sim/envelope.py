"""What an SM-DPf does to send a delivery encrypted: an envelope for the factory's transport key (P-256).

Content key under AES key wrap by the ANSI X9.63 KDF (SHA-256) of ECDH with a fresh key pair; content in chunks of
AES-256-GCM, nonce = chunk number (11 bytes) and 01 for the last one, associated data = SHA-256 of the head line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from ifpp.sim import pki

CHUNK_BYTES = 65_536


def encrypt_file(source: Path, target: Path, public: bytes, key_name: str) -> None:
    """Write `source` as an envelope for the transport key `public` (PEM or DER); raises ValueError for another key."""
    recipient = (load_pem_public_key if public.startswith(b"-----") else load_der_public_key)(public)
    if not isinstance(recipient, ec.EllipticCurvePublicKey) or recipient.curve.name != "secp256r1":
        raise ValueError("not a key on P-256")
    content_key, ephemeral = secrets.token_bytes(32), ec.generate_private_key(ec.SECP256R1())
    agreed = X963KDF(SHA256(), 32, b"").derive(ephemeral.exchange(ec.ECDH(), recipient))
    head = {
        "format": "ifpp.envelope",
        "version": "1.0",
        "content": "delivery",
        "key": key_name,
        "ephemeral": base64.b64encode(pki.point(ephemeral.public_key())).decode(),
        "wrapped": base64.b64encode(aes_key_wrap(agreed, content_key)).decode(),
    }
    line = json.dumps(head, separators=(",", ":")).encode() + b"\n"
    cipher, bound, size = AESGCM(content_key), hashlib.sha256(line).digest(), source.stat().st_size
    with source.open("rb") as plain, target.open("wb") as out:
        out.write(line)
        for number in range(max(1, -(-size // CHUNK_BYTES))):
            last = (number + 1) * CHUNK_BYTES >= size
            out.write(cipher.encrypt(number.to_bytes(11, "big") + bytes([last]), plain.read(CHUNK_BYTES), bound))
