"""Profile Loading Reports: complete, byte-exact, one for each SM-DPf."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ifpp.errors import CustodyError, ServiceError
from ifpp.line.report import Report, write_reports
from ifpp.store.records import ReceivedEvent
from ifpp.wire.documents import ReportItem, read_report
from tests.line.world import SMDP, GatedFactory, eid_of, iccid_of, profile_result, send_package, stock, unit_result

PIR = bytes.fromhex("bf3705bf27005f3700")  # opaque here: what the chip said goes out byte for byte


def settle(factory: GatedFactory, number: int, state: str, *, spent: bool, pir: bytes = b"", error: str = "") -> None:
    package = send_package(factory, number, f"attempt-{number}")
    result = profile_result(package, state, spent=spent, pir=pir, error=error)
    body = unit_result("st01", number, eid_of(number), result, result="PASS" if state == "INSTALLED" else "FAIL")
    (taken,) = factory.take_events([ReceivedEvent.parse("st01", body)], datetime.now(UTC))
    assert taken.rejected == ()


def written(
    factory: GatedFactory, folder: Path, *, since_s: float = 60, until_s: float = 60, unsaid: bool = False
) -> list[Report]:
    now = datetime.now(UTC) + timedelta(milliseconds=1)  # after what was taken in this millisecond
    start, end = now - timedelta(seconds=since_s), now + timedelta(seconds=until_s)
    return write_reports(factory, folder, start=start, end=end, now=now, unsaid=unsaid)


def items(report: Report) -> dict[str, ReportItem]:
    with report.path.open("rb") as stream:
        header, rows = read_report(stream)
        assert header.smdp_oid == report.smdp_oid == SMDP
        return {str(row.eid): row for row in rows}


def test_every_settled_package_is_reported_with_its_proof_or_its_fault(factory: GatedFactory, tmp_path: Path) -> None:
    stock(factory, 6)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)
    settle(factory, 2, "FAILED", spent=True, pir=PIR, error="EUICC.LOAD_REFUSED: reason 7")
    settle(factory, 3, "FAILED", spent=False, error="EUICC.NO_MEMORY")
    settle(factory, 4, "UNKNOWN", spent=False)
    settle(factory, 5, "UNKNOWN", spent=False, error="words without a code")
    (report,) = written(factory, tmp_path / "reports")
    assert (report.items, report.outstanding) == (5, 0)
    found = items(report)
    assert [found[eid_of(n)].outcome for n in range(1, 6)] == ["INSTALLED", "FAILED", "FAILED", "UNKNOWN", "UNKNOWN"]
    assert [found[eid_of(n)].pir for n in range(1, 6)] == [PIR, PIR, None, None, None]
    errors = [found[eid_of(n)].fpa_error for n in range(1, 6)]
    assert errors[0] is None
    codes = [(error.code, error.text) for error in errors if error is not None]
    assert codes[0] == ("EUICC.LOAD_REFUSED", "reason 7")
    assert codes[1][0] == "EUICC.NO_MEMORY"
    assert codes[1][1]
    assert codes[2:] == [("PIR.MISSING", "the chip gave no result"), ("INTERNAL", "words without a code")]
    first = found[eid_of(1)]
    assert (first.iccid, bytes(first.transaction_id)) == (iccid_of(1), bytes([1]) * 16)
    assert (first.station, first.head) == ("st01", "h01")


def test_what_a_report_has_said_the_next_one_does_not_repeat(factory: GatedFactory, tmp_path: Path) -> None:
    stock(factory, 3)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)
    settle(factory, 2, "UNKNOWN", spent=False)
    (first,) = written(factory, tmp_path, unsaid=True)
    assert set(items(first)) == {eid_of(1), eid_of(2)}
    assert written(factory, tmp_path, unsaid=True) == []
    settle(factory, 3, "INSTALLED", spent=True, pir=PIR)
    (second,) = written(factory, tmp_path, unsaid=True)
    assert set(items(second)) == {eid_of(3)}
    (whole,) = written(factory, tmp_path)
    assert whole.items == 3


def test_a_report_that_was_not_booked_has_said_nothing(
    factory: GatedFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(factory, 1)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)

    def away(*_: object) -> None:
        raise ServiceError("DATABASE.UNREACHABLE", "gone", where="test")

    with monkeypatch.context() as patch:
        patch.setattr(factory, "add_report", away)
        with pytest.raises(ServiceError):
            written(factory, tmp_path, unsaid=True)
    assert list(tmp_path.glob("*.plr.jsonl")) == []
    (report,) = written(factory, tmp_path, unsaid=True)
    assert set(items(report)) == {eid_of(1)}


def test_what_was_sent_and_has_no_result_is_counted_as_outstanding(factory: GatedFactory, tmp_path: Path) -> None:
    stock(factory, 2)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)
    send_package(factory, 2, "attempt-2")
    (report,) = written(factory, tmp_path)
    assert (report.items, report.outstanding) == (1, 1)


def test_the_window_is_half_open_and_an_empty_one_writes_nothing(factory: GatedFactory, tmp_path: Path) -> None:
    stock(factory, 1)
    assert written(factory, tmp_path) == []
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)
    assert written(factory, tmp_path, since_s=120, until_s=-60) == []
    assert list(tmp_path.glob("*.plr.jsonl")) == []
    assert len(written(factory, tmp_path)) == 1


def test_a_folder_that_cannot_be_made_is_named(factory: GatedFactory, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        written(factory, tmp_path / "file" / "reports")


def test_a_written_report_is_in_the_books(factory: GatedFactory, tmp_path: Path) -> None:
    stock(factory, 2)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)
    (report,) = written(factory, tmp_path)
    unit = factory.unit(eid_of(1))
    assert unit is not None
    (booked,) = unit.packages[0].reports
    assert (booked.file, booked.state, booked.acknowledged_at) == (report.path.name, "INSTALLED", "")
    assert booked.report_id in report.path.name


def test_a_report_that_cannot_be_booked_does_not_stay(
    factory: GatedFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody can find again must not be sent."""
    stock(factory, 1)
    settle(factory, 1, "INSTALLED", spent=True, pir=PIR)

    def away(*_arguments: object) -> None:
        raise ServiceError("DATABASE.UNREACHABLE", "gone")

    monkeypatch.setattr(factory, "add_report", away)
    with pytest.raises(ServiceError):
        written(factory, tmp_path / "reports")
    assert list((tmp_path / "reports").iterdir()) == []
