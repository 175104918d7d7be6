"""Intake: good files come in whole, bad ones not at all, each for its own reason."""

from __future__ import annotations

import base64
import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import IntakeError, SettingsError
from ifpp.line.intake import MAX_LISTED, IntakeOutcome, IntakeReport, import_file
from ifpp.store.factory import Factory
from ifpp.trust.chain import TrustStore
from tests.line.supply import Line, Supply, contents, items_of, now, rewritten, write_chips, write_job

Items = Callable[[list[Line]], None]


@pytest.fixture(scope="module")
def supply(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    return Supply.make(tmp_path_factory.mktemp("supply"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Supply:
    """Partners below another CI."""
    return Supply.make(tmp_path_factory.mktemp("stranger"))


class Store:
    """A factory database that can show whether anything in it changed."""

    def __init__(self, path: Path, supply: Supply) -> None:
        self.path = path
        self.supply = supply
        self.factory = Factory.open(f"sqlite:///{path}")

    def take(self, path: Path, at: datetime | None = None, **options: Any) -> IntakeReport:
        return import_file(path, self.factory, self.supply.trust_store, now=at or now(), line="L1", **options)

    def refuse(self, path: Path, at: datetime | None = None, **options: Any) -> IntakeError:
        """Import a file that must be refused without a trace."""
        before = contents(self.path)
        with pytest.raises(IntakeError) as caught:
            self.take(path, at, **options)
        assert contents(self.path) == before
        return caught.value


@pytest.fixture
def store(tmp_path: Path, supply: Supply) -> Iterator[Store]:
    """A store that knows the chips."""
    made = Store(tmp_path / "factory.db", supply)
    made.take(supply.esed)
    yield made
    made.factory.close()


@pytest.fixture
def empty(tmp_path: Path, supply: Supply) -> Iterator[Store]:
    made = Store(tmp_path / "empty.db", supply)
    yield made
    made.factory.close()


# ---- good files -----------------------------------------------------------------------------------


def test_the_good_files_come_in_whole(empty: Store, supply: Supply, tmp_path: Path) -> None:
    seen: list[tuple[str, int, float]] = []
    reports = [
        empty.take(path, progress=lambda *step: seen.append(step))
        for path in (supply.esed, supply.delivery, write_job(tmp_path / "jo.job.json"))
    ]
    assert [(report.kind, report.items) for report in reports] == [("esed", 3), ("esbpp", 6), ("job", 1)]
    assert {report.outcome for report in reports} == {IntakeOutcome.IMPORTED}
    phases = [(items, phase) for items in (3, 6, 1) for phase in ("verify", "stage", "shelve")]
    assert seen == [(phase, items, 1.0) for items, phase in phases if (items, phase) != (1, "shelve")]
    (row,) = empty.factory.balance()
    assert (row.imported, row.available, row.smdp_oid) == (6, 6, "2.999.10")
    assert empty.factory.audit() == []
    item = items_of(supply.delivery)[0]
    assert empty.factory.package_bytes(item["bpp_sha256"]) == base64.b64decode(item["bpp"])
    assert [job.job_order_id for job in empty.factory.jobs("L1")] == ["JO-1"]


def test_a_file_imported_again_changes_nothing_under_any_name(store: Store, supply: Supply, tmp_path: Path) -> None:
    store.take(supply.delivery)
    copy = tmp_path / "copy.esbpp.jsonl"
    copy.write_bytes(supply.delivery.read_bytes())
    before = contents(store.path)
    for path in (supply.delivery, copy, supply.esed):
        assert store.take(path).outcome is IntakeOutcome.ALREADY_IMPORTED
    assert store.take(copy) == IntakeReport(
        copy.name, "esbpp", hashlib.sha256(copy.read_bytes()).hexdigest(), 6, IntakeOutcome.ALREADY_IMPORTED
    )
    assert contents(store.path) == before


def test_a_file_imported_before_is_not_judged_again(store: Store, supply: Supply) -> None:
    late = datetime(2100, 1, 1, tzinfo=UTC)
    assert store.take(supply.esed, late).outcome is IntakeOutcome.ALREADY_IMPORTED


def test_a_dry_run_keeps_nothing_and_finds_the_same(store: Store, supply: Supply, tmp_path: Path) -> None:
    before = contents(store.path)
    assert store.take(supply.delivery, dry_run=True).outcome is IntakeOutcome.VERIFIED
    assert contents(store.path) == before
    store.take(supply.delivery)
    other = rewritten(supply.delivery, tmp_path / "again.esbpp.jsonl", header=renamed, items=unchanged)
    assert store.refuse(other, dry_run=True).code == "INTAKE.REJECTED"


def unchanged(items: list[Line]) -> None:
    """Leave the items."""


def renamed(header: Line) -> None:
    header["delivery_id" if "delivery_id" in header else "batch_id"] = "another"


# ---- the whole file -------------------------------------------------------------------------------


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


WHOLE_FILE = {
    "empty": (lambda data: b"", "INTAKE.TRUNCATED"),
    "cut in the header": (lambda data: data[:40], "INTAKE.FORMAT"),
    "cut in an item": (lambda data: data[: len(data) // 2], "INTAKE.TRUNCATED"),
    "trailer lost": (lambda data: b"".join(lines_of(data)[:-1]), "INTAKE.TRUNCATED"),
    "an item lost": (lambda data: b"".join(lines_of(data)[:1] + lines_of(data)[2:]), "INTAKE.TRUNCATED"),
    "one digit altered": (lambda data: data.replace(b'"region":"R"', b'"region":"S"', 1), "INTAKE.DIGEST"),
    "something behind": (lambda data: data + b"\n", "INTAKE.TRUNCATED"),
    "another format": (lambda data: data.replace(b"ifpp.esbpp-delivery", b"ifpp.something-else"), "INTAKE.FORMAT"),
    "a report": (lambda data: data.replace(b"ifpp.esbpp-delivery", b"ifpp.plr"), "INTAKE.FORMAT"),
    "a newer version": (lambda data: data.replace(b'"version":"1.0"', b'"version":"2.0"'), "INTAKE.FORMAT"),
    "binary": (lambda data: bytes(range(256)) * 100, "INTAKE.FORMAT"),
}


@pytest.mark.parametrize(("change", "code"), WHOLE_FILE.values(), ids=WHOLE_FILE.keys())
def test_a_file_that_is_not_whole_is_refused(
    store: Store, supply: Supply, tmp_path: Path, change: Callable[[bytes], bytes], code: str
) -> None:
    path = tmp_path / "bad.esbpp.jsonl"
    path.write_bytes(change(supply.delivery.read_bytes()))
    error = store.refuse(path)
    assert error.code == code
    assert error.where.startswith("bad.esbpp.jsonl")


def test_a_file_that_cannot_be_opened_is_a_matter_of_settings(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.esed.jsonl", tmp_path):
        with pytest.raises(SettingsError) as caught:
            store.take(path)
        assert caught.value.code == "SETTINGS.MISSING"


def test_a_device_is_no_file(store: Store) -> None:
    with pytest.raises(SettingsError) as caught:
        store.take(Path("/dev/zero"))
    assert caught.value.code == "SETTINGS.INVALID"


def test_a_line_that_never_ends_is_not_read_to_its_end(store: Store, supply: Supply, tmp_path: Path) -> None:
    path = tmp_path / "bad.esbpp.jsonl"
    path.write_bytes(lines_of(supply.delivery.read_bytes())[0])
    with path.open("r+b") as file:
        file.truncate(1 << 26)
    error = store.refuse(path)
    assert (error.code, error.where) == ("INTAKE.OVERSIZE", "bad.esbpp.jsonl:2")


HEADERS = {
    "other SM-DPf": (lambda header: header.update(smdp_oid="2.999.12"), "INTAKE.BINDING", "2.999.12"),
    "no certificate": (lambda header: header.update(smdp_chain=["AAAA"]), "TRUST.CHAIN", "not a certificate"),
    "chain twice": (lambda header: header.update(smdp_chain=header["smdp_chain"] * 2), "TRUST.CHAIN", "role"),
}


@pytest.mark.parametrize(("change", "code", "why"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_does_not_hold_is_refused(
    store: Store, supply: Supply, tmp_path: Path, change: Callable[[Line], None], code: str, why: str
) -> None:
    error = store.refuse(rewritten(supply.delivery, tmp_path / "bad.jsonl", header=change, items=unchanged))
    assert (error.code, error.where) == (code, "bad.jsonl:1")
    assert why in error.detail


def test_files_below_a_foreign_ci_are_refused(store: Store, empty: Store, stranger: Supply) -> None:
    for target, path in ((store, stranger.delivery), (empty, stranger.esed)):
        error = target.refuse(path)
        assert (error.code, error.where) == ("TRUST.CHAIN", f"{path.name}:1")
        assert "no trusted CI" in error.detail


def test_certificates_are_judged_at_the_time_passed_in(store: Store, empty: Store, supply: Supply) -> None:
    late = datetime(2100, 1, 1, tzinfo=UTC)
    for target, path in ((store, supply.delivery), (empty, supply.esed)):
        error = target.refuse(path, late)
        assert error.code == "TRUST.CHAIN"
        assert "expired" in error.detail


# ---- single packages ------------------------------------------------------------------------------


def put(field: str, value: Any) -> Items:
    """Change one field of the first item."""
    return lambda items: items[0].update({field: value})


def swap(*fields: str) -> Items:
    """Exchange fields between the first and the third item: the packages of two chips."""

    def change(items: list[Line]) -> None:
        for field in fields:
            items[0][field], items[2][field] = items[2][field], items[0][field]

    return change


def patch(field: str, edit: Callable[[bytes], bytes]) -> Items:
    """Change bytes of the first item; the digest of a changed package is made to match."""

    def change(items: list[Line]) -> None:
        data = edit(base64.b64decode(items[0][field]))
        items[0][field] = base64.b64encode(data).decode()
        items[0]["bpp_sha256"] = hashlib.sha256(base64.b64decode(items[0]["bpp"])).hexdigest()

    return change


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def other_certificate(data: bytes) -> bytes:
    """Flip a bit inside CERT.DPpb of BF21, which smdpSignature2 does not cover."""
    return flip(len(data) - 200)(data)


def end_of_smdp_sign(data: bytes) -> bytes:
    return flip(data.index(b"\x5f\x37\x40") + 20)(data)


BAD_PACKAGES = {
    "another transaction": (put("transaction_id", "00" * 16), "INTAKE.BINDING", "transaction_id"),
    "another ICCID": (put("iccid", "8900012345678901234" + "1"), "INTAKE.BINDING", "iccid"),
    "ICCID with a wrong digit": (put("iccid", "89000123456789012342"), "INTAKE.BAD_ID", "89000123456789012342"),
    "EID with wrong digits": (put("eid", "89049032123451234512345678901236"), "INTAKE.BAD_ID", "check digits"),
    "unknown chip": (put("eid", "89882119900000000000000000001654"), "INTAKE.UNKNOWN_EID", "no eUICC data"),
    "package of another EID": (swap("eid"), "INTAKE.UNKNOWN_KEY", "is not in the chip's eUICC data"),
    "package of another EID and key": (swap("eid", "otk_id"), "INTAKE.UNKNOWN_KEY", "another one-time key"),
    "unknown key": (put("otk_id", "00" * 20), "INTAKE.UNKNOWN_KEY", "00" * 20),
    "packages exchanged": (swap("bpp", "bpp_sha256"), "INTAKE.BINDING", "transaction_id"),
    "orders exchanged": (swap("prepare_download"), "INTAKE.BINDING", "transaction_id"),
    "package altered": (put("bpp_sha256", "00" * 32), "INTAKE.DIGEST", "bpp_sha256"),
    "package cut": (patch("bpp", lambda data: data[:-1]), "INTAKE.FORMAT", "BPP"),
    "order cut": (patch("prepare_download", lambda data: data[:-1]), "INTAKE.FORMAT", "PrepareDownload"),
    "smdpSign altered": (patch("bpp", end_of_smdp_sign), "TRUST.SIGNATURE", "smdpSign"),
    "smdpSignature2 altered": (patch("prepare_download", end_of_smdp_sign), "TRUST.SIGNATURE", "smdpSignature2"),
    "another certificate": (patch("prepare_download", other_certificate), "INTAKE.BINDING", "prepare_download"),
    "expired": (put("expires_at", "2026-01-01T00:00:00Z"), "BPP.EXPIRED", "2026-01-01"),
    "field missing": (lambda items: items[0].pop("sku"), "INTAKE.FORMAT", "sku"),
    "not base64": (put("bpp", "?"), "INTAKE.FORMAT", "bpp"),
    "not an object": (lambda items: items.insert(0, "text"), "INTAKE.FORMAT", "object"),
}


@pytest.mark.parametrize(("change", "code", "why"), BAD_PACKAGES.values(), ids=BAD_PACKAGES.keys())
def test_one_bad_package_refuses_the_delivery(
    store: Store, supply: Supply, tmp_path: Path, change: Items, code: str, why: str
) -> None:
    error = store.refuse(rewritten(supply.delivery, tmp_path / "bad.jsonl", items=change))
    assert (error.code, error.where) == ("INTAKE.REJECTED", "bad.jsonl")
    first = error.items[0]
    assert (first.code, first.where.split(",")[0]) == (code, "bad.jsonl:2")
    assert why in first.detail
    assert code in error.detail


def test_an_error_names_line_chip_profile_and_reason(store: Store, supply: Supply, tmp_path: Path) -> None:
    item = items_of(supply.delivery)[0]
    error = store.refuse(
        rewritten(supply.delivery, tmp_path / "d.jsonl", items=put("expires_at", "2026-01-01T00:00:00Z"))
    )
    (first,) = error.items
    assert str(first) == (
        f"BPP.EXPIRED: d.jsonl:2, EID {item['eid']}, ICCID {item['iccid']}: "
        "expires_at: it expired at 2026-01-01T00:00:00+00:00. The package's date has passed: order a new one."
    )


def test_all_bad_items_are_named_together(store: Store, supply: Supply, tmp_path: Path) -> None:
    def change(items: list[Line]) -> None:
        items[0]["bpp_sha256"] = "00" * 32
        items[3]["iccid"] = "no digits"
        items[5]["otk_id"] = "11" * 20

    error = store.refuse(rewritten(supply.delivery, tmp_path / "bad.jsonl", items=change))
    assert [(item.code, item.where.split(",")[0]) for item in error.items] == [
        ("INTAKE.DIGEST", "bad.jsonl:2"),
        ("INTAKE.BAD_ID", "bad.jsonl:5"),
        ("INTAKE.UNKNOWN_KEY", "bad.jsonl:7"),
    ]


def test_a_long_list_of_bad_items_is_cut_but_counted(store: Store, supply: Supply, tmp_path: Path) -> None:
    def change(items: list[Line]) -> None:
        items[:] = [items[0] | {"otk_id": f"{n:040x}"} for n in range(MAX_LISTED + 50)]

    error = store.refuse(rewritten(supply.delivery, tmp_path / "bad.jsonl", items=change))
    assert len(error.items) == MAX_LISTED
    assert error.detail.startswith(f"{MAX_LISTED + 50} bad items")


def test_bad_items_of_a_file_that_is_not_whole_are_named_too(store: Store, supply: Supply, tmp_path: Path) -> None:
    path = rewritten(supply.delivery, tmp_path / "bad.jsonl", items=put("bpp_sha256", "00" * 32))
    path.write_bytes(b"".join(lines_of(path.read_bytes())[:-1]))
    error = store.refuse(path)
    assert error.code == "INTAKE.TRUNCATED"
    assert [item.code for item in error.items] == ["INTAKE.DIGEST"]


def test_a_future_expiry_is_kept(store: Store, supply: Supply, tmp_path: Path) -> None:
    later = (now() + timedelta(days=9)).isoformat()
    path = rewritten(supply.delivery, tmp_path / "good.jsonl", items=put("expires_at", later))
    assert store.take(path).items == 6


def test_a_delivery_before_its_euicc_data_waits(empty: Store, supply: Supply) -> None:
    error = empty.refuse(supply.delivery)
    assert {item.code for item in error.items} == {"INTAKE.UNKNOWN_EID"}
    empty.take(supply.esed)
    assert empty.take(supply.delivery).outcome is IntakeOutcome.IMPORTED


# ---- what is there already ------------------------------------------------------------------------


def test_another_file_with_the_same_packages_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    store.take(supply.delivery)
    error = store.refuse(rewritten(supply.delivery, tmp_path / "again.jsonl", header=renamed, items=unchanged))
    assert (error.code, error.where) == ("INTAKE.REJECTED", "again.jsonl")
    assert [(item.code, item.where) for item in error.items] == [
        ("INTAKE.DUPLICATE", f"again.jsonl:{line}, EID {item['eid']}, ICCID {item['iccid']}")
        for line, item in enumerate(items_of(supply.delivery), start=2)
    ]


def test_a_package_that_stands_twice_in_one_file_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    twice = rewritten(supply.delivery, tmp_path / "twice.jsonl", items=lambda items: items.append(items[0]))
    assert [item.code for item in store.refuse(twice).items] == ["INTAKE.DUPLICATE"]


def test_a_second_package_for_one_key_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    second = supply.deliver_again(tmp_path / "second.jsonl")
    store.take(supply.delivery)
    assert [item.code for item in store.refuse(second).items] == ["INTAKE.KEY_REUSED"]


def test_a_second_package_for_one_key_in_one_file_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    (second,) = items_of(supply.deliver_again(tmp_path / "second.jsonl"))
    both = rewritten(supply.delivery, tmp_path / "both.jsonl", items=lambda items: items.append(second))
    assert [item.code for item in store.refuse(both).items] == ["INTAKE.KEY_REUSED"]


def test_chips_that_are_known_are_refused_in_another_file(store: Store, supply: Supply, tmp_path: Path) -> None:
    other = rewritten(supply.esed, tmp_path / "other.jsonl", header=renamed, items=unchanged)
    error = store.refuse(other)
    assert [(item.code, item.where) for item in error.items] == [
        ("INTAKE.DUPLICATE", f"other.jsonl:{line}, EID {item['eid']}")
        for line, item in enumerate(items_of(supply.esed), start=2)
    ]


# ---- eUICC data -----------------------------------------------------------------------------------


def exchange(field: str) -> Items:
    def change(items: list[Line]) -> None:
        items[0][field], items[1][field] = items[1][field], items[0][field]

    return change


BAD_CHIPS = {
    "certificate of another chip": (exchange("euicc_certificate"), "TRUST.CHAIN", "certificate of EID"),
    "keys of another chip": (exchange("otk_list"), "INTAKE.BINDING", "the list is of EID"),
    "unknown chip type": (put("info2", "other"), "INTAKE.BINDING", "no EUICCInfo2 'other'"),
    "wrong check digits": (put("eid", "89049032123451234512345678901236"), "INTAKE.BAD_ID", "check digits"),
    "keys missing": (put("otk_list", ""), "INTAKE.FORMAT", "otkList"),
}


@pytest.mark.parametrize(("change", "code", "why"), BAD_CHIPS.values(), ids=BAD_CHIPS.keys())
def test_one_bad_chip_refuses_the_euicc_data(
    empty: Store, supply: Supply, tmp_path: Path, change: Items, code: str, why: str
) -> None:
    error = empty.refuse(rewritten(supply.esed, tmp_path / "bad.jsonl", items=change))
    first = error.items[0]
    assert (error.code, first.code, first.where.split(",")[0]) == ("INTAKE.REJECTED", code, "bad.jsonl:2")
    assert why in first.detail


@pytest.mark.parametrize("at", [-1, 30], ids=["signature", "list"])
def test_an_altered_one_time_key_list_is_refused(empty: Store, supply: Supply, tmp_path: Path, at: int) -> None:
    def change(items: list[Line]) -> None:
        data = bytearray(base64.b64decode(items[1]["otk_list"]))
        data[at] ^= 1
        items[1]["otk_list"] = base64.b64encode(data).decode()

    error = empty.refuse(rewritten(supply.esed, tmp_path / "bad.jsonl", items=change))
    assert [item.where.split(",")[0] for item in error.items] == ["bad.jsonl:3"]
    assert error.items[0].code in {"TRUST.SIGNATURE", "INTAKE.FORMAT"}


def test_a_broken_euicc_info2_refuses_the_file(empty: Store, supply: Supply, tmp_path: Path) -> None:
    path = rewritten(
        supply.esed, tmp_path / "bad.jsonl", header=lambda line: line.update(euicc_info2={"x": "AAAA"}), items=unchanged
    )
    error = empty.refuse(path)
    assert (error.code, error.where) == ("INTAKE.FORMAT", "bad.jsonl:1")


def test_the_trust_roots_are_those_given(empty: Store, supply: Supply) -> None:
    with pytest.raises(IntakeError) as caught:
        import_file(supply.esed, empty.factory, TrustStore([]), now=now(), line="L1")
    assert caught.value.code == "TRUST.CHAIN"


# ---- job orders -----------------------------------------------------------------------------------


def test_a_newer_version_of_a_job_order_is_taken_an_older_one_refused(empty: Store, tmp_path: Path) -> None:
    empty.take(write_job(tmp_path / "two.job.json", version=2))
    error = empty.refuse(write_job(tmp_path / "one.job.json"))
    assert [(item.code, item.where) for item in error.items] == [("INTAKE.DUPLICATE", "JO-1")]
    empty.take(write_job(tmp_path / "three.job.json", version=3, quantity=9))
    assert [(job.version, job.quantity) for job in empty.factory.jobs("L1")] == [(3, 9)]


@pytest.mark.parametrize(
    "change",
    [
        {"job_order_id": ""},
        {"product": {"part_number": ""}},
        {"region": ""},
        {"quantity": 0},
        {"version": 0},
        {"quantity": "3"},
    ],
    ids=str,
)
def test_a_job_order_that_says_too_little_is_refused(empty: Store, tmp_path: Path, change: Line) -> None:
    error = empty.refuse(write_job(tmp_path / "bad.job.json", **change))
    assert (error.code, error.where.split(":")[0]) == ("INTAKE.FORMAT", "bad.job.json")


# ---- time and memory ------------------------------------------------------------------------------


def repeated(count: int) -> Items:
    return lambda items: items.__setitem__(slice(None), [items[0]] * count)


def test_a_file_that_changes_after_it_was_verified_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    path = tmp_path / "moving.jsonl"
    path.write_bytes(supply.delivery.read_bytes())
    evil = rewritten(supply.delivery, tmp_path / "evil.jsonl", items=put("sku", "T")).read_bytes()
    assert len(evil) == path.stat().st_size

    def change(phase: str, _items: int, _share: float) -> None:
        if phase == "verify":
            with path.open("r+b") as file:
                file.write(evil)
                os.fsync(file.fileno())

    error = store.refuse(path, progress=change)
    assert (error.code, error.detail) == ("INTAKE.DIGEST", "the file changed while it was read")


def test_a_file_that_changes_while_it_is_verified_is_refused(store: Store, supply: Supply, tmp_path: Path) -> None:
    """The verified bytes would be good, and the imported ones those of the start."""
    path = rewritten(supply.delivery, tmp_path / "moving.jsonl", items=repeated(900))
    good = path.read_bytes()

    def last_altered(items: list[Line]) -> None:
        repeated(900)(items)
        items[-1] = items[-1] | {"sku": "T"}

    other = rewritten(supply.delivery, tmp_path / "other.jsonl", items=last_altered).read_bytes()
    seen: list[tuple[str, int]] = []

    def change(phase: str, items: int, _share: float) -> None:
        seen.append((phase, items))
        path.write_bytes(other if items < 900 else good)

    error = store.refuse(path, progress=change)
    assert (error.code, error.detail) == ("INTAKE.DIGEST", "the file changed while it was read")
    assert seen == [("verify", items) for items in range(100, 1000, 100)]


def test_progress_is_told_every_hundred_items(empty: Store, supply: Supply, tmp_path: Path) -> None:
    chips = [supply.parties.eum.issue(keys=1) for _ in range(250)]
    path = write_chips(tmp_path / "many.jsonl", supply.parties, chips)
    seen: list[tuple[str, int, float]] = []
    assert empty.take(path, progress=lambda *step: seen.append(step)).items == 250
    assert [step[:2] for step in seen] == [
        *((phase, items) for phase in ("verify", "stage") for items in (100, 200, 250)),
        *(("shelve", items) for items in (200, 250)),
    ]
    assert all(0 < share <= 1 for _, _, share in seen)
    assert [share for _, items, share in seen if items == 250] == [1.0, 1.0, 1.0]


def test_a_file_that_another_process_imports_meanwhile_is_already_imported(store: Store, supply: Supply) -> None:
    other = Factory.open(f"sqlite:///{store.path}")

    def overtake(phase: str, _items: int, _share: float) -> None:
        if phase == "verify":
            import_file(supply.delivery, other, supply.trust_store, now=now(), line="L1")

    assert store.take(supply.delivery, progress=overtake).outcome is IntakeOutcome.ALREADY_IMPORTED
    other.close()
    assert store.factory.balance()[0].imported == 6


def test_memory_does_not_grow_with_the_file(store: Store, supply: Supply, tmp_path: Path) -> None:
    peaks = []
    for count in (300, 900):
        path = rewritten(supply.delivery, tmp_path / "long.jsonl", items=repeated(count))
        tracemalloc.start()
        error = store.refuse(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert error.items[0].code == "INTAKE.DUPLICATE"
    assert peaks[1] < peaks[0] * 1.2
