"""A journal is copied while its station writes; one that lost its own goes on with numbers nobody has had."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ifpp.errors import CustodyError
from ifpp.station.journal import Journal
from ifpp.station.keep import copy_journal, new_journal
from tests.clock import FakeClock
from tests.station.records import numbered

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def journal_with(path: Path, events: int) -> None:
    with closing(Journal.open(path, "st01", FakeClock())) as journal:
        for number in range(1, events + 1):
            journal.events(numbered(number), {}).stored.result()


def numbers(path: Path) -> list[tuple[int, bool]]:
    """Number of each event, and whether it waits."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, acked_at IS NULL FROM outbox ORDER BY seq")
        return [(seq, bool(waits)) for seq, waits in rows]


def test_a_copy_is_taken_while_the_station_writes(tmp_path: Path) -> None:
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    with closing(Journal.open(path, "st01", FakeClock())) as journal:
        journal.events(numbered(1), {}).stored.result()
        copy_journal(path, copy)
        journal.events(numbered(2), {}).stored.result()
    assert numbers(copy) == [(1, True)]
    with pytest.raises(CustodyError, match=r"FILE\.WRITE.*not overwritten"):
        copy_journal(path, copy)
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("backup", [True, False], ids=["from a copy", "from nothing"])
def test_numbers_go_on_after_the_last_the_books_have(tmp_path: Path, backup: bool) -> None:
    copy, path = tmp_path / "copy.db", tmp_path / "journal.db"
    journal_with(copy, 2)
    new_journal(path, "st01", copy if backup else None, after=7, now=NOW)
    with closing(Journal.open(path, "st01", FakeClock())) as journal:
        assert journal.depth().result().count == 0, "the books have them"
        assert journal.next_session().result() > NOW.timestamp()
        journal.events(numbered(3), {}).stored.result()
        assert [row.seq for row in journal.unacked(0, 10).result()] == [8]
        assert journal.take_back_acks().result() == (2 if backup else 0)
    assert not list(tmp_path.glob("*.part*"))


def test_what_the_books_lack_is_sent_again(tmp_path: Path) -> None:
    copy, path = tmp_path / "copy.db", tmp_path / "journal.db"
    journal_with(copy, 3)
    new_journal(path, "st01", copy, after=1, now=NOW)
    assert numbers(path) == [(1, False), (2, True), (3, True)]


def test_what_is_no_copy_of_this_station_makes_no_journal(tmp_path: Path) -> None:
    path, other, noise = tmp_path / "journal.db", tmp_path / "other.db", tmp_path / "noise"
    journal_with(other, 1)
    noise.write_bytes(b"x" * 9000)
    for station, source, code in (
        ("st02", other, "CUSTODY.FOREIGN_JOURNAL"),
        ("st01", noise, "BACKUP.BROKEN"),
        ("st01", tmp_path / "none", "BACKUP.BROKEN"),
    ):
        with pytest.raises(CustodyError) as caught:
            new_journal(path, station, source, after=1, now=NOW)
        assert caught.value.code == code
    assert sorted(one.name for one in tmp_path.iterdir() if not one.name.endswith(".lock")) == ["noise", "other.db"]


def test_a_journal_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal_with(path, 1)
    with pytest.raises(CustodyError, match=r"FILE\.WRITE"):
        new_journal(path, "st01", None, after=5, now=NOW)
    assert numbers(path) == [(1, True)]
