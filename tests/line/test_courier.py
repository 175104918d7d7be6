"""Courier bundles: carried in order, once, unaltered, or refused without a trace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ifpp.errors import IfppError, IntakeError, SettingsError
from ifpp.line.courier import Courier
from ifpp.trust.signer import SoftwareSigner, VerificationKey, create_key
from ifpp.wire.bundle import BEFORE_FIRST, BUNDLE_CONTEXT, MAX_LINE_BYTES, Signed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIMIT = 1_000_000


@dataclass
class Party:
    """One party with its folder and key."""

    name: str
    folder: Path
    signer: SoftwareSigner
    courier: Courier

    @property
    def key(self) -> VerificationKey:
        return VerificationKey.from_der(self.signer.public)


def parties(folder: Path, *names: str, limit: int = LIMIT) -> list[Party]:
    """Parties that know each other's keys."""
    folder.mkdir(exist_ok=True)
    signers = {}
    for name in names:
        create_key(folder / f"{name}.key")
        signers[name] = SoftwareSigner.load(folder / f"{name}.key")
    keys = {name: VerificationKey.from_der(signer.public) for name, signer in signers.items()}
    return [
        Party(name, folder / name, signer, Courier(name, signer, keys, folder / name, limit))
        for name, signer in signers.items()
    ]


@pytest.fixture
def hq(tmp_path: Path) -> Party:
    return parties(tmp_path, "hq", "plant")[0]


@pytest.fixture
def plant(tmp_path: Path, hq: Party) -> Party:
    signer = SoftwareSigner.load(tmp_path / "plant.key")
    return Party(
        "plant", tmp_path / "plant", signer, Courier("plant", signer, {"hq": hq.key}, tmp_path / "plant", LIMIT)
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "a.esed.jsonl", tmp_path / "b.esbpp.jsonl", tmp_path / "empty.txt"]
    made[0].write_bytes(b"chips\n" * 1000)
    made[1].write_bytes(bytes(range(256)) * 100)
    made[2].touch()
    return made


def refuse(party: Party, path: Path, code: str) -> IfppError:
    """Accept a bundle that must be refused without a trace."""
    before = listing(party.folder)
    with pytest.raises(IntakeError) as caught:
        party.courier.accept(path, NOW)
    assert caught.value.code == code
    assert listing(party.folder) == before
    return caught.value


def listing(folder: Path) -> list[tuple[str, int]]:
    """Every file below a folder with its size."""
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*") if path.is_file())


def test_a_bundle_arrives_and_its_receipt_comes_back(hq: Party, plant: Party, files: list[Path]) -> None:
    made = hq.courier.make("plant", files, NOW)
    assert (made.number, made.files) == (1, 3)
    accepted = plant.courier.accept(made.path, NOW)
    assert [path.name for path in accepted.files] == [path.name for path in files]
    assert [path.read_bytes() for path in accepted.files] == [path.read_bytes() for path in files]
    found = hq.courier.check_receipt(accepted.receipt)
    assert (found.receiver, found.number, found.outstanding) == ("plant", 1, ())
    assert found.accepted_at == "2026-03-01T00:00:00.000Z"
    assert not made.path.exists()
    assert hq.courier.check_receipt(accepted.receipt) == found


def test_both_directions_and_several_receivers_count_for_themselves(tmp_path: Path, files: list[Path]) -> None:
    hq, one, two = parties(tmp_path / "three", "hq", "one", "two")
    for party in (one, two):
        for number in (1, 2):
            made = hq.courier.make(party.name, files[:1], NOW)
            assert (made.number, party.courier.accept(made.path, NOW).number) == (number, number)
        back = party.courier.make("hq", files[1:], NOW)
        assert hq.courier.accept(back.path, NOW).sender == party.name


def test_outstanding_receipts_are_told(hq: Party, plant: Party, files: list[Path]) -> None:
    made = [hq.courier.make("plant", files, NOW) for _ in range(3)]
    receipts = [plant.courier.accept(one.path, NOW).receipt for one in made]
    assert hq.courier.check_receipt(receipts[1]).outstanding == (1, 3)
    assert hq.courier.make("plant", files, NOW).number == 4


def test_a_replay_is_refused_and_names_the_receipt(hq: Party, plant: Party, files: list[Path]) -> None:
    made = [hq.courier.make("plant", files, NOW) for _ in range(2)]
    for one in made:
        plant.courier.accept(one.path, NOW)
    for one in made:
        assert f"{one.number:06d}.receipt" in refuse(plant, one.path, "BUNDLE.REPLAYED").detail


def test_bundles_come_in_order(hq: Party, plant: Party, files: list[Path]) -> None:
    first, second, third = (hq.courier.make("plant", files, NOW) for _ in range(3))
    refuse(plant, second.path, "BUNDLE.GAP")
    plant.courier.accept(first.path, NOW)
    refuse(plant, third.path, "BUNDLE.GAP")
    plant.courier.accept(second.path, NOW)
    plant.courier.accept(third.path, NOW)


def test_a_sender_with_two_histories_is_found_out(hq: Party, plant: Party, files: list[Path], tmp_path: Path) -> None:
    plant.courier.accept(hq.courier.make("plant", files, NOW).path, NOW)
    shutil.copytree(hq.folder, tmp_path / "backup")
    plant.courier.accept(hq.courier.make("plant", files, NOW).path, NOW)
    shutil.rmtree(hq.folder)
    shutil.copytree(tmp_path / "backup", hq.folder)
    other_second = hq.courier.make("plant", files[:1], NOW)
    assert other_second.number == 2
    refuse(plant, other_second.path, "BUNDLE.FORKED")
    refuse(plant, hq.courier.make("plant", files, NOW).path, "BUNDLE.FORKED")


def altered(path: Path, change: Callable[[bytes], bytes]) -> Path:
    target = path.with_name("altered.bundle")
    target.write_bytes(change(path.read_bytes()))
    return target


ALTERED = {
    "empty": (lambda data: b"", "BUNDLE.FORMAT"),
    "cut in the manifest": (lambda data: data[:50], "BUNDLE.FORMAT"),
    "cut in a file": (lambda data: data[:-1], "BUNDLE.SIZE"),
    "something behind": (lambda data: data + b"x", "BUNDLE.SIZE"),
    "a bit of a file": (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "BUNDLE.DIGEST"),
    "number": (lambda data: data.replace(b'"number":1', b'"number":2', 1), "BUNDLE.SIGNATURE"),
    "receiver": (lambda data: data.replace(b'"receiver":"plant"', b'"receiver":"other"', 1), "BUNDLE.SIGNATURE"),
    "sender": (lambda data: data.replace(b'"sender":"hq"', b'"sender":"me"', 1), "BUNDLE.PARTY"),
    "unknown key": (lambda data: data.replace(b'"files"', b'"more":1,"files"', 1), "BUNDLE.FORMAT"),
    "another version": (lambda data: data.replace(b'"1.0"', b'"2.0"', 1), "BUNDLE.FORMAT"),
    "no signature": (lambda data: data.split(b"\n")[0] + b"\n{}\n", "BUNDLE.FORMAT"),
    "an endless line": (lambda data: b"{" * (MAX_LINE_BYTES + 1), "BUNDLE.FORMAT"),
    "binary": (lambda data: bytes(range(256)) * 9, "BUNDLE.FORMAT"),
}


@pytest.mark.parametrize(("change", "code"), ALTERED.values(), ids=ALTERED.keys())
def test_an_altered_bundle_is_refused(
    hq: Party, plant: Party, files: list[Path], change: Callable[[bytes], bytes], code: str
) -> None:
    made = hq.courier.make("plant", files, NOW)
    refuse(plant, altered(made.path, change), code)
    plant.courier.accept(made.path, NOW)


def test_a_foreign_signature_is_refused(plant: Party, files: list[Path], tmp_path: Path) -> None:
    impostor = parties(tmp_path / "elsewhere", "hq", "plant")[0]
    refuse(plant, impostor.courier.make("plant", files, NOW).path, "BUNDLE.SIGNATURE")


def test_a_bundle_for_another_party_is_refused(tmp_path: Path, files: list[Path]) -> None:
    hq, one, two = parties(tmp_path / "three", "hq", "one", "two")
    refuse(two, hq.courier.make("one", files, NOW).path, "BUNDLE.PARTY")
    assert one.courier.accept(next((hq.folder / "sent" / "one").glob("*.bundle")), NOW).number == 1


def test_a_bundle_that_is_too_large_is_neither_made_nor_accepted(
    hq: Party, plant: Party, files: list[Path], tmp_path: Path
) -> None:
    files[0].write_bytes(bytes(LIMIT + 1))
    with pytest.raises(IntakeError, match=r"BUNDLE\.SIZE"):
        hq.courier.make("plant", files, NOW)
    generous = Courier("hq", hq.signer, {"plant": plant.key}, hq.folder, 10 * LIMIT)
    refuse(plant, generous.make("plant", files, NOW).path, "BUNDLE.SIZE")


def forged(hq: Party, path: Path, **changes: object) -> Path:
    """A bundle with a manifest nobody but the sender itself could write."""
    manifest = {
        "format": "ifpp.bundle",
        "version": "1.0",
        "sender": "hq",
        "receiver": "plant",
        "number": 1,
        "previous": BEFORE_FIRST,
        "created_at": "now",
        "files": [],
    }
    line = msgspec.json.encode(manifest | changes) + b"\n"
    path.write_bytes(Signed(line, hq.signer.key_id, hq.signer.sign(BUNDLE_CONTEXT + line)).encode())
    return path


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/b", ".hidden", "", "a" * 129, "a\0b", "..", "a\n"], ids=repr
)
def test_a_file_name_leads_nowhere_else(hq: Party, plant: Party, tmp_path: Path, name: str) -> None:
    empty = {"name": name, "bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    refuse(plant, forged(hq, tmp_path / "evil.bundle", files=[empty]), "BUNDLE.FORMAT")
    good = empty | {"name": "good"}
    refuse(plant, forged(hq, tmp_path / "evil.bundle", files=[good, good]), "BUNDLE.FORMAT")
    refuse(plant, forged(hq, tmp_path / "evil.bundle", files=[]), "BUNDLE.FORMAT")
    refuse(plant, forged(hq, tmp_path / "evil.bundle", files=[good], sender="../hq"), "BUNDLE.FORMAT")
    plant.courier.accept(forged(hq, tmp_path / "good.bundle", files=[good]), NOW)


def test_names_that_cannot_travel_are_refused_when_a_bundle_is_made(hq: Party, tmp_path: Path) -> None:
    odd, twin = tmp_path / "odd name", tmp_path / "folder" / "a"
    twin.parent.mkdir()
    for path in (odd, twin, tmp_path / "a"):
        path.touch()
    for chosen in ([odd], [twin, tmp_path / "a"]):
        with pytest.raises(IntakeError, match=r"BUNDLE\.FORMAT"):
            hq.courier.make("plant", chosen, NOW)
    for receiver, chosen in (("stranger", [twin]), ("plant", [tmp_path / "missing"])):
        with pytest.raises(SettingsError, match=r"SETTINGS\.MISSING"):
            hq.courier.make(receiver, chosen, NOW)
    assert hq.courier.make("plant", [twin], NOW).number == 1


def test_what_an_acceptance_that_died_left_is_replaced(hq: Party, plant: Party, files: list[Path]) -> None:
    """It dies before the receipt: the bundle is not accepted, and may come again."""
    made = hq.courier.make("plant", files, NOW)
    receipt = plant.courier.accept(made.path, NOW).receipt
    receipt.unlink()
    (receipt.with_suffix("") / "a.esed.jsonl").write_bytes(b"half")
    receipt.with_suffix(".part").mkdir()
    again = plant.courier.accept(made.path, NOW)
    assert again.files[0].read_bytes() == files[0].read_bytes()
    assert hq.courier.check_receipt(again.receipt).number == 1


def test_a_bundle_whose_maker_died_keeps_its_number(hq: Party, plant: Party, files: list[Path]) -> None:
    made = hq.courier.make("plant", files, NOW)
    made.path.with_suffix(".manifest").unlink()
    second = hq.courier.make("plant", files, NOW)
    assert second.number == 2
    for one in (made, second):
        plant.courier.accept(one.path, NOW)


def test_receipts_that_do_not_hold(hq: Party, plant: Party, files: list[Path], tmp_path: Path) -> None:
    made = hq.courier.make("plant", files, NOW)
    receipt = plant.courier.accept(made.path, NOW).receipt
    good = receipt.read_bytes()
    bad = tmp_path / "bad.receipt"
    for data, code in (
        (good.replace(b'"number":1', b'"number":2'), "BUNDLE.SIGNATURE"),
        (good.replace(b'"receiver":"plant"', b'"receiver":"plain"'), "BUNDLE.PARTY"),
        (good + b"x", "BUNDLE.FORMAT"),
        (good[:-9], "BUNDLE.FORMAT"),
        (made.path.read_bytes(), "BUNDLE.FORMAT"),
    ):
        bad.write_bytes(data)
        with pytest.raises(IntakeError) as caught:
            hq.courier.check_receipt(bad)
        assert caught.value.code == code
    assert made.path.exists()


def test_a_receipt_for_another_history_is_refused(hq: Party, plant: Party, files: list[Path]) -> None:
    receipt = plant.courier.accept(hq.courier.make("plant", files, NOW).path, NOW).receipt
    shutil.rmtree(hq.folder)
    with pytest.raises(IntakeError, match=r"BUNDLE\.UNKNOWN"):
        hq.courier.check_receipt(receipt)
    hq.courier.make("plant", files[:1], NOW)
    with pytest.raises(IntakeError, match=r"BUNDLE\.FORKED"):
        hq.courier.check_receipt(receipt)


def test_a_receipt_of_ours_that_was_altered_is_no_memory(hq: Party, plant: Party, files: list[Path]) -> None:
    receipt = plant.courier.accept(hq.courier.make("plant", files, NOW).path, NOW).receipt
    receipt.write_bytes(receipt.read_bytes().replace(b"2026", b"2027"))
    refuse(plant, hq.courier.make("plant", files, NOW).path, "BUNDLE.SIGNATURE")
