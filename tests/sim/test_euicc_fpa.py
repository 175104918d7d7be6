"""Factory services: PrepareDownload and the life of a one-time key (T12), gating (T14), lock (T15), FPX/1 10.3-10.9."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import evidence, pki
from ifpp.sim.card_file import OneTimeKey
from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.gating import GATES
from ifpp.sim.pki import DPPB, Holder
from ifpp.sim.profiles import iccid_swapped
from ifpp.sim.tlv import Node, integer, oid, parse_one, read_integer, tlv
from tests.sim.bench import (
    ICCID,
    TRANSACTION,
    TREE,
    Bench,
    Recipe,
    Terminal,
    answer_of,
    flip,
    installed,
    kat_card,
    key_states,
    new_bench,
    outcome,
    results,
    segments,
    sequence,
    status,
)

DELETE_ALL = bytes.fromhex("f904a2028000")
LOCK = bytes.fromhex("f905a303800100")
LOCK_AND_DELETE = bytes.fromhex("f905a303800101")
LIST = bytes.fromhex("f902a100")
CHALLENGE = bytes.fromhex("bf2e00")
OTHER_TRANSACTION = b"\x0b" * 16


@pytest.fixture
def bench() -> Bench:
    return new_bench()


def code_of(answer: Node) -> int | None:
    """DownloadErrorCode, None for ok."""
    refused = answer.first(0xA1)
    return None if refused is None else read_integer(refused.need(0x02).value)


def result_code(answer: Node) -> int:
    """Result of a dialect answer."""
    return read_integer(answer.children()[0].need(0x80).value)


def cancel(bench: Bench, transaction_id: bytes = TRANSACTION) -> Node:
    return bench.terminal.ask(tlv(0xBF41, tlv(0x80, transaction_id), tlv(0x81, b"\x05")))


# --- PrepareDownload -----


def test_prepare_reserves_the_key_for_the_transaction(bench: Bench) -> None:
    recipe = bench.recipe()
    assert status(bench.terminal) == (1, 3)
    answer = bench.terminal.ask(recipe.prepare()).need(0xA0)
    signed, signature = answer.children()
    assert signed.need(0x80).value == TRANSACTION
    assert signed.need(0x5F49).value == recipe.target.otk_public
    request = parse_one(recipe.prepare())
    key = evidence.euicc_key(bench.chip.card.euicc_certificate, (TREE.eum.der,), TREE.ci.der, bench.chip.card.eid)
    evidence.verify_raw(key, signed.raw + request.need(0x5F37).raw, signature.value)
    assert status(bench.terminal) == (2, 3)
    assert key_states(bench.terminal) == [1, 0, 0]
    open_one = bench.terminal.ask(bytes.fromhex("f902a000")).need(0xA0)
    assert open_one.need(0x84).value == TRANSACTION


def test_prepare_may_be_repeated_by_the_same_transaction_only(bench: Bench) -> None:
    first = bench.recipe()
    assert code_of(bench.terminal.ask(first.prepare())) is None
    assert code_of(bench.terminal.ask(first.prepare())) is None
    other = bench.recipe(transaction_id=OTHER_TRANSACTION)
    assert code_of(bench.terminal.ask(other.prepare())) == 5
    assert outcome(bench.terminal.load(first.bpp())[0]) is None


def issued(profile: pki.CertificateProfile, issuer: Holder = TREE.ci, curve: ec.EllipticCurve | None = None) -> Holder:
    return pki.below(issuer, profile, pki.name_of("SM-DPf", "DPpb"), curve=curve)


def sub_ca(**changes: int | None) -> Holder:
    made = replace(pki.CI, rid=None, path_length=changes.get("path_length", 0))
    return pki.below(TREE.ci, made, pki.name_of("Sub", "CA"))


@pytest.mark.parametrize(
    ("signer", "code"),
    [
        (lambda: issued(DPPB), None),
        (lambda: pki.Pki.create().dppb, 1),
        (lambda: issued(replace(DPPB, policy=pki.POLICY_EUICC)), 1),
        (lambda: issued(replace(DPPB, usage=frozenset({"key_cert_sign"}))), 1),
        (lambda: issued(replace(DPPB, rid=None)), 1),
        (lambda: TREE.eum, 1),
        (lambda: issued(DPPB, curve=ec.BrainpoolP256R1()), 3),
        (lambda: issued(DPPB, curve=ec.SECP384R1()), 3),
    ],
    ids=["good", "foreign CI", "policy", "key usage", "no OID", "EUM", "curve of no key", "unknown curve"],
)
def test_certificate_of_the_sm_dpf(bench: Bench, signer: Callable[[], Holder], code: int | None) -> None:
    """Error 1 is the certificate's, 3 the curve's; a refused request reserves nothing."""
    holder = signer()
    recipe = bench.recipe(signer=holder)
    request = recipe.prepare() if holder.key.key_size == 256 else with_signature(recipe, bytes(64))
    assert code_of(bench.terminal.ask(request)) == code
    assert key_states(bench.terminal)[0] == (1 if code is None else 0)


def with_signature(recipe: Recipe, signature: bytes) -> bytes:
    plain = replace(recipe, signer=TREE.dppb).prepare()
    parts = parse_one(plain).children()
    return tlv(0xBF21, parts[0].raw, tlv(0x5F37, signature), recipe.signer.der)


def test_an_old_certificate_is_good_enough_for_a_chip_without_a_clock(bench: Bench) -> None:
    start = TREE.ci.certificate.not_valid_before_utc.replace(year=2001)
    past = pki.below(TREE.ci, replace(DPPB, years=1), pki.name_of("SM-DPf", "old"), not_before=start)
    assert code_of(bench.terminal.ask(bench.recipe(signer=past).prepare())) is None


def test_chain_through_a_sub_ca(bench: Bench) -> None:
    """otherCertsInChain (A1): issuers from CERT.DPpb up to, excluding, the CI."""
    middle = sub_ca()
    holder = issued(DPPB, issuer=middle)
    recipe = bench.recipe(signer=holder)
    alone = recipe.prepare()
    assert code_of(bench.terminal.ask(alone)) == 1
    whole = tlv(0xBF21, parse_one(alone).value, tlv(0xA1, middle.der))
    assert code_of(bench.terminal.ask(whole)) is None


def test_chain_that_is_too_long_for_its_ca(bench: Bench) -> None:
    upper = sub_ca(path_length=0)
    lower = pki.below(upper, replace(pki.CI, rid=None), pki.name_of("Lower", "CA"))
    holder = issued(DPPB, issuer=lower)
    whole = tlv(0xBF21, parse_one(bench.recipe(signer=holder).prepare()).value, tlv(0xA1, lower.der, upper.der))
    assert code_of(bench.terminal.ask(whole)) == 1


@pytest.mark.parametrize(
    "profile", [DPPB, replace(pki.CI, rid=None, usage=frozenset({"digital_signature", "crl_sign"}))]
)
def test_a_certified_key_that_may_not_certify(bench: Bench, profile: pki.CertificateProfile) -> None:
    """Neither an SM-DPf nor a CA without keyCertSign makes other SM-DPfs."""
    middle = issued(profile)
    holder = issued(DPPB, issuer=middle)
    whole = tlv(0xBF21, parse_one(bench.recipe(signer=holder).prepare()).value, tlv(0xA1, middle.der))
    assert code_of(bench.terminal.ask(whole)) == 1


def test_signature_of_the_request(bench: Bench) -> None:
    """smdpSignature2 covers smdpSigned2 and the EID: neither may be another's."""
    recipe = bench.recipe()
    sound = recipe.prepare()
    at = sound.index(tlv(0x5F37, b"")[:2]) + 20
    assert code_of(bench.terminal.ask(flip(sound, at))) == 2
    elsewhere = replace(recipe, target=replace(recipe.target, eid=flip_digit(recipe.target.eid)))
    assert code_of(bench.terminal.ask(elsewhere.prepare())) == 2
    assert key_states(bench.terminal) == [0, 0, 0]


def flip_digit(eid: str) -> str:
    return eid[:-1] + str((int(eid[-1]) + 1) % 10)


def test_a_key_the_chip_does_not_have(bench: Bench) -> None:
    foreign = bench.recipe(target=new_bench().target())
    assert code_of(bench.terminal.ask(foreign.prepare())) == 4


@pytest.mark.parametrize("change", ["confirmation code", "hash", "no key", "no certificate", "junk"])
def test_requests_that_are_not_of_the_factory_form(bench: Bench, change: str) -> None:
    signed = {
        "confirmation code": tlv(0x30, tlv(0x80, TRANSACTION), tlv(0x01, b"\xff"), tlv(0x5F49, bytes(65))),
        "no key": tlv(0x30, tlv(0x80, TRANSACTION), tlv(0x01, b"\x00")),
        "junk": tlv(0x31),
    }.get(change, tlv(0x30, tlv(0x80, TRANSACTION), tlv(0x01, b"\x00"), tlv(0x5F49, bench.target().otk_public)))
    middle = tlv(0x04, bytes(32)) if change == "hash" else b""
    certificate = b"" if change == "no certificate" else TREE.dppb.der
    data, sw = bench.terminal.send(tlv(0xBF21, signed, tlv(0x5F37, bytes(64)), middle, certificate))
    if change in ("no certificate", "junk"):
        assert (data, sw) == (b"", 0x6A80)
    else:
        assert code_of(parse_one(data)) == (4 if change == "no key" else 127)


def test_a_key_on_brainpool() -> None:
    """Curve of CERT.DPpb = curve of the one-time key; the whole load runs on that curve."""
    curve = ec.BrainpoolP256R1()
    private = ec.generate_private_key(curve)
    public = pki.point(private.public_key())
    key = OneTimeKey(0, b"\x01" * 20, 1, public, pki.scalar(private))
    eid = new_bench().chip.card.eid
    roots = (TREE.ci.der,)
    card = Euicc(kat_card([key], eid=eid, euicc_private=new_bench().chip.card.euicc_private, roots=roots))
    card.reset()
    terminal = Terminal(card)
    sender = issued(DPPB, curve=curve)
    target = replace(new_bench().target(), eid=eid, otk_public=public)
    recipe = new_bench().recipe(target=target, signer=sender, dp_key=ec.generate_private_key(curve))
    assert code_of(terminal.ask(replace(recipe, signer=TREE.dppb).prepare())) == 3
    assert code_of(terminal.ask(recipe.prepare())) is None
    assert outcome(terminal.load(recipe.bpp())[0]) is None


# --- the life of a key -----


def test_one_key_one_profile(bench: Bench) -> None:
    """T12: after the load the key is consumed; neither it nor a second package for it goes."""
    recipe = bench.recipe()
    bench.provision(recipe)
    assert key_states(bench.terminal) == [2, 0, 0]
    assert code_of(bench.terminal.ask(recipe.prepare())) == 4
    again = bench.recipe(iccid="8988211900000311930", transaction_id=OTHER_TRANSACTION)
    assert code_of(bench.terminal.ask(again.prepare())) == 4
    assert bench.terminal.load(again.bpp()) == (b"", 0x6985)
    assert installed(bench.terminal) == [iccid_swapped(ICCID)]


def test_nothing_loads_unprepared(bench: Bench) -> None:
    assert bench.terminal.load(bench.recipe().bpp()) == (b"", 0x6985)
    assert results(bench.terminal) == []


def test_a_permanent_error_spends_the_key(bench: Bench) -> None:
    recipe = bench.recipe(kdf_eid=bytes(16))
    assert outcome(bench.provision(recipe)[0]) == (1, 8)
    assert key_states(bench.terminal) == [2, 0, 0]
    assert code_of(bench.terminal.ask(recipe.prepare())) == 4


def test_cancel_before_the_package_gives_the_key_back(bench: Bench) -> None:
    bench.terminal.ask(bench.recipe().prepare())
    signed, signature = cancel(bench).need(0xA0).children()
    assert answer_of(signed) == {"80": TRANSACTION, "81": oid("2.999.10"), "82": b"\x05"}
    assert len(signature.value) == 64
    assert key_states(bench.terminal) == [0, 0, 0]
    assert status(bench.terminal) == (1, 3)
    other = bench.recipe(transaction_id=OTHER_TRANSACTION)
    assert outcome(bench.provision(other)[0]) is None


def test_cancel_after_the_package_began_spends_the_key(bench: Bench) -> None:
    recipe = bench.recipe()
    bench.terminal.ask(recipe.prepare())
    for segment in segments(recipe.bpp())[:3]:
        bench.terminal.send(segment)
    assert status(bench.terminal) == (3, 3)
    assert cancel(bench).first(0xA0) is not None
    assert key_states(bench.terminal) == [2, 0, 0]
    assert [outcome(pir) for pir in results(bench.terminal)] == [(2, 11)]
    assert bench.terminal.send(segments(recipe.bpp())[3]) == (b"", 0x6985)


def test_cancel_of_what_nobody_began(bench: Bench) -> None:
    assert read_integer(cancel(bench).need(0x81).value) == 5


def strict(card: Euicc) -> None:
    card.nvm.strict = True


def test_strict_chips_spend_the_key_with_the_first_command() -> None:
    """10.7, option strict: consumed as soon as BF23 is accepted; an interrupted order is lost."""
    bench = new_bench(options=strict)
    recipe = bench.recipe()
    bench.terminal.ask(recipe.prepare())
    bench.terminal.send(segments(recipe.bpp())[0])
    assert key_states(bench.terminal) == [2, 0, 0]
    assert status(bench.terminal) == (3, 2)
    bench.replug()
    assert [outcome(pir) for pir in results(bench.terminal)] == [(0, 11)]
    assert code_of(bench.terminal.ask(recipe.prepare())) == 4
    assert bench.terminal.load(recipe.bpp()) == (b"", 0x6985)


def test_strict_chips_load_like_the_others() -> None:
    bench = new_bench(options=strict)
    assert outcome(bench.provision(bench.recipe())[0]) is None
    assert key_states(bench.terminal) == [2, 0, 0]


# --- list, delete, lock -----


def test_list_is_signed_over_the_challenge(bench: Bench) -> None:
    challenge = bytes(range(16))
    signed, signature = bench.terminal.ask(tlv(0xF9, tlv(0xA1, tlv(0x82, challenge)))).need(0xA1).children()
    assert signed.need(0x80).value == challenge
    card = bench.chip.card
    key = evidence.euicc_key(card.euicc_certificate, (TREE.eum.der,), TREE.ci.der, card.eid)
    evidence.verify_raw(key, signed.raw, signature.value)
    entries = signed.need(0xA2).children()
    assert [entry.need(0x81).value for entry in entries] == [key.otk_id for key in card.one_time_keys]
    assert all(len(entry.raw) == 101 for entry in entries)


def test_list_of_an_untouched_chip_is_what_the_eum_exported(bench: Bench) -> None:
    exported = evidence.one_time_keys(
        bench.chip.record.otk_list,
        evidence.euicc_key(bench.chip.card.euicc_certificate, (TREE.eum.der,), TREE.ci.der, bench.chip.card.eid),
        bench.chip.card.eid,
    )
    listed = bench.terminal.ask(tlv(0xF9, tlv(0xA1, tlv(0x82, bytes(16))))).need(0xA1).need(0x30)
    assert listed.raw == bench.chip.record.otk_list[: len(listed.raw)]
    assert {entry.need(0x81).value: entry.need(0x5F49).value for entry in listed.need(0xA2).children()} == exported


def test_list_in_pages(bench: Bench) -> None:
    def slots(*parts: bytes) -> list[int]:
        listed = bench.terminal.ask(tlv(0xF9, tlv(0xA1, *parts))).need(0xA1).need(0x30)
        assert read_integer(listed.need(0x81).value) == 3, "the total does not depend on the page"
        return [read_integer(entry.need(0x80).value) for entry in listed.need(0xA2).children()]

    assert slots(tlv(0x80, b"\x01")) == [1, 2]
    assert slots(tlv(0x81, b"\x02")) == [0, 1]
    assert slots(tlv(0x80, b"\x02"), tlv(0x81, b"\x05")) == [2]
    assert slots(tlv(0x80, b"\x09")) == []


def test_spent_keys_are_listed_without_their_point(bench: Bench) -> None:
    bench.provision(bench.recipe())
    bench.terminal.ask(tlv(0xF9, tlv(0xA2, tlv(0xA1, tlv(0x04, bench.chip.card.one_time_keys[1].otk_id)))))
    entries = bench.terminal.ask(LIST).need(0xA1).need(0x30).need(0xA2).children()
    assert [entry.first(0x5F49) is not None for entry in entries] == [False, False, True]
    assert key_states(bench.terminal) == [2, 3, 0]


def delete(bench: Bench, *otk_ids: bytes) -> tuple[int, int, int]:
    request = tlv(0xF9, tlv(0xA2, tlv(0xA1, *(tlv(0x04, otk_id) for otk_id in otk_ids)))) if otk_ids else DELETE_ALL
    answer = bench.terminal.ask(request).need(0xA2)
    result, deleted, remaining = (read_integer(answer.need(tag).value) for tag in (0x80, 0x81, 0x82))
    return result, deleted, remaining


def test_delete_keys(bench: Bench) -> None:
    ids = [key.otk_id for key in bench.chip.card.one_time_keys]
    assert delete(bench, ids[1]) == (0, 1, 2)
    assert delete(bench, ids[1]) == (1, 0, 2)
    assert delete(bench, ids[0], b"\x00" * 20) == (2, 0, 2), "all or nothing"
    assert delete(bench) == (0, 2, 0)
    assert delete(bench) == (1, 0, 0)
    assert key_states(bench.terminal) == [3, 3, 3]
    assert code_of(bench.terminal.ask(bench.recipe().prepare())) == 4


def test_delete_and_lock_wait_for_a_reserved_key(bench: Bench) -> None:
    bench.terminal.ask(bench.recipe().prepare())
    assert delete(bench) == (3, 0, 3)
    assert delete(bench, bench.chip.card.one_time_keys[2].otk_id) == (0, 1, 2), "another one may go"
    assert result_code(bench.terminal.ask(LOCK_AND_DELETE)) == 3
    cancel(bench)
    assert delete(bench) == (0, 2, 0)


def test_delete_answer_is_signed_on_challenge(bench: Bench) -> None:
    answer, signature = bench.terminal.ask(tlv(0xF9, tlv(0xA2, tlv(0x80), tlv(0x82, bytes(16))))).children()
    card = bench.chip.card
    key = evidence.euicc_key(card.euicc_certificate, (TREE.eum.der,), TREE.ci.der, card.eid)
    evidence.verify_raw(key, answer.raw, signature.value)


@pytest.mark.parametrize("request_hex", ["f902a200", "f905a203800101", "f906a2048000a100", "f902a300", "f903a10182"])
def test_malformed_dialect_requests(bench: Bench, request_hex: str) -> None:
    assert bench.terminal.send(bytes.fromhex(request_hex)) == (b"", 0x6A80)
    assert status(bench.terminal) == (1, 3)


@pytest.mark.parametrize(("request_hex", "sw"), [("f902a400", 0x6A81), ("f900", 0x6A80), ("f904a000a100", 0x6A80)])
def test_unknown_dialect_operations(bench: Bench, request_hex: str, sw: int) -> None:
    assert bench.terminal.send(bytes.fromhex(request_hex)) == (b"", sw)


def test_a_chip_of_today_does_not_know_the_dialect_and_answers_its_lpa_at_once() -> None:
    """Never had a one-time key, never had factory services: F9 is to it what any other unknown request is."""
    bench = new_bench(keys=0)
    unknown = bench.terminal.send(bytes.fromhex("f702a000"))
    assert unknown[1] != 0x9000
    for command in (bytes.fromhex("f902a000"), LIST, DELETE_ALL, LOCK, LOCK_AND_DELETE):
        assert bench.terminal.send(command) == unknown
    assert len(bench.terminal.ask(bytes.fromhex("bf2e00")).need(0x80).value) == 16
    assert bench.terminal.ask(bytes.fromhex("bf2d00")).need(0xA0).children() == []
    assert not bench.card.nvm.locked


def test_lock_needs_the_keys_gone(bench: Bench) -> None:
    assert result_code(bench.terminal.ask(LOCK)) == 2
    assert status(bench.terminal) == (1, 3)
    assert result_code(bench.terminal.ask(LOCK_AND_DELETE)) == 0
    assert status(bench.terminal) == (0, 0)
    assert [slot.state for slot in bench.card.nvm.keys] == [3, 3, 3]


def test_lock_is_for_ever(bench: Bench) -> None:
    """T15: a second lock changes nothing, and neither a memory reset nor a power cycle opens the chip."""
    delete(bench)
    assert result_code(bench.terminal.ask(LOCK)) == 0
    assert bench.terminal.send(LOCK) == (b"", 0x6985)
    assert status(bench.terminal) == (0, 0)
    bench.terminal.ask(bytes.fromhex("bf3404820205e0"))
    assert status(bench.terminal) == (0, 0)
    bench.replug()
    assert status(bench.terminal) == (0, 0)
    assert code_of(bench.terminal.ask(bench.recipe().prepare())) == 4
    assert bench.terminal.send(bytes.fromhex("bf2103310000")) == (b"", 0x6985)


def test_lock_survives_a_reset_that_deletes_something() -> None:
    bench = new_bench(keys=1)
    bench.provision(bench.recipe())
    assert result_code(bench.terminal.ask(LOCK)) == 0
    assert read_integer(bench.terminal.ask(bytes.fromhex("bf3404820205e0")).need(0x80).value) == 0
    assert installed(bench.terminal) == []
    assert status(bench.terminal) == (0, 0)
    assert sequence(results(bench.terminal)[0]) == 1
    listed = bench.terminal.ask(bytes.fromhex("bf2800")).need(0xA0).children()
    assert [read_integer(entry.need(0x80).value) for entry in listed] == [1, 2], "numbers go on rising"


# --- gating -----

# a well-formed request of every gated function, and its answers at the three stages: 0 = data, or a status word
REQUESTS: dict[int, tuple[str, int, int, int]] = {
    0xBF3E: ("bf3e035c015a", 0, 0, 0),
    0xBF20: ("bf2000", 0, 0, 0),
    0xBF22: ("bf2200", 0, 0, 0),
    0xBF3C: ("bf3c00", 0, 0, 0),
    0xBF43: ("bf4300", 0, 0, 0),
    0xF9A0: ("f902a000", 0, 0, 0),
    0xF9A1: ("f902a100", 0, 0, 0x6985),
    0xF9A2: ("f906a204a1020400", 0, 0, 0x6985),
    0xF9A3: ("f905a303800100", 0, 0, 0x6985),
    0xBF36: ("bf3600", 0x6985, 0x6985, 0x6985),
    0xBF41: ("bf4106800101810100", 0, 0, 0),
    0xBF28: ("bf2800", 0, 0, 0),
    0xBF2B: ("bf2b00", 0, 0, 0),
    0xBF30: ("bf3003800109", 0, 0, 0),
    0xBF2D: ("bf2d00", 0, 0, 0),
    0xBF2E: ("bf2e00", 0x6985, 0, 0),
    0xBF38: ("bf3800", 0x6985, 0x6A80, 0x6A80),  # open, and not well-formed: it has tests of its own
    0xBF31: ("bf3109a0045a02fffe810100", 0x6985, 0, 0),
    0xBF32: ("bf3209a0045a02fffe810100", 0x6985, 0, 0),
    0xBF33: ("bf33045a02fffe", 0x6985, 0, 0),
    0xBF34: ("bf3404820205e0", 0x6985, 0, 0),
    0xBF29: ("bf29075a02fffe900141", 0x6985, 0, 0),
    0xBF3F: ("bf3f03800161", 0x6985, 0, 0),
    0xBF35: ("bf3500", 0x6985, 0x6A88, 0x6A88),
    0xBF51: ("bf5100", 0x6985, 0x6A88, 0x6A88),
    0xBF52: ("bf5200", 0x6985, 0x6A88, 0x6A88),
}


@pytest.mark.parametrize("stage", [0, 1, 2], ids=["keys left", "no keys", "locked"])
@pytest.mark.parametrize("operation", REQUESTS, ids=lambda operation: f"{operation:X}")
def test_gating_matrix(operation: int, stage: int) -> None:
    """T14 and the whole of 10.9."""
    bench = new_bench(keys=1)
    if stage:
        delete(bench)
    if stage == 2:
        bench.terminal.ask(LOCK)
    request, *expected = REQUESTS[operation]
    data, sw = bench.terminal.send(bytes.fromhex(request))
    assert (sw if sw != 0x9000 else 0) == expected[stage]
    assert bool(data) == (expected[stage] == 0)


def test_gating_matrix_is_tested_whole() -> None:
    own = {0xBF21, 0xBF65, *range(0xBF53, 0xBF60)}
    assert set(GATES) - set(REQUESTS) == own, "these have tests of their own"


def test_prepare_at_all_stages(bench: Bench) -> None:
    recipe = bench.recipe()
    delete(bench)
    assert code_of(bench.terminal.ask(recipe.prepare())) == 4
    bench.terminal.ask(LOCK)
    assert code_of(bench.terminal.ask(recipe.prepare())) == 4


def test_the_last_key_loads_although_it_is_reserved() -> None:
    """open, OTK=0: BF36 after prepare is ok, and only then do the LPA functions open."""
    bench = new_bench(keys=1)
    recipe = bench.recipe()
    bench.terminal.ask(recipe.prepare())
    assert bench.terminal.send(CHALLENGE) == (b"", 0x6985)
    assert outcome(bench.terminal.load(recipe.bpp())[0]) is None
    assert len(bench.terminal.ask(CHALLENGE).need(0x80).value) == 16


def test_a_chip_for_rework_deletes_a_profile_before_its_keys_are_gone() -> None:
    """SGP.41 A.4: it says so in its flags, notes the deletion, and opens nothing else."""

    def options(card: Euicc) -> None:
        card.nvm.rework = True

    bench = new_bench(options=options)
    bench.provision(bench.recipe())
    flags = bench.terminal.ask(bytes.fromhex("f902a000")).need(0xA0).need(0x83).value
    assert flags == integer(11)
    named = tlv(0x5A, iccid_swapped(ICCID))
    assert bench.terminal.send(tlv(0xBF31, tlv(0xA0, named), tlv(0x81, b"\x00"))) == (b"", 0x6985)
    answer = bench.terminal.ask(tlv(0xBF32, tlv(0xA0, named), tlv(0x81, b"\x00")))
    assert read_integer(answer.need(0x80).value) == 2  # it is not enabled
    assert read_integer(bench.terminal.ask(tlv(0xBF33, named)).need(0x80).value) == 0
    assert bench.terminal.ask(bytes.fromhex("bf28 04 81 02 04 10")).need(0xA0).children() != []
    assert bench.terminal.send(CHALLENGE) == (b"", 0x6985)


def test_connectivity_test_flag_lets_profiles_be_enabled() -> None:
    def options(card: Euicc) -> None:
        card.nvm.connectivity_test = True

    bench = new_bench(options=options)
    bench.provision(bench.recipe())
    flags = bench.terminal.ask(bytes.fromhex("f902a000")).need(0xA0).need(0x83).value
    assert flags == integer(7)
    target = tlv(0xA0, tlv(0x5A, iccid_swapped(ICCID)))
    for function in (0xBF31, 0xBF32):
        answer = bench.terminal.ask(tlv(function, target, tlv(0x81, b"\x00")))
        assert read_integer(answer.need(0x80).value) == 0
    assert bench.terminal.send(tlv(0xBF33, tlv(0x5A, iccid_swapped(ICCID)))) == (b"", 0x6985)


def test_status_is_answered_in_the_middle_of_a_load(bench: Bench) -> None:
    """Reads do not disturb a load, on its own channel or on another one; a second load does not start beside it."""
    recipe = bench.recipe()
    bench.terminal.ask(recipe.prepare())
    parts = segments(recipe.bpp())
    for segment in parts[:5]:
        bench.terminal.send(segment)
    assert status(bench.terminal) == (3, 3)
    other = Terminal(bench.card)
    assert status(other) == (3, 3)
    assert other.send(parts[0]) == (b"", 0x6985)
    assert other.send(recipe.prepare()) == (b"", 0x6985)
    assert other.send(parts[5]) == (b"", 0x6985), "a segment belongs on the channel of its load"
    assert result_code(bench.terminal.ask(LOCK_AND_DELETE)) == 3
    answers = [bench.terminal.send(segment) for segment in parts[5:]]
    assert outcome(answers[-1][0]) is None
