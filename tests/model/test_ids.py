"""T22: EID and ICCID codecs and their check digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.model.ids import Eid, Iccid, eid_check_digits, luhn_digit, swap_nibbles

EIDS = [
    "89049032123451234512345678901235",
    "89086030202200000022000023022943",
    "89882119900000000000000000001654",
    "12345000000000000000000000000186",
]


@pytest.mark.parametrize("digits", EIDS)
def test_eid_check_digits(digits: str) -> None:
    """SGP.29: ISO 7064 MOD 97-10 over 30 digits."""
    assert eid_check_digits(digits[:30]) == digits[30:]
    assert Eid(digits) == digits


def test_eid_check_digits_are_two_even_when_small() -> None:
    small = next(f"{n:030d}" for n in range(1000) if eid_check_digits(f"{n:030d}").startswith("0"))
    assert len(Eid(small + eid_check_digits(small))) == 32


def test_eid_is_packed_high_nibble_first() -> None:
    eid = Eid(EIDS[0])
    assert eid.packed.hex() == "89049032123451234512345678901235"
    assert Eid.from_bytes(eid.packed) == eid


@pytest.mark.parametrize(
    "digits",
    [
        "",
        EIDS[0][:-1],
        EIDS[0] + "0",
        EIDS[0][:-1] + "6",
        " " + EIDS[0][1:],
        EIDS[0][:-1] + "٥",
        EIDS[0][:-1] + "\n",
        "0" * 32,
    ],
)
def test_strings_that_are_no_eid(digits: str) -> None:
    with pytest.raises(ValueError, match="EID"):
        Eid(digits)


@given(st.text("0123456789", min_size=30, max_size=30), st.integers(0, 31), st.integers(1, 9))
def test_any_single_wrong_digit_of_an_eid_is_found(first: str, place: int, change: int) -> None:
    good = first + eid_check_digits(first)
    assert Eid.from_bytes(Eid(good).packed) == good
    wrong = good[:place] + str((int(good[place]) + change) % 10) + good[place + 1 :]
    with pytest.raises(ValueError, match="check digits"):
        Eid(wrong)


@pytest.mark.parametrize(
    ("digits", "swapped", "plain"),
    [
        ("89000123456789012341", "98001032547698103214", "89000123456789012341"),
        ("8988211900000311922", "988812910000301129F2", "8988211900000311922F"),
    ],
)
def test_iccid_forms(digits: str, swapped: str, plain: str) -> None:
    """Swapped in tag 5A and EF.ICCID, not swapped in the header of a profile package."""
    iccid = Iccid(digits)
    assert iccid.swapped.hex().upper() == swapped
    assert iccid.plain.hex().upper() == plain
    assert Iccid.from_swapped(iccid.swapped) == iccid


@pytest.mark.parametrize(("payload", "digit"), [("8900012345678901234", "1"), ("898821190000031192", "2"), ("0", "0")])
def test_luhn(payload: str, digit: str) -> None:
    assert luhn_digit(payload) == digit


@pytest.mark.parametrize(
    "digits",
    [
        "",
        "898821190000031192",
        "8988211900000311923",
        "890001234567890123411",
        "898821190000031192F",
        "89882119000003119 2",
    ],
)
def test_strings_that_are_no_iccid(digits: str) -> None:
    with pytest.raises(ValueError, match="ICCID"):
        Iccid(digits)


@pytest.mark.parametrize(
    "packed", ["", "FF" * 10, "98882119000000311922", "F98812910000301129F2", "988812910000301129FF"]
)
def test_bytes_that_are_no_iccid(packed: str) -> None:
    with pytest.raises(ValueError, match="ICCID"):
        Iccid.from_swapped(bytes.fromhex(packed))


@given(st.text("0123456789", min_size=18, max_size=19))
def test_any_iccid_survives_both_forms(payload: str) -> None:
    iccid = Iccid(payload + luhn_digit(payload))
    assert Iccid.from_swapped(iccid.swapped) == iccid
    assert iccid.plain.hex().rstrip("f") == iccid
    assert len(iccid.swapped) == len(iccid.plain) == 10


def test_swap_nibbles_fills_an_odd_count() -> None:
    assert swap_nibbles("123") == b"\x21\xf3"
