"""The virtual eUICC against the known answers of vectors/kat-ifpp.json, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifpp.sim import binder, pki
from ifpp.sim.bsp import derive
from ifpp.sim.card_file import OneTimeKey
from ifpp.sim.euicc import Euicc
from ifpp.sim.pki import Holder
from ifpp.sim.tlv import tlv
from tests.sim.bench import TREE, Terminal, kat_card
from tests.sim.kat import EID, KAT, octets, private

KEY = OneTimeKey(slot=0, otk_id=octets("otk_id"), alg=0, public=octets("otk_pub"), private=octets("otk_priv"))
DPPB = Holder(
    private("dppb_priv"),
    TREE.ci.issue(pki.DPPB, pki.name_of("KAT", "DPpb"), private("dppb_priv").public_key()),
)
TARGET = binder.BindingTarget(EID, octets("otk_pub"))


@pytest.fixture
def card() -> Euicc:
    made = Euicc(kat_card([KEY], eid=EID, euicc_private=octets("euicc_priv"), roots=(TREE.ci.der,)))
    made.reset()
    return made


@pytest.fixture
def terminal(card: Euicc) -> Terminal:
    return Terminal(card)


def prepare(terminal: Terminal) -> bytes:
    def sign(data: bytes) -> bytes:
        return pki.sign_raw(DPPB.key, data, deterministic=True)

    request = binder.prepare_download(TARGET, octets("transactionId"), DPPB.der, sign)
    data, sw = terminal.send(request)
    assert sw == 0x9000
    return data


def test_prepare_download_answer(terminal: Terminal) -> None:
    assert prepare(terminal) == octets("dialect", "prepare_resp")


@pytest.mark.parametrize("mode", ["session_mode", "ppk_mode"])
def test_load_ends_with_the_known_result(terminal: Terminal, mode: str) -> None:
    prepare(terminal)
    assert terminal.load(octets(mode, "bpp")) == (octets("pir_ok"), 0x9000)


def test_apdus_on_channel_1_as_listed(terminal: Terminal) -> None:
    """The listed APDUs as they stand, not our own cutting of the package."""
    prepare(terminal)
    answers = [terminal.transmit(bytes.fromhex(apdu)) for apdu in KAT["session_mode"]["apdus_255_ch1"]]
    assert answers[:-1] == [b"\x90\x00"] * 5
    assert terminal.fetch(answers[-1]) == (octets("pir_ok"), 0x9000)


def test_refused_profile_element_gives_the_known_result(terminal: Terminal) -> None:
    """pir_err: PE 1 has bad values, here an MF without a content of EF.ICCID."""
    mf = bytes.fromhex("b009a003810101a4028000")
    prepare(terminal)
    session = derive(private("dp_ot_priv"), octets("otk_pub"), octets("hostId"), bytes.fromhex(EID))
    upp = octets("upp")
    parts = binder.protected_parts(session, octets("bf25"), upp[:-9] + mf + upp[-9:])
    assert terminal.load(tlv(0xBF36, octets("bf23"), parts)) == (octets("pir_err"), 0x9000)


def test_dialect_messages(card: Euicc, terminal: Terminal) -> None:
    def answer(name: str) -> bytes:
        data, sw = terminal.send(octets("dialect", name))
        assert sw == 0x9000
        return data

    card.nvm.list_signing, card.nvm.strict = False, True  # a chip without flags, as the vector has it
    assert answer("status_req") == octets("dialect", "status_resp")
    card.nvm.list_signing = True
    assert answer("list_req") == octets("dialect", "list_resp")
    assert answer("delete_req") == octets("dialect", "delete_resp")
    assert answer("lock_req") == octets("dialect", "lock_resp")


def test_kat_key_is_bound_to_its_curve() -> None:
    """A key said to be on brainpoolP256r1 is not usable with a P-256 certificate: unsupportedCurve(3)."""
    card = Euicc(kat_card([replace(KEY, alg=1)], eid=EID, euicc_private=octets("euicc_priv"), roots=(TREE.ci.der,)))
    card.reset()
    assert prepare(Terminal(card)).hex().endswith("020103")
