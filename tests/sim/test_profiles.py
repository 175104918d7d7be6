"""Templates and personalisation, on generated profiles and on the GSMA TS.48 generic test profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.sim.profiles import (
    NaaKeys,
    ProfileStock,
    iccid_swapped,
    imsi_content,
    mcc_mnc,
    personalise,
    set_ef_iccid,
    set_header_iccid,
    set_imsi,
    with_luhn,
)
from ifpp.sim.template import build_template
from ifpp.sim.tlv import Node, parse, read_integer, tlv

TS48 = Path(__file__).parents[2].parent / "shared" / "data" / "ts48"
TS48_ICCID = "89000123456789012341"
TS48_FILES = ("BERTLV_SUCI", "BERTLV_SUCI_NoRAMRFM", "NoBERTLV", "NoBERTLV_NoRAMRFM")
KEYS = NaaKeys(b"K" * 16, b"O" * 16)
ICCID19, ICCID20 = "8988211900000311922", with_luhn("8988211900000311920")


def ts48_file(name: str) -> bytes:
    path = TS48 / f"ts48-v7-{name}.der"
    if not path.exists():
        pytest.skip(f"the GSMA TS.48 profiles are not at {TS48}")
    return path.read_bytes()


@pytest.fixture(params=["generated", *TS48_FILES])
def template(request: pytest.FixtureRequest) -> bytes:
    name: str = request.param
    return build_template(12_000, seed=1) if name == "generated" else ts48_file(name)


@pytest.fixture
def ts48() -> bytes:
    return ts48_file("NoBERTLV")


def elements(upp: bytes, tag: int) -> list[Node]:
    return [element for element in parse(upp) if element.tag == tag]


@pytest.mark.parametrize("iccid", [ICCID19, ICCID20], ids=["19 digits", "20 digits"])
def test_every_place_is_personalised(template: bytes, iccid: str) -> None:
    upp = personalise(template, iccid, "001019876543210", KEYS)
    (header,) = elements(upp, 0xA0)
    (mf,) = elements(upp, 0xB0)
    assert header.need(0x83).value.hex().upper() == iccid.ljust(20, "F")
    assert [part.value for part in mf.need(0xA4).children() if part.tag == 0x83] == [iccid_swapped(iccid)]
    for usim in elements(upp, 0xB3):
        assert usim.need(0xA3).need(0x83).value.hex() == "080910108967452301"
    own = [parameter for parameter in (aka.need(0xA1).first(0xA1) for aka in elements(upp, 0xA4)) if parameter]
    assert own
    assert {(one.need(0x82).value, one.need(0x83).value) for one in own} == {(KEYS.ki, KEYS.opc)}


def test_nothing_else_changes(template: bytes) -> None:
    upp = personalise(template, ICCID19, "001019876543210", KEYS)
    assert len(upp) == len(template)
    changed = [old.tag for old, new in zip(parse(template), parse(upp), strict=True) if old.raw != new.raw]
    assert set(changed) == {0xA0, 0xB0, 0xB3, 0xA4}


def test_the_real_profile_gets_back_its_own_identity(ts48: bytes) -> None:
    assert personalise(ts48, TS48_ICCID) == ts48
    other = personalise(ts48, ICCID20)
    assert other[44:54].hex() == ICCID20
    assert other[250:260] == iccid_swapped(ICCID20)
    assert set_imsi(other, "001010123456789") == other


def test_equal_bytes_elsewhere_stay(ts48: bytes) -> None:
    decoy = tlv(0xA1, tlv(0xA0, tlv(0x80), tlv(0x81, b"\x7f")), iccid_swapped(TS48_ICCID))
    upp = personalise(ts48 + decoy, ICCID20)
    assert upp.endswith(decoy)


def test_lengths_stay_right_when_a_value_grows() -> None:
    template = build_template(5_000, seed=1)
    shorter = b"".join(
        tlv(0xB3, *(part.raw if part.tag != 0xA3 else tlv(0xA3, tlv(0x83, b"\xff")) for part in element.children()))
        if element.tag == 0xB3
        else element.raw
        for element in parse(template)
    )
    assert len(shorter) < len(template)
    (usim,) = elements(personalise(shorter, ICCID19, "001010000000001"), 0xB3)
    assert usim.need(0xA3).need(0x83).value == imsi_content("001010000000001")


def test_a_mismatch_can_be_made_on_purpose() -> None:
    upp = personalise(build_template(5_000, seed=1), ICCID19)
    in_header, in_file = set_header_iccid(upp, ICCID20), set_ef_iccid(upp, ICCID20)
    assert elements(in_header, 0xB0) == elements(upp, 0xB0)
    assert elements(in_header, 0xA0) != elements(upp, 0xA0)
    assert elements(in_file, 0xA0) == elements(upp, 0xA0)
    assert elements(in_file, 0xB0) != elements(upp, 0xB0)


@pytest.mark.parametrize("tag", [0xA0, 0xB0])
def test_a_template_without_a_place_for_the_iccid_is_refused(tag: int) -> None:
    upp = b"".join(element.raw for element in parse(build_template(5_000, seed=1)) if element.tag != tag)
    with pytest.raises(ValueError, match=f"no profile element {tag:X}"):
        personalise(upp, ICCID19)


@pytest.mark.parametrize("size", [12_000, 12_345, 36_000, 60_000])
def test_generated_templates_have_the_size_and_a_valid_row_of_elements(size: int) -> None:
    row = parse(build_template(size, seed=3))
    assert abs(sum(len(element.raw) for element in row) - size) <= 4
    assert [f"{element.tag:X}" for element in row[:4]] == ["A0", "B0", "A3", "A2"]
    assert row[-1].tag == 0xAA
    assert {0xB2, 0xB3, 0xB4, 0xB5, 0xA4, 0xB8, 0xBC, 0xA1, 0xA6, 0xA7, 0xA8} <= {element.tag for element in row}
    numbers = [read_integer(element.children()[0].need(0x81).value) for element in row[1:]]
    assert len(set(numbers)) == len(numbers)
    assert all(element.children()[0].tag == 0xA0 for element in row[1:])


def test_the_seed_decides_the_content() -> None:
    assert build_template(12_000, seed=1) == build_template(12_000, seed=1)
    assert build_template(12_000, seed=1) != build_template(12_000, seed=2)


def test_a_stock_gives_each_identity_and_key_once() -> None:
    stock = ProfileStock(
        "t",
        [build_template(5_000, seed=1), build_template(6_000, seed=1)],
        provider="P",
        iccid_prefix="8988247",
        imsi_prefix="00101",
        first_serial=99,
    )
    profiles = [stock.take() for _ in range(4)]
    assert [len(profile.upp) for profile in profiles] == [5_000, 6_000, 5_000, 6_000]
    assert len({profile.iccid for profile in profiles}) == 4
    assert [profile.imsi for profile in profiles[:2]] == ["001010000000099", "001010000000100"]
    assert profiles[0].iccid == with_luhn("898824700000000099")
    keys = {elements(profile.upp, 0xA4)[0].need(0xA1).need(0xA1).need(0x82).value for profile in profiles}
    assert len(keys) == 4
    assert repr(profiles[0]).count("upp") == 0


@pytest.mark.parametrize(
    ("payload", "whole"),
    [("8900012345678901234", "89000123456789012341"), ("898821190000031192", "8988211900000311922")],
)
def test_luhn(payload: str, whole: str) -> None:
    assert with_luhn(payload) == whole


@pytest.mark.parametrize(
    ("imsi", "content"), [("001010123456789", "080910101032547698"), ("00101012345678", "0801101010325476f8")]
)
def test_imsi_coding(imsi: str, content: str) -> None:
    assert imsi_content(imsi).hex() == content


@pytest.mark.parametrize(("digits", "content"), [("00101", "00f110"), ("310410", "130014")])
def test_plmn_coding(digits: str, content: str) -> None:
    assert mcc_mnc(digits).hex() == content
