"""The SM-DPf: fresh keys for each binding, no key bound twice, chips that prove themselves, results that do."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from ifpp.sim import evidence
from ifpp.sim.documents import BoundPackage, JsonLinesWriter, Request, read_request
from ifpp.sim.eum import Chip, Eum
from ifpp.sim.profiles import NaaKeys, iccid_swapped, personalise
from ifpp.sim.smdpf import INSTALLED, Refusal, SmDpf
from ifpp.sim.tlv import parse_one
from tests.sim.kat import KAT, octets, private
from tests.sim.parties import TYPE, Parties, deletion, opened, report_line, result, stock, write_report


@pytest.fixture(scope="module")
def parties() -> Parties:
    return Parties()


def fulfilled(parties: Parties, request: Request) -> list[BoundPackage | Refusal]:
    return list(parties.smdpf.fulfil(request, {TYPE: stock()}))


@pytest.mark.parametrize("ppk", [False, True], ids=["session keys", "random keys"])
def test_the_chip_gets_the_profile_that_was_bound(parties: Parties, ppk: bool) -> None:
    chip = parties.eum.issue()
    package = parties.bind(chip, slot=1, ppk=ppk)
    metadata, upp = opened(chip, 1, package)
    assert (parse_one(package.bpp).first(0xA2) is not None) == ppk
    assert parse_one(metadata, 0xBF25).need(0x5A).value == iccid_swapped(package.iccid)
    assert personalise(upp, package.iccid) == upp


def test_prepare_download_and_package_are_signed_for_this_chip(parties: Parties) -> None:
    chip = parties.eum.issue()
    package = parties.bind(chip)
    otk = parse_one(bytes.fromhex("5f4941") + chip.card.one_time_keys[0].public).raw
    prepare = parse_one(package.prepare_download, 0xBF21)
    signed2, signature, certificate = prepare.children()
    key = parties.tree.dppb.key.public_key()
    evidence.verify_raw(key, signed2.raw + bytes.fromhex("5a10" + package.eid), signature.value)
    assert certificate.raw == parties.tree.dppb.der
    channel = parse_one(package.bpp).need(0xBF23)
    *members, sign = channel.children()
    evidence.verify_raw(key, b"".join(member.raw for member in members) + otk, sign.value)
    assert channel.need(0x80).value == signed2.need(0x80).value == package.transaction_id


def test_no_two_bindings_share_a_key_or_a_transaction(parties: Parties) -> None:
    packages = [parties.bind(parties.eum.issue(), ppk=ppk) for ppk in (False, True) for _ in range(10)]
    channels = [parse_one(package.bpp).need(0xBF23) for package in packages]
    assert len({channel.need(0x5F49).value for channel in channels}) == 20
    assert len({package.transaction_id for package in packages}) == 20


def test_random_key_mode_takes_new_keys_each_time(parties: Parties) -> None:
    upp = stock().take().upp
    first, second = (parties.eum.issue() for _ in range(2))
    blocks = [parse_one(parties.bind(chip, ppk=True).bpp).need(0xA3).value for chip in (first, second)]
    assert blocks[0][:64] != blocks[1][:64]
    assert len(blocks[0]) > len(upp)


def test_a_one_time_key_is_bound_once(parties: Parties) -> None:
    chip = parties.eum.issue()
    parties.bind(chip, slot=2)
    with pytest.raises(ValueError, match="is bound already"):
        parties.bind(chip, slot=2)


def test_a_request_is_served_item_by_item(parties: Parties) -> None:
    chips = [parties.eum.issue() for _ in range(3)]
    answers = fulfilled(parties, parties.request(*(parties.item(chip) for chip in chips)))
    packages = [answer for answer in answers if isinstance(answer, BoundPackage)]
    assert [package.eid for package in packages] == [chip.record.eid for chip in chips]
    assert [parse_one(package.bpp).first(0xA2) is not None for package in packages] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"otk_public": b"\x04" + bytes(64)}, "not in the chip's list"),
        ({"otk_id": bytes(20)}, "not in the chip's list"),
        ({"eid": "89049032123451234512345678901235"}, "another EID"),
        ({"profile_type": "unheard of"}, "no profiles of type"),
        ({"euicc_certificate": b"\x30\x00"}, "does not parse"),
        ({"otk_list": b"\x30\x00"}, "one-time-key list"),
        ({"info2_type": "?"}, "0 TLVs"),
    ],
)
def test_a_request_that_does_not_prove_itself_is_refused(
    parties: Parties, changes: dict[str, Any], reason: str
) -> None:
    good, bad = parties.eum.issue(), parties.eum.issue()
    request = parties.request(parties.item(good), parties.item(bad, **changes))
    served, refused = fulfilled(parties, request)
    assert isinstance(served, BoundPackage)
    assert isinstance(refused, Refusal)
    assert reason in refused.reason


def test_an_altered_key_list_is_refused(parties: Parties) -> None:
    chip, other = parties.eum.issue(), parties.eum.issue()
    mixed = parties.item(chip, otk_list=other.record.otk_list)
    flipped = bytearray(chip.record.otk_list)
    flipped[-1] ^= 1
    altered = parties.item(chip, otk_list=bytes(flipped))
    answers = fulfilled(parties, parties.request(mixed, altered))
    reasons = [answer.reason for answer in answers if isinstance(answer, Refusal)]
    assert reasons == ["the signature does not hold"] * 2


def test_a_certificate_of_an_unknown_version_is_refused(parties: Parties) -> None:
    chip = parties.eum.issue()
    strange = chip.record.certificate.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020164"), 1)
    (answer,) = fulfilled(parties, parties.request(parties.item(chip, euicc_certificate=strange)))
    assert isinstance(answer, Refusal)
    assert "does not parse" in answer.reason


def test_a_chip_of_a_foreign_tree_is_refused(parties: Parties) -> None:
    foreign = Parties()
    (answer,) = parties.smdpf.fulfil(foreign.request(foreign.item(foreign.eum.issue())), {TYPE: stock()})
    assert isinstance(answer, Refusal)
    assert "did not sign" in answer.reason


def test_a_chip_that_trusts_another_ci_is_refused(parties: Parties) -> None:
    foreign = Parties()
    eum = Eum(parties.tree, seed=9, trusted=[foreign.tree.ci.der])
    chip = eum.issue()
    request = Request("r", "o", eum.chain, {chip.record.info2_type: eum.info2(chip)}, (parties.item(chip),))
    (answer,) = parties.smdpf.fulfil(request, {TYPE: stock()})
    assert isinstance(answer, Refusal)
    assert "does not trust this SM-DPf's CI" in answer.reason


def test_a_request_file_is_read_back(parties: Parties, tmp_path: Path) -> None:
    request = parties.request(parties.item(parties.eum.issue()))
    path = tmp_path / "r.esbpp-request.jsonl"
    _write_request(path, request)
    assert read_request(path) == request


# ---- reports ---------------------------------------------------------------------------------------


def delivered(parties: Parties) -> tuple[Chip, BoundPackage]:
    chip = parties.eum.issue()
    return chip, parties.bind(chip)


def test_a_signed_success_is_verified_and_noted(parties: Parties, tmp_path: Path) -> None:
    chip, package = delivered(parties)
    path = write_report(tmp_path / "r", report_line(package, result(chip, package)))
    verdict = parties.smdpf.verify_report(path)
    assert (verdict.installed, verdict.refused, verdict.unsigned) == (1, (), ())
    assert parties.smdpf.orders[package.transaction_id.hex()].result == INSTALLED
    assert parties.smdpf.verify_report(path) == verdict


def test_a_signed_failure_is_verified_too(parties: Parties, tmp_path: Path) -> None:
    chip, package = delivered(parties)
    verdict = parties.smdpf.verify_report(
        write_report(tmp_path / "r", report_line(package, result(chip, package, error=(5, 10))))
    )
    assert [(one.installation.command, one.installation.reason) for one in verdict.verified] == [(5, 10)]
    assert verdict.installed == 0
    assert parties.smdpf.orders[package.transaction_id.hex()].result.endswith("(5, 10)")


def test_a_failure_then_a_success_on_the_same_package(parties: Parties, tmp_path: Path) -> None:
    chip, package = delivered(parties)
    lines = [
        report_line(package, result(chip, package, seq=3, error=(5, 11))),
        report_line(package, result(chip, package, seq=4)),
    ]
    path = write_report(tmp_path / "r", *lines)
    first = parties.smdpf.verify_report(path)
    assert [one.installation.installed for one in first.verified] == [False, True]
    assert parties.smdpf.verify_report(path) == first
    assert parties.smdpf.orders[package.transaction_id.hex()].result == INSTALLED


def deletion_line(package: BoundPackage, pir: bytes, notification: bytes | None) -> dict[str, Any]:
    told = {} if notification is None else {"notification": base64.b64encode(notification).decode()}
    return report_line(package, pir, deleted={"at": "2026-03-01T08:00:00.000Z", **told})


def test_a_deletion_is_the_chips_word_or_the_factorys(parties: Parties, tmp_path: Path) -> None:
    chip, package = delivered(parties)
    order, pir = parties.smdpf.orders[package.transaction_id.hex()], result(chip, package)
    for name, signed, word in (("a", None, "the factory's"), ("b", deletion(chip, package.iccid), "the chip's")):
        verdict = parties.smdpf.verify_report(write_report(tmp_path / name, deletion_line(package, pir, signed)))
        assert (verdict.installed, verdict.refused, order.deleted) == (1, (), word)


@pytest.mark.parametrize("wrong", ["profile", "event", "signature", "form"])
def test_a_deletion_that_proves_nothing_is_refused(parties: Parties, tmp_path: Path, wrong: str) -> None:
    chip, package = delivered(parties)
    signed = deletion(
        chip, "8988247082719999990" if wrong == "profile" else package.iccid, event=1 if wrong == "event" else 3
    )
    if wrong == "signature":
        signed = signed[:-1] + bytes([signed[-1] ^ 1])
    if wrong == "form":
        signed = b"\x30\x03\x02\x01\x00"
    verdict = parties.smdpf.verify_report(
        write_report(tmp_path / "r", deletion_line(package, result(chip, package), signed))
    )
    assert len(verdict.refused) == 1
    assert parties.smdpf.orders[package.transaction_id.hex()].deleted == ""


def test_a_line_without_result_proves_nothing(parties: Parties, tmp_path: Path) -> None:
    _, package = delivered(parties)
    verdict = parties.smdpf.verify_report(write_report(tmp_path / "r", report_line(package, None)))
    assert [item.fpa_error["code"] for item in verdict.unsigned] == ["CONTACT.NO_ATR"]
    assert parties.smdpf.orders[package.transaction_id.hex()].result == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"smdp_oid": "2.999.12"}, "another SM-DPf"),
        ({"iccid": "8988211900000311922"}, "another profile"),
        ({"transaction_id": bytes(16)}, "another transaction"),
        ({"events": 1}, "not of an installation"),
        ({"status": 7}, "profile element that failed"),
    ],
)
def test_a_result_that_is_not_the_orders_is_refused(
    parties: Parties, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    chip, package = delivered(parties)
    path = write_report(tmp_path / "r", report_line(package, result(chip, package, **changes)))
    ((_, why),) = parties.smdpf.verify_report(path).refused
    assert reason in why


def test_a_forged_result_is_refused(parties: Parties, tmp_path: Path) -> None:
    _, package = delivered(parties)
    other, _ = delivered(parties)
    forged = report_line(package, result(other, package))
    garbage = report_line(package, b"\xbf\x37\x03\x00")
    unknown = report_line(package, result(other, package), transaction_id="00" * 16)
    strange = report_line(package, result(other, package), iccid="8988211900000311922")
    verdict = parties.smdpf.verify_report(write_report(tmp_path / "r", forged, garbage, unknown, strange))
    assert [why.split(":")[0] for _, why in verdict.refused] == [
        "the signature does not hold",
        "installation result",
        "no such order",
        "EID or ICCID is not the order's",
    ]


def test_an_older_or_second_result_is_refused(parties: Parties, tmp_path: Path) -> None:
    chip, package = delivered(parties)
    lines = (result(chip, package, seq=5), result(chip, package, seq=4), result(chip, package, seq=6))
    path = write_report(tmp_path / "r", *(report_line(package, pir) for pir in lines))
    verdict = parties.smdpf.verify_report(path)
    assert len(verdict.verified) == 1
    assert [why for _, why in verdict.refused] == [
        "the result is older than one already taken",
        "the order is already installed",
    ]


def test_a_report_for_another_smdpf_is_not_read(parties: Parties, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"for 2\.999\.12, not for 2\.999\.10"):
        parties.smdpf.verify_report(write_report(tmp_path / "r", smdp_oid="2.999.12"))


def test_orders_and_key_outlive_the_process(tmp_path: Path) -> None:
    parties = Parties()
    chip, package = delivered(parties)
    parties.smdpf.save(tmp_path / "smdpf")
    again = SmDpf.load(tmp_path / "smdpf")
    path = write_report(tmp_path / "r", report_line(package, result(chip, package)))
    assert again.verify_report(path).installed == 1
    with pytest.raises(ValueError, match="bound already"):
        again.bind(parties.item(chip), stock().take(), eum_chain=parties.eum.chain)
    assert {entry.stat().st_mode & 0o777 for entry in (tmp_path / "smdpf").iterdir()} == {0o600}


def test_the_known_results_verify() -> None:
    key = private("euicc_priv").public_key()
    good = evidence.installation(octets("pir_ok"), key)
    bad = evidence.installation(octets("pir_err"), key)
    assert (good.installed, good.smdp_oid, good.transaction_id) == (True, "2.999.10", octets("transactionId"))
    assert good.iccid == bytes.fromhex(KAT["iccid_5A"])
    assert (bad.installed, bad.command, bad.reason) == (False, 5, 12)
    with pytest.raises(evidence.EvidenceError, match="does not hold"):
        evidence.installation(octets("pir_ok"), private("dppb_priv").public_key())


def test_keys_and_packages_are_not_printed(parties: Parties) -> None:
    keys = NaaKeys.fresh()
    assert keys.ki.hex() not in repr(keys)
    _, package = delivered(parties)
    assert repr(package.bpp)[2:20] not in repr(package)


def _write_request(path: Path, request: Request) -> None:
    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    header = {
        "format": "ifpp.esbpp-request",
        "version": "1.0",
        "request_id": request.request_id,
        "order_ref": request.order_ref,
        "created_at": "2026-01-01T00:00:00.000Z",
        "eum_chain": [b64(certificate) for certificate in request.eum_chain],
        "euicc_info2": {kind: b64(value) for kind, value in request.info2.items()},
    }
    with JsonLinesWriter(path, header) as out:
        for item in request.items:
            out.add(
                {
                    "eid": item.eid,
                    "otk_id": item.otk_id.hex(),
                    "otk_public": b64(item.otk_public),
                    "euicc_certificate": b64(item.euicc_certificate),
                    "otk_list": b64(item.otk_list),
                    "info2": item.info2_type,
                    "profile_type": item.profile_type,
                    "sku": item.sku,
                    "region": item.region,
                }
            )
