"""ES10 functions of SGP.22 that the line needs: request builders and bounded response parsers.

Requests are complete TLVs for `CardChannel.command`; parsers take its response data. A parser raises WireError when
the data do not parse, and its subclass ResultError when they parse but carry an error number instead of data.
Functions that only succeed or not (enable, disable, delete, sent, cancel) return that number; 0 is success and
unknown numbers come back as they are. Sections named below are those of SGP.22 v2.
"""

from __future__ import annotations

from typing import NamedTuple

from ifpp.errors import WireError
from ifpp.model.chip import EuiccInfo2, InstallResult, NotificationEvent, PirEntry, ProfileInfo, SignedNotification
from ifpp.model.ids import Eid, Iccid
from ifpp.wire import fields
from ifpp.wire.tlv import Tlv, bit_string, boolean, integer, read, read_as, read_many, write

_INFO2 = 0xBF22
_RESULT_DATA = 0xBF27
_LIST_NOTIFICATION = 0xBF28
_RETRIEVE = 0xBF2B
_PROFILES = 0xBF2D
_CHALLENGE = 0xBF2E
_NOTIFICATION = 0xBF2F
_SENT = 0xBF30
_ENABLE, _DISABLE, _DELETE = 0xBF31, 0xBF32, 0xBF33
_RESULT = 0xBF37
_EID = 0xBF3E
_CANCEL = 0xBF41
_TAG_LIST = 0x5C
_OK, _ERROR = 0xA0, 0x81
_PROFILE = 0xE3
_PROFILE_TAGS = bytes.fromhex("5A4F9F70909192939495B6B7B899")
_OPERATIONAL = 2  # profileClass DEFAULT
_NO_RESULT_AVAILABLE = 1
_VERSION_BYTES = 3


class ResultError(WireError):
    """The chip answered with an error number (`result`) where data were wanted."""

    def __init__(self, member: Tlv, what: str) -> None:
        self.result = member.integer()
        super().__init__(f"the chip answered error {self.result}", where=what, code="EUICC.RESULT")


# ---- reading the chip --------------------------------------------------------------------------------


def eid_request() -> bytes:
    """GetEID (5.7.20)."""
    return write(_EID, write(_TAG_LIST, bytes((fields.EID,))))


def parse_eid(data: bytes) -> Eid:
    """Return the EID; one whose check digits do not hold is an error."""
    return fields.eid(read_as(_EID, data, what="GetEID").need(fields.EID))


def info2_request() -> bytes:
    """GetEuiccInfo2 (5.7.8)."""
    return write(_INFO2)


def parse_info2(data: bytes) -> EuiccInfo2:
    """Return the members of EUICCInfo2 the line decides on; the others stay in `raw`."""
    info = read_as(_INFO2, data, what="EUICCInfo2")
    resources = read_many(info.need(0x84).value, what="EUICCInfo2, extCardResource")
    memory = [member for member in resources if member.tag == 0x82]
    if len(memory) != 1:
        raise info.need(0x84).error("does not state its free non-volatile memory once")
    forbidden, highest, further = info.first(0x99), info.first(0x93), info.first(0xAF)
    tre, product, mode, iot = info.first(0x8D), info.first(0x8E), info.first(0x90), info.first(0xB4)
    return EuiccInfo2(
        raw=info.raw,
        profile_version=info.need(0x81).sized(3),
        svn=info.need(0x82).sized(3),
        firmware=info.need(0x83).sized(3),
        free_nvm=int.from_bytes(memory[0].sized(1, 8), "big"),  # TS 102 226 8.2.1.7.2: unsigned
        rsp_capability=info.need(0x88).bits(),
        ci_pkids_verification=_key_ids(info.need(0xA9)),
        ci_pkids_signing=_key_ids(info.need(0xAA)),
        forbidden_pprs=forbidden.bits() if forbidden else frozenset(),
        highest_svn=highest.value if highest and len(highest.value) == _VERSION_BYTES else b"",
        further_profile_versions=_versions(further),
        tre=tre.bits() if tre else None,
        tre_product=_shown(product),
        iot_versions=_versions(iot.first(0xA0)) if iot else (),
        ipa_mode=mode.integer() if mode and iot else None,
    )


def profiles_request() -> bytes:
    """GetProfilesInfo (5.7.15) with an explicit tag list: the default answer leaves members out."""
    return write(_PROFILES, write(_TAG_LIST, _PROFILE_TAGS))


def parse_profiles(data: bytes) -> tuple[ProfileInfo, ...]:
    """Return the profiles on the chip, whatever the state of each; ResultError for an error answer."""
    listed = _answer(_PROFILES, data, "GetProfilesInfo").need(_OK)
    return tuple(_profile(member) for member in listed.sequence_of(_PROFILE))


def challenge_request() -> bytes:
    """GetEUICCChallenge (5.7.7): starts an online session, so it answers only when LPA services are open."""
    return write(_CHALLENGE)


def parse_challenge(data: bytes) -> bytes:
    """Return the 16-byte challenge."""
    return read_as(_CHALLENGE, data, what="GetEUICCChallenge").need(0x80).sized(16)


# ---- results and notifications -----------------------------------------------------------------------


def notifications_request(event: NotificationEvent | None = None) -> bytes:
    """ListNotification (5.7.9), all events or one of them."""
    return write(_LIST_NOTIFICATION, *([write(0x81, bit_string(frozenset({event})))] if event is not None else []))


def parse_notifications(data: bytes) -> tuple[PirEntry, ...]:
    """Return what the chip keeps for its servers, by sequence number."""
    listed = _answer(_LIST_NOTIFICATION, data, "ListNotification").need(_OK)
    return tuple(_entry(member) for member in listed.sequence_of(_NOTIFICATION))


def retrieve_request(seq_number: int) -> bytes:
    """RetrieveNotificationsList (5.7.10) of one sequence number."""
    return write(_RETRIEVE, write(_OK, write(0x80, integer(seq_number))))


def parse_retrieved(data: bytes) -> tuple[InstallResult, ...]:
    """Return the installation results among the retrieved notifications.

    Enable, disable and delete notifications (tag 30) are left out: they say nothing about an installation.
    """
    try:
        listed = _answer(_RETRIEVE, data, "RetrieveNotificationsList").need(_OK)
    except ResultError as error:
        if error.result == _NO_RESULT_AVAILABLE:
            return ()
        raise
    return tuple(_install_result(member) for member in listed.children() if member.tag != fields.SEQUENCE)


def parse_other_notifications(data: bytes) -> tuple[SignedNotification, ...]:
    """Return the notifications of enabling, disabling and deletion among the retrieved ones (tag 30, 2.8.1)."""
    try:
        listed = _answer(_RETRIEVE, data, "RetrieveNotificationsList").need(_OK)
    except ResultError as error:
        if error.result == _NO_RESULT_AVAILABLE:
            return ()
        raise
    return tuple(_other_notification(member) for member in listed.children() if member.tag == fields.SEQUENCE)


def sent_request(seq_number: int) -> bytes:
    """NotificationSent, also called RemoveNotificationFromList (5.7.11)."""
    return write(_SENT, write(0x80, integer(seq_number)))


def parse_sent(data: bytes) -> int:
    """Return 0 ok, 1 nothingToDelete, 127 undefined or another number."""
    return _number(_SENT, data, "NotificationSent")


def parse_pir(data: bytes) -> InstallResult:
    """Return a ProfileInstallationResult (2.5.6): exactly BF37 { BF27, 5F37 }, nothing before or after.

    An ICCID whose check digit does not hold is an error, for it could never equal an order's.
    """
    return _install_result(read(data, what="ProfileInstallationResult"))


def parse_pe_status(sima_response: bytes) -> tuple[int, ...]:
    """Return the status of every profile element a simaResponse reports (TCA eUICC profile package, EUICCResponse).

    The octets may hold several EUICCResponses one after the other.
    """
    found: list[int] = []
    for response in read_many(sima_response, what="simaResponse"):
        if response.tag != fields.SEQUENCE:
            raise response.error("expected an EUICCResponse 30")
        elements = response.need(0xA0).sequence_of(fields.SEQUENCE)
        found.extend(element.need(0x80).integer() for element in elements)
    return tuple(found)


# ---- profile state and session -----------------------------------------------------------------------


def enable_request(iccid: Iccid, *, refresh: bool = False) -> bytes:
    """EnableProfile (5.7.16); a factory reader resets the card itself, so without refresh."""
    return _switch(_ENABLE, iccid, refresh=refresh)


def parse_enable(data: bytes) -> int:
    """Return 0 ok, 1 not found, 2 not disabled, 3 disallowedByPolicy, 4 wrongProfileReenabling, 5 catBusy, 127."""
    return _number(_ENABLE, data, "EnableProfile")


def disable_request(iccid: Iccid, *, refresh: bool = False) -> bytes:
    """DisableProfile (5.7.17)."""
    return _switch(_DISABLE, iccid, refresh=refresh)


def parse_disable(data: bytes) -> int:
    """Return 0 ok, 1 not found, 2 not enabled, 3 disallowedByPolicy, 5 catBusy, 127."""
    return _number(_DISABLE, data, "DisableProfile")


def delete_request(iccid: Iccid) -> bytes:
    """DeleteProfile (5.7.18): the ICCID stands directly in the request, without wrapper or flag."""
    return write(_DELETE, write(fields.ICCID, iccid.swapped))


def parse_delete(data: bytes) -> int:
    """Return 0 ok, 1 not found, 2 not disabled, 3 disallowedByPolicy, 127."""
    return _number(_DELETE, data, "DeleteProfile")


def cancel_session_request(transaction_id: bytes, reason: int) -> bytes:
    """CancelSession (5.7.14); reason 2 timeout, 5 loadBppExecutionError, 127 undefined."""
    return write(_CANCEL, write(0x80, transaction_id), write(0x81, integer(reason)))


def parse_cancel_session(data: bytes) -> int:
    """Return 0 when the session was cancelled, otherwise 5 invalidTransactionId, 127 or another number."""
    answer = read_as(_CANCEL, data, what="CancelSession")
    error = answer.first(_ERROR)
    if error is not None:
        return error.integer()
    answer.need(_OK)
    return 0


# ---- parts -------------------------------------------------------------------------------------------


def _answer(tag: int, data: bytes, what: str) -> Tlv:
    """Return the answer object; ResultError when it carries an error number."""
    answer = read_as(tag, data, what=what)
    error = answer.first(_ERROR)
    if error is not None:
        raise ResultError(error, what)
    return answer


def _number(tag: int, data: bytes, what: str) -> int:
    return read_as(tag, data, what=what).need(0x80).integer()


def _switch(tag: int, iccid: Iccid, *, refresh: bool) -> bytes:
    return write(tag, write(0xA0, write(fields.ICCID, iccid.swapped)), write(0x81, boolean(refresh)))


def _key_ids(member: Tlv) -> tuple[bytes, ...]:
    return tuple(key_id.sized(1, 64) for key_id in member.sequence_of(fields.OCTETS))


def _versions(member: Tlv | None) -> tuple[bytes, ...]:
    """Only SGP.22 v3 has them: what does not look like a version is left out, the chip stays readable."""
    found = member.children() if member else ()
    return tuple(version.value for version in found if len(version.value) == _VERSION_BYTES)


def _profile(member: Tlv) -> ProfileInfo:
    aid, kind, rules = member.first(fields.AID), member.first(0x95), member.first(0x99)
    return ProfileInfo(
        iccid=_lenient_iccid(member.need(fields.ICCID)),
        aid=aid.sized(5, 16) if aid else b"",
        state=member.need(0x9F70).integer(),
        profile_class=kind.integer() if kind else _OPERATIONAL,
        name=_shown(member.first(0x92)),
        provider=_shown(member.first(0x91)),
        nickname=_shown(member.first(0x90)),
        pprs=rules.bits() if rules else frozenset(),
    )


def _shown(member: Tlv | None) -> str:
    """Text for people only: odd bytes in it do not make a chip unreadable."""
    return member.value.decode(errors="replace")[:64] if member else ""


def _lenient_iccid(member: Tlv | None) -> Iccid | None:
    """An ICCID of some profile that may be foreign to the line: None when its digits do not hold."""
    if member is None:
        return None
    try:
        return fields.iccid(member)
    except WireError:
        return None


def _entry(member: Tlv) -> PirEntry:
    return PirEntry(
        seq_number=member.need(0x80).integer(),
        events=member.need(0x81).bits(),
        iccid=_lenient_iccid(member.first(fields.ICCID)),
    )


def _other_notification(member: Tlv) -> SignedNotification:
    about = member.need(_NOTIFICATION)
    entry = _entry(about)
    return SignedNotification(
        raw=member.raw,
        signed_raw=about.raw,
        signature=fields.signature(member.need(fields.SIGNATURE)),
        seq_number=entry.seq_number,
        events=entry.events,
        iccid=entry.iccid,
    )


def _install_result(result: Tlv) -> InstallResult:
    if result.tag != _RESULT:
        raise result.error(f"expected tag {_RESULT:02X}")
    signed, signature = result.exactly(_RESULT_DATA, fields.SIGNATURE)
    about = signed.need(_NOTIFICATION)
    iccid = about.first(fields.ICCID)
    outcome = _outcome(signed.need(0xA2))
    return InstallResult(
        raw=result.raw,
        signed_raw=signed.raw,
        signature=fields.signature(signature),
        transaction_id=fields.transaction_id(signed.need(fields.TRANSACTION_ID)),
        seq_number=about.need(0x80).integer(),
        events=about.need(0x81).bits(),
        notification_address=about.need(fields.UTF8).text(255),
        iccid=fields.iccid(iccid) if iccid else None,
        smdp_oid=signed.need(fields.OID).oid(),
        success=outcome.success,
        aid=outcome.aid,
        command=outcome.command,
        reason=outcome.reason,
        sima_response=outcome.sima_response,
        pe_status=outcome.pe_status,
    )


class _Outcome(NamedTuple):
    """finalResult of a ProfileInstallationResult; what does not apply is None."""

    success: bool
    aid: bytes | None
    command: int | None
    reason: int | None
    sima_response: bytes
    pe_status: tuple[int, ...]


def _outcome(final: Tlv) -> _Outcome:
    members = final.children()
    if len(members) != 1 or members[0].tag not in {0xA0, 0xA1}:
        raise final.error("is neither one successResult A0 nor one errorResult A1")
    result = members[0]
    if result.tag == 0xA0:
        sima = result.need(fields.OCTETS).value
        return _Outcome(True, result.need(fields.AID).sized(5, 16), None, None, sima, parse_pe_status(sima))
    member = result.first(0x82)
    sima = member.value if member else b""
    return _Outcome(False, None, result.need(0x80).integer(), result.need(0x81).integer(), sima, _failed_status(sima))


def _failed_status(sima_response: bytes) -> tuple[int, ...]:
    """A failure is a failure even when its details do not parse; they stay in the result as bytes."""
    try:
        return parse_pe_status(sima_response)
    except WireError:
        return ()
