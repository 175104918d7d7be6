"""The codec of ifpp.wire against ifpp-fpx1.asn, compiled by asn1tools: two descriptions of the same bytes.

asn1tools sees only well-formed data here, made by itself or by us; what cards send is never given to it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import asn1tools
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ifpp.wire
from ifpp.model.chip import Permit
from ifpp.model.ids import Eid, Iccid, eid_check_digits, luhn_digit
from ifpp.wire import es10, fpx
from ifpp.wire.bpp import parse_bpp
from tests.wire.build import SIGNATURE, bpp, der
from tests.wire.vectors import kat

ASN1 = asn1tools.compile_files(str(Path(ifpp.wire.__file__).with_name("ifpp-fpx1.asn")), "der")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("FpxRequest", ("dialect", "status_req")),
        ("FpxRequest", ("dialect", "list_req")),
        ("FpxRequest", ("dialect", "delete_req")),
        ("FpxRequest", ("dialect", "lock_req")),
        ("FpxResponse", ("dialect", "status_resp")),
        ("FpxResponse", ("dialect", "list_resp")),
        ("FpxResponse", ("dialect", "delete_resp")),
        ("FpxResponse", ("dialect", "lock_resp")),
        ("SmdpSigned2", ("dialect", "smdpSigned2")),
        ("PrepareDownloadResponse", ("dialect", "prepare_resp")),
        ("ProfileInstallationResult", ("pir_ok",)),
        ("ProfileInstallationResult", ("pir_err",)),
        ("InitialiseSecureChannelRequest", ("bf23",)),
        ("StoreMetadataRequest", ("bf25",)),
    ],
)
def test_the_module_describes_every_known_answer(kind: str, path: tuple[str, ...]) -> None:
    raw = kat(*path)
    assert ASN1.encode(kind, ASN1.decode(kind, raw)) == raw


digits = st.text("0123456789", min_size=30, max_size=30)
eids = digits.map(lambda first: Eid(first + eid_check_digits(first)))
iccids = st.text("0123456789", min_size=18, max_size=19).map(lambda first: Iccid(first + luhn_digit(first)))
transactions = st.binary(min_size=1, max_size=16)
points = st.binary(min_size=64, max_size=64).map(lambda xy: b"\x04" + xy)
numbers = st.integers(0, 2**40)
events = st.sets(st.integers(0, 3), min_size=1).map(frozenset)
signatures = st.binary(min_size=64, max_size=64)


def bit_value(bits: frozenset[int]) -> tuple[bytes, int]:
    """asn1tools' form of a named BIT STRING: content and number of bits."""
    return bytes([sum(0x80 >> bit for bit in bits)]), max(bits) + 1


@st.composite
def results(draw: st.DrawFn) -> dict[str, Any]:
    sima = ASN1.encode(
        "EUICCResponse", {"peStatus": [{"status": number} for number in draw(st.lists(numbers, max_size=4))]}
    )
    success = {"aid": draw(st.binary(min_size=5, max_size=16)), "simaResponse": sima}
    failure = {"bppCommandId": draw(st.integers(0, 9)), "errorReason": draw(st.integers(0, 200)), "simaResponse": sima}
    about: dict[str, Any] = {
        "seqNumber": draw(numbers),
        "event": bit_value(draw(events)),
        "notificationAddress": draw(st.text(max_size=40)),
    }
    if draw(st.booleans()):
        about["iccid"] = draw(iccids).swapped
    data = {
        "transactionId": draw(transactions),
        "notificationMetadata": about,
        "smdpOid": "2.999." + str(draw(st.integers(0, 2**31))),
        "finalResult": ("successResult", success) if draw(st.booleans()) else ("errorResult", failure),
    }
    return {"data": data, "euiccSignPIR": draw(signatures)}


@given(results())
def test_installation_results(value: dict[str, Any]) -> None:
    raw = ASN1.encode("ProfileInstallationResult", value)
    found = es10.parse_pir(raw)
    data = value["data"]
    about = data["notificationMetadata"]
    choice, final = data["finalResult"]
    assert found.signed_raw == ASN1.encode("ProfileInstallationResultData", data)
    assert (found.raw, found.signature) == (raw, value["euiccSignPIR"])
    assert (found.transaction_id, found.smdp_oid) == (data["transactionId"], data["smdpOid"])
    assert (found.seq_number, found.notification_address) == (about["seqNumber"], about["notificationAddress"])
    assert bit_value(found.events) == about["event"]
    assert (found.iccid.swapped if found.iccid else None) == about.get("iccid")
    assert found.success is (choice == "successResult")
    assert (found.aid, found.command, found.reason) == (
        final.get("aid"),
        final.get("bppCommandId"),
        final.get("errorReason"),
    )
    statuses = [element["status"] for element in ASN1.decode("EUICCResponse", found.sima_response)["peStatus"]]
    assert list(found.pe_status) == statuses


@st.composite
def key_lists(draw: st.DrawFn) -> dict[str, Any]:
    keys = []
    slots = draw(st.lists(st.integers(0, 254), max_size=4, unique=True))
    publics = draw(st.lists(points, min_size=len(slots), max_size=len(slots), unique=True))
    for slot, public in zip(slots, publics, strict=True):
        state = draw(st.integers(0, 3))
        key = {
            "slot": slot,
            "otkId": hashlib.sha1(public, usedforsecurity=False).digest(),
            "state": state,
            "alg": draw(st.integers(0, 1)),
        }
        keys.append(key | ({"public": public} if state < 2 else {}))
    signed: dict[str, Any] = {"eid": draw(eids).packed, "remaining": draw(st.integers(0, 255)), "keys": keys}
    if draw(st.booleans()):
        signed["challenge"] = draw(st.binary(min_size=16, max_size=16))
    return {"otkListSigned": signed} | ({"signature": draw(signatures)} if draw(st.booleans()) else {})


@given(key_lists())
def test_key_lists(value: dict[str, Any]) -> None:
    found = fpx.FPX1.parse_otks(ASN1.encode("FpxResponse", ("listOneTimeKeys", value)))
    signed = value["otkListSigned"]
    assert found.signed_raw == ASN1.encode("OtkListSigned", signed)
    assert (found.signature, found.challenge) == (value.get("signature"), signed.get("challenge"))
    assert (found.eid.packed, found.remaining) == (signed["eid"], signed["remaining"])
    assert [(key.slot, key.otk_id, key.state, key.alg, key.public) for key in found.keys] == [
        (key["slot"], key["otkId"], key["state"], key["alg"], key.get("public")) for key in signed["keys"]
    ]
    in_a_file = found.signed_raw + (der(0x5F37, found.signature) if found.signature else b"")
    assert fpx.parse_otk_list(in_a_file) == found


@given(st.integers(0, 9), numbers, st.none() | st.integers(0, 7), st.none() | transactions)
def test_status_answers(state: int, remaining: int, flags: int | None, transaction: bytes | None) -> None:
    value = {"state": state, "otkRemaining": remaining, "dialectVersion": b"\x01\x00\x00"}
    value |= {"flags": flags} if flags is not None else {}
    value |= {"transactionId": transaction} if transaction is not None else {}
    found = fpx.FPX1.parse_status(ASN1.encode("FpxResponse", ("getFpaStatus", value)))
    assert (found.state, found.otk_remaining, found.flags, found.transaction_id) == (
        state,
        remaining,
        flags or 0,
        transaction,
    )


@given(
    st.none() | st.integers(0, 254),
    st.none() | st.integers(1, 300),
    st.none() | st.binary(min_size=16, max_size=16),
    st.lists(st.binary(min_size=20, max_size=20), max_size=4),
    st.booleans(),
)
def test_requests(
    from_slot: int | None, count: int | None, challenge: bytes | None, ids: list[bytes], first: bool
) -> None:
    wanted = {"fromSlot": from_slot, "maxCount": count, "challenge": challenge}
    given_members = {name: member for name, member in wanted.items() if member is not None}
    request = fpx.FPX1.otks_request(from_slot=from_slot, max_count=count, challenge=challenge)
    assert request == ASN1.encode("FpxRequest", ("listOneTimeKeys", given_members))
    named: dict[str, Any] = {"named": ids} if ids else {"allUnused": None}
    delete, lock = fpx.FPX1.delete_request(ids), fpx.FPX1.lock_request(delete_first=first)
    assert delete == ASN1.encode("FpxRequest", ("deleteOneTimeKeys", named))
    assert lock == ASN1.encode("FpxRequest", ("lockFpaServices", {"flags": int(first)}))
    permit = Permit(b"\x0c" * 16, b"\x0d" * 8)
    words = {"challenge": permit.challenge, "dmAuth": permit.mac}
    assert fpx.FPX1.permitted(delete, permit) == ASN1.encode("FpxRequest", ("deleteOneTimeKeys", named | words))
    locking = ("lockFpaServices", {"flags": int(first)} | words)
    assert fpx.FPX1.permitted(lock, permit) == ASN1.encode("FpxRequest", locking)


@given(numbers, numbers, numbers)
def test_delete_and_lock_answers(result: int, deleted: int, remaining: int) -> None:
    value = {"result": result, "deleted": deleted, "remaining": remaining}
    found = fpx.FPX1.parse_deleted(ASN1.encode("FpxResponse", ("deleteOneTimeKeys", value)))
    assert (found.result, found.deleted, found.remaining) == (result, deleted, remaining)
    assert fpx.FPX1.parse_locked(ASN1.encode("FpxResponse", ("lockFpaServices", {"result": result}))) == result


@given(transactions, points, signatures, st.lists(st.binary(max_size=300), max_size=3), st.integers(0, 200))
def test_prepare_download(transaction: bytes, point: bytes, signature: bytes, chain: list[bytes], error: int) -> None:
    certificates = [der(0x30, der(0x04, content)) for content in [b"leaf", *chain]]
    signed = {"transactionId": transaction, "ccRequiredFlag": False, "bppEuiccOtpk": point}
    value: dict[str, Any] = {"smdpSigned2": signed, "smdpSignature2": signature, "smdpCertificate": certificates[0]}
    found = fpx.parse_prepare_download(
        ASN1.encode("PrepareDownloadRequest", value | ({"otherCertsInChain": certificates[1:]} if chain else {}))
    )
    assert found.smdp_signed2_raw == ASN1.encode("SmdpSigned2", signed)
    assert (found.transaction_id, found.otk_public, found.smdp_signature2) == (transaction, point, signature)
    assert (found.smdp_certificate, *found.other_certificates) == tuple(certificates)

    taken = {"euiccSigned2": {"transactionId": transaction, "euiccOtpk": point}, "euiccSignature2": signature}
    answer = fpx.FPX1.parse_prepared(ASN1.encode("PrepareDownloadResponse", ("ok", taken)))
    assert (answer.transaction_id, answer.otk_public, answer.error) == (transaction, point, None)
    refused = {"transactionId": transaction, "downloadErrorCode": error}
    answer = fpx.FPX1.parse_prepared(ASN1.encode("PrepareDownloadResponse", ("error", refused)))
    assert (answer.transaction_id, answer.otk_public, answer.error) == (transaction, None, error)


@given(transactions, st.binary(min_size=1, max_size=16), points, st.text(max_size=32), st.text(max_size=64), iccids)
def test_head_and_metadata_of_a_package(
    transaction: bytes, host_id: bytes, point: bytes, provider: str, name: str, iccid: Iccid
) -> None:
    template = {"keyType": b"\x88", "keyLen": b"\x10", "hostId": host_id}
    head = {"remoteOpId": 1, "transactionId": transaction, "controlRefTemplate": template, "smdpOtpk": point}
    raw_head = ASN1.encode("InitialiseSecureChannelRequest", head | {"smdpSign": SIGNATURE})
    stored = {"iccid": iccid.swapped, "serviceProviderName": provider, "profileName": name, "profileClass": 2}
    package = parse_bpp(bpp(head=raw_head, bf25=ASN1.encode("StoreMetadataRequest", stored)))
    channel = package.channel
    assert (channel.raw, channel.transaction_id, channel.host_id) == (raw_head, transaction, host_id)
    assert (channel.smdp_otpk, channel.smdp_sign) == (point, SIGNATURE)
    assert raw_head.endswith(channel.signed_raw + der(0x5F37, SIGNATURE))
    assert (package.metadata.iccid, package.metadata.provider, package.metadata.name) == (iccid, provider, name)
