"""From supply to chip: what EUM and SM-DPf make, a virtual eUICC takes, and the SM-DPf believes its signed results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ifpp.sim import binder
from ifpp.sim.documents import BoundPackage
from ifpp.sim.euicc import Euicc
from ifpp.sim.eum import Chip
from ifpp.sim.profiles import Profile, iccid_swapped, mcc_mnc, personalise, set_ef_iccid, set_header_iccid, with_luhn
from ifpp.sim.template import build_template
from ifpp.sim.tlv import Node, parse, parse_one, tlv
from ifpp.sim.world import tamper
from tests.sim.parties import Parties, report_line, write_report
from tests.sim.test_profiles import TS48_FILES, ts48_file

ICCID, OTHER = with_luhn("898824700000000001"), with_luhn("898824700000000002")
IMSI = "001010000000001"


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties()


def profile_of(upp: bytes) -> Profile:
    return Profile("t", "P", ICCID, IMSI, mcc_mnc("00101"), upp)


def loaded(chip: Chip, package: BoundPackage) -> bytes:
    """Prepare and load one package, block by block of 255 bytes; return what the chip says last (the PIR)."""
    euicc = Euicc(chip.card)
    euicc.reset()
    assert euicc.process(bytes.fromhex("00a4040010a0000005591010ffffffff8900000100"))[-2] in {0x90, 0x61}
    answer = parse_one(_command(euicc, package.prepare_download), 0xBF21)
    assert [node.tag for node in answer.children()] == [0xA0]
    for segment in _segments(package.bpp):
        result = _command(euicc, segment)
        if result:
            return result
    raise AssertionError("the chip gave no result")


def _segments(bpp: bytes) -> list[bytes]:
    """Cut a BPP as SGP.22 2.5.5 says: A1 and A3 as header and single blocks, the rest whole."""
    package = parse_one(bpp, 0xBF36)
    channel, *parts = package.children()
    segments = [bpp[: len(bpp) - len(package.value)] + channel.raw]
    for part in parts:
        blocks: list[Node] = part.children() if part.tag in {0xA1, 0xA3} else []
        segments += [part.raw[: len(part.raw) - len(part.value)] if blocks else part.raw]
        segments += [block.raw for block in blocks]
    return segments


def _command(euicc: Euicc, data: bytes) -> bytes:
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)]
    response = b""
    for number, piece in enumerate(pieces):
        kind = 0x91 if number == len(pieces) - 1 else 0x11
        response = euicc.process(bytes((0x80, 0xE2, kind, number, len(piece))) + piece)
    collected = response[:-2]
    while response[-2] == 0x61:
        response = euicc.process(bytes((0x00, 0xC0, 0, 0, response[-1])))
        collected += response[:-2]
    assert response[-2:] == b"\x90\x00"
    return collected


def verdict(parties: Parties, directory: Path, package: BoundPackage, pir: bytes) -> tuple[int, int] | None:
    """Have the SM-DPf judge the result: None for installed, else (command, reason)."""
    judged = parties.smdpf.verify_report(write_report(directory / "r.plr.jsonl", report_line(package, pir)))
    (one,) = judged.verified
    said = one.installation
    return None if said.installed else (said.command or 0, said.reason or 0)


def bind(parties: Parties, chip: Chip, upp: bytes, *, ppk: bool = False, metadata: bytes | None = None) -> BoundPackage:
    return parties.smdpf.bind(
        parties.item(chip), profile_of(upp), eum_chain=parties.eum.chain, ppk=ppk, metadata=metadata
    )


@pytest.mark.parametrize("ppk", [False, True], ids=["session keys", "random keys"])
@pytest.mark.parametrize("source", ["generated 12 kB", "generated 60 kB", *TS48_FILES])
def test_profiles_install(parties: Parties, tmp_path: Path, source: str, ppk: bool) -> None:
    sizes = {"generated 12 kB": 12_000, "generated 60 kB": 60_000}
    template = build_template(sizes[source], seed=1) if source in sizes else ts48_file(source)
    chip = parties.eum.issue()
    package = bind(parties, chip, personalise(template, ICCID, IMSI), ppk=ppk)
    assert verdict(parties, tmp_path, package, loaded(chip, package)) is None


def mismatches() -> dict[str, tuple[bytes, bytes | None]]:
    """The three places of an ICCID, each wrong once: name -> (profile, metadata)."""
    upp = personalise(build_template(4_000, seed=1), ICCID, IMSI)
    foreign = binder.store_metadata(iccid_swapped(OTHER), "P", "t", fqdn="x.example", mcc_mnc=mcc_mnc("00101"))
    return {
        "header": (set_header_iccid(upp, OTHER), None),
        "EF.ICCID": (set_ef_iccid(upp, OTHER), None),
        "metadata": (upp, foreign),
    }


@pytest.mark.parametrize("place", ["header", "EF.ICCID", "metadata"])
def test_an_iccid_that_differs_in_one_place_is_refused(parties: Parties, tmp_path: Path, place: str) -> None:
    upp, metadata = mismatches()[place]
    chip = parties.eum.issue()
    package = bind(parties, chip, upp, metadata=metadata)
    if metadata:
        package = replace(package, iccid=OTHER)
        parties.smdpf.orders[package.transaction_id.hex()].iccid = OTHER
    assert verdict(parties, tmp_path, package, loaded(chip, package)) == (5, 13)


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_a_package_altered_after_signing_is_refused(parties: Parties, tmp_path: Path, block: int) -> None:
    chip = parties.eum.issue()
    package = bind(parties, chip, personalise(build_template(4_000, seed=1), ICCID, IMSI))
    altered = replace(package, bpp=tamper(package.bpp, lambda _: block))
    assert verdict(parties, tmp_path, altered, loaded(chip, altered)) == (5, 8)


def test_a_chip_with_too_little_memory_refuses(parties: Parties, tmp_path: Path) -> None:
    chip = parties.eum.issue(free_nvm=2_048, reported_nvm=500_000)
    package = bind(parties, chip, personalise(build_template(4_000, seed=1), ICCID, IMSI))
    assert verdict(parties, tmp_path, package, loaded(chip, package)) == (5, 10)


def broken_rows() -> dict[str, bytes]:
    """Profiles whose row of elements is wrong."""
    row = [element.raw for element in parse(personalise(build_template(4_000, seed=1), ICCID, IMSI))]
    return {
        "no end": b"".join(row[:-1]),
        "bytes after the end": b"".join(row) + tlv(0xAB),
        "an identification twice": b"".join([*row[:3], row[2], *row[3:]]),
    }


@pytest.mark.parametrize("name", ["no end", "bytes after the end", "an identification twice"])
def test_a_wrong_row_of_elements_is_refused(parties: Parties, tmp_path: Path, name: str) -> None:
    chip = parties.eum.issue()
    package = bind(parties, chip, broken_rows()[name])
    assert verdict(parties, tmp_path, package, loaded(chip, package)) == (5, 12)
