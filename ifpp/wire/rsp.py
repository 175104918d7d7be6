"""The commands of an online session on the chip: request builders and bounded response parsers (SGP.22 v2, 5.7).

As in `es10`: requests are complete TLVs, parsers take response data and raise WireError. An error number the chip
gives instead of its proof is no exception here: it comes back in `error`.
"""

from __future__ import annotations

import hashlib

from ifpp.errors import WireError
from ifpp.model.ids import Eid
from ifpp.model.rsp import Cancelled, ChipWord, Device, Info1, Notice, Offer, Prepared, ServerWord
from ifpp.wire import fields
from ifpp.wire.bpp import parse_metadata
from ifpp.wire.es10 import ResultError
from ifpp.wire.tlv import Tlv, integer, read, read_as, read_many, write

_INFO1 = 0xBF20
_PREPARE = 0xBF21
_RESULT_DATA = 0xBF27
_RETRIEVE = 0xBF2B
_NOTIFICATION = 0xBF2F
_RESULT = 0xBF37
_AUTHENTICATE = 0xBF38
_ADDRESSES = 0xBF3C
_CANCEL = 0xBF41
_RAT = 0xBF43
_MEMORY_RESET = 0xBF34
_OK, _FAILED, _ERROR = 0xA0, 0xA1, 0x81
_INTEGER = 0x02
_PROOF = (fields.SEQUENCE, fields.SIGNATURE, fields.SEQUENCE, fields.SEQUENCE)
_CHALLENGE_BYTES, _HASH_BYTES, _KEY_ID_BYTES = 16, 32, (1, 64)
_MOST_ADDRESS = 255
_NO_RESULT_AVAILABLE = 1
_ALL_CONTENT = bytes.fromhex("05e0")  # operational profiles, field-loaded test profiles, default SM-DP+ address


def info1_request() -> bytes:
    """GetEuiccInfo1 (5.7.8)."""
    return write(_INFO1)


def parse_info1(data: bytes) -> Info1:
    """Return EUICCInfo1 with the CI keys the chip verifies servers with."""
    info = read_as(_INFO1, data, what="EUICCInfo1")
    keys = info.need(0xA9).sequence_of(fields.OCTETS)
    return Info1(info.raw, tuple(key.sized(*_KEY_ID_BYTES) for key in keys))


def addresses_request() -> bytes:
    """GetEuiccConfiguredAddresses (5.7.3)."""
    return write(_ADDRESSES)


def parse_addresses(data: bytes) -> tuple[str, str]:
    """Return the default SM-DP+ address ("" for none) and the root SM-DS address."""
    answer = read_as(_ADDRESSES, data, what="GetEuiccConfiguredAddresses")
    default = answer.first(0x80)
    return default.text(_MOST_ADDRESS) if default else "", answer.need(0x81).text(_MOST_ADDRESS)


def rat_request() -> bytes:
    """GetRAT (5.7.22)."""
    return write(_RAT)


def parse_rat(data: bytes) -> tuple[frozenset[int], ...]:
    """Return the policy rules (numbers of PprIds) each row of the Rules Authorisation Table allows."""
    table = read_as(_RAT, data, what="GetRAT").need(_OK)
    return tuple(row.need(0x80).bits() for row in table.sequence_of(fields.SEQUENCE))


def memory_reset_request() -> bytes:
    """eUICCMemoryReset (5.7.19): every profile and the default address."""
    return write(_MEMORY_RESET, write(0x82, _ALL_CONTENT))


def parse_memory_reset(data: bytes) -> int:
    """Return 0 ok, 1 nothingToDelete, 5 catBusy, 127."""
    return read_as(_MEMORY_RESET, data, what="eUICCMemoryReset").need(0x80).integer()


def server_word(
    session_id: bytes, signed: bytes, signature: bytes, ci: bytes, certificate: bytes, *, what: str
) -> ServerWord:
    """Read the four objects of InitiateAuthentication (5.6.1), each a complete TLV."""
    said = read_as(fields.SEQUENCE, signed, what=f"{what}, serverSigned1")
    return ServerWord(
        session_id=session_id,
        signed_raw=signed,
        signature_raw=signature,
        signature=_signature(signature, f"{what}, serverSignature1"),
        ci_raw=ci,
        ci_key_id=read_as(fields.OCTETS, ci, what=f"{what}, euiccCiPKIdToBeUsed").sized(*_KEY_ID_BYTES),
        certificate=read_as(fields.SEQUENCE, certificate, what=f"{what}, serverCertificate").raw,
        transaction_id=fields.transaction_id(said.need(fields.TRANSACTION_ID)),
        euicc_challenge=said.need(0x81).sized(_CHALLENGE_BYTES),
        address=said.need(0x83).text(_MOST_ADDRESS),
        server_challenge=said.need(0x84).sized(_CHALLENGE_BYTES),
    )


def authenticate_request(server: ServerWord, matching_id: str, device: Device) -> bytes:
    """AuthenticateServer (5.7.13): the server's objects as they came, then matching id and device."""
    identity = [write(0x80, device.tac), write(0xA1)]
    if device.imei:
        identity.append(write(0x82, device.imei))
    context = [write(0x80, matching_id.encode())] if matching_id else []
    return write(
        _AUTHENTICATE,
        server.signed_raw,
        server.signature_raw,
        server.ci_raw,
        server.certificate,
        write(0xA0, *context, write(0xA1, *identity)),
    )


def parse_authenticated(data: bytes) -> ChipWord:
    """Return the chip's proof, or its error."""
    answer = read_as(_AUTHENTICATE, data, what="AuthenticateServer")
    refused = answer.first(_FAILED)
    if refused is not None:
        return ChipWord(data, _transaction(refused), refused.need(_INTEGER).integer())
    members = answer.need(_OK).children()
    if tuple(member.tag for member in members[: len(_PROOF)]) != _PROOF:
        raise answer.error("is no proof: euiccSigned1, its signature, CERT.EUICC and CERT.EUM")
    signed, signature, chip, eum, *others = members
    # from SGP.22 v3 on further issuers stand in A1 behind CERT.EUM
    further = [each for member in others for each in member.children()]
    return ChipWord(
        raw=data,
        transaction_id=_transaction(signed),
        signed_raw=signed.raw,
        signature_raw=signature.raw,
        signature=fields.signature(signature),
        address=signed.need(0x83).text(_MOST_ADDRESS),
        server_challenge=signed.need(0x84).sized(_CHALLENGE_BYTES),
        euicc_certificate=chip.raw,
        eum_chain=(eum.raw, *(each.raw for each in further)),
    )


def offer(
    session_id: bytes, metadata: bytes, signed: bytes, signature: bytes, certificate: bytes, *, what: str
) -> Offer:
    """Read the four objects of AuthenticateClient (5.6.3), each a complete TLV."""
    said = read_as(fields.SEQUENCE, signed, what=f"{what}, smdpSigned2")
    key = said.first(fields.PUBLIC_KEY)
    return Offer(
        session_id=session_id,
        metadata=parse_metadata(metadata, what=f"{what}, profileMetadata"),
        signed_raw=signed,
        signature_raw=signature,
        signature=_signature(signature, f"{what}, smdpSignature2"),
        certificate=read_as(fields.SEQUENCE, certificate, what=f"{what}, smdpCertificate").raw,
        transaction_id=_transaction(said),
        confirmation=said.need(0x01).boolean(),
        otk_public=fields.public_key(key) if key else b"",
    )


def hash_of_code(code: str, transaction_id: bytes) -> bytes:
    """Return hashCc: what proves a confirmation code in this session only (5.7.5)."""
    return hashlib.sha256(hashlib.sha256(code.encode()).digest() + transaction_id).digest()


def prepare_request(offered: Offer, hash_cc: bytes = b"") -> bytes:
    """PrepareDownload (5.7.5): the SM-DP+'s objects as they came, and the confirmation code's hash."""
    code = [write(fields.OCTETS, hash_cc)] if hash_cc else []
    return write(_PREPARE, offered.signed_raw, offered.signature_raw, *code, offered.certificate)


def parse_prepared(data: bytes) -> Prepared:
    """Return the chip's key and its word on it, or its error."""
    answer = read_as(_PREPARE, data, what="PrepareDownload")
    refused = answer.first(_FAILED)
    if refused is not None:
        return Prepared(data, _transaction(refused), refused.need(_INTEGER).integer())
    signed, signature = answer.need(_OK).exactly(fields.SEQUENCE, fields.SIGNATURE)
    code = signed.first(fields.OCTETS)
    return Prepared(
        raw=data,
        transaction_id=_transaction(signed),
        signed_raw=signed.raw,
        signature=fields.signature(signature),
        otk_public=fields.public_key(signed.need(fields.PUBLIC_KEY)),
        hash_cc=code.sized(_HASH_BYTES) if code else b"",
    )


def cancel_request(transaction_id: bytes, reason: int) -> bytes:
    """CancelSession (5.7.14)."""
    return write(_CANCEL, write(fields.TRANSACTION_ID, transaction_id), write(0x81, integer(reason)))


def parse_cancelled(data: bytes) -> Cancelled:
    """Return the chip's signed word for the SM-DP+, or the number of its refusal (5: it knows no such session)."""
    answer = read_as(_CANCEL, data, what="CancelSession")
    error = answer.first(_ERROR)
    if error is not None:
        return Cancelled(data, error.integer())
    answer.need(_OK).exactly(fields.SEQUENCE, fields.SIGNATURE)
    return Cancelled(data)


def notices_request() -> bytes:
    """RetrieveNotificationsList (5.7.10) of everything the chip keeps: one command for all of it."""
    return write(_RETRIEVE)


def parse_notices(data: bytes, eid: Eid) -> tuple[Notice, ...]:
    """Return every kept notification byte for byte, results (BF37) and others (30), by sequence number."""
    answer = read_as(_RETRIEVE, data, what="RetrieveNotificationsList")
    error = answer.first(_ERROR)
    if error is not None:
        if error.integer() == _NO_RESULT_AVAILABLE:
            return ()
        raise ResultError(error, "RetrieveNotificationsList")
    found = [_notice(member, eid) for member in answer.need(_OK).children()]
    return tuple(sorted(found, key=lambda notice: notice.seq_number))


def notice_of_result(raw: bytes, eid: Eid) -> Notice:
    """Return the notification an installation result is."""
    return _notice(read(raw, what="ProfileInstallationResult"), eid)


def _notice(member: Tlv, eid: Eid) -> Notice:
    if member.tag not in (_RESULT, fields.SEQUENCE):
        raise member.error("is no notification")
    holder = member.need(_RESULT_DATA) if member.tag == _RESULT else member
    about = holder.need(_NOTIFICATION)
    return Notice(eid, about.need(0x80).integer(), about.need(fields.UTF8).text(_MOST_ADDRESS), member.raw)


def _transaction(holder: Tlv) -> bytes:
    return fields.transaction_id(holder.need(fields.TRANSACTION_ID))


def _signature(raw: bytes, what: str) -> bytes:
    objects = read_many(raw, what=what)
    if len(objects) != 1 or objects[0].tag != fields.SIGNATURE:
        raise WireError("is not one signature 5F37", where=what)
    return fields.signature(objects[0])
