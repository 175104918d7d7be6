"""Stamps, identifiers and the fake clock the other tests trust."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ifpp.model.clock import SystemClock, parse_utc, pause, utc_ms_text, uuid7
from tests.clock import START, FakeClock


def test_stamp_is_utc_with_milliseconds_and_z() -> None:
    paris = timezone(timedelta(hours=2))
    assert utc_ms_text(datetime(2026, 7, 1, 2, 0, 0, 123_999, tzinfo=paris)) == "2026-07-01T00:00:00.123Z"


def test_stamp_keeps_its_width_on_a_full_second() -> None:
    assert utc_ms_text(START) == "2026-03-01T08:00:00.000Z"


def test_naive_times_are_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        utc_ms_text(datetime(2026, 1, 1))  # noqa: DTZ001 - the fault under test
    with pytest.raises(ValueError, match="zone"):
        parse_utc("2026-01-01T00:00:00")


def test_parse_is_the_inverse_of_text() -> None:
    assert parse_utc(utc_ms_text(START)) == START
    assert parse_utc("2026-03-01T10:00:00+02:00") == START


def test_uuid7_has_version_variant_and_time() -> None:
    made = uuid.UUID(uuid7(START))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == int(START.timestamp() * 1000)


def test_uuid7_sorts_by_time_and_never_repeats() -> None:
    stamps = [START + timedelta(milliseconds=n) for n in range(50)]
    made = [uuid7(at) for at in stamps]
    assert made == sorted(made)
    assert len({uuid7(START) for _ in range(1000)}) == 1000


async def test_system_clock_is_utc_and_sleeps() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.01


async def test_fake_clock_wakes_only_those_whose_time_has_come() -> None:
    clock = FakeClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("late", 5), name="late")
        tasks.create_task(sleeper("soon", 1), name="soon")
        await asyncio.sleep(0)
        clock.advance(1)
        await asyncio.sleep(0)
        assert woken == ["soon"]
        assert clock.sleepers == 1
        clock.advance(4)
    assert woken == ["soon", "late"]
    assert clock.now() == START + timedelta(seconds=5)


async def test_pause_ends_by_time_or_by_the_event() -> None:
    clock, stop = FakeClock(), asyncio.Event()
    waiting = asyncio.create_task(pause(clock, 10, stop), name="by time")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(10)
    assert await waiting is False
    waiting = asyncio.create_task(pause(clock, 10, stop), name="by event")
    await asyncio.sleep(0)
    stop.set()
    assert await waiting is True
