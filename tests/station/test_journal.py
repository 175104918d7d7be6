"""The journal: what its futures promise, across restarts and kills; which files it refuses."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import CustodyError
from ifpp.model.messages import Rejected
from ifpp.model.states import PackageState
from ifpp.station.journal import Journal
from ifpp.station.records import Whereabouts
from ifpp.station.tables import SCHEMA_VERSION, TABLES
from tests.clock import FakeClock
from tests.station.records import HOLD, closed, event, numbered, sent, settled, store

S = PackageState


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def journal(tmp_path: Path, clock: FakeClock) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal.db", "st01", clock)
    yield journal
    journal.close()


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as reader:
        return reader.execute(query).fetchall()


# ---- the outbox ---------------------------------------------------------------------------------------


def test_events_get_numbers_from_one_without_gaps(journal: Journal) -> None:
    store(journal, 1, 2, 3)
    waiting = journal.unacked(0, 10).result()
    assert [row.seq for row in waiting] == [1, 2, 3]
    assert b'"seq":2' in waiting[1].body


def test_numbers_go_on_after_a_restart_even_when_all_is_acknowledged(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
        store(journal, expected)
        assert [row.seq for row in journal.unacked(0, 10).result()] == [expected]
        journal.acknowledge(expected, []).result()
        journal.close()


def test_acknowledge_closes_through_and_keeps_the_reason_of_a_rejected_event(journal: Journal, tmp_path: Path) -> None:
    store(journal, 1, 2, 3)
    rejected = [Rejected(seq=3, id="event-3", code="CUSTODY.EVENT_REFUSED", text="no such package")]
    journal.acknowledge(1, rejected).result()
    assert [row.seq for row in journal.unacked(0, 10).result()] == [2]
    depth = journal.depth().result()
    assert (depth.count, depth.rejected) == (1, 1)
    parked = rows(tmp_path / "journal.db", "SELECT seq, rejected FROM outbox WHERE rejected IS NOT NULL")
    assert parked == [(3, "CUSTODY.EVENT_REFUSED: no such package")]


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


def test_a_late_rejection_does_not_overwrite_a_delivery(journal: Journal) -> None:
    store(journal, 1)
    journal.acknowledge(1, []).result()
    journal.acknowledge(1, [Rejected(seq=1, id="event-1", code="X", text="")]).result()
    assert journal.depth().result().rejected == 0


def test_an_event_is_stored_once_however_often_it_is_brought(journal: Journal) -> None:
    store(journal, 1, 1)
    store(journal, 2)
    assert [row.seq for row in journal.unacked(0, 10).result()] == [1, 2]


def test_delivered_events_are_removed_when_old_and_nothing_else_is(journal: Journal, clock: FakeClock) -> None:
    store(journal, 1, 2, 3, 4)
    journal.acknowledge(3, [Rejected(seq=2, id="event-2", code="X", text="")]).result()
    clock.advance(100)
    store(journal, 5, 6)
    journal.acknowledge(5, []).result()  # 4 and 5 only now
    clock.advance(100)
    assert journal.purge("2026-03-01T08:01:40.000Z").result() == 2
    assert journal.range().result() == (2, 7)
    assert journal.purge("2026-03-01T09:00:00.000Z").result() == 2
    assert [row.seq for row in journal.unacked(0, 10).result()] == [6]
    assert journal.depth().result().rejected == 1


def test_the_newest_event_stays_however_old_it_is(journal: Journal, clock: FakeClock) -> None:
    store(journal, 1, 2)
    journal.acknowledge(2, []).result()
    clock.advance(100)
    assert journal.purge("2027-01-01T00:00:00.000Z").result() == 1
    store(journal, 3)
    assert [row.seq for row in journal.unacked(0, 10).result()] == [3]


def test_a_purge_takes_no_more_than_it_is_asked_to(journal: Journal) -> None:
    store(journal, *range(1, 8))
    journal.acknowledge(7, []).result()
    removed = [journal.purge("2027-01-01T00:00:00.000Z", 4).result() for _ in range(3)]
    assert removed == [4, 2, 0]


# ---- units --------------------------------------------------------------------------------------------


def test_one_failing_change_leaves_its_batch_alone(journal: Journal) -> None:
    journal.sent(sent(), b"").result()
    twice, other = journal.sent(sent(), b""), journal.events(numbered(1))
    with pytest.raises(CustodyError):
        twice.result()
    other.stored.result()
    assert journal.depth().result().count == 1


def test_outcome_and_event_are_committed_together(journal: Journal, tmp_path: Path) -> None:
    journal.sent(sent(), b"will").result()
    unit = closed("a1", settled(S.INSTALLED, pir=b"\xbf\x37\x00"))
    unit.events.append(("unit_result", event(1)))
    assert journal.close_unit(unit).tried.result() is True
    assert rows(tmp_path / "journal.db", "SELECT state, spent, pir FROM package") == [("INSTALLED", 1, b"\xbf\x37\x00")]
    assert rows(tmp_path / "journal.db", "SELECT seq, name FROM outbox") == [(1, "unit_result")]
    assert rows(tmp_path / "journal.db", "SELECT * FROM will") == []


def test_a_unit_is_held_until_a_later_attempt_learns_what_became_of_its_package(journal: Journal) -> None:
    journal.sent(sent("a1"), b"").result()
    journal.close_unit(closed("a1", settled(S.UNKNOWN, "a1"))).stored.result()
    assert journal.held().result() == {"eid": f"{HOLD.code}: {HOLD.action}"}
    journal.close_unit(closed("a2")).stored.result()  # did not come as far as the chip
    journal.close_unit(closed("a3", judged=True)).stored.result()  # the chip spoke, not of this package
    assert list(journal.held().result()) == ["eid"]
    journal.close_unit(closed("a4", settled(S.FAILED, "a4"), judged=True)).stored.result()
    assert journal.held().result() == {}


def test_an_attempt_that_learns_nothing_resolves_nothing(journal: Journal) -> None:
    """It read the chip, sent nothing, and the package is UNKNOWN still."""
    journal.sent(sent("a1"), b"").result()
    journal.close_unit(closed("a1", settled(S.UNKNOWN, "a1"))).stored.result()
    journal.close_unit(closed("a2", settled(S.UNKNOWN, "a2"))).stored.result()
    journal.close_unit(closed("a3", judged=True)).stored.result()
    assert list(journal.held().result()) == ["eid"]


def test_knowing_the_package_is_not_enough_the_unit_has_to_be_judged(journal: Journal) -> None:
    """Contact is lost again after the chip's result was read: it is installed, and not sealed."""
    journal.sent(sent("a1"), b"").result()
    journal.close_unit(closed("a1", settled(S.UNKNOWN, "a1"))).stored.result()
    journal.close_unit(closed("a2", settled(S.INSTALLED, "a2"))).stored.result()
    assert list(journal.held().result()) == ["eid"]
    journal.close_unit(closed("a3", judged=True, finished=True)).stored.result()
    assert journal.held().result() == {}


def test_a_unit_the_books_call_finished_is_held_no_longer(journal: Journal, tmp_path: Path) -> None:
    """Another station settled it: nothing of it is said here but that it is done."""
    journal.sent(sent("a1"), b"").result()
    journal.close_unit(closed("a1", settled(S.UNKNOWN, "a1"))).stored.result()
    journal.close_unit(closed("a2", judged=True, finished=True)).stored.result()
    assert journal.held().result() == {}
    assert rows(tmp_path / "journal.db", "SELECT state, resolved_by FROM package") == [("UNKNOWN", "a2")]


def test_one_units_end_says_nothing_of_another(journal: Journal) -> None:
    for eid in ("eid-1", "eid-2"):
        journal.sent(sent(f"a-{eid}", "p1", eid), b"").result()
        journal.close_unit(closed(f"a-{eid}", settled(S.UNKNOWN, f"a-{eid}"), eid=eid)).stored.result()
    journal.close_unit(closed("b", settled(S.FAILED, "b"), eid="eid-1", judged=True, finished=True)).stored.result()
    assert list(journal.held().result()) == ["eid-2"]


def test_the_newest_stored_result_of_a_package_is_given_back(journal: Journal) -> None:
    assert journal.result("eid", "p1").result() is None
    for attempt, pir in (("a1", b"old"), ("a2", b"new"), ("a3", None)):
        journal.sent(sent(attempt), b"").result()
        journal.settled(settled(S.FAILED, attempt, pir=pir), b"").result()
    assert journal.result("eid", "p1").result() == b"new"
    assert journal.result("another", "p1").result() is None


def test_attempts_and_sessions_count_across_restarts(tmp_path: Path) -> None:
    for expected in (1, 2):
        journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
        assert journal.next_attempt("eid").result() == expected
        assert journal.next_session().result() == expected
        journal.close()


# ---- what a process leaves behind -------------------------------------------------------------------


def test_open_attempts_are_found_with_their_newest_will_oldest_first(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
    for attempt in ("b", "a", "c"):
        journal.sent(sent(attempt, eid=attempt), b"sent " + attempt.encode()).result()
    journal.settled(settled(S.INSTALLED, "a"), b"settled a").result()
    journal.close_unit(closed("c", settled(S.INSTALLED, "c"), eid="c")).stored.result()
    journal.close()
    journal = Journal.open(tmp_path / "journal.db", "st01", FakeClock())
    assert journal.left_open().result().wills == [b"sent b", b"settled a"]
    journal.close()


def test_a_journal_that_was_not_closed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    place = {"h01": Whereabouts("SBY", 2202, "2026-03-01T08:00:00.000Z")}
    journal = Journal.open(path, "st01", FakeClock())
    assert journal.left_open().result().died is False
    journal.begin([], [], place).stored.result()
    journal.events([("state_changed", event(1, "h02", "UDT", 5300))]).stored.result()
    left = journal.left_open().result()
    assert left.died is True
    assert left.last_at == "2026-03-01T08:00:00.000Z"
    assert left.resources == place | {"h02": Whereabouts("UDT", 5300, "2026-03-01T08:00:00.000Z")}
    journal.close()
    journal = Journal.open(path, "st01", FakeClock())
    assert journal.left_open().result().died is False
    journal.close()


def test_a_done_future_survives_kill_9(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from ifpp.model.clock import SystemClock
        from ifpp.station.journal import Journal
        from ifpp.station.records import SentPackage
        journal = Journal.open(Path(sys.argv[1]), "st01", SystemClock())
        number = 0
        while True:
            number += 1
            journal.sent(SentPackage("a", str(number), "eid", "iccid", "aa", "sha", "h01"), b"").result()
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
    ((kept,),) = rows(tmp_path / "journal.db", "SELECT count(*) FROM package WHERE state = 'SENT'")
    assert promised <= kept <= promised + 1


# ---- files that are refused ---------------------------------------------------------------------------


def refusal(path: Path, station_id: str = "st01") -> CustodyError:
    with pytest.raises(CustodyError) as caught:
        Journal.open(path, station_id, FakeClock())
    return caught.value


def test_a_journal_of_another_station_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    error = refusal(path, "st02")
    assert error.code == "CUSTODY.FOREIGN_JOURNAL"
    assert "st01" in error.detail
    Journal.open(path, "st01", FakeClock()).close()


def test_a_journal_of_version_2_is_taken_over_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(TABLES)
        connection.execute("PRAGMA user_version = 2")
        connection.execute("INSERT INTO meta VALUES ('station_id', 'st01')")
        connection.execute("INSERT INTO hold VALUES ('eid', 'since', 'PIR.MISSING', 'hold it')")
    for lives in ({}, {"h01": b"a life"}):
        journal = Journal.open(path, "st01", FakeClock())
        assert journal.held().result() == {"eid": "PIR.MISSING: hold it"}
        assert journal.lives().result() == lives
        journal.close_unit(closed("a1", life=("h01", b"a life"))).stored.result()
        journal.close()
    assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_the_life_of_a_head_is_stored_with_what_changed_it(journal: Journal) -> None:
    journal.close_unit(closed("a1", life=("h01", b"after a unit"))).stored.result()
    journal.events(numbered(1), {"h01": b"after a command", "h02": b"another"}).stored.result()
    assert journal.lives().result() == {"h01": b"after a command", "h02": b"another"}
    assert journal.told("event-1").result() is True
    assert journal.told("event-2").result() is False


@pytest.mark.parametrize(("version", "code"), [(99, "CUSTODY.SCHEMA_NEWER"), (1, "CUSTODY.SCHEMA_OLDER")])
def test_a_journal_of_another_version_is_refused(tmp_path: Path, version: int, code: str) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(f"UPDATE meta SET value = '{version}' WHERE key = 'works_since'")
        connection.commit()
    assert refusal(path).code == code


def test_a_station_may_go_back_to_the_ifpp_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE something_new (what TEXT) STRICT")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    journal = Journal.open(path, "st01", FakeClock())
    journal.events(numbered(1), {}).stored.result()
    journal.close()
    assert rows(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is not a database" * 100)
    assert refusal(path).code == "JOURNAL.WRITE"
    assert path.read_bytes() == b"this is not a database" * 100


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere" / "journal.db").code == "JOURNAL.WRITE"


def test_a_journal_serves_one_process_only(journal: Journal, tmp_path: Path) -> None:
    """A second station process would take the first one's units for those of a dead one."""
    path = tmp_path / "journal.db"
    assert refusal(path).code == "CUSTODY.JOURNAL_IN_USE"
    store(journal, 1)


def test_a_refused_journal_can_be_opened_by_its_owner_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal.open(path, "st01", FakeClock()).close()
    refusal(path, "st02")
    Journal.open(path, "st01", FakeClock()).close()
