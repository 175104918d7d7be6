"""ES10 requests byte for byte, and parsers against what cards say and what liars say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ifpp.errors import WireError
from ifpp.model.chip import BppCommand, InstallError, NotificationEvent, number_name
from ifpp.model.ids import Iccid
from ifpp.wire import es10
from tests.wire.build import ICCID, ISDP, SIGNATURE, TRANSACTION, der, info2, notification, pir, sima
from tests.wire.vectors import KAT, kat

PROFILE = Iccid("8988211900000311922")


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (es10.eid_request(), "BF3E035C015A"),
        (es10.info2_request(), "BF2200"),
        (es10.profiles_request(), "BF2D105C0E5A4F9F70909192939495B6B7B899"),
        (es10.challenge_request(), "BF2E00"),
        (es10.notifications_request(), "BF2800"),
        (es10.notifications_request(NotificationEvent.INSTALL), "BF280481020780"),
        (es10.notifications_request(NotificationEvent.DELETE), "BF280481020410"),
        (es10.retrieve_request(5), "BF2B05A003800105"),
        (es10.retrieve_request(128), "BF2B06A00480020080"),
        (es10.sent_request(128), "BF300480020080"),
        (es10.enable_request(PROFILE), "BF3111A00C5A0A988812910000301129F2810100"),
        (es10.disable_request(PROFILE), "BF3211A00C5A0A988812910000301129F2810100"),
        (es10.disable_request(PROFILE, refresh=True), "BF3211A00C5A0A988812910000301129F28101FF"),
        (es10.delete_request(PROFILE), "BF330C5A0A988812910000301129F2"),
        (es10.cancel_session_request(TRANSACTION, 5), "BF41158010A0A1A2A3A4A5A6A7A8A9AAABACADAEAF810105"),
    ],
)
def test_requests(request_bytes: bytes, expected: str) -> None:
    assert request_bytes.hex().upper() == expected


def test_eid() -> None:
    assert es10.parse_eid(bytes.fromhex("BF3E125A1089049032123451234512345678901235")) == KAT["eid"]
    with pytest.raises(WireError, match=r"GetEID, byte 3: tag 5A: the check digits of EID \d{32} do not hold"):
        es10.parse_eid(bytes.fromhex("BF3E125A1089049032123451234512345678901236"))
    with pytest.raises(WireError, match="an EID has 32 decimal digits"):
        es10.parse_eid(bytes.fromhex("BF3E125A108904903212345123451234567890123F"))
    with pytest.raises(WireError, match="has 15 bytes, expected 16"):
        es10.parse_eid(bytes.fromhex("BF3E115A0F890490321234512345123456789012"))


def test_info2() -> None:
    info = es10.parse_info2(info2())
    assert info.raw == info2()
    assert info.profile_version == bytes.fromhex("020300")
    assert info.svn == bytes.fromhex("020202")
    assert info.firmware == bytes.fromhex("010203")
    assert info.free_nvm == 285_688
    assert info.rsp_capability == {0, 3, 4}
    assert info.ci_pkids_verification == (b"V" * 20, b"W" * 20)
    assert info.ci_pkids_signing == (b"S" * 20,)
    assert info.forbidden_pprs == {1}


def test_info2_without_optional_members_and_with_unknown_ones() -> None:
    info = es10.parse_info2(info2(t99=None, t85=None, t04=None, t9C=b"future"))
    assert info.forbidden_pprs == frozenset()


def test_versions_of_sgp22_v3_are_read_and_strange_ones_left_out() -> None:
    info = es10.parse_info2(info2())
    assert (info.highest_svn, info.further_profile_versions) == (b"", ())
    further = der(0x04, bytes.fromhex("030301")) + der(0x04, b"\x03") + der(0x04, bytes.fromhex("030400"))
    info = es10.parse_info2(info2(t93=bytes.fromhex("030100"), tAF=further))
    assert info.highest_svn == bytes.fromhex("030100")
    assert info.further_profile_versions == (bytes.fromhex("030301"), bytes.fromhex("030400"))
    assert es10.parse_info2(info2(t93=b"\x03")).highest_svn == b""


def test_free_memory_is_unsigned() -> None:
    """TS 102 226 gives plain bytes, not an INTEGER with a sign byte."""
    assert es10.parse_info2(info2(t84=bytes.fromhex("8204FFFFFFFF"))).free_nvm == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"t84": None}, "has no member 84"),
        ({"t84": bytes.fromhex("810108")}, "does not state its free non-volatile memory once"),
        ({"t84": bytes.fromhex("820101820102")}, "does not state its free non-volatile memory once"),
        ({"t84": b"\x82"}, "extCardResource, byte 0: tag 82"),
        ({"t82": b"\x02"}, "tag 82: has 1 bytes, expected 3"),
        ({"t88": None}, "has no member 88"),
        ({"tA9": der(0x05, b"")}, "tag 05: in a row of 04 in A9"),
    ],
)
def test_info2_that_does_not_hold(changes: dict[str, bytes | None], says: str) -> None:
    with pytest.raises(WireError) as caught:
        es10.parse_info2(info2(**changes))
    assert says in str(caught.value)


def profile(*members: bytes) -> bytes:
    return der(0xE3, *members)


def listed(*profiles: bytes) -> bytes:
    return der(0xBF2D, der(0xA0, *profiles))


def test_profiles() -> None:
    data = listed(
        profile(
            der(0x5A, ICCID),
            der(0x4F, ISDP),
            der(0x9F70, b"\x00"),
            der(0x91, b"SP"),
            der(0x92, b"Name"),
            der(0x95, b"\x00"),
        ),
        profile(der(0x5A, bytes.fromhex("98001032547698103213")), der(0x9F70, b"\x01")),
    )
    first, second = es10.parse_profiles(data)
    assert (first.iccid, first.aid, first.state, first.profile_class) == (PROFILE, ISDP, 0, 0)
    assert (first.name, first.provider) == ("Name", "SP")
    assert (second.iccid, second.aid, second.state, second.profile_class) == (None, b"", 1, 2)
    assert es10.parse_profiles(listed()) == ()


def test_an_unreadable_name_does_not_hide_a_profile() -> None:
    (found,) = es10.parse_profiles(listed(profile(der(0x5A, ICCID), der(0x9F70, b"\x07"), der(0x92, b"A\xff" * 60))))
    assert found.name.startswith("A\ufffd")
    assert len(found.name) == 64
    assert found.state == 7


def test_profiles_without_state_or_iccid_are_no_profiles() -> None:
    with pytest.raises(WireError, match="has no member 9F70"):
        es10.parse_profiles(listed(profile(der(0x5A, ICCID))))
    with pytest.raises(WireError, match="has no member 5A"):
        es10.parse_profiles(listed(profile(der(0x9F70, b"\x00"))))


@pytest.mark.parametrize(
    ("parse", "tag"),
    [(es10.parse_profiles, 0xBF2D), (es10.parse_notifications, 0xBF28), (es10.parse_retrieved, 0xBF2B)],
)
@pytest.mark.parametrize("number", [11, 99, 127])
def test_an_error_number_is_told_as_such(parse: Callable[[bytes], object], tag: int, number: int) -> None:
    with pytest.raises(es10.ResultError, match=f"the chip answered error {number}") as caught:
        parse(der(tag, der(0x81, bytes([number]))))
    assert caught.value.result == number
    assert caught.value.code == "EUICC.RESULT"
    assert isinstance(caught.value, WireError)


def test_challenge() -> None:
    assert es10.parse_challenge(bytes.fromhex("BF2E128010" + "5A" * 16)) == b"\x5a" * 16
    with pytest.raises(WireError, match="has 8 bytes, expected 16"):
        es10.parse_challenge(bytes.fromhex("BF2E0A8008" + "5A" * 8))


def test_notifications() -> None:
    data = der(
        0xBF28,
        der(
            0xA0,
            notification(),
            notification(b"\x00\x80", b"\x00\x40", iccid=None),
            notification(b"\x02", b"\x04\x10", iccid=ICCID[:9] + b"\xf3"),
        ),
    )
    first, second, third = es10.parse_notifications(data)
    assert (first.seq_number, first.events, first.iccid) == (1, frozenset({NotificationEvent.INSTALL}), PROFILE)
    assert (second.seq_number, second.events, second.iccid) == (128, frozenset({NotificationEvent.ENABLE}), None)
    assert (third.events, third.iccid) == (frozenset({NotificationEvent.DELETE}), None)
    assert es10.parse_notifications(der(0xBF28, der(0xA0))) == ()


def test_retrieved_results() -> None:
    other = der(0x30, notification(event=b"\x06\x40"), der(0x5F37, SIGNATURE), der(0x30), der(0x30))
    data = der(0xBF2B, der(0xA0, kat("pir_ok"), other, kat("pir_err")))
    results = es10.parse_retrieved(data)
    assert [result.raw for result in results] == [kat("pir_ok"), kat("pir_err")]
    assert es10.parse_retrieved(der(0xBF2B, der(0xA0))) == ()
    assert es10.parse_retrieved(bytes.fromhex("BF2B03810101")) == ()  # noResultAvailable
    with pytest.raises(WireError, match="tag BF2F: expected tag BF37"):
        es10.parse_retrieved(der(0xBF2B, der(0xA0, notification())))


def test_kat_success() -> None:
    result = es10.parse_pir(kat("pir_ok"))
    raw = kat("pir_ok")
    assert result.raw == raw
    assert result.signed_raw == raw[4:-67]
    assert result.signature == raw[-64:]
    assert result.transaction_id == kat("transactionId")
    assert (result.seq_number, result.events) == (1, frozenset({NotificationEvent.INSTALL}))
    assert result.notification_address == "dpf.example.com"
    assert result.iccid == KAT["iccid"]
    assert result.smdp_oid == "2.999.10"
    assert (result.success, result.command, result.reason) == (True, None, None)
    assert result.aid == ISDP
    assert (result.sima_response.hex(), result.pe_status) == ("3007a0053003800100", (0,))


def test_kat_failure() -> None:
    result = es10.parse_pir(kat("pir_err"))
    assert (result.success, result.aid) == (False, None)
    assert (result.command, result.reason) == (BppCommand.LOAD_PROFILE_ELEMENTS, InstallError.PE_PROCESSING_ERROR)
    assert result.pe_status == (3,)


def failure(command: int, reason: int, sima_response: bytes | None = None) -> bytes:
    parts = [der(0x80, bytes([command])), der(0x81, bytes([reason]))]
    return der(0xA1, *parts, *([der(0x82, sima_response)] if sima_response is not None else []))


def test_unknown_numbers_are_kept() -> None:
    result = es10.parse_pir(pir(failure(9, 99)))
    assert (result.command, result.reason) == (9, 99)
    assert number_name(InstallError, result.reason) == "unknown(99)"
    assert es10.parse_pir(pir(about=notification(event=b"\x00\x88"))).events == {0, 4}


def test_a_failure_without_or_with_unreadable_details_is_still_a_failure() -> None:
    for details in (None, b"", b"\x30\x05\x00", b"\x04\x00", b"\xff"):
        result = es10.parse_pir(pir(failure(5, 12, details)))
        assert (result.success, result.reason, result.pe_status) == (False, 12, ())
        assert result.sima_response == (details or b"")


def test_a_success_with_unreadable_details_is_no_result() -> None:
    with pytest.raises(WireError, match="simaResponse, byte 0"):
        es10.parse_pir(pir(der(0xA0, der(0x4F, ISDP), der(0x04, b"\x30\x05\x00"))))


def test_an_absent_iccid_is_allowed_and_a_wrong_one_is_not() -> None:
    assert es10.parse_pir(pir(about=notification(iccid=None))).iccid is None
    with pytest.raises(WireError, match="the check digit of ICCID 8988211900000311923 does not hold"):
        es10.parse_pir(pir(about=notification(iccid=bytes.fromhex("988812910000301129F3"))))


def test_non_minimal_lengths_are_sliced_not_rewritten() -> None:
    """T09: what the signature covers are the bytes as they came."""
    inside = pir()[4 + 3 : -67]
    signed = der(0xBF27, inside, length_octets=2)
    raw = der(0xBF37, signed, der(0x5F37, SIGNATURE), length_octets=4)
    result = es10.parse_pir(raw)
    assert result.signed_raw == signed
    assert result.raw == raw


def test_members_of_later_versions_are_ignored() -> None:
    assert es10.parse_pir(pir(extra=der(0x9E, b"v9"))).success


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"),
        (pir() + b"\x80\x00", "follows BF37 where the data should end"),
        (der(0xBF38), "expected tag BF37"),
        (der(0xBF37), "has members none, expected BF27 5F37"),
        (der(0xBF37, der(0xBF27), der(0x5F37, SIGNATURE), der(0x5F37, SIGNATURE)), "expected BF27 5F37"),
        (pir(signature=SIGNATURE[:-1]), "tag 5F37: has 63 bytes, expected 64"),
        (pir(transaction=b""), "tag 80: has 0 bytes, expected 1 to 16"),
        (pir(transaction=bytes(17)), "tag 80: has 17 bytes, expected 1 to 16"),
        (pir(about=notification() + notification()), "tag BF2F: stands twice in BF27"),
        (pir(extra=der(0x06, b"\x2a")), "tag 06: stands twice in BF27"),
        (pir(about=notification(seq=b"\x80")), "is a negative number"),
        (pir(b""), "is neither one successResult A0 nor one errorResult A1"),
        (pir(failure(5, 12) + failure(5, 12)), "is neither one successResult A0 nor one errorResult A1"),
        (pir(der(0xA2)), "is neither one successResult A0 nor one errorResult A1"),
        (pir(der(0xA0, der(0x4F, bytes(4)), der(0x04, sima(0)))), "tag 4F: has 4 bytes, expected 5 to 16"),
        (pir(der(0xA0, der(0x4F, ISDP))), "has no member 04"),
        (pir(der(0xA1, der(0x80, b"\x05"))), "has no member 81"),
        (pir(der(0xA1, der(0x02, b"\x05"), der(0x02, b"\x0c"))), "has no member 80"),
    ],
)
def test_results_that_are_none(raw: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        es10.parse_pir(raw)
    assert says in str(caught.value)
    assert "ProfileInstallationResult" in caught.value.where


def test_status_of_profile_elements_over_several_responses() -> None:
    assert es10.parse_pe_status(sima(0) + sima(0, 7, 31) + sima(0x9000)) == (0, 0, 7, 31, 0x9000)
    assert es10.parse_pe_status(b"") == ()
    aborted = bytes.fromhex("300FA00B300980010781010D8301098100")
    assert es10.parse_pe_status(aborted) == (7,)
    with pytest.raises(WireError, match="expected an EUICCResponse 30"):
        es10.parse_pe_status(b"\xa0\x00")


@pytest.mark.parametrize(
    ("parse", "tag"),
    [(es10.parse_sent, 0xBF30), (es10.parse_enable, 0xBF31), (es10.parse_disable, 0xBF32), (es10.parse_delete, 0xBF33)],
)
@pytest.mark.parametrize("number", [0, 1, 5, 77, 127])
def test_result_numbers(parse: Callable[[bytes], int], tag: int, number: int) -> None:
    assert parse(der(tag, der(0x80, bytes([number])))) == number
    with pytest.raises(WireError, match=f"expected tag {tag:02X}"):
        parse(der(0xBF3E, der(0x80, bytes([number]))))


def test_cancel_session() -> None:
    assert es10.parse_cancel_session(der(0xBF41, der(0xA0, der(0x30), der(0x5F37, SIGNATURE)))) == 0
    assert es10.parse_cancel_session(der(0xBF41, der(0x81, b"\x05"))) == 5
    with pytest.raises(WireError, match="has no member A0"):
        es10.parse_cancel_session(der(0xBF41))
