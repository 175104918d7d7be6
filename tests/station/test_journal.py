"""The journal: what its futures promise, across restarts, foreign files and failing disks."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import Rejected, StateChanged
from ifpp.model.states import PackageState
from ifpp.station.journal import Journal, SentPackage, SettledPackage
from tests.clock import FakeClock


def event(number: int) -> StateChanged:
    return StateChanged(
        schema="state_changed/1.0",
        id=f"event-{number}",
        ts="2026-03-01T08:00:00.000Z",
        node_id="st01",
        boot_id="boot",
        resource="h01",
        old="SBY",
        old_code=2202,
        old_duration_ms=5,
        new="PRD",
        new_code=1100,
    )


SENT = SentPackage("attempt-1", "package-1", "eid", "iccid", "aa", "sha", "h01")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
    yield journal
    journal.close()


def store(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.events([("state_changed", event(number))]).result()


def test_events_get_numbers_from_one_without_gaps(journal: Journal) -> None:
    store(journal, 1, 2, 3)
    rows = journal.unacked(0, 10).result()
    assert [row.seq for row in rows] == [1, 2, 3]
    assert b'"seq":2' in rows[1].body


def test_numbers_go_on_after_a_restart_even_when_all_is_acknowledged(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
        store(journal, expected)
        assert [row.seq for row in journal.unacked(0, 10).result()] == [expected]
        journal.acknowledge(expected, []).result()
        journal.close()


def test_acknowledge_closes_through_and_keeps_the_reason_of_a_rejected_event(journal: Journal) -> None:
    store(journal, 1, 2, 3)
    rejected = [Rejected(seq=3, id="event-3", code="CUSTODY.EVENT_REFUSED", text="no such package")]
    journal.acknowledge(1, rejected).result()
    assert [row.seq for row in journal.unacked(0, 10).result()] == [2]
    assert journal.depth().result().count == 1


def test_an_acknowledgement_of_a_number_never_given_out_is_refused(journal: Journal) -> None:
    store(journal, 1)
    with pytest.raises(CustodyError) as caught:
        journal.acknowledge(7, []).result()
    assert caught.value.code == "CUSTODY.SEQ_CONFLICT"
    assert [row.seq for row in journal.unacked(0, 10).result()] == [1]


def test_a_rejection_of_another_event_under_the_same_number_changes_nothing(journal: Journal) -> None:
    store(journal, 1)
    journal.acknowledge(0, [Rejected(seq=1, id="somebody-elses", code="X", text="")]).result()
    assert journal.depth().result().count == 1


def test_one_failing_change_leaves_its_batch_alone(journal: Journal) -> None:
    journal.sent(SENT).result()
    twice, other = journal.sent(SENT), journal.events([("state_changed", event(1))])
    with pytest.raises(CustodyError):
        twice.result()
    other.result()
    assert journal.depth().result().count == 1


def test_outcome_and_event_are_committed_together(journal: Journal, tmp_path: Path) -> None:
    journal.sent(SENT).result()
    settled = SettledPackage("attempt-1", "package-1", PackageState.INSTALLED, True, "", b"\xbf\x37\x00")
    journal.close_unit([settled], [("unit_result", event(1))]).result()
    with sqlite3.connect(tmp_path / "journal.db") as reader:
        assert reader.execute("SELECT state, spent, pir FROM package").fetchall() == [("INSTALLED", 1, b"\xbf\x37\x00")]
        assert reader.execute("SELECT seq, name FROM outbox").fetchall() == [(1, "unit_result")]
    reader.close()


def test_attempts_and_sessions_count_across_restarts(tmp_path: Path) -> None:
    for expected in (1, 2):
        journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
        assert journal.next_attempt("eid").result() == expected
        assert journal.next_session().result() == expected
        journal.close()


def test_a_journal_of_another_station_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    with pytest.raises(CustodyError) as caught:
        Journal.open(path, "st02", FakeClock())
    assert caught.value.code == "CUSTODY.FOREIGN_JOURNAL"
    assert "st01" in caught.value.detail
    Journal.open(path, "st01", FakeClock()).close()


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CustodyError) as caught:
        Journal.open(path, "st01", FakeClock())
    assert caught.value.code == "CUSTODY.SCHEMA_NEWER"


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(CustodyError) as caught:
        Journal.open(path, "st01", FakeClock())
    assert caught.value.code == "JOURNAL.WRITE"
    assert path.read_bytes() == b"this is not a database" * 100


def test_a_journal_another_process_holds_is_refused_with_its_own_code(journal: Journal, tmp_path: Path) -> None:
    blocker = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    waiting = journal.events([("state_changed", event(1))])
    with pytest.raises(CustodyError) as caught:
        waiting.result(timeout=20)
    assert caught.value.code == "JOURNAL.WRITE"
    blocker.execute("ROLLBACK")
    blocker.close()
    store(journal, 1)
    assert journal.depth().result().count == 1


def test_a_done_future_survives_kill_9(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ifpp.model.clock import SystemClock
        from ifpp.station.journal import Journal, SentPackage
        journal = Journal.open(Path(sys.argv[1]), "st01", SystemClock())
        number = 0
        while True:
            number += 1
            journal.sent(SentPackage("a", str(number), "eid", "iccid", "aa", "sha", "h01")).result()
            print(number, flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "journal.db")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    promised = [int(process.stdout.readline()) for _ in range(25)][-1]
    os.kill(process.pid, signal.SIGKILL)
    promised += len(process.stdout.readlines())
    process.stdout.close()
    process.wait()
    with sqlite3.connect(tmp_path / "journal.db") as reader:
        kept = reader.execute("SELECT count(*) FROM package WHERE state = 'SENT'").fetchone()[0]
    reader.close()
    assert promised <= kept <= promised + 1
