"""Bytes to read: made by an encoder of their own, so that the reader is not its own judge."""

from __future__ import annotations

import base64
import hashlib
import json

from ifpp.errors import TransportError

POINT = b"\x04" + bytes(range(64))
SIGNATURE = bytes(range(64, 128))
EID = bytes.fromhex("89049032123451234512345678901235")
ICCID = bytes.fromhex("988812910000301129f2")
TRANSACTION = bytes(range(0xA0, 0xB0))
ISDP = bytes.fromhex("A0000005591010FFFFFFFF8900001100")


def der(tag: int, *parts: bytes, length_octets: int = 0) -> bytes:
    """One TLV; `length_octets` asks for a longer length form than DER allows (81 to 84)."""
    value = b"".join(parts)
    count = len(value)
    octets = length_octets or (0 if count < 128 else (count.bit_length() + 7) // 8)
    length = bytes([0x80 | octets]) + count.to_bytes(octets, "big") if octets else bytes([count])
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + length + value


def protected(tag: int, plaintext_bytes: int) -> bytes:
    """An 86 or 87 as long as encrypting so many bytes makes it (padding to 16, 8 bytes of MAC)."""
    size = 16 * (plaintext_bytes // 16 + 1) + 8
    return der(tag, bytes(i % 251 for i in range(size)))


def metadata(size: int = 80, *extra: bytes) -> bytes:
    """A StoreMetadataRequest of exactly `size` bytes (80 is about what operators send), before `extra`."""
    names = size - 3 - 12 - 4
    provider, name = "P" * (names // 3), "N" * (names - names // 3)
    return der(0xBF25, der(0x5A, ICCID), der(0x91, provider.encode()), der(0x92, name.encode()), *extra)


def secure_channel(
    transaction: bytes = TRANSACTION, host_id: bytes = b"IFPPDPF1", *, signature: bytes = SIGNATURE
) -> bytes:
    template = der(0xA6, der(0x80, b"\x88"), der(0x81, b"\x10"), der(0x84, host_id))
    return der(0xBF23, der(0x82, b"\x01"), der(0x80, transaction), template, der(0x5F49, POINT), der(0x5F37, signature))


def split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def bpp(
    upp_bytes: int = 100,
    *,
    ppk: bool = True,
    piece: int = 1007,
    head: bytes | None = None,
    bf25: bytes | None = None,
    mac_piece: int = 1008,
) -> bytes:
    """A BPP of the right shape around a profile of `upp_bytes`; the ciphertext is filler."""
    pieces = [piece] * (upp_bytes // piece) + [upp_bytes % piece] * (upp_bytes % piece > 0)
    stored = [der(0x88, part, b"MACMACMA") for part in split(metadata() if bf25 is None else bf25, mac_piece)]
    replace = [der(0xA2, protected(0x87, 57))] if ppk else []
    return der(
        0xBF36,
        secure_channel() if head is None else head,
        der(0xA0, protected(0x87, 3)),
        der(0xA1, *stored),
        *replace,
        der(0xA3, *(protected(0x86, size) for size in pieces)),
    )


def sima(*statuses: int) -> bytes:
    elements = [der(0x30, der(0x80, number.to_bytes(number.bit_length() // 8 + 1, "big"))) for number in statuses]
    return der(0x30, der(0xA0, *elements))


def notification(seq: bytes = b"\x01", event: bytes = b"\x07\x80", iccid: bytes | None = ICCID) -> bytes:
    return der(
        0xBF2F,
        der(0x80, seq),
        der(0x81, event),
        der(0x0C, b"dpf.example.com"),
        *([der(0x5A, iccid)] if iccid is not None else []),
    )


def pir(
    outcome: bytes | None = None,
    *,
    about: bytes | None = None,
    transaction: bytes = TRANSACTION,
    extra: bytes = b"",
    signature: bytes = SIGNATURE,
) -> bytes:
    """A ProfileInstallationResult; `outcome` is what stands in finalResult, `extra` follows it."""
    success = der(0xA0, der(0x4F, ISDP), der(0x04, sima(0)))
    return der(
        0xBF37,
        der(
            0xBF27,
            der(0x80, transaction),
            notification() if about is None else about,
            der(0x06, bytes.fromhex("88370A")),
            der(0xA2, success if outcome is None else outcome),
            extra,
        ),
        der(0x5F37, signature),
    )


def info2(**changes: bytes | None) -> bytes:
    """An EUICCInfo2; `changes` replace or (None) leave out members by tag name: info2(t84=...)."""
    members: dict[str, bytes | None] = {
        "t81": bytes.fromhex("020300"),
        "t82": bytes.fromhex("020202"),
        "t83": bytes.fromhex("010203"),
        "t84": bytes.fromhex("81010882040004 5BF883022419".replace(" ", "")),
        "t85": bytes.fromhex("057F36C0"),
        "t88": bytes.fromhex("0398"),
        "tA9": der(0x04, b"V" * 20) + der(0x04, b"W" * 20),
        "tAA": der(0x04, b"S" * 20),
        "t99": bytes.fromhex("0640"),
        "t04": bytes.fromhex("010000"),
    }
    members |= changes
    return der(0xBF22, *(der(int(name[1:], 16), value) for name, value in members.items() if value is not None))


def otk_entry(
    slot: int = 0, *, state: int = 0, alg: int = 0, public: bytes | None = POINT, otk_id: bytes | None = None
) -> bytes:
    """One entry of a one-time-key list; without `otk_id` the one that belongs to POINT."""
    name = hashlib.sha1(POINT, usedforsecurity=False).digest() if otk_id is None else otk_id
    key = [der(0x5F49, public)] if public is not None else []
    numbers = der(0x82, bytes([state])), der(0x83, bytes([alg]))
    return der(0x30, der(0x80, bytes([0, slot])), der(0x81, name), *numbers, *key)


def otk_list(*entries: bytes, eid: bytes = EID, remaining: int = 1, challenge: bytes | None = bytes(16)) -> bytes:
    """An otkListSigned (30), without its signature."""
    front = [der(0x80, challenge)] if challenge is not None else []
    return der(0x30, *front, der(0x5A, eid), der(0x81, bytes([remaining])), der(0xA2, *entries))


def prepare_download(*, others: bytes = b"", confirm: bytes = b"\x00", certificate_bytes: int = 573) -> bytes:
    certificate = der(0x30, bytes(certificate_bytes - 4))
    signed = der(0x30, der(0x80, TRANSACTION), der(0x01, confirm), der(0x5F49, POINT))
    return der(0xBF21, signed, der(0x5F37, SIGNATURE), certificate, others)


class Card:
    """A card end that keeps the APDUs it got and answers from a script, then with 9000."""

    def __init__(self, *script: str) -> None:
        self.script = [bytes.fromhex(answer) for answer in script]
        self.apdus: list[bytes] = []

    def __call__(self, apdu: bytes) -> bytes:
        self.apdus.append(apdu)
        return self.script.pop(0) if self.script else b"\x90\x00"

    @property
    def sent(self) -> list[str]:
        return [apdu.hex().upper() for apdu in self.apdus]


class T0Card:
    """A card as T=0 cards behave: reassembles each STORE DATA chain, answers 61xx, gives data by GET RESPONSE.

    `answers` maps a complete command to its response data; every other command is answered with nothing.
    """

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = answers
        self.commands: list[bytes] = []
        self.count = 0
        self._chain = b""
        self._pending = b""

    def __call__(self, apdu: bytes) -> bytes:
        self.count += 1
        ins, p1, p2 = apdu[1:4]
        if ins == 0xC0:
            wanted = apdu[4] or 256
            data, self._pending = self._pending[:wanted], self._pending[wanted:]
            return data + self._status()
        if (p2 == 0) != (self._chain == b"") or ins != 0xE2 or len(apdu) != 5 + apdu[4]:
            raise TransportError("CONTACT.LOST", "a chain out of order")
        self._chain += apdu[5:]
        if p1 == 0x11:
            return b"\x90\x00"
        command, self._chain = self._chain, b""
        self.commands.append(command)
        self._pending = self.answers.get(command, b"")
        return self._status()

    def _status(self) -> bytes:
        return bytes([0x61, min(len(self._pending), 256) % 256]) if self._pending else b"\x90\x00"


# ---- online sessions ---------------------------------------------------------------------------------


def info1() -> bytes:
    keys = der(0x04, bytes(20)) + der(0x04, b"\x01" * 20)
    return der(0xBF20, der(0x82, b"\x02\x06\x00"), der(0xA9, keys), der(0xAA, keys))


def server_signed1() -> bytes:
    return der(0x30, der(0x80, TRANSACTION), der(0x81, bytes(16)), der(0x83, b"smdp.example"), der(0x84, b"\x02" * 16))


def authenticated() -> bytes:
    """AuthenticateServer's answer; the certificates are of the right shape only."""
    context = der(0xA0, der(0x80, b"M-1"), der(0xA1, der(0x80, bytes(4)), der(0xA1)))
    signed = der(0x30, der(0x80, TRANSACTION), der(0x83, b"smdp.example"), der(0x84, b"\x02" * 16), info2(), context)
    return der(0xBF38, der(0xA0, signed, der(0x5F37, SIGNATURE), der(0x30, b"\x05\x00"), der(0x30, b"\x05\x00")))


def es9_answer(**members: str) -> bytes:
    header = {"functionExecutionStatus": {"status": "Executed-Success"}}
    return json.dumps({"header": header, **members}).encode()


def initiated() -> bytes:
    """InitiateAuthentication's answer."""
    return es9_answer(
        transactionId=TRANSACTION.hex().upper(),
        serverSigned1=base64.b64encode(server_signed1()).decode(),
        serverSignature1=base64.b64encode(der(0x5F37, SIGNATURE)).decode(),
        euiccCiPKIdToBeUsed=base64.b64encode(der(0x04, bytes(20))).decode(),
        serverCertificate=base64.b64encode(der(0x30, b"\x05\x00")).decode(),
    )


def packed(package: bytes) -> bytes:
    """GetBoundProfilePackage's answer."""
    return es9_answer(transactionId=TRANSACTION.hex().upper(), boundProfilePackage=base64.b64encode(package).decode())
