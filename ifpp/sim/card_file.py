"""The personalisation file `cards/<eid>.card.json`: what the EUM puts into one virtual eUICC (SGP.41, EUM -> eUICC).

It holds private keys: it is written with mode 0600 into a directory of mode 0700 and never leaves the simulated world.

    {"format": "ifpp.card", "version": "1.0",
     "eid": "32 digits",
     "euicc_private": hex, 32-byte scalar on P-256,
     "euicc_certificate": base64 DER CERT.EUICC,
     "eum_certificate": base64 DER CERT.EUM,
     "ci_certificates": [base64 DER, ...]   roots the chip trusts for CERT.DPpb, also its PKID lists,
     "one_time_keys": [{"slot": 0, "otk_id": hex SHA-1 of the public point, "alg": 0 (P-256) or 1 (brainpoolP256r1),
                        "private": hex 32 bytes, "public": hex 65 bytes}, ...],
     "free_nvm": bytes a profile may really take,
     "reported_nvm": bytes the chip claims in EUICCInfo2; differs from free_nvm only in faulty chips,
     "free_ram": bytes, "profile_version": hex 3 bytes, "svn": hex 3 bytes, "firmware": hex 3 bytes,
     "iot": true for an SGP.32 chip, "tre": "discrete" or "integrated", "tre_product": text, each when it says so,
     "dm_key": hex 16 bytes, when key deletion and lock want the device maker's MAC (FPX/1 10.8 dmAuth),
     "faults": {}  or one planned fault:
        {"class": "small_memory"}                      free_nvm is too small (and reported_nvm is not): (5, 10)
        {"class": "dead"}                              no ATR at all
        {"class": "contact", "pull_at_apdu": n}        first seating: contact is lost at the n-th APDU after power-up
                                                       (n counts from 1, every APDU of every class); later ones work
        {"class": "no_package"}, {"class": "tampered"} the chip is sound, its supply is not
    }
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifpp.sim.tlv import bits, integer, tlv

FORMAT = "ifpp.card"
VERSION = "1.0"
# EUICCInfo2 bits (SGP.22): uiccCapability usim, isim, csim, milenage, tuak128, tuak256, usim-test-algorithm, javacard,
# multiple usim/isim, ber-tlv, dfLink, get-identity, profile-a-x25519, profile-b-p256; rspCapability additionalProfile,
# testProfile, deviceInfoExtensibility.
_UICC_CAPABILITY = (1, 2, 3, 4, 6, 7, 8, 14, 16, 17, 19, 20, 22, 23, 24)
_RSP_CAPABILITY = (0, 3, 4)
_IOT_METADATA = 26
_TRE_BITS = {"discrete": 0, "integrated": 1}
_IPA_IN_DEVICE = 0
_SGP32 = b"\x01\x02\x00"


@dataclass(frozen=True, slots=True)
class OneTimeKey:
    """One one-time key as the EUM made it: `public` is the 65-byte point, `private` the 32-byte scalar."""

    slot: int
    otk_id: bytes
    alg: int
    public: bytes
    private: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardFile:
    """One chip as personalised; see the module text for the meaning of each field."""

    eid: str
    euicc_private: bytes = field(repr=False)
    euicc_certificate: bytes
    eum_certificate: bytes
    ci_certificates: tuple[bytes, ...]
    one_time_keys: tuple[OneTimeKey, ...]
    free_nvm: int
    reported_nvm: int
    free_ram: int = 8_192
    profile_version: bytes = b"\x02\x03\x01"
    svn: bytes = b"\x02\x06\x00"
    firmware: bytes = b"\x01\x04\x02"
    faults: dict[str, Any] = field(default_factory=dict)
    dm_key: bytes = field(default=b"", repr=False)
    iot: bool = False
    tre: str = ""
    tre_product: str = ""


def euicc_info2(card: CardFile, pkids: Sequence[bytes], *, applications: int = 0, nvm: int | None = None) -> bytes:
    """Build EUICCInfo2 (BF22, SGP.22 5.7.8) of a chip that trusts the CI keys `pkids` (20-byte SKIs).

    `nvm`: free bytes to report, by default the personalised `reported_nvm`.
    """
    resource = (
        tlv(0x81, integer(applications)),
        tlv(0x82, (card.reported_nvm if nvm is None else max(nvm, 0)).to_bytes(4, "big")),
        tlv(0x83, card.free_ram.to_bytes(2, "big")),
    )
    trusted = tuple(tlv(0x04, pkid) for pkid in pkids)
    return tlv(
        0xBF22,
        tlv(0x81, card.profile_version),
        tlv(0x82, card.svn),
        tlv(0x83, card.firmware),
        tlv(0x84, *resource),
        tlv(0x85, bits(_UICC_CAPABILITY)),
        tlv(0x86, bytes.fromhex("0f0600")),
        tlv(0x87, bytes.fromhex("020300")),
        tlv(0x88, bits({*_RSP_CAPABILITY, *((_IOT_METADATA,) if card.iot else ())})),
        tlv(0xA9, *trusted),
        tlv(0xAA, *trusted),
        tlv(0x8B, integer(2)),
        tlv(0x04, bytes.fromhex("010000")),
        tlv(0x0C, b"IF-PP-UP-0001"),
        tlv(0xAC, tlv(0x80, b"2.999.5.1/sim"), tlv(0x81, b"https://platform.example")),
        tlv(0x8D, bits({_TRE_BITS[card.tre]})) if card.tre else b"",
        tlv(0x8E, card.tre_product.encode()) if card.tre_product else b"",
        *((tlv(0x90, integer(_IPA_IN_DEVICE)), tlv(0xB4, tlv(0xA0, tlv(0x04, _SGP32)))) if card.iot else ()),
    )


def save(card: CardFile, directory: Path) -> Path:
    """Write `<directory>/<eid>.card.json` with mode 0600 and return its path."""
    path = directory / f"{card.eid}.card.json"
    document = {
        "format": FORMAT,
        "version": VERSION,
        "eid": card.eid,
        "euicc_private": card.euicc_private.hex(),
        "euicc_certificate": _b64(card.euicc_certificate),
        "eum_certificate": _b64(card.eum_certificate),
        "ci_certificates": [_b64(certificate) for certificate in card.ci_certificates],
        "one_time_keys": [_key_document(key) for key in card.one_time_keys],
        "free_nvm": card.free_nvm,
        "reported_nvm": card.reported_nvm,
        "free_ram": card.free_ram,
        "profile_version": card.profile_version.hex(),
        "svn": card.svn.hex(),
        "firmware": card.firmware.hex(),
        "faults": card.faults,
        **({"dm_key": card.dm_key.hex()} if card.dm_key else {}),
        **{name: getattr(card, name) for name in ("iot", "tre", "tre_product") if getattr(card, name)},
    }
    write_private(path, json.dumps(document, indent=1).encode())
    return path


def load(path: Path) -> CardFile:
    """Read a personalisation file; raises ValueError when it is not one of this version, KeyError if a field lacks."""
    document = json.loads(path.read_bytes())
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ValueError(f"{path.name} is not an {FORMAT} file of version {VERSION}")
    return CardFile(
        eid=document["eid"],
        euicc_private=bytes.fromhex(document["euicc_private"]),
        euicc_certificate=base64.b64decode(document["euicc_certificate"]),
        eum_certificate=base64.b64decode(document["eum_certificate"]),
        ci_certificates=tuple(base64.b64decode(text) for text in document["ci_certificates"]),
        one_time_keys=tuple(_key(entry) for entry in document["one_time_keys"]),
        free_nvm=document["free_nvm"],
        reported_nvm=document["reported_nvm"],
        free_ram=document["free_ram"],
        profile_version=bytes.fromhex(document["profile_version"]),
        svn=bytes.fromhex(document["svn"]),
        firmware=bytes.fromhex(document["firmware"]),
        faults=document["faults"],
        dm_key=bytes.fromhex(document.get("dm_key", "")),
        iot=document.get("iot", False),
        tre=document.get("tre", ""),
        tre_product=document.get("tre_product", ""),
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; an existing file is replaced and loses wider rights."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _key_document(key: OneTimeKey) -> dict[str, Any]:
    return {
        "slot": key.slot,
        "otk_id": key.otk_id.hex(),
        "alg": key.alg,
        "private": key.private.hex(),
        "public": key.public.hex(),
    }


def _key(entry: dict[str, Any]) -> OneTimeKey:
    return OneTimeKey(
        slot=entry["slot"],
        otk_id=bytes.fromhex(entry["otk_id"]),
        alg=entry["alg"],
        public=bytes.fromhex(entry["public"]),
        private=bytes.fromhex(entry["private"]),
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
