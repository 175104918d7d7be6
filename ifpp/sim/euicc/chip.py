"""The inside of one chip that all its functions share: identity, keys, memory, notifications, and status words."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import pki
from ifpp.sim.card_file import CardFile, OneTimeKey, euicc_info2
from ifpp.sim.euicc.chain import CURVES, P256, key_identifier
from ifpp.sim.euicc.gating import Stage
from ifpp.sim.euicc.nvm import KeySlot, KeyState, Notification, Nvm, Profile, Reservation, SessionKey
from ifpp.sim.tlv import bits, integer, parse, tlv

# notificationEvent bits (SGP.22 2.8.1)
INSTALL, ENABLE, DISABLE, DELETE = range(4)
# states of GetFpaStatus (FPX/1 10.3)
FPA_LOCKED, FPA_OPEN, FPA_PREPARED, FPA_LOADING = range(4)

ONLINE = -1
"""In place of a slot: the key pair of the online session."""
_KEPT_SESSION_KEYS = 4

_ISDP_PREFIX = bytes.fromhex("a0000005591010ffffffff8900")
_FIRST_ISDP = 0x11


class StatusWordError(Exception):
    """A function ends with this status word and no data."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


CONDITIONS = 0x6985
WRONG_DATA = 0x6A80
NOT_FOUND = 0x6A88


class Chip:
    """Personalisation plus changing state of one eUICC, and what its functions need of both."""

    def __init__(self, card: CardFile, nvm: Nvm | None = None) -> None:
        self.card = card
        self.nvm = nvm or Nvm(keys=[KeySlot() for _ in card.one_time_keys])
        self.eid16 = bytes.fromhex(card.eid)
        self._euicc_key: ec.EllipticCurvePrivateKey | None = None

    # identity -------------------------------------------------------------------------------------------------------

    def sign(self, data: bytes) -> bytes:
        """The signature TLV 5F37 by SK.EUICC over `data`; repeatable (RFC 6979)."""
        if self._euicc_key is None:
            self._euicc_key = ec.derive_private_key(int.from_bytes(self.card.euicc_private, "big"), P256)
        return tlv(0x5F37, pki.sign_raw(self._euicc_key, data, deterministic=True))

    def info2(self) -> bytes:
        """EUICCInfo2 as it is now: memory and number of applications follow the installed profiles."""
        pkids = [key_identifier(root) for root in self.card.ci_certificates]
        used = sum(profile.size for profile in self.nvm.profiles)
        return euicc_info2(
            self.card, pkids, applications=len(self.nvm.profiles), nvm=max(self.card.reported_nvm - used, 0)
        )

    # one-time keys --------------------------------------------------------------------------------------------------

    def slots(self) -> Iterator[tuple[int, OneTimeKey, KeySlot]]:
        """Index, key and state of every one-time key."""
        for index, (key, slot) in enumerate(zip(self.card.one_time_keys, self.nvm.keys, strict=True)):
            yield index, key, slot

    def one_time_key(self, index: int) -> OneTimeKey:
        """The key of one slot, or of the online session."""
        if index != ONLINE:
            return self.card.one_time_keys[index]
        session = self.nvm.session
        key = next(kept for kept in self.nvm.session_keys if session is not None and kept.public == session.key)
        return OneTimeKey(slot=ONLINE, otk_id=b"", alg=key.alg, public=key.public, private=key.private)

    def one_time_private(self, index: int) -> ec.EllipticCurvePrivateKey:
        """otSK.EUICC of one slot."""
        key = self.one_time_key(index)
        return ec.derive_private_key(int.from_bytes(key.private, "big"), CURVES[key.alg])

    @property
    def reservation(self) -> Reservation | None:
        """The reservation prepared last."""
        return None if self.nvm.current is None else self.reservation_of(self.nvm.current)

    def reservation_of(self, index: int) -> Reservation | None:
        """For whom the key of a slot, or of the online session, is reserved."""
        if index != ONLINE:
            return self.nvm.keys[index].reservation
        return None if self.nvm.session is None else self.nvm.session.reservation

    @property
    def keys_left(self) -> int:
        return sum(slot.state <= KeyState.RESERVED for slot in self.nvm.keys)

    @property
    def stage(self) -> Stage:
        if self.nvm.locked:
            return Stage.LOCKED
        return Stage.KEYS_LEFT if self.keys_left else Stage.NO_KEYS

    def spend(self, index: int, state: KeyState = KeyState.CONSUMED) -> None:
        """End the life of one key: it can never be used again. That of the online session ends with its session."""
        if index == ONLINE:
            session = self.nvm.session
            spent = b"" if session is None else session.key
            self.nvm.session_keys = [kept for kept in self.nvm.session_keys if kept.public != spent]
            self.end_session()
            return
        self.nvm.keys[index] = KeySlot(state)
        if self.nvm.current == index:
            self.nvm.current = None

    # online session -------------------------------------------------------------------------------------------------

    def keep_session_key(self, key: SessionKey) -> None:
        """Keep a fresh key pair for a retry; the oldest ones make room."""
        self.nvm.session_keys = [*self.nvm.session_keys, key][-_KEPT_SESSION_KEYS:]

    def end_session(self) -> None:
        """Forget the online session and its challenge; its key pair stays for a retry."""
        self.nvm.session = None
        self.nvm.challenge = b""
        if self.nvm.current == ONLINE:
            self.nvm.current = None

    def power_lost(self) -> None:
        """Lose what is not kept without power."""
        if not self.nvm.keeps_session:
            self.end_session()

    # profiles -------------------------------------------------------------------------------------------------------

    @property
    def free_nvm(self) -> int:
        return self.card.free_nvm - sum(profile.size for profile in self.nvm.profiles)

    def next_isdp_aid(self) -> bytes:
        """The lowest ISD-P AID no profile has."""
        taken = {profile.aid for profile in self.nvm.profiles}
        free = next(n for n in range(_FIRST_ISDP, 0x10000) if _isdp_aid(n) not in taken)
        return _isdp_aid(free)

    def find_profile(self, iccid: bytes) -> Profile | None:
        return next((profile for profile in self.nvm.profiles if profile.iccid == iccid), None)

    # notifications --------------------------------------------------------------------------------------------------

    def notification_metadata(self, event: int, address: str, iccid: bytes) -> bytes:
        """NotificationMetadata (BF2F) with the next sequence number."""
        return tlv(
            0xBF2F,
            tlv(0x80, integer(self.nvm.next_sequence)),
            tlv(0x81, bits({event})),
            tlv(0x0C, address.encode()),
            tlv(0x5A, iccid) if iccid else b"",
        )

    def keep(self, event: int, metadata: bytes, raw: bytes) -> None:
        """Store a notification until NotificationSent; its sequence number is used up for ever."""
        self.nvm.notifications.append(Notification(self.nvm.next_sequence, event, metadata, raw))
        self.nvm.next_sequence += 1

    def notify(self, event: int, addresses: list[str], iccid: bytes) -> None:
        """Make one OtherSignedNotification for each address."""
        for address in addresses:
            metadata = self.notification_metadata(event, address, iccid)
            raw = tlv(0x30, metadata, self.sign(metadata), self.card.euicc_certificate, self.card.eum_certificate)
            self.keep(event, metadata, raw)


def _isdp_aid(number: int) -> bytes:
    return _ISDP_PREFIX + number.to_bytes(2, "big") + b"\x00"


def members(value: bytes) -> dict[int, bytes]:
    """Values of a SEQUENCE's members by tag; raises ValueError when a tag comes twice."""
    found: dict[int, bytes] = {}
    for node in parse(value):
        if node.tag in found:
            raise ValueError(f"tag {node.tag:X} twice")
        found[node.tag] = node.value
    return found
