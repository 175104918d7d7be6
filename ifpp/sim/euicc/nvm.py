"""What a virtual eUICC keeps without power, as plain values, and its form in the card file.

A command changes these values only at its very end, so a power cut between two APDUs finds one whole state. The JSON
form stands under the key ``nvm`` of the personalisation file (card_file); bytes are hex. Private keys are not in here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import IntEnum
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ifpp.sim.tlv import bits, tlv

T = TypeVar("T")

# RulesAuthorisationTable of an ordinary chip (SGP.22 2.9.2): PPR1 and PPR2 for any operator, no consent needed
ANY_OPERATOR = bytes.fromhex("eeeeee")
DEFAULT_RAT = tlv(0x30, tlv(0x80, bits({1, 2})), tlv(0xA1, tlv(0x30, tlv(0x80, ANY_OPERATOR))), tlv(0x82, b"\x00"))


class KeyState(IntEnum):
    """State of a one-time key (FPX/1 10.4); up to RESERVED it counts as remaining."""

    AVAILABLE = 0
    RESERVED = 1
    CONSUMED = 2
    DELETED = 3


@dataclass(slots=True)
class Reservation:
    """For whom a key is reserved: what PrepareDownload proved, and the one BF23 accepted under it (SHA-256)."""

    transaction_id: bytes
    smdp_oid: str
    smdp_point: bytes  # PK.DPpb, 65-byte uncompressed point on the key's own curve
    bf23_sha256: bytes | None = None


@dataclass(slots=True)
class KeySlot:
    """State of one one-time key; the key itself is part of the personalisation."""

    state: KeyState = KeyState.AVAILABLE
    reservation: Reservation | None = None


@dataclass(slots=True)
class SessionKey:
    """A one-time key pair made in an online session; kept for that SM-DP+ until a load with it has ended for good."""

    smdp_oid: str
    alg: int
    public: bytes
    private: bytes


@dataclass(slots=True)
class Session:
    """An online session from AuthenticateServer on (SGP.22 3.1). `signature1` is the complete euiccSignature1 TLV.

    `ci` is the key identifier of the CI in use, `key` the public point of its SessionKey once PrepareDownload was
    accepted.
    """

    transaction_id: bytes
    address: str
    smdp_oid: str
    curve: str
    ci: bytes
    signature1: bytes
    key: bytes = b""
    reservation: Reservation | None = None


@dataclass(slots=True)
class Profile:
    """One installed profile. `metadata` is the complete StoreMetadataRequest, `size` what it takes of the memory."""

    iccid: bytes
    aid: bytes
    metadata: bytes
    size: int
    upp_sha256: bytes
    dp_proprietary: bytes = b""
    enabled: bool = False
    nickname: str = ""


@dataclass(slots=True)
class Notification:
    """One pending notification: a result (BF37) or another signed notification (30), complete in `raw`."""

    sequence: int
    event: int
    metadata: bytes
    raw: bytes

    @property
    def is_result(self) -> bool:
        return self.raw[0] == 0xBF


@dataclass(slots=True)
class LoadMark:
    """A load that has begun and not ended: what a result needs if power goes now. `command` is a bppCommandId."""

    slot: int
    transaction_id: bytes
    smdp_oid: str
    command: int = 0
    iccid: bytes = b""
    address: str = ""


@dataclass(slots=True)
class Nvm:
    """The whole changing state. The last six fields are set at manufacture and never change.

    `current` is the slot of the key prepared last, `challenges` are those a permit was taken with. `strict`: a key is
    spent as soon as BF23 is accepted (FPX/1 10.7); otherwise the identical package may be loaded again. `rework`:
    profiles can be disabled and deleted while one-time keys remain. `rat` is the content of A0 in GetRAT.
    `challenge` and `session` are those of an online session: lost with the power unless the chip `keeps_session`.
    `eims` are complete EimConfigurationData.
    """

    keys: list[KeySlot]
    profiles: list[Profile] = field(default_factory=list)
    notifications: list[Notification] = field(default_factory=list)
    next_sequence: int = 1
    locked: bool = False
    current: int | None = None
    load: LoadMark | None = None
    challenges: list[bytes] = field(default_factory=list)
    default_dp_address: str = ""
    eims: list[bytes] = field(default_factory=list)
    challenge: bytes = b""
    session: Session | None = None
    session_keys: list[SessionKey] = field(default_factory=list)
    keeps_session: bool = False
    strict: bool = False
    connectivity_test: bool = False
    rework: bool = False
    list_signing: bool = True
    rat: bytes = DEFAULT_RAT

    def to_document(self) -> dict[str, Any]:
        """The JSON form."""
        document: dict[str, Any] = _plain(self)
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Nvm:
        """Read the JSON form; raises KeyError, TypeError or ValueError when it is not one."""
        return _restored(cls, document)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {spec.name: _plain(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
    return value


def _restored(kind: type[T], document: dict[str, Any]) -> T:
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in document.items()})


def _value(hint: Any, value: Any) -> Any:
    """Turn one JSON value into what the field's annotation says."""
    if isinstance(hint, UnionType):
        return None if value is None else _value(get_args(hint)[0], value)
    if get_origin(hint) is list:
        return [_value(get_args(hint)[0], item) for item in value]
    if hint is bytes:
        return bytes.fromhex(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _restored(hint, value)
    return hint(value)
