"""The eUICC manufacturer: identities from the seed, keys from nowhere, lists that verify."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.sim import card_file, evidence, pki
from ifpp.sim.eum import Eum, eid_of, otk_id_of, signed_otk_list
from ifpp.sim.tlv import parse_one, read_bits
from tests.sim.kat import EID, KAT, octets, private

TREE = pki.Pki.create()


@pytest.mark.parametrize(
    ("first30", "check"),
    [
        ("890490321234512345123456789012", "35"),
        ("890860302022000000220000230229", "43"),
        ("898821199000000000000000000016", "54"),
        ("123450000000000000000000000001", "86"),
    ],
)
def test_eid_check_digits(first30: str, check: str) -> None:
    assert eid_of(first30) == first30 + check


def test_the_seed_gives_the_identities_and_never_the_keys() -> None:
    here, there = (Eum(TREE, seed=5) for _ in range(2))
    ours, theirs = ([eum.issue(keys=2) for _ in range(3)] for eum in (here, there))
    assert [chip.card.eid for chip in ours] == [chip.card.eid for chip in theirs]
    assert len({chip.card.eid for chip in ours}) == 3
    publics = {key.public for chip in (*ours, *theirs) for key in chip.card.one_time_keys}
    assert len(publics) == 12
    assert len({chip.card.euicc_private for chip in (*ours, *theirs)}) == 6


def test_a_chip_proves_itself_up_to_the_root() -> None:
    eum = Eum(TREE, seed=1)
    chip = eum.issue(keys=3)
    key = evidence.euicc_key(chip.record.certificate, eum.chain, TREE.ci.der, chip.record.eid)
    listed = evidence.one_time_keys(chip.record.otk_list, key, chip.record.eid)
    assert tuple(listed.items()) == chip.record.one_time_keys
    assert all(otk_id_of(public) == otk_id for otk_id, public in chip.record.one_time_keys)


def test_the_signed_list_has_the_known_bytes() -> None:
    key = card_file.OneTimeKey(0, octets("otk_id"), 0, octets("otk_pub"), octets("otk_priv"))
    challenge = octets("dialect", "list_req")[-16:]
    made = signed_otk_list(private("euicc_priv"), EID, [key], challenge=challenge, deterministic=True)
    response = parse_one(octets("dialect", "list_resp"), 0xF9)
    assert made == response.need(0xA1).value
    assert otk_id_of(octets("otk_pub")).hex() == KAT["otk_id"]


def test_euicc_info2_says_what_the_line_decides_on() -> None:
    eum = Eum(TREE, seed=1)
    info2 = parse_one(eum.info2(eum.issue(free_nvm=1000, reported_nvm=300_000)), 0xBF22)
    assert int.from_bytes(info2.need(0x84).need(0x82).value, "big") == 300_000
    assert [node.value for node in info2.need(0xA9).children()] == [TREE.ci.pkid]
    assert read_bits(info2.need(0x88).value) == {0, 3, 4}
    assert info2.need(0x81).value.hex() == "020301"


def test_a_card_file_comes_back_as_it_was_and_only_for_its_owner(tmp_path: Path) -> None:
    card = Eum(TREE, seed=1).issue(keys=2, faults={"class": "dead"}).card
    path = card_file.save(card, tmp_path)
    assert card_file.load(path) == card
    assert path.name == f"{card.eid}.card.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert card.euicc_private.hex() not in repr(card)
    assert card.one_time_keys[0].private.hex() not in repr(card)


def test_another_file_is_not_a_card(tmp_path: Path) -> None:
    path = tmp_path / "x.card.json"
    path.write_text('{"format": "ifpp.card", "version": "9.0"}')
    with pytest.raises(ValueError, match="not an ifpp"):
        card_file.load(path)
