"""ES10b.PrepareDownload in factory form, and CancelSession (FPX/1 10.5, 10.7; SGP.22 5.7.5, 5.7.14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import evidence
from ifpp.sim.euicc.chain import CURVES, ChainError, CurveError, authenticate
from ifpp.sim.euicc.chip import CONDITIONS, WRONG_DATA, Chip, StatusWordError, members
from ifpp.sim.euicc.nvm import KeySlot, KeyState, Reservation
from ifpp.sim.tlv import Node, integer, oid, parse, tlv

# DownloadErrorCode
INVALID_CERTIFICATE = 1
INVALID_SIGNATURE = 2
UNSUPPORTED_CURVE = 3
NO_SESSION_CONTEXT = 4
INVALID_TRANSACTION = 5
UNDEFINED = 127

_CANCEL_INVALID_TRANSACTION = 5


@dataclass(frozen=True, slots=True)
class Request:
    """PrepareDownload taken apart; `signed` and `signature` are complete TLVs as received.

    `hash_cc` is None without a confirmation code; `code_required` says what the SM-DP+ signed.
    """

    transaction_id: bytes
    code_required: bool
    hash_cc: bytes | None
    otk_public: bytes
    signed: bytes
    signature: Node
    chain: tuple[bytes, ...]


class RefusedError(Exception):
    """The download is refused with this DownloadErrorCode."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def prepare_download(chip: Chip, request: Node) -> bytes:
    """Reserve the named one-time key for one transaction of one SM-DPf; answers ok or DownloadErrorCode.

    Raises StatusWordError for a request that does not parse (6A80; 6985 once the factory services are locked).
    """
    try:
        parsed = parse_request(request)
    except (ValueError, KeyError):
        raise StatusWordError(CONDITIONS if chip.nvm.locked else WRONG_DATA) from None
    try:
        _reserve(chip, parsed)
    except RefusedError as refused:
        return refusal(parsed, refused)
    signed2 = tlv(0x30, tlv(0x80, parsed.transaction_id), tlv(0x5F49, parsed.otk_public))
    return tlv(0xBF21, tlv(0xA0, signed2, chip.sign(signed2 + parsed.signature.raw)))


def cancel_session(chip: Chip, request: Node) -> bytes:
    """Give a reserved key back, or spend it when a BF23 was already accepted under it."""
    found = members(request.value)
    transaction_id, reason = found[0x80], found[0x81]
    for index, _, slot in chip.slots():
        reservation = slot.reservation
        if reservation is None or reservation.transaction_id != transaction_id:
            continue
        chip.spend(index, KeyState.AVAILABLE if reservation.bf23_sha256 is None else KeyState.CONSUMED)
        signed = tlv(0x30, tlv(0x80, transaction_id), tlv(0x81, oid(reservation.smdp_oid)), tlv(0x82, reason))
        return tlv(0xBF41, tlv(0xA0, signed, chip.sign(signed)))
    return tlv(0xBF41, tlv(0x81, integer(_CANCEL_INVALID_TRANSACTION)))


def refusal(request: Request, refused: RefusedError) -> bytes:
    """The answer that carries a DownloadErrorCode."""
    return tlv(0xBF21, tlv(0xA1, tlv(0x80, request.transaction_id), tlv(0x02, integer(refused.code))))


def parse_request(request: Node) -> Request:
    """Take PrepareDownload apart; raises ValueError, KeyError."""
    parts = parse(request.value)
    tags = [part.tag for part in parts]
    hash_cc = 0x04 in tags
    expected = [0x30, 0x5F37, *([0x04] if hash_cc else []), 0x30]
    if tags[: len(expected)] != expected or tags[len(expected) :] not in ([], [0xA1]):
        raise ValueError("members of PrepareDownload")
    signed = members(parts[0].value)
    sizes = len(parts[1].value) == 64 and (not hash_cc or len(parts[2].value) == 32)
    if not 1 <= len(signed[0x80]) <= 16 or not sizes:
        raise ValueError("sizes")
    others: Sequence[Node] = parse(parts[-1].value) if tags[-1] == 0xA1 else ()
    certificate = parts[len(expected) - 1].raw
    return Request(
        transaction_id=signed[0x80],
        code_required=signed[0x01] != b"\x00",
        hash_cc=parts[2].value if hash_cc else None,
        otk_public=signed.get(0x5F49, b""),
        signed=parts[0].raw,
        signature=parts[1],
        chain=(certificate, *(other.raw for other in others)),
    )


def _reserve(chip: Chip, request: Request) -> None:
    """The checks of FPX/1 10.5 in its order, then the reservation."""
    index = _usable_key(chip, request)
    key, slot = chip.card.one_time_keys[index], chip.nvm.keys[index]
    try:
        smdp = authenticate(request.chain, chip.card.ci_certificates)
    except ChainError:
        raise RefusedError(INVALID_CERTIFICATE) from None
    except CurveError:
        raise RefusedError(UNSUPPORTED_CURVE) from None
    curve = CURVES[key.alg]
    if smdp.curve != curve.name:
        raise RefusedError(UNSUPPORTED_CURVE)
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, smdp.point)
    try:
        evidence.verify_raw(public, request.signed + tlv(0x5A, chip.eid16), request.signature.value)
    except evidence.EvidenceError:
        raise RefusedError(INVALID_SIGNATURE) from None
    if slot.reservation is None:
        reservation = Reservation(request.transaction_id, smdp.oid, smdp.point)
        chip.nvm.keys[index] = KeySlot(KeyState.RESERVED, reservation)
    chip.nvm.current = index


def _usable_key(chip: Chip, request: Request) -> int:
    """The slot of the named key, if it is available or reserved by the same transaction."""
    if request.code_required or request.hash_cc is not None:
        raise RefusedError(UNDEFINED)
    if chip.nvm.locked:
        raise RefusedError(NO_SESSION_CONTEXT)
    named = next(((index, slot) for index, key, slot in chip.slots() if key.public == request.otk_public), None)
    if named is None or named[1].state > KeyState.RESERVED:
        raise RefusedError(NO_SESSION_CONTEXT)
    index, slot = named
    if slot.reservation is not None and slot.reservation.transaction_id != request.transaction_id:
        raise RefusedError(INVALID_TRANSACTION)
    return index
