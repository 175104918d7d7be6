"""ES10 reads, the notification list, and the functions that change profiles once production is over."""

from __future__ import annotations

import pytest

from ifpp.sim import evidence
from ifpp.sim.profiles import iccid_swapped
from ifpp.sim.tlv import bits, integer, parse_one, read_integer, tlv
from tests.sim.bench import ICCID, TREE, Bench, answer_of, installed, metadata, new_bench, outcome, results

ICCID_2 = "8988211900000311930"
ALL_PROFILES = bytes.fromhex("bf2d00")
PPR1, PPR2 = tlv(0x99, bits({1})), tlv(0x99, bits({2}))


@pytest.fixture
def bench() -> Bench:
    """A chip with two profiles and no keys left."""
    return loaded()


def loaded(*extras: bytes) -> Bench:
    """A chip whose two keys are used up; `extras` go into the metadata of the profiles."""
    made = new_bench(keys=2)
    for slot, iccid in enumerate((ICCID, ICCID_2)):
        extra = extras[slot] if slot < len(extras) else b""
        recipe = made.recipe(
            slot=slot, iccid=iccid, transaction_id=bytes((slot,)) * 16, metadata=metadata(iccid, extra=extra)
        )
        assert outcome(made.provision(recipe)[0]) is None
    return made


def named(iccid: str) -> bytes:
    return tlv(0x5A, iccid_swapped(iccid))


def code(bench: Bench, request: bytes) -> int:
    return read_integer(bench.terminal.ask(request).need(0x80).value)


def enable(bench: Bench, iccid: str, *, refresh: bytes = b"\x00") -> int:
    return code(bench, tlv(0xBF31, tlv(0xA0, named(iccid)), tlv(0x81, refresh)))


def disable(bench: Bench, iccid: str) -> int:
    return code(bench, tlv(0xBF32, tlv(0xA0, named(iccid)), tlv(0x81, b"\x00")))


def states(bench: Bench) -> list[int]:
    profiles = bench.terminal.ask(ALL_PROFILES).need(0xA0).children()
    return [profile.need(0x9F70).value[0] for profile in profiles]


# --- identity -----


def test_eid(bench: Bench) -> None:
    answer = bench.terminal.ask(bytes.fromhex("bf3e035c015a"))
    assert answer.raw.hex() == f"bf3e125a10{bench.chip.card.eid}"
    assert bench.terminal.send(bytes.fromhex("bf3e035c0153")) == (b"", 0x6A88)


def test_info2_follows_the_memory() -> None:
    bench = new_bench(keys=1, free_nvm=20_000)
    before = bench.terminal.ask(bytes.fromhex("bf2200"))
    bench.provision(bench.recipe())
    after = bench.terminal.ask(bytes.fromhex("bf2200"))
    free = [read_integer(b"\x00" + each.need(0x84).need(0x82).value) for each in (before, after)]
    assert free[0] == 20_000
    assert free[0] - free[1] == bench.card.nvm.profiles[0].size
    assert [read_integer(each.need(0x84).need(0x81).value) for each in (before, after)] == [0, 1]
    assert [node.raw for node in before.children() if node.tag != 0x84] == [
        node.raw for node in after.children() if node.tag != 0x84
    ]


def test_info1_is_cut_out_of_info2(bench: Bench) -> None:
    info1 = bench.terminal.ask(bytes.fromhex("bf2000"))
    info2 = bench.terminal.ask(bytes.fromhex("bf2200"))
    assert [node.raw for node in info1.children()] == [info2.need(tag).raw for tag in (0x82, 0xA9, 0xAA)]
    assert info1.need(0xA9).need(0x04).value == TREE.ci.pkid


def test_challenges_differ(bench: Bench) -> None:
    seen = {bench.terminal.ask(bytes.fromhex("bf2e00")).need(0x80).value for _ in range(3)}
    assert len(seen) == 3
    assert {len(challenge) for challenge in seen} == {16}


def test_rat(bench: Bench) -> None:
    (rule,) = bench.terminal.ask(bytes.fromhex("bf4300")).need(0xA0).children()
    assert rule.need(0x80).value == bits({1, 2})
    assert rule.need(0xA1).need(0x30).need(0x80).value == b"\xee\xee\xee"


def test_addresses(bench: Bench) -> None:
    assert answer_of(bench.terminal.ask(bytes.fromhex("bf3c00"))) == {"81": b"lpa.ds.example"}
    assert code(bench, tlv(0xBF3F, tlv(0x80, b"smdp.example"))) == 0
    assert answer_of(bench.terminal.ask(bytes.fromhex("bf3c00")))["80"] == b"smdp.example"


# --- GetProfilesInfo -----


def test_a_new_profile_is_disabled_and_tells_its_metadata(bench: Bench) -> None:
    first, second = bench.terminal.ask(ALL_PROFILES).need(0xA0).children()
    assert answer_of(first) == {
        "5A": iccid_swapped(ICCID),
        "4F": bytes.fromhex("a0000005591010ffffffff8900001100"),
        "9F70": b"\x00",
        "91": b"Test MNO",
        "92": b"Test",
        "95": b"\x02",
    }
    assert second.need(0x4F).value[-2:] == b"\x12\x00"


def test_tag_list(bench: Bench) -> None:
    def ask(tags: str) -> list[set[str]]:
        request = tlv(0xBF2D, tlv(0x5C, bytes.fromhex(tags)))
        return [set(answer_of(entry)) for entry in bench.terminal.ask(request).need(0xA0).children()]

    assert ask("5a9f70") == [{"5A", "9F70"}] * 2
    assert ask("b6b79f7b") == [{"B6", "B7"}] * 2
    assert ask("5abf7699bf2295") == [{"5A", "95"}] * 2
    everything = "5a4f9f70909192939495b6b7b899"
    assert ask(everything) == [{"5A", "4F", "9F70", "91", "92", "95", "B6", "B7"}] * 2


def test_search(bench: Bench) -> None:
    def found(criterion: bytes) -> list[bytes]:
        answer = bench.terminal.ask(tlv(0xBF2D, tlv(0xA0, criterion), tlv(0x5C, b"\x5a")))
        return [entry.need(0x5A).value for entry in answer.need(0xA0).children()]

    assert found(named(ICCID_2)) == [iccid_swapped(ICCID_2)]
    assert found(tlv(0x4F, bytes.fromhex("a0000005591010ffffffff8900001100"))) == [iccid_swapped(ICCID)]
    assert found(tlv(0x95, b"\x02")) == [iccid_swapped(ICCID), iccid_swapped(ICCID_2)]
    assert found(tlv(0x95, b"\x00")) == []
    assert found(tlv(0x5A, bytes(10))) == []


@pytest.mark.parametrize("request_hex", ["bf2d02a000", "bf2d04a0029000", "bf2d025c9f", "bf2d028000", "bf2d03a00100"])
def test_bad_search_is_answered_as_such(bench: Bench, request_hex: str) -> None:
    assert bench.terminal.ask(bytes.fromhex(request_hex)).raw == bytes.fromhex("bf2d03810101")


# --- notifications -----


def sequences(bench: Bench, request: bytes = bytes.fromhex("bf2800")) -> list[int]:
    return [read_integer(entry.need(0x80).value) for entry in bench.terminal.ask(request).need(0xA0).children()]


def test_every_change_of_a_profile_is_noted_in_order(bench: Bench) -> None:
    enable(bench, ICCID)
    disable(bench, ICCID)
    code(bench, tlv(0xBF33, named(ICCID)))
    assert sequences(bench) == [1, 2, 3, 4, 5]
    kept = bench.terminal.ask(bytes.fromhex("bf2b00")).need(0xA0).children()
    assert [entry.tag for entry in kept] == [0xBF37, 0xBF37, 0x30, 0x30, 0x30]
    card = bench.chip.card
    key = evidence.euicc_key(card.euicc_certificate, (TREE.eum.der,), TREE.ci.der, card.eid)
    for entry, event in zip(kept[2:], (1, 2, 3), strict=True):
        body, signature, *certificates = entry.children()
        assert body.need(0x81).value == bits({event})
        assert body.need(0x5A).value == iccid_swapped(ICCID)
        evidence.verify_raw(key, body.raw, signature.value)
        assert [certificate.raw for certificate in certificates] == [card.euicc_certificate, card.eum_certificate]
    for pir in kept[:2]:
        assert evidence.installation(pir.raw, key).installed


def test_notifications_by_event_and_number(bench: Bench) -> None:
    enable(bench, ICCID_2)
    assert sequences(bench, tlv(0xBF28, tlv(0x81, bits({0})))) == [1, 2]
    assert sequences(bench, tlv(0xBF28, tlv(0x81, bits({1, 2})))) == [3]
    assert sequences(bench, bytes.fromhex("bf280481020080")) == [1, 2], "any count of unused bits"
    by_number = bench.terminal.ask(tlv(0xBF2B, tlv(0xA0, tlv(0x80, integer(2))))).need(0xA0).children()
    assert [entry.raw for entry in by_number] == [results(bench.terminal)[1]]
    by_event = bench.terminal.ask(tlv(0xBF2B, tlv(0xA0, tlv(0x81, bits({1}))))).need(0xA0).children()
    assert [entry.tag for entry in by_event] == [0x30]
    assert bench.terminal.ask(tlv(0xBF2B, tlv(0xA0, tlv(0x80, integer(99))))).raw == bytes.fromhex("bf2b02a000")


def test_numbers_above_127_keep_their_sign_byte(bench: Bench) -> None:
    bench.card.nvm.next_sequence = 128
    enable(bench, ICCID)
    assert sequences(bench)[-1] == 128
    assert code(bench, bytes.fromhex("bf300480020080")) == 0
    assert sequences(bench) == [1, 2]


# --- profile states -----


def test_one_profile_is_enabled_at_a_time(bench: Bench) -> None:
    assert states(bench) == [0, 0]
    assert enable(bench, ICCID) == 0
    assert enable(bench, ICCID) == 2
    assert enable(bench, ICCID_2) == 0
    assert states(bench) == [0, 1]
    assert disable(bench, ICCID) == 2
    assert disable(bench, ICCID_2) == 0
    assert enable(bench, "8988211900000311948") == 1
    bench.replug()
    assert states(bench) == [0, 0]


def test_enabling_by_aid_survives_power(bench: Bench) -> None:
    request = tlv(0xBF31, tlv(0xA0, tlv(0x4F, bytes.fromhex("a0000005591010ffffffff8900001200"))), tlv(0x81, b"\x00"))
    assert code(bench, request) == 0
    bench.replug()
    assert states(bench) == [0, 1]


def test_refresh_is_asked_for_and_fetched(bench: Bench) -> None:
    request = tlv(0xBF31, tlv(0xA0, named(ICCID)), tlv(0x81, b"\x01"))
    data, sw = bench.terminal.send(request)
    assert data == bytes.fromhex("bf3103800100")
    assert sw >> 8 == 0x91
    command = bench.terminal.transmit(bytes((0x80, 0x12, 0, 0, sw & 0xFF)))
    assert parse_one(command[:-2], 0xD0).need(0x81).value[1] == 0x01, "REFRESH"
    assert bench.terminal.transmit(bytes.fromhex("801400000c010301010002028281030100")) == b"\x90\x00"
    assert disable(bench, ICCID) == 0


def test_delete_only_what_is_disabled(bench: Bench) -> None:
    enable(bench, ICCID)
    assert code(bench, tlv(0xBF33, named(ICCID))) == 2
    assert code(bench, tlv(0xBF33, named(ICCID_2))) == 0
    assert code(bench, tlv(0xBF33, named(ICCID_2))) == 1
    assert installed(bench.terminal) == [iccid_swapped(ICCID)]


def test_policy_rules_bind() -> None:
    bench = loaded(PPR1, PPR2)
    assert enable(bench, ICCID) == 0
    assert disable(bench, ICCID) == 3
    assert enable(bench, ICCID_2) == 3, "it would disable the other"
    assert code(bench, tlv(0xBF33, named(ICCID_2))) == 3
    assert states(bench) == [1, 0]


def test_memory_reset_by_class() -> None:
    bench = loaded(tlv(0x95, b"\x00"))
    enable(bench, ICCID_2)
    assert code(bench, tlv(0xBF34, tlv(0x82, bits({2})))) == 1
    assert code(bench, tlv(0xBF34, tlv(0x82, bits({0})))) == 0
    assert installed(bench.terminal) == [iccid_swapped(ICCID)]
    assert code(bench, tlv(0xBF34, tlv(0x82, bits({1})))) == 0
    assert installed(bench.terminal) == []
    code(bench, tlv(0xBF3F, tlv(0x80, b"smdp.example")))
    assert code(bench, tlv(0xBF34, tlv(0x82, bits({2})))) == 0
    assert "80" not in answer_of(bench.terminal.ask(bytes.fromhex("bf3c00")))


def test_nickname(bench: Bench) -> None:
    assert code(bench, tlv(0xBF29, named(ICCID), tlv(0x90, "Büro".encode()))) == 0
    assert code(bench, tlv(0xBF29, named("8988211900000311948"), tlv(0x90, b"x"))) == 1
    assert code(bench, tlv(0xBF29, named(ICCID), tlv(0x90, b"x" * 65))) == 127
    first = bench.terminal.ask(ALL_PROFILES).need(0xA0).children()[0]
    assert first.need(0x90).value.decode() == "Büro"


@pytest.mark.parametrize("request_hex", ["bf3100", "bf3104a0028000", "bf3300", "bf3400", "bf2900", "bf3f00", "bf3000"])
def test_malformed_requests(bench: Bench, request_hex: str) -> None:
    assert bench.terminal.send(bytes.fromhex(request_hex)) == (b"", 0x6A80)
