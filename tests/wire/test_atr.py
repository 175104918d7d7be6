"""What an ATR says of protocol and speed, against values of ISO/IEC 7816-3."""

from __future__ import annotations

import pytest

from ifpp.errors import WireError
from ifpp.wire.atr import parse_atr

CLOCK_HZ = 4_000_000


@pytest.mark.parametrize(
    ("atr", "protocol", "bit_rate"),
    [
        ("3B00", 0, 10_752),  # nothing said: T=0 at 372/1
        ("3B1011", 0, 10_752),
        ("3B9F96801FC78031E073FE211B67494650502F3100C1", 0, 250_000),
        ("3B9F95801FC3", 0, 125_000),
        ("3B9F94801FC3", 0, 62_500),
        ("3B901801", 1, 129_032),  # D = 12
        ("3BF013000081", 1, 43_010),  # TB1 and TC1 stand between TA1 and TD1
        ("3B8001", 1, 10_752),  # TD1 without TA1
        ("3B1070", 0, None),  # reserved
    ],
)
def test_protocol_and_bit_rate(atr: str, protocol: int, bit_rate: int | None) -> None:
    said = parse_atr(bytes.fromhex(atr))
    assert (said.protocol, said.bit_rate(CLOCK_HZ)) == (protocol, bit_rate)
    assert said.bit_rate(0) is None, "a reader that does not tell its clock"


@pytest.mark.parametrize("atr", ["", "3B", "3B10", "3BF01100", "FF"])
def test_one_that_breaks_off(atr: str) -> None:
    with pytest.raises(WireError):
        parse_atr(bytes.fromhex(atr))
