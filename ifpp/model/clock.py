"""Time and fresh identifiers: passed in everywhere, so that a test owns both.

Stamps are UTC (RFC 3339 with milliseconds and ``Z``); durations are monotonic seconds, never differences of stamps.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """What a process may know about time."""

    def now(self) -> datetime:
        """Return the time of day, with time zone UTC."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start that never step back."""

    async def sleep(self, seconds: float) -> None:
        """Return after at least so many monotonic seconds."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def utc_ms_text(at: datetime) -> str:
    """Return an aware time as RFC 3339 UTC text of fixed width: ``2026-03-01T08:15:30.123Z``.

    The fixed width makes texts sort like the times they stand for. Raises ValueError on a time without zone.
    """
    if at.tzinfo is None:
        raise ValueError("a time without zone cannot be written as UTC")
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Return the UTC time an RFC 3339 text names; raises ValueError when it is none or carries no offset."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no time zone")
    return at.astimezone(UTC)


def uuid7(at: datetime) -> str:
    """Return a new UUID version 7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Made once when a fact is recorded, never again on resend; database keys of one table stay close together.
    """
    milliseconds = int(at.timestamp() * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return str(UUID(int=value))


async def pause(clock: Clock, seconds: float, until: asyncio.Event) -> bool:
    """Sleep, but no longer than until the event is set; returns whether it is set."""
    waits = {asyncio.ensure_future(until.wait()), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return until.is_set()
