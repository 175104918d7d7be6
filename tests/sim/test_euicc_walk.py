"""The chip's walk over a profile package, from a stream cut anywhere; and the chip against nonsense of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ifpp.sim.euicc import Euicc
from ifpp.sim.euicc.profile_walk import ElementError, IccidError, ProfileWalk
from ifpp.sim.profiles import iccid_swapped, personalise, set_header_iccid
from ifpp.sim.tlv import integer, parse, parse_one, tlv
from tests.sim.bench import ICCID, TEMPLATE, Terminal, flip, new_bench, outcome, segments, status

UPP = personalise(TEMPLATE, ICCID)
HEADER, *ELEMENTS = [node.raw for node in parse(UPP)]
END = ELEMENTS[-1]
BENCH = new_bench()
RECIPE = BENCH.recipe()


def walk(upp: bytes, size: int = 1007) -> ProfileWalk:
    made = ProfileWalk(iccid_swapped(ICCID))
    for at in range(0, len(upp), size):
        made.feed(upp[at : at + size])
    made.finish()
    return made


def refusal(upp: bytes, size: int = 1007) -> tuple[int, int | None]:
    """(status, PE identification)."""
    with pytest.raises(ElementError) as caught:
        walk(upp, size)
    return caught.value.status, caught.value.identification


def element(tag: int, number: int | bytes, *content: bytes) -> bytes:
    octets = integer(number) if isinstance(number, int) else number
    return tlv(tag, tlv(0xA0, tlv(0x80), tlv(0x81, octets)), *content)


def header(**changes: bytes) -> bytes:
    members = {
        "t80": tlv(0x80, b"\x02"),
        "t81": tlv(0x81, b"\x03"),
        "t83": tlv(0x83, bytes.fromhex(ICCID + "f")),
        **changes,
    }
    return tlv(0xA0, b"".join(members.values()))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1007, 100_000])
def test_borders_may_lie_anywhere(size: int) -> None:
    assert walk(UPP, size).total == len(UPP)


def test_the_smallest_package() -> None:
    assert walk(header() + element(0xAA, 1)).total > 0


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (header(t80=tlv(0x80, b"\x03")), None),
        (header(t80=tlv(0x80, b"\x04")), 31),
        (header(t80=tlv(0x80, b"\x01")), 31),
        (header(t80=b""), 5),
        (header(t83=b""), 5),
        (header(tA5=tlv(0xA5, tlv(0x81), tlv(0x8B))), None),
        (header(tA5=tlv(0xA5, tlv(0x8C))), 10),
        (header(tA5=tlv(0xA5, tlv(0x9F20))), 10),
        (header(tA6=tlv(0xA6, tlv(0x06, bytes.fromhex("67810f010204")))), None),
        (header(tA6=tlv(0xA6, tlv(0x06, bytes.fromhex("67810f01020402")))), None),
        (header(tA6=tlv(0xA6, tlv(0x06, bytes.fromhex("67810f010264")))), 9),
        (header(tA6=tlv(0xA6, tlv(0x06, bytes.fromhex("67810f0102")))), 9),
        (header(tA6=tlv(0xA6, tlv(0x06, b"\x88\x37"))), 9),
        (header(tA6=b"\xa6\x05\x06"), 5),
    ],
)
def test_header(first: bytes, status: int | None) -> None:
    upp = first + END
    if status is None:
        walk(upp)
    else:
        assert refusal(upp) == (status, None)


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        (element(0xA9, 900) * 2, (5, 900)),
        (element(0xA9, 32_768), (5, 32_768)),
        (element(0xA9, b"\xff"), (5, 0)),
        (tlv(0xA9), (5, None)),
        (tlv(0xA9, tlv(0xA0)), (5, None)),
        (tlv(0xA9, tlv(0xA1, tlv(0x81, b"\x07"))), (5, None)),
        (element(0xA9, 900, b"\x81\x05\x00"), (5, None)),
        (tlv(0xBF22, tlv(0xA0, tlv(0x81, b"\x07"))), (5, None)),
        (tlv(0x30), (5, None)),
        (b"\x00", (5, None)),
        (b"\xa9\x80", (5, None)),
        (b"\xa9\x85\x01\x01\x01\x01\x01", (5, None)),
        (HEADER, (5, None)),
        (element(0xAA, 901), (5, None)),
        (element(0xB0, 902), (3, 902)),
        (element(0xB0, 903, tlv(0xA4, tlv(0x83, bytes(9)))), (3, 903)),
        (element(0xB0, 904, tlv(0xA4, tlv(0x82))), (3, 904)),
    ],
)
@pytest.mark.parametrize("size", [1, 1007])
def test_elements(middle: bytes, expected: tuple[int, int | None], size: int) -> None:
    assert refusal(header() + middle + END, size) == expected


def test_elements_without_a_header_of_their_own() -> None:
    """rfu1 to rfu5 (AB to AF) carry none; two-byte tags are elements too."""
    walk(header() + tlv(0xAB, b"anything") + tlv(0xAF) + element(0xBF1F, 7) + END)


@pytest.mark.parametrize("upp", [b"", header(), header() + ELEMENTS[0], UPP[:-1], UPP + b"\xa9"])
def test_an_end_that_does_not_come_or_is_not_the_end(upp: bytes) -> None:
    assert refusal(upp)[0] == 5


def test_sima_response_names_the_element() -> None:
    assert ElementError(7, 13).sima_response().hex() == "300ca008300680010781010d8100"
    assert ElementError(5).sima_response().hex() == "3009a00530038001058100"


def test_iccid_of_header_and_file() -> None:
    with pytest.raises(IccidError):
        walk(set_header_iccid(UPP, "8988211900000311930"))
    with pytest.raises(IccidError):
        walk(header() + element(0xB0, 1, tlv(0xA4, tlv(0x83, bytes(10)))) + END)


# --- nonsense -----


def fresh() -> Terminal:
    card = Euicc(BENCH.chip.card)
    card.reset()
    return Terminal(card)


def test_any_bent_preparation_is_refused() -> None:
    """Every byte of PrepareDownload, certificate included: an error code or a status word, never a reservation."""
    request = RECIPE.prepare()
    for at in range(3, len(request)):
        terminal = fresh()
        data, sw = terminal.send(flip(request, at, 0x04))
        assert sw in (0x9000, 0x6A80, 0x6A88), f"byte {at}: {sw:04X}"
        assert (data == b"") == (sw != 0x9000)
        assert status(terminal) == (1, 3), f"byte {at}: {data.hex()}"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_the_card_answers_any_apdu(apdus: list[bytes]) -> None:
    card = Euicc(BENCH.chip.card)
    card.reset()
    for apdu in apdus:
        assert len(card.process(apdu)) >= 2


_TAGS = st.sampled_from([0x5A, 0x5C, 0x80, 0x81, 0x82, 0x90, 0x95, 0x99, 0xA0, 0xA1, 0xA3, 0x30, 0x04, 0x4F, 0x5F37])
_VALUES = st.recursive(
    st.binary(max_size=20),
    lambda inner: st.lists(st.builds(tlv, _TAGS, inner), max_size=3).map(b"".join),
    max_leaves=6,
)
_REQUESTS = st.one_of(
    st.builds(tlv, st.integers(0xBF20, 0xBF43), _VALUES),
    st.builds(lambda operation, value: tlv(0xF9, tlv(operation, value)), st.integers(0xA0, 0xA4), _VALUES),
    st.binary(min_size=1, max_size=60),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_REQUESTS, max_size=6), st.integers(0, 7))
def test_the_isdr_answers_any_request(requests: list[bytes], progress: int) -> None:
    """At any point of a load: data that parse, or a status word; never a fault of the chip."""
    terminal = fresh()
    terminal.ask(RECIPE.prepare())
    for segment in segments(RECIPE.bpp())[:progress]:
        terminal.send(segment)
    for request in requests:
        data, sw = terminal.send(request)
        assert sw >> 12 in (6, 9)
        if data:
            parse_one(data)
    assert status(terminal)[0] in (1, 2, 3) or b"\xa3" in b"".join(requests)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 255), st.integers(200, 1007))
def test_a_bent_profile_under_good_keys_is_refused_or_whole(at: int, mask: int, size: int) -> None:
    """Bits turned before encryption: the walk may accept file content it does not know, never a broken frame."""
    terminal = fresh()
    recipe = replace(RECIPE, upp=flip(UPP, at, mask), block_size=size)
    terminal.ask(recipe.prepare())
    pir, sw = terminal.load(recipe.bpp())
    assert sw == 0x9000
    assert outcome(pir) in (None, (5, 12), (5, 13))
