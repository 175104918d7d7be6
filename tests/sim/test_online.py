"""The online session between virtual chip and simulated SM-DP+, without a station: what each of them refuses.

Both ends of every signature of SGP.22 2.6.7.2: any byte of a signed object changed on the way is refused by whoever
receives it, and so is the signature of somebody else. Then the chip's checks of a package on the online path.
"""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ifpp.sim import binder, pki
from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.chip import Chip
from ifpp.sim.eum import Eum
from ifpp.sim.smdp_plus import FailedError, Order, SmdpPlus, State
from ifpp.sim.tlv import Node, parse, parse_one, read_integer, tlv
from tests.sim.bench import (
    TREE,
    Recipe,
    Terminal,
    answer_of,
    flip,
    installed,
    metadata,
    outcome,
    results,
    segments,
)
from tests.sim.parties import stock
from tests.sim.test_euicc_load import FLIPS, PPK, SHORT_UPP, bf25, crt, places

CHIP = Eum(TREE, seed=11).issue(keys=0)
DEVICE = tlv(0xA1, tlv(0x80, bytes(4)), tlv(0xA1))
CODE_WRONG = ("8.2.7", "3.8")


def b64(text: str) -> bytes:
    return base64.b64decode(text)


@dataclass
class Session:
    """One session up to where a test wants it: what has been said so far, as it went over the wire."""

    card: Euicc
    terminal: Terminal
    smdp: SmdpPlus
    order: Order

    @property
    def chip(self) -> Chip:
        return self.card.chip

    def call(self, function: str, **members: Any) -> dict[str, Any]:
        answer = self.smdp.call(function, members)
        assert answer is not None
        return answer

    def initiate(self) -> dict[str, Any]:
        challenge = self.terminal.ask(bytes.fromhex("bf2e00")).need(0x80).value
        return self.call(
            "initiateAuthentication",
            euiccChallenge=base64.b64encode(challenge).decode(),
            euiccInfo1=base64.b64encode(self.terminal.ask(bytes.fromhex("bf2000")).raw).decode(),
            smdpAddress=self.smdp.address,
        )

    def authenticate_server(self, said: dict[str, Any], **bent: bytes) -> Node:
        names = ("serverSigned1", "serverSignature1", "euiccCiPKIdToBeUsed", "serverCertificate")
        parts = [bent.get(name, b64(said[name])) for name in names]
        context = tlv(0xA0, tlv(0x80, self.order.matching_id.encode()), DEVICE)
        return self.terminal.ask(tlv(0xBF38, *parts, context))

    def authenticate_client(self, said: dict[str, Any], answer: bytes) -> dict[str, Any]:
        text = base64.b64encode(answer).decode()
        return self.call("authenticateClient", transactionId=said["transactionId"], authenticateServerResponse=text)

    def prepare(self, offer: dict[str, Any], code: str = "", **bent: bytes) -> Node:
        names = ("smdpSigned2", "smdpSignature2", "smdpCertificate")
        signed, signature, certificate = (bent.get(name, b64(offer[name])) for name in names)
        transaction_id = bytes.fromhex(offer["transactionId"])
        hash_cc = hashlib.sha256(hashlib.sha256(code.encode()).digest() + transaction_id).digest()
        return self.terminal.ask(tlv(0xBF21, signed, signature, tlv(0x04, hash_cc) if code else b"", certificate))

    def package(self, offer: dict[str, Any], answer: bytes) -> bytes:
        text = base64.b64encode(answer).decode()
        return b64(
            self.call("getBoundProfilePackage", transactionId=offer["transactionId"], prepareDownloadResponse=text)[
                "boundProfilePackage"
            ]
        )

    def offered(self) -> dict[str, Any]:
        said = self.initiate()
        return self.authenticate_client(said, self.authenticate_server(said).raw)

    def prepared(self) -> tuple[dict[str, Any], Node]:
        offer = self.offered()
        return offer, self.prepare(offer)

    def recipe(self, **changes: Any) -> Recipe:
        """A package for the key the chip has just made, its every ingredient open to change."""
        offer, answer = self.prepared()
        otk = answer.need(0xA0).need(0x30).need(0x5F49).value
        target = binder.BindingTarget(CHIP.card.eid, otk)
        made = {"upp": SHORT_UPP, "metadata": metadata(), "transaction_id": bytes.fromhex(offer["transactionId"])}
        return Recipe(target=target, **{**made, **changes})


def session(*, keeps: bool = False, card: Euicc | None = None, **details: Any) -> Session:
    smdp = SmdpPlus.create(TREE)
    chip = card or Euicc(CHIP.card)
    chip.nvm.keeps_session = keeps
    chip.reset()
    return Session(chip, Terminal(chip), smdp, smdp.release("M-1", stock().take(), **details))


def error_of(answer: Node) -> int | None:
    failed = answer.first(0xA1)
    return None if failed is None else read_integer(failed.need(0x02).value)


def leaves(node: bytes, at: int = 0) -> Iterator[int]:
    """The place of the last byte of every primitive value in a TLV."""
    for child in parse(node):
        start = at + len(child.raw) - len(child.value)
        if child.raw[0] & 0x20:
            yield from leaves(child.value, start)
        elif child.value:
            yield start + len(child.value) - 1
        at += len(child.raw)


def test_a_whole_session_and_what_the_server_knows_of_it() -> None:
    run = session()
    offer, answer = run.prepared()
    assert run.order.state == "LINKED"
    pir, sw = run.terminal.load(run.package(offer, answer.raw))
    assert (sw, outcome(pir)) == (0x9000, None)
    assert run.chip.nvm.session is None
    assert run.chip.nvm.session_keys == []
    notify(run, pir)
    assert run.order.state is State.INSTALLED
    assert (run.smdp.notifications[0]["verified"], run.smdp.notifications[0]["installed"]) == (True, True)
    address = parse_one(pir).need(0xBF27).need(0xBF2F).need(0x0C).value
    assert address == run.smdp.address.encode()
    assert run.terminal.ask(bytes.fromhex("bf2800")).need(0xA0).children()[1:] == []


def test_a_download_is_counted_on_both_sides() -> None:
    """The chip from GetEUICCChallenge to its result, the server up to the package; what is told later is not in it."""
    run = session()
    before = len(run.terminal.sent)
    offer, answer = run.prepared()
    pir, _ = run.terminal.load(run.package(offer, answer.raw))
    assert run.card.download_apdus == [len(run.terminal.sent) - before]
    assert run.card.load_apdus[0] < run.card.download_apdus[0]
    notify(run, pir)
    assert run.order.round_trips == 3
    assert len(run.card.download_apdus) == 1


def notify(run: Session, raw: bytes) -> None:
    assert run.smdp.call("handleNotification", {"pendingNotification": base64.b64encode(raw).decode()}) is None


# --- signatures: server to chip -----


def again(run: Session, nvm: Any) -> Session:
    """The same chip in an earlier state."""
    card = Euicc(CHIP.card, copy.deepcopy(nvm))
    card.reset()
    return replace(run, card=card, terminal=Terminal(card))


def test_every_byte_of_server_signed_1_counts() -> None:
    run = session(keeps=True)
    said = run.initiate()
    nvm = copy.deepcopy(run.card.nvm)
    signed = b64(said["serverSigned1"])
    places_ = list(leaves(signed))
    assert len(places_) == 4
    for at in places_:
        assert error_of(again(run, nvm).authenticate_server(said, serverSigned1=flip(signed, at))) == 2
    signature = b64(said["serverSignature1"])
    for at in (3, -1):
        assert error_of(again(run, nvm).authenticate_server(said, serverSignature1=flip(signature, at))) == 2
    assert error_of(again(run, nvm).authenticate_server(said)) is None


def test_every_byte_of_smdp_signed_2_and_of_the_chips_own_signature_counts() -> None:
    run = session(keeps=True)
    run.order.otk_public = pki.point(TREE.dppb.key.public_key())  # so that bppEuiccOtpk is there too
    offer = run.offered()
    nvm = copy.deepcopy(run.card.nvm)
    signed = b64(offer["smdpSigned2"])
    places_ = list(leaves(signed))
    assert len(places_) == 3
    said = [error_of(again(run, nvm).prepare(offer, smdpSigned2=flip(signed, at))) for at in places_]
    assert said == [5, 2, 2], "another transaction, then two signatures that do not hold"
    assert error_of(again(run, nvm).prepare(offer, smdpSignature2=flip(b64(offer["smdpSignature2"]), -1))) == 2
    # smdpSignature2 goes on over euiccSignature1, which is not sent again
    other = copy.deepcopy(nvm)
    assert other.session is not None
    other.session.signature1 = flip(other.session.signature1, -1)
    assert error_of(again(run, other).prepare(offer)) == 2
    assert error_of(again(run, nvm).prepare(offer)) is None


# --- signatures: chip to server -----


def bent_member(answer: Node, member: int, at: int) -> bytes:
    """The answer with one byte of one member of its A0 changed."""
    parts = [part.raw for part in answer.need(0xA0).children()]
    parts[member] = flip(parts[member], at)
    return tlv(answer.tag, tlv(0xA0, *parts))


def test_every_byte_of_euicc_signed_1_counts() -> None:
    proof = session()
    said = proof.initiate()
    answer = proof.authenticate_server(said)
    signed = answer.need(0xA0).children()[0].raw
    places_ = list(leaves(signed))
    assert len(places_) == 20, "EUICCInfo2 is part of it"
    kept = copy.deepcopy(proof.smdp._sessions)
    for member, at in [*((0, at) for at in places_), (1, -1)]:
        proof.smdp._sessions = copy.deepcopy(kept)
        with pytest.raises(FailedError) as refused:
            proof.authenticate_client(said, bent_member(answer, member, at))
        assert refused.value.subject in ("8.1", "8.10"), at
        assert proof.order.state is State.RELEASED
    proof.smdp._sessions = kept
    proof.authenticate_client(said, answer.raw)


def test_every_byte_of_euicc_signed_2_and_of_the_servers_signature_counts() -> None:
    run = session()
    offer, answer = run.prepared()
    signed = answer.need(0xA0).children()[0].raw
    for member, at in [*((0, at) for at in leaves(signed)), (1, -1)]:
        with pytest.raises(FailedError) as refused:
            run.package(offer, bent_member(answer, member, at))
        assert (refused.value.subject, refused.value.reason) == ("8.1", "6.1")
    kept = next(iter(run.smdp._sessions.values()))
    right, kept.smdp_signature2 = kept.smdp_signature2, flip(kept.smdp_signature2, -1)
    with pytest.raises(FailedError):
        run.package(offer, answer.raw)
    kept.smdp_signature2 = right
    assert run.package(offer, answer.raw)


def test_a_cancellation_and_a_notification_are_the_chips_own() -> None:
    run = session()
    offer = run.offered()
    word = run.terminal.ask(tlv(0xBF41, tlv(0x80, bytes.fromhex(offer["transactionId"])), tlv(0x81, b"\x02")))
    signed = word.need(0xA0).children()[0].raw
    for member, at in [*((0, at) for at in leaves(signed)), (1, -1)]:
        bent = base64.b64encode(bent_member(word, member, at)).decode()
        with pytest.raises(FailedError):
            run.call("cancelSession", transactionId=offer["transactionId"], cancelSessionResponse=bent)
    assert run.smdp.cancelled == []
    text = base64.b64encode(word.raw).decode()
    run.call("cancelSession", transactionId=offer["transactionId"], cancelSessionResponse=text)
    assert run.smdp.cancelled == [(offer["transactionId"].lower(), 2)]
    assert (run.order.state, run.order.eid) == (State.RELEASED, CHIP.card.eid)


@pytest.mark.parametrize("kind", ["result", "other"])
def test_a_changed_notification_is_kept_as_unverified(kind: str) -> None:
    run = session()
    offer, answer = run.prepared()
    raw, _ = run.terminal.load(run.package(offer, answer.raw))
    if kind == "other":
        iccid = installed(run.terminal)[0]
        run.terminal.ask(tlv(0xBF31, tlv(0xA0, tlv(0x5A, iccid)), tlv(0x81, b"\x00")))
        raw = run.terminal.ask(bytes.fromhex("bf2b00")).need(0xA0).children()[-1].raw
    signed = next(child for child in parse_one(raw).children() if child.tag in (0xBF27, 0xBF2F))
    start = raw.index(signed.raw)
    for at in leaves(signed.raw):
        with pytest.raises(FailedError):
            run.smdp.call(
                "handleNotification", {"pendingNotification": base64.b64encode(flip(raw, start + at)).decode()}
            )
    assert not any(entry["verified"] for entry in run.smdp.notifications)
    assert run.order.state is State.DOWNLOADED
    notify(run, raw)
    assert run.smdp.notifications[-1]["verified"]


# --- what the chip refuses of a server that signs correctly -----


def test_a_session_needs_a_challenge_and_lives_as_long_as_it_may() -> None:
    run = session()
    said = run.initiate()
    other = run.initiate()
    assert error_of(run.authenticate_server(said)) == 6, "a newer challenge took its place"
    assert error_of(run.authenticate_server(other)) is None
    assert error_of(run.authenticate_server(other)) == 4, "the challenge is used"
    run.card.reset()
    run.terminal.open()
    transaction = tlv(0x80, bytes.fromhex(other["transactionId"]))
    lost = run.terminal.ask(tlv(0xBF41, transaction, tlv(0x81, b"\x02")))
    assert answer_of(lost) == {"81": b"\x05"}, "gone with the power"


def test_a_chip_that_keeps_its_session_cancels_it_after_a_power_cut() -> None:
    run = session(keeps=True)
    offer = run.offered()
    run.card.reset()
    run.terminal.open()
    transaction = tlv(0x80, bytes.fromhex(offer["transactionId"]))
    assert run.terminal.ask(tlv(0xBF41, transaction, tlv(0x81, b"\x02"))).first(0xA0) is not None
    assert answer_of(run.terminal.ask(tlv(0xBF41, transaction, tlv(0x81, b"\x02")))) == {"81": b"\x05"}


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: pki.Pki.create().dppb, 1),  # another CI, and the wrong role
        (lambda: pki.below(TREE.ci, pki.DPPB, pki.name_of("X", "DPpb")), 1),
        (lambda: pki.below(TREE.ci, replace(pki.DPAUTH, rid=None), pki.name_of("X", "DPauth")), 1),
        (lambda: pki.below(TREE.eum, pki.DPAUTH, pki.name_of("X", "DPauth")), 1),
    ],
    ids=["another CI", "role of CERT.DPpb", "no OID", "issued by the EUM"],
)
def test_certificates_of_a_server_the_chip_refuses(make: Callable[[], pki.Holder], code: int) -> None:
    run = session()
    run.smdp.dpauth = make()
    assert error_of(run.authenticate_server(run.initiate())) == code


def test_a_ci_the_chip_does_not_know() -> None:
    run = session()
    said = run.initiate()
    assert error_of(run.authenticate_server(said, euiccCiPKIdToBeUsed=tlv(0x04, bytes(20)))) == 7


def test_both_certificates_are_of_one_server() -> None:
    run = session()
    run.smdp.dppb = pki.below(TREE.ci, replace(pki.DPPB, rid="2.999.11"), pki.name_of("Y", "DPpb"))
    offer = run.offered()
    assert error_of(run.prepare(offer)) == 1


def test_a_confirmation_code_that_is_required_must_come() -> None:
    run = session(code="1234")
    offer = run.offered()
    assert error_of(run.prepare(offer)) == 127
    refused = []
    for code in ("4321", "0000", "1111"):
        said = run.offered()
        prepared = run.prepare(said, code).raw
        with pytest.raises(FailedError) as error:
            run.package(said, prepared)
        refused.append((error.value.subject, error.value.reason))
    assert refused == [CODE_WRONG, CODE_WRONG, ("8.2.7", "6.4")]
    assert run.order.state is State.ERROR


def test_the_same_key_and_package_after_a_lost_one() -> None:
    """bppEuiccOtpk: a package bound once costs no second binding, whatever happened to the first."""
    run = session()
    offer, answer = run.prepared()
    first = run.package(offer, answer.raw)
    run.card.reset()
    run.terminal.open()
    offer, answer = run.prepared()
    second = run.package(offer, answer.raw)
    assert run.order.bindings == 1
    assert first != second, "another transaction"
    assert [each.raw for each in parse_one(first).children()[1:]] == [
        each.raw for each in parse_one(second).children()[1:]
    ]
    assert run.terminal.load(first)[1] == 0x9000, "of the earlier session"
    assert outcome(results(run.terminal)[-1]) == (0, 3)


# --- a package on the online path (the checks of load) -----


def result_of(run: Session, recipe: Recipe, *, at: int | None = None, mask: int = 1) -> tuple[int, int] | None:
    """Send a package, one bit of it flipped on the wire; checks what must hold of every failure."""
    offset, pir = 0, b""
    for segment in segments(recipe.bpp()):
        here = at is not None and offset <= at < offset + len(segment)
        pir, sw = run.terminal.send(flip(segment, at - offset, mask) if here and at is not None else segment)
        assert sw == 0x9000, f"{sw:04X}"
        offset += len(segment)
        if pir:
            break
    said = outcome(pir)
    assert pir in results(run.terminal)
    assert run.chip.nvm.session is None
    assert len(run.chip.nvm.session_keys) == (said is not None and said[1] in (10, 11))
    assert run.terminal.send(segments(recipe.bpp())[-1]) == (b"", 0x6985), "the load is over"
    if said is not None:
        assert installed(run.terminal) == []
    return said


@pytest.mark.parametrize("field", sorted(FLIPS))
def test_a_flipped_bit_in_every_field(field: str) -> None:
    run = session()
    recipe = run.recipe(ppk=PPK)
    where = places(recipe.bpp())[field]
    assert result_of(run, recipe, at=where[len(where) // 2], mask=0x40) in FLIPS[field]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"channel_members": {0x82: tlv(0x82, b"\x02")}}, (0, 5)),
        ({"channel_members": {0x80: tlv(0x80, b"\xa0" * 16)}}, (0, 3)),
        ({"channel_members": {0xA6: crt(key_type="800189")}}, (0, 4)),
        ({"channel_members": {0xA6: b""}}, (0, 1)),
        ({"signer": pki.Pki.create().dppb}, (0, 2)),
        ({"kdf_eid": bytes(16)}, (1, 8)),
        ({"configure": tlv(0xBF24, tlv(0xB9, b""))}, (1, 1)),
        ({"metadata": bf25(t91=b"")}, (2, 1)),
        ({"metadata": bf25(t95=tlv(0x95, b"\x03"))}, (2, 6)),
        ({"ppk": PPK, "replace_keys": b"\xbf"}, (4, 1)),
        ({"block_size": 1008, "upp": SHORT_UPP + bytes(1008)}, (5, 7)),
        ({"upp": SHORT_UPP[:-1]}, (5, 12)),
        ({"upp": SHORT_UPP.replace(bytes.fromhex("8988"), bytes.fromhex("8989"), 1)}, (5, 13)),
    ],
)
def test_wrong_inside(changes: dict[str, Any], expected: tuple[int, int] | None) -> None:
    run = session()
    assert result_of(run, run.recipe(**changes)) == expected


def test_an_iccid_twice_memory_and_the_authorisation_table() -> None:
    run = session()
    assert result_of(run, run.recipe()) is None
    run.smdp.orders["M-1"].state = State.RELEASED
    recipe = run.recipe()
    assert outcome(run.terminal.load(recipe.bpp())[0]) == (2, 9)
    small = session(card=Euicc(replace(CHIP.card, free_nvm=50)))
    assert result_of(small, small.recipe()) == (5, 10)
    strict = session()
    strict.card.nvm.rat = b""
    ppr = bf25(ppr=tlv(0x99, b"\x05\x20"))
    assert result_of(strict, strict.recipe(metadata=ppr)) == (2, 15)


def test_power_lost_in_the_middle_leaves_a_result_and_the_key() -> None:
    run = session()
    recipe = run.recipe()
    for segment in segments(recipe.bpp())[:3]:
        run.terminal.send(segment)
    run.card.reset()
    run.terminal.open()
    assert outcome(results(run.terminal)[0]) == (2, 11)
    assert [key.public for key in run.chip.nvm.session_keys] == [recipe.target.otk_public]
    assert run.terminal.send(segments(recipe.bpp())[0]) == (b"", 0x6985), "no session, no load"


def test_the_state_survives_in_the_card_file_form() -> None:
    run = session(keeps=True)
    run.prepared()
    nvm = type(run.card.nvm).from_document(run.card.nvm.to_document())
    assert nvm == run.card.nvm
    assert nvm.session is not None
