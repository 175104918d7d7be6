"""What the station checks of an online session, each step of its plans; every signed byte, seen from the station."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ifpp.errors import IfppError, SupplyError
from ifpp.model.ids import Eid, Iccid
from ifpp.model.rsp import ActivationCode, Bound, ChipWord, Offer, Prepared, ServerWord
from ifpp.trust.chain import EuiccKey, SmdpIdentity, TrustStore
from ifpp.trust.rsp import check_bound, check_chip, check_offer, check_prepared, check_server
from ifpp.wire import es9, rsp
from ifpp.wire.bpp import parse_bpp
from tests.sim.bench import TREE, flip
from tests.sim.test_online import CHIP, Session, b64, leaves, session

NOW = datetime.now(UTC)
TRUST = TrustStore([TREE.ci.der])
EID = Eid(CHIP.card.eid)


@dataclass(frozen=True)
class Said:
    """Everything that is said in one session, as the station reads it."""

    challenge: bytes
    server: ServerWord
    chip: ChipWord
    offer: Offer
    prepared: Prepared
    bound: Bound

    @property
    def identity(self) -> SmdpIdentity:
        code = ActivationCode("localhost", "M-1")
        return check_server(self.server, code, self.challenge, [TREE.ci.pkid], TRUST, NOW)

    @property
    def key(self) -> EuiccKey:
        return check_chip(self.chip, self.server, EID, TRUST, NOW)

    @property
    def smdp(self) -> SmdpIdentity:
        return check_offer(self.offer, self.chip, self.identity, None, TRUST, NOW)


def server_word(said: dict[str, Any], **bent: bytes) -> ServerWord:
    names = ("serverSigned1", "serverSignature1", "euiccCiPKIdToBeUsed", "serverCertificate")
    parts = [bent.get(name, b64(said[name])) for name in names]
    return rsp.server_word(bytes.fromhex(said["transactionId"]), *parts, what="test")


def offer_of(said: dict[str, Any], **bent: bytes) -> Offer:
    names = ("profileMetadata", "smdpSigned2", "smdpSignature2", "smdpCertificate")
    parts = [bent.get(name, b64(said[name])) for name in names]
    return rsp.offer(bytes.fromhex(said["transactionId"]), *parts, what="test")


RUN: Session = session()
INITIATED = RUN.initiate()
PROOF = RUN.authenticate_server(INITIATED).raw
OFFERED = RUN.authenticate_client(INITIATED, PROOF)
PREPARED = RUN.prepare(OFFERED)
PACKAGE = RUN.package(OFFERED, PREPARED.raw)
SAID = Said(
    challenge=server_word(INITIATED).euicc_challenge,
    server=server_word(INITIATED),
    chip=rsp.parse_authenticated(PROOF),
    offer=offer_of(OFFERED),
    prepared=rsp.parse_prepared(PREPARED.raw),
    bound=Bound(bytes.fromhex(OFFERED["transactionId"]), parse_bpp(PACKAGE)),
)


def refused(check: Any) -> str:
    with pytest.raises(IfppError) as error:
        check()
    return error.value.code


def test_a_sound_session_passes() -> None:
    check_prepared(SAID.prepared, SAID.offer, b"", SAID.key)
    check_bound(SAID.bound, SAID.offer, SAID.prepared, SAID.smdp)
    assert SAID.identity.oid == SAID.smdp.oid
    assert SAID.key.eid == EID


# ---- every signed byte ---------------------------------------------------------------------------------


def test_every_byte_of_server_signed_1() -> None:
    signed = b64(INITIATED["serverSigned1"])
    codes = [
        refused(lambda at=at: replace(SAID, server=server_word(INITIATED, serverSigned1=flip(signed, at))).identity)
        for at in leaves(signed)
    ]
    assert codes == ["RSP.MISMATCH", "RSP.MISMATCH", "RSP.MISMATCH", "TRUST.SIGNATURE"]
    bent = server_word(INITIATED, serverSignature1=flip(b64(INITIATED["serverSignature1"]), -1))
    assert refused(lambda: replace(SAID, server=bent).identity) == "TRUST.SIGNATURE"


def test_every_byte_of_euicc_signed_1() -> None:
    signed = SAID.chip.signed_raw
    start = PROOF.index(signed)
    for at in [start + at for at in leaves(signed)] + [PROOF.index(SAID.chip.signature) + 63]:
        bent = rsp.parse_authenticated(flip(PROOF, at))
        assert refused(lambda bent=bent: replace(SAID, chip=bent).key) in ("RSP.MISMATCH", "TRUST.SIGNATURE")


def test_every_byte_of_smdp_signed_2_and_euicc_signature_1() -> None:
    signed = b64(OFFERED["smdpSigned2"])
    codes = [
        refused(lambda at=at: replace(SAID, offer=offer_of(OFFERED, smdpSigned2=flip(signed, at))).smdp)
        for at in leaves(signed)
    ]
    assert codes == ["RSP.MISMATCH", "TRUST.SIGNATURE"]
    bent = offer_of(OFFERED, smdpSignature2=flip(b64(OFFERED["smdpSignature2"]), -1))
    assert refused(lambda: replace(SAID, offer=bent).smdp) == "TRUST.SIGNATURE"
    other = replace(SAID.chip, signature_raw=flip(SAID.chip.signature_raw, -1))
    assert refused(lambda: check_offer(SAID.offer, other, SAID.identity, None, TRUST, NOW)) == "TRUST.SIGNATURE"


def test_every_byte_of_euicc_signed_2_and_smdp_signature_2() -> None:
    signed = SAID.prepared.signed_raw
    start = PREPARED.raw.index(signed)
    for at in [start + at for at in leaves(signed)] + [-1]:
        bent = rsp.parse_prepared(flip(PREPARED.raw, at))
        code = refused(lambda bent=bent: check_prepared(bent, SAID.offer, b"", SAID.key))
        assert code in ("RSP.MISMATCH", "TRUST.SIGNATURE")
    other = replace(SAID.offer, signature_raw=flip(SAID.offer.signature_raw, -1))
    assert refused(lambda: check_prepared(SAID.prepared, other, b"", SAID.key)) == "TRUST.SIGNATURE"


def test_every_byte_of_the_channel_request_and_the_chips_key() -> None:
    channel = SAID.bound.bpp.channel
    start = PACKAGE.index(channel.raw)
    for at in leaves(channel.raw):
        bent = replace(SAID.bound, bpp=parse_bpp(flip(PACKAGE, start + at)))
        code = refused(lambda bent=bent: check_bound(bent, SAID.offer, SAID.prepared, SAID.smdp))
        assert code in ("RSP.MISMATCH", "TRUST.SIGNATURE"), at
    other = replace(SAID.prepared, otk_public=channel.smdp_otpk)
    assert refused(lambda: check_bound(SAID.bound, SAID.offer, other, SAID.smdp)) == "TRUST.SIGNATURE"


# ---- steps that no flipped byte shows ------------------------------------------------------------------


def test_a_server_the_chip_cannot_verify() -> None:
    code = ActivationCode("LOCALHOST", "M-1", SAID.identity.oid)
    check_server(SAID.server, code, SAID.challenge, [TREE.ci.pkid], TRUST, NOW)
    with pytest.raises(SupplyError) as error:
        check_server(SAID.server, code, SAID.challenge, [bytes(20)], TRUST, NOW)
    assert error.value.code == "FIT.CI_KEY"
    named = replace(SAID.server, ci_key_id=bytes(20))
    assert refused(lambda: check_server(named, code, SAID.challenge, [bytes(20)], TRUST, NOW)) == "TRUST.CHAIN"


def test_a_chip_with_another_eid() -> None:
    other = Eid("89049032123451234512345678901235")
    assert refused(lambda: check_chip(SAID.chip, SAID.server, other, TRUST, NOW)) == "TRUST.CHAIN"


def test_offers_of_others() -> None:
    for change in ({"session_id": b"\x01"}, {"transaction_id": b"\x01"}):
        assert refused(lambda change=change: replace(SAID, offer=replace(SAID.offer, **change)).smdp) == "RSP.MISMATCH"
    other = replace(SAID.identity, oid="2.999.11")
    assert refused(lambda: check_offer(SAID.offer, SAID.chip, other, None, TRUST, NOW)) == "RSP.MISMATCH"
    wanted = Iccid("8988211900000311922")
    assert refused(lambda: check_offer(SAID.offer, SAID.chip, SAID.identity, wanted, TRUST, NOW)) == "RSP.OTHER_PROFILE"


def test_a_package_for_something_else() -> None:
    assert refused(
        lambda: check_bound(replace(SAID.bound, session_id=b"\x01"), SAID.offer, SAID.prepared, SAID.smdp)
    ) == ("RSP.MISMATCH")
    offered = replace(SAID.offer, metadata=replace(SAID.offer.metadata, name="Other"))
    assert refused(lambda: check_bound(SAID.bound, offered, SAID.prepared, SAID.smdp)) == "RSP.OTHER_PROFILE"
    channel = replace(SAID.bound.bpp.channel, key_length=32)
    other = replace(SAID.bound, bpp=replace(SAID.bound.bpp, channel=channel))
    assert refused(lambda: check_bound(other, SAID.offer, SAID.prepared, SAID.smdp)) == "RSP.MISMATCH"


# ---- what a server may write ---------------------------------------------------------------------------


def document(status: str = "Executed-Success", **members: str) -> bytes:
    more = "".join(f',"{name}":"{value}"' for name, value in members.items())
    return f'{{"header":{{"functionExecutionStatus":{{"status":"{status}"}}}}{more}}}'.encode()


def test_both_spellings_of_the_ci_are_read() -> None:
    parts = {name: str(value) for name, value in INITIATED.items()}
    assert es9.parse_initiated(document(**parts)) == SAID.server
    parts["euiccCiPKIdTobeUsed"] = parts.pop("euiccCiPKIdToBeUsed")
    assert es9.parse_initiated(document(**parts)) == SAID.server


@pytest.mark.parametrize(
    "change",
    [
        {"transactionId": ""},
        {"transactionId": "00" * 17},
        {"transactionId": "xy"},
        {"serverSigned1": "no base64"},
        {"serverSigned1": base64.b64encode(b"\x30\x05").decode()},
        {"serverSigned1": base64.b64encode(b"\x31\x00").decode()},
        {"serverSignature1": base64.b64encode(b"\x5f\x37\x00").decode()},
        {"serverSignature1": ""},
        {"euiccCiPKIdToBeUsed": ""},
        {"serverCertificate": base64.b64encode(b"\x04\x00").decode()},
    ],
)
def test_a_first_word_that_cannot_be_read(change: dict[str, str]) -> None:
    parts = {name: str(value) for name, value in INITIATED.items()}
    assert refused(lambda: es9.parse_initiated(document(**{**parts, **change}))) == "RSP.ANSWER"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"header":{}}', b"<html>", b"[" * 100_000, document(), b"\xff\xfe", b'{"header":1}'],
    ids=range(9),
)
def test_bodies_that_are_no_answer(body: bytes) -> None:
    for parse in (es9.parse_initiated, es9.parse_offer, es9.parse_package):
        assert refused(lambda parse=parse: parse(body)) == "RSP.ANSWER"


@pytest.mark.parametrize(
    ("subject", "reason", "code"),
    [
        ("8.8.2", "3.1", "FIT.CI_KEY"),
        ("8.1", "4.8", "EUICC.NO_MEMORY"),
        ("8.1", "6.1", "RSP.REFUSED"),
        ("8.2.7", "2.2", "RSP.CONFIRMATION"),
        ("8.2.7", "6.4", "RSP.USED_UP"),
        ("8.10.1", "3.9", "RSP.SESSION_LOST"),
        ("9.9", "9.9", "RSP.REFUSED"),
    ],
)
def test_refusals_have_codes_of_ours(subject: str, reason: str, code: str) -> None:
    status = f'"statusCodeData":{{"subjectCode":"{subject}","reasonCode":"{reason}","message":"M\\u0007x"}}'
    body = f'{{"header":{{"functionExecutionStatus":{{"status":"Failed",{status}}}}}}}'.encode()
    with pytest.raises(es9.RefusedError) as error:
        es9.parse_offer(body)
    assert error.value.code == code
    assert f"{subject}/{reason} Mx" in error.value.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1$smdp.example$M-1", ActivationCode("smdp.example", "M-1")),
        ("LPA:1$smdp.example$", ActivationCode("smdp.example", "")),
        ("1$localhost:8443$M-1$2.999.10$1", ActivationCode("localhost:8443", "M-1", "2.999.10", confirmation=True)),
        ("1$smdp.example$M-1$$1", ActivationCode("smdp.example", "M-1", "", confirmation=True)),
    ],
)
def test_activation_codes(text: str, expected: ActivationCode) -> None:
    assert ActivationCode.parse(text) == expected
    assert ActivationCode.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "1$smdp.example", "2$a$b", "1$$M", "1$a/b$M", "1$a@b$M", "1$a:x$M", "1$a$M M", "1$a$M$$2", "1$a$M$$1$x"],
)
def test_activation_codes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"activation code|matching id"):
        ActivationCode.parse(text)
