"""The eUICC manufacturer: personalises chips with certificate and one-time keys, exports the public part (Esed).

A chip leaves as two things: a `CardFile` (private, see card_file for its JSON) that the virtual eUICC loads, and an
`EuiccRecord` (public) that goes to the factory and to the SM-DPf. The one-time-key list is the signed object of FPX/1
ListOneTimeKeys with an all-zero challenge, so its authenticity hangs on CERT.EUICC -> CERT.EUM -> CI.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding

from ifpp.sim import pki
from ifpp.sim.card_file import CardFile, OneTimeKey, euicc_info2
from ifpp.sim.tlv import integer, tlv

ZERO_CHALLENGE = bytes(16)
FREE_NVM = 524_288
INFO2_TYPE = "sim-euicc-1"
_ALG_P256 = 0
_AVAILABLE = 0


@dataclass(frozen=True, slots=True)
class EuiccRecord:
    """The public data of one chip (one Esed item): `otk_list` is the TLV 30 and its 5F37, concatenated."""

    eid: str
    certificate: bytes
    otk_list: bytes
    info2_type: str
    one_time_keys: tuple[tuple[bytes, bytes], ...]  # (otk_id, public point) by slot


@dataclass(frozen=True, slots=True)
class Chip:
    """One personalised chip: what goes into it and what is published about it."""

    card: CardFile
    record: EuiccRecord


@dataclass(frozen=True, slots=True)
class Make:
    """What an EUM's chips are: for IoT (SGP.32) or for consumers; "discrete" or "integrated" in whose product."""

    iot: bool = False
    tre: str = ""
    tre_product: str = ""


def dm_key_of(master: bytes, eid: str) -> bytes:
    """Derive the device maker's key of one chip: AES-256-ECB of the EID under the master (16 bytes)."""
    return Cipher(algorithms.AES256(master), modes.ECB()).encryptor().update(bytes.fromhex(eid))  # noqa: S305 - one block


def eid_of(first30: str) -> str:
    """Append the two check digits (SGP.29, ISO 7064 MOD 97-10) to the first 30 digits of an EID."""
    return f"{first30}{98 - int(first30 + '00') % 97:02d}"


class Eum:
    """Issues chips below one EUM certificate; EIDs run on from a seeded start, keys are random, always.

    `trusted`: the CI roots (DER certificates) the chips accept for CERT.DPpb; by default the root of `tree`.
    `dm_master`: the device maker's master (32 bytes), when chips shall delete keys and lock only for him. `make`: what
    its chips are.
    """

    def __init__(
        self,
        tree: pki.Pki,
        *,
        seed: int,
        ein: str = pki.EIN,
        trusted: Sequence[bytes] = (),
        dm_master: bytes = b"",
        make: Make | None = None,
    ) -> None:
        self._make = make or Make()
        self._eum = tree.eum
        self._ein = ein
        self._dm_master = dm_master
        self._trusted = tuple(trusted) or (tree.ci.der,)
        self._pkids = tuple(_pkid(certificate) for certificate in self._trusted)
        self._organisation = pki.organisation_of(tree.eum.certificate)
        # a lot of chips carries consecutive numbers; the seed says where the lot starts
        self._serial = random.Random(seed).randrange(10**20)  # noqa: S311 - an identity, not a secret

    @property
    def chain(self) -> tuple[bytes, ...]:
        """CERT.EUM first, up to but excluding the CI root (DER)."""
        return (self._eum.der,)

    def issue(
        self,
        *,
        keys: int = 3,
        free_nvm: int = FREE_NVM,
        reported_nvm: int | None = None,
        faults: dict[str, Any] | None = None,
        eid: str | None = None,
    ) -> Chip:
        """Personalise the next chip with `keys` one-time keys; `eid` overrides the running number."""
        identity = eid or self._next_eid()
        secret = ec.generate_private_key(ec.SECP256R1())
        subject = pki.name_of(self._organisation, f"eUICC {identity[-10:]}", identity)
        certificate = self._eum.issue(pki.EUICC, subject, secret.public_key()).public_bytes(Encoding.DER)
        one_time_keys = tuple(_one_time_key(slot) for slot in range(keys))
        card = CardFile(
            eid=identity,
            euicc_private=pki.scalar(secret),
            euicc_certificate=certificate,
            eum_certificate=self._eum.der,
            ci_certificates=self._trusted,
            one_time_keys=one_time_keys,
            free_nvm=free_nvm,
            reported_nvm=free_nvm if reported_nvm is None else reported_nvm,
            faults=faults or {},
            dm_key=dm_key_of(self._dm_master, identity) if self._dm_master else b"",
            iot=self._make.iot,
            tre=self._make.tre,
            tre_product=self._make.tre_product,
        )
        public = tuple((key.otk_id, key.public) for key in one_time_keys)
        otk_list = signed_otk_list(secret, identity, one_time_keys)
        return Chip(card, EuiccRecord(identity, certificate, otk_list, INFO2_TYPE, public))

    def info2(self, chip: Chip) -> bytes:
        """Return EUICCInfo2 (BF22) as published for this chip's type."""
        return euicc_info2(chip.card, self._pkids)

    def _next_eid(self) -> str:
        self._serial += 1
        return eid_of(f"{self._ein}{self._serial % 10**22:022d}")


def signed_otk_list(
    euicc_key: ec.EllipticCurvePrivateKey,
    eid: str,
    keys: Sequence[OneTimeKey],
    *,
    challenge: bytes = ZERO_CHALLENGE,
    deterministic: bool = False,
) -> bytes:
    """Build otkListSigned (TLV 30) of available keys and its signature (5F37), as exported at personalisation."""
    entries = [
        tlv(
            0x30,
            tlv(0x80, integer(key.slot)),
            tlv(0x81, key.otk_id),
            tlv(0x82, integer(_AVAILABLE)),
            tlv(0x83, integer(key.alg)),
            tlv(0x5F49, key.public),
        )
        for key in keys
    ]
    signed = tlv(
        0x30,
        tlv(0x80, challenge),
        tlv(0x5A, bytes.fromhex(eid)),
        tlv(0x81, integer(len(keys))),
        tlv(0xA2, *entries),
    )
    return signed + tlv(0x5F37, pki.sign_raw(euicc_key, signed, deterministic=deterministic))


def otk_id_of(public: bytes) -> bytes:
    """Return the identifier of a one-time key: SHA-1 of the 65-byte point, the method of RFC 5280 key identifiers."""
    return hashlib.sha1(public, usedforsecurity=False).digest()


def _one_time_key(slot: int) -> OneTimeKey:
    key = ec.generate_private_key(ec.SECP256R1())
    public = pki.point(key.public_key())
    return OneTimeKey(slot=slot, otk_id=otk_id_of(public), alg=_ALG_P256, public=public, private=pki.scalar(key))


def _pkid(certificate: bytes) -> bytes:
    loaded = x509.load_der_x509_certificate(certificate)
    return loaded.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
