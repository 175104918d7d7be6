"""What a station says at its start of the process before it: open attempts, and the time nobody was there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from ifpp.model.messages import ClaimedPackage, UnitResultEvent
from ifpp.model.states import PackageState
from ifpp.station.attempt import Attempt, settled, under_way
from ifpp.station.journal import Journal
from ifpp.station.recovery import recover
from tests.clock import START, FakeClock
from tests.station.conftest import Logged
from tests.station.records import event, sent
from tests.station.test_attempt import INSTALLED, JOB, PACKAGE

HEADS = ["h01", "h02"]


@asynccontextmanager
async def life(path: Path, clock: FakeClock) -> AsyncIterator[Journal]:
    """One process of the station, from its start on; it dies at the end of the block: nothing is closed in order."""
    journal = Journal.open(path, "st01", clock)
    await recover(journal, "st01", HEADS, clock)
    yield journal
    journal.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as after:
        after.execute("INSERT INTO meta VALUES ('running', 'boot')")


def begin(attempt_id: str, *packages: ClaimedPackage) -> Attempt:
    attempt = Attempt(attempt_id, "h01", JOB, START, 0.0, seatings=1)
    attempt.eid, attempt.number = f"eid of {attempt_id}", 3
    for package in packages:
        attempt.conclude(package, under_way(package.iccid))
    return attempt


def will(attempt: Attempt, journal: Journal, clock: FakeClock) -> bytes:
    return attempt.will(station_id="st01", boot_id=journal.boot_id, now=clock.now(), now_s=clock.monotonic())


async def told(journal: Journal) -> list[dict[str, Any]]:
    rows = await asyncio.wrap_future(journal.unacked(0, 100))
    return [msgspec.json.decode(row.body) for row in rows]


async def test_a_first_start_says_nothing(tmp_path: Path) -> None:
    async with life(tmp_path / "journal.db", FakeClock()) as journal:
        assert await told(journal) == []


async def test_open_attempts_are_told_oldest_first_before_anything_new(tmp_path: Path, logged: Logged) -> None:
    path, clock = tmp_path / "journal.db", FakeClock()
    async with life(path, clock) as journal:
        for name in ("b", "a"):
            attempt = begin(name, PACKAGE)
            journal.sent(sent(name, "p1", attempt.eid), will(attempt, journal, clock)).result()
    clock.advance(30)
    async with life(path, clock) as journal:
        journal.events([("state_changed", event(1))]).stored.result()
        documents = await told(journal)
        assert [document["schema"] for document in documents] == [
            "unit_result/1.0",
            "unit_result/1.0",
            *["state_changed/1.0"] * 5,
        ]
        assert [document["transaction_id"] for document in documents[:2]] == ["b", "a"]
        assert documents[-1]["id"] == "event-1"
        assert list(journal.held().result()) == ["eid of a", "eid of b"]
    (entry,) = logged("hold unit EID eid of a until it was read again")
    assert entry["code"] == "STATION.DIED"


async def test_what_is_told_of_an_open_attempt(tmp_path: Path) -> None:
    """One package was settled by the chip's word, the other was under way."""
    path, clock = tmp_path / "journal.db", FakeClock()
    first = PACKAGE
    second = msgspec.structs.replace(PACKAGE, package_id="p2")
    async with life(path, clock) as journal:
        attempt = begin("a", first)
        journal.sent(sent("a", "p1"), will(attempt, journal, clock)).result()
        attempt.conclude(first, replace(INSTALLED, load_ms=40))
        clock.advance(2)
        journal.settled(settled("a", first, INSTALLED), will(attempt, journal, clock)).result()
        attempt.conclude(second, under_way(second.iccid))
        journal.sent(sent("a", "p2"), will(attempt, journal, clock)).result()
        died_in = journal.boot_id
    clock.advance(100)
    async with life(path, clock) as journal:
        rows = await asyncio.wrap_future(journal.unacked(0, 1))
        result = msgspec.json.decode(rows[0].body, type=UnitResultEvent)
        assert result.boot_id == journal.boot_id != died_in
    assert (result.transaction_id, result.attempt, result.job_order_id) == ("a", 3, JOB.job_order_id)
    assert (result.result, result.outcome_class, result.disposition) == ("ERROR", "AMBIGUOUS", "HOLD")
    assert [(row.package_id, row.package_state, row.key_consumed) for row in result.profiles] == [
        ("p1", "INSTALLED", True),
        ("p2", "UNKNOWN", False),
    ]
    assert result.defects[0].code == "STATION.DIED"
    assert (result.ts, result.ended_at) == ("2026-03-01T08:01:42.000Z", "2026-03-01T08:00:02.000Z")
    assert result.cycle_ms == 2000  # what the dead process knew, not the time nobody was there


async def test_an_attempt_is_told_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", FakeClock()
    async with life(path, clock) as journal:
        attempt = begin("a", PACKAGE)
        journal.sent(sent("a"), will(attempt, journal, clock)).result()
    for expected in (1, 1):
        async with life(path, clock) as journal:
            documents = await told(journal)
            assert sum(document["schema"] == "unit_result/1.0" for document in documents) == expected


async def test_the_journal_calls_unsettled_packages_unknown_from_then_on(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", FakeClock()
    async with life(path, clock) as journal:
        journal.sent(sent("a"), will(begin("a", PACKAGE), journal, clock)).result()
    async with life(path, clock):
        pass
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT state, reason FROM package").fetchall() == [
            (PackageState.UNKNOWN, "STATION.DIED")
        ]


async def test_the_time_nobody_was_there_was_unscheduled_down(tmp_path: Path) -> None:
    """Line contract 5.2, rule 5: from the last event to the start, for every head, marked as inferred."""
    path, clock = tmp_path / "journal.db", FakeClock()
    async with life(path, clock) as journal:
        clock.advance(10)
        working = msgspec.structs.replace(event(1), ts="2026-03-01T08:00:10.000Z")
        journal.events([("state_changed", working)]).stored.result()
        clock.advance(5)
        journal.events([("state_changed", event(2, resource="other"))]).stored.result()
    clock.advance(60)
    async with life(path, clock) as journal:
        changes = (await told(journal))[2:]
    assert [
        (row["resource"], row["old"], row["old_duration_ms"], row["new"], row["new_code"], row["ts"]) for row in changes
    ] == [
        ("h01", "PRD", 5_000, "UDT", 5000, "2026-03-01T08:00:15.000Z"),
        ("h01", "UDT", 60_000, "SBY", 2202, "2026-03-01T08:01:15.000Z"),
        ("h02", "SBY", 15_000, "UDT", 5000, "2026-03-01T08:00:15.000Z"),
        ("h02", "UDT", 60_000, "SBY", 2202, "2026-03-01T08:01:15.000Z"),
    ]
    assert all(row["inferred"] is True and row["reason"] == "STATION.DIED" for row in changes)


async def test_a_head_that_was_down_stays_down_until_the_start(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", FakeClock()
    async with life(path, clock) as journal:
        journal.events([("state_changed", event(1, new="UDT", code=5300))]).stored.result()
    clock.advance(60)
    async with life(path, clock) as journal:
        changes = [row for row in await told(journal) if row["resource"] == "h01"][1:]
    assert [(row["old"], row["old_code"], row["old_duration_ms"], row["new"]) for row in changes] == [
        ("UDT", 5300, 60_000, "SBY")
    ]


async def test_a_station_that_was_stopped_in_order_was_not_down(tmp_path: Path) -> None:
    path, clock = tmp_path / "journal.db", FakeClock()
    for _ in range(2):
        journal = Journal.open(path, "st01", clock)
        await recover(journal, "st01", HEADS, clock)
        assert await told(journal) == []
        journal.close()
        clock.advance(1000)


async def test_a_clock_that_stepped_back_gives_no_negative_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    late = FakeClock()
    late.advance(1000)
    async with life(path, late) as journal:
        journal.events([("state_changed", event(1))]).stored.result()
    async with life(path, FakeClock()) as journal:
        changes = (await told(journal))[1:]
    assert all(row["old_duration_ms"] >= 0 for row in changes)
