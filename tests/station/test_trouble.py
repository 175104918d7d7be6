"""A journal that cannot be written: what is kept waits in order, the rest fails, reading goes on, nothing is lost."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ifpp.errors import CustodyError
from ifpp.model.states import PackageState
from ifpp.station.journal import Journal
from tests.clock import FakeClock
from tests.real.small_disk import SmallDisk, small_disk
from tests.station.records import closed, numbered, sent, settled, store

S = PackageState
RETRY_S = (0.01, 0.05)


class Subject:
    """A journal and what it said about its trouble, in order."""

    def __init__(self, path: Path, retry_s: tuple[float, float] = RETRY_S) -> None:
        self.path = path
        self.journal = Journal.open(path, "st01", FakeClock(), busy_timeout_s=0.05, retry_s=retry_s)
        self._said: queue.SimpleQueue[CustodyError | None] = queue.SimpleQueue()
        self.journal.watch(self._said.put)

    def hears(self) -> str:
        """Wait for the next word: the detail of the trouble, or "" when it is over."""
        fault = self._said.get(timeout=10)
        assert fault is None or fault.code == "JOURNAL.WRITE"
        return "" if fault is None else fault.detail

    def silent(self) -> bool:
        return self._said.empty()

    def ids(self) -> list[int]:
        """Which events are stored, by their test numbers, in order."""
        with closing(sqlite3.connect(self.path)) as reader:
            return [int(row[0].split("-")[1]) for row in reader.execute("SELECT id FROM outbox ORDER BY seq")]

    def fails(self, future: Future[Any]) -> str:
        with pytest.raises(CustodyError) as caught:
            future.result(10)
        return caught.value.code


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    subject = Subject(tmp_path / "journal.db")
    yield subject
    subject.journal.close()  # a second time after a test that did it


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else holds the write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


def test_what_is_kept_is_stored_in_order_when_the_lock_is_gone(subject: Subject) -> None:
    store(subject.journal, 1)
    with locked(subject.path):
        owed = [subject.journal.events(numbered(number)) for number in (2, 3, 4)]
        assert owed[0].tried.result(10) is False
        assert "locked" in subject.hears()
        assert not owed[0].stored.done()
    for kept in owed:
        kept.stored.result(10)
    assert subject.hears() == ""
    assert subject.ids() == [1, 2, 3, 4]
    assert [row.seq for row in subject.journal.unacked(0, 10).result()] == [1, 2, 3, 4]


def test_what_comes_later_stays_behind_what_is_owed(tmp_path: Path) -> None:
    """Writing works again, but the next try has not come: nothing overtakes."""
    subject = Subject(tmp_path / "journal.db", retry_s=(60, 60))
    with locked(subject.path):
        assert subject.journal.events(numbered(1)).tried.result(10) is False
    late = subject.journal.events(numbered(2))
    assert late.tried.result(10) is False
    assert subject.fails(subject.journal.sent(sent(), b"")) == "JOURNAL.WRITE"
    subject.journal.close()
    late.stored.result(10)
    assert subject.ids() == [1, 2]


def test_who_stops_waiting_does_not_stop_the_change_nor_the_writer(subject: Subject) -> None:
    with locked(subject.path):
        subject.journal.sent(sent("a1"), b"")  # the writer waits for the lock
        given_up: list[Future[Any]] = [subject.journal.next_attempt("eid"), subject.journal.events(numbered(1)).stored]
        assert not any(future.cancel() for future in given_up)
        assert subject.hears()
    assert subject.hears() == ""
    store(subject.journal, 2)
    assert subject.ids() == [1, 2]


def test_in_trouble_intents_fail_at_once_and_reading_goes_on(subject: Subject) -> None:
    store(subject.journal, 1)
    with locked(subject.path):
        assert subject.journal.events(numbered(2)).tried.result(10) is False
        assert subject.fails(subject.journal.sent(sent(), b"")) == "JOURNAL.WRITE"
        assert subject.fails(subject.journal.next_attempt("eid")) == "JOURNAL.WRITE"
        assert [row.seq for row in subject.journal.unacked(0, 10).result(10)] == [1]
        assert subject.journal.depth().result(10).count == 1
        assert subject.journal.held().result(10) == {}
    assert subject.hears()
    assert subject.hears() == ""
    assert subject.journal.next_attempt("eid").result(10) == 1


def test_an_intent_alone_finds_the_trouble_and_its_end(subject: Subject) -> None:
    """Nothing is owed: the journal proves by itself that writing works again."""
    with locked(subject.path):
        assert subject.fails(subject.journal.sent(sent(), b"")) == "JOURNAL.WRITE"
        assert subject.hears()
    assert subject.hears() == ""
    subject.journal.sent(sent(), b"").result(10)


def test_trouble_is_told_once_however_long_it_lasts(subject: Subject) -> None:
    with locked(subject.path):
        first = subject.journal.events(numbered(1))
        assert subject.hears()
        for number in range(2, 30):
            assert subject.journal.events(numbered(number)).tried.result(10) is False
        assert subject.silent()
    first.stored.result(10)
    assert subject.hears() == ""
    assert subject.journal.depth().result(10).count == 29
    assert subject.ids() == list(range(1, 30))


def test_a_session_number_is_given_out_in_trouble_and_never_steps_back(subject: Subject) -> None:
    assert subject.journal.next_session().result(10) == 1
    with locked(subject.path):
        assert subject.journal.next_session().result(10) == 2
        assert subject.journal.next_session().result(10) == 3
    assert subject.hears()
    assert subject.hears() == ""
    subject.journal.close()
    again = Journal.open(subject.path, "st01", FakeClock())
    assert again.next_session().result(10) == 4
    again.close()


def test_an_impossible_record_is_given_up_and_the_others_are_stored(subject: Subject) -> None:
    bad = closed("a1")
    bad.events.append((None, numbered(7)[0][1]))  # type: ignore[arg-type]  # the column takes no NULL
    with locked(subject.path):
        owed = [
            subject.journal.events(numbered(1)),
            subject.journal.close_unit(bad),
            subject.journal.events(numbered(2)),
        ]
        assert owed[2].tried.result(10) is False
    owed[2].stored.result(10)
    with pytest.raises(CustodyError) as caught:
        owed[1].stored.result(10)
    assert caught.value.code == "CUSTODY.TRANSITION"
    assert subject.ids() == [1, 2]


def test_closing_tries_once_more_and_then_gives_up_aloud(subject: Subject) -> None:
    subject.journal.begin([], [], {}).stored.result(10)
    with locked(subject.path):
        owed = subject.journal.events(numbered(1))
        assert owed.tried.result(10) is False
        subject.journal.close()
        assert subject.fails(owed.stored) == "JOURNAL.WRITE"
    again = Journal.open(subject.path, "st01", FakeClock())
    assert again.left_open().result(10).died is True  # it did not end in order
    again.close()


def test_a_full_disk(tmp_path: Path) -> None:
    """The verdict of a unit comes when no byte is free: it waits, and is stored when there is room."""
    with small_disk(tmp_path / "disk") as disk:
        subject = Subject(disk.folder / "journal.db")
        subject.journal.sent(sent("a1"), b"will").result(10)
        _press(disk, subject)
        unit = closed("a1", settled(S.INSTALLED, "a1", pir=b"\xbf\x37" * 100), judged=True, finished=True)
        unit.events.extend(numbered(10_000))
        kept = subject.journal.close_unit(unit)
        assert kept.tried.result(10) is False
        assert "full" in subject.hears()
        assert subject.journal.left_open().result(10).wills == [b"will"]
        disk.clear()
        kept.stored.result(10)
        assert subject.hears() == ""
        assert subject.journal.left_open().result(10).wills == []
        assert subject.ids()[-1] == 10_000
        subject.journal.close()
        with closing(sqlite3.connect(subject.path)) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _press(disk: SmallDisk, subject: Subject) -> None:
    """Fill the disk, and the pages the write-ahead log had left over."""
    disk.fill()
    number = 0
    while subject.journal.events(numbered(number := number + 1)).tried.result(10):
        assert number < 1000
    subject.hears()
    disk.clear()
    while subject.hears():
        pass
    disk.fill()


def test_a_journal_that_was_taken_away_stores_nothing_more(subject: Subject) -> None:
    """SQLite would go on writing into a file that has no name any more."""
    store(subject.journal, 1)
    hidden = subject.path.rename(subject.path.with_suffix(".away"))
    kept = subject.journal.events(numbered(2))
    assert kept.tried.result(10) is False
    assert "taken away" in subject.hears()
    hidden.rename(subject.path)
    kept.stored.result(10)
    assert subject.hears() == ""
    assert subject.ids() == [1, 2]


def test_a_journal_that_becomes_corrupt_stores_nothing_more(subject: Subject) -> None:
    store(subject.journal, 1)
    with closing(sqlite3.connect(subject.path, isolation_level=None)) as other:
        other.execute("INSERT INTO meta VALUES ('other', 'x')")  # its pages must be read anew
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    good = subject.path.read_bytes()
    with subject.path.open("r+b") as file:
        file.write(b"\xff" * len(good))
    kept = subject.journal.events(numbered(2))
    assert kept.tried.result(10) is False
    assert subject.hears()
    assert subject.fails(subject.journal.sent(sent(), b"")) == "JOURNAL.WRITE"
    subject.journal.close()
    assert subject.fails(kept.stored) == "JOURNAL.WRITE"
    with pytest.raises(CustodyError):
        Journal.open(subject.path, "st01", FakeClock())
    with subject.path.open("r+b") as file:  # somebody brings back the copy
        file.write(good)
    again = Journal.open(subject.path, "st01", FakeClock())
    store(again, 2)
    again.close()
    assert subject.ids() == [1, 2]
