"""Files between the actors: what is read, what is refused and where, and that no half file gets its name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ifpp.errors import CustodyError, IntakeError
from ifpp.model.ids import Eid, Iccid
from ifpp.wire.documents import (
    FpaError,
    ReportHeader,
    ReportItem,
    RequestHeader,
    RequestItem,
    read_acknowledgement,
    read_delivery,
    read_esed,
    read_job_order,
    read_report,
    write_esbpp_request,
    write_report,
)
from ifpp.wire.jsonlines import MAX_LINE_BYTES, Hex, Stamp
from tests.wire.files import (
    ACKNOWLEDGEMENT,
    CHIP,
    DELIVERY,
    ESED,
    JOB,
    OUTCOME,
    PACKAGE,
    REPORT,
    WORD,
    Json,
    b64,
    lines,
    sealed,
)


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def drain(read: Callable[..., Any], data: bytes) -> tuple[Any, list[Any]]:
    header, items = read(stream(data), "batch.jsonl")
    return header, list(items)


def refusal(read: Callable[..., Any], data: bytes) -> IntakeError:
    with pytest.raises(IntakeError) as caught:
        drain(read, data)
    return caught.value


# ---- reading -----------------------------------------------------------------------------------------


def test_esed() -> None:
    header, items = drain(read_esed, sealed(ESED, CHIP, CHIP))
    assert (header.batch_id, header.version, header.eum_chain) == ("LOT-7", "1.0", [b"EUM"])
    assert header.created_at == "2026-03-01T08:15:30.123Z"
    assert header.euicc_info2 == {"T1": b"BF22"}
    assert len(items) == 2
    assert isinstance(items[0].eid, Eid)
    assert (items[0].euicc_certificate, items[0].otk_list, items[0].info2) == (b"CERT", b"LIST", "T1")


def test_delivery() -> None:
    expiring = PACKAGE | {"expires_at": "2027-01-01T00:00:00+00:00"}
    header, (first, second) = drain(read_delivery, sealed(DELIVERY, PACKAGE, expiring))
    assert (header.smdp_oid, header.smdp_chain) == ("2.999.10", [b"DPpb"])
    assert (first.otk_id, first.transaction_id, first.bpp_sha256) == (b"\xab" * 20, b"\xa0\xa1", b"\xcd" * 32)
    assert isinstance(first.iccid, Iccid)
    assert (first.prepare_download, first.bpp) == (b"BF21", b"BF36")
    assert (first.expires_at, second.expires_at) == (None, "2027-01-01T00:00:00.000Z")


def test_report() -> None:
    failed = {key: value for key, value in OUTCOME.items() if key != "pir"} | {
        "outcome": "FAILED",
        "fpa_error": {"code": "CONTACT.LOST", "text": "gone"},
    }
    header, (first, second) = drain(read_report, sealed(REPORT, OUTCOME, failed))
    assert (header.from_, header.to) == ("2026-03-01T00:00:00.000Z", "2026-03-02T00:00:00.000Z")
    assert (first.pir, first.fpa_error) == (b"BF37", None)
    assert (second.pir, second.fpa_error) == (None, FpaError(code="CONTACT.LOST", text="gone"))


def test_a_transaction_id_has_up_to_16_bytes() -> None:
    longest = {"transaction_id": "a0" * 16}
    assert drain(read_delivery, sealed(DELIVERY, PACKAGE | longest))[1][0].transaction_id == b"\xa0" * 16
    assert drain(read_report, sealed(REPORT, OUTCOME | longest))[1][0].transaction_id == b"\xa0" * 16


def test_a_file_without_items() -> None:
    assert drain(read_esed, sealed(ESED))[1] == []


def test_later_minor_versions_and_unknown_keys_are_read() -> None:
    header, items = drain(read_esed, sealed(ESED | {"version": "1.17", "new": [1]}, CHIP | {"new": {"end": True}}))
    assert (header.version, len(items)) == ("1.17", 1)


def test_an_item_is_no_trailer_because_it_has_the_word_end_in_it() -> None:
    _, items = drain(read_report, sealed(REPORT, OUTCOME | {"station": "end", "note": '"end"', "end": False}))
    assert items[0].station == "end"


def test_one_line_is_read_at_a_time() -> None:
    source = stream(sealed(ESED, *[CHIP] * 1000))
    _, items = read_esed(source)
    assert source.tell() == len(lines(ESED))
    next(items)
    assert source.tell() == len(lines(ESED, CHIP))
    assert items.where == "document:2"
    assert len(list(items)) == 999
    with pytest.raises(StopIteration):
        next(items)


def test_the_name_of_a_real_file_is_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "lot.esed.jsonl"
    path.write_bytes(lines(ESED, CHIP))
    with path.open("rb") as file, pytest.raises(IntakeError) as caught:
        list(read_esed(file)[1])
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize("cut", range(1, 420, 7))
def test_a_file_cut_anywhere_is_truncated(cut: int) -> None:
    data = sealed(ESED, CHIP)
    error = refusal(read_esed, data[: len(data) - cut] if cut < len(data) else b"")
    assert error.code == "INTAKE.TRUNCATED"


def test_a_file_without_its_trailer_is_truncated() -> None:
    error = refusal(read_esed, lines(ESED, CHIP))
    assert (error.code, error.where) == ("INTAKE.TRUNCATED", "batch.jsonl:3")


def test_a_missing_item_is_counted() -> None:
    error = refusal(read_esed, sealed(ESED, CHIP, items=2))
    assert error.code == "INTAKE.TRUNCATED"
    assert "the trailer counts 2 items, the file holds 1" in str(error)


@pytest.mark.parametrize("place", [30, len(lines(ESED)) + 60])
def test_a_changed_byte_is_found_by_the_digest(place: int) -> None:
    data = bytearray(sealed(ESED | {"note": "x" * 40}, CHIP | {"note": "x" * 40}))
    at = data.index(b"xxxx", place)
    data[at] = ord("y")
    error = refusal(read_esed, bytes(data))
    assert (error.code, error.where) == ("INTAKE.DIGEST", "batch.jsonl:3")


@pytest.mark.parametrize("extra", [b"\n", b"{}", lines(CHIP), b"\x00"])
def test_nothing_may_follow_the_trailer(extra: bytes) -> None:
    error = refusal(read_esed, sealed(ESED, CHIP) + extra)
    assert error.code == "INTAKE.FORMAT"
    assert "something follows the trailer" in str(error)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (DELIVERY, "is 'ifpp.esbpp-delivery' version '1.0', expected ifpp.esed 1.x"),
        (ESED | {"version": "2.0"}, "is 'ifpp.esed' version '2.0', expected ifpp.esed 1.x"),
        (ESED | {"version": "1.0beta"}, "expected ifpp.esed 1.x"),
        (ESED | {"version": "11.0"}, "expected ifpp.esed 1.x"),
        (ESED | {"version": 1}, "$.version"),
        ({key: value for key, value in ESED.items() if key != "format"}, "missing required field `format`"),
        ({key: value for key, value in ESED.items() if key != "eum_chain"}, "missing required field `eum_chain`"),
        (ESED | {"eum_chain": []}, "$.eum_chain"),
        (ESED | {"eum_chain": ["A"]}, "$.eum_chain"),
        (ESED | {"eum_chain": [b64(b"C")] * 9}, "$.eum_chain"),
        (ESED | {"batch_id": ""}, "$.batch_id"),
        (ESED | {"created_at": "2026-03-01T08:15:30"}, "has no time zone"),
        (ESED | {"created_at": "yesterday"}, "$.created_at"),
        (ESED | {"created_at": "9999-12-31T23:59:59-12:00"}, "is outside the calendar"),
        (b"[]", "Expected `object`"),
        (b"", "Input data was truncated"),
        (b"\xff\xfe", "malformed"),
        (b'{"format":"ifpp.esed","version":"\xff"}', "utf-8"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "recursion"),
    ],
)
def test_headers_that_are_refused(header: Json | bytes, says: str) -> None:
    error = refusal(read_esed, sealed(header, CHIP))
    assert (error.code, error.where) == ("INTAKE.FORMAT", "batch.jsonl:1")
    assert says in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"eid": 5}, "expected a string for Eid"),
        ({"otk_id": "ab" * 19}, "otk_id has 19 bytes"),
        ({"otk_id": "AB" * 20}, "expected lower-case hex"),
        ({"otk_id": "ab " * 20}, "expected lower-case hex"),
        ({"transaction_id": ""}, "expected lower-case hex"),
        ({"transaction_id": "a0" * 17}, "transaction_id has 17 bytes"),
        ({"bpp_sha256": "cd" * 31}, "bpp_sha256 has 31 bytes"),
        ({"bpp": "A_A="}, "$.bpp"),
        ({"bpp": None}, "$.bpp"),
        ({"sku": ""}, "$.sku"),
        ({"sku": "x" * 257}, "$.sku"),
        ({"expires_at": "2027-01-01"}, "has no time zone"),
    ],
)
def test_items_that_are_refused(change: Json, says: str) -> None:
    error = refusal(read_delivery, sealed(DELIVERY, PACKAGE, PACKAGE | change))
    assert (error.code, error.where) == ("INTAKE.FORMAT", "batch.jsonl:3")
    assert says in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"eid": CHIP["eid"][:-1] + "6"}, "the check digits of EID"),
        ({"eid": "not digits"}, "an EID has 32 decimal digits"),
        ({"iccid": "8988211900000311923"}, "the check digit of ICCID"),
        ({"iccid": ""}, "an ICCID has 19 or 20 decimal digits"),
    ],
)
def test_identifiers_that_do_not_hold_have_their_own_code(change: Json, says: str) -> None:
    error = refusal(read_delivery, sealed(DELIVERY, PACKAGE, PACKAGE | change))
    assert (error.code, error.where) == ("INTAKE.BAD_ID", "batch.jsonl:3")
    assert says in str(error)


@pytest.mark.parametrize("oid", ["0.0", "1.3.6.1.4.1.0.99", "2.999.1234567890"])
def test_object_identifiers_of_every_root(oid: str) -> None:
    assert drain(read_delivery, sealed(DELIVERY | {"smdp_oid": oid}))[0].smdp_oid == oid


@pytest.mark.parametrize("oid", ["", "3.1", "2", "2.01", "2.x", "2.999.10\n", "2.999."])
def test_object_identifiers_are_dotted(oid: str) -> None:
    assert "$.smdp_oid" in str(refusal(read_delivery, sealed(DELIVERY | {"smdp_oid": oid})))


@pytest.mark.parametrize(
    "trailer",
    [{"end": True}, {"end": True, "items": "1", "sha256": "00" * 32}, {"end": True, "items": 1, "sha256": "zz"}],
)
def test_a_trailer_that_does_not_hold_is_told_as_one(trailer: Json) -> None:
    error = refusal(read_esed, lines(ESED, CHIP, trailer))
    assert (error.code, error.where) == ("INTAKE.FORMAT", "batch.jsonl:3")


def test_a_report_item_has_a_result_or_an_error() -> None:
    bare = {key: value for key, value in OUTCOME.items() if key != "pir"}
    assert "a report item has a pir or an fpa_error" in str(refusal(read_report, sealed(REPORT, bare)))


def test_an_acknowledgement_has_a_word_on_each_item() -> None:
    refused = WORD | {"verdict": "refused", "reason": "another transaction"}
    header, (first, second) = drain(read_acknowledgement, sealed(ACKNOWLEDGEMENT, WORD, refused))
    assert (header.report_id, header.report_sha256) == ("P-1", b"\xef" * 32)
    assert (first.verdict, first.reason, first.transaction_id) == ("verified", "", b"\xa0\xa1")
    assert (second.verdict, second.reason) == ("refused", "another transaction")


@pytest.mark.parametrize(
    "wrong", [{"verdict": "refused"}, {"reason": "why"}, {"verdict": "maybe"}, {"transaction_id": "a0" * 17}]
)
def test_an_acknowledgement_that_says_half_is_refused(wrong: dict[str, str]) -> None:
    assert refusal(read_acknowledgement, sealed(ACKNOWLEDGEMENT, WORD | wrong)).code == "INTAKE.FORMAT"


def test_a_line_has_a_longest_length() -> None:
    filler = MAX_LINE_BYTES - len(lines(CHIP | {"note": ""}))
    assert len(drain(read_esed, sealed(ESED, CHIP | {"note": "x" * filler}))[1]) == 1
    error = refusal(read_esed, sealed(ESED, CHIP | {"note": "x" * (filler + 1)}))
    assert (error.code, error.where) == ("INTAKE.OVERSIZE", "batch.jsonl:2")


def test_a_disk_that_fails_while_reading() -> None:
    class Broken(io.BytesIO):
        def readline(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(IntakeError, match="Input/output error"):
        read_esed(Broken(), "x")


# ---- job orders --------------------------------------------------------------------------------------


def test_job_order() -> None:
    job = read_job_order(stream(json.dumps(JOB, indent=2).encode()))
    assert (job.job_order_id, job.version, job.quantity, job.operation) == ("J-1", 3, 500, "PROFILE_LOAD")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (json.dumps(JOB | {"version": "2.0"}).encode(), "expected ifpp.job-order 1.x"),
        (json.dumps(JOB | {"job": {}}).encode(), "$.job"),
        (json.dumps(ESED).encode(), "expected ifpp.job-order 1.x"),
        (json.dumps(JOB).encode() + b" " * MAX_LINE_BYTES, "longer than"),
    ],
)
def test_job_orders_that_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(IntakeError) as caught:
        read_job_order(stream(data), "order.job.json")
    code = "INTAKE.OVERSIZE" if len(data) > MAX_LINE_BYTES else "INTAKE.FORMAT"
    assert (caught.value.code, caught.value.where) == (code, "order.job.json")
    assert says in str(caught.value)


# ---- writing -----------------------------------------------------------------------------------------

NOW = Stamp("2026-03-02T00:10:00Z")
REQUEST = RequestHeader(
    request_id="R-1", order_ref="PO-1", created_at=NOW, eum_chain=[b"EUM"], euicc_info2={"T1": b"I"}
)
PERIOD = ReportHeader(report_id="P-1", smdp_oid="2.999.10", from_=NOW, to=NOW, created_at=NOW)


def wanted() -> RequestItem:
    return RequestItem(
        eid=Eid(CHIP["eid"]),
        otk_id=Hex(b"\xab" * 20),
        otk_public=b"\x04" * 65,
        euicc_certificate=b"CERT",
        otk_list=b"LIST",
        info2="T1",
        profile_type="data",
        sku="SKU-1",
        region="EU",
    )


def reported(**changes: Any) -> ReportItem:
    values: dict[str, Any] = {
        "eid": Eid(CHIP["eid"]),
        "iccid": Iccid(PACKAGE["iccid"]),
        "transaction_id": Hex(b"\xa0"),
        "outcome": "INSTALLED",
        "station": "S1",
        "head": "H1",
        "started_at": NOW,
        "ended_at": NOW,
        "pir": b"BF37",
    }
    return ReportItem(**values | changes)


def test_a_request_as_the_smdpf_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "r.esbpp-request.jsonl"
    with write_esbpp_request(path, REQUEST) as request:
        request.add(wanted())
        assert request.items == 1
    header, item, trailer = (json.loads(line) for line in path.read_bytes().splitlines())
    assert header == {
        "format": "ifpp.esbpp-request",
        "version": "1.0",
        "request_id": "R-1",
        "order_ref": "PO-1",
        "created_at": "2026-03-02T00:10:00.000Z",
        "eum_chain": [b64(b"EUM")],
        "euicc_info2": {"T1": b64(b"I")},
    }
    assert item == {
        "eid": CHIP["eid"],
        "otk_id": "ab" * 20,
        "otk_public": b64(b"\x04" * 65),
        "euicc_certificate": b64(b"CERT"),
        "otk_list": b64(b"LIST"),
        "info2": "T1",
        "profile_type": "data",
        "sku": "SKU-1",
        "region": "EU",
    }
    body = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    assert trailer == {"end": True, "items": 1, "sha256": hashlib.sha256(body).hexdigest()}
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "p.plr.jsonl"
    written = [reported(), reported(pir=None, outcome="FAILED", fpa_error=FpaError(code="CONTACT.LOST", text="gone\n"))]
    with write_report(path, PERIOD) as report:
        for item in written:
            report.add(item)
    with path.open("rb") as file:
        header, items = read_report(file)
        assert (header, list(items)) == (PERIOD, written)
    assert b'"from":"2026-03-02T00:10:00.000Z"' in path.read_bytes()
    assert b"null" not in path.read_bytes()


def test_no_file_gets_its_name_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with write_esbpp_request(path, REQUEST) as request:
        request.add(wanted())
        assert not path.exists()
    assert path.exists()


def test_after_an_exception_nothing_is_left_and_an_older_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"older")
    with pytest.raises(AttributeError), write_esbpp_request(path, REQUEST) as request:
        request.add(wanted().no_such_field)  # type: ignore[attr-defined]
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"older")
    with write_esbpp_request(path, REQUEST):
        pass
    assert path.read_bytes().startswith(b'{"format":"ifpp.esbpp-request"')


def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    seen: list[tuple[str, bool]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        is_folder = Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path
        seen.append(("folder" if is_folder else "file", path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with write_esbpp_request(path, REQUEST):
        pass
    assert seen == [("file", False), ("folder", True)]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "r.jsonl"
    with pytest.raises(CustodyError) as caught, write_esbpp_request(path, REQUEST):
        pass
    assert (caught.value.code, caught.value.where) == ("FILE.WRITE", str(path))


@pytest.mark.parametrize(("info2_bytes", "items"), [(10, 100), (100_000, 0)])
def test_a_full_disk_leaves_nothing(tmp_path: Path, info2_bytes: int, items: int) -> None:
    """A file size limit stands in for it: writing an item fails, or the header already."""
    path = tmp_path / "r.jsonl"
    header = msgspec.structs.replace(REQUEST, euicc_info2={"T1": bytes(info2_bytes)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(CustodyError) as caught:  # noqa: PT012 - the limit must end before pytest writes
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
            with write_esbpp_request(path, header) as request:
                for _ in range(items):
                    request.add(wanted())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.code == "FILE.WRITE"
    assert list(tmp_path.iterdir()) == []


def test_the_body_of_the_block_keeps_its_own_errors(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), write_esbpp_request(tmp_path / "r.jsonl", REQUEST):
        raise ConnectionError("not the disk")
