"""T10, T11, T16-T18, T25: every check of a Bound Profile Package has its own (bppCommandId, errorReason).

Two ways of being wrong: a bit flipped on the way (the chip's framing, MAC and signature checks must see it), and a
package whose maker, with all the right keys, put something wrong inside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.sim import bsp, pki
from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.nvm import DEFAULT_RAT
from ifpp.sim.profiles import iccid_swapped, personalise, set_ef_iccid, set_header_iccid
from ifpp.sim.tlv import bits, oid, parse, parse_one, read_integer, split_header, tlv
from tests.sim.bench import (
    ICCID,
    TEMPLATE,
    TREE,
    Recipe,
    Terminal,
    flip,
    installed,
    key_states,
    new_bench,
    outcome,
    results,
    segments,
    sequence,
    status,
)

OTHER_ICCID = "8988211900000311930"
PPK = bsp.SessionKeys(b"\x33" * 16, b"\x11" * 16, b"\x22" * 16)
BENCH = new_bench()
UPP = personalise(TEMPLATE, ICCID)
SHORT_UPP = parse(UPP)[0].raw + parse(UPP)[-1].raw


def fresh_terminal(options: Callable[[Euicc], None] | None = None) -> Terminal:
    """The chip of BENCH as it left its maker."""
    card = Euicc(BENCH.chip.card)
    if options is not None:
        options(card)
    card.reset()
    return Terminal(card)


def result_of(recipe: Recipe, *, bent: bytes | None = None, terminal: Terminal | None = None) -> tuple[int, int] | None:
    """Prepare and load `recipe` (or `bent` in its place); checks what must hold of every failure."""
    on = terminal or fresh_terminal()
    on.ask(recipe.prepare())
    pir, sw = on.load(bent or recipe.bpp())
    assert sw == 0x9000, f"{sw:04X}"
    said = outcome(pir)
    assert pir in results(on), "the result is kept"
    if said is not None and terminal is None:
        assert installed(on) == [], "nothing half installed"
        spent = said[1] not in (10, 11)
        assert key_states(on)[0] == (2 if spent else 1)
        assert on.send(segments(recipe.bpp())[-1]) == (b"", 0x6985), "the load is over"
    return said


# --- bits flipped on the way -----


def places(bpp: bytes) -> dict[str, range]:
    """Where the fields of a BPP lie: name -> offsets of its bytes."""
    found: dict[str, range] = {}

    def note(name: str, at: int, *, inner: bool = False) -> int:
        """Note tag, length and (for a leaf) value of the TLV at `at`; returns where its value starts."""
        tag, length, value_at = split_header(bpp, at)
        size = (tag.bit_length() + 7) // 8
        found[f"{name} tag"] = range(at, at + size)
        found[f"{name} length"] = range(at + size, value_at)
        if not inner:
            found[f"{name} value"] = range(value_at, value_at + length)
        return value_at

    def skip(at: int) -> int:
        _, length, value_at = split_header(bpp, at)
        return value_at + length

    bf23 = note("BF36", 0, inner=True)
    at = note("BF23", bf23, inner=True)
    for name in ("operation", "transaction"):
        note(name, at)
        at = skip(at)
    inner = note("template", at, inner=True)
    for name in ("key type", "key length", "host id"):
        note(name, inner)
        inner = skip(inner)
    at = skip(at)
    for name in ("otpk", "signature"):
        note(name, at)
        at = skip(at)
    for group, name in (("A0", "87"), ("A1", "88"), ("A2", "87 keys"), ("A3", "86")):
        if bpp[at] != int(group, 16):
            continue
        block = note(group, at, inner=True)
        at = skip(at)
        value_at = note(name, block)
        end = skip(block)
        found[f"{name} value"] = range(value_at, end - 8)
        found[f"{name} mac"] = range(end - 8, end)
    return found


# field -> what a flipped bit in it leads to; several where it depends on the bit
FLIPS: dict[str, set[tuple[int, int]]] = {
    "BF36 length": {(0, 1), (5, 12)},
    "BF23 tag": {(0, 1)},
    "BF23 length": {(0, 1)},
    "operation tag": {(0, 1)},
    "operation length": {(0, 1)},
    "operation value": {(0, 5)},
    "transaction tag": {(0, 1)},
    "transaction length": {(0, 1)},
    "transaction value": {(0, 3)},
    "template tag": {(0, 1)},
    "template length": {(0, 1)},
    "key type tag": {(0, 1)},
    "key type length": {(0, 1)},
    "key type value": {(0, 4)},
    "key length tag": {(0, 1)},
    "key length length": {(0, 1)},
    "key length value": {(0, 4)},
    "host id tag": {(0, 1)},
    "host id length": {(0, 1)},
    "host id value": {(0, 2)},
    "otpk tag": {(0, 1)},
    "otpk length": {(0, 1)},
    "otpk value": {(0, 2)},
    "signature tag": {(0, 1)},
    "signature length": {(0, 1)},
    "signature value": {(0, 2)},
    "A0 tag": {(1, 7)},
    "A0 length": {(1, 7)},
    "87 tag": {(1, 7)},
    "87 length": {(1, 7)},
    "87 value": {(1, 8)},
    "87 mac": {(1, 8)},
    "A1 tag": {(2, 7)},
    "A1 length": {(2, 7), (3, 7)},
    "88 tag": {(2, 7)},
    "88 length": {(2, 7)},
    "88 value": {(2, 8)},
    "88 mac": {(2, 8)},
    "A2 tag": {(4, 7), (5, 7)},
    "A2 length": {(4, 7)},
    "87 keys tag": {(4, 7)},
    "87 keys length": {(4, 7)},
    "87 keys value": {(4, 8)},
    "87 keys mac": {(4, 8)},
    "A3 tag": {(4, 7), (5, 7)},
    "A3 length": {(5, 7), (5, 12)},
    "86 tag": {(5, 7)},
    "86 length": {(5, 7)},
    "86 value": {(5, 8)},
    "86 mac": {(5, 8)},
}


def sent_bent(recipe: Recipe, at: int, mask: int) -> tuple[int, int] | None:
    """Send the sound segments of a package with one bit flipped on the wire."""
    terminal = fresh_terminal()
    terminal.ask(recipe.prepare())
    offset = 0
    for segment in segments(recipe.bpp()):
        here = offset <= at < offset + len(segment)
        data, sw = terminal.send(flip(segment, at - offset, mask) if here else segment)
        offset += len(segment)
        assert sw == 0x9000, f"{sw:04X}"
        if data:
            assert installed(terminal) == []
            assert status(terminal) == (1, 2)
            return outcome(data)
    raise AssertionError("no result")


@pytest.mark.parametrize("mode", ["session", "random"])
@pytest.mark.parametrize("field", sorted(FLIPS))
def test_a_flipped_bit_in_every_field(field: str, mode: str) -> None:
    recipe = BENCH.recipe(upp=SHORT_UPP, ppk=PPK if mode == "random" else None)
    found = places(recipe.bpp())
    if field not in found:
        assert mode == "session"
        assert field.startswith(("A2", "87 keys"))
        return
    where = found[field]
    chosen = {where[0], where[len(where) // 2], where[-1]}
    for at in chosen:
        for mask in (0x01, 0x40):
            assert sent_bent(recipe, at, mask) in FLIPS[field], f"byte {at}, bit {mask:02X}"


def test_the_fields_cover_the_whole_package() -> None:
    bpp = BENCH.recipe(upp=SHORT_UPP, ppk=PPK).bpp()
    found = places(bpp)
    assert sorted(at for where in found.values() for at in where) == list(range(len(bpp)))
    assert set(found) - set(FLIPS) == {"BF36 tag"}


@pytest.mark.parametrize("mask", [0x01, 0x40])
def test_another_tag_in_place_of_bf36_is_no_load_at_all(mask: int) -> None:
    recipe = BENCH.recipe(upp=SHORT_UPP)
    for at in (0, 1):
        terminal = fresh_terminal()
        terminal.ask(recipe.prepare())
        data, sw = terminal.send(flip(segments(recipe.bpp())[0], at, mask))
        assert (data, sw >> 8) in ((b"", 0x6A), (b"", 0x69))
        assert results(terminal) == []
        assert outcome(terminal.load(recipe.bpp())[0]) is None, "the package is still good"


@pytest.mark.parametrize("at", range(0, 3_100, 131))
def test_any_bit_of_a_long_package(at: int) -> None:
    """Whatever is flipped: a failure with a result, a spent key, no profile."""
    recipe = BENCH.recipe()
    said = sent_bent(recipe, at + 2, 0x10)
    assert said is not None


# --- wrong inside, made with the right keys -----


def crt(key_type: str = "800188", key_length: str = "810110", host_id: str = "8401ff") -> bytes:
    return tlv(0xA6, bytes.fromhex(key_type + key_length + host_id))


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({0x82: tlv(0x82, b"\x02")}, (0, 5)),
        ({0x80: tlv(0x80, b"\xa0" * 16)}, (0, 3)),
        ({0x80: tlv(0x80, b"")}, (0, 1)),
        ({0x80: tlv(0x80, b"\xa0" * 17)}, (0, 1)),
        ({0x82: b""}, (0, 1)),
        ({0xA6: b""}, (0, 1)),
        ({0x9F: tlv(0x84, b"x")}, (0, 1)),
        ({0xA6: crt(key_type="800189")}, (0, 4)),
        ({0xA6: crt(key_length="810120")}, (0, 4)),
        ({0xA6: crt(host_id="8400")}, (0, 4)),
        ({0xA6: crt(host_id="8411" + "00" * 17)}, (0, 4)),
        ({0xA6: crt(host_id="")}, (0, 1)),
        ({0x5F49: tlv(0x5F49, b"\x04" + b"\x01" * 64)}, (0, 2)),
        ({0x5F49: tlv(0x5F49, b"\x04" + b"\x01" * 63)}, (0, 1)),
    ],
)
def test_secure_channel_request(members: dict[int, bytes], expected: tuple[int, int]) -> None:
    assert result_of(BENCH.recipe(upp=SHORT_UPP, channel_members=members)) == expected


def test_signature_of_another_sm_dpf() -> None:
    sound = BENCH.recipe(upp=SHORT_UPP)
    foreign = replace(sound, signer=pki.Pki.create().dppb)
    assert result_of(sound, bent=foreign.bpp()) == (0, 2)


def test_signature_over_another_one_time_key() -> None:
    """T08: smdpSign covers the chip's key, which BF23 does not carry."""
    sound = BENCH.recipe(upp=SHORT_UPP)
    foreign = replace(sound, target=BENCH.target(slot=1))
    assert result_of(sound, bent=foreign.bpp()) == (0, 2)


def test_another_eid_in_the_key_derivation() -> None:
    """T11: the channel request is fine, the first encrypted block is not."""
    ascii_digits = BENCH.chip.card.eid.encode()[:16]
    for eid in (ascii_digits, flip(BENCH.card.chip.eid16, -1)):
        assert result_of(BENCH.recipe(upp=SHORT_UPP, kdf_eid=eid)) == (1, 8)


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        (tlv(0xBF24), None),
        (tlv(0xBF24, tlv(0xB8, tlv(0x80, oid("2.999.10")), bytes.fromhex("8103010203"))), None),
        (tlv(0xBF24, tlv(0xB8, bytes(126))), None),
        (tlv(0xBF24, tlv(0xB8, bytes(127))), (1, 1)),
        (tlv(0xBF24, tlv(0xB9, b"")), (1, 1)),
        (tlv(0xBF25), (1, 1)),
        (tlv(0xBF24) + tlv(0xBF24), (1, 1)),
        (b"", (1, 1)),
    ],
)
def test_configure_isdp(configure: bytes, expected: tuple[int, int] | None) -> None:
    assert result_of(BENCH.recipe(upp=SHORT_UPP, configure=configure)) == expected


def bf25(**changes: bytes) -> bytes:
    """A StoreMetadataRequest; `changes` by tag name (t91=...), an empty value leaves the member out."""
    members = {
        "t5A": tlv(0x5A, iccid_swapped(ICCID)),
        "t91": tlv(0x91, b"Provider"),
        "t92": tlv(0x92, b"Name"),
        "tB7": tlv(0xB7, tlv(0x80, b"\x00\xf1\x10")),
        **changes,
    }
    return tlv(0xBF25, b"".join(members.values()))


ICON = tlv(0x93, b"\x01")
PPRS = {1: tlv(0x99, bits({1})), 2: tlv(0x99, bits({2}))}
ONE_OPERATOR = tlv(
    0x30, tlv(0x80, bits({1, 2})), tlv(0xA1, tlv(0x30, tlv(0x80, bytes.fromhex("eef110")))), tlv(0x82, b"\x00")
)


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (bf25(), None),
        (bf25(t95=tlv(0x95, b"\x02")), None),
        (bf25(t95=tlv(0x95, b"\x00")), None),
        (bf25(t95=tlv(0x95, b"\x03")), (2, 6)),
        (bf25(t5A=b""), (2, 1)),
        (bf25(t5A=tlv(0x5A, bytes(9))), (2, 1)),
        (bf25(t5A=tlv(0x5A, b"\xff" * 10)), (2, 1)),
        (bf25(t91=b""), (2, 1)),
        (bf25(t91=tlv(0x91, b"P" * 32)), None),
        (bf25(t91=tlv(0x91, b"P" * 33)), (2, 1)),
        (bf25(t91=tlv(0x91, b"\xff")), (2, 1)),
        (bf25(t92=tlv(0x92, b"N" * 64)), None),
        (bf25(t92=tlv(0x92, b"N" * 65)), (2, 1)),
        (bf25(t92=b""), (2, 1)),
        (bf25(icon=ICON), (2, 1)),
        (bf25(icon=tlv(0x94, b"png")), (2, 1)),
        (bf25(icon=tlv(0x93, b"\x02") + tlv(0x94, b"png")), (2, 1)),
        (bf25(icon=ICON + tlv(0x94, b"png")), None),
        (bf25(icon=ICON + tlv(0x94, bytes(1024))), None),
        (bf25(icon=ICON + tlv(0x94, bytes(1025))), (2, 1)),
        (bf25(unknown=tlv(0x9A, b"")), (2, 1)),
        (bf25(twice=tlv(0x91, b"P")), (2, 1)),
        (bf25(ppr=PPRS[1]), None),
        (bf25(ppr=PPRS[1], tB7=b""), (2, 1)),
        (bf25(tB7=tlv(0xB7, tlv(0x80, b"\x00\xf1"))), (2, 1)),
        (bf25(tB6=tlv(0xB6, tlv(0x31, b""))), (2, 1)),
        (bf25() + b"\x00\x00", (2, 1)),
        (tlv(0xBF24), (2, 1)),
    ],
)
def test_store_metadata(request_bytes: bytes, expected: tuple[int, int] | None) -> None:
    assert result_of(BENCH.recipe(upp=SHORT_UPP, metadata=request_bytes)) == expected


@pytest.mark.parametrize(
    ("rat", "owner", "expected"),
    [
        (DEFAULT_RAT, "00f110", None),
        (b"", "00f110", (2, 15)),
        (ONE_OPERATOR, "00f110", None),
        (ONE_OPERATOR, "99f110", None),
        (ONE_OPERATOR, "00f120", (2, 15)),
    ],
)
def test_policy_rules_against_the_authorisation_table(rat: bytes, owner: str, expected: tuple[int, int] | None) -> None:
    def options(card: Euicc) -> None:
        card.nvm.rat = rat

    request = bf25(ppr=PPRS[2], tB7=tlv(0xB7, tlv(0x80, bytes.fromhex(owner))))
    recipe = BENCH.recipe(upp=SHORT_UPP, metadata=request)
    assert result_of(recipe, terminal=fresh_terminal(options)) == expected


def test_metadata_in_two_blocks() -> None:
    """More than 1008 bytes are continued in a second 88; an error found there is storeMetadata2."""
    recipe = BENCH.recipe(upp=SHORT_UPP, metadata=bf25(icon=ICON + tlv(0x94, bytes(1024))))
    assert [len(segment) for segment in segments(recipe.bpp())][3:5] == [1020, 73]
    assert result_of(recipe) is None
    bpp = recipe.bpp()
    second = sum(len(segment) for segment in segments(bpp)[:4])
    assert sent_bent(recipe, second + 20, 0x01) == (3, 8)
    assert sent_bent(recipe, second, 0x01) == (3, 7)


@pytest.mark.parametrize(
    "request_bytes",
    [
        tlv(0xBF26, tlv(0x80, bytes(16)), tlv(0x81, bytes(16)), tlv(0x82, bytes(15))),
        tlv(0xBF26, tlv(0x80, bytes(16)), tlv(0x81, bytes(16))),
        tlv(0xBF26, tlv(0x81, bytes(16)), tlv(0x80, bytes(16)), tlv(0x82, bytes(16))),
        tlv(0xBF25, tlv(0x80, bytes(16)), tlv(0x81, bytes(16)), tlv(0x82, bytes(16))),
        b"\xbf",
    ],
)
def test_replace_session_keys(request_bytes: bytes) -> None:
    assert result_of(BENCH.recipe(upp=SHORT_UPP, ppk=PPK, replace_keys=request_bytes)) == (4, 1)


def test_blocks_that_carry_less_than_they_may() -> None:
    """T02: foreign binders may choose smaller pieces; elements then cross many borders."""
    for size in (1, 16, 100, 1007):
        assert result_of(BENCH.recipe(block_size=size)) is None, size


def test_an_oversized_block() -> None:
    assert result_of(BENCH.recipe(block_size=1008)) == (5, 7)


def regrouped(bpp: bytes, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Rebuild a package with the elements of its A3 changed; all lengths stay right."""
    members = parse_one(bpp, 0xBF36).children()
    blocks = [block.raw for block in members[-1].children()]
    return tlv(0xBF36, *(member.raw for member in members[:-1]), tlv(0xA3, *change(blocks)))


def test_blocks_out_of_order_or_missing() -> None:
    recipe = BENCH.recipe()
    bpp = recipe.bpp()
    assert result_of(recipe, bent=regrouped(bpp, lambda blocks: [blocks[1], blocks[0], *blocks[2:]])) == (5, 8)
    assert result_of(recipe, bent=regrouped(bpp, lambda blocks: blocks[1:])) == (5, 8)
    assert result_of(recipe, bent=regrouped(bpp, lambda blocks: blocks[:-1])) == (5, 12)
    assert result_of(recipe, bent=regrouped(bpp, lambda blocks: [*blocks, blocks[-1]])) == (5, 8)


def test_a_segment_too_many_or_too_few() -> None:
    """Segments glued together are not the segments of SGP.22 2.5.5."""
    recipe = BENCH.recipe(upp=SHORT_UPP)
    parts = segments(recipe.bpp())
    for first, expected in ((0, (0, 1)), (1, (1, 7)), (2, (2, 7)), (4, (5, 7))):
        terminal = fresh_terminal()
        terminal.ask(recipe.prepare())
        for segment in parts[:first]:
            assert terminal.send(segment) == (b"", 0x9000)
        data, _ = terminal.send(parts[first] + parts[first + 1])
        assert outcome(data) == expected


# --- the profile itself -----


@pytest.mark.parametrize(
    ("upp", "expected"),
    [
        (set_header_iccid(UPP, OTHER_ICCID), (5, 13)),
        (set_ef_iccid(UPP, OTHER_ICCID), (5, 13)),
        (personalise(TEMPLATE, OTHER_ICCID), (5, 13)),
        (UPP, None),
    ],
)
def test_one_iccid_in_three_places(upp: bytes, expected: tuple[int, int] | None) -> None:
    """T16."""
    assert result_of(BENCH.recipe(upp=upp)) == expected


def elements() -> list[bytes]:
    return [node.raw for node in parse(UPP)]


@pytest.mark.parametrize(
    "upp",
    [
        b"".join(elements()[:-1]),
        UPP + b"\x00",
        UPP + elements()[-1],
        UPP[:-1],
        b"".join([*elements()[:3], elements()[2], *elements()[3:]]),
        b"".join(elements()[1:]),
        b"\x00" + UPP,
    ],
    ids=["no end", "trailing byte", "two ends", "cut", "identification twice", "no header", "leading byte"],
)
def test_profile_that_is_not_one(upp: bytes) -> None:
    """T17: (5, 12) with PEStatus 5."""
    recipe = BENCH.recipe(upp=upp)
    terminal = fresh_terminal()
    assert result_of(recipe, terminal=terminal) == (5, 12)
    error = parse_one(results(terminal)[-1]).need(0xBF27).need(0xA2).children()[0]
    response = parse_one(error.need(0x82).value, 0x30)
    assert read_integer(response.need(0xA0).need(0x30).need(0x80).value) == 5
    assert response.need(0x81).value == b"", "aborted"


def test_iccid_already_on_the_chip() -> None:
    """T18."""
    terminal = fresh_terminal()
    assert result_of(BENCH.recipe(upp=SHORT_UPP), terminal=terminal) is None
    again = BENCH.recipe(slot=1, upp=SHORT_UPP, transaction_id=b"\x02" * 16)
    assert result_of(again, terminal=terminal) == (2, 9)
    assert installed(terminal) == [iccid_swapped(ICCID)]
    assert key_states(terminal) == [2, 2, 0]


def test_memory_exhausted_and_what_the_chip_says_of_it() -> None:
    """T18: the key stays reserved for the same package, which may be tried again."""
    bench = new_bench(free_nvm=2_500, reported_nvm=500_000)
    recipe = bench.recipe()
    pir, _ = bench.provision(recipe)
    assert outcome(pir) == (5, 10)
    assert key_states(bench.terminal)[0] == 1
    assert status(bench.terminal) == (3, 3)
    assert installed(bench.terminal) == []
    assert outcome(bench.terminal.load(recipe.bpp())[0]) == (5, 10)


def test_memory_is_taken_by_installed_profiles_and_given_back() -> None:
    bench = new_bench(keys=2, free_nvm=5_000)

    def free() -> int:
        resources = bench.terminal.ask(bytes.fromhex("bf2200")).need(0x84)
        return read_integer(resources.need(0x82).value)

    assert free() == 5_000
    assert outcome(bench.provision(bench.recipe())[0]) is None
    taken = 5_000 - free()
    assert len(UPP) < taken < len(UPP) + 200
    second = bench.recipe(slot=1, iccid=OTHER_ICCID, transaction_id=b"\x02" * 16)
    assert outcome(bench.provision(second)[0]) == (5, 10)
    bench.card.nvm.profiles.clear()
    assert free() == 5_000
    assert outcome(bench.terminal.load(second.bpp())[0]) is None


def test_the_profile_that_was_sent_is_the_one_installed() -> None:
    bench = new_bench()
    for ppk, slot, iccid in ((None, 0, ICCID), (PPK, 1, OTHER_ICCID)):
        recipe = bench.recipe(slot=slot, iccid=iccid, ppk=ppk, transaction_id=bytes((slot,)) * 16)
        assert outcome(bench.provision(recipe)[0]) is None
        assert bench.card.nvm.profiles[-1].upp_sha256 == hashlib.sha256(recipe.upp).digest()
    assert [profile.aid.hex()[-6:] for profile in bench.card.nvm.profiles] == ["001100", "001200"]


def test_two_profiles_from_two_sm_dpfs() -> None:
    """T25: two keys, two senders, rising sequence numbers; each result names its sender."""
    bench = new_bench(keys=2)
    other = TREE.ci.issue(
        replace(pki.DPPB, rid="2.999.12"), pki.name_of("Other", "DPpb"), (key := _new_key()).public_key()
    )
    first = bench.recipe()
    second = bench.recipe(
        slot=1, iccid=OTHER_ICCID, signer=pki.Holder(key, other), transaction_id=b"\x02" * 16, ppk=PPK
    )
    pirs = [bench.provision(recipe)[0] for recipe in (first, second)]
    assert [outcome(pir) for pir in pirs] == [None, None]
    assert [sequence(pir) for pir in pirs] == [1, 2]
    assert [parse_one(pir).need(0xBF27).need(0x06).value for pir in pirs] == [oid("2.999.10"), oid("2.999.12")]
    assert installed(bench.terminal) == [iccid_swapped(ICCID), iccid_swapped(OTHER_ICCID)]
    assert status(bench.terminal) == (1, 0)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_result_goes_to_the_first_address_that_wants_it_and_notifications_to_the_others() -> None:
    def entry(events: set[int], address: bytes) -> bytes:
        return tlv(0x30, tlv(0x80, bits(events)), tlv(0x81, address))

    configuration = tlv(0xB6, entry({1}, b"no.example"), entry({0}, b"first.example"), entry({0, 3}, b"second.example"))
    bench = new_bench()
    pir, _ = bench.provision(bench.recipe(upp=SHORT_UPP, metadata=bf25(tB6=configuration)))
    assert parse_one(pir).need(0xBF27).need(0xBF2F).need(0x0C).value == b"first.example"
    listed = bench.terminal.ask(bytes.fromhex("bf2800")).need(0xA0).children()
    assert [entry.need(0x0C).value for entry in listed] == [b"first.example", b"second.example"]
    assert [read_integer(entry.need(0x80).value) for entry in listed] == [1, 2]


@pytest.mark.parametrize("name", ["NoBERTLV", "NoBERTLV_NoRAMRFM", "BERTLV_SUCI", "BERTLV_SUCI_NoRAMRFM"])
def test_profiles_nobody_here_wrote(name: str) -> None:
    """GSMA TS.48 v7.0 test profiles, personalised."""
    file = Path(__file__).parents[3] / "shared" / "data" / "ts48" / f"ts48-v7-{name}.der"
    if not file.is_file():
        pytest.skip("the TS.48 profiles are not beside the project")
    upp = personalise(file.read_bytes(), ICCID)
    assert result_of(BENCH.recipe(upp=upp)) is None
    assert result_of(BENCH.recipe(upp=upp, block_size=333)) is None
    assert result_of(BENCH.recipe(upp=set_ef_iccid(upp, OTHER_ICCID))) == (5, 13)
