"""Addresses, nicknames, rules and eIMs against the simulated chip, which writes and reads them by itself."""

from __future__ import annotations

import asn1tools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifpp.errors import WireError
from ifpp.model.chip import Addresses, Authorisation, EimData, Tre
from ifpp.model.ids import Iccid
from ifpp.sim import card_file
from ifpp.sim.eum import Eum, Make
from ifpp.sim.pki import Pki
from ifpp.sim.tlv import parse_one, tlv
from ifpp.wire import configuration, es10
from ifpp.wire.fpx import FPX1

ICCID = Iccid("8988211900000311930")


def test_requests_are_as_the_specifications_write_them() -> None:
    """Bytes by hand, from the tags of SGP.22 5.7 and SGP.32 (ASN.1 with automatic tags)."""
    swapped = ICCID.swapped.hex()
    assert configuration.nickname_request(ICCID, "abc").hex() == f"bf29115a0a{swapped}9003616263"
    assert configuration.addresses_request().hex() == "bf3c00"
    assert configuration.default_address_request("a.b").hex() == "bf3f058003612e62"
    assert configuration.rat_request().hex() == "bf4300"
    assert configuration.eims_request().hex() == "bf5500"
    eim = EimData("e", "f", 2, 1, bytes.fromhex("3003020101"), frozenset({0}), indirect_download=True)
    written = configuration.add_eim_request(eim).hex()
    assert written == "bf571da01b3019800165810166820102830101a505a103020101870207808900"


def test_answers_are_read_as_they_are_written() -> None:
    assert configuration.parse_addresses(bytes.fromhex("bf3c0a8003612e628103632e64")) == Addresses("a.b", "c.d")
    assert configuration.parse_addresses(bytes.fromhex("bf3c00")) == Addresses("", "")
    rat = tlv(0xBF43, tlv(0xA0, tlv(0x30, bytes.fromhex("80020560a1073005800362f210820207 80".replace(" ", "")))))
    assert configuration.parse_rat(rat) == (Authorisation(frozenset({1, 2}), ("62f210",), consent=True),)
    assert configuration.parse_add_eim(bytes.fromhex("bf5704a0020500")) == 0
    assert configuration.parse_add_eim(bytes.fromhex("bf5703810102")) == 2
    assert configuration.parse_nickname(bytes.fromhex("bf2903800101")) == 1
    assert configuration.parse_eims(bytes.fromhex("bf5502a000")) == ()


@pytest.mark.parametrize("data", ["", "bf3c", "bf290180", "bf5500", "bf43028000", "bf57028000"])
def test_what_is_no_answer_is_an_error(data: str) -> None:
    parsers = (
        configuration.parse_nickname,
        configuration.parse_eims,
        configuration.parse_rat,
        configuration.parse_add_eim,
    )
    for parse in parsers:
        with pytest.raises(WireError):
            parse(bytes.fromhex(data))


_names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(
    st.builds(
        EimData,
        id=_names,
        fqdn=st.sampled_from(["", "eim.example"]),
        id_type=st.sampled_from([None, 1, 2, 3]),
        counter=st.none() | st.integers(0, 2**31),
        certificate=st.sampled_from([b"", bytes.fromhex("3003020101")]),
        protocols=st.frozensets(st.integers(0, 4)),
        indirect_download=st.booleans(),
    )
)
def test_an_eim_is_read_as_it_was_written(eim: EimData) -> None:
    listed = parse_one(configuration.add_eim_request(eim)).value
    assert configuration.parse_eims(tlv(0xBF55, listed)) == (eim,)


def test_a_certificate_that_is_no_object_is_not_sent() -> None:
    with pytest.raises(WireError, match="no DER object"):
        configuration.add_eim_request(EimData("e", certificate=b"\x30\x05x"))


@pytest.mark.parametrize(
    ("make", "kind", "form", "product"),
    [
        (Make(), "consumer", "", ""),
        (Make(tre="discrete"), "consumer", "discrete", ""),
        (Make(iot=True, tre="integrated", tre_product="SOC-7"), "iot", "integrated", "SOC-7"),
    ],
)
def test_what_a_chip_is_comes_from_what_it_says(make: Make, kind: str, form: str, product: str) -> None:
    chip = Eum(Pki.create(), seed=1, make=make).issue()
    info2 = es10.parse_info2(card_file.euicc_info2(chip.card, []))
    assert (info2.kind, info2.form, info2.tre_product) == (kind, form, product)
    assert (info2.ipa_mode, info2.iot_versions) == ((0, (b"\x01\x02\x00",)) if make.iot else (None, ()))
    assert info2.tre == (None if not form else frozenset({Tre.INTEGRATED if form == "integrated" else Tre.DISCRETE}))


def test_a_deletion_with_a_challenge_is_answered_with_a_signature() -> None:
    answer = "f912" + "a209800100810102820100" + "5f37" + "04"
    with pytest.raises(WireError):
        FPX1.parse_deleted(bytes.fromhex(answer + "00000000"))
    signed = tlv(0xF9, bytes.fromhex("a209800100810102820100"), tlv(0x5F37, bytes(64)))
    assert FPX1.parse_deleted(signed).deleted == 2


# The shape of SGP.32's eIM objects in ASN.1 with automatic tags, for a compiler that knows nothing of our writer.
_EIM_SHAPE = """
Shape DEFINITIONS AUTOMATIC TAGS ::= BEGIN
Certificate ::= SEQUENCE { part [UNIVERSAL 2] INTEGER }
Data ::= SEQUENCE {
  id [0] UTF8String, fqdn [1] UTF8String OPTIONAL, idType [2] INTEGER OPTIONAL, counter [3] INTEGER OPTIONAL,
  token [4] INTEGER OPTIONAL, key [5] CHOICE { plain OCTET STRING, certificate Certificate } OPTIONAL,
  tls [6] CHOICE { plain OCTET STRING, certificate Certificate } OPTIONAL,
  protocols [7] BIT STRING { https (0), coaps (1), injectHttps (2) } OPTIONAL,
  ci [8] OCTET STRING OPTIONAL, indirect [9] NULL OPTIONAL }
Add ::= [87] SEQUENCE { list [0] SEQUENCE OF Data }
Added ::= [87] CHOICE { ok SEQUENCE OF CHOICE { token [4] INTEGER, done NULL }, error INTEGER }
Known ::= [85] SEQUENCE { list [0] SEQUENCE OF Data }
END
"""


def test_an_asn1_compiler_reads_and_writes_the_same_eim() -> None:
    shape = asn1tools.compile_string(_EIM_SHAPE, "ber")
    eim = EimData("eim.example", "eim.example", 2, 300, bytes.fromhex("3003020107"), frozenset({0, 2}), True)
    data = {
        "id": "eim.example",
        "fqdn": "eim.example",
        "idType": 2,
        "counter": 300,
        "key": ("certificate", {"part": 7}),
        "protocols": (b"\xa0", 3),
        "indirect": None,
    }
    assert shape.decode("Add", configuration.add_eim_request(eim)) == {"list": [data]}
    assert configuration.parse_eims(bytes(shape.encode("Known", {"list": [data]}))) == (eim,)
    assert configuration.parse_add_eim(bytes(shape.encode("Added", ("ok", [("done", None)])))) == 0
    assert configuration.parse_add_eim(bytes(shape.encode("Added", ("error", 3)))) == 3
