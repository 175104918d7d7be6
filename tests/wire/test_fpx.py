"""FPX/1: requests byte for byte, answers of honest and of strange chips, what signatures cover."""

from __future__ import annotations

import hashlib

import pytest

from ifpp.errors import WireError
from ifpp.model.chip import DeleteResult, FpaState, LockResult, OtkState
from ifpp.model.ids import Eid
from ifpp.wire.bpp import parse_bpp
from ifpp.wire.fpx import FPX1, parse_otk_list, parse_prepare_download
from tests.wire.build import EID, POINT, SIGNATURE, TRANSACTION, der, otk_entry, otk_list, prepare_download
from tests.wire.vectors import KAT, kat

OTHER = b"\x04" + bytes(range(100, 164))


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def test_kat_requests() -> None:
    assert FPX1.version == "FPX/1"
    assert FPX1.status_request() == kat("dialect", "status_req")
    assert FPX1.otks_request(challenge=bytes(range(0xC0, 0xD0))) == kat("dialect", "list_req")
    assert FPX1.delete_request() == kat("dialect", "delete_req")
    assert FPX1.lock_request() == kat("dialect", "lock_req")


def test_other_requests() -> None:
    assert FPX1.otks_request().hex() == "f902a100"
    assert FPX1.otks_request(from_slot=128, max_count=10).hex() == "f909a1078002008081010a"
    assert (
        FPX1.delete_request([b"\x11" * 20, b"\x22" * 20]).hex()
        == "f930a22ea12c" + "0414" + "11" * 20 + "0414" + "22" * 20
    )
    assert FPX1.lock_request(delete_first=True).hex() == "f905a303800101"
    request = parse_prepare_download(prepare_download())
    assert FPX1.prepare_request(request) == prepare_download()


def test_kat_status() -> None:
    status = FPX1.parse_status(kat("dialect", "status_resp"))
    assert (status.state, status.otk_remaining, status.dialect) == (FpaState.OPEN, 1, b"\x01\x00\x00")
    assert (status.flags, status.transaction_id) == (0, None)


def test_status_with_everything_and_an_unknown_state() -> None:
    status = FPX1.parse_status(
        der(
            0xF9,
            der(
                0xA0,
                der(0x80, b"\x63"),
                der(0x81, b"\x00\xff"),
                der(0x82, b"\x01\x02\x03"),
                der(0x83, b"\x05"),
                der(0x84, TRANSACTION),
                der(0x85, b"new"),
            ),
        )
    )
    assert (status.state, status.otk_remaining, status.flags, status.transaction_id) == (99, 255, 5, TRANSACTION)


def test_kat_key_list() -> None:
    listed = FPX1.parse_otks(kat("dialect", "list_resp"))
    assert (listed.eid, listed.remaining) == (KAT["eid"], 1)
    assert listed.challenge == bytes(range(0xC0, 0xD0))
    assert kat("dialect", "list_resp") == bytes.fromhex("F981D7A181D4") + listed.signed_raw + bytes.fromhex(
        "5F3740"
    ) + (listed.signature or b"")
    (key,) = listed.keys
    assert (key.slot, key.state, key.alg) == (0, OtkState.AVAILABLE, 0)
    assert (key.otk_id, key.public) == (kat("otk_id"), kat("otk_pub"))


def test_the_list_of_a_file_is_the_same_object_without_wrapper() -> None:
    inside = kat("dialect", "list_resp")[6:]
    assert parse_otk_list(inside) == FPX1.parse_otks(kat("dialect", "list_resp"))
    unsigned = parse_otk_list(otk_list(otk_entry(), challenge=None))
    assert (unsigned.signature, unsigned.challenge) == (None, None)


def test_spent_keys_have_no_public_part_and_unknown_numbers_are_kept() -> None:
    listed = parse_otk_list(
        otk_list(
            otk_entry(0, state=2, public=None),
            otk_entry(1, state=9, public=None, otk_id=b"\x01" * 20),
            otk_entry(2, state=0, alg=7, public=b"post-quantum", otk_id=b"\x02" * 20),
            otk_entry(254, public=OTHER, otk_id=sha1(OTHER), alg=1, state=1),
        )
    )
    assert [(key.slot, key.state, key.alg, key.public) for key in listed.keys] == [
        (0, OtkState.CONSUMED, 0, None),
        (1, 9, 0, None),
        (2, OtkState.AVAILABLE, 7, b"post-quantum"),
        (254, OtkState.RESERVED, 1, OTHER),
    ]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is not one otkListSigned 30"),
        (der(0x5F37, SIGNATURE), "is not one otkListSigned 30"),
        (otk_list() + otk_list(), "is not one otkListSigned 30"),
        (otk_list() + der(0x5F37, SIGNATURE) * 2, "is not one otkListSigned 30"),
        (otk_list() + der(0x5F37, b"short"), "tag 5F37: has 5 bytes, expected 64"),
        (otk_list(eid=EID[:-1] + b"\x36"), "the check digits of EID"),
        (otk_list(challenge=b"short"), "tag 80: has 5 bytes, expected 16"),
        (otk_list(otk_entry(255)), "slot 255 is greater than 254"),
        (otk_list(otk_entry(), otk_entry(0, public=OTHER, otk_id=sha1(OTHER))), "tag A2: names a slot twice"),
        (otk_list(otk_entry(), otk_entry(1)), "tag A2: names an otkId twice"),
        (otk_list(otk_entry(otk_id=b"\x01" * 20)), "tag 5F49: is not the key its otkId names"),
        (otk_list(otk_entry(otk_id=b"\x01" * 19)), "tag 81: has 19 bytes, expected 20"),
        (otk_list(otk_entry(public=None)), "has no public key although it is not spent"),
        (otk_list(otk_entry(public=None, state=1)), "has no public key although it is not spent"),
        (otk_list(otk_entry(public=POINT[:64])), "tag 5F49: has 64 bytes, expected 65"),
        (otk_list(otk_entry(alg=7, public=b"")), "tag 5F49: has 0 bytes, expected 1 to 4096"),
        (otk_list(der(0x31)), "tag 31: in a row of 30 in A2"),
    ],
)
def test_key_lists_that_are_none(raw: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_otk_list(raw)
    assert says in str(caught.value)
    assert caught.value.where.startswith("otkList")


def test_prepare_download() -> None:
    request = parse_prepare_download(prepare_download())
    assert request.raw == prepare_download()
    assert (request.transaction_id, request.otk_public) == (TRANSACTION, POINT)
    assert request.smdp_signature2 == SIGNATURE
    assert request.smdp_certificate == der(0x30, bytes(569))
    assert request.other_certificates == ()
    assert len(request.raw) == 736  # with a certificate of 573 bytes: three STORE DATA of 255


def test_prepare_download_with_a_chain() -> None:
    chain = der(0x30, b"\x05\x00"), der(0x30, b"\x04\x00")
    assert parse_prepare_download(prepare_download(others=der(0xA1, *chain))).other_certificates == chain


SIGNED = der(0x30, der(0x80, TRANSACTION), der(0x01, b"\x00"), der(0x5F49, POINT))
SIGN, CERT = der(0x5F37, SIGNATURE), der(0x30, b"\x05\x00")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (der(0xBF21, SIGNED, SIGN), "expected 30 5F37 30"),
        (der(0xBF21, SIGNED, SIGN, der(0x04, bytes(32)), CERT), "has members 30 5F37 04 30, expected 30 5F37 30 A1"),
        (der(0xBF21, SIGNED, SIGN, CERT, der(0xA1), der(0xA1)), "expected 30 5F37 30"),
        (der(0xBF21, SIGNED, SIGN, CERT, der(0xA1, der(0x31))), "tag 31: in a row of 30 in A1"),
        (der(0xBF21, SIGNED, SIGN, CERT, der(0xA1, *[CERT] * 9)), "carries 9 further certificates, at most 8"),
        (prepare_download(confirm=b"\x01"), "tag 01: asks for a confirmation code"),
        (prepare_download(confirm=b"\xff"), "tag 01: asks for a confirmation code"),
        (der(0xBF21, der(0x30, der(0x80, TRANSACTION), der(0x01, b"\x00")), SIGN, CERT), "expected 80 01 5F49"),
        (der(0xBF36), "tag BF36: expected tag BF21"),
    ],
)
def test_requests_that_are_no_factory_prepare(raw: bytes, says: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_prepare_download(raw)
    assert says in str(caught.value)


def test_kat_prepare_answer() -> None:
    answer = FPX1.parse_prepared(kat("dialect", "prepare_resp"))
    assert (answer.transaction_id, answer.otk_public, answer.error) == (kat("transactionId"), kat("otk_pub"), None)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 66, 127])
def test_prepare_errors(number: int) -> None:
    answer = FPX1.parse_prepared(der(0xBF21, der(0xA1, der(0x80, TRANSACTION), der(0x02, bytes([number])))))
    assert (answer.transaction_id, answer.otk_public, answer.error) == (TRANSACTION, None, number)


@pytest.mark.parametrize(
    "raw",
    [
        der(0xBF21),
        der(0xBF22, der(0xA0)),
        der(0xBF21, der(0xA2)),
        der(0xBF21, der(0xA0), der(0xA1)),
        der(0xBF21, der(0xA0, SIGNED)),
        der(0xBF21, der(0xA0, SIGNED, der(0x5F37, b"short"))),
        der(0xBF21, der(0xA1, der(0x80, TRANSACTION))),
    ],
)
def test_prepare_answers_that_are_none(raw: bytes) -> None:
    with pytest.raises(WireError, match="PrepareDownload answer, byte"):
        FPX1.parse_prepared(raw)


def test_kat_delete_and_lock() -> None:
    deletion = FPX1.parse_deleted(kat("dialect", "delete_resp"))
    assert (deletion.result, deletion.deleted, deletion.remaining) == (DeleteResult.OK, 1, 0)
    assert FPX1.parse_locked(kat("dialect", "lock_resp")) == LockResult.OK
    assert FPX1.parse_locked(der(0xF9, der(0xA3, der(0x80, b"\x4d")))) == 77


@pytest.mark.parametrize("raw", ["F900", "F902A000", "F905A203800100", "F90AA303800100A303800100", "A303800100"])
def test_answers_to_another_function_are_refused(raw: str) -> None:
    with pytest.raises(WireError, match="LockFpaServices"):
        FPX1.parse_locked(bytes.fromhex(raw))


def test_kat_signature_inputs() -> None:
    package = parse_bpp(kat("ppk_mode", "bpp"))
    assert package.channel.signed_raw + der(0x5F49, kat("otk_pub")) == kat("smdpSign_tbs")
    raw = der(0xBF21, kat("dialect", "smdpSigned2"), der(0x5F37, kat("dialect", "smdpSignature2")), CERT)
    request = parse_prepare_download(raw)
    assert request.smdp_signature2 == kat("dialect", "smdpSignature2")
    assert request.smdp_signed2_raw + der(0x5A, Eid(KAT["eid"]).packed) == kat("dialect", "prepare_signed_tbs")
