"""FPX/1: the factory dialect spoken to an eUICC's FPA services, until SGP.42 says how ES10f really looks.

Factory functions stand under one private-class tag F9, one context tag each; everything SGP.22 can carry stays
SGP.22 (PrepareDownload BF21 names the one-time key in bppEuiccOtpk). All of it is behind `Es10fCodec`, so another
dialect is another codec. Field rules: ifpp-fpx1.asn beside this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from ifpp.errors import WireError
from ifpp.model.chip import (
    FpaStatus,
    OneTimeKey,
    OtkDeletion,
    OtkList,
    OtkState,
    Permit,
    PrepareAnswer,
    PrepareDownload,
)
from ifpp.model.ids import Eid
from ifpp.wire import fields
from ifpp.wire.tlv import Tlv, integer, read, read_as, read_many, write

_FPX = 0xF9
_STATUS, _LIST, _DELETE, _LOCK = 0xA0, 0xA1, 0xA2, 0xA3
_PREPARE = 0xBF21
_FLAG_DELETE_FIRST = 0x01
_MAX_SLOT = 254
_MAX_CERTIFICATES = 8
_MAX_FOREIGN_KEY_BYTES = 4096  # key forms of algorithms this version does not know
_POINT_ALGORITHMS = frozenset({0, 1})  # ECKA on P-256, on brainpoolP256r1


class Es10fCodec(Protocol):
    """Factory functions of one dialect: requests as bytes for `CardChannel.command`, parsers of its response data.

    Parsers raise WireError only. Result numbers the dialect does not know come back as they are.
    """

    version: str

    def status_request(self) -> bytes:
        """GetFpaStatus: always answered, also when locked."""

    def parse_status(self, data: bytes) -> FpaStatus:
        """Return state and number of keys left."""

    def otks_request(
        self, *, from_slot: int | None = None, max_count: int | None = None, challenge: bytes | None = None
    ) -> bytes:
        """ListOneTimeKeys: a page of the list; with a 16-byte challenge the answer is signed."""

    def parse_otks(self, data: bytes) -> OtkList:
        """Return the one-time keys."""

    def prepare_request(self, prepare: PrepareDownload) -> bytes:
        """PrepareDownload in its factory form: the SM-DPf's bytes, untouched."""

    def parse_prepared(self, data: bytes) -> PrepareAnswer:
        """Return the key taken, or the error number."""

    def delete_request(self, otk_ids: Sequence[bytes] = ()) -> bytes:
        """DeleteOneTimeKeys: the named keys, or all unused ones when none is named."""

    def parse_deleted(self, data: bytes) -> OtkDeletion:
        """Return what was deleted and what remains."""

    def lock_request(self, *, delete_first: bool = False) -> bytes:
        """LockFpaServices: irreversible; optionally deletes the remaining keys first."""

    def parse_locked(self, data: bytes) -> int:
        """Return 0 ok, 1 alreadyLocked or another number (LockResult)."""

    def permit_input(self, request: bytes, eid: Eid, challenge: bytes) -> bytes:
        """Return what the MAC covers that lets this chip obey a deletion or a lock."""

    def permitted(self, request: bytes, permit: Permit) -> bytes:
        """Return a deletion or a lock with its permit."""


class _Fpx1:
    """The dialect FPX/1 (see ifpp-fpx1.asn)."""

    version = "FPX/1"

    def status_request(self) -> bytes:
        return write(_FPX, write(_STATUS))

    def parse_status(self, data: bytes) -> FpaStatus:
        status = _function(_STATUS, data, "GetFpaStatus")
        flags, transaction_id = status.first(0x83), status.first(0x84)
        return FpaStatus(
            state=status.need(0x80).integer(),
            otk_remaining=status.need(0x81).integer(),
            dialect=status.need(0x82).sized(3),
            flags=flags.integer() if flags else 0,
            transaction_id=fields.transaction_id(transaction_id) if transaction_id else None,
        )

    def otks_request(
        self, *, from_slot: int | None = None, max_count: int | None = None, challenge: bytes | None = None
    ) -> bytes:
        parts = [
            write(0x80, integer(from_slot)) if from_slot is not None else b"",
            write(0x81, integer(max_count)) if max_count is not None else b"",
            write(0x82, challenge) if challenge is not None else b"",
        ]
        return write(_FPX, write(_LIST, *parts))

    def parse_otks(self, data: bytes) -> OtkList:
        return _otk_list(_function(_LIST, data, "ListOneTimeKeys").children(), "ListOneTimeKeys")

    def prepare_request(self, prepare: PrepareDownload) -> bytes:
        return prepare.raw

    def parse_prepared(self, data: bytes) -> PrepareAnswer:
        return _parse_prepared(data)

    def delete_request(self, otk_ids: Sequence[bytes] = ()) -> bytes:
        named = write(0xA1, *(write(fields.OCTETS, otk_id) for otk_id in otk_ids))
        return write(_FPX, write(_DELETE, named if otk_ids else write(0x80)))  # 80 is a NULL: all

    def parse_deleted(self, data: bytes) -> OtkDeletion:
        answer = _function(_DELETE, data, "DeleteOneTimeKeys", signed=True)
        return OtkDeletion(
            result=answer.need(0x80).integer(),
            deleted=answer.need(0x81).integer(),
            remaining=answer.need(0x82).integer(),
        )

    def lock_request(self, *, delete_first: bool = False) -> bytes:
        return write(_FPX, write(_LOCK, write(0x80, integer(_FLAG_DELETE_FIRST if delete_first else 0))))

    def parse_locked(self, data: bytes) -> int:
        return _function(_LOCK, data, "LockFpaServices").need(0x80).integer()

    def permit_input(self, request: bytes, eid: Eid, challenge: bytes) -> bytes:
        return _only(request).value + bytes.fromhex(eid) + challenge

    def permitted(self, request: bytes, permit: Permit) -> bytes:
        function = _only(request)
        added = write(0x82, permit.challenge), write(0x83, permit.mac)
        return write(_FPX, write(function.tag, function.value, *added))


FPX1: Es10fCodec = _Fpx1()


# ---- objects that travel in files as well ------------------------------------------------------------


def parse_otk_list(data: bytes) -> OtkList:
    """Return the one-time-key list of an eUICC data file: otkListSigned 30, followed by its signature 5F37."""
    return _otk_list(read_many(data, what="otkList"), "otkList")


def parse_prepare_download(data: bytes) -> PrepareDownload:
    """Return a PrepareDownload in its factory form (SGP.22 5.7.5 with the rules of FPX/1).

    Exactly BF21 { smdpSigned2, smdpSignature2, CERT.DPpb, otherCertsInChain opt }: no hashCc, no confirmation code,
    and bppEuiccOtpk present.
    """
    request = read_as(_PREPARE, data, what="PrepareDownload")
    tags = (fields.SEQUENCE, fields.SIGNATURE, fields.SEQUENCE)
    if len(request.children()) == 4:
        signed, signature, certificate, others = request.exactly(*tags, 0xA1)
        chain = others.sequence_of(fields.SEQUENCE)
    else:
        signed, signature, certificate = request.exactly(*tags)
        chain = ()
    if len(chain) > _MAX_CERTIFICATES:
        raise request.error(f"carries {len(chain)} further certificates, at most {_MAX_CERTIFICATES} are read")
    transaction_id, confirmation, key = signed.exactly(fields.TRANSACTION_ID, 0x01, fields.PUBLIC_KEY)
    if confirmation.boolean():
        raise confirmation.error("asks for a confirmation code, which a factory does not have")
    return PrepareDownload(
        raw=request.raw,
        transaction_id=fields.transaction_id(transaction_id),
        otk_public=fields.public_key(key),
        smdp_signed2_raw=signed.raw,
        smdp_signature2=fields.signature(signature),
        smdp_certificate=certificate.raw,
        other_certificates=tuple(other.raw for other in chain),
    )


def _function(tag: int, data: bytes, what: str, *, signed: bool = False) -> Tlv:
    """Return the one function object under F9; `signed`: a signature may follow it, where a challenge was sent."""
    answer = read_as(_FPX, data, what=what)
    if signed and len(answer.children()) == 2:
        function, signature = answer.exactly(tag, fields.SIGNATURE)
        fields.signature(signature)
        return function
    (function,) = answer.exactly(tag)
    return function


def _only(request: bytes) -> Tlv:
    """Return the function of a request of ours."""
    (function,) = read_as(_FPX, request, what="request").children()
    return function


def _otk_list(members: Sequence[Tlv], what: str) -> OtkList:
    tags = [member.tag for member in members]
    if tags not in ([fields.SEQUENCE], [fields.SEQUENCE, fields.SIGNATURE]):
        raise WireError("is not one otkListSigned 30 and at most one signature 5F37", where=what)
    signed = members[0]
    challenge = signed.first(0x80)
    return OtkList(
        eid=fields.eid(signed.need(fields.EID)),
        challenge=challenge.sized(16) if challenge else None,
        remaining=signed.need(0x81).integer(),
        keys=_keys(signed.need(0xA2)),
        signed_raw=signed.raw,
        signature=fields.signature(members[1]) if len(members) == 2 else None,
    )


def _keys(listed: Tlv) -> tuple[OneTimeKey, ...]:
    keys = tuple(_key(entry) for entry in listed.sequence_of(fields.SEQUENCE))
    if len({key.slot for key in keys}) != len(keys):
        raise listed.error("names a slot twice")
    if len({key.otk_id for key in keys}) != len(keys):
        raise listed.error("names an otkId twice")
    return keys


def _key(entry: Tlv) -> OneTimeKey:
    slot, state, alg = (entry.need(tag).integer() for tag in (0x80, 0x82, 0x83))
    if slot > _MAX_SLOT:
        raise entry.error(f"slot {slot} is greater than {_MAX_SLOT}")
    otk_id = entry.need(0x81).sized(20)
    member = entry.first(fields.PUBLIC_KEY)
    if member is None:
        if state in {OtkState.AVAILABLE, OtkState.RESERVED}:
            raise entry.error("has no public key although it is not spent")
        return OneTimeKey(slot, otk_id, state, alg, None)
    if alg not in _POINT_ALGORITHMS:
        return OneTimeKey(slot, otk_id, state, alg, member.sized(1, _MAX_FOREIGN_KEY_BYTES))
    public = fields.public_key(member)
    if hashlib.sha1(public, usedforsecurity=False).digest() != otk_id:
        raise member.error("is not the key its otkId names")
    return OneTimeKey(slot, otk_id, state, alg, public)


def _parse_prepared(data: bytes) -> PrepareAnswer:
    answer = read(data, what="PrepareDownload answer")
    if answer.tag != _PREPARE or [member.tag for member in answer.children()] not in ([0xA0], [0xA1]):
        raise answer.error("is neither BF21 { A0 } nor BF21 { A1 }")
    result = answer.children()[0]
    if result.tag == 0xA1:
        transaction_id = fields.transaction_id(result.need(fields.TRANSACTION_ID))
        return PrepareAnswer(transaction_id, None, result.need(0x02).integer())
    signed, signature = result.exactly(fields.SEQUENCE, fields.SIGNATURE)
    fields.signature(signature)
    return PrepareAnswer(
        fields.transaction_id(signed.need(fields.TRANSACTION_ID)),
        fields.public_key(signed.need(fields.PUBLIC_KEY)),
        None,
    )
