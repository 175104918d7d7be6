"""AES-CMAC written out from RFC 4493, to check what others call by that name."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def ecb(key: bytes, block: bytes) -> bytes:
    """AES on one block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)  # noqa: S305


def cmac(key: bytes, message: bytes) -> bytes:
    """The whole MAC, 16 bytes."""
    first = _doubled(ecb(key, bytes(16)))
    blocks = [message[at : at + 16] for at in range(0, len(message), 16)] or [b""]
    last = blocks.pop()
    last = _xor(last, first) if len(last) == 16 else _xor(last + b"\x80" + bytes(15 - len(last)), _doubled(first))
    chain = bytes(16)
    for block in [*blocks, last]:
        chain = ecb(key, _xor(chain, block))
    return chain


def _doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big") << 1
    if number >> 128:
        number = (number & ((1 << 128) - 1)) ^ 0x87
    return number.to_bytes(16, "big")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
