"""The factory's own keys, wherever they live: one narrow protocol, spoken by an encrypted file and by an HSM."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ifpp.log import Secret
from ifpp.model.ids import Eid
from ifpp.trust.signer import Signer


class Purpose(StrEnum):
    """What a key is for; each purpose has versions 1, 2, ..., of which the newest works."""

    AUDIT = "audit"
    REPORT = "report"
    STATION = "station"
    CHIP = "chip"
    TRANSPORT = "transport"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be known of a key.

    `name`: "audit.2", purpose and version. `algorithm`: "EC P-256" or "AES-256". `key_id`: 64 hex digits, of the
    public key, or a check value of a secret key that tells nothing. `public`: SubjectPublicKeyInfo (DER).
    `attributes`: "sensitive", "extractable", "sign", "derive", "wrap", "unwrap", ...
    """

    name: str
    purpose: Purpose
    version: int
    algorithm: str
    key_id: str
    public: bytes | None
    attributes: frozenset[str]
    created_at: str | None


class KeyProvider(Protocol):
    """Keys in a file or a token. All calls block; a token that is away raises ServiceError KEYS.UNREACHABLE."""

    kind: str

    def keys(self) -> list[KeyInfo]:
        """Every key of ours that is there."""

    def signer(self, purpose: Purpose) -> Signer:
        """The newest version; AUDIT, REPORT, STATION."""

    def authorise(self, eid: Eid, message: bytes) -> bytes:
        """CHIP: the chip's own key, derived from the master, makes an AES-CMAC over the message; its first 8 bytes."""

    def unwrap(self, name: str, ephemeral_public: bytes | None, wrapped: bytes) -> Secret:
        """TRANSPORT: the content key of a delivery."""

    def wrap(self, content_key: Secret) -> tuple[str, bytes]:
        """BACKUP: the name of the key that wraps, and what it made of the content key."""

    def unwrap_backup(self, name: str, wrapped: bytes) -> Secret:
        """BACKUP: the content key again."""

    def generate(self, purpose: Purpose) -> KeyInfo:
        """Make the next version."""

    def destroy(self, name: str) -> None:
        """Destroy a version for good."""

    def close(self) -> None:
        """Log out."""
